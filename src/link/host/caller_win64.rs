//! Passing on the caller's address, and calling without a caller: the calling convention of Windows on x86-64.

use std::ffi::{c_char, c_int};

/// Body of a naked function: jumps to `$target` with the return address as second argument.
macro_rules! jump_with_caller_second {
    ($target:path) => {
        std::arch::naked_asm!("mov rdx, [rsp]", "jmp {}", sym $target)
    };
}

/// Body of a naked function: jumps to `$target` with the return address as fourth argument.
macro_rules! jump_with_caller_fourth {
    ($target:path) => {
        std::arch::naked_asm!("mov r9, [rsp]", "jmp {}", sym $target)
    };
}

pub(crate) use {jump_with_caller_fourth, jump_with_caller_second};

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
