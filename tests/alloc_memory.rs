//! What blocks cost in memory, and where they lie when addresses need not be random: cut to their
//! size, resized in place.

#![cfg(target_os = "linux")]

mod alloc_support;

use std::alloc::Layout;
use std::sync::Mutex;

use alloc_support::Dice;
use allocator_api2::alloc::Allocator;
use low2g::alloc::{Builder, LowAllocator, Misuse, Placement};

fn build(builder: Builder) -> LowAllocator {
    builder.build().expect("this system has low memory")
}

/// The tests measure the process.
static ALONE: Mutex<()> = Mutex::new(());

fn first_fit() -> LowAllocator {
    build(
        LowAllocator::builder()
            .bare()
            .placement(Placement::FirstFit),
    )
}

/// The bytes of a live block.
fn bytes(addr: u64, len: u64) -> &'static mut [u8] {
    let [addr, len] = [addr, len].map(|value| usize::try_from(value).expect("64-bit"));
    let start = std::ptr::with_exposed_provenance_mut(addr);
    // SAFETY: from_raw_parts_mut needs that many bytes, mapped and nobody else's: the tests name live
    // blocks only, one reference at a time.
    unsafe { std::slice::from_raw_parts_mut(start, len) }
}

fn free(low: &LowAllocator, addr: u64) -> Result<(), Misuse> {
    // SAFETY: the tests free what they allocated by address and use no more, or what is no block.
    unsafe { low.deallocate_raw(addr) }
}

/// Blocks of 256 bytes, 100,000 live: address space and resident memory of the arenas for each.
#[test]
fn a_small_block_costs_little_more_than_its_size() {
    const BLOCKS: u64 = 100_000;
    let _alone = ALONE.lock();
    let low = first_fit();
    let mut live = Vec::new();
    let mut resident = 0;
    for block in 0..BLOCKS + 1_024 {
        // The first arena's blocks warm up what is needed once.
        if block == 1_024 {
            live.reserve_exact(200_000);
            live.iter().for_each(|addr| bytes(*addr, 1)[0] = 1);
            resident = arena_bytes_resident(&low);
        }
        let addr = low.allocate_raw(256, 16).expect("room");
        bytes(addr, 1)[0] = 1;
        live.push(addr);
    }
    let mapped = low.statistics().live_bytes;
    assert!(mapped <= (BLOCKS + 1_024) * 262, "{mapped}");
    let resident = arena_bytes_resident(&low) - resident;
    assert!(resident <= BLOCKS * 258, "{resident}");
    for addr in live {
        free(&low, addr).expect("in use");
    }
}

/// 200,000 operations on 20,000 live blocks of 64 bytes to 64 KiB, log-uniform, all written: the most
/// that was resident and mapped, against the most that was live.
#[test]
fn blocks_of_all_sizes_leave_little_unused() {
    const LIVE: u64 = 20_000;
    let _alone = ALONE.lock();
    for seed in [1, 2] {
        let low = first_fit();
        let mut dice = Dice::new(seed);
        let mut blocks: Vec<(u64, u64)> = Vec::new();
        let (mut live, mut most_live, mut most_mapped, mut most_resident) = (0, 0, 0, 0);
        for step in 0..200_000_u64 {
            if blocks.len() as u64 == LIVE {
                let victim = usize::try_from(dice.below(LIVE)).expect("small");
                let (addr, len) = blocks.swap_remove(victim);
                free(&low, addr).expect("in use");
                live -= len;
            }
            let len = log_uniform(&mut dice);
            let addr = low.allocate_raw(len, 16).expect("room");
            bytes(addr, len).fill(1);
            blocks.push((addr, len));
            live += len;
            most_live = most_live.max(live);
            if step % 1_024 == 0 {
                most_mapped = most_mapped.max(low.statistics().live_bytes);
            }
            if step % 20_000 == 19_999 {
                most_resident = most_resident.max(arena_bytes_resident(&low));
            }
        }
        let text = format!("live {most_live}, resident {most_resident}, mapped {most_mapped}");
        println!("{text}");
        assert!(most_resident * 100 <= most_live * 105, "{text}");
        assert!(most_mapped * 100 <= most_live * 110, "{text}");
        for (addr, _) in blocks {
            free(&low, addr).expect("in use");
        }
        low.trim();
        assert_eq!(low.statistics().live_bytes, 0);
    }
}

/// 64 bytes to 64 KiB.
fn log_uniform(dice: &mut Dice) -> u64 {
    let fraction = u32::try_from(dice.below(10 << 16)).expect("small");
    let exponent = 6.0 + f64::from(fraction) / 65_536.0;
    format!("{:.0}", exponent.exp2()).parse().expect("a number")
}

