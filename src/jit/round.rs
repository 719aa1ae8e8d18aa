//! [`RoundMemory`]: memory for JITs that write code and data at the address where they will be
//! used, piece by piece, and then finalize all of it at once, many times over.
//!
//! ```text
//!   round 1                                     round 2
//!   code   | f  g | at random  | h |            code   | k |    pages of its own:
//!   const  | c |                                            round 1's execute already
//!   data   | d  ................................... e |     stays writable, goes on
//! ```
//!
//! Small blocks share chunks. A round has chunks of its own for code and for constants, each at an
//! address drawn for it alone, larger the more the round has taken; a block goes to a random place
//! of a random chunk. Large blocks have mappings of their own.
//!
//! Invariants: no page is writable and executable; a page that was finalized is never written
//! again; dropping the value gives everything back.

use low2g_platform::{AddrRange, Protection, align_up};

use crate::alloc::{Certificate, LowAllocator, MapRequest, Mapping};
use crate::alloc::{Kind, Placement};
use crate::place::{CodeModel, SectionKind};

use super::error::JitError;
use super::model::{Relocations, check_reach};

/// Blocks of this many bytes have a mapping of their own.
const LARGE: u64 = 64 << 10;
/// Bytes of a chunk at most: a search for room looks at all its gaps.
const CHUNK: u64 = 128 << 10;
/// Chunks of a kind that a block may go to.
const OPEN: usize = 4;
/// Functions start at a multiple of this, where the processor decodes best.
const CODE_ALIGN: u64 = 16;
/// What gaps of code hold: `int3`.
const CODE_FILL: u8 = 0xcc;

/// Memory for JITs that write at the address where the code will run.
#[derive(Debug)]
pub struct RoundMemory {
    allocator: LowAllocator,
    code: Round,
    constants: Round,
    data: Round,
    finalized: Vec<(SectionKind, Mapping)>,
    /// Whether `finalize` was called: what lies here may be in use.
    published: bool,
}

/// What was allocated of one kind since it was last finalized.
#[derive(Debug, Default)]
struct Round {
    open: Vec<Chunk>,
    /// Without room, or with one block only.
    full: Vec<Mapping>,
    /// Bytes of all its chunks.
    chunk_bytes: u64,
}

/// A mapping with room.
#[derive(Debug)]
struct Chunk {
    mapping: Mapping,
    /// Its free bytes, ascending; none is empty.
    gaps: Vec<AddrRange>,
}

/// One mapping of a [`RoundMemory`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoundRegion {
    /// Where.
    pub range: AddrRange,
    /// What it holds.
    pub kind: SectionKind,
    /// Whether it has its final access.
    pub finalized: bool,
    /// How its address was chosen.
    pub certificate: Certificate,
}

impl RoundMemory {
    /// Memory from `allocator` for code of this model. Maps nothing yet.
    ///
    /// # Errors
    /// The allocator's reach does not serve the model; this process may not make written memory
    /// executable; the allocator is simulated.
    pub fn new(
        allocator: LowAllocator,
        model: CodeModel,
        relocations: Relocations,
    ) -> Result<Self, JitError> {
        check_reach(&allocator, model, relocations)?;
        if allocator.platform().is_simulated() {
            return Err(JitError::Simulated);
        }
        let config = allocator.platform().config();
        if !config.capabilities.protect_to_execute {
            return Err(JitError::SingleAddress);
        }
        Ok(Self {
            allocator,
            code: Round::default(),
            constants: Round::default(),
            data: Round::default(),
            finalized: Vec::new(),
            published: false,
        })
    }

