//! What is taken of the address space: by us, as we know; by others, as the last survey saw.
//!
//! ```text
//!   window  |-------------------------------------------------|
//!   taken      [ours][others]      [room for brk]     [ours]
//!   gaps    |--|            |------|             |----|      |-|
//! ```
//!
//! Invariants:
//! - the taken ranges do not overlap and none is empty;
//! - what is ours is never forgotten by a survey, only by its removal;
//! - every cached slot count equals a recount over the gaps.
//!
//! Look-up takes O(log n), insertion and removal that and a move within a leaf of the map (now and
//! then of one word a leaf); the number of possible starts
//! for the shapes asked for last is kept up to date along with them, so that a
//! draw knows its odds without walking the gaps.

use std::cell::Cell;

use low2g_platform::{AddrRange, align_up};

use crate::alloc::sorted::{Place, Sorted};

/// What a range of ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A section of a loaded object.
    Section,
    /// A block of data with a mapping of its own.
    Block,
    /// Address space to be filled later.
    Reservation,
    /// Many small blocks of data.
    Arena,
    /// Many small functions: the view that executes.
    CodeArena,
    /// The view through which code is written.
    WriteView,
}

impl Kind {
    /// All kinds, in the order of [`Statistics::kinds`](crate::alloc::Statistics).
    pub const ALL: [Self; 6] = [
        Self::Section,
        Self::Block,
        Self::Reservation,
        Self::Arena,
        Self::CodeArena,
        Self::WriteView,
    ];
}

/// A range of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) kind: Kind,
    pub(crate) label: Box<str>,
}

/// Who holds a taken range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Ours(Owned),
    /// Somebody else, when last surveyed.
    Others,
    /// Nobody, but brk or a stack is to grow there.
    Room,
    /// Nobody, but it is kept free for a large block.
    Hole,
}

#[derive(Debug)]
struct Taken {
    end: u64,
    owner: Owner,
}

/// Size, spacing of starts and bounds of what is to be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Bytes, not 0.
    pub(crate) size: u64,
    /// Bytes between possible starts, a power of two: the alignment or the system's granularity, whichever is larger.
    pub(crate) step: u64,
    /// Where every byte must lie.
    pub(crate) window: AddrRange,
}

impl Shape {
    /// First possible start in `gap`, if any.
    fn first_in(self, gap: AddrRange) -> Option<u64> {
        let first = align_up(gap.start(), self.step)?;
        let end = first.checked_add(self.size)?;
        (end <= gap.end()).then_some(first)
    }

    /// Number of possible starts in `gap`.
    pub(crate) fn starts_in(self, gap: AddrRange) -> u64 {
        self.starts_between(gap.start(), gap.end())
    }

    /// Possible starts in `gap` and the window that `range`, a part of `gap`, takes away.
    #[inline]
    fn starts_lost(self, gap: AddrRange, range: AddrRange) -> u64 {
        let low = gap.start().max(self.window.start());
        let high = gap.end().min(self.window.end());
        self.starts_between(low, high)
            - self.starts_between(low, high.min(range.start()))
            - self.starts_between(low.max(range.end()), high)
    }

    /// Number of possible starts of blocks that end at `high` at most, from `low` on, which may lie beyond.
    #[inline]
    fn starts_between(self, low: u64, high: u64) -> u64 {
        let (Some(first), Some(last)) = (align_up(low, self.step), high.checked_sub(self.size))
        else {
            return 0;
        };
        let steps = last.wrapping_sub(first) >> self.step.trailing_zeros();
        if first <= last { steps + 1 } else { 0 }
    }

    /// The `index`-th possible start in `gap`, which must have more than `index`.
    pub(crate) fn start_at(self, gap: AddrRange, index: u64) -> u64 {
        let first = self.first_in(gap).expect("the caller counted the starts");
        first + index * self.step
    }
}

/// A shape whose free starts are counted as the space changes.
#[derive(Debug)]
struct Counted {
    shape: Shape,
    starts: u64,
    /// No gap that begins below this address fits the shape.
    fits_from: u64,
}

/// Shapes counted at once; a link or a run of equal blocks uses few.
const COUNTED_SHAPES: usize = 8;

/// The map of what is taken.
#[derive(Debug, Default)]
pub(crate) struct Space {
    taken: Sorted<Taken>,
    counted: Vec<Counted>,
    /// Which counted shape is replaced next.
    oldest: usize,
    /// Which was asked for last.
    latest: usize,
    /// The last address that was looked up, until something changes: a claim asks whether its range
    /// is free, then enters it.
    looked_up: Cell<Option<LookUp>>,
}

/// Where an address lies among the taken ranges.
#[derive(Clone, Copy, Debug)]
struct LookUp {
    addr: u64,
    place: Place,
    /// Between the range that starts below the address and the one after.
    gap: AddrRange,
}

impl Space {
    /// Number of taken ranges.
    pub(crate) fn len(&self) -> usize {
        self.taken.len()
    }

    /// Whether nothing known is taken in `range`.
    pub(crate) fn is_free(&self, range: AddrRange) -> bool {
        self.look_up(range.start()).gap.encloses(range)
    }

