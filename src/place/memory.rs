//! In-flight and finalized memory of placed sections.
//!
//! Invariants: regions never overlap; a slot's bytes lie inside its region; all
//! regions are writable until `finalize`, which gives each its kind's access.

use low2g_platform::{AddrRange, align_up, to_usize};

use crate::alloc::{Certificate, CodeBlock, Mapping, Placement, PublishedCode, Step};

use crate::alloc::reach::HARD_FLOOR;

use super::dry::DrySpace;
use super::error::PlaceError;
use super::finalized::Finalized;
use super::fixed;
use super::group::{self, Group};
use super::request::{Placer, SectionKind, SectionRequest};
use super::take::{Wish, may_become_code};

/// Page size that dry runs lay out for.
const DRY_PAGE: u64 = 4096;
/// What fills the gaps of code regions: `int3`, so that a stray jump stops at once.
const CODE_FILL: u8 = 0xcc;

/// Where a section landed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Address of its first byte.
    pub addr: u64,
    /// Bytes.
    pub size: u64,
    /// Its region, by index; `None` for a section without bytes.
    pub region: Option<usize>,
}

#[derive(Debug)]
pub(super) enum Bytes {
    Mapped(Mapping),
    /// Code where writable memory may not become executable: two views, not yet published.
    Writing(CodeBlock),
    Published(PublishedCode),
    Buffer(Vec<u8>),
    /// A dry run's zero pages.
    Untouched,
}

#[derive(Debug)]
pub(super) struct Region {
    pub(super) info: RegionInfo,
    pub(super) bytes: Bytes,
}

/// A region: whole pages of one access.
#[derive(Clone, Debug, PartialEq)]
pub struct RegionInfo {
    /// Where.
    pub range: AddrRange,
    /// Final access.
    pub kind: SectionKind,
    /// Nothing in it was ever written: all zero.
    pub zero_fill: bool,
    /// Several sections share it.
    pub arena: bool,
    /// How its address was chosen.
    pub certificate: Certificate,
}

impl RegionInfo {
    /// How its sections' addresses were chosen: those that share it are slots of an arena.
    #[must_use]
    pub const fn step(&self) -> Step {
        if self.arena {
            Step::Arena
        } else {
            self.certificate.step
        }
    }
}

/// Placed sections that can be written and not yet executed. Dropping it gives all back.
#[derive(Debug)]
pub struct InFlight {
    placer: Placer,
    regions: Vec<Region>,
    slots: Vec<Slot>,
    /// Of a dry run.
    dry: Option<DrySpace>,
    /// All regions lie in here: within pc-relative reach of each other.
    span: Option<AddrRange>,
    /// Every code section has a region of its own.
    scatter: bool,
}

/// Widest stretch in which every byte reaches every other by a signed 32-bit distance,
/// with the 16 MiB of addends that the psABI allows for (section "Code Models").
const SPAN: u64 = (1 << 31) - (1 << 24);

impl InFlight {
    pub(super) fn new(placer: Placer, scatter: bool) -> Self {
        let dry = match &placer {
            Placer::DryRun { seed, .. } => Some(DrySpace::new(*seed)),
            Placer::Mapped { .. } => None,
        };
        Self {
            placer,
            regions: Vec::new(),
            slots: Vec::new(),
            dry,
            span: None,
            scatter,
        }
    }

    /// The stretch that this placement's regions share, drawn when first needed: the whole
    /// window if it is narrow enough.
    fn span(&mut self, index: usize) -> Result<AddrRange, PlaceError> {
        if let Some(span) = self.span {
            return Ok(span);
        }
        let window = match &self.placer {
            Placer::DryRun { window, .. } => *window,
            Placer::Mapped {
                allocator,
                reach: None,
                ..
            } => allocator.window(),
            Placer::Mapped {
                allocator,
                reach: Some(reach),
                ..
            } => reach
                .window(allocator.platform().config())
                .map_err(|source| PlaceError::Section { index, source })?,
        };
        let page = self.page();
        let slots = window.len().saturating_sub(SPAN) / page + 1;
        let slot = match (&self.placer, &mut self.dry) {
            (Placer::DryRun { .. }, Some(dry)) => dry.random_below(slots),
            (Placer::Mapped { allocator, .. }, _)
                if allocator.placement() == Placement::Randomized =>
            {
                allocator.random_below(slots)
            }
            _ => 0,
        };
        let start = window.start() + slot * page;
        let end = window.end().min(start.saturating_add(SPAN));
        let span = AddrRange::new(start, end).unwrap_or(window);
        self.span = Some(span);
        Ok(span)
    }

