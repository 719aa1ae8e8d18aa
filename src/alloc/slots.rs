//! Slots of equal size in an arena: their sizes, and which of them are used.
//!
//! All bookkeeping is out of line: nothing here knows an address of memory
//! that it could touch, and no block's neighbour is a header.
//!
//! Invariants:
//! - a slot is used or free, and given back only while used (asserted: that is
//!   a double free);
//! - `free` is the number of clear bits below `count`.

use low2g_platform::{to_u64, to_usize};

/// Smallest slot, and the spacing of the small classes, in bytes.
const QUANTUM: u64 = 16;

/// Last class of the small spacing.
const LINEAR_END: u64 = 128;

/// Candidates below which a randomized pick first adds an arena: 8 bits.
const CANDIDATES: u64 = 256;

/// Slots of a new arena, so that it serves as many picks as it has candidates at first.
const SLOTS_PER_ARENA: u64 = 2 * CANDIDATES;

/// Smallest arena in bytes.
const ARENA: u64 = 256 << 10;

/// The slot size for `size` bytes aligned to `align`, a power of two: every 16 bytes up to
/// 128, then four sizes between powers of two. At most a fifth of a slot is lost to size.
pub(crate) fn slot_size(size: u64, align: u64) -> u64 {
    let mut class = size.max(1).next_multiple_of(QUANTUM);
    loop {
        if class > LINEAR_END {
            let spacing = (class - 1).next_power_of_two() / 8;
            class = class.next_multiple_of(spacing);
        }
        if class.is_multiple_of(align) {
            return class;
        }
        class += QUANTUM;
    }
}

/// Number of slot sizes up to [`MAX_CLASS`].
pub(crate) const CLASSES: usize = 40;

/// Largest of the numbered slot sizes in bytes.
pub(crate) const MAX_CLASS: u64 = 32 << 10;

/// The number of the class that [`slot_size`] gives for `size` bytes at `align`; `None` if it is
/// larger than [`MAX_CLASS`].
#[inline]
pub(crate) fn class_of(size: u64, align: u64) -> Option<usize> {
    let slot = if align <= QUANTUM {
        size
    } else {
        slot_size(size, align)
    };
    if slot > MAX_CLASS {
        return None;
    }
    if slot <= LINEAR_END {
        return Some(to_usize(slot.max(1).div_ceil(QUANTUM)) - 1);
    }
    let magnitude = (slot - 1).ilog2();
    let quarter = ((slot - 1) >> (magnitude - 2)) & 3;
    Some(to_usize(u64::from(magnitude - LINEAR_END.ilog2()) * 4 + quarter) + 8)
}

/// The slot size of class `class`.
pub(crate) fn class_size(class: usize) -> u64 {
    let class = to_u64(class);
    if class < 8 {
        return (class + 1) * QUANTUM;
    }
    let (doubling, quarter) = ((class - 8) / 4, (class - 8) % 4);
    (LINEAR_END << doubling) / 4 * (5 + quarter)
}

/// How a slot is chosen.
pub(crate) enum Pick<'a> {
    /// Uniformly; gives a random number below its argument.
    Random(&'a dyn Fn(u64) -> u64),
    /// The lowest.
    Lowest,
}

impl Pick<'_> {
    /// Bytes of an arena for slots of `slot` bytes.
    pub(crate) fn arena_bytes(&self, slot: u64, page: u64) -> u64 {
        let slots = match self {
            Self::Random(_) => SLOTS_PER_ARENA,
            Self::Lowest => 8,
        };
        (slots * slot).max(ARENA).next_multiple_of(page)
    }

    /// Whether an arena should be added before picking among `free` slots.
    pub(crate) fn wants_arena(&self, free: u64) -> bool {
        match self {
            Self::Random(_) => free < CANDIDATES,
            Self::Lowest => free == 0,
        }
    }
}

/// Which slots of one arena are used.
#[derive(Debug)]
pub(crate) struct Slots {
    used: Vec<u64>,
    count: usize,
    free: usize,
    /// No word below this one has a free slot.
    lowest: usize,
}

const WORD: usize = 64;

impl Slots {
    /// `count` free slots.
    pub(crate) fn new(count: u64) -> Self {
        let count = to_usize(count);
        let words = count.div_ceil(WORD);
        let mut used = vec![0; words];
        // Bits past the end count as used, so that no pick must look at the count.
        if !count.is_multiple_of(WORD) {
            used[words - 1] = u64::MAX << (count % WORD);
        }
        Self {
            used,
            count,
            free: count,
            lowest: 0,
        }
    }

    pub(crate) fn count(&self) -> u64 {
        to_u64(self.count)
    }

    pub(crate) fn free(&self) -> u64 {
        to_u64(self.free)
    }

    /// Whether no slot is used.
    pub(crate) fn is_empty(&self) -> bool {
        self.free == self.count
    }

    /// The `index`-th free slot, ascending.
    fn nth_free(&self, mut index: u64) -> Option<usize> {
        for (position, word) in self.used.iter().enumerate().skip(self.lowest) {
            let free = u64::from(word.count_zeros());
            if index >= free {
                index -= free;
                continue;
            }
            let mut rest = !word;
            for _ in 0..index {
                rest &= rest - 1;
            }
            return Some(position * WORD + to_usize(u64::from(rest.trailing_zeros())));
        }
        None
    }

    /// Takes the `index`-th free slot; says which it is.
    pub(crate) fn take(&mut self, index: u64) -> Option<u64> {
        let slot = self.nth_free(index)?;
        let (word, bit) = (slot / WORD, 1 << (slot % WORD));
        self.used[word] |= bit;
        self.free -= 1;
        while self
            .used
            .get(self.lowest)
            .is_some_and(|word| *word == u64::MAX)
        {
            self.lowest += 1;
        }
        Some(to_u64(slot))
    }

    /// Frees a used slot.
    pub(crate) fn give(&mut self, slot: u64) {
        let slot = to_usize(slot);
        let (word, bit) = (slot / WORD, 1 << (slot % WORD));
        assert!(
            slot < self.count && self.used[word] & bit != 0,
            "slot {slot} of {} is freed twice",
            self.count
        );
        self.used[word] &= !bit;
        self.free += 1;
        self.lowest = self.lowest.min(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_slot_sizes() {
        for align in [1, 2, 16, 32, 64, 256, 4096] {
            for size in 1..=MAX_CLASS + 2 {
                let slot = slot_size(size, align);
                let class = class_of(size, align);
                assert_eq!(class.is_some(), slot <= MAX_CLASS, "{size} {align}");
                if let Some(class) = class {
                    assert_eq!(class_size(class), slot, "{size} {align}");
                    assert!(class < CLASSES);
                }
            }
        }
        assert_eq!(class_of(0, 1), Some(0));
    }
}
