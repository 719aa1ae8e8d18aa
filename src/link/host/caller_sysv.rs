//! Passing on the caller's address: System V calling convention on x86-64.

/// Body of a naked function: jumps to `$target` with the return address as second argument.
macro_rules! jump_with_caller_second {
    ($target:path) => {
        std::arch::naked_asm!("mov rsi, [rsp]", "jmp {}", sym $target)
    };
}

/// Body of a naked function: jumps to `$target` with the return address as fourth argument.
macro_rules! jump_with_caller_fourth {
    ($target:path) => {
        std::arch::naked_asm!("mov rcx, [rsp]", "jmp {}", sym $target)
    };
}

pub(crate) use {jump_with_caller_fourth, jump_with_caller_second};
