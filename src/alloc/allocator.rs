//! [`LowAllocator`]: the value that hands out low memory.
//!
//! Cloning it is cheap and shares everything. Mappings keep the page level
//! alive, blocks all of it, so the order in which they are dropped is free.

use std::sync::Arc;

use hashbrown::HashMap;
use low2g_platform::{AddrRange, Platform, PlatformError, Protection, align_up};

use crate::alloc::builder::{Builder, Hardening};
use crate::alloc::claim::Want;
use crate::alloc::code::{CodeTier, PublishedCode};
use crate::alloc::error::AllocError;
use crate::alloc::exact::Source;
use crate::alloc::extents::Extents;
use crate::alloc::heap::Heap;
use crate::alloc::lock::SpinLock;
use crate::alloc::mapping::Mapping;
use crate::alloc::own::Retired;
use crate::alloc::pages::Pages;
use crate::alloc::policy::Placement;
use crate::alloc::raw::RawOwned;
use crate::alloc::reach::Reach;
use crate::alloc::snapshot::{self, SnapshotRegion};
use crate::alloc::space::Kind;
use crate::alloc::statistics::Statistics;

/// A low-address allocator.
#[derive(Clone, Debug)]
pub struct LowAllocator {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) pages: Arc<Pages>,
    pub(crate) placement: Placement,
    pub(crate) min_entropy: f64,
    pub(crate) floor: u64,
    pub(crate) window: AddrRange,
    pub(crate) min_conditional_entropy: f64,
    pub(crate) hardening: Hardening,
    pub(crate) page_size: u64,
    /// Whether addresses are only numbers.
    pub(crate) simulated: bool,
    /// Whether a [`LowGlobal`](crate::alloc::LowGlobal) stands on it.
    pub(crate) global: bool,
    // Lock order: a pool's or tier's lock is taken before the pages', never after.
    pub(crate) heap: Heap,
    pub(crate) extents: Option<Extents>,
    pub(crate) raw_owned: RawOwned,
    pub(crate) retired: Retired,
    pub(crate) raw_code: SpinLock<HashMap<u64, PublishedCode>>,
    /// Whether views that execute are made final.
    pub(crate) seal_code: bool,
    pub(crate) code: SpinLock<CodeTier>,
}

impl Inner {
    /// Bits that a block of its own must have: as many of both kinds.
    pub(crate) fn least_entropy(&self) -> f64 {
        self.min_entropy.max(self.min_conditional_entropy)
    }
}

/// What is to be mapped.
#[derive(Clone, Debug, PartialEq)]
pub struct MapRequest {
    /// Bytes, rounded up to whole pages.
    pub size: u64,
    /// Alignment in bytes: a power of two, at least a page whatever this says.
    pub align: u64,
    /// Where every byte must lie; `None` for the allocator's own reach.
    pub reach: Option<Reach>,
    /// Exactly there, or nowhere: a multiple of the alignment, inside the reach.
    pub at: Option<u64>,
    /// Bits below which the request is refused; `None` for the allocator's own minimum.
    pub min_entropy: Option<f64>,
    /// Access at first.
    pub protection: Protection,
    /// What it is for, in snapshots and error texts.
    pub kind: Kind,
    /// Its name there.
    pub label: String,
}

impl MapRequest {
    /// `size` bytes to read and write, wherever the allocator likes.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self {
            size,
            align: 1,
            reach: None,
            at: None,
            min_entropy: None,
            protection: Protection::ReadWrite,
            kind: Kind::Block,
            label: String::new(),
        }
    }
}