#[test]
fn a_block_cut_to_size_grows_and_shrinks_where_it_lies() {
    let _alone = ALONE.lock();
    let low = first_fit();
    let mut block = low.allocate(20_000, 16).expect("room");
    assert!(block.usable_size() < 20_000 + 64, "{}", block.usable_size());
    block.as_mut_slice().fill(7);
    let addr = block.addr();
    for size in [5_000, 60_000, 12_345, 100_000, 70_001] {
        let kept = block.size().min(size);
        assert!(block.resize_in_place(size), "{size}");
        assert_eq!((block.addr(), block.size()), (addr, size));
        let (old, new) = block
            .as_slice()
            .split_at(usize::try_from(kept).expect("small"));
        assert!(old.iter().all(|byte| *byte == 7), "{size}");
        assert!(new.iter().all(|byte| *byte == 0), "{size}");
        block.as_mut_slice().fill(7);
    }
    // Up to its neighbour and no further; what a neighbour gave up is not zero of itself.
    let mut neighbour = low.allocate(10_000, 16).expect("room");
    assert_eq!(neighbour.addr(), block.range().end().next_multiple_of(64));
    assert!(!block.resize_in_place(100_000), "the neighbour's");
    neighbour.as_mut_slice().fill(9);
    assert!(!block.resize_in_place(0) && block.size() == 70_001);
    drop(neighbour);
    assert!(block.resize_in_place(100_000));
    assert!(block.as_slice()[70_001..].iter().all(|byte| *byte == 0));
    drop(block);
    low.trim();
    assert_eq!(low.statistics().live_bytes, 0);
}

#[test]
fn containers_grow_and_shrink_where_they_lie() {
    let _alone = ALONE.lock();
    let low = first_fit();
    let layout = |size: usize| Layout::from_size_align(size, 16).expect("a layout");
    let block = low
        .allocate_zeroed(layout(10_000))
        .expect("room")
        .cast::<u8>();
    let check = |len: usize, value: u8| {
        let addr = block.addr().get() as u64;
        assert!(bytes(addr, len as u64).iter().all(|byte| *byte == value));
    };
    bytes(block.addr().get() as u64, 10_000).fill(3);
    // SAFETY: grow needs the block with the layout it has, and one that is larger.
    let grown = unsafe { low.grow(block, layout(10_000), layout(50_000)) };
    assert_eq!(grown.expect("room").cast(), block);
    check(10_000, 3);
    bytes(block.addr().get() as u64, 50_000).fill(4);
    // SAFETY: shrink needs the block with the layout it has, and one that is smaller.
    let shrunk = unsafe { low.shrink(block, layout(50_000), layout(6_000)) };
    assert_eq!(shrunk.expect("room").cast(), block);
    check(6_000, 4);
    let usable = low.usable_size(block.addr().get() as u64);
    assert!(usable.is_some_and(|usable| usable < 6_064), "{usable:?}");
    // SAFETY: as grow.
    let grown = unsafe { low.grow_zeroed(block, layout(6_000), layout(40_000)) };
    assert_eq!(grown.expect("room").cast(), block);
    check(6_000, 4);
    let rest = bytes(block.addr().get() as u64 + 6_000, 34_000);
    assert!(rest.iter().all(|byte| *byte == 0));
    // SAFETY: deallocate needs the block with the layout it has, no more used.
    unsafe { low.deallocate(block, layout(40_000)) };
}

#[test]
fn wrong_frees_of_blocks_cut_to_size_change_nothing() {
    let _alone = ALONE.lock();
    let low = first_fit();
    let first = low.allocate_raw(5_000, 16).expect("room");
    let second = low.allocate_raw(9_000, 4096).expect("room");
    assert!(second.is_multiple_of(4096));
    bytes(first, 5_000).fill(1);
    let inside = Misuse::Inside {
        addr: first + 64,
        start: first,
    };
    assert_eq!(free(&low, first + 64), Err(inside));
    free(&low, second).expect("in use");
    assert_eq!(free(&low, second), Err(Misuse::NotInUse { addr: second }));
    assert_eq!(low.usable_size(second), None);
    let owned = low.owner_of(second + 100).expect("the chunk's");
    assert!(!owned.in_use);
    let owned = low.owner_of(first + 4_999).expect("in use");
    assert!(owned.in_use && owned.range.start() == first);
    // Cleared although it was used, and elsewhere.
    let zeroed = low.allocate_raw_zeroed(9_000, 16).expect("room");
    bytes(zeroed, 9_000).fill(1);
    free(&low, zeroed).expect("in use");
    let (zeroed, certificate) = low.allocate_raw_certified(9_000, 16).expect("room");
    assert!(bytes(zeroed, 9_000).iter().all(|byte| *byte == 0));
    assert!(certificate.entropy_bits.abs() < f64::EPSILON);
    assert!(bytes(first, 5_000).iter().all(|byte| *byte == 1));
    for addr in [first, zeroed] {
        free(&low, addr).expect("in use");
    }
    low.trim();
    assert_eq!(low.statistics().live_bytes, 0);
}

/// Resident bytes of the process's mappings that lie in arenas of `low`.
fn arena_bytes_resident(low: &LowAllocator) -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps").expect("Linux has it");
    let mut ours = false;
    let mut bytes = 0;
    for line in text.lines() {
        if let Some((start, _)) = line.split_once('-')
            && let Ok(start) = u64::from_str_radix(start, 16)
        {
            let owned = low.owner_of(start);
            ours = owned.is_some();
        } else if let Some(rest) = line.strip_prefix("Rss:").filter(|_| ours) {
            let kib = rest.trim().trim_end_matches(" kB");
            bytes += kib.parse::<u64>().expect("a number") * 1024;
        }
    }
    bytes
}
