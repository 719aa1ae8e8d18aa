//! The FreeBSD backend in situations: randomized hints, kernels without MAP_EXCL, limits, full
//! address spaces, thieves. All on the simulated kernel, on any machine.

mod common;

use common::{ALL, LOW, OnClaims, PAGE, expect_occupied, pages, range, survey};
use low2g_platform::freebsd::abi::{self, Errno};
use low2g_platform::freebsd::{FreeBsdPlatform, Options, Syscalls};
use low2g_platform::sim::{FreeBsdOptions, LowMemory, MapExcl, SimFreeBsd};
use low2g_platform::{AddrRange, ClaimError, Holder, Platform, Protection, sim};
use proptest::prelude::*;

const AREA: AddrRange = range(0x1000_0000, 0x1100_0000);

const ANON: i32 = abi::MAP_PRIVATE | abi::MAP_ANON;

fn base() -> FreeBsdOptions {
    FreeBsdOptions::default()
}

fn reason<T: std::fmt::Debug>(result: Result<T, ClaimError>) -> String {
    match result {
        Err(ClaimError::Exhausted(error)) => error.reason,
        other => panic!("a limit was reached: {other:?}"),
    }
}

/// The facts that the backend is built around, asked of the kernel below it.
#[test]
fn the_kernel_moves_hints() {
    let kernel = SimFreeBsd::new(base());
    let hint = |addr: u64, flags: i32| {
        let at = kernel.mmap(addr, PAGE, abi::PROT_NONE, ANON | flags, -1, 0);
        let at = at.expect("free");
        kernel.munmap(at, PAGE).expect("mapped");
        at
    };
    let shifts: Vec<u64> = (0..200)
        .map(|_| (hint(0x1000_0000, 0) - 0x1000_0000) / PAGE)
        .collect();
    assert!(shifts.iter().all(|&shift| shift < 0x1000), "{shifts:?}");
    assert!(shifts.iter().any(|&shift| shift > 0x100), "{shifts:?}");
    let low: Vec<u64> = (0..200).map(|_| hint(0, abi::MAP_32BIT) / PAGE).collect();
    assert!(low.iter().all(|&page| page <= 0x100), "8 bits: {low:?}");
    // Between the program's text and the largest heap nothing is put at a hint.
    let heap = 0x0391_4a68_0000 + (32 << 30);
    for moved in [0, 0x0391_4a70_0000, heap - PAGE] {
        assert!(hint(moved, 0) >= heap, "{moved:#x}");
    }
    let exact = |flags: i32| kernel.mmap(0x1000_0000, PAGE, 0, ANON | flags, -1, 0);
    assert_eq!(exact(abi::MAP_EXCL), Err(Errno::EINVAL));
    let fixed = abi::MAP_FIXED | abi::MAP_EXCL;
    assert_eq!(exact(fixed), Ok(0x1000_0000));
    assert_eq!(exact(fixed), Err(Errno::ENOMEM), "taken, and no EEXIST");
}

#[test]
fn free_hints_are_honoured_and_taken_ones_verified() {
    let platform = sim::freebsd(base());
    let claim = pages(AREA, 7, 3);
    let hint = |within| platform.claim_hinted(claim.start(), claim.len(), within, Protection::Read);
    assert_eq!(hint(AREA), Ok(claim));
    // Randomization alone decides where this lands; in a range this wide it is kept.
    let second = hint(LOW).expect("there is room above");
    assert!(second.start() >= claim.end(), "{second}");
    let before = platform.kernel().mappings();
    expect_occupied(hint(claim));
    assert_eq!(platform.kernel().mappings(), before);
}

#[test]
fn kernels_without_exclusive_claims_are_told_apart_and_never_replace() {
    for excl in [MapExcl::Unknown, MapExcl::Ignored] {
        for aslr in [true, false] {
            let platform = sim::freebsd(FreeBsdOptions {
                excl,
                aslr,
                ..base()
            });
            assert!(!platform.config().capabilities.exact_claims);
            let claim = pages(AREA, 0, 1);
            let exact = platform.claim_exact(claim, Protection::ReadWrite);
            assert!(
                matches!(exact, Err(ClaimError::Unsupported { .. })),
                "{exact:?}"
            );
            let hinted = platform.claim_hinted(claim.start(), PAGE, AREA, Protection::ReadWrite);
            if !aslr {
                assert_eq!(hinted, Ok(claim), "hints are exact then");
            }
            // With randomization the page may lie anywhere in the first 16 MiB: all of the area.
            platform
                .give_back(hinted.expect("inside the area"))
                .expect("ours");
            let low = platform.claim_low(PAGE, LOW, Protection::ReadWrite);
            platform
                .give_back(low.expect("MAP_32BIT works"))
                .expect("ours");
            assert_eq!(platform.kernel().leaked(), []);
        }
    }
}

#[test]
fn emulators_that_ignore_hints_give_low_memory_all_the_same() {
    let platform = sim::freebsd(FreeBsdOptions {
        excl: MapExcl::Unknown,
        hints_honoured: false,
        ..base()
    });
    expect_occupied(platform.claim_hinted(AREA.start(), PAGE, AREA, Protection::ReadWrite));
    let low = platform.claim_low(PAGE, LOW, Protection::ReadWrite);
    platform
        .give_back(low.expect("MAP_32BIT works"))
        .expect("ours");
    assert_eq!(platform.kernel().leaked(), []);
}