    fn look_up(&self, addr: u64) -> LookUp {
        if let Some(known) = self.looked_up.get()
            && known.addr == addr
        {
            return known;
        }
        let place = self.taken.before(addr);
        let gap = self.gap_at(place);
        let found = LookUp { addr, place, gap };
        self.looked_up.set(Some(found));
        found
    }

    /// The taken ranges that overlap `range`, ascending.
    pub(crate) fn taken_in(&self, range: AddrRange) -> impl Iterator<Item = (AddrRange, &Owner)> {
        let place = self.taken.before(range.start());
        let reaches_in = move |(_, taken): &(u64, &Taken)| taken.end > range.start();
        let first = self.taken.previous(place).filter(reaches_in);
        let rest = self.taken.after(place);
        first
            .into_iter()
            .chain(rest.take_while(move |(start, _)| *start < range.end()))
            .map(|(start, taken)| (whole(start, taken.end), &taken.owner))
    }

    /// The stretches of `range` that nobody holds, ascending, none empty: the gaps, and what is kept
    /// free joins those around it.
    pub(crate) fn holes(&self, range: AddrRange) -> impl Iterator<Item = AddrRange> {
        let held = self
            .taken_in(range)
            .filter(|(_, owner)| !matches!(owner, Owner::Hole));
        between(range, held.map(|(taken, _)| taken))
    }

    /// The free gaps of `range`, ascending, none empty.
    pub(crate) fn gaps(&self, range: AddrRange) -> impl Iterator<Item = AddrRange> {
        between(range, self.taken_in(range).map(|(taken, _)| taken))
    }

    /// The gap at `place`.
    fn gap_at(&self, place: Place) -> AddrRange {
        let before = self.taken.previous(place);
        let after = self.taken.next(place);
        whole(
            before.map_or(0, |(_, taken)| taken.end),
            after.map_or(u64::MAX, |(start, _)| start),
        )
    }

    /// Marks `range`, which is free, as taken.
    pub(crate) fn insert(&mut self, range: AddrRange, owner: Owner) {
        let inserted = self.insert_if_free(range, owner);
        assert!(inserted.is_ok(), "{range} is not free to be taken");
    }

    /// Marks `range`, not empty, as taken; gives `owner` back if it is not free.
    pub(crate) fn insert_if_free(&mut self, range: AddrRange, owner: Owner) -> Result<(), Owner> {
        assert!(!range.is_empty(), "nothing can be taken at {range}");
        let LookUp { place, gap, .. } = self.look_up(range.start());
        if !gap.encloses(range) {
            return Err(owner);
        }
        self.looked_up.set(None);
        for counted in &mut self.counted {
            counted.starts -= counted.shape.starts_lost(gap, range);
        }
        let end = range.end();
        self.taken
            .insert(place, range.start(), Taken { end, owner });
        Ok(())
    }

    /// Frees the taken range that starts at `start`; gives back what it was.
    pub(crate) fn remove(&mut self, start: u64) -> Option<(AddrRange, Owner)> {
        self.looked_up.set(None);
        let (Taken { end, owner }, place) = self.taken.remove(start)?;
        let range = whole(start, end);
        let gap = self.gap_at(place);
        for counted in &mut self.counted {
            counted.starts += counted.shape.starts_lost(gap, range);
            counted.fits_from = counted.fits_from.min(gap.start());
        }
        Some((range, owner))
    }

    /// Has the taken range `from` be `to`, which is free but for that.
    pub(crate) fn resize(&mut self, from: AddrRange, to: AddrRange) {
        if let Some((_, owner)) = self.remove(from.start()) {
            self.insert(to, owner);
        }
    }

    /// Forgets that others hold anything of `range`; what is ours stays.
    pub(crate) fn forget_others(&mut self, range: AddrRange) {
        let others: Vec<u64> = self
            .taken_in(range)
            .filter(|(_, owner)| matches!(owner, Owner::Others | Owner::Room))
            .map(|(taken, _)| taken.start())
            .collect();
        for start in others {
            let (taken, owner) = self.remove(start).expect("it was just listed");
            // What stands out of `range` was not asked about.
            let before = AddrRange::new(taken.start(), range.start());
            let after = AddrRange::new(range.end(), taken.end());
            for rest in [before, after]
                .into_iter()
                .flatten()
                .filter(|rest| !rest.is_empty())
            {
                self.insert(rest, owner.clone());
            }
        }
    }

    /// Replaces what others hold in `window` by what a survey found there.
    pub(crate) fn replace_others(
        &mut self,
        window: AddrRange,
        found: impl Iterator<Item = (AddrRange, Owner)>,
    ) {
        // Recounting once is cheaper than following every change.
        self.counted.clear();
        self.forget_others(window);
        for (range, owner) in found {
            let Some(range) = range.intersection(window) else {
                continue;
            };
            let gaps: Vec<AddrRange> = self.gaps(range).collect();
            for gap in gaps {
                self.insert(gap, owner.clone());
            }
        }
    }

