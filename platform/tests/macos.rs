//! The macOS backend in situations: where `__PAGEZERO` ends, machines without low memory, the
//! hardened runtime, full address spaces, thieves. All on the simulated system, on any machine.

mod common;

use common::{ALL, LOW, OnClaims, PAGE, count_in_units_of, expect_occupied, pages, range, survey};
use low2g_platform::macos::abi::KernReturn;
use low2g_platform::macos::{MacOsPlatform, Machine};
use low2g_platform::sim::{MacOsOptions, SimMacOs};
use low2g_platform::{AddrRange, ClaimError, Holder, NoLowWindow, Platform, Protection, sim};
use proptest::prelude::*;

const AREA: AddrRange = range(0x1000_0000, 0x1100_0000);

/// High addresses, where both machines map.
const HIGH: AddrRange = range(0x20_0000_0000, 0x20_1000_0000);

/// A program linked with `-Wl,-pagezero_size,0x10000`.
fn shrunk() -> MacOsOptions {
    MacOsOptions {
        pagezero: 0x1_0000,
        ..MacOsOptions::default()
    }
}

#[test]
fn the_end_of_pagezero_is_found_and_named() {
    for header_readable in [true, false] {
        let platform = sim::macos(MacOsOptions {
            header_readable,
            ..MacOsOptions::default()
        });
        let window = platform.config().low_window.clone();
        let error = window.expect_err("4 GiB of __PAGEZERO");
        let NoLowWindow::PageZero { end } = error else {
            panic!("{error:?}")
        };
        let program = platform.kernel().mappings()[0].range.start();
        // Without load commands, all below the first mapping counts.
        assert_eq!(end, if header_readable { 1 << 32 } else { program });
        let words = error.to_string();
        for part in [
            &format!("{end:#x}"),
            "-Wl,-pagezero_size,0x10000",
            "macOS 13",
        ] {
            assert!(words.contains(part), "{words} lacks {part}");
        }
    }
}

#[test]
fn a_window_begins_where_pagezero_ends() {
    for (pagezero, start) in [
        (0x1000, 0x1_0000),
        (0x1_0000, 0x1_0000),
        (0x4000_0000, 0x4000_0000),
        (0xffff_f000, 0xffff_f000),
    ] {
        let platform = sim::macos(MacOsOptions {
            pagezero,
            ..MacOsOptions::default()
        });
        assert_eq!(platform.config().low_window, Ok(range(start, 1 << 32)));
        let held = survey(&platform, LOW);
        assert_eq!(held[0].range, range(0, pagezero), "shown as held");
        assert_eq!(held[0].holder, Holder::System);
        expect_occupied(platform.claim_exact(range(0, PAGE), Protection::Read));
        let described = platform.describe(LOW).expect("the map can be read");
        assert_eq!(described[0].name, "__PAGEZERO");
    }
}

#[test]
fn arm64_has_no_low_window_and_places_near_addresses() {
    let platform = sim::macos(MacOsOptions {
        machine: Machine::Arm64,
        pagezero: 0x1_0000,
        ..MacOsOptions::default()
    });
    let config = platform.config();
    assert_eq!(config.low_window, Err(NoLowWindow::System));
    assert_eq!((config.page_size, config.granularity), (16384, 16384));
    assert!(!config.capabilities.low_claims);
    let low = platform.claim_low(16384, LOW, Protection::ReadWrite);
    assert!(
        matches!(low, Err(ClaimError::Unsupported { .. })),
        "{low:?}"
    );
    let low = platform.claim_exact(range(0x1000_0000, 0x1000_4000), Protection::ReadWrite);
    expect_occupied(low);
    count_in_units_of(&platform);
    let near = pages(HIGH, 3, 2);
    platform
        .claim_exact(near, Protection::ReadExecute)
        .expect("free");
    platform.give_back(near).expect("ours");
}

