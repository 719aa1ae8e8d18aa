//! The checks of the contract, the same for every backend and every system below it.

use super::{
    LOW, OnClaims, access_by_page, count_in_units_of, expect_bytes, expect_no_wx, expect_occupied,
    pages, poke, survey, unit,
};
use low2g_platform::{AddrRange, ClaimError, Platform, Protection};

/// All checks, in an area of 64 free pages from `start`, which is free again afterwards.
pub(crate) fn suite(platform: &dyn Platform, start: u64) {
    count_in_units_of(platform);
    let area = AddrRange::at(start, 64 * unit()).expect("small");
    assert!(
        survey(platform, area).is_empty(),
        "{area} is free before the test"
    );
    exact(platform, area);
    occupied_is_never_replaced(platform, area);
    hinted(platform, area);
    low(platform, area);
    views(platform, area);
    access(platform, area);
    partial_release(platform, area);
    random(platform);
    expect_no_wx(platform);
    assert_eq!(survey(platform, area), [], "everything was given back");
}

/// Whether policy lets private memory become executable (PR_SET_MDWE does not).
fn may_execute(platform: &dyn Platform) -> bool {
    platform.config().capabilities.protect_to_execute
}

pub(crate) fn exact(platform: &dyn Platform, area: AddrRange) {
    let claim = pages(area, 3, 2);
    for protection in [
        Protection::None,
        Protection::Read,
        Protection::ReadWrite,
        Protection::ReadExecute,
    ] {
        let result = platform.claim_exact(claim, protection);
        if protection == Protection::ReadExecute && !may_execute(platform) && result.is_err() {
            assert!(matches!(result, Err(ClaimError::Refused(_))), "{result:?}");
            assert_eq!(survey(platform, area), [], "a refused claim leaves nothing");
            continue;
        }
        result.expect("free");
        let held = survey(platform, area);
        assert_eq!(held.len(), 1);
        assert_eq!(held[0].range, claim);
        platform.give_back(claim).expect("ours");
    }
}

fn occupied_is_never_replaced(platform: &dyn Platform, area: AddrRange) {
    let (first, second) = (pages(area, 4, 1), pages(area, 6, 1));
    for held in [first, second] {
        platform
            .claim_exact(held, Protection::ReadWrite)
            .expect("free");
        poke(platform, held.start(), b"neighbour");
    }
    // Every range of up to 5 pages around the two.
    for start in 1..9 {
        for count in 1..=5 {
            let wanted = pages(area, start, count);
            let result = platform.claim_exact(wanted, Protection::ReadWrite);
            if wanted.overlaps(first) || wanted.overlaps(second) {
                expect_occupied(result);
            } else {
                result.expect("free");
                platform.give_back(wanted).expect("ours");
            }
        }
    }
    for held in [first, second] {
        expect_bytes(platform, held.start(), b"neighbour");
        platform.give_back(held).expect("ours");
    }
}

pub(crate) fn hinted(platform: &dyn Platform, area: AddrRange) {
    let claim = pages(area, 5, 3);
    let hint =
        |within| platform.claim_hinted(claim.start(), claim.len(), within, Protection::ReadWrite);
    assert_eq!(hint(area), Ok(claim), "a free hint is honoured");
    let before = survey(platform, LOW);
    // Some systems go upwards from a taken hint, which may still be inside a wider range.
    expect_occupied(hint(claim));
    assert_eq!(
        survey(platform, LOW),
        before,
        "what came back elsewhere was released"
    );
    platform.give_back(claim).expect("ours");
}

fn low(platform: &dyn Platform, area: AddrRange) {
    if !platform.config().capabilities.low_claims {
        return;
    }
    let claim = platform
        .claim_low(2 * unit(), LOW, Protection::ReadWrite)
        .expect("free");
    assert!(
        claim.end() <= 1 << 31 && claim.len() == 2 * unit(),
        "{claim}"
    );
    poke(platform, claim.start(), b"low");
    expect_bytes(platform, claim.start(), b"low\0");
    platform.give_back(claim).expect("ours");
    let before = survey(platform, LOW);
    // Some systems begin to search at the bottom of the range, and find room.
    match platform.claim_low(unit(), area, Protection::ReadWrite) {
        Ok(claim) => {
            assert!(area.encloses(claim), "{claim}");
            platform.give_back(claim).expect("ours");
        }
        elsewhere => expect_occupied(elsewhere),
    }
    assert_eq!(
        survey(platform, LOW),
        before,
        "what came back elsewhere was released"
    );
}

