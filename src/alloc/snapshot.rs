//! A picture of address space, with ours marked: for `low2g map` and error texts.
//!
//! Invariant: the regions of a snapshot tile the range asked for, ascending,
//! without gap or overlap. They are a moment's view: other threads map on.

use std::collections::BTreeMap;

use low2g_platform::{AddrRange, Holder, PlatformError};

use crate::alloc::error::{AllocError, HELD_BY_LISTED, HeldBy};
use crate::alloc::pages::Pages;
use crate::alloc::space::{Kind, Owned, Owner};

/// Who holds a region of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Use {
    /// Nobody.
    Free,
    /// This allocator, for what.
    Ours(Kind),
    /// Somebody else.
    Held(Holder),
}

/// One region of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRegion {
    /// Where.
    pub range: AddrRange,
    /// Who holds it.
    pub usage: Use,
    /// Our label, or the system's name; empty if there is none.
    pub label: String,
    /// `rwxp`-style access; empty where nothing is mapped.
    pub access: String,
}

/// All of `within`, with ours marked.
pub(crate) fn take(pages: &Pages, within: AddrRange) -> Result<Vec<SnapshotRegion>, PlatformError> {
    let described = pages.platform.describe(within)?;
    let ours: Vec<(AddrRange, Owned)> = pages
        .state
        .lock()
        .space
        .taken_in(within)
        .filter_map(|(range, owner)| match owner {
            Owner::Ours(owned) => Some((range, owned.clone())),
            Owner::Others | Owner::Room | Owner::Hole => None,
        })
        .collect();
    let mut out = Vec::new();
    let mut cursor = within.start();
    let mut index = 0;
    for region in described {
        let Some(range) = region.range.intersection(within) else {
            continue;
        };
        fill_free(&mut out, cursor, range.start());
        let held = |part| SnapshotRegion {
            range: part,
            usage: Use::Held(region.holder),
            label: region.name.clone(),
            access: region.access.clone(),
        };
        let mut from = range.start().max(cursor);
        while let Some((mine, owned)) = ours
            .get(index)
            .filter(|(mine, _)| mine.start() < range.end())
        {
            if let Some(part) = AddrRange::new(from, mine.start()).filter(|part| !part.is_empty()) {
                out.push(held(part));
            }
            if let Some(part) = mine.intersection(range) {
                out.push(SnapshotRegion {
                    range: part,
                    usage: Use::Ours(owned.kind),
                    label: owned.label.to_string(),
                    access: region.access.clone(),
                });
                from = part.end();
            }
            // Where access differs within one of ours, the next region continues it.
            if mine.end() > range.end() {
                break;
            }
            index += 1;
        }
        if let Some(part) = AddrRange::new(from, range.end()).filter(|part| !part.is_empty()) {
            out.push(held(part));
        }
        cursor = cursor.max(range.end());
    }
    fill_free(&mut out, cursor, within.end());
    Ok(out)
}

fn fill_free(out: &mut Vec<SnapshotRegion>, from: u64, to: u64) {
    if let Some(range) = AddrRange::new(from, to).filter(|range| !range.is_empty()) {
        out.push(SnapshotRegion {
            range,
            usage: Use::Free,
            label: String::new(),
            access: String::new(),
        });
    }
}

/// Fills in who holds the window that is exhausted; leaves it empty if the system will not tell.
pub(crate) fn name_holders(pages: &Pages, mut error: AllocError) -> AllocError {
    let AllocError::Exhausted {
        window, holders, ..
    } = &mut error
    else {
        return error;
    };
    let Ok(regions) = take(pages, *window) else {
        return error;
    };
    let mut bytes_by_name: BTreeMap<String, u64> = BTreeMap::new();
    for region in regions {
        if region.usage != Use::Free {
            *bytes_by_name.entry(name_of(&region)).or_default() += region.range.len();
        }
    }
    let mut held: Vec<HeldBy> = bytes_by_name
        .into_iter()
        .map(|(name, bytes)| HeldBy { name, bytes })
        .collect();
    held.sort_by_key(|held| std::cmp::Reverse(held.bytes));
    held.truncate(HELD_BY_LISTED);
    *holders = held;
    error
}

/// Who holds (part of) `range`.
pub(crate) fn name_of_holder(pages: &Pages, range: AddrRange) -> String {
    let regions = take(pages, range).unwrap_or_default();
    regions
        .iter()
        .find(|region| region.usage != Use::Free)
        .map_or_else(|| "another mapping".to_owned(), name_of)
}

/// One of ours, for an error text.
pub(crate) fn name_of_ours(owned: &Owned) -> String {
    let what = ours(owned.kind);
    if owned.label.is_empty() {
        what.to_owned()
    } else {
        format!("{what} {}", owned.label)
    }
}

fn ours(kind: Kind) -> &'static str {
    match kind {
        Kind::Section => "low2g: section",
        Kind::Block => "low2g: block",
        Kind::Reservation => "low2g: reservation",
        Kind::Arena => "low2g: data arena",
        Kind::CodeArena => "low2g: code arena",
        Kind::WriteView => "low2g: write view",
    }
}

fn name_of(region: &SnapshotRegion) -> String {
    match region.usage {
        // Labels of ours are many and small; kinds say more in a sum.
        Use::Ours(kind) => ours(kind).to_owned(),
        _ if !region.label.is_empty() => region.label.clone(),
        Use::Held(holder) => match holder {
            Holder::Executable => "the executable",
            Holder::Brk => "the brk heap and its room",
            Holder::Stack => "a stack and its room",
            Holder::Library => "a library",
            Holder::System => "the system",
            _ => "other mappings",
        }
        .to_owned(),
        Use::Free => "nobody".to_owned(),
    }
}
