//! The provider as Cranelift sees it: placement, access, rounds, errors, giving back.

#![cfg(target_os = "linux")]

use std::collections::HashSet;
use std::io::ErrorKind;

use cranelift_jit::{BranchProtection, JITMemoryKind, JITMemoryProvider};
use low2g::alloc::{AllocError, LowAllocator, Placement, Reach};
use low2g::jit::cranelift::LowMemoryProvider;
use low2g::jit::{CodeModel, JitError, SectionKind};
use low2g::platform::{to_u64, to_usize};
use low2g_cranelift_tests::access;

/// Where the small code model's addresses end.
const LOW: u64 = (1 << 31) - (1 << 24);

fn low() -> LowAllocator {
    LowAllocator::new().expect("low memory")
}

fn provider() -> LowMemoryProvider {
    LowMemoryProvider::new(low(), CodeModel::Small).expect("serves small code")
}

fn allocate(memory: &mut LowMemoryProvider, size: usize, align: u64, kind: JITMemoryKind) -> u64 {
    let block = memory.allocate(size, align, kind).expect("room");
    to_u64(block.expose_provenance())
}

fn fill(addr: u64, size: usize, byte: u8) {
    let block = std::ptr::with_exposed_provenance_mut::<u8>(to_usize(addr));
    // SAFETY: write_bytes needs `size` writable bytes: a block that the test was just given.
    unsafe { block.write_bytes(byte, size) };
}

fn read(addr: u64, size: usize) -> Vec<u8> {
    let block = std::ptr::with_exposed_provenance::<u8>(to_usize(addr));
    // SAFETY: from_raw_parts needs `size` readable bytes that nobody writes meanwhile: memory of
    // this test's provider.
    unsafe { std::slice::from_raw_parts(block, size) }.to_vec()
}

fn free(memory: &LowMemoryProvider) {
    // SAFETY: free needs that nothing in it is used any more: the test is done with it.
    unsafe { memory.free() };
}

#[test]
fn blocks_are_low_aligned_apart_and_get_their_access_in_rounds() {
    let mut memory = provider();
    let mut blocks: Vec<(u64, usize, u8, &str)> = Vec::new();
    for round in 0..5_u8 {
        for index in 0..300_usize {
            let size = 1 + (index * 37) % 2000;
            let align = 1 << (index % 13);
            let (kind, access) = match index % 3 {
                0 => (JITMemoryKind::Executable, "r-xp"),
                1 => (JITMemoryKind::ReadOnly, "r--p"),
                _ => (JITMemoryKind::Writable, "rw-p"),
            };
            let addr = allocate(&mut memory, size, align, kind);
            assert_eq!(addr % align, 0);
            assert!(addr + to_u64(size) <= LOW, "{addr:#x}");
            let byte = round * 50 + u8::try_from(index % 50).expect("small");
            fill(addr, size, byte);
            blocks.push((addr, size, byte, access));
        }
        let finalized = memory.finalize(BranchProtection::None);
        finalized.expect("the system makes pages executable");
        // Neither neighbours nor later rounds touched them.
        for (addr, size, byte, expected) in &blocks {
            assert_eq!(access(*addr).as_deref(), Some(*expected));
            assert_eq!(read(*addr, *size), vec![*byte; *size]);
        }
    }
    blocks.sort_unstable();
    for pair in blocks.windows(2) {
        assert!(pair[0].0 + to_u64(pair[0].1) <= pair[1].0);
    }
    free(&memory);
}

#[test]
fn no_page_is_writable_and_executable_and_gaps_hold_int3() {
    let mut memory = provider();
    for _ in 0..200 {
        let addr = allocate(&mut memory, 10, 1, JITMemoryKind::Executable);
        fill(addr, 10, 0x90);
    }
    memory
        .finalize(BranchProtection::BTI)
        .expect("an Arm extension: nothing to mark here");
    let mut code = 0;
    for region in memory.regions() {
        assert_eq!(region.kind, SectionKind::Code);
        assert!(region.finalized);
        let bytes = read(region.range.start(), to_usize(region.range.len()));
        assert!(bytes.iter().all(|byte| matches!(byte, 0x90 | 0xcc)));
        code += bytes.iter().filter(|byte| **byte == 0x90).count();
    }
    assert_eq!(code, 2000);
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux");
    assert!(!maps.contains(" rwx"), "{maps}");
    free(&memory);
}

