//! From a page to the arena that holds it, without a lock: what frees by address start from.
//!
//! ```text
//!   root [ leaf | - | leaf ]      one entry a GiB of the window, made when first needed
//!            \ one u32 a page: 0, or the arena's number plus one
//! ```
//!
//! Invariant: an entry is set before any address of its page is handed out, and cleared after
//! the last one came back, so whoever frees what is his reads the entry that it was given under.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use low2g_platform::{AddrRange, to_usize};

/// Bytes that a leaf covers.
const LEAF: u64 = 1 << 30;

type Leaf = Box<[AtomicU32]>;

/// An arena's number for each page of a window.
pub(crate) struct PageIndex {
    window: AddrRange,
    page_shift: u32,
    root: Box<[OnceLock<Leaf>]>,
}

impl fmt::Debug for PageIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not its million entries.
        f.debug_struct("PageIndex")
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}

impl PageIndex {
    pub(crate) fn new(window: AddrRange, page: u64) -> Self {
        let leaves = to_usize(window.len().div_ceil(LEAF));
        Self {
            window,
            page_shift: page.trailing_zeros(),
            root: (0..leaves).map(|_| OnceLock::new()).collect(),
        }
    }

    /// The arena that holds `addr`.
    #[inline]
    pub(crate) fn get(&self, addr: u64) -> Option<u32> {
        let offset = addr.checked_sub(self.window.start())?;
        let leaf = self.root.get(to_usize(offset / LEAF))?.get()?;
        let entry = leaf.get(to_usize((offset % LEAF) >> self.page_shift))?;
        entry.load(Ordering::Acquire).checked_sub(1)
    }

    /// Enters `arena` (or nothing) for every page of `range`, which lies in the window.
    pub(crate) fn set(&self, range: AddrRange, arena: Option<u32>) {
        let entry = arena.map_or(0, |arena| arena + 1);
        let mut offset = range.start() - self.window.start();
        while offset < range.end() - self.window.start() {
            let leaf = self.root[to_usize(offset / LEAF)].get_or_init(|| self.leaf());
            let page = to_usize((offset % LEAF) >> self.page_shift);
            leaf[page].store(entry, Ordering::Release);
            offset += 1 << self.page_shift;
        }
    }

    fn leaf(&self) -> Leaf {
        // From the system's zeroed pages: most of it is never touched.
        let words = vec![0_u32; to_usize(LEAF >> self.page_shift)].into_boxed_slice();
        let words = Box::into_raw(words) as *mut [AtomicU32];
        // SAFETY: Box::from_raw needs a box's pointer of the same layout: AtomicU32 has that of
        // u32 ("same size, alignment and bit validity"), and the box was just given up.
        unsafe { Box::from_raw(words) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_name_their_arena() {
        let window = AddrRange::new(0x1000_0000, 0x1_2000_0000).expect("in order");
        let index = PageIndex::new(window, 4096);
        // Over the border of two leaves.
        let arena = AddrRange::new(0x4fff_e000, 0x5000_3000).expect("in order");
        assert_eq!(index.get(arena.start()), None);
        index.set(arena, Some(0));
        assert_eq!(index.get(arena.start()), Some(0));
        assert_eq!(index.get(arena.end() - 1), Some(0));
        assert_eq!(index.get(arena.start() - 1), None);
        assert_eq!(index.get(arena.end()), None);
        index.set(arena, None);
        assert_eq!(index.get(0x5000_0000), None);
        for outside in [0, 0xfff_ffff, 0x1_2000_0000, u64::MAX] {
            assert_eq!(index.get(outside), None);
        }
    }
}
