//! Grouping: which sections share a region.
//!
//! Sections of [`LARGE`] bytes or more, and those aligned beyond a page, get a
//! region of their own at an address drawn for them alone; smaller ones of one
//! kind share arena regions of up to [`ARENA`] bytes, in input order. On request every code
//! section has a region of its own.

use low2g_platform::align_up;

use super::request::{SectionKind, SectionRequest};

/// Sections of this many bytes have a region of their own.
pub(super) const LARGE: u64 = 64 << 10;
/// An arena region takes no further section once it has this many bytes. Page-table
/// and mapping costs are per region, so few: a module of 2 MiB of small sections takes two.
pub(super) const ARENA: u64 = 1 << 20;

/// A region to map: its sections by request index, with offsets.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) kind: SectionKind,
    pub(super) size: u64,
    pub(super) align: u64,
    /// Nothing in it has bytes.
    pub(super) zero_fill: bool,
    pub(super) arena: bool,
    /// Need not lie near the other regions.
    pub(super) anywhere: bool,
    /// Request index and offset in bytes.
    pub(super) members: Vec<(usize, u64)>,
}

impl Group {
    fn new(kind: SectionKind, arena: bool) -> Self {
        Self {
            kind,
            size: 0,
            align: 1,
            zero_fill: true,
            arena,
            anywhere: false,
            members: Vec::new(),
        }
    }

    /// Adds a section behind the others; `None` if offsets would wrap.
    fn push(&mut self, index: usize, request: &SectionRequest) -> Option<()> {
        let offset = align_up(self.size, request.align)?;
        self.size = offset.checked_add(request.size)?;
        self.align = self.align.max(request.align);
        self.zero_fill &= request.zero_fill;
        self.members.push((index, offset));
        Some(())
    }
}

/// Groups the requests that have bytes and no given address, largest group first.
/// `Err` is the index of a request whose size is beyond any address space.
pub(super) fn groups(
    requests: &[SectionRequest],
    page: u64,
    scatter: bool,
) -> Result<Vec<Group>, usize> {
    let mut closed: Vec<Group> = Vec::new();
    let mut open: [Option<Group>; 3] = [None, None, None];
    for (index, request) in requests.iter().enumerate() {
        if request.size == 0 || request.at.is_some() {
            continue;
        }
        let slot = match request.kind {
            SectionKind::Code => 0,
            SectionKind::ReadOnly => 1,
            SectionKind::Data => 2,
        };
        let alone = scatter && request.kind == SectionKind::Code;
        if request.size >= LARGE || request.align > page || request.anywhere || alone {
            let mut group = Group::new(request.kind, false);
            group.anywhere = request.anywhere;
            group.push(index, request).ok_or(index)?;
            closed.push(group);
            continue;
        }
        let group = open[slot].get_or_insert_with(|| Group::new(request.kind, true));
        group.push(index, request).ok_or(index)?;
        if group.size >= ARENA {
            closed.extend(open[slot].take());
        }
    }
    closed.extend(open.into_iter().flatten());
    // Stable, so that a seed gives the same placement for the same input.
    closed.sort_by_key(|group| std::cmp::Reverse(group.size));
    Ok(closed)
}
