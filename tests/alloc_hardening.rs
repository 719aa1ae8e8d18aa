//! Guards, quarantine, checked frees and limits, on the system that runs the tests and on a
//! simulated one.

#![cfg(target_os = "linux")]

mod alloc_support;

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};

use alloc_support::{Dice, MIB, PAGE, leaked, range, simulated};
use low2g::alloc::{AllocError, Builder, Kind, LowAllocator, Misuse, Placement, Reach};
use low2g::platform::sim::SimOptions;
use low2g::platform::{AddrRange, Protection};

fn build(builder: Builder) -> LowAllocator {
    builder.build().expect("this system has low memory")
}

/// Whether the byte at `addr` can be read: the kernel says EFAULT instead of raising a signal.
fn readable(addr: u64) -> bool {
    let (_reader, writer) = std::io::pipe().expect("a pipe");
    let at = std::ptr::with_exposed_provenance(usize::try_from(addr).expect("64-bit"));
    // SAFETY: write reads one byte where the caller says, and answers EFAULT if it cannot.
    let written = unsafe { libc::write(writer.as_raw_fd(), at, 1) };
    written == 1
}

fn poke(addr: u64, value: u8) {
    let at = std::ptr::with_exposed_provenance_mut::<u8>(usize::try_from(addr).expect("64-bit"));
    // SAFETY: a volatile write needs a writable byte: the tests name bytes of live arenas only.
    unsafe { at.write_volatile(value) };
}

fn free(low: &LowAllocator, addr: u64) -> Result<(), Misuse> {
    // SAFETY: the tests free what they allocated by address and use no more, or what is no block.
    unsafe { low.deallocate_raw(addr) }
}

#[test]
fn blocks_of_their_own_stand_between_guards() {
    for builder in [LowAllocator::builder(), LowAllocator::builder().hardened()] {
        let low = build(builder);
        for size in [40_000, 65_536, 1_000_001_u64] {
            let mut block = low.allocate(size, 16).expect("room");
            block.as_mut_slice().fill(7);
            let pages = size.next_multiple_of(PAGE);
            assert_eq!(block.usable_size(), pages);
            assert!(readable(block.addr()) && readable(block.addr() + pages - 1));
            assert!(!readable(block.addr() - 1), "a page before");
            assert!(!readable(block.addr() + pages), "a page after");
        }
        // A large alignment has a guard after it only.
        let block = low.allocate(100, 1 << 24).expect("room");
        assert!(block.addr().is_multiple_of(1 << 24));
        assert!(!readable(block.addr() + PAGE));
    }
    let bare = build(LowAllocator::builder().bare());
    let block = bare.allocate(65_536, 16).expect("room");
    let owned = bare.owner_of(block.addr()).expect("ours");
    assert_eq!(owned.range.len(), 65_536, "no guards were asked for");
}

#[test]
fn arenas_stand_between_guards_if_hardened() {
    let low = build(LowAllocator::builder().hardened());
    let block = low.allocate(48, 16).expect("room");
    let mut addr = block.addr();
    while readable(addr) {
        assert!(low.owner_of(addr).is_some());
        addr += PAGE;
    }
    assert!(
        low.owner_of(addr).is_some(),
        "the guard is the allocator's too"
    );
}

#[test]
fn freed_blocks_are_gone_and_come_back_late() {
    let low = build(LowAllocator::builder());
    let block = low.allocate(65_536, 16).expect("room");
    let addr = block.addr();
    drop(block);
    assert!(!readable(addr), "freed memory can be read");
    let owned = low
        .owner_of(addr)
        .expect("in quarantine, so nobody else can have it");
    assert_eq!(owned.kind, Kind::Block);
    assert!(low.statistics().live_bytes > 0);
    low.trim();
    assert!(low.owner_of(addr).is_none());
    assert_eq!(low.statistics().live_bytes, 0);
}

#[test]
fn freed_slots_come_back_late() {
    for placement in [Placement::Randomized, Placement::FirstFit] {
        let low = build(LowAllocator::builder().placement(placement));
        let mut recent = VecDeque::new();
        for _ in 0..20_000 {
            let addr = low.allocate_raw(100, 8).expect("room");
            assert!(
                !recent.contains(&addr),
                "used again after less than 32 frees"
            );
            free(&low, addr).expect("in use");
            recent.push_back(addr);
            if recent.len() > 32 {
                recent.pop_front();
            }
        }
        low.trim();
        assert_eq!(low.statistics().live_bytes, 0);
    }
}

