//! [`Pages`]: whole pages of address space, ours and others', behind one lock.
//!
//! The lock is held across the system calls of a claim, so that what the map
//! says and what the kernel did cannot drift apart; the kernel serialises the
//! same calls anyway. No user's code runs under it.
//!
//! Invariants:
//! - a range is in the map as ours from its claim to its release, and released
//!   only by whoever claimed it;
//! - nothing here reads or writes memory at a claimed address.

use std::collections::VecDeque;
use std::sync::Arc;

use low2g_platform::{
    AddrRange, ClaimError, Holder, Platform, PlatformError, Protection, Region, is_aligned,
};

use crate::alloc::certificate::Bits;
use crate::alloc::error::AllocError;
use crate::alloc::exact::{Source, claim_at};
use crate::alloc::hole::KeepHole;
use crate::alloc::lock::SpinLock;
use crate::alloc::random::Random;
use crate::alloc::space::{Owner, Space};
use crate::alloc::statistics::Statistics;

/// Surveys are repeated after this many claims, or as many as there are taken
/// ranges if that is more: their cost stays a constant part of the claims'.
const SURVEY_LIFETIME: usize = 1024;

/// Refused releases that are tried again after one that succeeds.
const RETRIES: usize = 8;

/// Windows whose surveys are remembered.
const SURVEYED_WINDOWS: usize = 16;

/// Bytes kept clear for what grows, where the platform's own choice is not wanted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rooms {
    /// Above brk.
    pub(crate) brk: Option<u64>,
    /// Below the main stack.
    pub(crate) stack: Option<u64>,
}

/// The page-level allocator that all tiers share.
#[derive(Debug)]
pub(crate) struct Pages {
    pub(crate) platform: Arc<dyn Platform>,
    rooms: Rooms,
    /// Bytes of mappings that may be held.
    byte_limit: u64,
    pub(crate) keep_hole: Option<KeepHole>,
    pub(crate) state: SpinLock<State>,
}

/// What the lock protects.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) space: Space,
    pub(crate) random: Random,
    pub(crate) statistics: Statistics,
    pub(crate) bits: Bits,
    /// Whether exact claims work: false once the system said that they do not.
    pub(crate) exact: bool,
    /// See `hole`.
    pub(crate) hole: Option<AddrRange>,
    /// Whether the claim that is being made must not avoid any.
    pub(crate) hole_barred: bool,
    surveyed: Vec<Surveyed>,
    /// Ranges that the system refused to take back: inaccessible, tried again, a few at each release
    /// and all at each survey.
    stuck: VecDeque<AddrRange>,
    /// Reused for surveys.
    regions: Vec<Region>,
}

/// A window that was surveyed, and how many claims ago.
#[derive(Debug)]
struct Surveyed {
    window: AddrRange,
    claims_since: usize,
}

impl Pages {
    pub(crate) fn new(
        platform: Arc<dyn Platform>,
        rooms: Rooms,
        seed: Option<u64>,
        byte_limit: u64,
        keep_hole: Option<KeepHole>,
    ) -> Self {
        let random = Random::new(&*platform, seed);
        let exact = platform.config().capabilities.exact_claims;
        Self {
            platform,
            rooms,
            byte_limit,
            keep_hole,
            state: SpinLock::new(State {
                space: Space::default(),
                random,
                statistics: Statistics::default(),
                bits: Bits::default(),
                exact,
                hole: None,
                hole_barred: false,
                surveyed: Vec::new(),
                stuck: VecDeque::new(),
                regions: Vec::new(),
            }),
        }
    }

    /// A uniform number below `bound`.
    pub(crate) fn random_below(&self, bound: u64) -> u64 {
        let mut state = self.state.lock();
        state.random.check_fork(&*self.platform);
        state.random.below(bound)
    }

