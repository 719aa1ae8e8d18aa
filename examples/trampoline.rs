//! A trampoline near a function: memory within what a 32-bit displacement reaches from it, wherever
//! in 64 bits it lies, so that a `call rel32` there can be made to arrive elsewhere.
//!
//! `cargo run --example trampoline`

use low2g::alloc::{LowAllocator, Reach};
use low2g::platform::to_u64;

extern "C" fn far_away(x: u64) -> u64 {
    x * 2
}

fn main() {
    let target = to_u64((far_away as extern "C" fn(u64) -> u64 as *const ()).addr());
    let allocator = LowAllocator::builder().reach(Reach::Near(target)).build();
    let near = allocator.expect("there is room near the program");
    let mut block = near.allocate_code(16, 16).expect("room");
    let at = block.exec_addr();
    // lea rdi, [rdi + 1]; jmp rel32: the displacement counts from the end of the jump.
    let mut text = vec![0x48, 0x8d, 0x7f, 0x01, 0xe9];
    let displacement = i128::from(target) - i128::from(at + 9);
    let displacement = i32::try_from(displacement).expect("that is what the reach is for");
    text.extend(displacement.to_le_bytes());
    block.working_mem()[..text.len()].copy_from_slice(&text);
    let published = block.publish().expect("code can be published here");
    let entry = std::ptr::with_exposed_provenance::<()>(
        usize::try_from(published.exec_addr()).expect("64-bit"),
    );
    // SAFETY: transmute needs a function of that type there: it was just published, and lives.
    let trampoline = unsafe { std::mem::transmute::<*const (), extern "C" fn(u64) -> u64>(entry) };
    assert_eq!(trampoline(20), 42);
    println!("trampoline at {at:#x}, {displacement:+#x} from {target:#x}: f(20) = 42");
}