#[test]
fn pages_are_shared_within_a_round_and_small_rounds_take_one_page() {
    let mut memory = provider();
    allocate(&mut memory, 50, 16, JITMemoryKind::Executable);
    let page = low().page_size();
    let mapped = |memory: &LowMemoryProvider| {
        let regions = memory.regions();
        regions.iter().map(|region| region.range.len()).sum::<u64>()
    };
    assert_eq!(mapped(&memory), page);
    free(&memory);
    for size in [40, 100, 333, 1000, 3000] {
        let mut bytes = 0;
        for index in 0..1000 {
            let size = size / 2 + (index * 7919) % size;
            allocate(&mut memory, size, 16, JITMemoryKind::Executable);
            bytes += to_u64(size).next_multiple_of(16);
        }
        let mapped = mapped(&memory);
        assert!(
            mapped * 2 < bytes * 3 + 8 * page,
            "{bytes} bytes of code take {mapped}"
        );
        free(&memory);
    }
}

#[test]
fn addresses_are_drawn_independently() {
    let first = |memory: &mut LowMemoryProvider| {
        [0, 1].map(|_| allocate(memory, 64, 16, JITMemoryKind::Executable))
    };
    let (mut bases, mut distances) = (HashSet::new(), HashSet::new());
    let mut shared = 0;
    for _ in 0..200 {
        let mut memory = provider();
        let [one, two] = first(&mut memory);
        bases.insert(one >> 12);
        distances.insert(one.wrapping_sub(two));
        shared += usize::from(one >> 12 == two >> 12);
        let mut certificates = memory
            .regions()
            .into_iter()
            .map(|region| region.certificate);
        assert!(certificates.all(|certificate| certificate.entropy_bits > 17.0));
        free(&memory);
    }
    // Of 2^19 pages, 200 draws repeat one with a probability of 4 %; four times with one of 10^-7.
    assert!(bases.len() >= 197, "{} pages in 200 draws", bases.len());
    // Both lie in one page, at places that are drawn too: 241 distances are possible.
    assert_eq!(shared, 200);
    assert!(distances.len() > 60, "{} distances", distances.len());

    let seeded = || {
        let low = LowAllocator::builder().seed(Some(7)).build();
        LowMemoryProvider::new(low.expect("low memory"), CodeModel::Small).expect("serves it")
    };
    let again = {
        let mut memory = seeded();
        let addresses = first(&mut memory);
        free(&memory);
        addresses
    };
    assert_eq!(first(&mut seeded()), again);
}

#[test]
fn first_fit_packs_without_gaps() {
    let low = LowAllocator::builder()
        .placement(Placement::FirstFit)
        .build();
    let low = low.expect("low memory");
    let mut memory = LowMemoryProvider::new(low, CodeModel::Small).expect("serves it");
    let blocks: Vec<u64> = (0..100)
        .map(|_| allocate(&mut memory, 32, 16, JITMemoryKind::Executable))
        .collect();
    assert!(blocks.windows(2).all(|pair| pair[1] == pair[0] + 32));
}

#[test]
fn bad_requests_are_errors_of_std_io_and_lose_nothing() {
    let mut memory = provider();
    let kept = allocate(&mut memory, 100, 16, JITMemoryKind::Executable);
    fill(kept, 100, 0x11);
    let mut refuse = |size, align, expected: ErrorKind| {
        let error = memory.allocate(size, align, JITMemoryKind::Executable);
        let error = error.expect_err("no such block");
        assert_eq!(error.kind(), expected, "{error}");
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
        let cause: &JitError = cause.expect("the cause goes along");
        cause.clone()
    };
    assert_eq!(refuse(0, 16, ErrorKind::InvalidInput), JitError::Empty);
    for align in [0, 3, 48, u64::MAX] {
        let error = refuse(8, align, ErrorKind::InvalidInput);
        assert_eq!(error, JitError::Alignment { align });
    }
    for (size, align) in [(8, 1 << 31), (8, 1 << 63), (1 << 31, 16), (1 << 46, 1)] {
        let error = refuse(size, align, ErrorKind::OutOfMemory);
        let JitError::Alloc(AllocError::Exhausted { window, .. }) = &error else {
            panic!("{error:?}");
        };
        assert!(error.to_string().contains(&window.to_string()));
    }
    refuse(usize::MAX, 16, ErrorKind::InvalidInput);
    // More than a page of alignment, within reason, is served.
    for align in [1 << 13, 1 << 16, 1 << 24] {
        let addr = allocate(&mut memory, 8, align, JITMemoryKind::ReadOnly);
        assert_eq!(addr % align, 0);
    }
    memory.finalize(BranchProtection::None).expect("finalizes");
    memory
        .finalize(BranchProtection::None)
        .expect("nothing to do");
    assert_eq!(read(kept, 100), [0x11; 100]);
    free(&memory);
}

