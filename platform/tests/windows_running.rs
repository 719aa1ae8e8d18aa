//! The running Windows, or Wine: what only a real system can show.

#![cfg(windows)]

mod common;

use common::{
    ALL, LOW, OnClaims, alone, count_in_units_of, expect_bytes, expect_occupied, pages, poke,
    range, survey,
};
use low2g_platform::{AddrRange, ClaimError, Holder, Platform, Protection, to_usize, windows};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::atomic::{AtomicBool, Ordering};

const AREA: AddrRange = range(0x2000_0000, 0x2800_0000);

/// `mov eax, 42; ret`
const FORTY_TWO: [u8; 6] = [0xb8, 42, 0, 0, 0, 0xc3];

fn call(addr: u64) -> i32 {
    let code = std::ptr::with_exposed_provenance::<()>(to_usize(addr));
    // SAFETY: the caller wrote FORTY_TWO there and made the page executable; it touches no stack
    // but its return address.
    let function: extern "system" fn() -> i32 = unsafe { std::mem::transmute(code) };
    function()
}

#[test]
fn the_configuration_is_what_windows_has() {
    let platform = windows::native().expect("it can be probed");
    let config = platform.config();
    assert_eq!((config.page_size, config.granularity), (4096, 65536));
    assert_eq!(config.low_window, Ok(range(0x1_0000, 1 << 32)));
    let powers = config.capabilities;
    assert!(powers.exact_claims && powers.second_views && powers.protect_to_execute);
    assert!(!powers.partial_release && !powers.seal && !powers.jit_pages);
}

