//! [`LowGlobal`]: low memory as a program's global allocator.
//!
//! Invariants:
//! - our own bookkeeping never asks the global allocator: while a thread is inside this one (a flag
//!   without a destructor says so), its requests go to the system's, which also serves before low
//!   memory can be had and when it is exhausted;
//! - a free goes to whom the address belongs to.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::OnceLock;

use low2g_platform::to_u64;

use crate::alloc::allocator::LowAllocator;
use crate::alloc::builder::Builder;
use crate::alloc::containers::{abort, fits_well};
use crate::alloc::error::Misuse;
use crate::alloc::fork;
use crate::alloc::statistics::Statistics;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// A global allocator: `#[global_allocator] static LOW: LowGlobal = LowGlobal::new();`
///
/// What cannot be had below 2 GiB comes from the system's allocator.
#[derive(Debug)]
pub struct LowGlobal {
    settings: fn() -> Builder,
    low: OnceLock<Option<LowAllocator>>,
}

/// That this thread is inside; ends with it.
pub(crate) struct Entered;

impl Entered {
    /// `None` if it is inside already.
    #[inline]
    pub(crate) fn new() -> Option<Self> {
        INSIDE.with(|inside| {
            if inside.get() {
                return None;
            }
            inside.set(true);
            Some(Self)
        })
    }
}

impl Drop for Entered {
    #[inline]
    fn drop(&mut self) {
        INSIDE.with(|inside| inside.set(false));
    }
}

impl LowGlobal {
    /// One with the default settings.
    #[must_use]
    pub const fn new() -> Self {
        Self::with(Builder::default)
    }

    /// One with the settings that `settings` gives; called at the first allocation.
    #[must_use]
    pub const fn with(settings: fn() -> Builder) -> Self {
        Self {
            settings,
            low: OnceLock::new(),
        }
    }

    /// Counters of the allocator behind it; `None` if this system has no low memory.
    ///
    /// The allocator itself is not lent out: its bookkeeping would ask the global allocator, which
    /// is itself, with its locks held.
    pub fn statistics(&self) -> Option<Statistics> {
        let _inside = Entered::new();
        self.low().map(LowAllocator::statistics)
    }

    #[inline]
    fn low(&self) -> Option<&LowAllocator> {
        match self.low.get() {
            Some(low) => low.as_ref(),
            None => self.build(),
        }
    }

    #[cold]
    fn build(&self) -> Option<&LowAllocator> {
        let build = || (self.settings)().behind_global().build().ok();
        fork::uninterrupted(|| self.low.get_or_init(build).as_ref())
    }

    /// Whether the block at `start` may hold `layout` where it lies, without much waste.
    ///
    /// # Safety
    /// The block is the caller's, and nothing refers to what lies in it beyond `layout`'s size.
    unsafe fn fits(&self, start: *mut u8, layout: Layout) -> bool {
        let (Some(_inside), Some(Some(low)), Some(start)) =
            (Entered::new(), self.low.get(), NonNull::new(start))
        else {
            return false;
        };
        // SAFETY: as this function's.
        unsafe { fits_well(low, start, layout) }
    }

    #[inline]
    fn memory(&self, layout: Layout, zeroed: bool) -> Option<*mut u8> {
        let _inside = Entered::new()?;
        let memory = self.low()?.memory(layout, zeroed)?;
        Some(memory.as_ptr())
    }
}

impl Default for LowGlobal {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: GlobalAlloc needs blocks that fit their layout and stay valid until freed: those of
// `LowAllocator`, which lives as long as this static does, or the system's; and that it does not
// unwind: nothing below panics but on a broken invariant, which aborts in an allocation.
unsafe impl GlobalAlloc for LowGlobal {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.memory(layout, false).unwrap_or_else(|| {
            // SAFETY: System.alloc needs a layout that is not empty: the caller's promise.
            unsafe { System.alloc(layout) }
        })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.memory(layout, true).unwrap_or_else(|| {
            // SAFETY: System.alloc_zeroed needs a layout that is not empty: the caller's promise.
            unsafe { System.alloc_zeroed(layout) }
        })
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: from_size_align_unchecked needs a size that is no more than isize::MAX when it is
        // rounded up to the alignment: the caller's promise.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: fits needs a block of the caller's, who gives up what lies beyond the new size.
        if unsafe { self.fits(start, new) } {
            return start;
        }
        // SAFETY: alloc needs a layout that is not empty: the caller's promise.
        let moved = unsafe { self.alloc(new) };
        if moved.is_null() {
            return moved;
        }
        // SAFETY: copy_from_nonoverlapping needs both sides valid for so many bytes and apart: a block
        // in use is apart from a new one, and each has as many.
        unsafe { moved.copy_from_nonoverlapping(start, layout.size().min(size)) };
        // SAFETY: dealloc needs a block of ours with its layout: the caller's promise.
        unsafe { self.dealloc(start, layout) };
        moved
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // What bookkeeping frees was the system's: it is allocated inside, too.
        if let Some(_inside) = Entered::new()
            && let Some(Some(low)) = self.low.get()
        {
            // SAFETY: deallocate_raw needs that a block of ours there is the caller's and no more
            // used: the caller's promise.
            match unsafe { low.deallocate_raw(to_u64(start.addr())) } {
                Ok(()) => return,
                Err(Misuse::NotOurs { .. }) => {}
                Err(misuse) => abort(misuse),
            }
        }
        // SAFETY: System.dealloc needs a block of its own with its layout: it is not ours.
        unsafe { System.dealloc(start, layout) };
    }
}
