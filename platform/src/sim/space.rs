//! The address-space model: who holds what, and the kernel's two ways to search a hole.
//!
//! Invariant: mappings are keyed by their start and never overlap.

use crate::range::AddrRange;
use std::collections::BTreeMap;

/// Who made a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// There before, or made by somebody else in the process.
    Process,
    /// Made through the calls of the backend.
    Backend,
}

/// One mapping of the simulated process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimMapping {
    /// Where.
    pub range: AddrRange,
    /// Access bits as the personality's system numbers them.
    pub prot: i32,
    /// Who made it.
    pub owner: Owner,
    /// Name in the system's map; empty for anonymous memory.
    pub name: &'static str,
    /// The shared object behind it and the offset of its first byte; `None` for private memory.
    pub shared: Option<(u64, u64)>,
    /// Whether it may ever become writable.
    pub may_write: bool,
    /// The access it may ever have, where the personality's system keeps one.
    pub max_prot: i32,
    /// Whether a child gets it.
    pub inherited: bool,
    /// Whether it is final (`mseal`).
    pub sealed: bool,
}

impl SimMapping {
    /// Private anonymous memory.
    pub(super) const fn private(range: AddrRange, prot: i32, owner: Owner) -> Self {
        Self {
            range,
            prot,
            owner,
            name: "",
            shared: None,
            may_write: true,
            max_prot: !0,
            inherited: true,
            sealed: false,
        }
    }

    /// The part of it within `range`, which it encloses.
    fn part(&self, range: AddrRange) -> Self {
        let skipped = range.start() - self.range.start();
        let shared = self
            .shared
            .map(|(object, offset)| (object, offset + skipped));
        Self {
            range,
            shared,
            ..self.clone()
        }
    }

    /// Whether `next`, which follows directly, can be one mapping with it.
    fn joins(&self, next: &Self) -> bool {
        let this = self.part(self.range);
        let same = Self {
            range: this.range,
            shared: this.shared,
            ..next.clone()
        } == this;
        let continues = match (self.shared, next.shared) {
            (None, None) => true,
            (Some((a, from)), Some((b, to))) => a == b && from + self.range.len() == to,
            _ => false,
        };
        same && continues && self.range.end() == next.range.start()
    }
}

/// All mappings of a process.
#[derive(Debug, Default)]
pub(super) struct Space {
    mappings: BTreeMap<u64, SimMapping>,
}

impl Space {
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &SimMapping> {
        self.mappings.values()
    }

    pub(super) fn len(&self) -> usize {
        self.mappings.len()
    }

    /// The first mapping that ends above `addr`.
    pub(super) fn at_or_above(&self, addr: u64) -> Option<&SimMapping> {
        let below = self
            .mappings
            .range(..=addr)
            .next_back()
            .map(|(_, mapping)| mapping);
        below
            .filter(|mapping| mapping.range.contains(addr))
            .or_else(|| {
                self.mappings
                    .range(addr..)
                    .next()
                    .map(|(_, mapping)| mapping)
            })
    }

    pub(super) fn is_free(&self, range: AddrRange) -> bool {
        self.at_or_above(range.start())
            .is_none_or(|next| !next.range.overlaps(range))
    }

    /// The mappings that overlap `range`, ascending.
    pub(super) fn overlapping(&self, range: AddrRange) -> impl Iterator<Item = &SimMapping> {
        let first = self
            .at_or_above(range.start())
            .map_or(range.end(), |next| next.range.start());
        self.mappings
            .range(first..)
            .map(|(_, mapping)| mapping)
            .take_while(move |mapping| mapping.range.start() < range.end())
    }

    /// Whether every byte of `range` is mapped.
    pub(super) fn is_mapped(&self, range: AddrRange) -> bool {
        let parts = self
            .overlapping(range)
            .filter_map(|held| held.range.intersection(range));
        parts.map(AddrRange::len).sum::<u64>() == range.len()
    }

    /// Adds a mapping in free space and joins it with its neighbours, as kernels do.
    pub(super) fn insert(&mut self, mapping: SimMapping) {
        assert!(
            self.is_free(mapping.range),
            "{} would replace a mapping",
            mapping.range
        );
        let mut mapping = mapping;
        if let Some(next) = self
            .mappings
            .get(&mapping.range.end())
            .filter(|next| mapping.joins(next))
        {
            let next = next.range;
            self.mappings.remove(&next.start());
            mapping.range = join(mapping.range, next);
        }
        let before = self.mappings.range_mut(..mapping.range.start()).next_back();
        match before.filter(|(_, before)| before.joins(&mapping)) {
            Some((_, before)) => before.range = join(before.range, mapping.range),
            None => drop(self.mappings.insert(mapping.range.start(), mapping)),
        }
    }