#[test]
fn ten_thousand_random_placements_below_2_gib() {
    let _alone = alone();
    let platform = windows::native().expect("it can be probed");
    let seed = std::env::var("LOW2G_SEED").map_or(6, |seed| seed.parse().expect("a number"));
    println!("LOW2G_SEED={seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut live: Vec<AddrRange> = Vec::new();
    let (mut placed, mut lost) = (0, 0);
    while placed < 10_000 {
        let len = rng.random_range(1..=32) * 4096;
        let start = rng.random_range(0x100..0x7f00_u64) << 16;
        let claim = AddrRange::at(start, len).expect("low");
        match platform.claim_exact(claim, Protection::ReadWrite) {
            Ok(()) => {
                assert!(live.iter().all(|held| !held.overlaps(claim)), "{claim}");
                poke(&platform, claim.start(), &claim.start().to_le_bytes());
                poke(&platform, claim.end() - 1, &[7]);
                live.push(claim);
                placed += 1;
            }
            Err(ClaimError::Occupied { range }) => {
                assert_eq!(range, claim);
                lost += 1;
            }
            Err(error) => panic!("{error}"),
        }
        if live.len() > 500 {
            let gone = live.swap_remove(rng.random_range(0..live.len()));
            expect_bytes(&platform, gone.start(), &gone.start().to_le_bytes());
            platform.give_back(gone).expect("ours");
        }
    }
    let held = survey(&platform, LOW);
    for claim in live {
        assert!(held.iter().any(|region| region.range.encloses(claim)));
        expect_bytes(&platform, claim.start(), &claim.start().to_le_bytes());
        platform.give_back(claim).expect("ours");
    }
    println!("{placed} placed, {lost} drawn where something was");
}

#[test]
fn code_runs_from_private_memory_and_from_a_view() {
    let _alone = alone();
    let platform = windows::native().expect("it can be probed");
    count_in_units_of(&platform);
    let claim = pages(AREA, 0, 1);
    platform
        .claim_exact(claim, Protection::ReadWrite)
        .expect("free");
    poke(&platform, claim.start(), &FORTY_TWO);
    platform
        .set_access(claim, Protection::ReadExecute)
        .expect("no ACG");
    platform.flush_instruction_cache(claim);
    assert_eq!(call(claim.start()), 42);
    platform.give_back(claim).expect("ours");

    let (written, run) = (pages(AREA, 4, 1), pages(AREA, 8, 1));
    let backing = platform.new_backing(written.len()).expect("memory");
    for (view, protection) in [
        (written, Protection::ReadWrite),
        (run, Protection::ReadExecute),
    ] {
        platform
            .claim_view_exact(&*backing, 0, view, protection)
            .expect("free");
    }
    poke(&platform, written.start(), &FORTY_TWO);
    platform.flush_instruction_cache(run);
    assert_eq!(call(run.start()), 42);
    poke(&platform, written.start() + 1, &[43]);
    platform.flush_instruction_cache(run);
    assert_eq!(call(run.start()), 43);
    for (view, protection) in [
        (written, Protection::ReadExecute),
        (run, Protection::ReadWrite),
    ] {
        platform
            .set_access(view, protection)
            .expect_err("a view's access never grows");
        platform.give_back(view).expect("ours");
    }
}

#[test]
fn reserved_pages_get_memory_with_their_first_access() {
    let _alone = alone();
    let platform = windows::native().expect("it can be probed");
    count_in_units_of(&platform);
    // More than any machine could commit here, twice over, below 2 GiB.
    let claim = range(0x3000_0000, 0x6000_0000);
    platform.claim_exact(claim, Protection::None).expect("free");
    expect_occupied(platform.claim_exact(pages(claim, 7, 1), Protection::Read));
    let page = AddrRange::at(claim.start() + 0x1000, 0x1000).expect("low");
    platform
        .set_access(page, Protection::ReadWrite)
        .expect("ours");
    poke(&platform, page.start(), b"there");
    platform.empty(page).expect("ours");
    expect_bytes(&platform, page.start(), &[0; 5]);
    platform.give_back(claim).expect("ours");
    assert_eq!(survey(&platform, claim), []);
}

#[test]
fn one_release_may_cover_several_claims() {
    let _alone = alone();
    let platform = windows::native().expect("it can be probed");
    count_in_units_of(&platform);
    for number in 0..4 {
        let claim = pages(AREA, 100 + number, 1);
        platform
            .claim_exact(claim, Protection::ReadWrite)
            .expect("free");
    }
    let all = pages(AREA, 100, 4);
    platform.set_access(all, Protection::Read).expect("ours");
    platform.give_back(all).expect("ours");
    assert_eq!(survey(&platform, all), []);
}

/// Other threads take what a survey just called free, through the system itself.
#[test]
fn hostile_threads_cost_tries_and_nothing_else() {
    let _alone = alone();
    let platform = windows::native().expect("it can be probed");
    count_in_units_of(&platform);
    let area = pages(AREA, 200, 16);
    let stop = AtomicBool::new(false);
    let work = |seed: u64| {
        let platform = windows::native().expect("it can be probed");
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        while !stop.load(Ordering::Relaxed) {
            let at = AddrRange::at(area.start() + rng.random_range(0..16) * 0x1_0000, 0x1_0000);
            let at = at.expect("low");
            if platform.claim_exact(at, Protection::ReadWrite).is_ok() {
                poke(&platform, at.start(), b"thief");
                std::thread::yield_now();
                expect_bytes(&platform, at.start(), b"thief");
                platform.give_back(at).expect("ours");
            }
        }
    };
    let work = &work;
    std::thread::scope(|scope| {
        for seed in 0..3 {
            scope.spawn(move || work(seed));
        }
        let mut won = 0;
        for number in 0..3000_u64 {
            let first = number % 14;
            let claim = pages(area, first, 2);
            match platform.claim_exact(claim, Protection::ReadWrite) {
                Ok(()) => {
                    poke(&platform, claim.start(), b"mine");
                    std::thread::yield_now();
                    expect_bytes(&platform, claim.start(), b"mine");
                    platform.give_back(claim).expect("ours");
                    won += 1;
                }
                Err(ClaimError::Occupied { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
        println!("{won} of 3,000 won");
        assert!(won > 0);
    });
    assert_eq!(survey(&platform, area), []);
}

#[test]
fn all_that_the_program_holds_is_described() {
    let _alone = alone();
    let platform = windows::native().expect("it can be probed");
    let described = platform.describe(ALL).expect("the map can be read");
    for holder in [
        Holder::Executable,
        Holder::Library,
        Holder::Stack,
        Holder::System,
        Holder::Mapping,
    ] {
        let has = described.iter().any(|region| region.holder == holder);
        assert!(has, "{holder:?} is missing in {described:#?}");
    }
    let program = std::env::current_exe().expect("it has a path");
    let named = |holder, end: &str| {
        let end = end.to_lowercase();
        let of = described.iter().filter(|region| region.holder == holder);
        let mut names = of.map(|region| region.name.to_lowercase());
        names.any(|name| name.ends_with(&end))
    };
    let file = program.file_name().expect("a file").to_string_lossy();
    assert!(named(Holder::Executable, &file), "{file}");
    assert!(named(Holder::Library, "kernel32.dll"));
}
