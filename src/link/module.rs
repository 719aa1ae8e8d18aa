//! A loaded module: its memory, its symbols, its constructors and destructors.
//!
//! Unsafe code, because it calls what was loaded.
//! Invariant: code of the module runs only between `initialise` and the end of `drop`.

use std::ffi::{CStr, CString, c_char, c_int};
use std::sync::{Arc, OnceLock};

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::place::{Finalized, PlaceError, SectionKind};

use super::debugger::Description;
use super::exits::ExitScope;
use super::host::{self, MainFunction, call_outermost, default_signals, environment};
use super::init::InitLists;
use super::resolve::ExternalSymbol;
use super::tls::Runtime;
use super::unwind::{FrameWarning, Frames};

/// A symbol that a module offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Export {
    /// Its address.
    pub addr: u64,
    /// Bytes.
    pub size: u64,
    /// It is a function.
    pub function: bool,
}

/// An ifunc whose slot is to be filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PendingIfunc {
    pub(crate) resolver: u64,
    /// Index of the GOT slot.
    pub(crate) slot: usize,
}

/// What the process is told of a module while it lives.
#[derive(Debug, Default)]
pub(crate) struct Life {
    pub(crate) frames: Frames,
    pub(crate) description: Description,
    /// What its `__dso_handle` stands for; 0 if it has no sections.
    pub(crate) dso_handle: u64,
    /// Copies of the host's constants that it shares with other modules.
    pub(crate) mirrors: Vec<Arc<Finalized>>,
}

/// A loaded module. Dropping it runs its destructors and unmaps it; modules that use its
/// symbols hold it until they go. If threads still have thread-local objects of it with
/// destructors (C++), that waits until the last of them ended, as after `dlclose`.
///
/// Whoever still calls its functions or holds pointers into it afterwards is at fault, as
/// after `dlclose`.
#[derive(Debug)]
pub struct Module {
    memory: Finalized,
    exports: HashMap<Box<str>, Export>,
    init: InitLists,
    ifuncs: Vec<PendingIfunc>,
    /// Request number and address of the GOT.
    got: (usize, u64),
    life: Life,
    exits: Option<ExitScope>,
    initialised: bool,
    /// Modules whose symbols this one uses: they go after it.
    pub(crate) uses: Vec<Arc<Module>>,
    tls: Runtime,
}

impl Module {
    pub(crate) fn new(
        memory: Finalized,
        exports: HashMap<Box<str>, Export>,
        init: InitLists,
        ifuncs: Vec<PendingIfunc>,
        got: (usize, u64),
        life: Life,
        tls: Runtime,
    ) -> Self {
        Self {
            memory,
            exports,
            init,
            ifuncs,
            got,
            life,
            exits: None,
            initialised: false,
            uses: Vec::new(),
            tls,
        }
    }

    /// The calling thread's copy of the thread-local variable `name`, if a global of that name
    /// is defined and visible. The address is good as long as the thread and the module live.
    #[must_use]
    pub fn thread_local(&self, name: &str) -> Option<Export> {
        let &(offset, size) = self.tls.variables.get(name)?;
        // SAFETY: the module is loaded and its block holds the variable.
        let addr = unsafe { self.tls.block?.address(offset) }?;
        Some(Export {
            addr,
            size,
            function: false,
        })
    }

    /// The thread-local variable `name` for other links.
    #[must_use]
    pub fn thread_local_symbol(&self, name: &str) -> Option<ExternalSymbol> {
        let &(offset, size) = self.tls.variables.get(name)?;
        Some(self.tls.block?.symbol(offset, size))
    }

    /// Leaves all to the last pending destructor of a thread-local object, if there is one.
    fn park(&mut self) -> bool {
        let Some(registration) = &self.tls.destructors else {
            return false;
        };
        let parking = registration.parking();
        parking.park(|| Self {
            memory: std::mem::take(&mut self.memory),
            exports: HashMap::new(),
            init: std::mem::take(&mut self.init),
            ifuncs: Vec::new(),
            got: self.got,
            life: std::mem::take(&mut self.life),
            exits: self.exits.take(),
            initialised: std::mem::replace(&mut self.initialised, false),
            tls: std::mem::take(&mut self.tls),
            uses: std::mem::take(&mut self.uses),
        })
    }

    /// The symbol `name`, if a global of that name is defined and visible.
    #[must_use]
    pub fn symbol(&self, name: &str) -> Option<Export> {
        self.exports.get(name).copied()
    }

