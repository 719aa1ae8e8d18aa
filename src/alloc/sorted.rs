//! A map from addresses to values, in order, for which one search tells the neighbours too.
//!
//! ```text
//!   firsts   [ 0x10000          | 0x4f3000           | 0x7100000 ]
//!   leaves   [ key key key      | key key            | key key key key ]      at most LEAF each
//! ```
//!
//! A claim is one search before its system call and one after it, while the caches are cold from the
//! kernel: what a tree of small nodes costs then is its jumps.
//!
//! Invariants: no leaf is empty; keys ascend within a leaf and from one to the next; `firsts` has
//! the first key of each.

/// Most keys of a leaf: moving half of one is as cheap as finding it.
const LEAF: usize = 32;

/// A map in the order of its keys.
#[derive(Debug)]
pub(crate) struct Sorted<V> {
    firsts: Vec<u64>,
    leaves: Vec<Leaf<V>>,
    len: usize,
}

#[derive(Debug)]
struct Leaf<V> {
    keys: Vec<u64>,
    values: Vec<V>,
}

/// Between two entries: the one before is `leaves[leaf].keys[next - 1]`, if that exists.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    leaf: usize,
    next: usize,
}

impl<V> Default for Sorted<V> {
    fn default() -> Self {
        Self {
            firsts: Vec::new(),
            leaves: Vec::new(),
            len: 0,
        }
    }
}

impl<V> Sorted<V> {
    /// Entries.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Before the first entry whose key is at least `key`, after all others.
    #[inline]
    pub(crate) fn before(&self, key: u64) -> Place {
        // The leaf that has the last smaller key, or the first one.
        let leaf = self.firsts.partition_point(|first| *first < key);
        let leaf = leaf.saturating_sub(1);
        let keys = self.leaves.get(leaf).map_or(&[][..], |leaf| &leaf.keys);
        let next = keys.partition_point(|other| *other < key);
        Place { leaf, next }
    }

    /// The entry before `place`.
    #[inline]
    pub(crate) fn previous(&self, place: Place) -> Option<(u64, &V)> {
        let leaf = self.leaves.get(place.leaf)?;
        let at = place.next.checked_sub(1)?;
        Some((*leaf.keys.get(at)?, leaf.values.get(at)?))
    }

    /// The entry after `place`.
    #[inline]
    pub(crate) fn next(&self, place: Place) -> Option<(u64, &V)> {
        let leaf = self.leaves.get(place.leaf)?;
        if let (Some(key), Some(value)) = (leaf.keys.get(place.next), leaf.values.get(place.next)) {
            return Some((*key, value));
        }
        let leaf = self.leaves.get(place.leaf + 1)?;
        Some((*leaf.keys.first()?, leaf.values.first()?))
    }

    /// The entries after `place`, ascending.
    pub(crate) fn after(&self, place: Place) -> impl Iterator<Item = (u64, &V)> {
        let leaves = self.leaves.get(place.leaf..).unwrap_or_default();
        let mut from = place.next;
        leaves.iter().flat_map(move |leaf| {
            let from = std::mem::take(&mut from);
            leaf.keys[from..].iter().copied().zip(&leaf.values[from..])
        })
    }

    /// Enters `key`, which belongs at `place` and is not there.
    pub(crate) fn insert(&mut self, place: Place, key: u64, value: V) {
        let Place { mut leaf, mut next } = place;
        self.len += 1;
        if self.leaves.is_empty() {
            self.firsts.push(key);
            self.leaves.push(Leaf::new());
        } else if self.leaves[leaf].keys.len() == LEAF {
            let upper = self.leaves[leaf].split();
            let kept = self.leaves[leaf].keys.len();
            self.firsts.insert(leaf + 1, upper.keys[0]);
            self.leaves.insert(leaf + 1, upper);
            if next > kept {
                (leaf, next) = (leaf + 1, next - kept);
            }
        }
        let keys = &mut self.leaves[leaf];
        keys.keys.insert(next, key);
        keys.values.insert(next, value);
        if next == 0 {
            self.firsts[leaf] = key;
        }
    }

    /// Takes out `key`; gives its value, and the place where it was.
    pub(crate) fn remove(&mut self, key: u64) -> Option<(V, Place)> {
        let mut place = self.before(key);
        if self.leaves.get(place.leaf)?.keys.len() == place.next {
            place = Place {
                leaf: place.leaf + 1,
                next: 0,
            };
        }
        let Place { leaf, next } = place;
        let keys = self.leaves.get_mut(leaf)?;
        if keys.keys.get(next) != Some(&key) {
            return None;
        }
        keys.keys.remove(next);
        let value = keys.values.remove(next);
        self.len -= 1;
        if next > 0 {
            return Some((value, place));
        }
        match keys.keys.first() {
            Some(first) => self.firsts[leaf] = *first,
            None => {
                self.firsts.remove(leaf);
                self.leaves.remove(leaf);
            }
        }
        Some((value, self.before(key)))
    }
}

impl<V> Leaf<V> {
    fn new() -> Self {
        Self {
            keys: Vec::with_capacity(LEAF),
            values: Vec::with_capacity(LEAF),
        }
    }

    /// Moves the upper half into a leaf of its own.
    fn split(&mut self) -> Self {
        let mut upper = Self::new();
        upper.keys.extend(self.keys.drain(LEAF / 2..));
        upper.values.extend(self.values.drain(LEAF / 2..));
        upper
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::dice::{dice, rounds};

    fn check(sorted: &Sorted<u64>, oracle: &BTreeMap<u64, u64>) {
        let all: Vec<(u64, u64)> = sorted
            .after(sorted.before(0))
            .map(|(key, value)| (key, *value))
            .collect();
        assert!(
            all.iter()
                .copied()
                .eq(oracle.iter().map(|(key, value)| (*key, *value)))
        );
        assert_eq!(sorted.len(), oracle.len());
        assert_eq!(sorted.firsts.len(), sorted.leaves.len());
        for (first, leaf) in sorted.firsts.iter().zip(&sorted.leaves) {
            assert_eq!(Some(first), leaf.keys.first());
            assert!(leaf.keys.len() <= LEAF && leaf.keys.len() == leaf.values.len());
        }
    }

    #[test]
    fn does_what_a_tree_does() {
        let mut sorted = Sorted::default();
        let mut oracle = BTreeMap::new();
        let mut dice = dice(3);
        let period = rounds(20_000);
        for step in 0..3 * period {
            // It grows to some thousand entries, and shrinks to none.
            let grows = step % period < period / 2;
            let key = dice(period * 2 / 5);
            let place = sorted.before(key);
            let previous = oracle.range(..key).next_back();
            let next = oracle.range(key..).next();
            assert_eq!(
                sorted.previous(place),
                previous.map(|(key, value)| (*key, value))
            );
            assert_eq!(sorted.next(place), next.map(|(key, value)| (*key, value)));
            if grows && !oracle.contains_key(&key) {
                sorted.insert(place, key, step);
                oracle.insert(key, step);
            } else {
                let removed = sorted.remove(key);
                assert_eq!(removed.map(|(value, _)| value), oracle.remove(&key));
                if let Some((_, place)) = removed {
                    let next = oracle.range(key..).next().map(|(key, value)| (*key, value));
                    assert_eq!(sorted.next(place), next);
                }
            }
            if step % 512 == 0 {
                check(&sorted, &oracle);
            }
        }
        check(&sorted, &oracle);
        for key in 0..period * 2 / 5 {
            let removed = sorted.remove(key).map(|(value, _)| value);
            assert_eq!(removed, oracle.remove(&key));
        }
        check(&sorted, &oracle);
    }
}
