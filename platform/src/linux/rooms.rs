//! Room that a survey shows as held although nothing is mapped there yet: where
//! the brk heap and the main stack grow.
//!
//! Invariant: only free space is added, and only what growth can reach.

use super::abi;
use super::survey::region;
use super::{LinuxPlatform, Syscalls};
use crate::contract::{Holder, Region};
use crate::range::{AddrRange, align_down, align_up};

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

/// Adds `room` from its start up to the next region, where growth would end anyway.
fn add_room_above(room: AddrRange, within: AddrRange, out: &mut Vec<Region>) {
    let Some(room) = room.intersection(within) else {
        return;
    };
    let next = out.partition_point(|held| held.range.end() <= room.start());
    let end = out.get(next).map_or(room.end(), |held| held.range.start());
    if let Some(free) = AddrRange::new(room.start(), end.min(room.end())) {
        insert(next, free, Holder::Brk, out);
    }
}

/// Adds `room` from the region that holds its end (a stack) down to the region below that.
fn add_room_below(room: AddrRange, within: AddrRange, out: &mut Vec<Region>) {
    let stack = out.partition_point(|held| held.range.end() < room.end());
    let top = out
        .get(stack)
        .map_or(within.end(), |held| held.range.start());
    let below = stack.checked_sub(1).and_then(|below| out.get(below));
    let bottom = below.map_or(within.start(), |held| held.range.end());
    if let Some(free) = AddrRange::new(bottom.max(room.start()), top.min(within.end())) {
        insert(stack, free, Holder::Stack, out);
    }
}

fn insert(at: usize, free: AddrRange, holder: Holder, out: &mut Vec<Region>) {
    if !free.is_empty() {
        out.insert(at, region(free, holder));
    }
}