pub(crate) fn views(platform: &dyn Platform, area: AddrRange) {
    let (written, run) = (pages(area, 8, 4), pages(area, 20, 2));
    let backing = platform.new_backing(written.len()).expect("memfd");
    assert_eq!((backing.len(), backing.is_empty()), (written.len(), false));
    let view =
        |offset, range, protection| platform.claim_view_exact(&*backing, offset, range, protection);
    view(0, written, Protection::ReadWrite).expect("free");
    view(unit(), run, Protection::ReadExecute).expect("free");
    expect_occupied(view(0, run, Protection::ReadExecute));
    platform.fill_pages(written).expect("there is memory");
    poke(platform, written.start() + unit(), b"code");
    expect_bytes(platform, run.start(), b"code");
    let refused = platform.set_access(run, Protection::ReadWrite);
    let refused = refused.expect_err("an executable view never writes");
    assert_eq!(refused.range, run, "{refused}");
    expect_no_wx(platform);
    drop(backing);
    expect_bytes(platform, run.start(), b"code");
    platform.empty(written).expect("ours");
    expect_bytes(platform, run.start(), &[0; 4]);
    platform.give_back(written).expect("ours");
    platform.give_back(run).expect("ours");
}

fn access(platform: &dyn Platform, area: AddrRange) {
    let claim = pages(area, 0, 4);
    platform
        .claim_exact(claim, Protection::ReadWrite)
        .expect("free");
    platform.fill_pages(claim).expect("there is memory");
    poke(platform, claim.start(), b"first");
    poke(platform, claim.start() + unit(), b"second");
    platform.empty(pages(area, 1, 1)).expect("ours");
    expect_bytes(platform, claim.start(), b"first");
    expect_bytes(platform, claim.start() + unit(), &[0; 6]);
    platform.fence(pages(area, 3, 1)).expect("ours");
    let executable = platform.set_access(pages(area, 0, 1), Protection::ReadExecute);
    assert_eq!(executable.is_ok(), may_execute(platform), "{executable:?}");
    platform
        .set_access(pages(area, 1, 1), Protection::Read)
        .expect("ours");
    platform
        .set_access(pages(area, 2, 1), Protection::None)
        .expect("ours");
    platform.flush_instruction_cache(claim);
    let first = if may_execute(platform) {
        "r-xp"
    } else {
        "rw-p"
    };
    assert_eq!(
        access_by_page(platform, claim)[..3],
        [first, "r--p", "---p"]
    );
    platform.give_back(claim).expect("ours");
}

fn partial_release(platform: &dyn Platform, area: AddrRange) {
    platform
        .claim_exact(pages(area, 0, 5), Protection::ReadWrite)
        .expect("free");
    platform.give_back(pages(area, 2, 1)).expect("ours");
    let held: Vec<AddrRange> = survey(platform, area)
        .iter()
        .map(|region| region.range)
        .collect();
    if platform.config().capabilities.partial_release {
        assert_eq!(held, [pages(area, 0, 2), pages(area, 3, 2)]);
    } else {
        assert_eq!(held, [pages(area, 0, 5)], "it goes with the last part");
        expect_occupied(platform.claim_exact(pages(area, 2, 1), Protection::Read));
        assert_eq!(access_by_page(platform, pages(area, 2, 1)), ["---p"]);
    }
    platform.give_back(pages(area, 0, 2)).expect("ours");
    platform.give_back(pages(area, 3, 2)).expect("ours");
}

fn random(platform: &dyn Platform) {
    let mut buffers = [[0_u8; 64]; 2];
    for buffer in &mut buffers {
        platform.random(buffer);
    }
    assert_ne!(buffers[0], buffers[1], "2^-512 by chance");
}
