//! Slots of equal size in an arena, and the tier of arenas they are picked from.
//!
//! All bookkeeping is out of line: nothing here knows an address of memory
//! that it could touch, and no block's neighbour is a header.
//!
//! Invariants:
//! - a slot is used or free, and given back only while used (asserted: that is
//!   a double free);
//! - `free` is the number of clear bits below `count`;
//! - an arena without a used slot leaves its tier.

use std::collections::BTreeMap;

use low2g_platform::{to_u64, to_usize};

use crate::alloc::certificate::{Certificate, Step, log2};

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
    /// Slots that were used before.
    dirty: Vec<u64>,
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
            dirty: vec![0; words],
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

    /// Takes the `index`-th free slot; says which it is and whether it was used before.
    fn take(&mut self, index: u64) -> Option<(u64, bool)> {
        let slot = self.nth_free(index)?;
        let (word, bit) = (slot / WORD, 1 << (slot % WORD));
        self.used[word] |= bit;
        let dirty = self.dirty[word] & bit != 0;
        self.dirty[word] |= bit;
        self.free -= 1;
        while self
            .used
            .get(self.lowest)
            .is_some_and(|word| *word == u64::MAX)
        {
            self.lowest += 1;
        }
        Some((to_u64(slot), dirty))
    }

    /// Frees a used slot.
    fn give(&mut self, slot: u64) {
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

/// Something with slots at a base.
pub(crate) trait Arena {
    /// Address of the first slot.
    fn base(&self) -> u64;
    /// Bytes of address space that executes or holds data (one view).
    fn bytes(&self) -> u64;
    /// How the base was chosen.
    fn certificate(&self) -> Certificate;
    fn slots(&self) -> &Slots;
    fn slots_mut(&mut self) -> &mut Slots;
}

/// Slots that may stand for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Class {
    /// Bytes of a slot.
    pub(crate) slot: u64,
    /// Whether each slot is an arena to itself, with an alignment of its own.
    pub(crate) alone: bool,
}

/// A slot that was picked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Picked {
    pub(crate) class: Class,
    /// Base of its arena.
    pub(crate) base: u64,
    pub(crate) index: u64,
    /// Whether it may hold bytes of a former block.
    pub(crate) dirty: bool,
    pub(crate) certificate: Certificate,
}

impl Picked {
    /// Bytes from the arena's base to the slot.
    pub(crate) fn offset(&self) -> u64 {
        self.index * self.class.slot
    }
}

/// Arenas by slot size and base.
#[derive(Debug)]
pub(crate) struct Tier<A> {
    classes: BTreeMap<Class, BTreeMap<u64, A>>,
    pub(crate) arena_bytes: u64,
    pub(crate) slot_bytes: u64,
}

impl<A> Default for Tier<A> {
    fn default() -> Self {
        Self {
            classes: BTreeMap::new(),
            arena_bytes: 0,
            slot_bytes: 0,
        }
    }
}

impl<A: Arena> Tier<A> {
    /// Free slots of this size.
    pub(crate) fn free(&self, class: Class) -> u64 {
        let arenas = self.classes.get(&class);
        arenas.map_or(0, |arenas| {
            arenas.values().map(|arena| arena.slots().free()).sum()
        })
    }

    pub(crate) fn add(&mut self, class: Class, arena: A) {
        self.arena_bytes += arena.bytes();
        self.classes
            .entry(class)
            .or_default()
            .insert(arena.base(), arena);
    }

    /// The arena at `base`, which must be there.
    pub(crate) fn arena(&mut self, class: Class, base: u64) -> &mut A {
        self.classes
            .get_mut(&class)
            .and_then(|arenas| arenas.get_mut(&base))
            .expect("an arena stays while a slot of it is used")
    }

    /// Takes a slot of this size; `None` if none is free.
    pub(crate) fn take(
        &mut self,
        class: Class,
        granularity: u64,
        pick: &Pick<'_>,
    ) -> Option<Picked> {
        let free = self.free(class);
        if free == 0 {
            return None;
        }
        let certificate = self.certificate(class, granularity, free, pick);
        let mut index = match pick {
            Pick::Random(below) => below(free),
            Pick::Lowest => 0,
        };
        for (base, arena) in self.classes.get_mut(&class)? {
            let here = arena.slots().free();
            if index >= here {
                index -= here;
                continue;
            }
            let certificate = if arena.slots().count() == 1 {
                arena.certificate()
            } else {
                certificate
            };
            let (index, dirty) = arena.slots_mut().take(index)?;
            self.slot_bytes += class.slot;
            return Some(Picked {
                class,
                base: *base,
                index,
                dirty,
                certificate,
            });
        }
        None
    }

    /// Frees a slot; an arena that is empty now is taken out, for the caller to drop without the lock.
    pub(crate) fn give(&mut self, picked: &Picked) -> Option<A> {
        let arena = self.arena(picked.class, picked.base);
        arena.slots_mut().give(picked.index);
        let empty = arena.slots().is_empty();
        self.slot_bytes -= picked.class.slot;
        if !empty {
            return None;
        }
        let arenas = self.classes.get_mut(&picked.class)?;
        let arena = arenas.remove(&picked.base)?;
        if arenas.is_empty() {
            self.classes.remove(&picked.class);
        }
        self.arena_bytes -= arena.bytes();
        Some(arena)
    }

    /// The certificate of a uniform pick among `free` slots.
    ///
    /// Who knows nothing of ours sees each slot of an arena equally likely, used or free, so an
    /// address has the arena's own odds times those of one slot, summed over the bases that cover it.
    fn certificate(
        &self,
        class: Class,
        granularity: u64,
        free: u64,
        pick: &Pick<'_>,
    ) -> Certificate {
        let arenas = self.classes.get(&class);
        let mut seeded = false;
        let mut entropy_bits = f64::INFINITY;
        for arena in arenas.into_iter().flat_map(BTreeMap::values) {
            let base = arena.certificate();
            seeded |= base.seeded;
            let covering = arena.bytes().div_ceil(granularity);
            let bits = base.entropy_bits + log2(arena.slots().count()) - log2(covering);
            entropy_bits = entropy_bits.min(bits);
        }
        let random = matches!(pick, Pick::Random(_)) && !seeded;
        let conditional_bits = if random { log2(free) } else { 0.0 };
        Certificate {
            entropy_bits: if random {
                entropy_bits.max(conditional_bits)
            } else {
                0.0
            },
            conditional_bits,
            step: Step::Arena,
            free_slots: free,
            free_slots_exact: true,
            seeded,
        }
    }
}
