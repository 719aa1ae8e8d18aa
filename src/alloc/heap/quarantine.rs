//! A quarantine: what was freed waits in a random place, then in a queue, before it is used again.
//!
//! Half of the room is an array in which a newcomer takes a random place; who stood there joins
//! the queue, the other half, in order of arrival. So nothing comes back before half as many
//! others were freed, and nobody can say exactly when.
//!
//! Invariant: what went in comes out once.

use std::collections::VecDeque;

use low2g_platform::to_usize;

#[derive(Debug)]
pub(crate) struct Quarantine<T = u32> {
    places: Vec<T>,
    queue: VecDeque<T>,
    half: usize,
}

impl<T> Quarantine<T> {
    /// Room for `len` in all, at least two.
    pub(crate) fn new(len: usize) -> Self {
        Self {
            places: Vec::new(),
            queue: VecDeque::new(),
            half: (len / 2).max(1),
        }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.places.len() + self.queue.len()
    }

    /// Has room for `len` at once, or for all that it takes, so that `push` allocates nothing.
    pub(crate) fn make_room(&mut self, len: usize) {
        let places = self.half.min(len);
        self.places
            .reserve(places.saturating_sub(self.places.len()));
        // One comes before another goes.
        let queue = (self.half + 1).min(len);
        self.queue.reserve(queue.saturating_sub(self.queue.len()));
    }

    /// Takes `item` in; gives the one whose time is over. `below` draws a number below its argument.
    pub(crate) fn push(&mut self, item: T, below: impl FnOnce(u32) -> u32) -> Option<T> {
        if self.places.len() < self.half {
            self.places.push(item);
            return None;
        }
        let bound = u32::try_from(self.half).unwrap_or(u32::MAX);
        let place = to_usize(below(bound).into());
        let out = std::mem::replace(&mut self.places[place], item);
        self.queue.push_back(out);
        if self.queue.len() <= self.half {
            return None;
        }
        self.queue.pop_front()
    }

    /// Lets the one that waits longest in the queue (or any other) out early.
    pub(crate) fn pop(&mut self) -> Option<T> {
        self.queue.pop_front().or_else(|| self.places.pop())
    }

    /// Drops all but those of which `keep` says so.
    pub(crate) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.places.retain(&keep);
        self.queue.retain(&keep);
    }

    /// Lets all out.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        std::iter::from_fn(|| self.pop()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_come_out_once_and_none_early() {
        let mut quarantine = Quarantine::new(32);
        let mut number = 1_u32;
        let mut out = Vec::new();
        for item in 0..1_000_u32 {
            let came = quarantine.push(item, |bound| {
                number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (number >> 16) % bound
            });
            if let Some(came) = came {
                assert!(item - came >= 16, "{came} after {item}");
                out.push(came);
            }
        }
        assert_ne!(out, (0..1_000).take(out.len()).collect::<Vec<_>>());
        assert_eq!(out.len(), 1_000 - 32);
        out.extend(quarantine.drain());
        out.sort_unstable();
        assert_eq!(out, (0..1_000).collect::<Vec<_>>());
    }
}