#[test]
fn wrong_frees_are_refused() {
    let presets = [
        LowAllocator::builder().bare(),
        LowAllocator::builder(),
        LowAllocator::builder().hardened(),
        LowAllocator::builder()
            .bare()
            .placement(Placement::FirstFit),
    ];
    for low in presets.map(build) {
        let keeper = low.allocate_raw(100, 8).expect("room");
        let small = low.allocate_raw(100, 8).expect("room");
        let large = low.allocate_raw(100_000, 8).expect("room");
        assert_eq!(low.usable_size(small), Some(112));
        assert_eq!(low.usable_size(large), Some(25 * PAGE));
        let inside = free(&low, small + 16).expect_err("not a start");
        assert_eq!(
            inside,
            Misuse::Inside {
                addr: small + 16,
                start: small
            }
        );
        let foreign: Box<u8> = Box::new(1);
        let high = low2g::platform::to_u64(std::ptr::from_ref(&*foreign).addr());
        for addr in [large + 16, high, 0, u64::MAX] {
            assert_eq!(free(&low, addr), Err(Misuse::NotOurs { addr }));
        }
        free(&low, small).expect("in use");
        assert_eq!(free(&low, small), Err(Misuse::NotInUse { addr: small }));
        assert_eq!(low.usable_size(small), None);
        free(&low, large).expect("in use");
        assert_eq!(free(&low, large), Err(Misuse::NotOurs { addr: large }));
        let owned = low.owner_of(keeper + 50).expect("ours");
        assert_eq!((owned.range.start(), owned.in_use), (keeper, true));
        assert!(!low.owner_of(small + 50).expect("its slot").in_use);
        free(&low, keeper).expect("in use");
    }
}

#[test]
fn writes_after_free_are_found_if_hardened() {
    let low = build(LowAllocator::builder().hardened().quarantine(2, 0));
    let keeper = low.allocate_raw(64, 8).expect("room");
    let addr = low.allocate_raw(64, 8).expect("room");
    poke(addr + 10, 1);
    free(&low, addr).expect("in use");
    poke(addr + 20, 9);
    let found = (0..200_000).any(|_| match low.allocate_raw(64, 8) {
        Ok(other) => {
            assert_ne!(other, addr, "handed out again although it was written to");
            free(&low, other).expect("in use");
            false
        }
        Err(AllocError::Misuse(Misuse::WrittenAfterFree { addr: at, size: 64 })) => {
            assert_eq!(at, addr);
            true
        }
        Err(error) => panic!("{error}"),
    });
    assert!(
        found,
        "one of some 510 slots was not picked in 200,000 times"
    );
    free(&low, keeper).expect("in use");
}

#[test]
fn hardened_slots_are_clear_again() {
    let low = build(LowAllocator::builder().hardened());
    for round in 0..3_000 {
        let mut block = low.allocate(40, 8).expect("room");
        assert!(block.as_slice().iter().all(|byte| *byte == 0), "{round}");
        block.as_mut_slice().fill(0xee);
        let raw = low.allocate_raw_zeroed(40, 8).expect("room");
        poke(raw, 3);
        free(&low, raw).expect("in use");
    }
}

#[test]
fn limits_and_minimums() {
    let low = build(LowAllocator::builder().bare().byte_limit(MIB));
    let held = low.allocate(900_000, 8).expect("below the limit");
    let error = low.allocate(200_000, 8).expect_err("beyond the limit");
    let AllocError::ByteLimit { size, live, limit } = error else {
        panic!("{error}");
    };
    assert_eq!((size, live, limit), (49 * PAGE, 220 * PAGE, MIB));
    drop(held);
    low.allocate(200_000, 8).expect("below the limit again");
    // What waits in quarantine counts, but gives way.
    let low = build(LowAllocator::builder().byte_limit(MIB));
    for _ in 0..20 {
        low.allocate(200_000, 8).expect("the quarantine gives way");
    }
    let strict = LowAllocator::builder().bare().min_conditional_entropy(12.5);
    let low = build(strict.clone());
    low.allocate(65_536, 8)
        .expect("a block of its own has 18.9 bits");
    let error = low
        .allocate(64, 8)
        .expect_err("one of 4,096 slots has 12 bits at first only");
    assert!(matches!(error, AllocError::EntropyTooLow { .. }), "{error}");
    let low = build(strict.placement(Placement::FirstFit));
    low.allocate(65_536, 8).expect_err("first fit has none");
    assert!(
        LowAllocator::builder()
            .min_conditional_entropy(f64::NAN)
            .build()
            .is_err()
    );
}

