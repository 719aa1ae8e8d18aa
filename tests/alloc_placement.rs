//! Where the allocator places, on simulated kernels: uniformly, in the last
//! hole, reproducibly with a seed, and with the bits that its certificates say.

mod alloc_support;

use std::sync::Arc;

use alloc_support::*;
use low2g::alloc::{
    AllocError, Kind, LowAllocator, LowBlock, MapRequest, Mapping, Placement, Reach, Step, Use,
};
use low2g::platform::sim::{LowMemory, SimOptions};

#[test]
fn one_hole_is_found_wherever_it_is() {
    for placement in [
        Placement::Randomized,
        Placement::FirstFit,
        Placement::Kernel,
    ] {
        for pages in [1, 16, 5_000] {
            for position in 0..24_u64 {
                let len = pages * PAGE;
                let window = (0x7f00_0000 - (16 * MIB) - len) / PAGE;
                let start = 16 * MIB + window * position / 23 * PAGE;
                let hole = range(start, len);
                let low = LowMemory::Holes(vec![hole]);
                let sim = simulated(SimOptions {
                    low,
                    seed: position,
                    ..SimOptions::default()
                });
                let low = allocator(&sim, placement);
                let found = low.map(&MapRequest::new(len)).expect("the hole fits");
                assert_eq!(found.range(), hole, "{placement}");
                assert_eq!(found.certificate().free_slots, 1);
                drop(found);
                // Also for a block that would have been a slot, if there were room for an arena.
                let small = low.allocate(48, 16).expect("a page fits");
                assert!(hole.contains(small.addr()), "{placement}");
                drop(small);
                low.trim();
                let error = low
                    .map(&MapRequest::new(len + 1))
                    .expect_err("too large for the hole");
                let AllocError::Exhausted {
                    largest_hole,
                    free,
                    size,
                    ref holders,
                    ..
                } = error
                else {
                    panic!("{error}");
                };
                assert_eq!((largest_hole, free, size), (len, len, len + PAGE));
                assert!(!holders.is_empty(), "{error}");
            }
        }
    }
}

#[test]
fn draws_are_uniform() {
    const BINS: u64 = 4096;
    let brk = LowMemory::NonPie { brk: BRK };
    for (seed, memory, draws) in [(5, LowMemory::Pie, 1_000_000), (6, brk, 100_000_u32)] {
        let sim = simulated(SimOptions {
            seed,
            low: memory,
            ..SimOptions::default()
        });
        let low = allocator(&sim, Placement::Randomized);
        let kept: Vec<Mapping> = (0..100)
            .map(|_| low.map(&MapRequest::new(MIB)).expect("room"))
            .collect();
        let request = MapRequest::new(16 * PAGE);
        // The starts that are free, counted from the outside.
        let snapshot = low.snapshot().expect("maps");
        let free = snapshot.iter().filter(|region| region.usage == Use::Free);
        let holes: Vec<(u64, u64)> = free
            .filter(|region| region.range.len() >= request.size)
            .map(|region| {
                (
                    region.range.start(),
                    (region.range.len() - request.size) / PAGE + 1,
                )
            })
            .collect();
        let slots: u64 = holes.iter().map(|(_, starts)| starts).sum();
        let mut counts = vec![0_u32; usize::try_from(BINS).expect("small")];
        for _ in 0..draws {
            let mapping = low.map(&request).expect("room");
            assert_eq!(mapping.certificate().free_slots, slots);
            let start = mapping.range().start();
            let mut index = 0;
            for (hole, starts) in &holes {
                if start >= *hole && start < hole + starts * PAGE {
                    index += (start - hole) / PAGE;
                    break;
                }
                index += starts;
            }
            counts[usize::try_from(index * BINS / slots).expect("below the bins")] += 1;
        }
        let mut chi_square = 0.0;
        for (bin, count) in counts.iter().enumerate() {
            let first = |bin: u64| (bin * slots).div_ceil(BINS);
            let bin = u64::try_from(bin).expect("small");
            let in_bin = u32::try_from(first(bin + 1) - first(bin)).expect("small");
            let all = u32::try_from(slots).expect("small");
            let expected = f64::from(draws) * f64::from(in_bin) / f64::from(all);
            chi_square += (f64::from(*count) - expected).powi(2) / expected;
        }
        // 4,095 degrees of freedom: p = 1e-6 lies at 4,546 (Wilson-Hilferty).
        assert!(
            chi_square < 4_546.0,
            "chi-square {chi_square} for seed {seed}"
        );
        drop(kept);
    }
}