    /// All user addresses.
    fn everywhere(&self, index: usize) -> Result<AddrRange, PlaceError> {
        match &self.placer {
            // A dry run has no process: the 47 bits that Linux gives user space.
            Placer::DryRun { .. } => {
                Ok(AddrRange::new(HARD_FLOOR, 1 << 47).expect("a floor below 47 bits"))
            }
            Placer::Mapped { allocator, .. } => {
                let config = allocator.platform().config();
                AddrRange::new(HARD_FLOOR, config.user_end).ok_or(PlaceError::TooBig {
                    index,
                    at: HARD_FLOOR,
                    size: config.user_end,
                })
            }
        }
    }

    /// Places more sections; their indices follow those already placed.
    ///
    /// # Errors
    /// As [`Placer::place`]; what was placed before stays.
    pub fn extend(&mut self, requests: &[SectionRequest]) -> Result<(), PlaceError> {
        let first = self.slots.len();
        let (first_region, page) = (self.regions.len(), self.page());
        self.slots.extend(requests.iter().map(|request| Slot {
            addr: request.at.unwrap_or(0),
            size: request.size,
            region: None,
        }));
        let result = self.place_all(requests, first, page);
        if result.is_err() {
            for region in self.regions.drain(first_region..) {
                if let Some(dry) = &mut self.dry {
                    dry.release(region.info.range);
                }
            }
            self.slots.truncate(first);
        } else {
            self.place_empty(requests, first);
        }
        result
    }

    /// What places its sections.
    pub(crate) const fn placer(&self) -> &Placer {
        &self.placer
    }

    fn page(&self) -> u64 {
        match &self.placer {
            Placer::Mapped { allocator, .. } => allocator.page_size(),
            Placer::DryRun { .. } => DRY_PAGE,
        }
    }

    fn place_all(
        &mut self,
        requests: &[SectionRequest],
        first: usize,
        page: u64,
    ) -> Result<(), PlaceError> {
        let dry = matches!(self.placer, Placer::DryRun { .. });
        for run in fixed::runs(requests, if dry { 1 } else { page })? {
            let index = run.members.first().map_or(0, |&(index, _)| index);
            let group = Group {
                kind: run.kind,
                size: run.range.len(),
                align: 1,
                zero_fill: run.zero_fill,
                arena: run.members.len() > 1,
                anywhere: false,
                members: run.members,
            };
            self.add_region(group, Some(run.range), index, first, page)?;
        }
        let groups = group::groups(requests, page, self.scatter);
        let groups = groups.map_err(|index| PlaceError::TooBig {
            index,
            at: 0,
            size: requests[index].size,
        })?;
        for group in groups {
            let index = group.members.first().map_or(0, |&(index, _)| index);
            self.add_region(group, None, index, first, page)?;
        }
        Ok(())
    }

    /// Sections without bytes get an address that suits them: some region's start.
    fn place_empty(&mut self, requests: &[SectionRequest], first: usize) {
        let fallback = self
            .regions
            .first()
            .map_or(0, |region| region.info.range.start());
        for (slot, request) in self.slots[first..].iter_mut().zip(requests) {
            if request.size == 0 && request.at.is_none() {
                let fits =
                    |region: &&Region| region.info.range.start().is_multiple_of(request.align);
                let same = |region: &&Region| region.info.kind == request.kind && fits(region);
                slot.addr = self
                    .regions
                    .iter()
                    .find(same)
                    .or_else(|| self.regions.iter().find(fits))
                    .map_or(fallback, |region| region.info.range.start());
            }
        }
    }

    fn add_region(
        &mut self,
        mut group: Group,
        at: Option<AddrRange>,
        index: usize,
        first: usize,
        page: u64,
    ) -> Result<(), PlaceError> {
        // Gaps of code regions are filled: they are never all zero.
        group.zero_fill &= group.kind != SectionKind::Code;
        let size = match at {
            Some(range) => range.len(),
            None => align_up(group.size, page).ok_or(PlaceError::TooBig {
                index,
                at: 0,
                size: group.size,
            })?,
        };
        let span = if group.anywhere {
            self.everywhere(index)?
        } else {
            self.span(index)?
        };
        let wish = Wish {
            size,
            align: group.align.max(page),
            at,
            span,
            index,
        };
        let (range, certificate, mut bytes) = match &self.placer {
            Placer::Mapped {
                allocator,
                min_entropy,
                ..
            } if group.kind == SectionKind::Code && at.is_none() && !may_become_code(allocator) => {
                wish.two_views(allocator, min_entropy.unwrap_or(0.0))?
            }
            Placer::Mapped {
                allocator,
                reach,
                min_entropy,
            } => {
                let reach = reach.clone().filter(|_| at.is_some());
                wish.private(allocator, reach, *min_entropy, &group)?
            }
            Placer::DryRun { .. } => {
                let dry = self.dry.as_mut().expect("made for dry runs by `new`");
                wish.buffer(dry, group.zero_fill)?
            }
        };
        if group.kind == SectionKind::Code {
            fill_gaps(&mut bytes, &group, &self.slots[first..]);
        }
        let number = self.regions.len();
        for &(member, offset) in &group.members {
            let slot = &mut self.slots[first + member];
            slot.addr = range.start() + offset;
            slot.region = Some(number);
        }
        self.regions.push(Region {
            info: RegionInfo {
                range,
                kind: group.kind,
                zero_fill: group.zero_fill,
                arena: group.arena,
                certificate,
            },
            bytes,
        });
        Ok(())
    }

