//! Calling a program's main where nothing hides this one's frames from unwinders.

use std::ffi::{c_char, c_int};

use super::MainFunction;

/// Calls `main`. Unwinders find the callers of this here, since nothing tells them otherwise.
///
/// # Safety
/// `main` must be a function of this type.
pub(crate) unsafe extern "C" fn call_outermost(
    main: MainFunction,
    argc: c_int,
    argv: *const *const c_char,
    environment: *const *const c_char,
) -> c_int {
    // SAFETY: the caller vouches for the function.
    unsafe { main(argc, argv, environment) }
}