#[test]
fn same_seed_same_addresses() {
    let addresses = |seed| -> Vec<u64> {
        let sim = simulated(SimOptions::default());
        let builder = LowAllocator::builder().platform(sim as _).seed(Some(seed));
        let low = builder.build().expect("a low window");
        let mappings: Vec<Mapping> = (1..50)
            .map(|pages| low.map(&MapRequest::new(pages * PAGE)).expect("room"))
            .collect();
        let block = low.allocate(40, 8).expect("room");
        assert!(mappings.iter().all(|mapping| {
            let certificate = mapping.certificate();
            certificate.seeded && certificate.entropy_bits < 0.1
        }));
        let starts = mappings.iter().map(|mapping| mapping.range().start());
        starts.chain([block.addr()]).collect()
    };
    assert_eq!(addresses(7), addresses(7));
    assert_ne!(addresses(7), addresses(8));
}

#[test]
fn certificates_reach_the_figures() {
    let sim = simulated(SimOptions::default());
    let low = allocator(&sim, Placement::Randomized);
    let live: Vec<Mapping> = (0..512)
        .map(|_| low.map(&MapRequest::new(64 << 10)).expect("room"))
        .collect();
    for mapping in &live {
        let certificate = mapping.certificate();
        assert!(certificate.entropy_bits >= 18.9, "{certificate:?}");
        assert_eq!(certificate.step, Step::Draw);
    }
    let blocks: Vec<LowBlock> = (0..5_000)
        .map(|_| low.allocate(64, 64).expect("room"))
        .collect();
    for block in &blocks {
        let certificate = block.certificate();
        assert!(certificate.entropy_bits >= 24.0, "{certificate:?}");
        assert!(certificate.conditional_bits >= 8.0, "{certificate:?}");
        assert_eq!(certificate.step, Step::Arena);
    }
    let request = MapRequest {
        min_entropy: Some(19.5),
        ..MapRequest::new(PAGE)
    };
    let error = low
        .map(&request)
        .expect_err("no window below 2 GiB has so many pages");
    assert!(matches!(error, AllocError::EntropyTooLow { .. }), "{error}");
}

/// The largest hole that is left, from the outside.
fn largest_hole(low: &LowAllocator) -> u64 {
    let snapshot = low.snapshot().expect("maps");
    let free = snapshot.iter().filter(|region| region.usage == Use::Free);
    free.map(|region| region.range.len()).max().unwrap_or(0)
}

