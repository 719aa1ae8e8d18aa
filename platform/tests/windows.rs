//! The Windows backend in situations: Arbitrary Code Guard, systems without `VirtualAlloc2`, slots
//! that are refused though free, memory short, thieves. All on the simulated system, on any machine.

mod common;

use common::{
    ALL, LOW, OnClaims, PAGE, access_by_page, count_in_units_of, expect_occupied, pages, range,
    survey,
};
use low2g_platform::sim::{BoundedAlloc, SimWindows, WindowsOptions};
use low2g_platform::windows::WindowsPlatform;
use low2g_platform::windows::abi::Win32Error;
use low2g_platform::{AddrRange, ClaimError, Holder, Platform, Protection, sim};
use proptest::prelude::*;

const AREA: AddrRange = range(0x1000_0000, 0x1800_0000);

/// Bytes between addresses at which a mapping may begin.
const SLOT: u64 = 0x1_0000;

fn system(options: WindowsOptions) -> WindowsPlatform<SimWindows> {
    let platform = sim::windows(options);
    count_in_units_of(&platform);
    platform
}

fn plain() -> WindowsPlatform<SimWindows> {
    system(WindowsOptions::default())
}

#[test]
fn arbitrary_code_guard_is_reported_at_once_and_named() {
    let platform = system(WindowsOptions {
        dynamic_code_blocked: true,
        ..WindowsOptions::default()
    });
    let powers = platform.config().capabilities;
    assert!(!powers.protect_to_execute && !powers.second_views);
    let claim = pages(AREA, 0, 1);
    let before = platform.kernel().calls();
    let refused = platform.claim_exact(claim, Protection::ReadExecute);
    let Err(ClaimError::Refused(error)) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(platform.kernel().calls(), before + 1, "no second try");
    assert_eq!(error.code, Win32Error::DYNAMIC_CODE_BLOCKED.0);
    let words = error.to_string();
    for part in ["Arbitrary Code Guard", "ProcessDynamicCodePolicy", "1655"] {
        assert!(words.contains(part), "{words} lacks {part}");
    }
    platform.new_backing(SLOT).expect_err("it would execute");
    // Data is not code.
    platform
        .claim_exact(claim, Protection::ReadWrite)
        .expect("free");
    let refused = platform.set_access(claim, Protection::ReadExecute);
    let error = refused.expect_err("the same");
    assert_eq!(error.code, Win32Error::DYNAMIC_CODE_BLOCKED.0);
    platform.give_back(claim).expect("ours");
    assert_eq!(platform.kernel().leaked(), []);
}

#[test]
fn a_free_slot_that_is_refused_is_a_collision() {
    let bad = pages_of(AREA, 5, 1);
    let platform = system(WindowsOptions {
        refused: vec![bad],
        ..WindowsOptions::default()
    });
    assert_eq!(survey(&platform, bad), [], "VirtualQuery calls it free");
    expect_occupied(platform.claim_exact(bad, Protection::ReadWrite));
    let next = pages(AREA, 6, 1);
    platform
        .claim_exact(next, Protection::ReadWrite)
        .expect("free");
    platform.give_back(next).expect("ours");
    assert_eq!(platform.kernel().leaked(), []);
}

/// `count` slots from slot `first` of `area`, before a platform says what a slot is.
fn pages_of(area: AddrRange, first: u64, count: u64) -> AddrRange {
    AddrRange::at(area.start() + first * SLOT, count * SLOT).expect("small")
}

#[test]
fn bounds_are_obeyed_or_verified() {
    let within = pages_of(AREA, 16, 16);
    for (bounded, expected) in [
        (BoundedAlloc::Works, Some(within.start())),
        (BoundedAlloc::IgnoresLowest, None),
        (BoundedAlloc::Missing, None),
    ] {
        let platform = system(WindowsOptions {
            bounded,
            ..WindowsOptions::default()
        });
        let has = platform.config().capabilities.low_claims;
        assert_eq!(has, bounded != BoundedAlloc::Missing);
        let claim = platform.claim_low(2 * SLOT, within, Protection::ReadWrite);
        assert_eq!(claim.as_ref().ok().map(|claim| claim.start()), expected);
        match (bounded, claim) {
            (_, Ok(claim)) => platform.give_back(claim).expect("ours"),
            (BoundedAlloc::Missing, claim) => {
                assert!(
                    matches!(claim, Err(ClaimError::Unsupported { .. })),
                    "{claim:?}"
                );
            }
            (_, claim) => expect_occupied(claim),
        }
        let left = platform.kernel().leaked();
        assert_eq!(left, [], "what came elsewhere is gone");
    }
}

