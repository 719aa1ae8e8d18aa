//! The anchor: one inaccessible page at the bottom of the low window.
//!
//! Without a mapping below it, unmapping a block lets the kernel free the page
//! tables above, which interrupts every core that runs the process even if the
//! block was never touched: 15 to 20 us against 4 us (measured on 6.18). The
//! anchor is mapped at the first low claim and stays until the platform is
//! dropped.

use super::abi;
use super::{LinuxPlatform, Syscalls};
use crate::range::AddrRange;

impl<S: Syscalls> LinuxPlatform<S> {
    /// Maps the anchor if `wanted` is the first low claim. Its absence costs time only, so a
    /// refusal is no error; an occupied page (another platform's anchor) serves as well.
    pub(super) fn ensure_anchor(&self, wanted: AddrRange) {
        let Ok(window) = self.config.low_window else {
            return;
        };
        if !self.options.anchor || wanted.start() >= window.end() {
            return;
        }
        self.anchor.get_or_init(|| {
            let page = AddrRange::at(window.start(), self.config.page_size)?;
            let flags = abi::MAP_PRIVATE
                | abi::MAP_ANONYMOUS
                | abi::MAP_NORESERVE
                | abi::MAP_FIXED_NOREPLACE;
            let at = self
                .sys
                .mmap(page.start(), page.len(), abi::PROT_NONE, flags, -1, 0)
                .ok()?;
            if at == page.start() {
                return Some(page);
            }
            // An old kernel's hint: not where it is needed. What cannot be unmapped is one idle page.
            let _ = self.unmap_fresh(at, page.len());
            None
        });
    }

    /// Where the anchor lies; `None` before the first low claim, or if it could not be had.
    #[must_use]
    pub fn anchor(&self) -> Option<AddrRange> {
        self.anchor.get().copied().flatten()
    }

    /// Gives the anchor back.
    pub(super) fn drop_anchor(&mut self) {
        if let Some(page) = self.anchor.take().flatten() {
            // Nobody is left to be told; at worst one inaccessible page stays.
            let _ = self.unmap_fresh(page.start(), page.len());
        }
    }
}
