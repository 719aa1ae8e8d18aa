//! Systems that no test machine is: old kernels, emulators, limits, full address spaces, thieves.

mod common;

use common::{LOW, OnClaims, PAGE, expect_occupied, pages, range, survey};
use low2g_platform::linux::{LinuxPlatform, Options};
use low2g_platform::sim::{LowMemory, Map32Bit, SimLinux, SimOptions};
use low2g_platform::{AddrRange, ClaimError, Holder, Platform, Protection, sim};
use proptest::prelude::*;

const AREA: AddrRange = range(0x1000_0000, 0x1100_0000);

fn base() -> SimOptions {
    SimOptions::default()
}

fn reason<T: std::fmt::Debug>(result: Result<T, ClaimError>) -> String {
    match result {
        Err(ClaimError::Exhausted(error)) => error.reason,
        other => panic!("a limit was reached: {other:?}"),
    }
}

#[test]
fn old_kernels_take_noreplace_as_a_hint() {
    let platform = sim::linux(SimOptions {
        kernel: (4, 14),
        ..base()
    });
    assert!(!platform.config().capabilities.exact_claims);
    let claim = pages(AREA, 0, 1);
    platform
        .claim_exact(claim, Protection::ReadWrite)
        .expect("a free hint is honoured");
    expect_occupied(platform.claim_exact(claim, Protection::ReadWrite));
    platform.give_back(claim).expect("ours");
}

#[test]
fn emulators_that_ignore_hints_are_told_apart() {
    let options = SimOptions {
        kernel: (4, 14),
        hints_honoured: false,
        ..base()
    };
    let platform = sim::linux(options);
    let claim = platform.claim_exact(pages(AREA, 0, 1), Protection::ReadWrite);
    assert!(
        matches!(claim, Err(ClaimError::Unsupported { .. })),
        "{claim:?}"
    );
    let low = platform
        .claim_low(PAGE, LOW, Protection::ReadWrite)
        .expect("MAP_32BIT works");
    platform.give_back(low).expect("ours");
    assert_eq!(platform.kernel().leaked(), []);
}

#[test]
fn map_32bit_may_fail_or_mean_nothing() {
    let broken = sim::linux(SimOptions {
        map_32bit: Map32Bit::Fails,
        ..base()
    });
    let why = reason(broken.claim_low(PAGE, LOW, Protection::ReadWrite));
    assert!(why.contains("0x40000000"), "{why}");
    let hint = pages(AREA, 0, 1);
    expect_occupied(broken.claim_hinted(hint.start(), PAGE, LOW, Protection::ReadWrite));
    broken
        .claim_exact(hint, Protection::ReadWrite)
        .expect("exact claims work all the same");

    let ignored = sim::linux(SimOptions {
        map_32bit: Map32Bit::Ignored,
        ..base()
    });
    assert!(!ignored.config().capabilities.low_claims);
    let low = ignored.claim_low(PAGE, LOW, Protection::ReadWrite);
    assert!(
        matches!(low, Err(ClaimError::Unsupported { .. })),
        "{low:?}"
    );
    let hinted = ignored.claim_hinted(hint.start(), PAGE, LOW, Protection::ReadWrite);
    assert_eq!(hinted, Ok(hint));
}

#[test]
fn map_32bit_starts_within_32_mib() {
    let platform = sim::linux(base());
    for _ in 0..100 {
        let low = platform
            .claim_low(PAGE, LOW, Protection::None)
            .expect("free");
        assert!(range(0x4000_0000, 0x4200_1000).encloses(low), "{low}");
        platform.give_back(low).expect("ours");
    }
}

