//! Calling a program's main without a caller: System V calling convention on x86-64.

use std::ffi::{c_char, c_int};

use super::MainFunction;

/// Calls `main` as the start of a program does: unwinders find no caller here. So an exception that
/// nobody catches ends in `std::terminate` without running cleanups, and `pthread_exit` ends the
/// thread, as natively; neither meets frames of Rust, which would stop both.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn call_outermost(
    _main: MainFunction,
    _argc: c_int,
    _argv: *const *const c_char,
    _environment: *const *const c_char,
) -> c_int {
    std::arch::naked_asm!(
        ".cfi_startproc",
        ".cfi_undefined rip",
        "push rbp",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_rel_offset rbp, 0",
        "mov rax, rdi",
        "mov edi, esi",
        "mov rsi, rdx",
        "mov rdx, rcx",
        "call rax",
        "pop rbp",
        ".cfi_adjust_cfa_offset -8",
        ".cfi_restore rbp",
        "ret",
        ".cfi_endproc",
    )
}