impl LowAllocator {
    /// An allocator with the default settings: randomized, reach `2g`.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn new() -> Result<Self, AllocError> {
        Self::builder().build()
    }

    /// Settings to build one from.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Maps fresh zero-filled pages.
    ///
    /// # Errors
    /// See [`AllocError`]; nothing of the request is left mapped.
    pub fn map(&self, request: &MapRequest) -> Result<Mapping, AllocError> {
        let inner = &*self.inner;
        let config = inner.pages.platform.config();
        let size = whole_pages(request.size, config.page_size)?;
        if !request.align.is_power_of_two() {
            return Err(AllocError::BadRequest {
                what: "alignment",
                value: request.align,
                expected: "a power of two",
            });
        }
        let window = match &request.reach {
            Some(reach) => reach.window_above(config, inner.floor)?,
            None => inner.window,
        };
        let (kind, label) = (request.kind, request.label.as_str());
        let min_entropy = request.min_entropy.unwrap_or_else(|| inner.least_entropy());
        let (range, certificate) = match request.at {
            Some(at) => {
                let align = request.align.max(config.granularity);
                let range = fixed_range(at, size, align, window)?;
                if min_entropy > 0.0 {
                    return Err(AllocError::EntropyTooLow {
                        bits: 0.0,
                        minimum: min_entropy,
                        free_slots: 1,
                        advice: "an address of your choice has none; leave out the minimum",
                    });
                }
                let claimed = inner
                    .pages
                    .claim_fixed(range, request.protection, (kind, label));
                (range, claimed?)
            }
            None => inner.pages.claim(&Want {
                size,
                align: request.align,
                window,
                placement: inner.placement,
                min_entropy,
                source: Source::Private(request.protection),
                kind,
                label,
            })?,
        };
        let pages = Arc::clone(&inner.pages);
        Ok(Mapping::new(pages, range, certificate, request.protection))
    }

    /// A uniform number below `n` from the generator that draws addresses; 0 if `n` is 0.
    #[must_use]
    pub fn random_below(&self, n: u64) -> u64 {
        self.inner.pages.random_below(n)
    }

    /// The system it allocates from.
    #[must_use]
    pub fn platform(&self) -> &Arc<dyn Platform> {
        &self.inner.pages.platform
    }

    /// Bytes of a page.
    #[must_use]
    pub fn page_size(&self) -> u64 {
        self.inner.page_size
    }

    /// The addresses that blocks may have unless a request says otherwise.
    #[must_use]
    pub fn window(&self) -> AddrRange {
        self.inner.window
    }

    /// How addresses are chosen.
    #[must_use]
    pub fn placement(&self) -> Placement {
        self.inner.placement
    }

    /// Counters, which are always kept, and what the allocator knows of its window: no system call, but
    /// a walk over what is taken there.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let mut statistics = {
            let state = self.inner.pages.state.lock();
            let mut statistics = state.statistics;
            statistics.look_at(&state.space, self.inner.window);
            statistics
        };
        (statistics.data_arena_bytes, statistics.data_slot_bytes) = self.inner.heap.bytes();
        if let Some(extents) = &self.inner.extents {
            let (chunks, used) = extents.bytes();
            statistics.data_arena_bytes += chunks;
            statistics.data_slot_bytes += used;
        }
        let code = self.inner.code.lock();
        statistics.code_arena_bytes = code.arena_bytes;
        statistics.code_slot_bytes = code.slot_bytes;
        statistics.code_batches_serialized = code.serialized;
        statistics.code_batches_unserialized = code.unserialized;
        statistics
    }

    /// What holds the allocator's window, ours marked; tiles it. Slow: reads the system's map.
    ///
    /// # Errors
    /// The system's map could not be read.
    pub fn snapshot(&self) -> Result<Vec<SnapshotRegion>, PlatformError> {
        self.snapshot_of(self.inner.window)
    }

    /// As [`LowAllocator::snapshot`], of any range.
    ///
    /// # Errors
    /// The system's map could not be read.
    pub fn snapshot_of(&self, range: AddrRange) -> Result<Vec<SnapshotRegion>, PlatformError> {
        snapshot::take(&self.inner.pages, range)
    }
}

/// A request's size in whole pages.
pub(crate) fn whole_pages(size: u64, page: u64) -> Result<u64, AllocError> {
    match align_up(size, page) {
        Some(pages) if pages > 0 => Ok(pages),
        _ => Err(AllocError::BadRequest {
            what: "size",
            value: size,
            expected: "from 1 byte to 2^64 less a page",
        }),
    }
}

/// The range that a request for an exact address means.
fn fixed_range(at: u64, size: u64, align: u64, window: AddrRange) -> Result<AddrRange, AllocError> {
    if !at.is_multiple_of(align) {
        return Err(AllocError::BadRequest {
            what: "address",
            value: at,
            expected: "a multiple of the alignment and of the system's granularity",
        });
    }
    AddrRange::at(at, size)
        .filter(|range| window.encloses(*range))
        .ok_or(AllocError::BadRequest {
            what: "address",
            value: at,
            expected: "one whose block lies inside the reach",
        })
}
