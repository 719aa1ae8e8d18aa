//! Linux, FreeBSD and macOS: `dlopen`, `atexit`, signals.

use std::ffi::{CStr, c_int, c_void};
use std::sync::OnceLock;

use low2g_platform::{to_u64, to_usize};

use super::{ExitCalls, Scope, Visibility};

/// Opens a library: its handle, as a number. Runs its constructors.
///
/// # Errors
/// The dynamic linker's words.
pub(crate) fn open(path: &CStr, visibility: Visibility) -> Result<usize, String> {
    let flags = open_flags(visibility);
    // SAFETY: dlopen wants a NUL-terminated path. Running the library's constructors is what
    // the caller asked for.
    opened(unsafe { libc::dlopen(path.as_ptr(), flags) })
}

/// The flags that give a library this visibility.
pub(super) fn open_flags(visibility: Visibility) -> c_int {
    match visibility {
        Visibility::Local => libc::RTLD_NOW | libc::RTLD_LOCAL,
        Visibility::Global => libc::RTLD_NOW | libc::RTLD_GLOBAL,
    }
}

/// What `dlopen` returned, as a number.
pub(super) fn opened(handle: *mut c_void) -> Result<usize, String> {
    if handle.is_null() {
        return Err(last_error());
    }
    Ok(handle.expose_provenance())
}

/// Closes a handle of [`open`], once.
pub(crate) fn close(handle: usize) {
    // SAFETY: the handle came from dlopen and is closed once.
    let failed = unsafe { libc::dlclose(std::ptr::with_exposed_provenance_mut(handle)) };
    debug_assert_eq!(failed, 0, "an open handle can be closed");
}

/// What `dlsym` wants for `scope`.
pub(super) fn handle_of(scope: Scope) -> *mut c_void {
    match scope {
        Scope::Process => libc::RTLD_DEFAULT,
        Scope::Library(handle) => std::ptr::with_exposed_provenance_mut(handle),
    }
}

/// The address of `name`.
pub(super) fn unversioned(scope: Scope, name: &CStr) -> Option<u64> {
    // SAFETY: the handle came from dlopen and was never closed, or is RTLD_DEFAULT; the name
    // ends in NUL.
    let found = unsafe { libc::dlsym(handle_of(scope), name.as_ptr()) };
    found_at(found)
}

/// What `dlsym` returned, as an address.
pub(super) fn found_at(found: *mut c_void) -> Option<u64> {
    let addr = to_u64(found.expose_provenance());
    (addr != 0).then_some(addr)
}

/// What the dynamic linker last complained of.
fn last_error() -> String {
    // SAFETY: dlerror has no precondition.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "no reason given".to_owned();
    }
    // SAFETY: dlerror's string ends in NUL and lives until this thread's next dl* call.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_string_lossy().into_owned()
}

/// Has `handler` called when the process exits. `false` if there is no room.
pub(crate) fn at_exit(handler: extern "C" fn()) -> bool {
    // SAFETY: `handler` is a function without arguments that never unwinds.
    unsafe { libc::atexit(handler) == 0 }
}

/// The process's function `name`, as a function pointer type.
///
/// # Safety
/// `F` must be the `Option` of a function pointer type that fits the function, if there is one.
pub(super) unsafe fn function<F>(name: &CStr) -> F {
    assert_eq!(size_of::<F>(), size_of::<usize>(), "an optional function");
    let found = super::symbol(Scope::Process, name, None).unwrap_or(0);
    let found = std::ptr::with_exposed_provenance_mut::<c_void>(to_usize(found));
    // SAFETY: null is Option's None; for the rest the caller vouches.
    unsafe { std::mem::transmute_copy::<*mut c_void, F>(&found) }
}

/// The C library's exit calls.
pub(crate) fn exit_calls() -> &'static ExitCalls {
    static FOUND: OnceLock<ExitCalls> = OnceLock::new();
    FOUND.get_or_init(|| ExitCalls {
        // SAFETY: the Itanium C++ ABI (3.3.5) gives it this signature.
        register: unsafe { function(c"__cxa_atexit") },
        // SAFETY: as above.
        finalize: unsafe { function(c"__cxa_finalize") },
        // SAFETY: glibc and FreeBSD give it this signature.
        register_quick: unsafe { function(c"__cxa_at_quick_exit") },
        // SAFETY: glibc gives it this signature.
        register_fork: unsafe { function(c"__register_atfork") },
    })
}

/// Undoes what Rust's runtime sets up before `main`: a C program expects SIGPIPE to end it, and
/// faults to be nobody's but its own.
pub(crate) fn default_signals() {
    for signal in [libc::SIGPIPE, libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: SIG_DFL is valid for these signals; the handlers it replaces are Rust's own.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}
