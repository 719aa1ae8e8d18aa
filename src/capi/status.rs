//! Codes and texts of errors, and the guard that no panic passes.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::alloc::{AllocError, Misuse};
use crate::jit::JitError;
use crate::link::{LinkError, LinkFailure, SessionError};
use crate::place::PlaceError;

/// How a call ended. The text says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum low2g_status {
    /// It did what it says.
    Ok = 0,
    /// An argument is NULL where it may not be, or has a value that nothing could satisfy.
    InvalidArgument = 1,
    /// The handle was freed before, or is of another kind.
    InvalidHandle = 2,
    /// A call that is not allowed at this point.
    WrongOrder = 3,
    /// What is to be freed or published is not in use, or is none of this allocator's.
    NotInUse = 4,
    /// A freed block was written to.
    WrittenAfterFree = 5,
    /// No low memory is left, or there is none.
    NoMemory = 6,
    /// Addresses would be easier to guess than the minimum allows.
    EntropyTooLow = 7,
    /// The system's policy refuses, or it has no call for it.
    Refused = 8,
    /// The allocator's addresses do not serve the code model.
    ReachTooWide = 9,
    /// The file cannot be read, or the library cannot be opened.
    File = 10,
    /// The inputs do not link; the text has a line for each reason.
    Link = 11,
    /// No symbol of that name and kind.
    NoSymbol = 12,
    /// A mistake inside low2g.
    Internal = 13,
}

/// Why a call failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: low2g_status,
    pub(super) text: String,
}

impl Failure {
    pub(super) fn new(status: low2g_status, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { status, text }
    }

    pub(super) fn invalid(text: impl Into<String>) -> Self {
        Self::new(low2g_status::InvalidArgument, text)
    }

    pub(super) fn null(what: &str) -> Self {
        Self::invalid(format!("{what} is NULL"))
    }
}

const fn misuse_status(misuse: &Misuse) -> low2g_status {
    match misuse {
        Misuse::WrittenAfterFree { .. } => low2g_status::WrittenAfterFree,
        _ => low2g_status::NotInUse,
    }
}

const fn alloc_status(error: &AllocError) -> low2g_status {
    match error {
        AllocError::BadRequest { .. }
        | AllocError::BadWord { .. }
        | AllocError::EmptyReach { .. }
        | AllocError::OutOfBounds { .. } => low2g_status::InvalidArgument,
        AllocError::EntropyTooLow { .. } => low2g_status::EntropyTooLow,
        AllocError::Refused { .. } | AllocError::Unsupported { .. } => low2g_status::Refused,
        AllocError::Misuse(misuse) => misuse_status(misuse),
        AllocError::Inherited { .. } => low2g_status::WrongOrder,
        _ => low2g_status::NoMemory,
    }
}

impl From<Misuse> for Failure {
    fn from(misuse: Misuse) -> Self {
        Self::new(misuse_status(&misuse), misuse.to_string())
    }
}

impl From<AllocError> for Failure {
    fn from(error: AllocError) -> Self {
        Self::new(alloc_status(&error), error.to_string())
    }
}

impl From<JitError> for Failure {
    fn from(error: JitError) -> Self {
        let status = match &error {
            JitError::AbsoluteReach { .. } | JitError::RelativeReach { .. } => {
                low2g_status::ReachTooWide
            }
            JitError::Empty | JitError::Alignment { .. } => low2g_status::InvalidArgument,
            JitError::Alloc(error) => alloc_status(error),
            _ => low2g_status::Refused,
        };
        Self::new(status, error.to_string())
    }
}

impl From<LinkFailure> for Failure {
    fn from(failure: LinkFailure) -> Self {
        let status = if failure.is_memory() {
            low2g_status::NoMemory
        } else {
            low2g_status::Link
        };
        Self::new(status, failure.to_string())
    }
}

impl From<LinkError> for Failure {
    fn from(error: LinkError) -> Self {
        LinkFailure::from(error).into()
    }
}

