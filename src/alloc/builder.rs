//! [`Builder`]: the settings of an allocator, checked when it is built.

use std::sync::Arc;

use low2g_platform::Platform;

use crate::alloc::allocator::{Inner, LowAllocator};
use crate::alloc::code::CodeTier;
use crate::alloc::error::AllocError;
use crate::alloc::extents::Extents;
use crate::alloc::fork;
use crate::alloc::heap::{Heap, HeapSettings};
use crate::alloc::hole::{DEFAULT_HOLE, DEFAULT_ODDS, KeepHole};
use crate::alloc::lock::SpinLock;
use crate::alloc::own::Retired;
use crate::alloc::pages::{Pages, Rooms};
use crate::alloc::policy::Placement;
use crate::alloc::raw::RawOwned;
use crate::alloc::reach::{DEFAULT_FLOOR, HARD_FLOOR, Reach};

/// What an allocator is built from.
#[derive(Clone, Debug)]
pub struct Builder {
    reach: Reach,
    placement: Placement,
    seed: Option<u64>,
    min_entropy: f64,
    floor: u64,
    rooms: Rooms,
    platform: Option<Arc<dyn Platform>>,
    min_conditional_entropy: f64,
    byte_limit: u64,
    keep_hole: Option<u64>,
    hardening: Hardening,
    seal_code: bool,
    global: bool,
}

/// What stands between a bug and its exploit; each costs time or memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hardening {
    /// Inaccessible pages around blocks of their own.
    pub(crate) guards: bool,
    /// And around arenas.
    pub(crate) arena_guards: bool,
    /// Freed slots of each size (and shard) that wait before they are used again.
    pub(crate) late_slots: usize,
    /// Bytes of freed blocks of their own that wait, inaccessible.
    pub(crate) late_bytes: u64,
    /// Freed slots are cleared, and checked when they are used again.
    pub(crate) clear_on_free: bool,
}

impl Hardening {
    const BARE: Self = Self {
        guards: false,
        arena_guards: false,
        late_slots: 0,
        late_bytes: 0,
        clear_on_free: false,
    };
    const DEFAULT: Self = Self {
        guards: true,
        late_slots: 64,
        late_bytes: 32 << 20,
        ..Self::BARE
    };
    const HARDENED: Self = Self {
        guards: true,
        arena_guards: true,
        late_slots: 256,
        late_bytes: 64 << 20,
        clear_on_free: true,
    };
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            reach: Reach::default(),
            placement: Placement::default(),
            seed: None,
            min_entropy: 0.0,
            floor: DEFAULT_FLOOR,
            rooms: Rooms::default(),
            platform: None,
            min_conditional_entropy: 0.0,
            byte_limit: u64::MAX,
            keep_hole: None,
            hardening: Hardening::DEFAULT,
            seal_code: false,
            global: false,
        }
    }
}

impl Builder {
    /// Preset: placement as chosen, no guards, no quarantine; the fastest.
    #[must_use]
    pub fn bare(mut self) -> Self {
        self.hardening = Hardening::BARE;
        self
    }

    /// Preset: guards around blocks of their own and around arenas; longer quarantines; freed slots
    /// are cleared, and an allocation that finds one written to is refused
    /// ([`Misuse::WrittenAfterFree`](crate::alloc::Misuse)).
    ///
    /// Without this and [`Builder::bare`]: guards around blocks of their own, short quarantines.
    #[must_use]
    pub fn hardened(mut self) -> Self {
        self.hardening = Hardening::HARDENED;
        self
    }

    /// Whether blocks with pages of their own have an inaccessible page before and after them
    /// (default: yes).
    #[must_use]
    pub fn guards(mut self, guards: bool) -> Self {
        self.hardening.guards = guards;
        self
    }

    /// How much that was freed waits before it is used again: `slots` small blocks of each size
    /// (in each of 8 shards), `bytes` of blocks with pages of their own. 0 and 0 for none.
    #[must_use]
    pub fn quarantine(mut self, slots: usize, bytes: u64) -> Self {
        self.hardening.late_slots = slots;
        self.hardening.late_bytes = bytes;
        self
    }

    /// Bits of conditional entropy (for one who knows all other live addresses) below which a
    /// request is refused (default 0).
    #[must_use]
    pub fn min_conditional_entropy(mut self, bits: f64) -> Self {
        self.min_conditional_entropy = bits;
        self
    }

    /// Bytes of address space that the allocator may hold in all, views and guards counted
    /// (default: no limit).
    #[must_use]
    pub fn byte_limit(mut self, bytes: u64) -> Self {
        self.byte_limit = bytes;
        self
    }

