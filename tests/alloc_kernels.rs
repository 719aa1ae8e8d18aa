//! The allocator on kernels that are old, strange, hostile, or refuse a call:
//! no claim overlaps, leaves its reach, or stays behind.

mod alloc_support;

use alloc_support::*;
use low2g::alloc::{AllocError, CodeViews, LowAllocator, MapRequest, Placement, Step};
use low2g::platform::Protection;
use low2g::platform::linux::abi::Errno;
use low2g::platform::sim::{LowMemory, Map32Bit, SimOptions};

#[test]
fn other_kernels() {
    let base = SimOptions::default;
    let kernels = [
        SimOptions {
            kernel: (4, 16),
            seed: 20,
            ..base()
        },
        SimOptions {
            kernel: (4, 16),
            map_32bit: Map32Bit::Ignored,
            seed: 21,
            ..base()
        },
        SimOptions {
            kernel: (4, 17),
            map_32bit: Map32Bit::Fails,
            seed: 22,
            ..base()
        },
        SimOptions {
            kernel: (5, 10),
            map_32bit: Map32Bit::Fails,
            seed: 23,
            ..base()
        },
        SimOptions {
            mdwe: true,
            seed: 24,
            ..base()
        },
        SimOptions {
            memfd_noexec: 2,
            seed: 25,
            ..base()
        },
        SimOptions {
            thief_per_mille: 300,
            seed: 26,
            ..base()
        },
        SimOptions {
            thief_per_mille: 700,
            seed: 27,
            ..base()
        },
    ];
    for options in kernels {
        let low = LowMemory::NonPie { brk: BRK };
        exercise(options.clone(), Placement::Randomized, 1_000, 60);
        exercise(
            SimOptions { low, ..options },
            Placement::FirstFit,
            1_000,
            60,
        );
    }
}

#[test]
fn kernel_without_exact_claims_uses_hints() {
    let sim = simulated(SimOptions {
        kernel: (4, 16),
        ..SimOptions::default()
    });
    let low = allocator(&sim, Placement::Randomized);
    let mapping = low.map(&MapRequest::new(PAGE)).expect("hints work");
    assert_eq!(mapping.certificate().step, Step::Hint);
    assert!(mapping.certificate().entropy_bits > 18.9);
}

#[test]
fn kernel_that_ignores_hints_gives_the_weaker_grade() {
    let options = SimOptions {
        kernel: (4, 16),
        hints_honoured: false,
        ..SimOptions::default()
    };
    let sim = simulated(options);
    let low = allocator(&sim, Placement::Randomized);
    let mapping = low.map(&MapRequest::new(PAGE)).expect("MAP_32BIT works");
    assert_eq!(mapping.certificate().step, Step::Map32bit);
    assert!(mapping.certificate().entropy_bits < 0.1);
    assert!(low.window().encloses(mapping.range()));
    drop(mapping);
    assert!(leaked(&sim).is_empty());
    let request = MapRequest {
        min_entropy: Some(8.0),
        ..MapRequest::new(PAGE)
    };
    assert!(
        low.map(&request).is_err(),
        "the weaker grade must not pass for 8 bits"
    );
    assert!(leaked(&sim).is_empty());
}

/// A life in miniature: every tier, every kind of call.
fn scenario(low: &LowAllocator) -> Result<(), AllocError> {
    let mut mapping = low.map(&MapRequest::new(64 << 10))?;
    let first = range(mapping.range().start(), PAGE);
    mapping.protect(first, Protection::ReadExecute)?;
    let _aligned = low.map(&MapRequest {
        align: 1 << 30,
        ..MapRequest::new(PAGE)
    })?;
    let _block = low.allocate(100, 8)?;
    let mut large = low.allocate(100_000, 8)?;
    // Where it is refused, it is not larger, but as it was.
    for size in [200_000, 50_000, 120_000] {
        let (had, resized) = (large.usable_size(), large.resize_in_place(size));
        assert!(resized || (size > had && large.usable_size() == had));
    }
    let code = low.allocate_code(100, 16)?;
    let _published = code.publish()?;
    let _large_code = low.allocate_code(100_000, 16)?;
    Ok(())
}

#[test]
fn every_call_failing_once_leaves_nothing_behind() {
    let with = |placement, kernel| {
        let sim = simulated(SimOptions {
            kernel,
            ..SimOptions::default()
        });
        let low = allocator(&sim, placement);
        (sim, low)
    };
    for placement in [
        Placement::Randomized,
        Placement::FirstFit,
        Placement::Kernel,
    ] {
        for kernel in [(6, 18), (4, 16)] {
            let (sim, low) = with(placement, kernel);
            let before = sim.kernel().calls();
            scenario(&low).expect("nothing fails");
            drop(low);
            let calls = sim.kernel().calls() - before;
            assert!(leaked(&sim).is_empty());
            let mut refused = 0;
            for errno in [Errno::ENOMEM, Errno::EPERM, Errno::EEXIST] {
                for call in 0..calls {
                    let (sim, low) = with(placement, kernel);
                    sim.kernel().fail_call(call, errno);
                    refused += u32::from(scenario(&low).is_err());
                    drop(low);
                    let rest = leaked(&sim);
                    let context = format!("{placement} {kernel:?} call {call} {errno:?}");
                    assert!(rest.is_empty(), "{rest:?} left: {context}");
                    assert_eq!(sim.kernel().open_files(), 0, "{context}");
                }
            }
            assert!(
                refused > 0,
                "no failure was noticed: {placement} {kernel:?}"
            );
        }
    }
}

#[test]
fn without_second_views_code_has_private_pages() {
    // A memfd of no size at all: what RLIMIT_FSIZE can do.
    let options = SimOptions {
        rlimit_fsize: 0,
        ..SimOptions::default()
    };
    let sim = simulated(options.clone());
    let low = allocator(&sim, Placement::Randomized);
    let code = low.allocate_code(100, 16).expect("private pages");
    assert_eq!(code.views(), CodeViews::One);
    let code = code.publish().expect("RW to RX is allowed");
    assert_eq!(code.views(), CodeViews::One);
    drop(code);
    assert!(leaked(&sim).is_empty());
    // Where neither is allowed, there is an error and nothing else.
    let sim = simulated(SimOptions {
        mdwe: true,
        ..options
    });
    let low = allocator(&sim, Placement::Randomized);
    let error = low.allocate_code(100, 16).expect_err("neither way is open");
    assert!(matches!(error, AllocError::Platform(_)), "{error}");
    assert!(leaked(&sim).is_empty());
}
