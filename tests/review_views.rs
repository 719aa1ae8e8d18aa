//! Write views are drawn from all of the address space, large parts of which may be reserved
//! (sanitizers, Java, Go do): another stretch must be tried then. In a test binary of its own.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use low2g::alloc::LowAllocator;

#[test]
fn code_finds_a_write_view_beside_a_huge_reservation() {
    const HALF: usize = 60 << 40;
    let (none, flags) = (
        libc::PROT_NONE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
    );
    // SAFETY: a new mapping where the kernel likes, without access.
    let reserved = unsafe { libc::mmap(std::ptr::null_mut(), HALF, none, flags, -1, 0) };
    assert_ne!(reserved, libc::MAP_FAILED, "60 TiB of address space");
    let allocator = LowAllocator::new().expect("low memory");
    let blocks: Vec<_> = (0..24)
        .map(|number| {
            let block = allocator.allocate_code(2 << 20, 4096);
            block.unwrap_or_else(|error| panic!("block {number}: {error}"))
        })
        .collect();
    drop(blocks);
    // SAFETY: the mapping made above; nothing else lies in it.
    assert_eq!(unsafe { libc::munmap(reserved, HALF) }, 0);
}