    /// Takes `range` out, and gives what was in it back.
    pub(super) fn remove(&mut self, range: AddrRange) -> Vec<SimMapping> {
        let held: Vec<SimMapping> = self.overlapping(range).cloned().collect();
        let mut removed = Vec::new();
        for mapping in held {
            self.mappings.remove(&mapping.range.start());
            let left = AddrRange::new(mapping.range.start(), range.start());
            let right = AddrRange::new(range.end(), mapping.range.end());
            for rest in [left, right]
                .into_iter()
                .flatten()
                .filter(|rest| !rest.is_empty())
            {
                self.mappings.insert(rest.start(), mapping.part(rest));
            }
            removed.extend(
                mapping
                    .range
                    .intersection(range)
                    .map(|part| mapping.part(part)),
            );
        }
        removed
    }

    /// Changes the mapped parts of `range`.
    pub(super) fn update(&mut self, range: AddrRange, change: impl Fn(&mut SimMapping)) {
        for mut mapping in self.remove(range) {
            change(&mut mapping);
            self.insert(mapping);
        }
    }

    /// The holes of `within`, ascending.
    fn holes(&self, within: AddrRange) -> Vec<AddrRange> {
        let mut holes = Vec::new();
        let mut from = within.start();
        for held in self.overlapping(within) {
            holes.extend(AddrRange::new(from, held.range.start()));
            from = held.range.end();
        }
        holes.extend(AddrRange::new(from, within.end()));
        holes
    }

    /// The lowest start of `len` free bytes within `within`.
    pub(super) fn lowest_hole(&self, within: AddrRange, len: u64) -> Option<u64> {
        let holes = self.holes(within);
        holes
            .into_iter()
            .find(|hole| hole.len() >= len)
            .map(AddrRange::start)
    }

    /// The highest start of `len` free bytes within `within`.
    pub(super) fn highest_hole(&self, within: AddrRange, len: u64) -> Option<u64> {
        let holes = self.holes(within);
        holes
            .into_iter()
            .rev()
            .find(|hole| hole.len() >= len)
            .map(|hole| hole.end() - len)
    }
}

fn join(low: AddrRange, high: AddrRange) -> AddrRange {
    AddrRange::new(low.start(), high.end()).expect("the parts follow each other")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(first: u64, count: u64) -> AddrRange {
        AddrRange::at(first, count).expect("small")
    }

    proptest! {
        /// The model against the plainest one: an array of owners, one a byte.
        #[test]
        fn agrees_with_an_array(
            operations in prop::collection::vec((0_u8..3, 0_u64..60, 1_u64..9, 0_i32..3), 0..80),
        ) {
            let mut space = Space::default();
            let mut array: Vec<Option<i32>> = vec![None; 70];
            for (kind, first, count, prot) in operations {
                let at = range(first, count);
                let bytes = crate::range::to_usize(first)..crate::range::to_usize(first + count);
                let free = array[bytes.clone()].iter().all(Option::is_none);
                prop_assert_eq!(space.is_free(at), free);
                let mapped = array[bytes.clone()].iter().all(Option::is_some);
                prop_assert_eq!(space.is_mapped(at), mapped);
                match kind {
                    0 if free => {
                        space.insert(SimMapping::private(at, prot, Owner::Backend));
                        array[bytes].fill(Some(prot));
                    }
                    1 => {
                        space.remove(at);
                        array[bytes].fill(None);
                    }
                    _ => {
                        space.update(at, |held| held.prot = prot);
                        array[bytes].iter_mut().flatten().for_each(|held| *held = prot);
                    }
                }
                let mut seen: Vec<Option<i32>> = vec![None; 70];
                for held in space.iter() {
                    for byte in held.range.start()..held.range.end() {
                        seen[crate::range::to_usize(byte)] = Some(held.prot);
                    }
                }
                prop_assert_eq!(&seen, &array);
                let runs = array.chunk_by(|a, b| a == b).filter(|run| run[0].is_some());
                prop_assert_eq!(space.len(), runs.count(), "equal neighbours are one mapping");
            }
            let fits = |start: &u64| space.is_free(range(*start, 4));
            prop_assert_eq!(space.lowest_hole(range(0, 70), 4), (0..=66).find(fits));
            prop_assert_eq!(space.highest_hole(range(0, 70), 4), (0..=66).rev().find(fits));
        }
    }
}
