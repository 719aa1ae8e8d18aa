//! The few slots of a pool that are handed out next: a pick and a free touch nothing else of it.
//!
//! ```text
//!   addrs   [ addr, addr, addr, ... ]     the last one is picked first; where picks are in order,
//!   marks   [ mark, mark, mark, ... ]     freed ones are put behind it
//! ```
//!
//! Invariants: their arenas count them as held, and their marks say free; `most_freed` is at most
//! [`READY`].

use super::arena::Mark;

/// Most of them. Half are put there or taken away at once, which frees and picks, as likely each,
/// ask for once in 256.
pub(super) const READY: usize = 32;

/// How many are made ready, or let go, at once, where freed slots are ready at once.
pub(super) const HALF: usize = READY / 2;

/// A slot that nobody uses and that is counted as held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) addr: u64,
    pub(super) mark: Mark,
}

#[derive(Debug)]
#[repr(C)]
pub(super) struct Ready {
    len: usize,
    /// With how many, or more, a freed one is not added: all, or 0 where none ever is.
    most_freed: usize,
    addrs: [u64; READY],
    marks: [Mark; READY],
}

impl Ready {
    /// None yet. `takes_freed` says whether freed slots are ready at once.
    pub(super) fn new(takes_freed: bool) -> Self {
        Self {
            len: 0,
            most_freed: if takes_freed { READY } else { 0 },
            addrs: [0; READY],
            marks: [Mark::NONE; READY],
        }
    }

    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline(always)]
    pub(super) fn takes_freed(&self) -> bool {
        self.most_freed > 0
    }

    /// Whether a freed slot can be added now.
    #[inline(always)]
    pub(super) fn has_room_for_freed(&self) -> bool {
        self.len < self.most_freed
    }

    /// Puts a slot behind the others, if there is room.
    #[inline(always)]
    pub(super) fn push(&mut self, slot: Slot) -> Option<()> {
        *self.addrs.get_mut(self.len)? = slot.addr;
        self.marks[self.len] = slot.mark;
        self.len += 1;
        Some(())
    }

    /// As `push`, of a freed slot, when `has_room_for_freed` says so.
    #[inline(always)]
    pub(super) fn push_freed(&mut self, slot: Slot) -> Option<()> {
        if !self.has_room_for_freed() {
            return None;
        }
        // SAFETY: assert_unchecked needs that it holds: `most_freed` is at most READY.
        unsafe { std::hint::assert_unchecked(self.len < READY) };
        self.push(slot)
    }

    /// Takes the last slot.
    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<Slot> {
        let last = self.len.wrapping_sub(1);
        let addr = *self.addrs.get(last)?;
        let mark = self.marks[last];
        self.len = last;
        Some(Slot { addr, mark })
    }

    /// Turns the order around.
    pub(super) fn reverse(&mut self) {
        self.addrs[..self.len].reverse();
        self.marks[..self.len].reverse();
    }

    /// The addresses of all, the one that is picked last first.
    pub(super) fn addrs(&self) -> &[u64] {
        &self.addrs[..self.len]
    }

    /// Takes `count` of them away, those that would be picked last.
    pub(super) fn drop_first(&mut self, count: usize) {
        self.addrs.copy_within(count..self.len, 0);
        self.marks.copy_within(count..self.len, 0);
        self.len -= count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(addr: u64) -> Slot {
        Slot {
            addr,
            mark: Mark::NONE,
        }
    }

    #[test]
    fn the_last_one_is_picked_and_the_first_ones_leave() {
        let mut ready = Ready::new(true);
        assert!(ready.pop().is_none() && ready.is_empty());
        ready.drop_first(0);
        let all: Vec<u64> = (0..).take(READY).collect();
        assert!(all.iter().all(|n| ready.push_freed(slot(*n)).is_some()));
        assert!(!ready.has_room_for_freed());
        assert!(ready.push(slot(99)).is_none() && ready.push_freed(slot(99)).is_none());
        assert_eq!(ready.addrs(), all);
        ready.drop_first(HALF);
        assert_eq!(ready.addrs(), &all[HALF..]);
        ready.push(slot(99)).expect("room");
        ready.reverse();
        let mut left = vec![99];
        left.extend(all[HALF..].iter().rev());
        assert_eq!(ready.addrs(), left);
        while let Some(slot) = ready.pop() {
            assert_eq!(Some(slot.addr), left.pop());
        }
        assert!(left.is_empty() && ready.is_empty());
    }

    #[test]
    fn freed_ones_come_only_where_they_are_taken() {
        let mut ready = Ready::new(false);
        assert!(!ready.takes_freed() && ready.push_freed(slot(1)).is_none());
        assert!((0..).take(READY).all(|n| ready.push(slot(n)).is_some()));
        assert!(ready.push(slot(99)).is_none());
    }
}
