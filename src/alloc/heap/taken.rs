//! A slot that was picked, and what is known of how.

use low2g_platform::AddrRange;

use crate::alloc::certificate::{Certificate, log2};
use crate::alloc::own::Own;

use super::index::GRANULE;

/// A slot that was picked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) addr: u64,
    /// Bytes set aside there.
    pub(crate) bytes: u64,
    /// Whether it may hold bytes of a former block.
    pub(crate) dirty: bool,
    /// Free slots it was picked from; 1 if it was not picked at random.
    pub(crate) candidates: u32,
    /// Bits of an address in the pool's weakest arena, for one who knows none of ours.
    pub(crate) arena_bits: f64,
    pub(crate) seeded: bool,
}

impl Taken {
    /// Of an address that was not chosen at random.
    pub(crate) fn in_order(range: AddrRange, dirty: bool, seeded: bool) -> Self {
        Self {
            addr: range.start(),
            bytes: range.len(),
            dirty,
            candidates: 1,
            arena_bits: 0.0,
            seeded,
        }
    }

    /// How the address was chosen.
    pub(crate) fn certificate(&self, random: bool) -> Certificate {
        let candidates = self.candidates.into();
        Certificate::of_slot(candidates, self.arena_bits, random, self.seeded)
    }
}

/// Bits of an address in an arena for one who knows nothing of ours: each slot is equally likely to
/// him, used or free, so an address has the arena's own odds times those of one slot, summed over the
/// bases that cover it.
pub(super) fn bits_within(own: &Own, count: u32) -> f64 {
    let step = own.platform().config().granularity.max(GRANULE);
    let covering = own.range().len().div_ceil(step);
    own.certificate().entropy_bits + log2(count.into()) - log2(covering)
}
