//! Lists of regions as surveys give them: what every backend needs to build one.
//!
//! Invariant: a list is ascending and its regions do not overlap.

use crate::contract::{Holder, Region};
use crate::range::AddrRange;

/// A region whose name and access were not asked for.
pub(crate) fn region(range: AddrRange, holder: Holder) -> Region {
    Region {
        range,
        holder,
        name: String::new(),
        access: String::new(),
    }
}

/// Appends `[start, end)` clipped to `within`, joined to the last region if they touch.
/// The map may change between two reads; a region that starts too early is clipped as well.
pub(crate) fn push_merged(within: AddrRange, start: u64, end: u64, out: &mut Vec<Region>) {
    let last = out.last().map_or(within.start(), |last| last.range.end());
    let start = start.max(last);
    let end = end.min(within.end());
    let Some(range) = AddrRange::new(start, end).filter(|range| !range.is_empty()) else {
        return;
    };
    match out.last_mut() {
        Some(previous) if previous.range.end() == start => {
            previous.range = AddrRange::new(previous.range.start(), end).unwrap_or(range);
        }
        _ => out.push(region(range, Holder::Unknown)),
    }
}

/// Adds `room` from its start up to the next region, where growth would end anyway.
pub(crate) fn add_room_above(room: AddrRange, within: AddrRange, out: &mut Vec<Region>) {
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
pub(crate) fn add_room_below(room: AddrRange, within: AddrRange, out: &mut Vec<Region>) {
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