    /// The address of `size` fresh bytes at a multiple of `align`, writable until
    /// [`RoundMemory::finalize`] (data: for good). Code holds `int3` at first, the rest zeros.
    ///
    /// # Errors
    /// No bytes, an alignment that is no power of two, or no room; what was allocated before stays.
    pub fn allocate(&mut self, size: u64, align: u64, kind: SectionKind) -> Result<u64, JitError> {
        if size == 0 {
            return Err(JitError::Empty);
        }
        if !align.is_power_of_two() {
            return Err(JitError::Alignment { align });
        }
        let align = match kind {
            SectionKind::Code => align.max(CODE_ALIGN),
            SectionKind::ReadOnly | SectionKind::Data => align,
        };
        let round = match kind {
            SectionKind::Code => &mut self.code,
            SectionKind::ReadOnly => &mut self.constants,
            SectionKind::Data => &mut self.data,
        };
        if size >= LARGE || align > self.allocator.page_size() {
            let mapping = map(&self.allocator, size, align, kind)?;
            let addr = mapping.range().start();
            round.full.push(mapping);
            return Ok(addr);
        }
        if let Some(addr) = round.take(&self.allocator, size, align) {
            return Ok(addr);
        }
        round.grow(&self.allocator, size, kind)?;
        let addr = round.take(&self.allocator, size, align);
        Ok(addr.expect("a new chunk starts at a page and has room for the block"))
    }

    /// Gives all code and constants allocated so far their final access.
    ///
    /// # Errors
    /// The system refuses. What it refused stays as it is and is tried again the next time; what
    /// was finalized before is as it was.
    pub fn finalize(&mut self) -> Result<(), JitError> {
        self.published = true;
        for kind in [SectionKind::ReadOnly, SectionKind::Code] {
            let round = match kind {
                SectionKind::Code => &mut self.code,
                SectionKind::ReadOnly | SectionKind::Data => &mut self.constants,
            };
            round.close_all();
            while let Some(mapping) = round.full.last_mut() {
                let range = mapping.range();
                mapping.protect(range, kind.protection())?;
                if kind == SectionKind::Code {
                    let platform = self.allocator.platform();
                    platform.flush_instruction_cache(range);
                }
                let done = round.full.pop().map(|mapping| (kind, mapping));
                self.finalized.extend(done);
            }
        }
        Ok(())
    }

    /// Gives everything back, at once.
    pub fn clear(&mut self) {
        (self.code, self.constants, self.data) = Default::default();
        self.finalized.clear();
        self.published = false;
    }

    /// Leaves what may be in use mapped until the process ends: all of it, once it was finalized.
    #[cfg(feature = "cranelift")]
    pub(super) fn leak(&mut self) {
        if !self.published {
            return;
        }
        for round in [&mut self.code, &mut self.constants, &mut self.data] {
            round.close_all();
            round.full.drain(..).for_each(std::mem::forget);
        }
        self.finalized.drain(..).for_each(std::mem::forget);
    }

    /// Every mapping it holds.
    pub fn regions(&self) -> impl Iterator<Item = RoundRegion> {
        let pending = [
            (SectionKind::Code, &self.code),
            (SectionKind::ReadOnly, &self.constants),
            (SectionKind::Data, &self.data),
        ];
        let pending = pending.into_iter().flat_map(|(kind, round)| {
            let open = round.open.iter().map(|chunk| &chunk.mapping);
            let finalized = kind == SectionKind::Data;
            open.chain(&round.full)
                .map(move |mapping| region(kind, mapping, finalized))
        });
        let finalized = self.finalized.iter();
        finalized
            .map(|(kind, mapping)| region(*kind, mapping, true))
            .chain(pending)
    }

    /// Bytes of all its mappings.
    #[must_use]
    pub fn mapped_bytes(&self) -> u64 {
        self.regions().map(|region| region.range.len()).sum()
    }
}

fn region(kind: SectionKind, mapping: &Mapping, finalized: bool) -> RoundRegion {
    RoundRegion {
        range: mapping.range(),
        kind,
        finalized,
        certificate: mapping.certificate(),
    }
}

