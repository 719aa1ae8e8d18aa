//! The host's dynamic linker and C library, as the relocation engine uses them: one file a kind
//! of system, chosen here and nowhere else, with the same items in each.
//!
//! ```text
//! open, close, symbol             dlopen, dlsym; LoadLibrary, GetProcAddress
//! linked                          functions that the program alone has
//! each_object, LoadedObject       dl_iterate_phdr; the loader's list
//! MemoryFile                      an ELF object without a name that the dynamic linker loads
//! at_exit, exit_calls             atexit; __cxa_atexit and its kin
//! environment, default_signals    environ; what a C program expects of signals
//! ```
//!
//! What a system cannot do is an error with its reason, or a value that is absent; callers
//! have no `cfg`.

#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod system;
#[cfg(target_os = "freebsd")]
#[path = "freebsd.rs"]
mod system;
#[cfg(target_os = "macos")]
#[path = "macos.rs"]
mod system;
#[cfg(target_os = "windows")]
#[path = "windows.rs"]
mod system;

/// What all systems with `dlopen` share.
#[cfg(unix)]
mod unix;

/// What the systems with an ELF dynamic linker share.
#[cfg(any(target_os = "linux", target_os = "freebsd"))]
mod elf;

#[cfg(all(target_arch = "x86_64", not(target_os = "windows")))]
#[path = "caller_sysv.rs"]
mod caller;
#[cfg(all(target_arch = "x86_64", target_os = "windows"))]
#[path = "caller_win64.rs"]
mod caller;
#[cfg(target_arch = "aarch64")]
#[path = "caller_aarch64.rs"]
mod caller;

#[cfg(all(target_arch = "x86_64", not(target_os = "windows")))]
#[path = "outermost_sysv.rs"]
mod outermost;
#[cfg(not(all(target_arch = "x86_64", not(target_os = "windows"))))]
#[path = "outermost_plain.rs"]
mod outermost;

use std::ffi::{c_char, c_int, c_void};

pub(crate) use caller::{jump_with_caller_fourth, jump_with_caller_second};
pub(crate) use outermost::call_outermost;
pub(crate) use system::{
    LoadedObject, MemoryFile, at_exit, close, default_signals, each_object, environment,
    exit_calls, linked, open, symbol,
};

/// `main`, and what a C library calls with the same arguments.
pub(crate) type MainFunction =
    unsafe extern "C" fn(c_int, *const *const c_char, *const *const c_char) -> c_int;

/// Who sees the symbols of a library that is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visibility {
    /// Only who asks with its handle.
    Local,
    /// All libraries opened later.
    Global,
}

/// Where a symbol is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The program and all libraries with global visibility, in the order of their loading.
    Process,
    /// The library of this handle, and those it needs.
    Library(usize),
}

/// A stretch of a loaded object in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) kind: SegmentKind,
    pub(crate) start: u64,
    /// Bytes.
    pub(crate) len: u64,
    pub(crate) writable: bool,
    pub(crate) executable: bool,
}

/// What a segment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(any(target_os = "linux", target_os = "freebsd")),
    allow(dead_code, reason = "only ELF has the last two")
)]
pub(crate) enum SegmentKind {
    /// Loaded from the file, and readable.
    Load,
    /// Write-protected once relocated (`PT_GNU_RELRO`); part of a `Load`.
    Relro,
    /// ELF's dynamic section; part of a `Load`.
    Dynamic,
}

/// A handler of `__cxa_atexit`.
pub(crate) type ExitHandler = unsafe extern "C" fn(*mut c_void);

/// A handler of `pthread_atfork`.
pub(crate) type ForkHandler = Option<unsafe extern "C" fn()>;

/// The C library's calls that register handlers for one module, named by its handle; absent
/// where the C library has them for the whole process only, or not at all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ExitCalls {
    /// `__cxa_atexit`: handler, its argument, handle. 0 on success.
    pub(crate) register:
        Option<unsafe extern "C" fn(ExitHandler, *mut c_void, *mut c_void) -> c_int>,
    /// `__cxa_finalize`: runs and forgets what was registered for a handle.
    pub(crate) finalize: Option<unsafe extern "C" fn(*mut c_void)>,
    /// `__cxa_at_quick_exit`: handler, handle. 0 on success.
    pub(crate) register_quick: Option<unsafe extern "C" fn(ExitHandler, *mut c_void) -> c_int>,
    /// `__register_atfork`: before, after in the parent, after in the child, handle. 0 on success.
    pub(crate) register_fork:
        Option<unsafe extern "C" fn(ForkHandler, ForkHandler, ForkHandler, *mut c_void) -> c_int>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::ControlFlow;

    #[test]
    fn the_process_has_objects_with_code_and_data() {
        let here = (the_process_has_objects_with_code_and_data as *const ()).addr();
        let here = low2g_platform::to_u64(here);
        let mut found = 0;
        let mut objects = 0;
        each_object(&mut |object: &LoadedObject<'_>| {
            objects += 1;
            for segment in object.segments() {
                let code = segment.kind == SegmentKind::Load && segment.executable;
                let holds = segment.start <= here && here - segment.start < segment.len;
                found += usize::from(code && holds);
            }
            ControlFlow::Continue(())
        });
        assert!(objects > 1, "the program and the C library at least");
        assert_eq!(found, 1, "one object holds this function");
    }

    #[test]
    fn functions_of_the_c_library_are_found() {
        let found = symbol(Scope::Process, c"strlen", None).expect("every C library has it");
        let strlen = std::ptr::with_exposed_provenance::<()>(low2g_platform::to_usize(found));
        type Strlen = unsafe extern "C" fn(*const std::ffi::c_char) -> usize;
        // SAFETY: the C standard gives strlen this signature.
        let strlen = unsafe { std::mem::transmute::<*const (), Strlen>(strlen) };
        // SAFETY: the string ends in NUL.
        assert_eq!(unsafe { strlen(c"seven !".as_ptr()) }, 7);
        assert_eq!(symbol(Scope::Process, c"low2g_nowhere_defined", None), None);
    }

    #[test]
    fn a_library_that_is_not_there_is_refused_with_a_reason() {
        let error = open(c"low2g-no-such-library", Visibility::Local).expect_err("no such file");
        assert!(!error.is_empty());
    }
}