#[test]
fn jit_memory_is_writable_or_executable_by_thread() {
    let platform = sim::macos(MacOsOptions {
        machine: Machine::Arm64,
        hardened: true,
        ..MacOsOptions::default()
    });
    let powers = platform.config().capabilities;
    assert!(powers.jit_pages && !powers.second_views && !powers.protect_to_execute);
    count_in_units_of(&platform);
    let wanted = pages(HIGH, 1, 4);
    let claim = |within| platform.claim_jit(wanted.start(), wanted.len(), within);
    assert_eq!(claim(HIGH), Ok(wanted));
    let before = platform.kernel().mappings();
    expect_occupied(claim(wanted));
    assert_eq!(
        platform.kernel().mappings(),
        before,
        "what came elsewhere is gone"
    );
    assert!(platform.kernel().jit_protected());
    platform.jit_write_protect(false);
    assert!(!platform.kernel().jit_protected());
    platform.jit_write_protect(true);
    platform.give_back(wanted).expect("ours");
    // Nothing else may become executable there.
    let claim = platform.claim_exact(wanted, Protection::ReadExecute);
    assert!(matches!(claim, Err(ClaimError::Refused(_))), "{claim:?}");
    assert_eq!(platform.kernel().leaked(), []);
}

#[test]
fn intel_has_no_jit_memory() {
    let platform = sim::macos(shrunk());
    assert!(!platform.config().capabilities.jit_pages);
    let claim = platform.claim_jit(AREA.start(), PAGE, AREA);
    assert!(
        matches!(claim, Err(ClaimError::Unsupported { .. })),
        "{claim:?}"
    );
    platform.jit_write_protect(false);
    platform.jit_write_protect(true);
}

#[test]
fn codes_are_told_apart() {
    let platform = sim::macos(MacOsOptions {
        memory: 16 * PAGE,
        ..shrunk()
    });
    let claim = pages(AREA, 0, 4);
    assert!(platform.kernel().occupy(pages(AREA, 3, 1)));
    expect_occupied(platform.claim_exact(claim, Protection::ReadWrite));
    let large = platform.claim_exact(pages(AREA, 16, 17), Protection::ReadWrite);
    let Err(ClaimError::Exhausted(error)) = large else {
        panic!("{large:?}")
    };
    assert_eq!(error.code, KernReturn::RESOURCE_SHORTAGE.0);
    for (code, refused) in [
        (KernReturn::PROTECTION_FAILURE, true),
        (KernReturn::DENIED, true),
        (KernReturn::NOT_SUPPORTED, false),
    ] {
        platform.kernel().fail_named("mach_vm_map", 0, code);
        let claim = platform.claim_exact(pages(AREA, 8, 1), Protection::ReadWrite);
        let class = matches!(claim, Err(ClaimError::Refused(_)));
        assert_eq!(class, refused, "{claim:?}");
    }
    let full = sim::macos(MacOsOptions {
        holes: Some(vec![range(0x2222_2000, 0x2222_4000)]),
        ..shrunk()
    });
    // The first hole that is large enough lies above 2 GiB.
    expect_occupied(full.claim_low(4 * PAGE, LOW, Protection::ReadWrite));
    full.claim_exact(range(0x2222_2000, 0x2222_4000), Protection::ReadWrite)
        .expect("free");
    let leaked = full.kernel().leaked();
    assert_eq!(leaked.len(), 1, "{leaked:?}");
}