#[test]
fn the_same_seed_gives_the_same_answers() {
    let run = |seed| {
        let platform = sim::linux(SimOptions {
            seed,
            thief_per_mille: 300,
            ..base()
        });
        let mut bytes = [0_u8; 16];
        platform.random(&mut bytes);
        let claims: Vec<_> = (0..50)
            .map(|number| {
                let low = platform.claim_low(PAGE, LOW, Protection::None);
                (
                    low,
                    platform.claim_exact(pages(AREA, 2 * number, 1), Protection::None),
                )
            })
            .collect();
        (bytes, claims)
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn limits_are_named() {
    let small = SimOptions {
        rlimit_as: 64 << 20,
        ..base()
    };
    let platform = sim::linux(small);
    let claim = platform.claim_exact(range(0x2000_0000, 0x2800_0000), Protection::None);
    assert!(reason(claim).contains("RLIMIT_AS is 67108864 bytes"));

    let platform = sim::linux(SimOptions {
        rlimit_data: 1 << 20,
        ..base()
    });
    let claim = platform.claim_exact(range(0x2000_0000, 0x2020_0000), Protection::ReadWrite);
    assert!(reason(claim).contains("RLIMIT_DATA is 1048576 bytes"));

    let platform = sim::linux(SimOptions {
        max_map_count: 20,
        ..base()
    });
    let claims: Vec<AddrRange> = (0..40).map(|number| pages(AREA, 2 * number, 1)).collect();
    let failed = claims
        .iter()
        .find_map(|&at| platform.claim_exact(at, Protection::None).err());
    assert!(reason::<()>(Err(failed.expect("20 < 40"))).contains("vm.max_map_count is 20"));

    let platform = sim::linux(SimOptions {
        rlimit_fsize: 8 * PAGE,
        ..base()
    });
    let error = platform
        .new_backing(9 * PAGE)
        .expect_err("would raise SIGXFSZ");
    assert!(
        error.reason.contains("RLIMIT_FSIZE is 32768 bytes"),
        "{error}"
    );
    platform.new_backing(8 * PAGE).expect("within the limit");
}

#[test]
fn release_that_cannot_split_leaves_all_mapped() {
    let platform = sim::linux(SimOptions {
        max_map_count: 20,
        ..base()
    });
    let whole = pages(AREA, 0, 3);
    platform
        .claim_exact(whole, Protection::ReadWrite)
        .expect("free");
    let mut others = (0..).map(|number| pages(AREA, 8 + 2 * number, 1));
    while platform.kernel().mappings().len() < 20 {
        let at = others.next().expect("endless");
        platform
            .claim_exact(at, Protection::None)
            .expect("below the limit");
    }
    let error = platform
        .give_back(pages(AREA, 1, 1))
        .expect_err("would split");
    assert!(error.reason.contains("vm.max_map_count"), "{error}");
    assert_eq!(survey(&platform, whole)[0].range, whole);
    platform.give_back(whole).expect("no split");
}

#[test]
fn policy_stops_executable_memory_but_not_views() {
    let platform = sim::linux(SimOptions {
        mdwe: true,
        ..base()
    });
    assert!(!platform.config().capabilities.protect_to_execute);
    let claim = platform.claim_exact(pages(AREA, 0, 1), Protection::ReadExecute);
    assert!(matches!(claim, Err(ClaimError::Refused(_))), "{claim:?}");
    let backing = platform.new_backing(PAGE).expect("memfd");
    platform
        .claim_view_exact(&*backing, 0, pages(AREA, 0, 1), Protection::ReadExecute)
        .expect("mapped so from the start");
}

#[test]
fn without_proc_views_are_sealed_and_surveys_say_so() {
    let platform = sim::linux(SimOptions {
        proc_mounted: false,
        ..base()
    });
    let error = platform.survey(LOW, &mut Vec::new()).expect_err("no map");
    assert!(error.call.contains("/proc/self/maps"), "{error}");
    let (written, run) = (pages(AREA, 0, 2), pages(AREA, 8, 2));
    let backing = platform.new_backing(written.len()).expect("memfd");
    for (view, protection) in [
        (written, Protection::ReadWrite),
        (run, Protection::ReadExecute),
    ] {
        platform
            .claim_view_exact(&*backing, 0, view, protection)
            .expect("free");
    }
    platform
        .set_access(run, Protection::ReadWrite)
        .expect_err("sealed");
}

#[test]
fn writable_views_stay_out_of_children() {
    let platform = sim::linux(base());
    let backing = platform.new_backing(PAGE).expect("memfd");
    let view = pages(AREA, 0, 1);
    platform
        .claim_view_exact(&*backing, 0, view, Protection::ReadWrite)
        .expect("free");
    let held = platform.kernel().leaked();
    assert!(
        held.iter()
            .any(|held| held.range == view && !held.inherited),
        "{held:?}"
    );
}

#[test]
fn a_full_address_space_has_only_its_holes() {
    let hole = range(0x2222_2000, 0x2222_4000);
    let platform = sim::linux(SimOptions {
        low: LowMemory::Holes(vec![hole]),
        ..base()
    });
    let held: Vec<AddrRange> = survey(&platform, range(0x1_0000, 1 << 32))
        .iter()
        .map(|held| held.range)
        .collect();
    assert_eq!(
        held,
        [range(0x1_0000, hole.start()), range(hole.end(), 1 << 32)]
    );
    platform
        .claim_exact(hole, Protection::ReadWrite)
        .expect("free");
    reason(platform.claim_low(PAGE, LOW, Protection::ReadWrite));
}

#[test]
fn a_quicker_thread_is_a_collision() {
    let platform = sim::linux(SimOptions {
        seed: 7,
        thief_per_mille: 500,
        ..base()
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
fn room_above_the_heap_is_kept() {
    let brk = 0x0123_4000;
    let platform = sim::linux(SimOptions {
        low: LowMemory::NonPie { brk },
        ..base()
    });
    let end = brk + 0x2_1000;
    let blocker = range(end + 0x10_0000, end + 0x10_1000);
    let room = |platform: &LinuxPlatform<SimLinux>| {
        let regions = survey(platform, LOW);
        let mut rooms = regions
            .into_iter()
            .filter(|region| region.holder == Holder::Brk);
        let room = rooms.next().map(|region| region.range);
        assert_eq!(rooms.next(), None);
        room
    };
    assert_eq!(room(&platform), AddrRange::at(end, 128 << 20));
    assert!(platform.kernel().occupy(blocker));
    assert_eq!(
        room(&platform),
        AddrRange::new(end, blocker.start()),
        "brk stops there"
    );
    let described = platform.describe(LOW).expect("the map can be read");
    let holders: Vec<Holder> = described.iter().map(|region| region.holder).collect();
    use Holder::{Brk, Executable, Mapping};
    assert_eq!(holders, [Executable, Executable, Brk, Brk, Mapping]);
}

#[test]
fn room_below_the_stack_is_kept() {
    let platform = sim::linux(base());
    let regions = survey(&platform, range(0x7ffd_0000_0000, 0x7ffe_0000_0000));
    let [room, stack] = &regions[..] else {
        panic!("{regions:?}")
    };
    assert_eq!(
        (room.holder, stack.holder),
        (Holder::Stack, Holder::Unknown)
    );
    assert_eq!(room.range.end(), stack.range.start());
    let grown = stack.range.end() - room.range.start();
    assert_eq!(
        grown,
        (8 << 20) + (1 << 20) + PAGE,
        "the limit, the gap, and the page of arguments"
    );
}

proptest! {
    /// Both ways to read the map agree with what was mapped, page by page.
    #[test]
    fn surveys_agree_with_the_map(
        starts in prop::collection::vec((0_u64..400, 1_u64..6), 0..90),
        window in (0_u64..200, 200_u64..410),
    ) {
        let within = pages(AREA, window.0, window.1 - window.0);
        let kernel = SimLinux::new(base());
        let mut held = vec![false; 410];
        for (first, count) in starts {
            if kernel.occupy(pages(AREA, first, count)) {
                for page in first..first + count {
                    held[usize::try_from(page).expect("small")] = true;
                }
            }
        }
        for procmap_query in [true, false] {
            let options = Options { procmap_query, ..Options::default() };
            let platform = LinuxPlatform::new(kernel.clone(), options).expect("room to probe");
            let regions = survey(&platform, within);
            for page in window.0..window.1 {
                let at = pages(AREA, page, 1);
                let seen = regions.iter().any(|region| region.range.encloses(at));
                prop_assert_eq!(seen, held[usize::try_from(page).expect("small")], "{}", at);
            }
        }
    }
}