#[test]
fn a_reach_that_does_not_serve_the_model_is_refused_at_once() {
    let with = |reach: &str, model| {
        let reach: Reach = reach.parse().expect("a reach");
        let low = LowAllocator::builder().reach(reach).build();
        LowMemoryProvider::new(low.expect("addresses"), model)
    };
    for reach in ["4g", "near:0x500000000000", "0x100000000-0x200000000"] {
        for model in [CodeModel::Small, CodeModel::Medium] {
            let error = with(reach, model).expect_err("blocks could be too far apart");
            assert!(matches!(error, JitError::RelativeReach { .. }));
            let text = error.to_string();
            assert!(
                text.contains(&model.to_string()) && text.contains("2g"),
                "{text}"
            );
        }
        let memory = with(reach, CodeModel::Large).expect("any reach");
        assert_eq!(memory.code_model(), CodeModel::Large);
    }
    for reach in ["2g", "2g-full", "0x100000000-0x140000000"] {
        with(reach, CodeModel::Small).expect("serves small code");
    }
}

#[test]
fn memory_is_given_back_by_free_and_kept_without_it() {
    let mut memory = provider();
    let blocks = [100, 100_000].map(|size| {
        let addr = allocate(&mut memory, size, 16, JITMemoryKind::Executable);
        fill(addr, size, 0xc3);
        addr
    });
    memory.finalize(BranchProtection::None).expect("finalizes");
    let fresh = allocate(&mut memory, 100, 16, JITMemoryKind::Executable);
    drop(memory.clone());
    for block in blocks {
        assert_eq!(access(block).as_deref(), Some("r-xp"));
    }
    // SAFETY: free_memory needs that nothing in it is used any more.
    unsafe { memory.free_memory() };
    assert_eq!(memory.regions(), []);
    for block in blocks.into_iter().chain([fresh]) {
        // Another test's block may be there already; ours of these sizes would be executable.
        assert_ne!(access(block).as_deref(), Some("r-xp"));
    }
    // It can be used again. What was finalized outlives the last handle, as with Cranelift's own.
    let kept = allocate(&mut memory, 100, 16, JITMemoryKind::Executable);
    fill(kept, 100, 0xc3);
    memory.finalize(BranchProtection::None).expect("finalizes");
    drop(memory);
    assert_eq!(read(kept, 100), [0xc3; 100]);
    // And what never was does not.
    let mut memory = provider();
    let lost = allocate(&mut memory, 70_000, 16, JITMemoryKind::ReadOnly);
    assert_eq!(access(lost).as_deref(), Some("rw-p"));
    let before = memory.regions();
    drop(memory);
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux");
    assert!(!maps.contains(&format!("{:08x}-", before[0].range.start())));
}

#[test]
fn a_full_allocator_is_an_error_that_says_what_is_left_and_recovers() {
    let reach: Reach = "0x30000000-0x30010000".parse().expect("a reach");
    let low = LowAllocator::builder().reach(reach).build();
    let mut memory =
        LowMemoryProvider::new(low.expect("a window"), CodeModel::Small).expect("small");
    let mut count = 0;
    let error = loop {
        match memory.allocate(4096, 16, JITMemoryKind::Executable) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
    };
    assert!((1..=16).contains(&count), "{count}");
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    assert!(error.to_string().contains("no low memory left"), "{error}");
    free(&memory);
    memory
        .allocate(4096, 16, JITMemoryKind::Executable)
        .expect("room again");
}

#[test]
fn providers_on_several_threads_share_one_allocator() {
    let low = low();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let low = low.clone();
            scope.spawn(move || {
                let mut memory = LowMemoryProvider::new(low, CodeModel::Small).expect("small");
                for _ in 0..20 {
                    let blocks = [64, 300, 70_000].map(|size| {
                        let addr = allocate(&mut memory, size, 16, JITMemoryKind::Executable);
                        fill(addr, size, 0x42);
                        (addr, size)
                    });
                    memory.finalize(BranchProtection::None).expect("finalizes");
                    for (addr, size) in blocks {
                        assert_eq!(read(addr, size), vec![0x42; size]);
                    }
                }
                free(&memory);
            });
        }
    });
    assert_eq!(low.statistics().live_bytes, 0);
}
