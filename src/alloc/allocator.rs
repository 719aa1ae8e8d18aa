//! [`LowAllocator`]: the value that hands out low memory, and its [`Builder`].
//!
//! Cloning it is cheap and shares everything. Mappings keep the page level
//! alive, blocks all of it, so the order in which they are dropped is free.

use std::sync::Arc;

use low2g_platform::{AddrRange, Platform, PlatformError, Protection, align_up};
use parking_lot::Mutex;

use crate::alloc::block::DataArena;
use crate::alloc::claim::{Source, Want};
use crate::alloc::code_arena::CodeArena;
use crate::alloc::error::AllocError;
use crate::alloc::mapping::Mapping;
use crate::alloc::pages::Pages;
use crate::alloc::policy::Placement;
use crate::alloc::reach::{DEFAULT_FLOOR, HARD_FLOOR, Reach};
use crate::alloc::slots::Tier;
use crate::alloc::snapshot::{self, SnapshotRegion};
use crate::alloc::space::{Kind, Owned};
use crate::alloc::statistics::Statistics;

/// What an allocator is built from.
#[derive(Clone, Debug)]
pub struct Builder {
    reach: Reach,
    placement: Placement,
    seed: Option<u64>,
    min_entropy: f64,
    floor: u64,
    brk_room: Option<u64>,
    platform: Option<Arc<dyn Platform>>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            reach: Reach::default(),
            placement: Placement::default(),
            seed: None,
            min_entropy: 0.0,
            floor: DEFAULT_FLOOR,
            brk_room: None,
            platform: None,
        }
    }
}

impl Builder {
    /// The addresses that blocks may have unless a request says otherwise (default `2g`).
    #[must_use]
    pub fn reach(mut self, reach: Reach) -> Self {
        self.reach = reach;
        self
    }

    /// How addresses are chosen (default at random).
    #[must_use]
    pub fn placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// A seed makes the same requests draw the same addresses, for tests; certificates then say 0 bits.
    #[must_use]
    pub fn seed(mut self, seed: Option<u64>) -> Self {
        self.seed = seed;
        self
    }

    /// Bits of entropy below which a request is refused (default 0).
    #[must_use]
    pub fn min_entropy(mut self, bits: f64) -> Self {
        self.min_entropy = bits;
        self
    }

    /// Lowest address of `2g`, `2g-full` and `4g`, in bytes (default [`DEFAULT_FLOOR`], at least [`HARD_FLOOR`]).
    #[must_use]
    pub fn floor(mut self, floor: u64) -> Self {
        self.floor = floor;
        self
    }

    /// Bytes to keep clear above brk (default: what the platform keeps, 128 MiB on Linux).
    #[must_use]
    pub fn brk_room(mut self, bytes: u64) -> Self {
        self.brk_room = Some(bytes);
        self
    }

    /// The system to allocate from (default: this process's own).
    #[must_use]
    pub fn platform(mut self, platform: Arc<dyn Platform>) -> Self {
        self.platform = Some(platform);
        self
    }

    /// Builds the allocator. Maps nothing yet.
    ///
    /// # Errors
    /// [`AllocError::NoLowWindow`] or [`AllocError::EmptyReach`] if the reach holds no usable
    /// address here; [`AllocError::BadRequest`] for a floor below [`HARD_FLOOR`] or a minimum
    /// that is not a number; [`AllocError::Platform`] if this system cannot be used.
    pub fn build(self) -> Result<LowAllocator, AllocError> {
        if self.floor < HARD_FLOOR {
            return Err(AllocError::BadRequest {
                what: "floor",
                value: self.floor,
                expected: "at least 64 KiB (0x10000)",
            });
        }
        if self.min_entropy.is_nan() {
            return Err(AllocError::BadRequest {
                what: "minimum entropy",
                value: self.min_entropy.to_bits(),
                expected: "a number of bits",
            });
        }
        let platform = match self.platform {
            Some(platform) => platform,
            None => low2g_platform::native()?,
        };
        let window = self.reach.window_above(platform.config(), self.floor)?;
        Ok(LowAllocator {
            inner: Arc::new(Inner {
                pages: Arc::new(Pages::new(platform, self.brk_room, self.seed)),
                placement: self.placement,
                min_entropy: self.min_entropy,
                floor: self.floor,
                window,
                data: Mutex::default(),
                code: Mutex::default(),
            }),
        })
    }
}

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
    // Lock order: a tier's lock is taken before the pages', never after.
    pub(crate) data: Mutex<Tier<DataArena>>,
    pub(crate) code: Mutex<Tier<CodeArena>>,
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
        let owned = Owned {
            kind: request.kind,
            label: request.label.as_str().into(),
        };
        let min_entropy = request.min_entropy.unwrap_or(inner.min_entropy);
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
                let claimed = inner.pages.claim_fixed(range, request.protection, owned);
                (range, claimed?)
            }
            None => inner.pages.claim(&Want {
                size,
                align: request.align,
                window,
                placement: inner.placement,
                min_entropy,
                source: Source::Private(request.protection),
                owned,
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
        self.platform().config().page_size
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

    /// Counters; cheap.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let mut statistics = self.inner.pages.state.lock().statistics;
        let data = self.inner.data.lock();
        statistics.data_arena_bytes = data.arena_bytes;
        statistics.data_slot_bytes = data.slot_bytes;
        drop(data);
        let code = self.inner.code.lock();
        statistics.code_arena_bytes = code.arena_bytes;
        statistics.code_slot_bytes = code.slot_bytes;
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
    align_up(size, page)
        .filter(|size| *size > 0)
        .ok_or(AllocError::BadRequest {
            what: "size",
            value: size,
            expected: "from 1 byte to 2^64 less a page",
        })
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
