//! [`Builder`]: the settings of an allocator, checked when it is built.

use std::sync::Arc;

use low2g_platform::Platform;
use parking_lot::Mutex;

use crate::alloc::allocator::{Inner, LowAllocator};
use crate::alloc::error::AllocError;
use crate::alloc::pages::Pages;
use crate::alloc::policy::Placement;
use crate::alloc::reach::{DEFAULT_FLOOR, HARD_FLOOR, Reach};

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
