//! The short way: objects in, a running module out.

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::alloc::{AllocError, LowAllocator};
use crate::place::{PlaceError, Placer};

use super::error::LinkFailure;
use super::export::{ExportError, ModuleExports, unload_deferred};
use super::mirrors::Mirrors;
use super::module::{Arguments, Module};
use super::options::LinkOptions;
use super::pending::Pending;
use super::process::{LibraryError, ProcessSymbols};
use super::resolve::{Chain, Definitions, ExternalKind, ExternalSymbol, SymbolResolver};
use super::{Input, Link, LinkError};

/// Why a load failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The objects do not link.
    #[error(transparent)]
    Link(#[from] LinkFailure),
    /// There is no low memory.
    #[error(transparent)]
    Memory(#[from] AllocError),
    /// Protection of the GOT was refused.
    #[error(transparent)]
    Protect(#[from] PlaceError),
}

impl From<LinkError> for SessionError {
    fn from(error: LinkError) -> Self {
        Self::Link(error.into())
    }
}

/// Loads modules into low memory, each linked against given definitions and the process.
///
/// ```
/// use low2g::link::{Input, Session};
/// # fn object() -> Vec<u8> { std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/demo/demo.o")).unwrap() }
/// let session = Session::new()?;
/// let input = Input::from_bytes("demo.o", object());
/// // SAFETY: demo.o has no constructors, and demo_sum(int) -> long is its function.
/// let module = unsafe { session.load(&[input]) }?;
/// let sum = unsafe { module.function::<extern "C" fn(i32) -> i64>("demo_sum") }.expect("defined");
/// assert!((sum as usize) < 0x7f00_0000 && sum(4) == 30);
/// # Ok::<(), low2g::link::SessionError>(())
/// ```
#[derive(Debug)]
pub struct Session {
    allocator: LowAllocator,
    definitions: Definitions,
    resolver: Option<Box<dyn SymbolResolver + Send + Sync>>,
    process: ProcessSymbols,
    options: LinkOptions,
    /// In the order of their loading.
    modules: Mutex<Vec<Weak<Module>>>,
    mirrors: Arc<Mirrors>,
}

impl Session {
    /// A session with randomized placement below 2 GiB and the process's symbols.
    ///
    /// # Errors
    /// This process has no low memory.
    pub fn new() -> Result<Self, AllocError> {
        Ok(Self::with_allocator(LowAllocator::new()?))
    }

    /// A session whose modules `allocator` places.
    #[must_use]
    pub fn with_allocator(allocator: LowAllocator) -> Self {
        Self {
            allocator,
            definitions: Definitions::default(),
            resolver: None,
            process: ProcessSymbols::new().with_exit_functions(),
            options: LinkOptions::default(),
            modules: Mutex::new(Vec::new()),
            mirrors: Arc::default(),
        }
    }

    /// Options of the links to come.
    #[must_use]
    pub fn options(mut self, options: LinkOptions) -> Self {
        self.options = options;
        self
    }

    /// Takes symbols from libraries that are opened only, not from the whole process.
    #[must_use]
    pub fn without_process_symbols(mut self) -> Self {
        self.process = ProcessSymbols::new().with_exit_functions().libraries_only();
        self
    }

    /// Asks `resolver` for what no definition names, before modules loaded earlier. It must answer
    /// with what is true.
    pub fn set_resolver(&mut self, resolver: Option<Box<dyn SymbolResolver + Send + Sync>>) {
        self.resolver = resolver;
    }

    /// Defines a function of the host under `name`, before the process's own symbols.
    pub fn define_function(&mut self, name: impl Into<String>, addr: *const ()) {
        self.define(name, addr, 0, ExternalKind::Function);
    }

    /// Defines a variable of the host, `size` bytes at `addr`.
    pub fn define_data(&mut self, name: impl Into<String>, addr: *const (), size: u64) {
        self.define(name, addr, size, ExternalKind::Data);
    }

    /// Lets links to come use the thread-local variable `name` of a module of another session:
    /// one copy a thread, for all who use it. Returns `false` if the module has no such
    /// variable. `module` must be loaded as long as what was linked so.
    pub fn define_thread_local(&mut self, name: &str, module: &Module) -> bool {
        let symbol = module.thread_local_symbol(name);
        symbol
            .map(|symbol| self.definitions.insert(name, symbol))
            .is_some()
    }

    fn define(&mut self, name: impl Into<String>, addr: *const (), size: u64, kind: ExternalKind) {
        let addr = low2g_platform::to_u64(addr.expose_provenance());
        self.definitions
            .insert(name, ExternalSymbol { addr, size, kind });
    }

    /// Opens a shared library whose symbols are asked before the process's, by path or soname.
    /// The path of a linker script stands for the shared libraries that it names.
    ///
    /// # Errors
    /// The dynamic linker's words; a script that names archives, which are to be loaded.
    pub fn open_library(&mut self, name: &str) -> Result<(), LibraryError> {
        let fail = |reason| LibraryError {
            name: name.to_owned(),
            reason,
        };
        let script = Input::script_at(name).map_err(|error| fail(error.to_string()))?;
        let Some(script) = script else {
            return self.process.open(name);
        };
        if let Some(archive) = script.script().and_then(|script| script.inputs.first()) {
            return Err(fail(format!(
                "it is a linker script that names {}, which is no shared library: load it as an input",
                archive.name()
            )));
        }
        for library in script.libraries() {
            self.process.open(&library.to_string_lossy())?;
        }
        Ok(())
    }

    /// Links `inputs` (objects and archives), then runs their ifunc resolvers and
    /// constructors. Nothing stays mapped on an error.
    ///
    /// What the objects do not define comes from the definitions given, then from modules
    /// loaded earlier in this session (the first that has it), then from libraries and the
    /// process. A module whose symbols are used stays loaded until its users are gone.
    ///
    /// # Errors
    /// Malformed inputs, undefined or duplicate symbols, relocations that do not fit, no memory.
    ///
    /// # Safety
    /// Constructors of the objects run; they are native code and can do anything.
    pub unsafe fn load(&self, inputs: &[Input]) -> Result<Arc<Module>, SessionError> {
        unload_deferred();
        let earlier = Earlier::new(&self.modules);
        let mut link = Link::read(inputs, &self.options)?;
        link.share_mirrors(&self.mirrors);
        link.resolve(&self.chain(Chain::default(), &earlier));
        let placed = link.place(&self.placer())?;
        let mut module = placed.relocate()?.protect()?.into_module();
        module.uses = earlier.used();
        // SAFETY: the caller agreed to run the objects' code.
        unsafe { self.start(module) }
    }

    /// The first half of [`Session::load`]: reads and places, so that the addresses of the
    /// objects' symbols are known before those of their externals.
    ///
    /// # Errors
    /// Malformed inputs, duplicate symbols, no memory.
    pub fn begin(&self, inputs: Vec<Input>) -> Result<Pending, SessionError> {
        unload_deferred();
        let mirrors = Some(&self.mirrors);
        let options = self.options.clone();
        let pending = Pending::sharing(inputs, options, &self.placer(), mirrors)?;
        Ok(pending)
    }

    /// The second half: what is undefined still comes from `first`, then as in [`Session::load`].
    /// `uses` stay loaded as long as the module.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Safety
    /// As there; what `first` and others answered to `pending` is true.
    pub unsafe fn finish(
        &self,
        mut pending: Pending,
        uses: Vec<Arc<Module>>,
        first: &dyn SymbolResolver,
    ) -> Result<Arc<Module>, SessionError> {
        let earlier = Earlier::new(&self.modules);
        pending.resolve(&self.chain(Chain::default().then(first), &earlier));
        let mut module = pending.into_module()?;
        module.uses = earlier.used();
        module.uses.extend(uses);
        // SAFETY: the caller agreed to run the objects' code.
        unsafe { self.start(module) }
    }

    fn chain<'r>(&'r self, chain: Chain<'r>, earlier: &'r Earlier) -> Chain<'r> {
        let mut chain = chain.then(&self.definitions);
        if let Some(resolver) = &self.resolver {
            chain = chain.then(&**resolver);
        }
        chain.then(earlier).then(&self.process)
    }

    fn placer(&self) -> Placer {
        Placer::Mapped {
            allocator: self.allocator.clone(),
            reach: None,
            min_entropy: None,
        }
    }

    /// # Safety
    /// Runs the objects' code.
    unsafe fn start(&self, mut module: Module) -> Result<Arc<Module>, SessionError> {
        let arguments = Arguments::new(["low2g"]).unwrap_or_else(|_| unreachable!("no NUL in it"));
        // SAFETY: the caller agreed to run the objects' code.
        unsafe { module.initialise(&arguments) }?;
        let module = Arc::new(module);
        self.modules.lock().push(Arc::downgrade(&module));
        Ok(module)
    }

    /// Makes a module's symbols visible to the process's own dynamic linker: `dlsym` finds
    /// them, and libraries opened later bind to them. The module stays loaded until the
    /// answer was dropped and no library is bound to it any more.
    ///
    /// # Errors
    /// No memory; the dynamic linker refuses.
    pub fn export(&self, module: &Arc<Module>) -> Result<ModuleExports, ExportError> {
        ModuleExports::new(module)
    }
}

