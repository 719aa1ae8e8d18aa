//! The simulated Linux held against the running one: random operations, same answers.
//!
//! The seed is printed; LOW2G_SEED=N repeats a run. Both are asked in a low area
//! that nobody else uses, and compared after every operation: the answer with
//! its code, and the access of every page.

#![cfg(target_os = "linux")]

mod common;

use common::{LOW, OnClaims, PAGE, access_by_page, pages, range, survey};
use low2g_platform::linux::{self, LinuxPlatform, Syscalls};
use low2g_platform::sim::{self, SimOptions};
use low2g_platform::{AddrRange, Backing, ClaimError, Platform, PlatformError, Protection};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::{SystemTime, UNIX_EPOCH};

const AREA: AddrRange = range(0x1800_0000, 0x1802_8000);
const PAGES: u64 = AREA.len() / PAGE;
const PROTECTIONS: [Protection; 4] = [
    Protection::None,
    Protection::Read,
    Protection::ReadWrite,
    Protection::ReadExecute,
];

#[derive(Clone, Copy, Debug)]
enum Operation {
    ClaimExact(AddrRange, Protection),
    ClaimHinted(AddrRange, Protection),
    ClaimLow(u64, Protection),
    ClaimView(u64, AddrRange, Protection),
    Protect(AddrRange, Protection),
    Populate(AddrRange),
    Guard(AddrRange),
    Discard(AddrRange),
    Release(AddrRange),
}

/// An answer without what may rightly differ (words, where a hint ended instead).
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Done,
    Occupied,
    Unsupported,
    Exhausted(i32),
    Refused(i32),
    Failed(&'static str, i32),
}

fn of_claim<T>(result: Result<T, ClaimError>) -> Answer {
    match result {
        Ok(_) => Answer::Done,
        Err(ClaimError::Occupied { .. }) => Answer::Occupied,
        Err(ClaimError::Exhausted(error)) => Answer::Exhausted(error.code),
        Err(ClaimError::Refused(error)) => Answer::Refused(error.code),
        Err(_) => Answer::Unsupported,
    }
}

fn of_call(result: Result<(), PlatformError>) -> Answer {
    result.map_or_else(
        |error| Answer::Failed(error.call, error.code),
        |()| Answer::Done,
    )
}

fn apply<S: Syscalls>(
    platform: &LinuxPlatform<S>,
    backing: &dyn Backing,
    operation: Operation,
) -> Answer {
    match operation {
        Operation::ClaimExact(at, protection) => of_claim(platform.claim_exact(at, protection)),
        Operation::ClaimHinted(at, protection) => {
            of_claim(platform.claim_hinted(at.start(), at.len(), AREA, protection))
        }
        // Where is the kernels' choice; that it is low, kept and given back is not.
        Operation::ClaimLow(len, protection) => {
            let claim = platform.claim_low(len, LOW, protection);
            if let Ok(at) = &claim {
                assert_eq!((at.len(), at.end() <= 1 << 31), (len, true), "{at}");
                assert!(!at.overlaps(AREA), "the kernel searches above 1 GiB");
                platform.give_back(*at).expect("ours");
            }
            of_claim(claim)
        }
        Operation::ClaimView(offset, at, protection) => {
            of_claim(platform.claim_view_exact(backing, offset, at, protection))
        }
        Operation::Protect(at, protection) => of_call(platform.set_access(at, protection)),
        Operation::Populate(at) => of_call(platform.fill_pages(at)),
        Operation::Guard(at) => of_call(platform.fence(at)),
        Operation::Discard(at) => of_call(platform.empty(at)),
        Operation::Release(at) => of_call(platform.give_back(at)),
    }
}

/// `guards`: markers are not modelled, and populating one fails, so a run has one of the two.
fn draw(rng: &mut ChaCha8Rng, guards: bool) -> Operation {
    let first = rng.random_range(0..PAGES);
    let at = pages(AREA, first, rng.random_range(1..=(PAGES - first).min(8)));
    let protection = PROTECTIONS[rng.random_range(0..PROTECTIONS.len())];
    match rng.random_range(0..11) {
        0 | 1 => Operation::ClaimExact(at, protection),
        2 => Operation::ClaimHinted(at, protection),
        3 | 4 => {
            let offset = rng.random_range(0..=PAGES - at.len() / PAGE) * PAGE;
            Operation::ClaimView(offset, at, protection)
        }
        5 => Operation::Protect(at, protection),
        6 if guards => Operation::Guard(at),
        6 => Operation::Populate(at),
        7 => Operation::Discard(at),
        8 => Operation::ClaimLow(at.len(), protection),
        _ => Operation::Release(at),
    }
}

/// Version of the running kernel, for the simulated one to be the same.
fn kernel_version() -> (u16, u16) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux");
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    let mut next = || numbers.next().and_then(|number| number.parse().ok());
    next().zip(next()).expect("MAJOR.MINOR")
}

fn seed() -> u64 {
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    let fresh = u64::from(clock.subsec_nanos()) ^ (clock.as_secs() << 30);
    std::env::var("LOW2G_SEED").map_or(fresh, |seed| seed.parse().expect("a number"))
}

fn compare(seed: u64, guards: bool) {
    println!("LOW2G_SEED={seed} repeats this (guards: {guards})");
    let running = linux::native().expect("this system has low memory");
    let options = SimOptions {
        seed,
        kernel: kernel_version(),
        ..SimOptions::default()
    };
    let simulated = sim::linux(options);
    let running_pages = running.new_backing(AREA.len()).expect("memfd");
    let simulated_pages = simulated.new_backing(AREA.len()).expect("memfd");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    assert!(
        survey(&running, AREA).is_empty(),
        "{AREA} is free before the test"
    );
    for step in 0..2000 {
        let operation = draw(&mut rng, guards);
        let real = apply(&running, &*running_pages, operation);
        let modelled = apply(&simulated, &*simulated_pages, operation);
        assert_eq!(modelled, real, "seed {seed}, step {step}: {operation:x?}");
        let context = format!("seed {seed}, step {step}: {operation:x?} gave {real:?}");
        assert_eq!(
            survey(&simulated, AREA),
            survey(&running, AREA),
            "{context}"
        );
        let (modelled, real) = (
            access_by_page(&simulated, AREA),
            access_by_page(&running, AREA),
        );
        assert_eq!(modelled, real, "{context}");
        assert!(
            real.iter().all(|access| !access.contains("wx")),
            "{context}"
        );
    }
    running.give_back(AREA).expect("ours");
    assert!(survey(&running, AREA).is_empty());
}

#[test]
fn simulated_and_running_linux_agree() {
    let seed = seed();
    // One after the other: they use the same area.
    compare(seed, false);
    compare(seed.wrapping_add(1), true);
}
