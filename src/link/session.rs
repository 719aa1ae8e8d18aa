//! The short way: objects in, a running module out.

use crate::alloc::{AllocError, LowAllocator};
use crate::place::{PlaceError, Placer};

use super::error::LinkFailure;
use super::module::{Arguments, Module};
use super::options::LinkOptions;
use super::process::ProcessSymbols;
use super::resolve::{Chain, Definitions, ExternalKind, ExternalSymbol};
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
    process: ProcessSymbols,
    options: LinkOptions,
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
            process: ProcessSymbols::new(),
            options: LinkOptions::default(),
        }
    }

    /// Options of the links to come.
    #[must_use]
    pub fn options(mut self, options: LinkOptions) -> Self {
        self.options = options;
        self
    }

    /// Defines a function of the host under `name`, before the process's own symbols.
    pub fn define_function(&mut self, name: impl Into<String>, addr: *const ()) {
        self.define(name, addr, 0, ExternalKind::Function);
    }

    /// Defines a variable of the host, `size` bytes at `addr`.
    pub fn define_data(&mut self, name: impl Into<String>, addr: *const (), size: u64) {
        self.define(name, addr, size, ExternalKind::Data);
    }

    /// Lets links to come use the thread-local variable `name` of `module`: one copy a thread,
    /// for all who use it. Returns `false` if the module has no such variable. `module` must
    /// be loaded as long as what was linked so, as with any symbol.
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

    /// Links `inputs` (objects and archives), then runs their ifunc resolvers and
    /// constructors. Nothing stays mapped on an error.
    ///
    /// # Errors
    /// Malformed inputs, undefined or duplicate symbols, relocations that do not fit, no memory.
    ///
    /// # Safety
    /// Constructors of the objects run; they are native code and can do anything.
    pub unsafe fn load(&self, inputs: &[Input]) -> Result<Module, SessionError> {
        let mut link = Link::read(inputs, &self.options)?;
        link.resolve(&Chain::default().then(&self.definitions).then(&self.process));
        let placer = Placer::Mapped {
            allocator: self.allocator.clone(),
            reach: None,
            min_entropy: None,
        };
        let mut module = link.place(&placer)?.relocate()?.protect()?.into_module();
        let arguments = Arguments::new(["low2g"]).unwrap_or_else(|_| unreachable!("no NUL in it"));
        // SAFETY: the caller agreed to run the objects' code.
        unsafe { module.initialise(&arguments) }?;
        Ok(module)
    }
}