#[test]
fn a_hole_is_kept_for_a_large_block() {
    let build = |bytes: Option<u64>| {
        let sim = simulated(SimOptions {
            max_map_count: 1 << 20,
            ..SimOptions::default()
        });
        let builder = LowAllocator::builder().bare().platform(sim as _);
        let builder = match bytes {
            Some(bytes) => builder.keep_hole(bytes),
            None => builder,
        };
        builder.build().expect("a low window")
    };
    for (bytes, expected) in [(None, 32 * MIB), (Some(100 * MIB), 100 * MIB)] {
        let low = build(bytes);
        let mut held = Vec::new();
        for live in 1..=5_000_u32 {
            let mapping = low.map(&MapRequest::new(64 << 10)).expect("room");
            let certificate = mapping.certificate();
            held.push(mapping);
            if live % 500 == 0 {
                assert!(largest_hole(&low) >= expected, "{live} live");
                // The cost is counted, and of the default below a tenth of a bit.
                let snapshot = low.snapshot().expect("maps");
                let free = snapshot.iter().filter(|region| region.usage == Use::Free);
                let starts = |len: u64| (len / PAGE).saturating_sub(15);
                let starts: u64 = free.map(|region| starts(region.range.len())).sum();
                let starts = u32::try_from(starts).expect("below 2^19");
                let slots = u32::try_from(certificate.free_slots).expect("below 2^19");
                assert!(slots < starts, "{slots} of {starts}");
                let bits = f64::from(starts).log2() - 0.1;
                assert!(
                    bytes.is_some() || certificate.entropy_bits > bits,
                    "{live} live, {starts}: {certificate:?}"
                );
            }
        }
        let large = low.map(&MapRequest::new(expected)).expect("kept for it");
        drop((large, held));
    }
    // Without it, that is gone long before.
    let low = build(Some(0));
    let held: Vec<Mapping> = (0..3_000)
        .map(|_| low.map(&MapRequest::new(64 << 10)).expect("room"))
        .collect();
    assert!(largest_hole(&low) < 16 * MIB);
    assert!(low.map(&MapRequest::new(32 * MIB)).is_err());
    drop(held);
    // Nothing is refused for its sake: a window can be filled.
    for hole in [None, Some(40 * MIB)] {
        let sim = simulated(SimOptions::default());
        let window = range(0x1000_0000, 64 * MIB);
        let builder = LowAllocator::builder().bare().platform(sim as _);
        let builder = builder.reach(Reach::Range(window));
        let builder = hole.map_or(builder.clone(), |hole| builder.keep_hole(hole));
        let low = builder.build().expect("a low window");
        let mut held = Vec::new();
        for size in [4 * MIB, 64 << 10, PAGE] {
            while let Ok(mapping) = low.map(&MapRequest::new(size)) {
                held.push(mapping);
            }
        }
        let bytes: u64 = held.iter().map(|mapping| mapping.range().len()).sum();
        assert_eq!(bytes, window.len(), "{hole:?}");
    }
}

#[test]
fn first_fit_fills_the_window() {
    let sim = simulated(SimOptions {
        max_map_count: 1 << 20,
        ..SimOptions::default()
    });
    let builder = LowAllocator::builder().platform(Arc::clone(&sim) as _);
    let builder = builder
        .placement(Placement::FirstFit)
        .reach(Reach::TwoGibFull);
    let low = builder.floor(64 << 10).build().expect("a low window");
    let request = MapRequest::new(MIB);
    let mut held = Vec::new();
    let error = loop {
        match low.map(&request) {
            Ok(mapping) => held.push(mapping),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AllocError::Exhausted { .. }), "{error}");
    // All but the 64 KiB below the floor, the anchor page and less than one block.
    assert_eq!(held.len(), 2047);
    assert!(low.statistics().surveys <= 40, "{:?}", low.statistics());
    drop(held);
    assert!(leaked(&sim).is_empty());
}

#[test]
fn first_fit_gives_all_but_a_sliver_of_2_gib() {
    let sim = simulated(SimOptions {
        max_map_count: 1 << 20,
        ..SimOptions::default()
    });
    let builder = LowAllocator::builder()
        .bare()
        .platform(Arc::clone(&sim) as _);
    let builder = builder.placement(Placement::FirstFit).floor(64 << 10);
    let low = builder.reach(Reach::TwoGibFull).build();
    let low = low.expect("a low window");
    let mut held = Vec::new();
    while let Ok(block) = low.allocate(64 << 10, 1) {
        held.push(block);
    }
    // 2,047.8 MiB are 32,764.8 blocks.
    assert!(held.len() >= 32_765, "{}", held.len());
}

