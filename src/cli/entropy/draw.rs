//! One more block, by this allocator or by `MAP_32BIT`, and how many starts there were for it.
//!
//! Invariant: what is drawn is held until its [`Held`] is dropped.

use std::sync::Arc;

use low2g::alloc::{LowAllocator, LowBlock, Placement, Step, Use};
use low2g::platform::{AddrRange, ClaimError, Platform, Protection, align_up};

use crate::cli::Failure;

/// Where `MAP_32BIT` searches (arch/x86/kernel/sys_x86_64.c).
const MAP_32BIT_WINDOW: AddrRange = match AddrRange::new(1 << 30, 1 << 31) {
    Some(window) => window,
    None => panic!("bounds in order"),
};

/// Below 2 GiB, whatever the kernel likes.
const BELOW_2G: AddrRange = match AddrRange::new(0, 1 << 31) {
    Some(window) => window,
    None => panic!("bounds in order"),
};

/// Who chooses addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Low2g,
    Map32bit,
}

impl Source {
    pub(super) const ALL: [Self; 2] = [Self::Low2g, Self::Map32bit];

    /// The name in the document.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Low2g => "low2g",
            Self::Map32bit => "map_32bit",
        }
    }
}

/// A block while it is held.
#[derive(Debug)]
#[allow(dead_code, reason = "kept for their drop")]
pub(super) enum Held {
    Block(LowBlock),
    Claim(Claim),
}

/// What `MAP_32BIT` gave.
#[derive(Debug)]
pub(super) struct Claim {
    platform: Arc<dyn Platform>,
    range: AddrRange,
}

impl Drop for Claim {
    fn drop(&mut self) {
        // SAFETY: release needs a claim to which nothing refers: this value claimed the range, it
        // is dropped once, and the memory was never touched.
        let released = unsafe { self.platform.release(self.range) };
        // Others' blocks are then drawn around it; the measurement's own count says so.
        drop(released);
    }
}

/// One address, and how it came.
#[derive(Debug)]
pub(super) struct Draw {
    pub(super) addr: u64,
    pub(super) step: Step,
    pub(super) held: Held,
}

/// Draws blocks of one size.
#[derive(Debug)]
pub(super) struct Drawer {
    allocator: LowAllocator,
    size: u64,
}

impl Drawer {
    pub(super) fn new(size: u64, placement: Placement, seed: Option<u64>) -> Result<Self, Failure> {
        // Without a quarantine draws do not depend on each other.
        let builder = LowAllocator::builder().bare();
        let builder = builder.placement(placement).seed(seed);
        Ok(Self {
            allocator: builder.build()?,
            size,
        })
    }

    pub(super) fn window(&self) -> AddrRange {
        self.allocator.window()
    }

    pub(super) fn page_size(&self) -> u64 {
        self.allocator.page_size()
    }

    /// Bytes between possible starts: what the addresses of this size are multiples of.
    pub(super) fn align(&self) -> Result<u64, Failure> {
        let block = self.allocator.allocate(self.size, 1)?;
        let config = self.allocator.platform().config();
        Ok(match block.certificate().step {
            Step::Arena => (1 << block.usable_size().trailing_zeros()).min(config.page_size),
            _ => config.granularity,
        })
    }

    /// One more block; `None` if `MAP_32BIT` has none left.
    pub(super) fn draw(&self, source: Source) -> Result<Option<Draw>, Failure> {
        if source == Source::Low2g {
            let block = self.allocator.allocate(self.size, 1)?;
            return Ok(Some(Draw {
                addr: block.addr(),
                step: block.certificate().step,
                held: Held::Block(block),
            }));
        }
        let platform = self.allocator.platform();
        let Some(len) = align_up(self.size, self.page_size()) else {
            return Ok(None);
        };
        match platform.claim_low(len, BELOW_2G, Protection::ReadWrite) {
            Ok(range) => Ok(Some(Draw {
                addr: range.start(),
                step: Step::Map32bit,
                held: Held::Claim(Claim {
                    platform: Arc::clone(platform),
                    range,
                }),
            })),
            Err(ClaimError::Refused(error)) => Err(Failure::Other(error.to_string())),
            // Full, or not known to this system: there is nothing to measure.
            Err(_) => Ok(None),
        }
    }

    /// `count` blocks to be held meanwhile; fewer if `MAP_32BIT` has no more.
    pub(super) fn hold(&self, source: Source, count: u32) -> Result<Vec<Held>, Failure> {
        let mut held = Vec::new();
        for _ in 0..count {
            match self.draw(source)? {
                Some(draw) => held.push(draw.held),
                None => break,
            }
        }
        Ok(held)
    }

    /// Start addresses that are free now for one more block, counted on the system's own map.
    /// A small block may also take a free slot of an arena that is there.
    pub(super) fn free_slots(&self, source: Source, align: u64) -> Result<u64, Failure> {
        let (window, size) = match source {
            Source::Low2g => (self.window(), self.size),
            // Other systems' own choices lie anywhere below 2 GiB.
            Source::Map32bit if cfg!(target_os = "linux") => {
                (MAP_32BIT_WINDOW, self.size.max(self.page_size()))
            }
            Source::Map32bit => (BELOW_2G, self.size.max(self.page_size())),
        };
        let align = match source {
            Source::Low2g => align,
            Source::Map32bit => self.allocator.platform().config().granularity,
        };
        let regions = self
            .allocator
            .snapshot_of(window)
            .map_err(|error| Failure::Other(error.to_string()))?;
        let free = regions.iter().filter(|region| region.usage == Use::Free);
        let gaps: u64 = free.map(|region| starts(region.range, size, align)).sum();
        let statistics = self.allocator.statistics();
        if source == Source::Low2g && statistics.data_arena_bytes > 0 {
            let block = self.allocator.allocate(self.size, 1)?;
            if block.certificate().step == Step::Arena {
                return Ok(gaps + block.certificate().free_slots);
            }
        }
        Ok(gaps)
    }
}

/// Possible starts of `size` bytes at multiples of `align` in `gap`.
fn starts(gap: AddrRange, size: u64, align: u64) -> u64 {
    let first = gap.start().next_multiple_of(align);
    match gap.end().checked_sub(size) {
        Some(last) if last >= first => (last - first) / align + 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_those_that_fit() {
        let gap = |start, end| AddrRange::new(start, end).expect("in order");
        assert_eq!(starts(gap(0x1000, 0x5000), 0x1000, 0x1000), 4);
        assert_eq!(starts(gap(0x1001, 0x5000), 0x1000, 0x1000), 3);
        assert_eq!(starts(gap(0x1000, 0x4fff), 0x1000, 0x1000), 3);
        assert_eq!(starts(gap(0x1000, 0x2000), 64, 64), 64);
        assert_eq!(starts(gap(0x1000, 0x1fff), 0x1000, 0x1000), 0);
        assert_eq!(starts(gap(0, 0x100), 0x1000, 0x1000), 0);
    }
}
