//! Room that a survey shows as held although nothing is mapped there yet: where
//! the brk heap and the main stack grow.
//!
//! Invariant: only free space is added, and only what growth can reach.

use super::abi;
use super::{LinuxPlatform, Syscalls};
use crate::contract::Region;
use crate::range::{AddrRange, align_down, align_up};
use crate::regions::{add_room_above, add_room_below};

/// Bytes the kernel keeps free below a stack that grows (`stack_guard_gap`, 256 pages of 4 KiB).
const STACK_GUARD_GAP: u64 = 1 << 20;

/// Room kept below a stack without a limit: what the kernel's own layout keeps (`MIN_GAP`, arch/x86/mm/mmap.c).
const UNLIMITED_STACK: u64 = 128 << 20;

impl<S: Syscalls> LinuxPlatform<S> {
    /// Adds the free room in which brk and the main stack grow.
    pub(super) fn add_kept_room(&self, within: AddrRange, out: &mut Vec<Region>) {
        if let Some(room) = self.brk_room() {
            add_room_above(room, within, out);
        }
        if let Some(room) = self.stack_room(within) {
            add_room_below(room, within, out);
        }
    }

    /// `[brk, brk + room)`, brk rounded up to a page.
    fn brk_room(&self) -> Option<AddrRange> {
        let start = align_up(self.sys.brk(), self.config.page_size)?;
        let room = AddrRange::at(start, self.options.brk_room)?;
        (start != 0).then_some(room)
    }

    /// From the lowest address that the main stack may reach, less the guard gap, to its top;
    /// `None` if that is all above `within`. Other stacks do not grow: threads map theirs whole.
    fn stack_room(&self, within: AddrRange) -> Option<AddrRange> {
        let top = self.sys.stack_address();
        let limit = match self.sys.getrlimit(abi::RLIMIT_STACK) {
            Ok(limit) if limit <= UNLIMITED_STACK => limit,
            _ => UNLIMITED_STACK,
        };
        let bottom = align_down(
            top.saturating_sub(limit).saturating_sub(STACK_GUARD_GAP),
            self.config.page_size,
        );
        let room = AddrRange::new(bottom, top)?;
        (top != 0 && room.overlaps(within)).then_some(room)
    }
}