#[test]
fn ignored_hints_and_thieves_are_collisions() {
    let platform = sim::macos(MacOsOptions {
        hints_honoured: false,
        ..shrunk()
    });
    let claim = pages(AREA, 0, 1);
    assert!(platform.kernel().occupy(claim));
    expect_occupied(platform.claim_hinted(claim.start(), PAGE, AREA, Protection::ReadWrite));
    expect_occupied(platform.claim_low(PAGE, LOW, Protection::ReadWrite));
    assert_eq!(platform.kernel().leaked(), []);

    let platform = sim::macos(MacOsOptions {
        seed: 7,
        thief_per_mille: 500,
        ..shrunk()
    });
    let mut lost = 0;
    for number in 0..200 {
        let claim = pages(AREA, 4 * number, 3);
        match platform.claim_exact(claim, Protection::ReadWrite) {
            Ok(()) => platform.give_back(claim).expect("ours"),
            Err(ClaimError::Occupied { .. }) => lost += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!((60..140).contains(&lost), "{lost} of 200 at 500 per mille");
}

#[test]
fn maximum_access_of_views_is_final_both_ways() {
    let platform = sim::macos(shrunk());
    let backing = platform.new_backing(2 * PAGE).expect("memory");
    let (written, run) = (pages(AREA, 0, 2), pages(AREA, 8, 2));
    for (view, protection) in [
        (written, Protection::ReadWrite),
        (run, Protection::ReadExecute),
    ] {
        platform
            .claim_view_exact(&*backing, 0, view, protection)
            .expect("free");
    }
    let raised = platform.set_access(run, Protection::ReadWrite);
    let error = raised.expect_err("lowered for good");
    assert_eq!(error.code, KernReturn::PROTECTION_FAILURE.0);
    platform
        .set_access(written, Protection::ReadExecute)
        .expect_err("lowered for good");
    let inherits = |view: AddrRange| {
        let held = platform.kernel().leaked();
        let view = held.iter().find(|held| held.range == view);
        view.expect("mapped").inherited
    };
    assert!(!inherits(written) && inherits(run));
    // Backings lie high: they take nothing of what is short.
    let held = platform.kernel().leaked();
    let low = held.iter().filter(|held| held.range.start() < 1 << 32);
    assert_eq!(low.count(), 2);
    drop(backing);
    assert_eq!(platform.kernel().leaked().len(), 2);
}

#[test]
fn discarding_renews_own_pages_only() {
    let platform = sim::macos(shrunk());
    let claim = pages(AREA, 0, 6);
    platform
        .claim_exact(claim, Protection::ReadWrite)
        .expect("free");
    platform
        .set_access(pages(AREA, 2, 2), Protection::ReadExecute)
        .expect("ours");
    let before = platform.kernel().mappings();
    // The simulated kernel asserts that nothing but the backend's private pages is replaced.
    platform.empty(claim).expect("ours");
    assert_eq!(platform.kernel().mappings(), before, "access is kept");
    platform.fence(pages(AREA, 1, 1)).expect("ours");
    let access = common::access_by_page(&platform, claim);
    assert_eq!(access, ["rw-p", "---p", "r-xp", "r-xp", "rw-p", "rw-p"]);
}

#[test]
fn the_map_is_described() {
    let platform = sim::macos(MacOsOptions::default());
    let described = platform.describe(ALL).expect("the map can be read");
    let holders: Vec<Holder> = described.iter().map(|region| region.holder).collect();
    use Holder::{Executable, Library, Mapping, System};
    assert_eq!(holders, [System, Executable, Executable, Mapping, Library]);
    assert_eq!(described[1].access, "r-xp");
}

#[test]
fn the_same_seed_gives_the_same_answers() {
    let run = |seed| {
        let platform = sim::macos(MacOsOptions {
            seed,
            thief_per_mille: 300,
            ..shrunk()
        });
        let mut bytes = [0_u8; 600];
        platform.random(&mut bytes);
        let claims: Vec<_> = (0..50)
            .map(|number| platform.claim_exact(pages(AREA, 2 * number, 1), Protection::None))
            .collect();
        (bytes, claims)
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

proptest! {
    /// The survey agrees with what was mapped, page by page.
    #[test]
    fn surveys_agree_with_the_map(
        starts in prop::collection::vec((0_u64..400, 1_u64..6), 0..90),
        window in (0_u64..200, 200_u64..410),
    ) {
        let within = pages(AREA, window.0, window.1 - window.0);
        let kernel = SimMacOs::new(shrunk());
        let mut held = vec![false; 410];
        for (first, count) in starts {
            if kernel.occupy(pages(AREA, first, count)) {
                for page in first..first + count {
                    held[usize::try_from(page).expect("small")] = true;
                }
            }
        }
        let platform = MacOsPlatform::new(kernel).expect("there is a program");
        let regions = survey(&platform, within);
        for page in window.0..window.1 {
            let at = pages(AREA, page, 1);
            let seen = regions.iter().any(|region| region.range.encloses(at));
            prop_assert_eq!(seen, held[usize::try_from(page).expect("small")], "{}", at);
        }
    }
}
