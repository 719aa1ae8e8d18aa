//! From an address to the arena it lies in, without a lock: what frees by address start from.
//!
//! ```text
//!   near   one pointer a granule of the window's first 8 GiB: nearly always all of it
//!   far    [ leaf | - | leaf ]      one leaf a GiB beyond that, made when it is first needed
//! ```
//!
//! They are zeroed memory that is never touched but where used; not to have it is an error like any
//! other. Arenas begin at multiples of a granule, so that none shares one with another; what lies
//! behind an arena in its last granule is not the arena's, though the entry says so. A granule is so
//! large because frees are as fast as the entries stay in the first cache: an arena has four.
//!
//! Invariant: an entry is set before any address of its granule is handed out, and cleared after
//! the last one came back, so whoever frees what is his reads the entry that it was given under.

use std::alloc::Layout;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use low2g_platform::{AddrRange, to_u64, to_usize};

use crate::alloc::error::AllocError;

/// Bytes that the near table may cover.
const NEAR: u64 = 8 << 30;
/// Bytes that a leaf covers.
const LEAF: u64 = 1 << 30;

/// log2 of the bytes that an entry covers.
const SHIFT: u32 = 16;

/// What arenas must begin at multiples of, in bytes.
pub(crate) const GRANULE: u64 = 1 << SHIFT;

type Leaf<T> = OnceLock<Box<[AtomicPtr<T>]>>;

/// A pointer for each granule of a window.
#[repr(C)]
pub(crate) struct GranuleIndex<T> {
    near: Box<[AtomicPtr<T>]>,
    /// In whole granules.
    window: AddrRange,
    far: Box<[Leaf<T>]>,
}

impl<T> fmt::Debug for GranuleIndex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not its million entries.
        f.debug_struct("GranuleIndex")
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}

impl<T> GranuleIndex<T> {
    pub(crate) fn new(window: AddrRange) -> Result<Self, AllocError> {
        let start = window.start() & !(GRANULE - 1);
        let window = AddrRange::new(start, window.end()).expect("it starts no later");
        let leaves = window.len().saturating_sub(NEAR).div_ceil(LEAF);
        Ok(Self {
            window,
            near: table_of(to_usize(window.len().min(NEAR).div_ceil(1 << SHIFT)))?,
            far: (0..leaves).map(|_| OnceLock::new()).collect(),
        })
    }

    /// Makes the leaves in which `range` is to be entered.
    pub(crate) fn prepare(&self, range: AddrRange) -> Result<(), AllocError> {
        let Some(last) = (range.end() - 1 - self.window.start()).checked_sub(NEAR) else {
            return Ok(());
        };
        let first = (range.start() - self.window.start()).saturating_sub(NEAR);
        for leaf in &self.far[to_usize(first / LEAF)..=to_usize(last / LEAF)] {
            if leaf.get().is_none() {
                // Another thread's may have come first, then this one is dropped.
                let _ = leaf.set(table_of(to_usize(LEAF >> SHIFT))?);
            }
        }
        Ok(())
    }

    /// As `get`, of the near ones only.
    #[inline(always)]
    pub(crate) fn get_near(&self, addr: u64) -> *mut T {
        // What lies below the window wraps to beyond the table.
        let granule = addr.wrapping_sub(self.window.start()) >> SHIFT;
        self.near
            .get(to_usize(granule))
            .map_or(std::ptr::null_mut(), |entry| entry.load(Ordering::Acquire))
    }

    /// What was entered for the granule of `addr`; null for nothing.
    pub(crate) fn get(&self, addr: u64) -> *mut T {
        let entry = self.get_near(addr);
        if !entry.is_null() || !self.window.contains(addr) {
            return entry;
        }
        let Some(offset) = (addr - self.window.start()).checked_sub(NEAR) else {
            return entry;
        };
        let leaf = self.far[to_usize(offset / LEAF)].get();
        leaf.map_or(entry, |leaf| {
            leaf[to_usize((offset % LEAF) >> SHIFT)].load(Ordering::Acquire)
        })
    }

    /// Enters `what`, null for nothing, for every granule of `range`, which lies in the window, was
    /// prepared, and begins at a multiple of a granule.
    pub(crate) fn set(&self, range: AddrRange, what: *mut T) {
        let mut offset = range.start() - self.window.start();
        while offset < range.end() - self.window.start() {
            let (table, offset_in) = match offset.checked_sub(NEAR) {
                None => (&self.near, offset),
                Some(far) => {
                    let leaf = self.far[to_usize(far / LEAF)].get();
                    (leaf.expect("its leaves were prepared"), far % LEAF)
                }
            };
            table[to_usize(offset_in >> SHIFT)].store(what, Ordering::Release);
            offset += GRANULE;
        }
    }
}

/// So many null pointers.
fn table_of<T>(len: usize) -> Result<Box<[AtomicPtr<T>]>, AllocError> {
    if len == 0 {
        return Ok(Box::default());
    }
    let full = AllocError::NoBookkeeping {
        what: "a table of arenas",
        bytes: to_u64(len) * to_u64(size_of::<AtomicPtr<T>>()),
    };
    let Ok(layout) = Layout::array::<AtomicPtr<T>>(len) else {
        return Err(full);
    };
    // Zeroed by the allocator: from the system's fresh pages, most of which are never touched.
    // SAFETY: alloc_zeroed needs a layout that is not empty: `len` is not 0, nor is a pointer.
    let start = unsafe { std::alloc::alloc_zeroed(layout) };
    if start.is_null() {
        return Err(full);
    }
    let words = std::ptr::slice_from_raw_parts_mut(start.cast::<AtomicPtr<T>>(), len);
    // SAFETY: Box::from_raw needs memory of the global allocator of the value's layout, with a
    // valid value in it: that was just allocated so, and all bits zero are null pointers.
    Ok(unsafe { Box::from_raw(words) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn granules_name_what_stands_for_them() {
        let start = 0x1000_0000;
        let end = start + NEAR + 3 * LEAF / 2;
        let window = AddrRange::new(start + 0x3000, end).expect("in order");
        let index = GranuleIndex::<u8>::new(window).expect("memory for its tables");
        let mut what = 7_u8;
        let what = &raw mut what;
        // Over the border of the near table, and of two leaves.
        for border in [start + NEAR, start + NEAR + LEAF, start + LEAF] {
            let (start, end) = (border - 2 * GRANULE, border + GRANULE + 0x3000);
            let arena = AddrRange::new(start, end).expect("in order");
            assert!(index.get(arena.start()).is_null());
            index.prepare(arena).expect("memory for a leaf");
            index.set(arena, what);
            assert_eq!(index.get(arena.start()), what);
            assert_eq!(index.get(arena.end() - 1), what);
            assert!(index.get(arena.start() - 1).is_null());
            assert_eq!(index.get(border + 2 * GRANULE - 1), what);
            assert!(index.get(border + 2 * GRANULE).is_null());
            index.set(arena, std::ptr::null_mut());
            assert!(index.get(border).is_null());
        }
        for outside in [0, start - 1, window.end(), u64::MAX] {
            assert!(index.get(outside).is_null());
            assert!(index.get_near(outside).is_null());
        }
    }
}
