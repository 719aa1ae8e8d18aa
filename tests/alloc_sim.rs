//! The allocator on simulated kernels: no claim overlaps or leaves its reach,
//! requests mean what they say, and pictures are whole.

mod alloc_support;

use alloc_support::*;
use low2g::alloc::{AllocError, Kind, LowAllocator, MapRequest, Placement, Reach, Step, Use};
use low2g::platform::Protection;
use low2g::platform::macos::Machine;
use low2g::platform::sim::{
    BoundedAlloc, FreeBsdOptions, LowMemory, MacOsOptions, MapExcl, SimOptions, WindowsOptions,
};
use std::sync::Arc;

#[test]
fn no_overlap_over_many_operations() {
    for (seed, placement) in [
        (1, Placement::Randomized),
        (2, Placement::FirstFit),
        (3, Placement::Kernel),
    ] {
        exercise(
            SimOptions {
                seed,
                ..SimOptions::default()
            },
            placement,
            30_000,
            400,
        );
        let low = LowMemory::NonPie { brk: BRK };
        exercise(
            SimOptions {
                seed: seed + 10,
                low,
                ..SimOptions::default()
            },
            placement,
            30_000,
            400,
        );
    }
}

#[test]
fn no_overlap_on_freebsd() {
    let base = FreeBsdOptions::default;
    let brk = || LowMemory::NonPie { brk: BRK };
    let systems = [
        FreeBsdOptions { seed: 31, ..base() },
        FreeBsdOptions {
            seed: 32,
            low: brk(),
            imply_prot_max: true,
            ..base()
        },
        FreeBsdOptions {
            seed: 33,
            thief_per_mille: 500,
            ..base()
        },
        // Nothing but hints, which are exact without randomization, and verified.
        FreeBsdOptions {
            seed: 34,
            excl: MapExcl::Unknown,
            aslr: false,
            low: brk(),
            ..base()
        },
        // Written memory cannot become executable.
        FreeBsdOptions {
            seed: 35,
            exec_gain: false,
            ..base()
        },
    ];
    for options in systems {
        for placement in [Placement::Randomized, Placement::FirstFit] {
            let world = World::freebsd(options.clone());
            exercise_in(&world, placement, Reach::TwoGib, 2_000, 100);
        }
    }
    let world = World::freebsd(base());
    exercise_in(&world, Placement::Kernel, Reach::TwoGib, 2_000, 100);
}

#[test]
fn randomized_hints_leave_the_weakest_step_on_freebsd() {
    // Without MAP_EXCL a hint lands up to 16 MiB further on, and does not count as a draw.
    let world = World::freebsd(FreeBsdOptions {
        excl: MapExcl::Ignored,
        ..FreeBsdOptions::default()
    });
    let low = world.allocator(Placement::Randomized, Reach::TwoGib);
    let mapping = low.map(&MapRequest::new(PAGE)).expect("MAP_32BIT works");
    assert_eq!(mapping.certificate().step, Step::Map32bit);
    assert!(low.window().encloses(mapping.range()));
    drop(mapping);
    assert_eq!(world.leaked(), []);
}

#[test]
fn no_overlap_on_windows() {
    let base = |seed| WindowsOptions {
        seed,
        ..WindowsOptions::default()
    };
    let thief = WindowsOptions {
        thief_per_mille: 500,
        ..base(52)
    };
    let wine = WindowsOptions {
        bounded: BoundedAlloc::IgnoresLowest,
        ..base(53)
    };
    for options in [base(51), thief, wine] {
        for placement in [Placement::Randomized, Placement::FirstFit] {
            let world = World::windows(options.clone());
            exercise_in(&world, placement, Reach::TwoGib, 2_000, 100);
        }
    }
}

#[test]
fn no_overlap_on_macos() {
    let shrunk = |seed| MacOsOptions {
        seed,
        pagezero: 0x1_0000,
        ..MacOsOptions::default()
    };
    let thief = MacOsOptions {
        thief_per_mille: 500,
        ..shrunk(42)
    };
    for options in [shrunk(41), thief] {
        for placement in [Placement::Randomized, Placement::FirstFit] {
            let world = World::macos(options.clone());
            exercise_in(&world, placement, Reach::TwoGib, 2_000, 100);
        }
    }
    // Near an address, on both machines as they come.
    for machine in [Machine::X86_64, Machine::Arm64] {
        let world = World::macos(MacOsOptions {
            seed: 43,
            machine,
            ..MacOsOptions::default()
        });
        let near = Reach::Near(0x20_0000_0000);
        exercise_in(&world, Placement::Randomized, near, 2_000, 100);
    }
}