    /// Refuses what would exceed the limit.
    pub(crate) fn check_limit(&self, state: &State, size: u64) -> Result<(), AllocError> {
        let live = state.statistics.live_bytes;
        if live
            .checked_add(size)
            .is_some_and(|all| all <= self.byte_limit)
        {
            return Ok(());
        }
        Err(AllocError::ByteLimit {
            size,
            live,
            limit: self.byte_limit,
        })
    }

    /// Surveys `window` unless a recent survey covers it; says whether it did.
    pub(crate) fn ensure_surveyed(
        &self,
        state: &mut State,
        window: AddrRange,
    ) -> Result<bool, PlatformError> {
        let lifetime = SURVEY_LIFETIME.max(state.space.len());
        let mut known = false;
        for surveyed in &mut state.surveyed {
            if surveyed.window.encloses(window) {
                known |= surveyed.claims_since < lifetime;
                surveyed.claims_since += 1;
            }
        }
        if known {
            return Ok(false);
        }
        self.survey(state, window)?;
        Ok(true)
    }

    /// Learns what others hold of `window` now.
    pub(crate) fn survey(&self, state: &mut State, window: AddrRange) -> Result<(), PlatformError> {
        self.retry_stuck(state, usize::MAX);
        state.statistics.surveys += 1;
        let mut regions = std::mem::take(&mut state.regions);
        regions.clear();
        let result = self.platform.survey(window, &mut regions);
        if result.is_ok() {
            let rooms = self.rooms.replace(&mut regions);
            let found = regions.iter().map(|region| match region.holder {
                Holder::Brk | Holder::Stack => (region.range, Owner::Room),
                _ => (region.range, Owner::Others),
            });
            let rooms = rooms.into_iter().flatten();
            let rooms = rooms.map(|room| (room, Owner::Room));
            self.forget_hole(state, window);
            state.space.replace_others(window, found.chain(rooms));
            state.surveyed.retain(|old| !window.encloses(old.window));
            if state.surveyed.len() == SURVEYED_WINDOWS {
                state.surveyed.remove(0);
            }
            state.surveyed.push(Surveyed {
                window,
                claims_since: 0,
            });
            if self
                .keep_hole
                .is_some_and(|keep| window.encloses(keep.window))
            {
                self.draw_hole(state);
            }
        }
        state.regions = regions;
        result
    }

    /// Forgets what others hold in `window`, which will hardly be used again.
    pub(crate) fn forget_survey(&self, window: AddrRange) {
        let mut state = self.state.lock();
        state.surveyed.retain(|old| !old.window.overlaps(window));
        state.space.forget_others(window);
    }

    /// Forgets a whole claim that this process no longer has: a child does not get write views.
    pub(crate) fn disown(&self, range: AddrRange) {
        let mut state = self.state.lock();
        state.statistics.live_mappings -= 1;
        state.statistics.live_bytes -= range.len();
        state.space.remove(range.start());
    }

    /// Gives a whole claim back. What the system refuses to take is made
    /// inaccessible, emptied, kept out of use and tried again later.
    pub(crate) fn release(&self, range: AddrRange) {
        let mut state = self.state.lock();
        state.statistics.live_mappings -= 1;
        state.statistics.live_bytes -= range.len();
        // Before the call, which leaves the caches cold.
        let freed = state.space.remove(range.start());
        // SAFETY: release needs a claim to which nothing refers: the owner that `claim` gave it to
        // (a Mapping, a View, a block) gives it up, once, in its drop.
        if unsafe { self.platform.release(range) }.is_ok() {
            self.retry_stuck(&mut state, RETRIES);
            return;
        }
        if let Some((range, owner)) = freed {
            state.space.insert(range, owner);
        }
        // Best effort: the range stays ours and unused whatever these say.
        // SAFETY: discard needs a claim whose bytes nobody wants: the refused release left it ours.
        let _ = unsafe { self.platform.discard(range) };
        // Takes no mapping more where the system has such guards.
        // SAFETY: guard needs a claim to which nothing refers: as above.
        let _ = unsafe { self.platform.guard(range) };
        state.statistics.stuck_bytes += range.len();
        state.stuck.push_back(range);
    }