    /// Bytes of one free stretch, placed at random, that smaller blocks avoid while others fit, so
    /// that a large block still does among many small ones (0 for none). Certificates count what
    /// that costs. The default, 32 MiB, is avoided only where that costs less than 0.1 bits. Only with
    /// randomized placement: first fit leaves its hole at the top.
    #[must_use]
    pub fn keep_hole(mut self, bytes: u64) -> Self {
        self.keep_hole = Some(bytes);
        self
    }

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
        self.rooms.brk = Some(bytes);
        self
    }

    /// Bytes to keep clear below the main stack where that lies in the window (default: what the
    /// platform keeps, on Linux what the stack's limit allows it to grow).
    #[must_use]
    pub fn stack_room(mut self, bytes: u64) -> Self {
        self.rooms.stack = Some(bytes);
        self
    }

    /// The system to allocate from (default: this process's own).
    #[must_use]
    pub fn platform(mut self, platform: Arc<dyn Platform>) -> Self {
        self.platform = Some(platform);
        self
    }

    /// Whether the views that execute are made final (`mseal`, Linux 6.10): nothing in the process,
    /// this allocator included, can unmap them, map over them or change their access until it ends
    /// (default: no).
    ///
    /// The cost: their address space is never given back. Functions can still be freed and their
    /// slots used again, but an arena stays when it is empty, also after the allocator is gone.
    #[must_use]
    pub fn seal_code(mut self, seal: bool) -> Self {
        self.seal_code = seal;
        self
    }

    /// For an allocator that serves others' bookkeeping.
    pub(crate) fn behind_global(mut self) -> Self {
        self.global = true;
        self
    }

    /// Builds the allocator. Maps nothing yet.
    ///
    /// # Errors
    /// [`AllocError::NoLowWindow`] or [`AllocError::EmptyReach`] if the reach holds no usable
    /// address here; [`AllocError::BadRequest`] for a floor below [`HARD_FLOOR`] or a minimum
    /// that is not a number; [`AllocError::Unsupported`] if views are to be sealed and this system
    /// cannot do that; [`AllocError::Platform`] if this system cannot be used.
    pub fn build(self) -> Result<LowAllocator, AllocError> {
        if self.floor < HARD_FLOOR {
            return Err(AllocError::BadRequest {
                what: "floor",
                value: self.floor,
                expected: "at least 64 KiB (0x10000)",
            });
        }
        for minimum in [self.min_entropy, self.min_conditional_entropy] {
            if minimum.is_nan() {
                return Err(AllocError::BadRequest {
                    what: "minimum entropy",
                    value: minimum.to_bits(),
                    expected: "a number of bits",
                });
            }
        }
        let inner = fork::admit(|| self.make())?;
        Ok(LowAllocator { inner })
    }

    fn make(self) -> Result<Inner, AllocError> {
        let platform = match self.platform {
            Some(platform) => platform,
            None => low2g_platform::native()?,
        };
        let window = self.reach.window_above(platform.config(), self.floor)?;
        let hardening = self.hardening;
        if self.seal_code && !platform.config().capabilities.seal {
            return Err(AllocError::Unsupported { call: "mseal" });
        }
        let random = self.placement != Placement::FirstFit;
        let has_minimum = self.min_entropy > 0.0 || self.min_conditional_entropy > 0.0;
        let settings = HeapSettings {
            random,
            late: hardening.late_slots,
            clear_on_free: hardening.clear_on_free,
            checked: has_minimum || hardening.clear_on_free,
        };
        // Runs have neither guards nor a quarantine nor random places.
        let plain = !random && !has_minimum && hardening == Hardening::BARE;
        let bytes = self.keep_hole.unwrap_or(DEFAULT_HOLE);
        let keeps = bytes > 0 && self.placement == Placement::Randomized;
        let hole = keeps.then_some(KeepHole {
            bytes,
            least_odds: self.keep_hole.map_or(DEFAULT_ODDS, |_| 0),
            window,
        });
        let pages = Pages::new(
            Arc::clone(&platform),
            self.rooms,
            self.seed,
            self.byte_limit,
            hole,
        );
        let seed = pages.state.lock().random.derive(u64::MAX - 1);
        let random = random.then(|| pages.state.lock().random.derive(u64::MAX - 2));
        let code = CodeTier::new(&*platform, random, hardening.late_slots);
        Ok(Inner {
            min_conditional_entropy: self.min_conditional_entropy,
            page_size: platform.config().page_size,
            simulated: platform.is_simulated(),
            heap: Heap::new(Arc::clone(&platform), window, seed, settings)?,
            extents: plain.then(Extents::new),
            raw_owned: RawOwned::default(),
            retired: Retired::new(hardening.late_bytes),
            hardening,
            global: self.global,
            pages: Arc::new(pages),
            placement: self.placement,
            min_entropy: self.min_entropy,
            floor: self.floor,
            window,
            seal_code: self.seal_code,
            raw_code: SpinLock::default(),
            code: SpinLock::new(code),
        })
    }
}