/// The session's modules as a resolver, which notes whose symbols were taken.
#[derive(Debug)]
struct Earlier {
    modules: Vec<Arc<Module>>,
    used: RefCell<Vec<bool>>,
}

impl Earlier {
    /// Those still loaded; the others are forgotten.
    fn new(list: &Mutex<Vec<Weak<Module>>>) -> Self {
        let mut modules = Vec::new();
        list.lock().retain(|module| {
            let module = module.upgrade();
            let loaded = module.is_some();
            modules.extend(module);
            loaded
        });
        let used = RefCell::new(vec![false; modules.len()]);
        Self { modules, used }
    }

    fn used(self) -> Vec<Arc<Module>> {
        let pairs = self.modules.into_iter().zip(self.used.into_inner());
        pairs
            .filter_map(|(module, used)| used.then_some(module))
            .collect()
    }
}

impl SymbolResolver for Earlier {
    fn resolve(&self, name: &str) -> Option<ExternalSymbol> {
        let found = |(index, module): (usize, &Arc<Module>)| Some((index, module.symbol(name)?));
        let (index, export) = self.modules.iter().enumerate().find_map(found)?;
        self.used.borrow_mut()[index] = true;
        Some(ExternalSymbol {
            addr: export.addr,
            size: export.size,
            kind: if export.function {
                ExternalKind::Function
            } else {
                ExternalKind::Data
            },
        })
    }

    fn resolve_thread_local(&self, name: &str) -> Option<ExternalSymbol> {
        let found = |(index, module): (usize, &Arc<Module>)| {
            Some((index, module.thread_local_symbol(name)?))
        };
        let (index, symbol) = self.modules.iter().enumerate().find_map(found)?;
        self.used.borrow_mut()[index] = true;
        Some(symbol)
    }
}
