//! Taking the pages of one region: private memory, two views, or a dry run's buffer.

use low2g_platform::{AddrRange, Protection, to_usize};

use crate::alloc::{Certificate, Kind, LowAllocator, MapRequest, Reach};

use super::dry::{self, DrySpace};
use super::error::PlaceError;
use super::group::Group;
use super::memory::Bytes;
use super::request::SectionKind;

/// Bytes that a dry run keeps of one region: more than any object has, less than a machine has.
const DRY_BUFFER: u64 = 4 << 30;

/// Pages to take for a region.
#[derive(Clone, Copy)]
pub(super) struct Wish {
    pub(super) size: u64,
    pub(super) align: u64,
    /// Exactly there.
    pub(super) at: Option<AddrRange>,
    /// Inside of this, if not.
    pub(super) span: AddrRange,
    /// The request to name in errors.
    pub(super) index: usize,
}

pub(super) type Taken = (AddrRange, Certificate, Bytes);

impl Wish {
    /// Code that is written through a view of its own.
    pub(super) fn two_views(
        self,
        allocator: &LowAllocator,
        min_entropy: f64,
    ) -> Result<Taken, PlaceError> {
        let (index, span) = (self.index, self.span);
        let code = allocator
            .allocate_code(self.size, self.align)
            .and_then(|code| code.certificate().check(min_entropy).map(|()| code))
            .map_err(|source| PlaceError::Section { index, source })?;
        let addr = code.exec_addr();
        let range = AddrRange::at(addr, self.size)
            .filter(|range| span.encloses(*range))
            .ok_or(PlaceError::Views { index, addr, span })?;
        Ok((range, code.certificate(), Bytes::Writing(code)))
    }

    /// Private memory, writable until it is finalized.
    pub(super) fn private(
        self,
        allocator: &LowAllocator,
        reach: Option<Reach>,
        min_entropy: Option<f64>,
        group: &Group,
    ) -> Result<Taken, PlaceError> {
        let request = MapRequest {
            size: self.size,
            align: self.align,
            // Given addresses are the caller's business; drawn ones share the span.
            reach: match self.at {
                Some(_) => reach,
                None => Some(Reach::Range(self.span)),
            },
            at: self.at.map(AddrRange::start),
            min_entropy,
            protection: Protection::ReadWrite,
            kind: if group.arena {
                Kind::Arena
            } else {
                Kind::Section
            },
            label: label(group.kind).to_owned(),
        };
        let index = self.index;
        let mut mapping = allocator
            .map(&request)
            .map_err(|source| PlaceError::Section { index, source })?;
        if !group.zero_fill {
            // One call instead of a fault a page. It is advice: without it, pages come at first touch.
            let _ = mapping.populate();
        }
        let (range, certificate) = (mapping.range(), mapping.certificate());
        Ok((range, certificate, Bytes::Mapped(mapping)))
    }

    /// A dry run's addresses, and a buffer if there are bytes to keep.
    pub(super) fn buffer(self, dry: &mut DrySpace, zero_fill: bool) -> Result<Taken, PlaceError> {
        let index = self.index;
        let (range, certificate) = match self.at {
            Some(range) => (dry.take_exactly(index, range)?, dry::fixed_certificate()),
            None => dry.draw(index, self.size, self.align, self.span)?,
        };
        if zero_fill {
            return Ok((range, certificate, Bytes::Untouched));
        }
        if range.len() > DRY_BUFFER {
            return Err(PlaceError::NoBuffer {
                index,
                size: range.len(),
                limit: DRY_BUFFER,
            });
        }
        let buffer = vec![0; to_usize(range.len())];
        Ok((range, certificate, Bytes::Buffer(buffer)))
    }
}

/// Whether private memory that was written may be made executable (not under `PR_SET_MDWE`).
pub(super) fn may_become_code(allocator: &LowAllocator) -> bool {
    allocator
        .platform()
        .config()
        .capabilities
        .protect_to_execute
}

const fn label(kind: SectionKind) -> &'static str {
    match kind {
        SectionKind::Code => "code sections",
        SectionKind::ReadOnly => "read-only sections",
        SectionKind::Data => "data sections",
    }
}
