//! An arena of equal slots as the fast paths see it: where it lies and which slots are used.
//!
//! An [`Arena`] value outlives the memory it stands for: its pool uses it again for another arena,
//! and it goes with the heap. So whoever got it from the page index can look at it, whatever else
//! happens; what he finds counts once he holds the pool's lock.
//!
//! Invariants: everything but `pool` and `first` is written under the pool's lock only; a slot's
//! mark says used from its pick to its free, and none does while the value stands for nothing.

use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};

use low2g_platform::{AddrRange, to_usize};

use crate::alloc::biased::BiasedLock;
use crate::alloc::error::Misuse;

use super::pool::{Pool, SLOT_BITS};

/// What a mark says of its slot: nobody ever used it, so that its bytes are as the system gave them;
/// it is used; it was.
const FRESH: u8 = 0;
const USED: u8 = 1;
const FORMER: u8 = 2;

/// The mark of a slot. It is written under the pool's lock, and kept nowhere but in the arena's pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark(*const AtomicU8);

// SAFETY: Send needs that another thread may have the pointer: what it points to is atomic, and stays
// for as long as the pool that it is kept in.
unsafe impl Send for Mark {}

impl Mark {
    /// Of no slot.
    pub(super) const NONE: Self = {
        static NO_SLOT: AtomicU8 = AtomicU8::new(FRESH);
        Self::of(&NO_SLOT)
    };

    const fn of(mark: &AtomicU8) -> Self {
        Self(std::ptr::from_ref(mark))
    }

    #[inline(always)]
    fn get(&self) -> &AtomicU8 {
        // SAFETY: a reference needs a valid value: it is a static one, or an arena's, whose pool keeps
        // it until the heap is dropped; and nothing outside the pool keeps this.
        unsafe { &*self.0 }
    }

    #[inline(always)]
    fn says(self) -> u8 {
        self.get().load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(super) fn is_used(self) -> bool {
        self.says() == USED
    }

    /// Whether the slot may hold bytes of a former block.
    pub(super) fn is_dirty(self) -> bool {
        self.says() != FRESH
    }

    /// The slot is used from here on.
    #[inline(always)]
    pub(super) fn set(self) {
        self.get().store(USED, Ordering::Relaxed);
    }

    /// The slot is not used any more.
    #[inline(always)]
    pub(super) fn clear(self) {
        self.get().store(FORMER, Ordering::Relaxed);
    }
}

/// Equal slots.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Arena {
    base: AtomicU64,
    slot: u64,
    /// 2^64 / slot, rounded up: a division by it is a multiplication.
    inverse: u64,
    /// Whether each slot is used.
    marks: Box<[AtomicU8]>,
    /// Slots that cannot be picked: used, ready or in quarantine.
    held: AtomicU32,
    /// 0 while it stands for nothing.
    count: AtomicU32,
    /// What its slots' numbers in the pool begin with.
    first: u32,
    /// Whose it is, set before anybody else sees this.
    pool: AtomicPtr<BiasedLock<Pool>>,
}

