//! A pool: arenas of equal slots, which of them are used, and the free ones to pick from.
//!
//! ```text
//!   arenas   [ base, marks ] [ base, marks ] ...      numbered; a number is used again
//!   free     [ arena|slot, arena|slot, ... ]          picked at random, or the last one
//!   late     [ arena|slot, ... ]                      freed, not yet to be picked (quarantine)
//! ```
//!
//! All of it is out of line. Invariants:
//! - a slot's used mark is set from its pick to its free: a free that finds it clear is a second one;
//! - an arena's `held` counts its used slots and those in quarantine, `empty` the arenas where it
//!   is 0; such an arena goes at once, but one may stay until a trim, so that a lone block's life is
//!   no system call;
//! - with a random pick, every free slot of every arena is in `free` once; with the other, the
//!   slots from `fresh` on of the last arena are free too and in no list.

use low2g_platform::{AddrRange, Platform, to_usize};

use crate::alloc::certificate::{Certificate, Step, log2};
use crate::alloc::error::Misuse;
use crate::alloc::own::Own;
use crate::alloc::random::Random;

use super::quarantine::Quarantine;

/// Bits of an entry that say which slot of its arena is meant.
const SLOT_BITS: u32 = 14;

/// Arenas that a pool can number.
pub(super) const MOST_ARENAS: usize = 1 << 18;

/// Most slots of an arena.
pub(super) const MOST_SLOTS: u64 = 1 << SLOT_BITS;

/// Free slots below which a random pick first gets a new arena: 8 bits.
const CANDIDATES: usize = 256;

/// Slots of a new arena for random picks, so that it serves as many as it has candidates at first.
const SLOTS_PER_ARENA: u64 = 512;

/// Smallest arena in bytes.
const ARENA: u64 = 256 << 10;

/// One word of marks for 64 slots.
#[derive(Clone, Copy, Debug, Default)]
struct Marks {
    used: u64,
    /// May hold bytes of a former block.
    dirty: u64,
}

/// What a pick or a free touches of an arena: half a cache line.
#[derive(Debug, Default)]
struct Arena {
    base: u64,
    /// Slots; 0 for a number that is not in use.
    count: u32,
    held: u32,
    marks: Box<[Marks]>,
}

/// A slot that was picked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) addr: u64,
    /// Whether it may hold bytes of a former block.
    pub(crate) dirty: bool,
    /// Free slots it was picked from; 1 if it was not picked at random.
    pub(crate) candidates: u32,
    /// Bits of an address in the pool's weakest arena, for one who knows none of ours.
    pub(crate) arena_bits: f64,
    pub(crate) seeded: bool,
}

/// Slots of one size.
#[derive(Debug)]
pub(crate) struct Pool {
    slot: u64,
    /// 2^40 / slot, rounded up: a division by it is a multiplication and a shift.
    inverse: u64,
    arenas: Vec<Arena>,
    /// The memory of each.
    owned: Vec<Option<Own>>,
    vacant: Vec<u32>,
    empty: usize,
    free: Vec<u32>,
    /// First never used slot of the arena added last; for picks that are not random.
    fresh: u32,
    fresh_end: u32,
    random: Option<Random>,
    late: Option<Quarantine>,
    arena_bits: f64,
    seeded: bool,
    pub(super) arena_bytes: u64,
}

/// A slot that was taken, in as few words as the fast path needs.
#[derive(Clone, Copy)]
pub(super) struct Picked {
    pub(super) addr: u64,
    /// See [`Taken`].
    dirty: bool,
    candidates: u32,
}

impl Pool {
    /// No arenas yet. `random` picks at random; `late` freed slots wait before they are picked again.
    pub(super) fn new(slot: u64, random: Option<Random>, late: usize) -> Self {
        Self {
            slot,
            inverse: (1 << 40) / slot + 1,
            arenas: Vec::new(),
            owned: Vec::new(),
            vacant: Vec::new(),
            empty: 0,
            free: Vec::new(),
            fresh: 0,
            fresh_end: 0,
            random,
            late: (late > 0).then(|| Quarantine::new(late)),
            arena_bits: f64::INFINITY,
            seeded: false,
            arena_bytes: 0,
        }
    }

    pub(super) fn slot(&self) -> u64 {
        self.slot
    }

    /// Bytes of a new arena.
    pub(super) fn arena_size(&self, page: u64) -> u64 {
        let slots = if self.random.is_some() {
            SLOTS_PER_ARENA
        } else {
            8
        };
        let slots = (slots * self.slot).max(ARENA) / self.slot;
        (slots.min(MOST_SLOTS) * self.slot).next_multiple_of(page)
    }

    /// Whether an arena should be added before a pick.
    #[inline]
    pub(super) fn wants_arena(&self) -> bool {
        if self.random.is_some() {
            self.free.len() < CANDIDATES
        } else {
            self.is_full()
        }
    }