#[test]
fn reserved_space_is_filled_later() {
    let low = build(LowAllocator::builder());
    let reach = Reach::Range(range(0x3000_0000, 64 * MIB));
    let mut space = low.reserve(16 * MIB, Some(reach)).expect("room");
    let whole = space.range();
    assert!(range(0x3000_0000, 64 * MIB).encloses(whole));
    assert!(!readable(whole.start()));
    let first = AddrRange::at(whole.start(), 4 * PAGE).expect("low");
    space
        .protect(first, Protection::ReadWrite)
        .expect("allowed");
    assert!(readable(first.start()) && !readable(first.end()));
    space.guard(first).expect("allowed");
    assert!(!readable(first.start()));
    assert!(space.populate().is_err(), "not writable");
}

/// Random raw allocations and frees on a simulated kernel, no two of which overlap.
#[test]
fn no_overlap_with_any_preset() {
    let presets = [
        LowAllocator::builder().bare(),
        LowAllocator::builder(),
        LowAllocator::builder().hardened(),
        LowAllocator::builder()
            .bare()
            .placement(Placement::FirstFit),
        LowAllocator::builder().placement(Placement::FirstFit),
    ];
    for (seed, preset) in presets.into_iter().enumerate() {
        let seed = u64::try_from(seed).expect("small");
        let sim = simulated(SimOptions {
            seed,
            ..SimOptions::default()
        });
        let low = build(preset.platform(Arc::clone(&sim) as _));
        let mut dice = Dice::new(seed);
        let mut live: BTreeMap<u64, u64> = BTreeMap::new();
        for operation in 0..60_000 {
            if live.len() > 1_000 || (!live.is_empty() && dice.below(5) < 2) {
                let from = dice.below(1 << 31);
                let next = live.range(from..).next().or_else(|| live.iter().next());
                let (addr, _) = next.map(|(addr, end)| (*addr, *end)).expect("not empty");
                live.remove(&addr);
                free(&low, addr).expect("in use");
                continue;
            }
            let align = 1 << dice.below(13);
            let magnitude = dice.below(if operation % 20 == 0 { 17 } else { 12 });
            let size = 1 + dice.below(1 << magnitude);
            let addr = low.allocate_raw(size, align).expect("room");
            assert!(addr.is_multiple_of(align));
            assert!(low.window().encloses(range(addr, size)));
            let before = live.range(..addr + size).next_back();
            assert!(before.is_none_or(|(_, end)| *end <= addr), "overlap");
            live.insert(addr, addr + size);
        }
        for addr in live.into_keys() {
            free(&low, addr).expect("in use");
        }
        low.trim();
        assert_eq!(low.statistics().live_bytes, 0);
        assert!(leaked(&sim).is_empty());
    }
}

/// Threads that free each other's blocks; each block is filled with its own number meanwhile.
#[test]
fn threads_free_each_others_blocks() {
    const THREADS: u64 = 8;
    let presets = [
        LowAllocator::builder().bare(),
        LowAllocator::builder().hardened(),
        LowAllocator::builder()
            .bare()
            .placement(Placement::FirstFit),
    ];
    for low in presets.map(build) {
        let shelf: Mutex<Vec<(u64, u8)>> = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (low, shelf) = (&low, &shelf);
                scope.spawn(move || {
                    let mut dice = Dice::new(thread);
                    let mut own = Vec::new();
                    for round in 0..4_000_u64 {
                        let tag = u8::try_from((round * THREADS + thread) % 251).expect("small");
                        let size = 16 + dice.below(2_000);
                        let addr = low.allocate_raw(size, 16).expect("room");
                        poke(addr, tag);
                        poke(addr + 15, tag);
                        own.push((addr, tag));
                        if own.len() > 50 {
                            let index = usize::try_from(dice.below(50)).expect("small");
                            let given = own.swap_remove(index);
                            let mut shelf = shelf.lock().expect("nobody panicked");
                            shelf.push(given);
                            let index = dice.below(shelf.len() as u64);
                            let taken = shelf.swap_remove(usize::try_from(index).expect("small"));
                            drop(shelf);
                            release(low, taken);
                        }
                    }
                    for taken in own {
                        release(low, taken);
                    }
                });
            }
        });
        for taken in shelf.into_inner().expect("nobody panicked") {
            release(&low, taken);
        }
        low.trim();
        assert_eq!(low.statistics().live_bytes, 0);
    }
}

fn release(low: &LowAllocator, (addr, tag): (u64, u8)) {
    for at in [addr, addr + 15] {
        let at = std::ptr::with_exposed_provenance::<u8>(usize::try_from(at).expect("64-bit"));
        // SAFETY: a volatile read needs a readable byte: the block is live and has 16 bytes.
        assert_eq!(unsafe { at.read_volatile() }, tag, "overwritten");
    }
    free(low, addr).expect("in use");
}
