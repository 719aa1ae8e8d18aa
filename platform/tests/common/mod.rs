//! What the platform's tests share: ranges by page, contents of memory.
//!
//! The fixed areas suppose a position-independent test program, which holds nothing low.

#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod suite;

use low2g_platform::{
    AddrRange, ClaimError, Platform, PlatformError, Protection, Region, to_usize,
};

/// Bytes of a page of the Linux systems that these tests run on.
pub(crate) const PAGE: u64 = 4096;

thread_local! {
    static UNIT: std::cell::Cell<u64> = const { std::cell::Cell::new(PAGE) };
}

/// Bytes of what [`pages`] counts in: the step between addresses at which a system maps.
pub(crate) fn unit() -> u64 {
    UNIT.get()
}

/// This test counts in the step of `platform` from here on.
pub(crate) fn count_in_units_of(platform: &dyn Platform) {
    UNIT.set(platform.config().granularity);
}

/// The first 4 GiB.
pub(crate) const LOW: AddrRange = range(0, 1 << 32);

/// All of user space.
pub(crate) const ALL: AddrRange = range(0, 1 << 47);

/// `[start, end)`.
pub(crate) const fn range(start: u64, end: u64) -> AddrRange {
    AddrRange::new(start, end).expect("bounds in order")
}

/// `count` pages (see [`unit`]) from page `first` of `area`.
pub(crate) fn pages(area: AddrRange, first: u64, count: u64) -> AddrRange {
    let pages = AddrRange::at(area.start() + first * unit(), count * unit()).expect("small");
    assert!(area.encloses(pages), "the test uses pages of its own area");
    pages
}

/// What may be done to a claim, for tests, which name no range but those that they claimed and
/// keep no reference into them: memory is read and written by [`poke`] and [`expect_bytes`].
pub(crate) trait OnClaims: Platform {
    fn fill_pages(&self, range: AddrRange) -> Result<(), PlatformError> {
        // SAFETY: populate needs a claim of the caller's to which nothing refers: see the trait.
        unsafe { self.populate(range) }
    }

    fn set_access(&self, range: AddrRange, protection: Protection) -> Result<(), PlatformError> {
        // SAFETY: protect needs a claim of the caller's to which nothing refers: see the trait.
        unsafe { self.protect(range, protection) }
    }

    fn finalize(&self, range: AddrRange) -> Result<(), PlatformError> {
        // SAFETY: seal needs a claim of the caller's to which nothing refers: see the trait.
        unsafe { self.seal(range) }
    }

    fn fence(&self, range: AddrRange) -> Result<(), PlatformError> {
        // SAFETY: guard needs a claim of the caller's to which nothing refers: see the trait.
        unsafe { self.guard(range) }
    }

    fn empty(&self, range: AddrRange) -> Result<(), PlatformError> {
        // SAFETY: discard needs a claim of the caller's to which nothing refers: see the trait.
        unsafe { self.discard(range) }
    }

    fn give_back(&self, range: AddrRange) -> Result<(), PlatformError> {
        // SAFETY: release needs a claim of the caller's to which nothing refers: see the trait.
        unsafe { self.release(range) }
    }
}

impl<P: Platform + ?Sized> OnClaims for P {}

/// Writes `bytes` at `addr`, in pages that the test claimed and that are writable; nothing on a
/// simulated system.
pub(crate) fn poke(platform: &dyn Platform, addr: u64, bytes: &[u8]) {
    if platform.is_simulated() {
        return;
    }
    let at = std::ptr::with_exposed_provenance_mut::<u8>(to_usize(addr));
    // SAFETY: the test holds the pages, mapped writable, and no reference into them.
    unsafe { at.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
}

/// Asserts that `bytes` stand at `addr`, in readable pages that the test claimed; nothing on a
/// simulated system.
pub(crate) fn expect_bytes(platform: &dyn Platform, addr: u64, bytes: &[u8]) {
    if platform.is_simulated() {
        return;
    }
    let at = std::ptr::with_exposed_provenance::<u8>(to_usize(addr));
    let mut found = vec![0; bytes.len()];
    // SAFETY: the test holds the pages, mapped readable, and nobody writes them meanwhile.
    unsafe { at.copy_to_nonoverlapping(found.as_mut_ptr(), bytes.len()) };
    assert_eq!(found, bytes, "at {addr:#x}");
}

/// What holds `within`, by the fast way.
pub(crate) fn survey(platform: &dyn Platform, within: AddrRange) -> Vec<Region> {
    let mut regions = Vec::new();
    platform
        .survey(within, &mut regions)
        .expect("the map can be read");
    for pair in regions.windows(2) {
        assert!(pair[0].range.end() <= pair[1].range.start(), "{pair:?}");
    }
    for region in &regions {
        assert!(
            within.encloses(region.range) && !region.range.is_empty(),
            "{region:?}"
        );
    }
    regions
}

/// Access of each page of `area`; empty where nothing is mapped.
pub(crate) fn access_by_page(platform: &dyn Platform, area: AddrRange) -> Vec<String> {
    let mut pages = vec![String::new(); usize::try_from(area.len() / unit()).expect("small")];
    for region in platform.describe(area).expect("the map can be read") {
        let first = usize::try_from((region.range.start() - area.start()) / unit()).expect("small");
        let count = usize::try_from(region.range.len() / unit()).expect("small");
        for page in &mut pages[first..first + count] {
            page.clone_from(&region.access);
        }
    }
    pages
}

/// Asserts that no mapping of the process is writable and executable.
pub(crate) fn expect_no_wx(platform: &dyn Platform) {
    for region in platform.describe(ALL).expect("the map can be read") {
        assert!(
            !region.access.contains("wx"),
            "writable and executable: {region:?}"
        );
    }
}

/// Asserts a collision.
pub(crate) fn expect_occupied<T: std::fmt::Debug>(result: Result<T, ClaimError>) {
    assert!(
        matches!(result, Err(ClaimError::Occupied { .. })),
        "{result:?}"
    );
}

/// Tests of the running system share one process: whoever compares surveys holds this.
pub(crate) fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ALONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