impl Arena {
    /// Room for `most` slots of `slot` bytes, numbered from `first` on; stands for nothing.
    pub(super) fn new(first: u32, slot: u64, most: u64) -> Self {
        let marks = (0..most).map(|_| AtomicU8::new(FRESH));
        Self {
            base: AtomicU64::new(0),
            slot,
            inverse: u64::MAX / slot + 1,
            marks: marks.collect(),
            held: AtomicU32::new(0),
            count: AtomicU32::new(0),
            first,
            pool: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    /// Stands for the memory at `base`, of `count` slots, from here on.
    pub(super) fn open(&self, base: u64, count: u32) {
        for mark in &self.marks {
            mark.store(FRESH, Ordering::Relaxed);
        }
        self.base.store(base, Ordering::Relaxed);
        self.count.store(count, Ordering::Relaxed);
    }

    /// Stands for nothing. No slot is held.
    pub(super) fn close(&self) {
        self.count.store(0, Ordering::Relaxed);
    }

    /// Says whose it is.
    pub(super) fn belong_to(&self, pool: &BiasedLock<Pool>) {
        let pool = std::ptr::from_ref(pool).cast_mut();
        self.pool.store(pool, Ordering::Relaxed);
    }

    /// Whose it is.
    #[inline(always)]
    pub(super) fn pool(&self) -> *mut BiasedLock<Pool> {
        self.pool.load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(super) fn first(&self) -> u32 {
        self.first
    }

    /// Which of the pool's arenas it is.
    pub(crate) fn number(&self) -> u32 {
        self.first >> SLOT_BITS
    }

    #[inline(always)]
    pub(super) fn held(&self) -> u32 {
        self.held.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// Counts slot `slot` as held; gives it, and how many were held before. `None` if there is no
    /// such slot.
    #[inline]
    pub(super) fn hold(&self, slot: u32) -> Option<(u64, Mark, u32)> {
        let mark = Mark::of(self.marks.get(to_usize(slot.into()))?);
        let held = self.held();
        self.held.store(held + 1, Ordering::Relaxed);
        let addr = self.base.load(Ordering::Relaxed) + u64::from(slot) * self.slot;
        Some((addr, mark, held))
    }

    /// The used slot at `addr`: its number and its mark; `None` if no used slot starts there.
    #[inline(always)]
    pub(super) fn find(&self, addr: u64) -> Option<(u32, Mark)> {
        let offset = addr.wrapping_sub(self.base.load(Ordering::Relaxed));
        let product = u128::from(offset) * u128::from(self.inverse);
        #[allow(clippy::cast_possible_truncation, reason = "the lower half is meant")]
        let (slot, rest) = ((product >> 64) as u64, product as u64);
        // Below 2^49 that is the quotient, and the lower half less than the inverse only if there is
        // no remainder (Lemire, Kaser and Kurz, "Faster remainder by direct computation", 2019). What
        // lies beyond has a quotient beyond all marks.
        if rest >= self.inverse {
            return None;
        }
        let mark = Mark::of(self.marks.get(to_usize(slot))?);
        #[allow(
            clippy::cast_possible_truncation,
            reason = "there is a mark of that number"
        )]
        let slot = slot as u32;
        mark.is_used().then_some((slot, mark))
    }

    /// Whether it stands for slots of which none is held.
    pub(super) fn is_empty(&self) -> bool {
        self.count() > 0 && self.held() == 0
    }

    /// What stands for the slot at `addr` in the pool's lists.
    pub(super) fn entry_of(&self, addr: u64) -> u32 {
        let slot = (addr - self.base.load(Ordering::Relaxed)) / self.slot;
        self.first | u32::try_from(slot).expect("a slot of this arena")
    }

    /// One slot is not held any more; gives how many are.
    #[inline(always)]
    pub(super) fn let_go(&self) -> u32 {
        let held = self.held() - 1;
        self.held.store(held, Ordering::Relaxed);
        held
    }

    /// The slot around `addr`, and whether it is used.
    pub(super) fn around(&self, addr: u64) -> Option<(AddrRange, bool)> {
        let base = self.base.load(Ordering::Relaxed);
        let slot = addr.checked_sub(base)? / self.slot;
        if slot >= self.count().into() {
            return None;
        }
        let mark = Mark::of(self.marks.get(to_usize(slot))?);
        let range = AddrRange::at(base + slot * self.slot, self.slot)?;
        Some((range, mark.is_used()))
    }

    /// What is wrong with a free of `addr` that `find` refused.
    #[cold]
    pub(super) fn misuse(&self, addr: u64) -> Misuse {
        match self.around(addr) {
            None => Misuse::NotOurs { addr },
            Some((range, _)) if range.start() != addr => Misuse::Inside {
                addr,
                start: range.start(),
            },
            Some(_) => Misuse::NotInUse { addr },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_used_slots_are_found() {
        for slot in [16, 48, 112, 640, 28 << 10] {
            let arena = Arena::new(0, slot, 100);
            let base = 0x1234_5000;
            arena.open(base, 100);
            for index in [0, 1, 63, 64, 99] {
                let addr = base + u64::from(index) * slot;
                let (at, mark, held) = arena.hold(index).expect("a slot");
                assert_eq!((at, held), (addr, 0));
                mark.set();
                for wrong in [
                    addr + 1,
                    addr - 1,
                    addr + slot,
                    addr.wrapping_sub(slot),
                    0,
                    u64::MAX,
                    addr + (1 << 32),
                    addr | (1 << 63),
                ] {
                    assert!(arena.find(wrong).is_none(), "{wrong:#x}");
                }
                let inside = Misuse::Inside {
                    addr: addr + 1,
                    start: addr,
                };
                assert_eq!(arena.misuse(addr + 1), inside);
                let (found, mark) = arena.find(addr).expect("used");
                assert_eq!(found, index);
                mark.clear();
                assert!(arena.find(addr).is_none());
                assert_eq!(arena.misuse(addr), Misuse::NotInUse { addr });
                assert_eq!(arena.let_go(), 0);
            }
            assert!(arena.hold(100).is_none());
        }
    }
}