impl From<PlaceError> for Failure {
    fn from(error: PlaceError) -> Self {
        Self::new(low2g_status::NoMemory, error.to_string())
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Link(failure) => failure.into(),
            SessionError::Memory(error) => error.into(),
            SessionError::Protect(error) => error.into(),
        }
    }
}

thread_local! {
    /// How the latest call ended; a text if it failed.
    static LAST: RefCell<(low2g_status, Option<CString>)> =
        const { RefCell::new((low2g_status::Ok, None)) };
}

/// Runs `call`; notes and tells how it ended. `error` is NULL or takes a malloc'ed text.
pub(super) fn guard<T>(
    error: *mut *mut c_char,
    call: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, low2g_status> {
    let result = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let text = format!("a mistake inside low2g: {}", panic_text(&*panic));
        Err(Failure::new(low2g_status::Internal, text))
    });
    let (status, text) = match &result {
        Ok(_) => (low2g_status::Ok, None),
        Err(failure) => (failure.status, Some(c_text(&failure.text))),
    };
    if !error.is_null() {
        let copy = text.as_deref().map_or(std::ptr::null_mut(), malloc_text);
        // SAFETY: writing needs a place for a pointer: a caller's `error` is one if it is not NULL.
        unsafe { error.write(copy) };
    }
    // A thread that ends has no last error any more.
    let _ = LAST.try_with(|last| last.replace((status, text)));
    result.map_err(|failure| failure.status)
}

/// As [`guard`], for functions that return the status.
pub(super) fn guard_status(
    error: *mut *mut c_char,
    call: impl FnOnce() -> Result<(), Failure>,
) -> low2g_status {
    match guard(error, call) {
        Ok(()) => low2g_status::Ok,
        Err(status) => status,
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without text")
}

fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default()
}

/// A copy that `free` frees; NULL if there is no memory for it.
pub(super) fn malloc_text(text: &CStr) -> *mut c_char {
    let bytes = text.to_bytes_with_nul();
    // SAFETY: malloc has no precondition.
    let copy = unsafe { libc::malloc(bytes.len()) }.cast::<c_char>();
    if !copy.is_null() {
        // SAFETY: copy_nonoverlapping needs `bytes.len()` bytes on both sides that do not overlap:
        // malloc gave that many fresh ones.
        unsafe { copy.copy_from_nonoverlapping(text.as_ptr(), bytes.len()) };
    }
    copy
}

/// How this thread's latest call of a function of this header ended.
#[unsafe(no_mangle)]
pub extern "C" fn low2g_last_status() -> low2g_status {
    LAST.try_with(|last| last.borrow().0)
        .unwrap_or(low2g_status::Internal)
}

/// The text of this thread's latest call, empty if it succeeded; good until the thread's next call
/// of a function of this header.
#[unsafe(no_mangle)]
pub extern "C" fn low2g_last_error() -> *const c_char {
    let text = |last: &RefCell<(low2g_status, Option<CString>)>| {
        let last = last.borrow();
        last.1.as_deref().map_or(c"".as_ptr(), CStr::as_ptr)
    };
    LAST.try_with(text).unwrap_or(c"".as_ptr())
}

/// The version of the library: "MAJOR.MINOR.PATCH". Never freed.
#[unsafe(no_mangle)]
pub extern "C" fn low2g_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_code_and_a_text() {
        let mut error = std::ptr::null_mut();
        let status = guard_status(&raw mut error, || panic!("so {} it", "be"));
        assert_eq!(status, low2g_status::Internal);
        assert_eq!(low2g_last_status(), low2g_status::Internal);
        // SAFETY: from_ptr needs a string: the guard made one.
        let text = unsafe { CStr::from_ptr(error) }.to_owned();
        assert_eq!(text.as_c_str(), c"a mistake inside low2g: so be it");
        // SAFETY: free needs a block of malloc: the guard's.
        unsafe { libc::free(error.cast()) };
        // SAFETY: from_ptr needs a string: this thread's last error, before its next call.
        let last = unsafe { CStr::from_ptr(low2g_last_error()) };
        assert_eq!(last, text.as_c_str());

        assert_eq!(guard_status(&raw mut error, || Ok(())), low2g_status::Ok);
        assert!(error.is_null());
    }
}