    /// Address, size and region of section `index`.
    ///
    /// # Panics
    /// If there is no such section.
    #[must_use]
    pub fn slot(&self, index: usize) -> Slot {
        self.slots[index]
    }

    /// The region of section `index`; `None` for a section without bytes.
    #[must_use]
    pub fn region_of(&self, index: usize) -> Option<&RegionInfo> {
        Some(&self.regions[self.slots.get(index)?.region?].info)
    }

    /// The bytes of section `index` to write; empty for zero-fill regions of a dry run.
    pub fn working_mem(&mut self, index: usize) -> &mut [u8] {
        let slot = self.slots[index];
        let Some(region) = slot.region.and_then(|number| self.regions.get_mut(number)) else {
            return &mut [];
        };
        let offset = to_usize(slot.addr - region.info.range.start());
        let range = offset..offset + to_usize(slot.size);
        match &mut region.bytes {
            Bytes::Mapped(mapping) => mapping
                .working_mem()
                .and_then(|bytes| bytes.get_mut(range))
                .unwrap_or_default(),
            Bytes::Writing(code) => code.working_mem().get_mut(range).unwrap_or_default(),
            Bytes::Buffer(buffer) => &mut buffer[range],
            Bytes::Untouched | Bytes::Published(_) => &mut [],
        }
    }

    /// Gives every region its final access.
    ///
    /// # Errors
    /// The system refuses; everything is then given back.
    pub fn finalize(mut self) -> Result<Finalized, PlaceError> {
        for region in &mut self.regions {
            region.set_access(region.info.kind)?;
        }
        Ok(Finalized {
            regions: self.regions,
            slots: self.slots,
        })
    }
}

impl Region {
    /// Copies out `range`, which lies inside.
    pub(super) fn read(&self, range: AddrRange) -> Option<Vec<u8>> {
        match &self.bytes {
            Bytes::Mapped(mapping) => mapping.read(range),
            Bytes::Buffer(buffer) => {
                let start = to_usize(range.start() - self.info.range.start());
                buffer
                    .get(start..start + to_usize(range.len()))
                    .map(<[u8]>::to_vec)
            }
            Bytes::Published(code) => {
                let start = to_usize(range.start() - self.info.range.start());
                code.read()
                    .get(start..start + to_usize(range.len()))
                    .map(<[u8]>::to_vec)
            }
            Bytes::Writing(_) => None,
            Bytes::Untouched => Some(vec![0; to_usize(range.len())]),
        }
    }

    pub(super) fn set_access(&mut self, kind: SectionKind) -> Result<(), PlaceError> {
        let refused = |source| PlaceError::Protect { source };
        self.bytes = match std::mem::replace(&mut self.bytes, Bytes::Untouched) {
            Bytes::Mapped(mut mapping) if kind != SectionKind::Data => {
                mapping
                    .protect(self.info.range, kind.protection())
                    .map_err(refused)?;
                Bytes::Mapped(mapping)
            }
            Bytes::Writing(code) => Bytes::Published(code.publish().map_err(refused)?),
            other => other,
        };
        self.info.kind = kind;
        Ok(())
    }
}

/// Fills what no section of a code region covers with `int3`.
fn fill_gaps(bytes: &mut Bytes, group: &Group, slots: &[Slot]) {
    let memory: &mut [u8] = match bytes {
        Bytes::Mapped(mapping) => mapping.working_mem().unwrap_or_default(),
        Bytes::Buffer(buffer) => buffer,
        Bytes::Writing(code) => code.working_mem(),
        Bytes::Untouched | Bytes::Published(_) => return,
    };
    let mut end = 0;
    for &(member, offset) in &group.members {
        memory[to_usize(end)..to_usize(offset)].fill(CODE_FILL);
        end = offset + slots[member].size;
    }
    memory[to_usize(end)..].fill(CODE_FILL);
}
