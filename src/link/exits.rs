//! Exit handlers that belong to a module: `atexit`, `at_quick_exit` and `pthread_atfork`.
//!
//! glibc keeps these three in a static library, so that each shared object's copy registers
//! with that object's `__dso_handle` and `dlclose` runs the handlers. Loaded code gets ours:
//! the caller's return address tells which module it is.
//!
//! Invariants: a module is listed from before its first constructor until its destructors
//! have run; a handler of a module never runs after that. C++ static objects need nothing
//! of this: compilers pass `__dso_handle` to `__cxa_atexit` themselves.

use std::ffi::{c_int, c_void};

use low2g_platform::{AddrRange, to_u64, to_usize};
use parking_lot::Mutex;

use super::host::{
    ExitHandler, ForkHandler, exit_calls, jump_with_caller_fourth, jump_with_caller_second,
};
use super::resolve::{ExternalKind, ExternalSymbol};

/// A live module: its code, and what its `__dso_handle` stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    code: Vec<AddrRange>,
    handle: u64,
}

type QuickHandler = unsafe extern "C" fn();

#[derive(Default)]
struct State {
    owners: Vec<Owner>,
    /// Handlers of quick_exit in the order of registration, by module; a module's are taken
    /// out when it goes. The C library holds one call of `run_quick` for each place.
    quick: Vec<Option<(u64, QuickHandler)>>,
}

/// What C's registering functions return when they cannot.
const FAILED: c_int = -1;

static STATE: Mutex<State> = Mutex::new(State {
    owners: Vec::new(),
    quick: Vec::new(),
});

/// A module's entry in the list. Dropping it takes the module out.
#[derive(Debug)]
pub(crate) struct ExitScope {
    handle: u64,
}

impl ExitScope {
    /// Lists a module with its regions of code. `handle` is its alone.
    pub(crate) fn new(code: Vec<AddrRange>, handle: u64) -> Self {
        STATE.lock().owners.push(Owner { code, handle });
        Self { handle }
    }

    /// Runs what the module registered with `atexit` and `__cxa_atexit`, last first, and
    /// forgets what it registered for quick_exit and fork.
    ///
    /// # Safety
    /// Runs code of the module, which must still be mapped.
    pub(crate) unsafe fn finalize(&self) {
        let handle = std::ptr::with_exposed_provenance_mut::<c_void>(to_usize(self.handle));
        if let Some(finalize) = exit_calls().finalize {
            // SAFETY: the handlers are the module's own, and the caller runs its code. A handle
            // that nothing was registered with is none to the C library.
            unsafe { finalize(handle) };
        }
        let mut state = STATE.lock();
        for place in &mut state.quick {
            if place.is_some_and(|(owner, _)| owner == self.handle) {
                *place = None;
            }
        }
    }
}

impl Drop for ExitScope {
    fn drop(&mut self) {
        STATE
            .lock()
            .owners
            .retain(|owner| owner.handle != self.handle);
    }
}

/// The handle of the module that holds the code at `caller`, else at `handler`; null for what
/// belongs to the process.
fn handle_of(caller: u64, handler: u64) -> *mut c_void {
    let state = STATE.lock();
    let owner = [caller, handler].into_iter().find_map(|addr| {
        let holds = |owner: &&Owner| owner.code.iter().any(|range| range.contains(addr));
        state.owners.iter().find(holds)
    });
    std::ptr::with_exposed_provenance_mut(to_usize(owner.map_or(0, |owner| owner.handle)))
}

/// `int atexit(void (*)(void))`
#[unsafe(naked)]
unsafe extern "C" fn atexit(function: ExitHandler) -> c_int {
    jump_with_caller_second!(atexit_from)
}

/// `atexit` called from `caller`. The handler ignores the argument that it gets.
unsafe extern "C" fn atexit_from(function: ExitHandler, caller: u64) -> c_int {
    let handle = handle_of(caller, to_u64((function as *const ()).addr()));
    let Some(register) = exit_calls().register else {
        return FAILED;
    };
    // SAFETY: the C caller vouches for the function, which lives as long as its module.
    unsafe { register(function, std::ptr::null_mut(), handle) }
}

/// `int at_quick_exit(void (*)(void))`
#[unsafe(naked)]
unsafe extern "C" fn at_quick_exit(function: QuickHandler) -> c_int {
    jump_with_caller_second!(at_quick_exit_from)
}

unsafe extern "C" fn at_quick_exit_from(function: QuickHandler, caller: u64) -> c_int {
    let handle = handle_of(caller, to_u64((function as *const ()).addr()));
    let handler = Some((to_u64(handle.addr()), function));
    let mut state = STATE.lock();
    // The C library has no way to take a handler back: the places of modules that are gone
    // serve again, unless a live one was registered after them.
    let live = state.quick.iter().rposition(Option::is_some);
    let free = live.map_or(0, |last| last + 1);
    if let Some(place) = state.quick.get_mut(free) {
        *place = handler;
        return 0;
    }
    let Some(register) = exit_calls().register_quick else {
        return FAILED;
    };
    // SAFETY: `run_quick` has the signature, and is the process's: no module is bound (null).
    let result = unsafe { register(run_quick, std::ptr::null_mut()) };
    if result == 0 {
        state.quick.push(handler);
    }
    result
}

/// Runs the last handler that is left, if its module is.
unsafe extern "C" fn run_quick(_: *mut c_void) {
    let handler = STATE.lock().quick.pop().flatten();
    if let Some((_, function)) = handler {
        // SAFETY: its module has not gone: it would have taken the handler out.
        unsafe { function() };
    }
}

/// `int pthread_atfork(void (*)(void), void (*)(void), void (*)(void))`
#[unsafe(naked)]
unsafe extern "C" fn pthread_atfork(
    prepare: ForkHandler,
    parent: ForkHandler,
    child: ForkHandler,
) -> c_int {
    jump_with_caller_fourth!(pthread_atfork_from)
}

unsafe extern "C" fn pthread_atfork_from(
    prepare: ForkHandler,
    parent: ForkHandler,
    child: ForkHandler,
    caller: u64,
) -> c_int {
    let handler = [prepare, parent, child].into_iter().flatten().next();
    let handler = handler.map_or(0, |handler| to_u64((handler as *const ()).addr()));
    let Some(register) = exit_calls().register_fork else {
        return FAILED;
    };
    // SAFETY: the C caller vouches for the functions; `__cxa_finalize` with the module's
    // handle takes them back.
    unsafe { register(prepare, parent, child, handle_of(caller, handler)) }
}

/// The function `name` of this file, where the C library registers such handlers by module and
/// does not export the function.
pub(crate) fn exit_function(name: &str) -> Option<ExternalSymbol> {
    let calls = exit_calls();
    let (has, addr) = match name {
        "atexit" => (calls.register.is_some(), (atexit as *const ()).addr()),
        "at_quick_exit" => (
            calls.register_quick.is_some(),
            (at_quick_exit as *const ()).addr(),
        ),
        "pthread_atfork" => (
            calls.register_fork.is_some(),
            (pthread_atfork as *const ()).addr(),
        ),
        _ => return None,
    };
    has.then(|| ExternalSymbol {
        addr: to_u64(addr),
        size: 0,
        kind: ExternalKind::Function,
    })
}
