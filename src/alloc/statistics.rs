//! [`Statistics`]: counters cheap enough to be always on.

use crate::alloc::certificate::Step;

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
}

impl Statistics {
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
