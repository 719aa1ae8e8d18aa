//! Containers in low memory: [`LowAllocator`] as an `allocator_api2` allocator.
//!
//! Invariants: no address of a simulated platform is handed out as memory; a wrong free ends the
//! process with a message, because a container cannot be told of it.

use std::alloc::Layout;
use std::ptr::NonNull;

use allocator_api2::alloc::{AllocError, Allocator};
use low2g_platform::{to_u64, to_usize};

use crate::alloc::allocator::LowAllocator;
use crate::alloc::error::{self, Misuse};

/// An address of ours as a pointer.
fn pointer(addr: u64) -> Option<NonNull<u8>> {
    NonNull::new(std::ptr::with_exposed_provenance_mut(to_usize(addr)))
}

/// Ends the process: memory is not as the program believes.
#[cold]
pub(crate) fn abort(misuse: Misuse) -> ! {
    eprintln!("low2g: {misuse}");
    std::process::abort();
}

impl LowAllocator {
    /// Memory for `layout`; `None` on a simulated platform, or if there is none left.
    #[inline]
    pub(crate) fn memory(&self, layout: Layout, zeroed: bool) -> Option<NonNull<u8>> {
        if self.inner.simulated {
            return None;
        }
        let (size, align) = (to_u64(layout.size()), to_u64(layout.align()));
        let addr = if zeroed {
            self.allocate_raw_zeroed(size, align)
        } else {
            self.allocate_raw(size, align)
        };
        match addr {
            Ok(addr) => pointer(addr),
            Err(error::AllocError::Misuse(misuse)) => abort(misuse),
            Err(_) => None,
        }
    }
}

fn slice(start: NonNull<u8>, len: usize) -> NonNull<[u8]> {
    NonNull::slice_from_raw_parts(start, len)
}

fn allocate(low: &LowAllocator, layout: Layout, zeroed: bool) -> Result<NonNull<[u8]>, AllocError> {
    if layout.size() == 0 {
        let dangling = std::ptr::without_provenance_mut(layout.align());
        return Ok(slice(NonNull::new(dangling).ok_or(AllocError)?, 0));
    }
    let start = low.memory(layout, zeroed).ok_or(AllocError)?;
    Ok(slice(start, layout.size()))
}

/// Bytes of the block at `start` if it may hold `layout`, not empty, where it lies.
///
/// # Safety
/// The block is the caller's, and nothing refers to what lies in it beyond `layout`'s size.
unsafe fn fits(low: &LowAllocator, start: NonNull<u8>, layout: Layout) -> Option<u64> {
    let addr = to_u64(start.addr().get());
    if !addr.is_multiple_of(to_u64(layout.align())) {
        return None;
    }
    // SAFETY: resize_raw needs what this function does.
    unsafe { low.resize_raw(addr, to_u64(layout.size())) }
}

/// Whether the block at `start` may hold `layout` where it lies, and more than half of it is used then.
///
/// # Safety
/// The block is the caller's, and nothing refers to what lies in it beyond `layout`'s size.
pub(crate) unsafe fn fits_well(low: &LowAllocator, start: NonNull<u8>, layout: Layout) -> bool {
    let well = |usable: u64| usable / 2 < to_u64(layout.size());
    // SAFETY: as this function's.
    layout.size() > 0 && unsafe { fits(low, start, layout) }.is_some_and(well)
}

// SAFETY: Allocator needs blocks that stay valid until they are freed or the allocator and all its
// clones are gone, wherever those are moved: blocks belong to the shared `Inner`, which a clone
// keeps alive. A block has at least the bytes and the alignment of its layout.
unsafe impl Allocator for LowAllocator {
    #[inline]
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        allocate(self, layout, false)
    }

    #[inline]
    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        allocate(self, layout, true)
    }

    #[inline]
    unsafe fn deallocate(&self, start: NonNull<u8>, layout: Layout) {
        if layout.size() == 0 {
            return;
        }
        // SAFETY: deallocate_raw needs a block of the caller's from allocate_raw, no more used: what
        // this function's contract says of `start`.
        if let Err(misuse) = unsafe { self.deallocate_raw(to_u64(start.addr().get())) } {
            abort(misuse);
        }
    }

    unsafe fn grow(
        &self,
        start: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: fits needs a block of the caller's, none of which is lost here: this function's contract.
        if old.size() > 0 && unsafe { fits(self, start, new) }.is_some() {
            return Ok(slice(start, new.size()));
        }
        // SAFETY: `move_to` needs a block of `old` that the caller owns: this function's contract.
        unsafe { move_to(self, start, old, new, false) }
    }

    unsafe fn grow_zeroed(
        &self,
        start: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: fits needs a block of the caller's, none of which is lost here: this function's contract.
        if old.size() > 0 && unsafe { fits(self, start, new) }.is_some() {
            // SAFETY: add needs to stay inside the block: the old size does.
            let rest = unsafe { start.add(old.size()) };
            // SAFETY: write_bytes needs writable bytes of the caller's: the block's up to the new size.
            unsafe { rest.write_bytes(0, new.size() - old.size()) };
            return Ok(slice(start, new.size()));
        }
        // SAFETY: as in `grow`.
        unsafe { move_to(self, start, old, new, true) }
    }

    unsafe fn shrink(
        &self,
        start: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: fits_well needs a block of the caller's who gives up what lies beyond the new size: this
        // function's contract.
        if old.size() > 0 && unsafe { fits_well(self, start, new) } {
            return Ok(slice(start, new.size()));
        }
        // SAFETY: as in `grow`.
        unsafe { move_to(self, start, old, new, false) }
    }
}

/// A new block with what fits of the old one, which is freed.
///
/// # Safety
/// `start` is a block of `old` that the caller owns and gives up.
unsafe fn move_to(
    low: &LowAllocator,
    start: NonNull<u8>,
    old: Layout,
    new: Layout,
    zeroed: bool,
) -> Result<NonNull<[u8]>, AllocError> {
    let block = allocate(low, new, zeroed)?;
    let len = old.size().min(new.size());
    // SAFETY: copy_to_nonoverlapping needs both sides valid for `len` bytes and apart: each block has
    // at least as many, and a block in use is apart from a new one.
    unsafe { start.copy_to_nonoverlapping(block.cast(), len) };
    // SAFETY: deallocate needs a block of the caller's with its layout: this function's contract.
    unsafe { low.deallocate(start, old) };
    Ok(block)
}