#[test]
fn systems_without_low_memory_say_what_to_do() {
    for (machine, words) in [
        (Machine::X86_64, "-Wl,-pagezero_size,0x10000"),
        (Machine::Arm64, "near an address"),
    ] {
        let world = World::macos(MacOsOptions {
            machine,
            ..MacOsOptions::default()
        });
        let refused = LowAllocator::builder()
            .platform(Arc::clone(&world.platform))
            .build();
        let error = refused.expect_err("no low window").to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn exact_address_and_reaches() {
    let sim = simulated(SimOptions {
        low: LowMemory::NonPie { brk: BRK },
        ..SimOptions::default()
    });
    let low = allocator(&sim, Placement::Randomized);
    let at = |at| MapRequest {
        at: Some(at),
        label: "mine".into(),
        kind: Kind::Section,
        ..MapRequest::new(PAGE)
    };
    let fixed = low.map(&at(0x2000_0000)).expect("free");
    assert_eq!(
        (fixed.range().start(), fixed.certificate().step),
        (0x2000_0000, Step::Fixed)
    );
    let error = low.map(&at(0x2000_0000)).expect_err("taken by us");
    assert!(error.to_string().contains("low2g: section mine"), "{error}");
    let error = low.map(&at(BRK)).expect_err("taken by the heap");
    assert!(error.to_string().contains("[heap]"), "{error}");
    for bad in [0x2000_0001, 0x1000, 0x7fff_0000] {
        let error = low.map(&at(bad)).expect_err("not in the reach");
        assert!(matches!(error, AllocError::BadRequest { .. }), "{error}");
    }
    for (reach, start, end) in [
        ("2g", 16 * MIB, 0x7f00_0000),
        ("2g-full", 16 * MIB, 1 << 31),
        ("4g", 16 * MIB, 1 << 32),
        ("near:0x7fbc00000000", 0x7fbb_8100_0000, 0x7fbc_7f00_0000),
        ("near:0x1000", 0x1_0000, 0x7f00_1000),
        ("0x30000-0x50000", 0x3_0000, 0x5_0000),
        ("2g+0x100000-0x2000000", 16 * MIB, 32 * MIB),
    ] {
        let parsed: Reach = reach.parse().expect("a reach");
        assert_eq!(parsed.to_string(), reach);
        let window = parsed.window(low.platform().config()).expect("addresses");
        assert_eq!((window.start(), window.end()), (start, end), "{reach}");
        let mapping = low.map(&MapRequest {
            reach: Some(parsed),
            ..MapRequest::new(PAGE)
        });
        assert!(window.encloses(mapping.expect("room").range()), "{reach}");
    }
    for bad in [
        "", "3g", "near:12", "near:0x", "0x2-0x1", "0x1", "2g+", "0x+1-0x2",
    ] {
        assert!(bad.parse::<Reach>().is_err(), "{bad}");
    }
}

#[test]
fn requests_that_cannot_be() {
    let sim = simulated(SimOptions::default());
    let low = allocator(&sim, Placement::Randomized);
    for (size, align) in [(0, 1), (u64::MAX, 1), (1, 0), (1, 3)] {
        assert!(
            matches!(
                low.allocate(size, align),
                Err(AllocError::BadRequest { .. })
            ),
            "{size} {align}"
        );
        assert!(matches!(
            low.allocate_code(size, align),
            Err(AllocError::BadRequest { .. })
        ));
    }
    // Small ones that a pool has ready, too.
    let ready = low.allocate_raw(100, 8).expect("room");
    for align in [0, 3, 5, 6, 7, 9, 12, 15, 24, 4097] {
        for result in [
            low.allocate_raw(100, align),
            low.allocate_raw_zeroed(100, align),
            low.allocate_raw_certified(100, align).map(|(addr, _)| addr),
        ] {
            assert!(
                matches!(result, Err(AllocError::BadRequest { .. })),
                "{align}: {result:?}"
            );
        }
    }
    // SAFETY: deallocate_raw needs a block that nobody uses: it was just allocated.
    unsafe { low.deallocate_raw(ready) }.expect("in use");
    for (size, align) in [(1 << 31, 1), (1 << 62, 1), (1, 1 << 40), (1, 1 << 63)] {
        assert!(
            matches!(low.allocate(size, align), Err(AllocError::Exhausted { .. })),
            "{size} {align}"
        );
    }
    assert!(LowAllocator::builder().floor(4096).build().is_err());
    assert!(leaked(&sim).is_empty());
}

#[test]
fn snapshot_tiles_and_marks_ours() {
    let sim = simulated(SimOptions {
        low: LowMemory::NonPie { brk: BRK },
        ..SimOptions::default()
    });
    let low = allocator(&sim, Placement::Randomized);
    let request = MapRequest {
        kind: Kind::Section,
        label: ".text".into(),
        ..MapRequest::new(8 * PAGE)
    };
    let mut mapping = low.map(&request).expect("room");
    let middle = range(mapping.range().start() + 2 * PAGE, PAGE);
    mapping
        .protect(middle, Protection::ReadExecute)
        .expect("allowed");
    let all = range(0, 1 << 31);
    let regions = low.snapshot_of(all).expect("maps");
    let mut cursor = 0;
    for region in &regions {
        assert_eq!(region.range.start(), cursor, "{regions:?}");
        cursor = region.range.end();
    }
    assert_eq!(cursor, all.end());
    let ours = regions
        .iter()
        .filter(|region| region.usage == Use::Ours(Kind::Section));
    let ours: Vec<_> = ours
        .map(|region| {
            (
                region.range.len() / PAGE,
                region.label.as_str(),
                region.access.as_str(),
            )
        })
        .collect();
    assert_eq!(
        ours,
        [
            (2, ".text", "rw-p"),
            (1, ".text", "r-xp"),
            (5, ".text", "rw-p")
        ]
    );
}
