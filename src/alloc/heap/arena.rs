//! An arena of equal slots as the fast paths see it: where it lies and which slots are used.
//!
//! An [`Arena`] value outlives the memory it stands for: its pool uses it again for another arena,
//! and it goes with the heap. So whoever got it from the page index can look at it, whatever else
//! happens; what he finds counts once he holds the pool's lock.
//!
//! Invariants: everything but `pool` and `first` is written under the pool's lock only; a slot's
//! used mark is set from its pick to its free, and all are clear while the value stands for nothing.

use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use low2g_platform::{AddrRange, to_usize};

use crate::alloc::biased::BiasedLock;
use crate::alloc::error::Misuse;

use super::pool::{Pool, SLOT_BITS};

/// Equal slots.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Arena {
    base: AtomicU64,
    slot: u64,
    /// 2^40 / slot, rounded up: a division by it is a multiplication and a shift.
    inverse: u64,
    /// A bit a slot: whether it is used.
    used: Box<[AtomicU64]>,
    /// Slots in use or in quarantine.
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
        let used = (0..most.div_ceil(64)).map(|_| AtomicU64::new(0));
        Self {
            base: AtomicU64::new(0),
            slot,
            inverse: (1 << 40) / slot + 1,
            used: used.collect(),
            held: AtomicU32::new(0),
            count: AtomicU32::new(0),
            first,
            pool: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    /// Stands for the memory at `base`, of `count` slots, from here on.
    pub(super) fn open(&self, base: u64, count: u32) {
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
    pub(super) fn number(&self) -> u32 {
        self.first >> SLOT_BITS
    }

    #[inline(always)]
    pub(super) fn held(&self) -> u32 {
        self.held.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// Marks slot `slot`, of which there is one, as used; gives its address, and how many are held.
    #[inline(always)]
    pub(super) fn take(&self, slot: u32) -> Option<(u64, u32)> {
        let word = self.used.get(to_usize((slot / 64).into()))?;
        let used = word.load(Ordering::Relaxed);
        word.store(used | 1 << (slot % 64), Ordering::Relaxed);
        let held = self.held() + 1;
        self.held.store(held, Ordering::Relaxed);
        let addr = self.base.load(Ordering::Relaxed) + u64::from(slot) * self.slot;
        Some((addr, held))
    }

    /// The used slot at `addr`, and the word of marks that it has a bit in, without that; `None` if
    /// no used slot starts there.
    #[inline(always)]
    pub(super) fn find(&self, addr: u64) -> Option<(u32, &AtomicU64, u64)> {
        let offset = addr.wrapping_sub(self.base.load(Ordering::Relaxed));
        let slot = offset.wrapping_mul(self.inverse) >> 40;
        if slot * self.slot != offset {
            return None;
        }
        // Exact, so `addr` is where the slot of that number is, if there is one; below 2^24.
        let word = self.used.get(to_usize(slot / 64))?;
        let used = word.load(Ordering::Relaxed);
        let rest = used & !(1 << (slot % 64));
        #[allow(clippy::cast_possible_truncation, reason = "below 2^24")]
        let slot = slot as u32;
        (rest != used).then_some((slot, word, rest))
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
        let used = self.used[to_usize(slot / 64)].load(Ordering::Relaxed);
        let range = AddrRange::at(base + slot * self.slot, self.slot)?;
        Some((range, used & (1 << (slot % 64)) != 0))
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
                assert_eq!(arena.take(index), Some((addr, 1)));
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
                let (found, word, rest) = arena.find(addr).expect("used");
                assert_eq!(found, index);
                word.store(rest, Ordering::Relaxed);
                assert!(arena.find(addr).is_none());
                assert_eq!(arena.misuse(addr), Misuse::NotInUse { addr });
                assert_eq!(arena.let_go(), 0);
            }
            assert_eq!(arena.take(128), None);
        }
    }
}
