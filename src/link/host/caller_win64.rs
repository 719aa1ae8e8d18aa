//! Passing on the caller's address: the calling convention of Windows on x86-64.

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
