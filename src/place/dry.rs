//! Addresses of a dry run: numbers that nobody maps.

use std::collections::BTreeMap;

use low2g_platform::{AddrRange, align_up};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;

use crate::alloc::{Certificate, Step};

use super::error::PlaceError;

/// Draws before looking for a hole instead.
const DRAWS: usize = 32;

/// What a dry run has taken, and the draws to come.
#[derive(Debug)]
pub(super) struct DrySpace {
    /// Taken ranges, start to end.
    taken: BTreeMap<u64, u64>,
    rng: ChaCha12Rng,
}

impl DrySpace {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            taken: BTreeMap::new(),
            rng: ChaCha12Rng::seed_from_u64(seed),
        }
    }

    /// A number below `n`.
    pub(super) fn random_below(&mut self, n: u64) -> u64 {
        self.rng.random_range(0..n)
    }

    pub(super) fn release(&mut self, range: AddrRange) {
        self.taken.remove(&range.start());
    }

    pub(super) fn take_exactly(
        &mut self,
        index: usize,
        range: AddrRange,
    ) -> Result<AddrRange, PlaceError> {
        if let Some(other) = self.overlap(range) {
            return Err(PlaceError::Overlap {
                index,
                range,
                other,
            });
        }
        self.taken.insert(range.start(), range.end());
        Ok(range)
    }

    fn overlap(&self, range: AddrRange) -> Option<AddrRange> {
        let (&start, &end) = self.taken.range(..range.end()).next_back()?;
        AddrRange::new(start, end).filter(|other| other.overlaps(range))
    }

    /// A draw: uniform over the aligned addresses of the window, then the first hole.
    pub(super) fn draw(
        &mut self,
        index: usize,
        size: u64,
        align: u64,
        window: AddrRange,
    ) -> Result<(AddrRange, Certificate), PlaceError> {
        let first = align_up(window.start(), align).unwrap_or(u64::MAX);
        let room = window.end().saturating_sub(first);
        let slots = if room < size {
            0
        } else {
            (room - size) / align + 1
        };
        for _ in 0..DRAWS {
            if slots == 0 {
                break;
            }
            let start = first + self.random_below(slots) * align;
            if let Some(range) = AddrRange::at(start, size)
                && self.overlap(range).is_none()
            {
                self.taken.insert(range.start(), range.end());
                return Ok((range, dry_certificate(Step::Draw, slots)));
            }
        }
        let (mut start, mut largest) = (first, 0);
        let ends: Vec<(u64, u64)> = self
            .taken
            .range(..window.end())
            .map(|(&s, &e)| (s, e))
            .collect();
        for (taken_start, taken_end) in ends.into_iter().chain([(window.end(), u64::MAX)]) {
            let free = taken_start.min(window.end()).saturating_sub(start);
            largest = largest.max(free);
            if free >= size
                && let Some(range) = AddrRange::at(start, size)
            {
                self.taken.insert(range.start(), range.end());
                return Ok((range, dry_certificate(Step::FirstFit, slots)));
            }
            start = start.max(align_up(taken_end, align).unwrap_or(u64::MAX));
        }
        Err(PlaceError::WindowFull {
            index,
            size,
            align,
            window,
            largest,
        })
    }
}

pub(super) fn fixed_certificate() -> Certificate {
    dry_certificate(Step::Fixed, 1)
}

/// A dry run's addresses come from its seed: they carry no entropy.
fn dry_certificate(step: Step, free_slots: u64) -> Certificate {
    Certificate {
        entropy_bits: 0.0,
        conditional_bits: 0.0,
        step,
        free_slots,
        free_slots_exact: true,
        seeded: true,
    }
}
