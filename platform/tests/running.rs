//! Sizes and numbers that only the running kernel can show.

#![cfg(target_os = "linux")]

mod common;

use common::{ALL, LOW, OnClaims, alone, expect_no_wx, pages, range, survey};
use low2g_platform::{AddrRange, ClaimError, Platform, Protection, linux, sim};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A stretch of high addresses that nothing else uses.
const HIGH: AddrRange = range(0x3000_0000_0000, 0x3001_0000_0000);

#[test]
fn a_bss_of_nearly_2_gib_can_be_mapped() {
    let _alone = alone();
    let platform = linux::native().expect("this system has low memory");
    let bss = range(0x0100_0000, 0x7a00_0000);
    platform
        .claim_exact(bss, Protection::ReadWrite)
        .expect("nothing is reserved");
    expect_no_wx(&platform);
    platform.give_back(bss).expect("ours");
}

#[test]
fn high_mappings_cost_a_survey_nothing() {
    let _alone = alone();
    let platform = linux::native().expect("this system has low memory");
    // More than the ioctl serves, so that the text is read too.
    let low: Vec<AddrRange> = (0..60)
        .map(|number| pages(range(0x2000_0000, 0x2100_0000), 2 * number, 1))
        .collect();
    for &at in &low {
        platform.claim_exact(at, Protection::None).expect("free");
    }
    let before = fastest_survey(&platform);
    let high: Vec<AddrRange> = (0..30_000)
        .map(|number| pages(HIGH, 2 * number, 1))
        .collect();
    for &at in &high {
        platform
            .claim_exact(at, Protection::None)
            .expect("below vm.max_map_count");
    }
    let after = fastest_survey(&platform);
    let held = survey(&platform, LOW);
    assert!(
        low.iter()
            .all(|at| held.iter().any(|region| region.range == *at))
    );
    println!("survey with 60 low mappings: {before:?}, with 30,000 high ones besides: {after:?}");
    // Reading all of the text takes 5 ms and more; a busy machine is allowed a lot.
    assert!(
        after < before * 10 + Duration::from_micros(500),
        "{before:?} became {after:?}"
    );
    for at in low.into_iter().chain(high) {
        platform.give_back(at).expect("ours");
    }
}

fn fastest_survey(platform: &dyn Platform) -> Duration {
    let mut out = Vec::new();
    let once = || {
        let start = Instant::now();
        platform.survey(LOW, &mut out).expect("the map can be read");
        start.elapsed()
    };
    std::iter::repeat_with(once)
        .take(50)
        .min()
        .expect("50 of them")
}

/// The same counted on the simulated kernel: system calls, not time.
#[test]
fn a_survey_of_few_mappings_takes_few_calls() {
    let platform = sim::linux(sim::SimOptions::default());
    for number in 0..20 {
        platform
            .claim_exact(
                pages(range(0x2000_0000, 0x2100_0000), 2 * number, 1),
                Protection::None,
            )
            .expect("free");
    }
    for number in 0..1000 {
        assert!(platform.kernel().occupy(pages(HIGH, 2 * number, 1)));
    }
    let before = platform.kernel().calls();
    survey(&platform, LOW);
    let calls = platform.kernel().calls() - before;
    // open, 21 mappings with the anchor, the one that ends it, the stack's limit.
    assert_eq!(calls, 24);
}

#[test]
fn all_that_the_program_holds_is_described() {
    let _alone = alone();
    let platform = linux::native().expect("this system has low memory");
    let described = platform.describe(ALL).expect("the map can be read");
    let has = |holder| described.iter().any(|region| region.holder == holder);
    use low2g_platform::Holder::{Brk, Executable, Library, Stack, System};
    for holder in [Executable, Library, Stack, Brk, System] {
        assert!(has(holder), "{holder:?} is missing in {described:#?}");
    }
}

/// Threads that claim and release in one small area never get the same page.
#[test]
fn threads_never_share_a_claim() {
    let _alone = alone();
    const PAGES: u64 = 32;
    let area = range(0x2800_0000, 0x2800_0000 + PAGES * 4096);
    let platform = linux::native().expect("this system has low memory");
    let owners: Vec<AtomicU64> = (0..PAGES).map(|_| AtomicU64::new(0)).collect();
    let owned = |first: u64, count: u64| {
        owners
            .iter()
            .skip(first.try_into().expect("small"))
            .take(count.try_into().expect("small"))
    };
    let work = |thread: u64| {
        let mut rng = ChaCha8Rng::seed_from_u64(thread);
        let (mut won, mut lost) = (0, 0);
        for _ in 0..3000 {
            let count = rng.random_range(1..6);
            let first = rng.random_range(0..PAGES - count);
            let claim = pages(area, first, count);
            match platform.claim_exact(claim, Protection::ReadWrite) {
                Ok(()) => {
                    for owner in owned(first, count) {
                        assert_eq!(
                            owner.swap(thread, Ordering::SeqCst),
                            0,
                            "{claim} has an owner"
                        );
                    }
                    std::thread::yield_now();
                    for owner in owned(first, count) {
                        assert_eq!(owner.swap(0, Ordering::SeqCst), thread, "{claim} was taken");
                    }
                    platform.give_back(claim).expect("ours");
                    won += 1;
                }
                Err(ClaimError::Occupied { .. }) => lost += 1,
                Err(error) => panic!("{error}"),
            }
        }
        (won, lost)
    };
    let work = &work;
    let counts: Vec<(u32, u32)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=4)
            .map(|thread| scope.spawn(move || work(thread)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    });
    assert!(counts.iter().all(|&(won, _)| won > 0), "{counts:?}");
    assert_eq!(survey(&platform, area), []);
}