#[test]
fn low_claims_end_below_2_gib_and_bounds_need_no_alignment() {
    let platform = plain();
    let top = range(0x7ff0_1234, 1 << 40);
    let claim = platform.claim_low(SLOT, top, Protection::Read);
    assert_eq!(claim, Ok(range(0x7ff1_0000, 0x7ff2_0000)));
    platform.give_back(claim.expect("it is")).expect("ours");
    for none in [range(1 << 31, 1 << 40), range(0x7fff_0001, 1 << 32)] {
        expect_occupied(platform.claim_low(SLOT, none, Protection::Read));
    }
    expect_occupied(platform.claim_exact(range(0, SLOT), Protection::Read));
    let beyond = range(1 << 47, (1 << 47) + SLOT);
    expect_occupied(platform.claim_exact(beyond, Protection::Read));
}

#[test]
fn an_occupied_hint_goes_elsewhere_inside_or_nowhere() {
    for (bounded, moves) in [(BoundedAlloc::Works, true), (BoundedAlloc::Missing, false)] {
        let platform = system(WindowsOptions {
            bounded,
            ..WindowsOptions::default()
        });
        let hint = pages(AREA, 0, 1);
        assert!(platform.kernel().occupy(hint));
        let within = pages(AREA, 0, 4);
        let claim = platform.claim_hinted(hint.start(), SLOT, within, Protection::ReadWrite);
        if moves {
            assert_eq!(claim, Ok(pages(AREA, 1, 1)));
        } else {
            expect_occupied(claim);
        }
    }
}

#[test]
fn a_claim_without_access_commits_nothing() {
    let platform = system(WindowsOptions {
        memory: 4 * PAGE,
        ..WindowsOptions::default()
    });
    let claim = pages(AREA, 0, 64);
    platform.claim_exact(claim, Protection::None).expect("free");
    assert_eq!(platform.kernel().committed(), 0);
    let page = |first: u64, count: u64| {
        AddrRange::at(claim.start() + first * PAGE, count * PAGE).expect("small")
    };
    platform
        .set_access(page(3, 2), Protection::ReadWrite)
        .expect("there are four");
    platform
        .set_access(page(4, 2), Protection::ReadWrite)
        .expect("there are four");
    assert_eq!(platform.kernel().committed(), 3 * PAGE);
    let full = platform.set_access(page(10, 2), Protection::ReadWrite);
    assert_eq!(
        full.expect_err("one page is left").code,
        Win32Error::COMMITMENT_LIMIT.0
    );
    platform.fence(page(3, 1)).expect("ours");
    assert_eq!(platform.kernel().committed(), 2 * PAGE);
    platform.empty(page(0, 16)).expect("ours");
    assert_eq!(platform.kernel().committed(), 2 * PAGE, "access is kept");
    let short = platform.claim_exact(pages(AREA, 100, 1), Protection::ReadWrite);
    assert!(matches!(short, Err(ClaimError::Exhausted(_))), "{short:?}");
    platform.give_back(claim).expect("ours");
    assert_eq!(platform.kernel().committed(), 0);
    assert_eq!(platform.kernel().leaked(), []);
}

#[test]
fn released_parts_are_free_with_the_last() {
    let platform = plain();
    let claim = pages(AREA, 0, 4);
    platform
        .claim_exact(claim, Protection::ReadWrite)
        .expect("free");
    for part in [pages(AREA, 1, 1), pages(AREA, 3, 1), pages(AREA, 0, 1)] {
        platform.give_back(part).expect("ours");
        assert_eq!(survey(&platform, AREA)[0].range, claim, "still reserved");
        expect_occupied(platform.claim_exact(part, Protection::Read));
    }
    assert_eq!(platform.kernel().committed(), SLOT);
    assert_eq!(
        access_by_page(&platform, claim),
        ["---p", "---p", "rw-p", "---p"]
    );
    platform.give_back(pages(AREA, 2, 1)).expect("ours");
    assert_eq!(survey(&platform, AREA), []);
    assert_eq!(platform.kernel().leaked(), []);
}

