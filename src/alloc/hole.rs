//! The free stretch that smaller blocks avoid, so that a large one still fits.
//!
//! Uniform placement cuts address space up: after 64 blocks of 64 KiB the largest hole of 2 GiB is
//! 129 MiB, after 4,096 it is 3.5 MiB. So one free stretch, placed at random, is not drawn from.
//! It is drawn anew at each survey, among all stretches that are free then: no address is avoided
//! for long, and what was avoided is free by definition, so the next one is never lost.
//!
//! The cost is counted: starts in the stretch are not among a certificate's `free_slots`. That of
//! the default stretch stays below a tenth of a bit, because a block for which it would be more does
//! not avoid it; one that was asked for is avoided while there is any other place.
//!
//! Invariant: while `State::hole` is some range, exactly that range is in the map as [`Owner::Hole`].

use low2g_platform::AddrRange;

use crate::alloc::pages::{Pages, State};
use crate::alloc::space::{Owner, Shape};

/// Bytes of the stretch unless the builder was told otherwise.
pub(crate) const DEFAULT_HOLE: u64 = 32 << 20;

/// Possible starts elsewhere for each one in the default stretch, at least: log2(1 + 1/15) is 0.093.
pub(crate) const DEFAULT_ODDS: u64 = 15;

/// What is to be kept, and of which addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeepHole {
    pub(crate) bytes: u64,
    /// Possible starts elsewhere for each one in the stretch, below which a block does not avoid it.
    pub(crate) least_odds: u64,
    pub(crate) window: AddrRange,
}

impl Pages {
    /// Draws the stretch among all that are free, unless there is one or a claim needs all there is.
    pub(crate) fn draw_hole(&self, state: &mut State) {
        let absent = state.hole.is_none() && !state.hole_barred;
        let Some(keep) = self.keep_hole.filter(|_| absent) else {
            return;
        };
        let config = self.platform.config();
        let shape = Shape {
            size: keep.bytes.next_multiple_of(config.page_size),
            step: config.granularity,
            window: keep.window,
        };
        let starts = state.space.recount(shape);
        let index = state.random.below(starts);
        let start = state.space.nth_free(shape, index);
        if let Some(range) = start.and_then(|start| AddrRange::at(start, shape.size)) {
            state.space.insert(range, Owner::Hole);
            state.hole = Some(range);
        }
    }

    /// Before a survey of `window`: the stretch is drawn anew afterwards.
    pub(crate) fn forget_hole(&self, state: &mut State, window: AddrRange) {
        if self
            .keep_hole
            .is_some_and(|keep| keep.window.overlaps(window))
        {
            state.drop_hole();
        }
    }

    /// Whether a block of `shape` can avoid the stretch: it is smaller, and has enough other places.
    pub(crate) fn avoids_hole(&self, state: &mut State, shape: Shape) -> bool {
        let Some(hole) = state.hole.and_then(|hole| hole.intersection(shape.window)) else {
            return true;
        };
        let odds = self.keep_hole.map_or(0, |keep| keep.least_odds);
        let lost = shape.starts_in(hole).saturating_mul(odds);
        !self.outgrows_hole(shape.size) && state.space.free_starts(shape) >= lost.max(1)
    }

    /// Whether the stretch is kept for blocks of this size, among others.
    pub(crate) fn outgrows_hole(&self, size: u64) -> bool {
        self.keep_hole.is_some_and(|keep| size >= keep.bytes)
    }
}

impl State {
    /// Frees the stretch for everybody; says whether there was one.
    pub(crate) fn drop_hole(&mut self) -> bool {
        self.hole
            .take()
            .is_some_and(|hole| self.space.remove(hole.start()).is_some())
    }
}