    /// All symbols that the module offers, in no order.
    pub fn symbols(&self) -> impl Iterator<Item = (&str, Export)> {
        self.exports.iter().map(|(name, export)| (&**name, *export))
    }

    /// The function `name` as a function pointer of type `F`.
    ///
    /// # Safety
    /// `F` must be a function pointer type that fits the function's signature and calling
    /// convention, and the pointer must not be called once the module is dropped.
    ///
    /// # Panics
    /// If `F` is not as big as a pointer.
    #[must_use]
    pub unsafe fn function<F: Copy>(&self, name: &str) -> Option<F> {
        assert_eq!(
            size_of::<F>(),
            size_of::<usize>(),
            "F must be a function pointer type"
        );
        let export = self.symbol(name).filter(|export| export.function)?;
        let addr = low2g_platform::to_usize(export.addr);
        // SAFETY: the caller vouches that F is a function pointer type for this address.
        Some(unsafe { std::mem::transmute_copy::<usize, F>(&addr) })
    }

    /// Frame entries of the objects that could not be used: exceptions and backtraces stop there.
    #[must_use]
    pub fn frame_warnings(&self) -> &[FrameWarning] {
        &self.life.frames.warnings
    }

    /// Tells the process's unwinder of the module, fills the slots of ifuncs, then runs
    /// constructors; the resolvers of ifuncs and constructors are code of the objects.
    /// Constructors get `args` and the environment as glibc's would. Once only.
    ///
    /// # Errors
    /// The GOT could not be protected; no constructor has run then.
    ///
    /// # Safety
    /// Runs whatever the objects hold, in this thread.
    pub unsafe fn initialise(&mut self, args: &Arguments) -> Result<(), PlaceError> {
        if self.initialised {
            return Ok(());
        }
        self.life.frames.register();
        self.life.description.register();
        self.exits = self.exit_scope();
        for ifunc in std::mem::take(&mut self.ifuncs) {
            // SAFETY: the caller runs the objects' code; the address is that of an
            // STT_GNU_IFUNC symbol, a function without arguments that returns an address.
            let resolver = unsafe { function_at::<extern "C" fn() -> u64>(ifunc.resolver) };
            let target = resolver();
            let got = self.memory.data_mem(self.got.0);
            let slots = got.expect("the GOT of a link with ifuncs is writable until here");
            let start = ifunc.slot * 8;
            slots[start..start + 8].copy_from_slice(&target.to_le_bytes());
        }
        if self.got.0 != usize::MAX {
            self.memory.make_read_only(self.got.0)?;
        }
        // Only now: destructors must not run where no constructor has.
        self.initialised = true;
        for addr in std::mem::take(&mut self.init.init) {
            // SAFETY: the caller runs the objects' code; the address stands in an init array.
            let constructor = unsafe { function_at::<InitFunction>(addr) };
            constructor(args.argc(), args.argv(), environment());
        }
        Ok(())
    }

    /// Calls `main`-like function `entry` with `args`.
    ///
    /// # Safety
    /// `entry` must be a function of C's `int main(int, char **, char **)`; it and all it
    /// calls must keep Rust's rules for code run in this process.
    ///
    /// # Errors
    /// Returns `None` if the module has no such function.
    pub unsafe fn call_main(&self, entry: &str, args: &Arguments) -> Option<c_int> {
        // SAFETY: the caller vouches for the signature; the module outlives the call.
        let main = unsafe { self.function::<MainFunction>(entry) }?;
        // SAFETY: as above.
        Some(unsafe { main(args.argc(), args.argv(), environment()) })
    }

    /// Runs the module as a program: constructors, then `entry`. Destructors run when the
    /// process exits, after the handlers that the program registered with `atexit`; the
    /// module stays mapped until then. Returns what `entry` returned.
    ///
    /// # Errors
    /// The GOT could not be protected; nothing has run then.
    ///
    /// # Panics
    /// If the module has no function `entry`, or a program runs already.
    ///
    /// # Safety
    /// As [`Module::call_main`]; runs whatever the objects hold, in this thread.
    pub unsafe fn run_main(mut self, entry: &str, args: &Arguments) -> Result<c_int, PlaceError> {
        let main = self.symbol(entry).filter(|export| export.function);
        let main = main
            .expect("the caller checked that the entry is a function")
            .addr;
        default_signals();
        let mut constructors = std::mem::take(&mut self.init.init);
        // SAFETY: the caller runs the objects' code.
        unsafe { self.initialise(args) }?;
        let kept = PROGRAM.set(Mutex::new(Some(self)));
        assert!(kept.is_ok(), "one program a process");
        let registered = host::at_exit(at_exit);
        debug_assert!(registered, "atexit has room for 32 handlers at least");
        for addr in constructors.drain(..) {
            // SAFETY: the caller runs the objects' code; the address stands in an init array. What
            // a constructor leaves as its result is not looked at.
            unsafe { call_program(addr, args) };
        }
        // SAFETY: the caller vouches that `entry` is main-like; PROGRAM keeps it mapped.
        Ok(unsafe { call_program(main, args) })
    }