#[test]
fn a_views_access_never_grows() {
    let platform = plain();
    let backing = platform.new_backing(2 * SLOT).expect("memory");
    let all = [
        Protection::None,
        Protection::Read,
        Protection::ReadWrite,
        Protection::ReadExecute,
    ];
    let allowed = |mapped, wanted| match wanted {
        Protection::None | Protection::Read => true,
        Protection::ReadWrite => matches!(mapped, Protection::ReadWrite | Protection::None),
        Protection::ReadExecute => mapped == Protection::ReadExecute,
    };
    for mapped in all {
        for wanted in all {
            let view = pages(AREA, 3, 1);
            platform
                .claim_view_exact(&*backing, SLOT, view, mapped)
                .expect("free");
            let changed = platform.set_access(view, wanted);
            assert_eq!(
                changed.is_ok(),
                allowed(mapped, wanted),
                "{mapped:?} to {wanted:?}"
            );
            platform.give_back(view).expect("ours");
        }
    }
    drop(backing);
    assert_eq!(platform.kernel().leaked(), []);
    assert_eq!(platform.kernel().committed(), 0);
}

#[test]
fn thieves_are_collisions() {
    let platform = system(WindowsOptions {
        seed: 7,
        thief_per_mille: 500,
        ..WindowsOptions::default()
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
    assert_eq!(platform.kernel().leaked(), []);
}

#[test]
fn a_nearly_full_address_space_has_its_holes() {
    let hole = range(0x2222_0000, 0x2224_0000);
    let platform = system(WindowsOptions {
        holes: Some(vec![hole]),
        ..WindowsOptions::default()
    });
    let held = survey(&platform, LOW);
    let free = |at: AddrRange| !held.iter().any(|region| region.range.overlaps(at));
    assert!(free(hole) && !free(range(0x2222_0000 - PAGE, 0x2222_0000)));
    expect_occupied(platform.claim_low(3 * SLOT, LOW, Protection::ReadWrite));
    let claim = platform.claim_low(2 * SLOT, LOW, Protection::ReadWrite);
    assert_eq!(claim, Ok(hole));
}

#[test]
fn codes_are_told_apart() {
    let platform = plain();
    for (code, class) in [
        (Win32Error::INVALID_ADDRESS, "occupied"),
        (Win32Error::NOT_ENOUGH_MEMORY, "exhausted"),
        (Win32Error::COMMITMENT_LIMIT, "exhausted"),
        (Win32Error::PAGEFILE_QUOTA, "exhausted"),
        (Win32Error::ACCESS_DENIED, "refused"),
        (Win32Error::DYNAMIC_CODE_BLOCKED, "refused"),
        (Win32Error(4711), "refused"),
    ] {
        platform.kernel().fail_named("VirtualAlloc", 0, code);
        let claim = platform.claim_exact(pages(AREA, 8, 1), Protection::ReadWrite);
        let found = match claim {
            Err(ClaimError::Occupied { .. }) => "occupied",
            Err(ClaimError::Exhausted(_)) => "exhausted",
            Err(ClaimError::Refused(_)) => "refused",
            other => panic!("{other:?}"),
        };
        assert_eq!(found, class, "{code}");
    }
}

#[test]
fn the_map_is_described() {
    let platform = plain();
    let described = platform.describe(ALL).expect("the map can be read");
    let holders: Vec<Holder> = described.iter().map(|region| region.holder).collect();
    use Holder::{Executable, Library, Mapping, System};
    assert_eq!(
        holders,
        [System, System, Mapping, Executable, Library, System]
    );
    assert_eq!(described[1].name, "KUSER_SHARED_DATA");
    assert_eq!(described[1].access, "r--p");
    assert!(described[3].name.ends_with("program.exe"));
}

#[test]
fn the_same_seed_gives_the_same_answers() {
    let run = |seed| {
        let platform = system(WindowsOptions {
            seed,
            thief_per_mille: 300,
            ..WindowsOptions::default()
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
        let page = |first: u64, count: u64| {
            AddrRange::at(AREA.start() + first * PAGE, count * PAGE).expect("small")
        };
        let within = page(window.0, window.1 - window.0);
        let kernel = SimWindows::new(WindowsOptions::default());
        let mut held = vec![false; 410];
        for (first, count) in starts {
            if kernel.occupy(page(first, count)) {
                for page in first..first + count {
                    held[usize::try_from(page).expect("small")] = true;
                }
            }
        }
        let platform = WindowsPlatform::new(kernel).expect("it has addresses");
        let regions = survey(&platform, within);
        for number in window.0..window.1 {
            let at = page(number, 1);
            let seen = regions.iter().any(|region| region.range.encloses(at));
            prop_assert_eq!(seen, held[usize::try_from(number).expect("small")], "{}", at);
        }
    }
}