/// Fresh pages, writable, with their first contents.
fn map(
    allocator: &LowAllocator,
    size: u64,
    align: u64,
    kind: SectionKind,
) -> Result<Mapping, JitError> {
    let label = match kind {
        SectionKind::Code => "JIT code",
        SectionKind::ReadOnly => "JIT constants",
        SectionKind::Data => "JIT data",
    };
    let mut mapping = allocator.map(&MapRequest {
        align,
        protection: Protection::ReadWrite,
        kind: Kind::Section,
        label: label.to_owned(),
        ..MapRequest::new(size)
    })?;
    if kind == SectionKind::Code {
        // A lack of memory is an error here, and a signal at first touch.
        mapping.populate()?;
        mapping.working_mem().unwrap_or_default().fill(CODE_FILL);
    }
    Ok(mapping)
}

impl Round {
    /// Adds a chunk with room for `size` bytes, a fourth of the round so far if that is more: what
    /// stays unused is a small part of all.
    fn grow(
        &mut self,
        allocator: &LowAllocator,
        size: u64,
        kind: SectionKind,
    ) -> Result<(), JitError> {
        let config = allocator.platform().config();
        let unit = config.page_size.max(config.granularity);
        let wanted = size.max((self.chunk_bytes / 4).min(CHUNK));
        let bytes = align_up(wanted, unit).expect("small blocks and chunks");
        let mapping = map(allocator, bytes, 1, kind)?;
        self.chunk_bytes += bytes;
        if self.open.len() == OPEN {
            let room = |chunk: &Chunk| chunk.gaps.iter().map(|gap| gap.len()).sum::<u64>();
            let least = (0..OPEN).min_by_key(|index| room(&self.open[*index]));
            let chunk = self.open.swap_remove(least.unwrap_or(0));
            self.full.push(chunk.mapping);
        }
        let gaps = vec![mapping.range()];
        self.open.push(Chunk { mapping, gaps });
        Ok(())
    }

    /// Takes a block of an open chunk; `None` if none has room.
    fn take(&mut self, allocator: &LowAllocator, size: u64, align: u64) -> Option<u64> {
        let gaps = self.open.iter().flat_map(|chunk| &chunk.gaps);
        let total: u64 = gaps.map(|gap| starts(*gap, size, align)).sum();
        if total == 0 {
            return None;
        }
        let mut pick = match allocator.placement() {
            Placement::Randomized => allocator.random_below(total),
            Placement::FirstFit | Placement::Kernel => 0,
        };
        for chunk in &mut self.open {
            for index in 0..chunk.gaps.len() {
                let here = starts(chunk.gaps[index], size, align);
                if pick < here {
                    return Some(chunk.take(index, pick, size, align));
                }
                pick -= here;
            }
        }
        None
    }

    fn close_all(&mut self) {
        let open = self.open.drain(..).map(|chunk| chunk.mapping);
        self.full.extend(open);
        self.chunk_bytes = 0;
    }
}

impl Chunk {
    /// Takes a block at the gap's start number `pick`, or at the gap's edge where too little for
    /// another such block would be left beside it.
    fn take(&mut self, index: usize, pick: u64, size: u64, align: u64) -> u64 {
        let gap = self.gaps[index];
        let first = align_up(gap.start(), align).expect("the gap has starts");
        let last = first + (starts(gap, size, align) - 1) * align;
        let mut start = first + pick * align;
        if start - first < size {
            start = first;
        } else if last - start < size {
            start = last;
        }
        let before = AddrRange::new(gap.start(), start);
        let after = AddrRange::new(start + size, gap.end());
        let left = [before, after].into_iter().flatten();
        let left = left.filter(|gap| !gap.is_empty());
        self.gaps.splice(index..=index, left);
        start
    }
}

/// Multiples of `align` at which a block of `size` bytes lies in `gap`.
fn starts(gap: AddrRange, size: u64, align: u64) -> u64 {
    let first = align_up(gap.start(), align);
    let last = gap.end().checked_sub(size);
    match (first, last) {
        (Some(first), Some(last)) if first <= last => (last - first) / align + 1,
        _ => 0,
    }
}