    fn exit_scope(&self) -> Option<ExitScope> {
        let code = self.memory.regions();
        let code = code.filter(|region| region.kind == SectionKind::Code);
        let code = code.map(|region| region.range).collect();
        // A handle of 0 stands for the process itself.
        (self.life.dso_handle != 0).then(|| ExitScope::new(code, self.life.dso_handle))
    }

    /// Runs what the module registered with `atexit` and `__cxa_atexit` (C++ static objects),
    /// last first, then its destructor functions. Now; dropping the module will not run them again.
    ///
    /// # Safety
    /// Runs whatever the objects hold, in this thread.
    pub unsafe fn finish(&mut self) {
        if std::mem::replace(&mut self.initialised, false) {
            if let Some(exits) = &self.exits {
                // SAFETY: the caller runs the objects' code, and it is still mapped.
                unsafe { exits.finalize() };
            }
            for addr in std::mem::take(&mut self.init.fini) {
                // SAFETY: the caller runs the objects' code; the address stands in a fini array.
                let destructor = unsafe { function_at::<extern "C" fn()>(addr) };
                destructor();
            }
            if let Some(exits) = self.exits.take() {
                // What a destructor registered has to run before its code goes.
                // SAFETY: as above.
                unsafe { exits.finalize() };
            }
        }
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if self.park() {
            return;
        }
        // SAFETY: whoever loaded the module agreed to run its code; it is still mapped.
        unsafe { self.finish() };
        // Destructors of the module may have made thread-local objects.
        self.park();
        self.life.frames.withdraw();
        self.life.description.withdraw();
        // No code is left that reads them.
        self.life.mirrors.clear();
        // Before the memory goes: another module may get its address, and so its handle.
        self.tls.destructors = None;
    }
}

/// The module that runs as this process's program.
static PROGRAM: OnceLock<Mutex<Option<Module>>> = OnceLock::new();

/// Runs the program's destructors at exit; its memory stays, other threads may still run.
extern "C" fn at_exit() {
    let module = PROGRAM.get().and_then(|program| program.lock().take());
    if let Some(mut module) = module {
        // SAFETY: `run_main`'s caller agreed to run the objects' code.
        unsafe { module.finish() };
        std::mem::forget(module);
    }
}

/// # Safety
/// The code at `addr` must take C's `int, char **, char **`, and be loaded.
unsafe fn call_program(addr: u64, args: &Arguments) -> c_int {
    // SAFETY: the caller vouches for the arguments.
    let function = unsafe { function_at::<MainFunction>(addr) };
    // SAFETY: the arguments live as long as `args`.
    unsafe { call_outermost(function, args.argc(), args.argv(), environment()) }
}

type InitFunction = extern "C" fn(c_int, *const *const c_char, *const *const c_char);

/// # Safety
/// `F` must be a function pointer type that fits the code at `addr`.
unsafe fn function_at<F: Copy>(addr: u64) -> F {
    assert_eq!(
        size_of::<F>(),
        size_of::<usize>(),
        "a function pointer type"
    );
    let addr = low2g_platform::to_usize(addr);
    // SAFETY: the caller vouches for F.
    unsafe { std::mem::transmute_copy::<usize, F>(&addr) }
}

/// argc and argv for `main` and constructors: strings that live as long as this does.
#[derive(Debug)]
pub struct Arguments {
    strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Arguments {
    /// Arguments, argv\[0\] first.
    ///
    /// # Errors
    /// The index of an argument that holds a NUL byte.
    pub fn new<S: Into<Vec<u8>>>(arguments: impl IntoIterator<Item = S>) -> Result<Self, usize> {
        let mut strings = Vec::new();
        for (index, argument) in arguments.into_iter().enumerate() {
            strings.push(CString::new(argument).map_err(|_| index)?);
        }
        let mut pointers: Vec<_> = strings.iter().map(|string| CStr::as_ptr(string)).collect();
        pointers.push(std::ptr::null());
        Ok(Self { strings, pointers })
    }

    fn argc(&self) -> c_int {
        c_int::try_from(self.strings.len()).unwrap_or(c_int::MAX)
    }

    fn argv(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}
