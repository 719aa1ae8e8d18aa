//! Passing on the caller's address: procedure call standard of aarch64.

/// Body of a naked function: jumps to `$target` with the return address as second argument.
macro_rules! jump_with_caller_second {
    ($target:path) => {
        std::arch::naked_asm!("mov x1, x30", "b {}", sym $target)
    };
}

/// Body of a naked function: jumps to `$target` with the return address as fourth argument.
macro_rules! jump_with_caller_fourth {
    ($target:path) => {
        std::arch::naked_asm!("mov x3, x30", "b {}", sym $target)
    };
}

pub(crate) use {jump_with_caller_fourth, jump_with_caller_second};