    /// Whether there is nothing to pick.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty() && self.fresh == self.fresh_end
    }

    /// Adds an arena; gives its number, which is below [`MOST_ARENAS`] if `is_numbered` said so.
    pub(super) fn add(&mut self, own: Own) -> u32 {
        let range = own.range();
        let count = u32::try_from((range.len() / self.slot).min(MOST_SLOTS)).expect("2^14");
        let certificate = own.certificate();
        self.arena_bits = self.arena_bits.min(bits_within(&own, count));
        self.seeded |= certificate.seeded;
        self.arena_bytes += range.len();
        let number = self.vacant.pop().unwrap_or_else(|| {
            self.arenas.push(Arena::default());
            self.owned.push(None);
            u32::try_from(self.arenas.len() - 1).expect("below 2^18")
        });
        self.owned[to_usize(number.into())] = Some(own);
        self.arenas[to_usize(number.into())] = Arena {
            base: range.start(),
            count,
            held: 0,
            marks: vec![Marks::default(); to_usize(count.div_ceil(64).into())].into(),
        };
        self.empty += 1;
        let first = number << SLOT_BITS;
        if self.random.is_some() {
            self.free.extend(first..first + count);
        } else {
            // What was left of the arena before stays to be picked.
            self.free.extend(self.fresh..self.fresh_end);
            (self.fresh, self.fresh_end) = (first, first + count);
        }
        number
    }

    /// Whether one more arena can be numbered.
    pub(super) fn is_numbered(&self) -> bool {
        !self.vacant.is_empty() || self.arenas.len() < MOST_ARENAS
    }

    /// Picks a slot; `None` if the pool is full.
    #[inline(always)]
    pub(super) fn pick(&mut self, platform: &dyn Platform) -> Option<Picked> {
        let (entry, candidates) = match &mut self.random {
            Some(random) => {
                let candidates = self.free.len();
                let index = random.index_below(candidates, platform)?;
                (self.free.swap_remove(index), candidates)
            }
            None => (self.next_in_order()?, 1),
        };
        let slot_bytes = self.slot;
        let (slot, arena) = self.arena_of(entry);
        let marks = &mut arena.marks[to_usize((slot / 64).into())];
        let bit = 1_u64 << (slot % 64);
        let dirty = marks.dirty & bit != 0;
        marks.used |= bit;
        marks.dirty |= bit;
        let addr = arena.base + u64::from(slot) * slot_bytes;
        arena.held += 1;
        self.empty -= usize::from(arena.held == 1);
        Some(Picked {
            addr,
            dirty,
            candidates: u32::try_from(candidates).unwrap_or(u32::MAX),
        })
    }

    /// The slot freed last, or the lowest that was never used.
    #[inline(always)]
    fn next_in_order(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let fresh = self.fresh;
            (fresh < self.fresh_end).then(|| {
                self.fresh = fresh + 1;
                fresh
            })
        })
    }

    /// As `pick`, with what a certificate needs.
    pub(super) fn take(&mut self, platform: &dyn Platform) -> Option<Taken> {
        let picked = self.pick(platform)?;
        Some(Taken {
            addr: picked.addr,
            dirty: picked.dirty,
            candidates: picked.candidates,
            arena_bits: self.arena_bits,
            seeded: self.seeded,
        })
    }

    /// Slots in use.
    pub(super) fn used_slots(&self) -> u64 {
        let held: u64 = self.arenas.iter().map(|arena| u64::from(arena.held)).sum();
        held - self
            .late
            .as_ref()
            .map_or(0, |late| low2g_platform::to_u64(late.len()))
    }

    /// The slot number of an entry, and its arena.
    #[inline(always)]
    fn arena_of(&mut self, entry: u32) -> (u32, &mut Arena) {
        let arena = &mut self.arenas[to_usize((entry >> SLOT_BITS).into())];
        (entry & ((1 << SLOT_BITS) - 1), arena)
    }

    /// The slot of arena `number` that starts at `addr`, if it is used.
    #[inline(always)]
    pub(super) fn find(&self, number: u32, addr: u64) -> Result<u32, Misuse> {
        let Some(arena) = self.arenas.get(to_usize(number.into())) else {
            return Err(Misuse::NotOurs { addr });
        };
        let offset = addr.wrapping_sub(arena.base);
        // The page index was read before the lock: all of the arena may have changed since.
        if offset >= u64::from(arena.count) * self.slot {
            return Err(Misuse::NotOurs { addr });
        }
        let slot = (offset * self.inverse) >> 40;
        if slot * self.slot != offset {
            let start = arena.base + slot * self.slot;
            return Err(Misuse::Inside { addr, start });
        }
        if arena.marks[to_usize(slot / 64)].used & (1 << (slot % 64)) == 0 {
            return Err(Misuse::NotInUse { addr });
        }
        Ok(u32::try_from(slot).expect("below 2^14"))
    }

    /// The slot around `addr`, and whether it is used.
    pub(super) fn around(&self, number: u32, addr: u64) -> Option<(AddrRange, bool)> {
        let arena = self.arenas.get(to_usize(number.into()))?;
        let slot = addr.checked_sub(arena.base)? / self.slot;
        if slot >= arena.count.into() {
            return None;
        }
        let used = arena.marks[to_usize(slot / 64)].used & (1 << (slot % 64)) != 0;
        let range = AddrRange::at(arena.base + slot * self.slot, self.slot)?;
        Some((range, used))
    }

    /// Frees the used slot `slot` of arena `number`; gives the number of one that
    /// has become empty: then `emptied` is to be called.
    #[inline(always)]
    pub(super) fn give(&mut self, number: u32, slot: u32) -> Option<u32> {
        let entry = number << SLOT_BITS | slot;
        let (_, arena) = self.arena_of(entry);
        arena.marks[to_usize((slot / 64).into())].used &= !(1 << (slot % 64));
        let Some(late) = &mut self.late else {
            return self.release(entry);
        };
        let random = self.random.as_mut();
        let out = late.push(entry, |bound| {
            random.map_or(0, |random| random.below_u32(bound))
        });
        out.and_then(|out| self.release(out))
    }

    /// Lets all slots out of quarantine; gives back the arenas that are empty then.
    pub(super) fn flush(&mut self) -> Vec<Own> {
        let waiting = self.late.as_mut().map(Quarantine::drain);
        for entry in waiting.into_iter().flatten() {
            self.release(entry);
        }
        self.remove_empty(|_| true)
    }

    /// Makes a slot one that can be picked; gives its arena's number if that is empty now.
    #[inline(always)]
    fn release(&mut self, entry: u32) -> Option<u32> {
        self.free.push(entry);
        let (_, arena) = self.arena_of(entry);
        arena.held -= 1;
        (arena.held == 0).then(|| {
            self.empty += 1;
            entry >> SLOT_BITS
        })
    }

    /// What goes when arena `number` has become empty: to be taken out of the index and dropped.
    #[cold]
    pub(super) fn emptied(&mut self, number: u32) -> Vec<Own> {
        let all = self.empty == self.arenas.len() - self.vacant.len();
        if self.empty == 1 {
            return Vec::new();
        }
        if all {
            // Also those that were added and never picked from.
            let kept = number;
            return self.remove_empty(|number| number != kept);
        }
        self.remove(number).into_iter().collect()
    }

    /// Takes out all arenas of which no slot is held and `goes` says so.
    fn remove_empty(&mut self, goes: impl Fn(u32) -> bool) -> Vec<Own> {
        let numbers = 0..u32::try_from(self.arenas.len()).expect("below 2^18");
        let is_empty = |arena: &Arena| arena.count > 0 && arena.held == 0;
        numbers
            .filter_map(|number| {
                let empty = is_empty(&self.arenas[to_usize(number.into())]);
                (empty && goes(number))
                    .then(|| self.remove(number))
                    .flatten()
            })
            .collect()
    }

    /// Takes out an arena of which no slot is held.
    #[cold]
    fn remove(&mut self, number: u32) -> Option<Own> {
        let own = self.owned[to_usize(number.into())].take()?;
        self.arenas[to_usize(number.into())] = Arena::default();
        self.free.retain(|entry| entry >> SLOT_BITS != number);
        if self.fresh >> SLOT_BITS == number {
            (self.fresh, self.fresh_end) = (0, 0);
        }
        self.vacant.push(number);
        self.empty -= 1;
        self.arena_bytes -= own.range().len();
        let rest = self.owned.iter().zip(&self.arenas);
        self.arena_bits = rest
            .filter_map(|(own, arena)| Some(bits_within(own.as_ref()?, arena.count)))
            .fold(f64::INFINITY, f64::min);
        Some(own)
    }
}

/// Bits of an address in an arena for one who knows nothing of ours: each slot is equally likely to
/// him, used or free, so an address has the arena's own odds times those of one slot, summed over the
/// bases that cover it.
fn bits_within(own: &Own, count: u32) -> f64 {
    let covering = own.range().len() / own.platform().config().granularity;
    own.certificate().entropy_bits + log2(count.into()) - log2(covering)
}

impl Taken {
    /// How the address was chosen.
    pub(crate) fn certificate(&self, random: bool) -> Certificate {
        let random = random && !self.seeded;
        let conditional_bits = if random {
            log2(self.candidates.into())
        } else {
            0.0
        };
        Certificate {
            entropy_bits: if random {
                self.arena_bits.max(conditional_bits)
            } else {
                0.0
            },
            conditional_bits,
            step: Step::Arena,
            free_slots: self.candidates.into(),
            free_slots_exact: true,
            seeded: self.seeded,
        }
    }
}
