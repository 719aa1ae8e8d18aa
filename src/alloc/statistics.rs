//! [`Statistics`]: counters cheap enough to be always on.

use low2g_platform::AddrRange;

use crate::alloc::certificate::Step;
use crate::alloc::space::{Kind, Owner, Space};

/// What an allocator did so far, and what it holds. Bytes are whole pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Mappings held now, arenas and their views among them.
    pub live_mappings: u64,
    /// Bytes of those.
    pub live_bytes: u64,
    /// Bytes of arenas for small data blocks.
    pub data_arena_bytes: u64,
    /// Bytes of slots in use in those.
    pub data_slot_bytes: u64,
    /// Bytes of code arenas, one view counted.
    pub code_arena_bytes: u64,
    /// Bytes of slots in use in those.
    pub code_slot_bytes: u64,
    /// Batches of freed code slots for which all cores were serialized before they were used again.
    pub code_batches_serialized: u64,
    /// Those for which this system could not do that.
    pub code_batches_unserialized: u64,
    /// Claims that the system was asked for.
    pub attempts: u64,
    /// Claims that met something in the way.
    pub collisions: u64,
    /// Surveys made.
    pub surveys: u64,
    /// Mappings made by each step, in the order of [`Step::ALL`].
    pub steps: [u64; Step::ALL.len()],
    /// Bytes that the system refused to take back: inaccessible, tried again when others are
    /// released, at surveys and by `LowAllocator::trim`.
    pub stuck_bytes: u64,
    /// Mappings held now of each kind, and their bytes, in the order of [`Kind::ALL`].
    pub kinds: [KindCount; Kind::ALL.len()],
    /// Bytes of address space reserved to be filled later
    /// ([`LowAllocator::reserve`](crate::alloc::LowAllocator::reserve)).
    pub reserved_bytes: u64,
    /// Bytes of all other mappings: memory that may be used, guards included.
    pub committed_bytes: u64,
    /// Free bytes of the allocator's window, by the last survey and what was done since.
    pub free_bytes: u64,
    /// Largest free stretch of it.
    pub largest_hole: u64,
    /// Free stretches of it by size: number `n` counts those of 2^(n+12) to 2^(n+13) - 1 bytes.
    pub holes: [u64; HOLE_SIZES],
}

/// Sizes of holes told apart: those from 2^43 bytes on are one.
pub const HOLE_SIZES: usize = 32;

/// log2 of the smallest.
const SMALLEST_HOLE: u32 = 12;

/// How much there is of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindCount {
    /// Mappings.
    pub mappings: u64,
    /// Bytes of those.
    pub bytes: u64,
}

impl Statistics {
    /// Fills in what the map says.
    pub(crate) fn look_at(&mut self, space: &Space, window: AddrRange) {
        let everything = AddrRange::new(0, u64::MAX).expect("in order");
        for (range, owner) in space.taken_in(everything) {
            let Owner::Ours(owned) = owner else {
                continue;
            };
            if let Some(index) = Kind::ALL.iter().position(|known| *known == owned.kind) {
                self.kinds[index].mappings += 1;
                self.kinds[index].bytes += range.len();
            }
        }
        self.reserved_bytes = self.of_kind(Kind::Reservation).bytes;
        self.committed_bytes = self.live_bytes.saturating_sub(self.reserved_bytes);
        for gap in space.holes(window) {
            self.free_bytes += gap.len();
            self.largest_hole = self.largest_hole.max(gap.len());
            let size = gap.len().ilog2().saturating_sub(SMALLEST_HOLE);
            let size = low2g_platform::to_usize(size.into());
            self.holes[size.min(HOLE_SIZES - 1)] += 1;
        }
    }

    /// How much there is of `kind`.
    #[must_use]
    pub fn of_kind(&self, kind: Kind) -> KindCount {
        let index = Kind::ALL.iter().position(|known| *known == kind);
        index.map_or_else(KindCount::default, |index| self.kinds[index])
    }

    pub(crate) fn count_mapping(&mut self, bytes: u64, step: Step) {
        self.live_mappings += 1;
        self.live_bytes += bytes;
        if let Some(index) = Step::ALL.iter().position(|known| *known == step) {
            self.steps[index] += 1;
        }
    }

    /// Mappings that `step` made.
    #[must_use]
    pub fn made_by(&self, step: Step) -> u64 {
        Step::ALL
            .iter()
            .position(|known| *known == step)
            .map_or(0, |index| self.steps[index])
    }
}
