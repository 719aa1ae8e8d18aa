//! A tier: arenas of equal slots, and the pick among all their free ones.
//!
//! Invariants: an arena without a used slot leaves its tier; a certificate's
//! bits are those of the pick that was made.

use std::collections::BTreeMap;

use crate::alloc::certificate::{Certificate, Step, log2};
use crate::alloc::slots::{Pick, Slots};

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
            let index = arena.slots_mut().take(index)?;
            self.slot_bytes += class.slot;
            return Some(Picked {
                class,
                base: *base,
                index,
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