#[test]
fn brk_room_is_the_callers_if_given() {
    let sim = simulated(SimOptions {
        low: LowMemory::NonPie { brk: BRK },
        ..SimOptions::default()
    });
    for room in [0, 16 * PAGE, 512 * MIB] {
        let builder = LowAllocator::builder().platform(Arc::clone(&sim) as _);
        let low = builder.placement(Placement::FirstFit).brk_room(room);
        let low = low
            .reach(Reach::Range(range(BRK, 1024 * MIB)))
            .build()
            .expect("addresses");
        let first = low
            .map(&MapRequest::new(PAGE))
            .expect("room")
            .range()
            .start();
        assert_eq!(first, BRK_ROOM.0 + room);
    }
}

#[test]
fn statistics_tell_what_is_held_and_what_is_free() {
    let sim = simulated(SimOptions::default());
    let builder = LowAllocator::builder()
        .bare()
        .platform(Arc::clone(&sim) as _);
    let window = range(0x1000_0000, 16 * MIB);
    let builder = builder.reach(Reach::Range(window));
    let builder = builder.placement(Placement::FirstFit);
    let low = builder.build().expect("a low window");
    let block = low.allocate(3 * MIB, 1).expect("room");
    let reserved = low.reserve(MIB, None).expect("room");
    let small = low.allocate(100, 1).expect("room");
    let section = low
        .map(&MapRequest {
            at: Some(window.start() + 8 * MIB),
            kind: Kind::Section,
            ..MapRequest::new(2 * PAGE)
        })
        .expect("free");
    let statistics = low.statistics();
    let count = |kind| {
        let count = statistics.of_kind(kind);
        (count.mappings, count.bytes)
    };
    assert_eq!(count(Kind::Block), (1, 3 * MIB));
    assert_eq!(count(Kind::Reservation), (1, MIB));
    assert_eq!(count(Kind::Section), (1, 2 * PAGE));
    let arena = statistics.data_arena_bytes;
    assert_eq!(count(Kind::Arena), (1, arena));
    assert_eq!(statistics.data_slot_bytes, small.usable_size());
    assert_eq!(statistics.reserved_bytes, MIB);
    let committed = 3 * MIB + 2 * PAGE + arena;
    assert_eq!(statistics.committed_bytes, committed);
    assert_eq!(statistics.live_bytes, committed + MIB);
    assert_eq!(statistics.live_mappings, 4);
    assert_eq!(statistics.made_by(Step::FirstFit), 3);
    assert_eq!(statistics.free_bytes, 16 * MIB - committed - MIB);
    // From 4 MiB and an arena on to 8 MiB; and from there to the end.
    assert_eq!(statistics.largest_hole, 8 * MIB - 2 * PAGE);
    let mut holes = statistics.holes;
    assert_eq!((holes[21 - 12], holes[22 - 12]), (1, 1));
    (holes[21 - 12], holes[22 - 12]) = (0, 0);
    assert!(holes.iter().all(|count| *count == 0));
    drop((block, reserved, small, section));
    low.trim();
    assert_eq!(low.statistics().free_bytes, 16 * MIB);
}

#[test]
fn stack_room_is_the_callers_if_given() {
    let sim = simulated(SimOptions::default());
    let builder = LowAllocator::builder().platform(Arc::clone(&sim) as _);
    let kept = |room: Option<u64>| {
        // Up to where the simulated main stack ends.
        let window = range(0x7ffd_1234_5000 - 1024 * MIB, 1024 * MIB);
        let builder = builder.clone().placement(Placement::FirstFit);
        let builder = builder.reach(Reach::Range(window));
        let low = match room {
            Some(room) => builder.stack_room(room),
            None => builder,
        };
        let low = low.build().expect("addresses");
        let mut held = Vec::new();
        while let Ok(mapping) = low.map(&MapRequest::new(MIB)) {
            held.push(mapping);
        }
        low.statistics().free_bytes + held.len() as u64 * MIB
    };
    let default = kept(None);
    assert!(kept(Some(0)) > default);
    assert_eq!(kept(Some(0)) - kept(Some(64 * MIB)), 64 * MIB);
}