    /// Gives the end of a whole claim back, from `end` on, if the system takes it; says whether it did.
    pub(crate) fn shrink(&self, range: AddrRange, end: u64) -> bool {
        let (Some(left), Some(surplus)) = (
            AddrRange::new(range.start(), end),
            AddrRange::new(end, range.end()),
        ) else {
            return false;
        };
        if !self.platform.config().capabilities.partial_release {
            return false;
        }
        let mut state = self.state.lock();
        // SAFETY: release needs a claim to which nothing refers: its owner gives up this part.
        if unsafe { self.platform.release(surplus) }.is_err() {
            return false;
        }
        state.space.resize(range, left);
        state.statistics.live_bytes -= surplus.len();
        true
    }

    /// Claims the `more` bytes behind a whole claim of private memory to read and write as well, if they
    /// are free and lie in `window`; says whether it did.
    pub(crate) fn extend(&self, range: AddrRange, more: u64, window: AddrRange) -> bool {
        let Some(new) = AddrRange::at(range.end(), more) else {
            return false;
        };
        let granularity = self.platform.config().granularity;
        if !window.encloses(new) || !is_aligned(new.start(), granularity) {
            return false;
        }
        let mut state = self.state.lock();
        if self.check_limit(&state, more).is_err() || !state.space.is_free(new) {
            return false;
        }
        state.statistics.attempts += 1;
        let source = Source::Private(Protection::ReadWrite);
        if claim_at(self, &mut state, new, window, source).is_err() {
            state.statistics.collisions += 1;
            return false;
        }
        let whole = AddrRange::new(range.start(), new.end()).expect("one behind the other");
        state.space.resize(range, whole);
        state.statistics.live_bytes += more;
        true
    }

    /// Tries again to give back what was refused before, `most` ranges in turn.
    fn retry_stuck(&self, state: &mut State, most: usize) {
        for _ in 0..most.min(state.stuck.len()) {
            let Some(range) = state.stuck.pop_front() else {
                return;
            };
            // SAFETY: release needs a claim to which nothing refers: its owner is gone, and a
            // range is back in `stuck` only if this is refused.
            if unsafe { self.platform.release(range) }.is_err() {
                state.stuck.push_back(range);
                continue;
            }
            state.space.remove(range.start());
            state.statistics.stuck_bytes -= range.len();
        }
    }

    /// Tries again to give back all that was refused before.
    pub(crate) fn give_back_stuck(&self) {
        self.retry_stuck(&mut self.state.lock(), usize::MAX);
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // Every mapping holds this alive, so only refused releases can be left.
        for range in std::mem::take(&mut self.state.lock().stuck) {
            // SAFETY: release needs a claim to which nothing refers: as in `retry_stuck`.
            let _ = unsafe { self.platform.release(range) };
        }
    }
}

impl Rooms {
    /// Takes the platform's rooms out of `regions` where there is another choice; gives those.
    fn replace(self, regions: &mut Vec<Region>) -> [Option<AddrRange>; 2] {
        let mut take = |holder| {
            let is_it = |region: &Region| region.holder == holder;
            let range = regions.iter().find(|region| is_it(region))?.range;
            regions.retain(|region| !is_it(region));
            Some(range)
        };
        let brk = self.brk.and_then(|room| {
            let start = take(Holder::Brk)?.start();
            AddrRange::at(start, room)
        });
        let stack = self.stack.and_then(|room| {
            let end = take(Holder::Stack)?.end();
            AddrRange::new(end.saturating_sub(room), end)
        });
        [brk, stack]
    }
}

/// The error for a claim that other addresses will not help; `None` for a collision.
pub(crate) fn hard_error(error: ClaimError) -> Option<AllocError> {
    match error {
        ClaimError::Exhausted(source) => Some(AllocError::Limit { source }),
        ClaimError::Refused(source) => Some(AllocError::Refused { source }),
        _ => None,
    }
}