    /// Number of free starts of `shape`.
    pub(crate) fn free_starts(&mut self, shape: Shape) -> u64 {
        let index = self.count(shape);
        self.counted[index].starts
    }

    /// As `free_starts`, for a shape that is asked for too rarely to follow every change.
    pub(crate) fn recount(&self, shape: Shape) -> u64 {
        let gaps = self.gaps(shape.window);
        gaps.map(|gap| shape.starts_in(gap)).sum()
    }

    /// The lowest free start of `shape`.
    pub(crate) fn first_free(&mut self, shape: Shape) -> Option<u64> {
        let index = self.count(shape);
        let from = self.counted[index].fits_from.max(shape.window.start());
        let rest = AddrRange::new(from, shape.window.end())?;
        let first = self.gaps(rest).find_map(|gap| shape.first_in(gap));
        self.counted[index].fits_from = first.unwrap_or(shape.window.end());
        first
    }

    /// The `index`-th free start of `shape`, in ascending order.
    pub(crate) fn nth_free(&self, shape: Shape, mut index: u64) -> Option<u64> {
        for gap in self.gaps(shape.window) {
            let starts = shape.starts_in(gap);
            if index < starts {
                return Some(shape.start_at(gap, index));
            }
            index -= starts;
        }
        None
    }

    /// Where `shape` is counted, counting it now if it is not.
    fn count(&mut self, shape: Shape) -> usize {
        let is_it = |counted: &Counted| counted.shape == shape;
        if !self.counted.get(self.latest).is_some_and(is_it) {
            let known = self.counted.iter().position(is_it);
            self.latest = known.unwrap_or_else(|| self.count_anew(shape));
        }
        self.latest
    }

    fn count_anew(&mut self, shape: Shape) -> usize {
        let counted = Counted {
            shape,
            starts: self.recount(shape),
            fits_from: 0,
        };
        if self.counted.len() < COUNTED_SHAPES {
            self.counted.push(counted);
            return self.counted.len() - 1;
        }
        self.oldest = (self.oldest + 1) % COUNTED_SHAPES;
        self.counted[self.oldest] = counted;
        self.oldest
    }
}

/// What of `range` lies between those of `taken`, which ascend; none empty.
fn between(
    range: AddrRange,
    taken: impl Iterator<Item = AddrRange>,
) -> impl Iterator<Item = AddrRange> {
    let bounds = taken.map(|taken| (taken.start(), taken.end()));
    let sentinel = std::iter::once((range.end(), range.end()));
    let mut cursor = range.start();
    bounds.chain(sentinel).filter_map(move |(start, end)| {
        let gap = AddrRange::new(cursor, start).filter(|gap| !gap.is_empty());
        cursor = cursor.max(end);
        gap
    })
}

/// A range whose ends are known to be in order.
fn whole(start: u64, end: u64) -> AddrRange {
    AddrRange::new(start, end).expect("taken ranges do not overlap")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::dice;

    const PAGE: u64 = 4096;

    fn page_range(start: u64, pages: u64) -> AddrRange {
        AddrRange::at(start * PAGE, pages * PAGE).expect("small numbers")
    }

    /// Every cached count and first fit equals a recount, whatever was done before.
    #[test]
    #[cfg_attr(miri, ignore = "arithmetic only, and much of it")]
    fn counts_follow_changes() {
        let shapes: Vec<Shape> = [
            (1, 1, 0, 600),
            (16, 1, 10, 500),
            (3, 4, 33, 401),
            (40, 32, 0, 600),
        ]
        .map(|(size, step, start, end)| Shape {
            size: size * PAGE,
            step: step * PAGE,
            window: page_range(start, end - start),
        })
        .into();
        let mut space = Space::default();
        let mut dice = dice(1);
        for _ in 0..3_000 {
            let range = page_range(dice(640), 1 + dice(12));
            if space.is_free(range) && dice(3) > 0 {
                space.insert(range, Owner::Others);
            } else if dice(40) == 0 {
                let found = [
                    (page_range(dice(300), 50), Owner::Others),
                    (page_range(400, 9), Owner::Room),
                ];
                space.replace_others(page_range(dice(200), 350), found.into_iter());
            } else if dice(10) == 0 {
                space.forget_others(range);
            } else {
                let first = space.taken_in(range).next().map(|(taken, _)| taken.start());
                first.and_then(|start| space.remove(start));
            }
            for shape in &shapes {
                let is_free =
                    |start: &u64| space.is_free(page_range(start / PAGE, shape.size / PAGE));
                let all = shape.starts_in(shape.window);
                let starts: Vec<u64> = (0..all)
                    .map(|index| shape.start_at(shape.window, index))
                    .filter(is_free)
                    .collect();
                let count = u64::try_from(starts.len()).expect("64-bit");
                assert_eq!(space.free_starts(*shape), count, "{shape:?}");
                assert_eq!(
                    space.first_free(*shape),
                    starts.first().copied(),
                    "{shape:?}"
                );
                assert_eq!(
                    space.nth_free(*shape, count / 2),
                    starts.get(starts.len() / 2).copied()
                );
                assert_eq!(space.nth_free(*shape, count), None);
            }
        }
    }
}