#[test]
fn one_error_number_is_told_apart() {
    // Taken: a collision.
    let platform = sim::freebsd(base());
    let claim = pages(AREA, 0, 4);
    assert!(platform.kernel().occupy(pages(AREA, 3, 1)));
    expect_occupied(platform.claim_exact(claim, Protection::ReadWrite));
    // A limit: its name and value.
    let limited = sim::freebsd(FreeBsdOptions {
        rlimit_vmem: 1 << 30,
        ..base()
    });
    let why = reason(limited.claim_exact(range(0x1000_0000, 0x4000_0000), Protection::None));
    assert!(why.contains("RLIMIT_VMEM is 1073741824 bytes"), "{why}");
    // Swap: nothing is there, no limit is known.
    let short = sim::freebsd(FreeBsdOptions {
        swap: 16 * PAGE,
        ..base()
    });
    reason(short.claim_exact(pages(AREA, 0, 17), Protection::ReadWrite));
    let error = short.new_backing(17 * PAGE).expect_err("no swap");
    assert_eq!(error.code, Errno::ENOMEM.0);
    short
        .claim_exact(pages(AREA, 0, 16), Protection::ReadWrite)
        .expect("swap for as much");
    // Somebody who took it and let go is no limit.
    platform.kernel().fail_named("mmap", 0, Errno::ENOMEM);
    platform
        .claim_exact(pages(AREA, 8, 1), Protection::ReadWrite)
        .expect("the second try finds it free");
    // Low memory that is full says so.
    let full = sim::freebsd(FreeBsdOptions {
        low: LowMemory::Holes(vec![range(0x2222_2000, 0x2222_4000)]),
        ..base()
    });
    let why = reason(full.claim_low(4 * PAGE, LOW, Protection::ReadWrite));
    assert!(why.contains("below 2 GiB"), "{why}");
    full.claim_exact(range(0x2222_2000, 0x2222_4000), Protection::ReadWrite)
        .expect("free");
}

#[test]
fn a_quicker_thread_is_a_collision() {
    let platform = sim::freebsd(FreeBsdOptions {
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
fn discarding_renews_own_pages_only() {
    let platform = sim::freebsd(base());
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
    // When the new pages cannot be had, the range is still the caller's.
    platform.kernel().fail_named("mprotect", 0, Errno::ENOMEM);
    platform.empty(pages(AREA, 0, 1)).expect_err("planned");
    assert_eq!(survey(&platform, AREA)[0].range, claim);
}

#[test]
fn executable_views_are_final_from_13_on() {
    for prot_max in [true, false] {
        let platform = sim::freebsd(FreeBsdOptions { prot_max, ..base() });
        let backing = platform.new_backing(2 * PAGE).expect("SHM_ANON");
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
        assert_eq!(raised.is_err(), prot_max, "{raised:?}");
        let inherits = |view: AddrRange| {
            let held = platform.kernel().leaked();
            let view = held.iter().find(|held| held.range == view);
            view.expect("mapped").inherited
        };
        assert!(!inherits(written) && inherits(run));
        let error = platform.finalize(run).expect_err("no mseal");
        assert!(error.call.contains("mseal"), "{error}");
    }
}

#[test]
fn room_of_heap_and_stack_is_kept() {
    let brk = 0x0123_4000;
    let platform = sim::freebsd(FreeBsdOptions {
        low: LowMemory::NonPie { brk },
        ..base()
    });
    let end = brk + 0x2_1000;
    let rooms: Vec<AddrRange> = survey(&platform, LOW)
        .iter()
        .filter(|region| region.holder == Holder::Brk)
        .map(|region| region.range)
        .collect();
    assert_eq!(rooms, [AddrRange::at(end, 128 << 20).expect("low")]);
    let described = platform.describe(ALL).expect("the map can be read");
    let holders: Vec<Holder> = described.iter().map(|region| region.holder).collect();
    use Holder::{Brk, Executable, Library, Stack, System};
    assert_eq!(
        holders,
        [Executable, Executable, Brk, Brk, Library, System, Stack]
    );
    // The room of the stack is in the kernel's own map, as a guard.
    let stack = &described[6].range;
    assert_eq!(described[5].range.end(), stack.start());
    assert_eq!(stack.end() - described[5].range.start(), 512 << 20);
    assert_eq!(platform.config().user_end, 0x7fff_ffff_f000);
}

#[test]
fn the_same_seed_gives_the_same_answers() {
    let run = |seed| {
        let platform = sim::freebsd(FreeBsdOptions {
            seed,
            thief_per_mille: 300,
            ..base()
        });
        let mut bytes = [0_u8; 600];
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

proptest! {
    /// The survey agrees with what was mapped, page by page.
    #[test]
    fn surveys_agree_with_the_map(
        starts in prop::collection::vec((0_u64..400, 1_u64..6), 0..90),
        window in (0_u64..200, 200_u64..410),
    ) {
        let within = pages(AREA, window.0, window.1 - window.0);
        let kernel = SimFreeBsd::new(base());
        let mut held = vec![false; 410];
        for (first, count) in starts {
            if kernel.occupy(pages(AREA, first, count)) {
                for page in first..first + count {
                    held[usize::try_from(page).expect("small")] = true;
                }
            }
        }
        let platform = FreeBsdPlatform::new(kernel, Options::default()).expect("room to probe");
        let regions = survey(&platform, within);
        for page in window.0..window.1 {
            let at = pages(AREA, page, 1);
            let seen = regions.iter().any(|region| region.range.encloses(at));
            prop_assert_eq!(seen, held[usize::try_from(page).expect("small")], "{}", at);
        }
    }
}
