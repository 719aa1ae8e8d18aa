//! The few slots of a pool that are handed out next: a pick and a free touch nothing else of it.
//!
//! ```text
//!   slots   [ addr, mark, entry ] ...     the one on top is picked first; where picks are in order,
//!                                         freed ones are put on top
//! ```
//!
//! Invariant: their arenas count them as held, and their marks say free.

use super::arena::Mark;

/// Most of them. Half are put there or taken away at once, which frees and picks, as likely each,
/// ask for once in 256.
pub(super) const READY: usize = 32;

/// How many are made ready, or let go, at once, where freed slots are ready at once.
pub(super) const HALF: usize = READY / 2;

/// A slot that nobody uses and that is counted as held: its address, its mark, and what stands for it
/// in the pool's lists.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) addr: u64,
    pub(super) mark: Mark,
    pub(super) entry: u32,
}

#[derive(Debug)]
#[repr(C)]
pub(super) struct Ready {
    len: usize,
    slots: [Slot; READY],
}

impl Default for Ready {
    fn default() -> Self {
        Self {
            len: 0,
            slots: [Slot {
                addr: 0,
                mark: Mark::NONE,
                entry: 0,
            }; READY],
        }
    }
}

impl Ready {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a slot on top, if there is room.
    #[inline(always)]
    pub(super) fn push(&mut self, slot: Slot) -> Option<()> {
        *self.slots.get_mut(self.len)? = slot;
        self.len += 1;
        Some(())
    }

    /// Takes the slot on top.
    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<Slot> {
        let top = self.len.wrapping_sub(1);
        let slot = *self.slots.get(top)?;
        self.len = top;
        Some(slot)
    }

    /// Turns the order around.
    pub(super) fn reverse(&mut self) {
        self.slots[..self.len].reverse();
    }

    /// Takes the half at the bottom, what was there longest; gives what stands for them.
    pub(super) fn take_half(&mut self) -> impl Iterator<Item = u32> + use<> {
        let half = self.len.div_ceil(2);
        let taken = self.slots;
        self.slots.copy_within(half..self.len, 0);
        self.len -= half;
        taken.into_iter().take(half).map(|slot| slot.entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(number: u32) -> Slot {
        Slot {
            addr: u64::from(number) * 16,
            mark: Mark::NONE,
            entry: number,
        }
    }

    #[test]
    fn the_last_one_is_picked_and_the_first_ones_leave() {
        let mut ready = Ready::default();
        assert!(ready.pop().is_none() && ready.is_empty());
        assert_eq!(ready.take_half().count(), 0);
        let numbers = 0..u32::try_from(READY).expect("small");
        assert!(numbers.clone().all(|n| ready.push(slot(n)).is_some()));
        assert!(ready.push(slot(99)).is_none());
        let left: Vec<u32> = ready.take_half().collect();
        assert_eq!(left, (0..numbers.end / 2).collect::<Vec<_>>());
        ready.push(slot(99)).expect("room");
        ready.reverse();
        let mut rest = vec![99];
        rest.extend((numbers.end / 2..numbers.end).rev());
        while let Some(slot) = ready.pop() {
            assert_eq!(Some(slot.entry), rest.pop());
            assert_eq!(slot.addr, u64::from(slot.entry) * 16);
        }
        assert!(rest.is_empty() && ready.is_empty());
    }
}
