//! Code arenas: pages with a low view that executes and a high one that is written.
//!
//! ```text
//!   write view, high   | guard | slot | slot | slot ...     | guard |
//!                               \      same pages           \
//!   exec view, low             | slot | slot | slot ...     |          (with guards where asked for)
//! ```
//!
//! Invariants:
//! - the views are at unrelated random addresses; both go when the arena does, except an exec view
//!   that was sealed, which stays until the process ends;
//! - a page is populated, and filled with `int3`, before a slot on it is handed out;
//! - `used` counts the marks; what a fork found used (`shared`) is never written again: a child may
//!   be running it. An arena without a write view was inherited: nothing is taken from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use low2g_platform::{AddrRange, PlatformError, Protection, align_down, to_usize};

use crate::alloc::block::part;
use crate::alloc::certificate::{Certificate, log2};
use crate::alloc::mapping::Mapping;
use crate::alloc::pages::Pages;

/// The x86 breakpoint instruction: what fresh and freed slots hold.
const INT3: u8 = 0xcc;

/// A claim of a view that is given back on drop.
#[derive(Debug)]
pub(super) struct View {
    pub(super) pages: Arc<Pages>,
    pub(super) range: AddrRange,
    /// Whether nothing is to be given back: it was sealed, or another owner does that.
    pub(super) kept: bool,
}

impl Drop for View {
    fn drop(&mut self) {
        if !self.kept {
            self.pages.release(self.range);
        }
    }
}

/// One word of marks for 64 slots.
#[derive(Clone, Copy, Debug, Default)]
struct Marks {
    used: u64,
    /// Used when a fork happened.
    shared: u64,
    /// Held code before.
    reused: u64,
}

/// Slots for functions, or for a large one.
#[derive(Debug)]
pub(super) struct CodeArena {
    exec: View,
    write: Option<View>,
    /// Address of the first slot in each view.
    base: u64,
    write_base: u64,
    certificate: Certificate,
    slot: u64,
    count: u32,
    used: u32,
    marks: Box<[Marks]>,
    /// One bit a page.
    populated: Box<[u64]>,
    ever_shared: bool,
}

/// What an arena is made of.
pub(super) struct Views {
    pub(super) exec: View,
    pub(super) write: View,
    /// Where the slots start and end where they execute.
    pub(super) slots: AddrRange,
    /// Where they start in the write view.
    pub(super) write_base: u64,
    pub(super) certificate: Certificate,
}

impl CodeArena {
    pub(super) fn new(views: Views, slot: u64) -> Self {
        let count = u32::try_from(views.slots.len() / slot).expect("slots are not that many");
        let pages = views.slots.len() / views.exec.pages.platform.config().page_size;
        let words = |bits: u64| to_usize(bits.div_ceil(64));
        Self {
            base: views.slots.start(),
            write_base: views.write_base,
            certificate: views.certificate,
            exec: views.exec,
            write: Some(views.write),
            slot,
            count,
            used: 0,
            marks: vec![Marks::default(); words(count.into())].into(),
            populated: vec![0; words(pages)].into(),
            ever_shared: false,
        }
    }

    pub(super) fn base(&self) -> u64 {
        self.base
    }

    pub(super) fn slot(&self) -> u64 {
        self.slot
    }

    /// Bytes of slots.
    pub(super) fn bytes(&self) -> u64 {
        self.slot * u64::from(self.count)
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    pub(super) fn used(&self) -> u32 {
        self.used
    }

    pub(super) fn certificate(&self) -> Certificate {
        self.certificate
    }

    /// Bits of an address in it, for one who knows nothing of ours: its own odds times those of one
    /// slot, summed over the bases that cover it.
    pub(super) fn bits(&self) -> f64 {
        let covering = self.bytes() / self.exec.pages.platform.config().granularity;
        self.certificate.entropy_bits + log2(self.count.into()) - log2(covering.max(1))
    }

    /// Whether its exec view is final.
    pub(super) fn is_sealed(&self) -> bool {
        self.exec.kept
    }

    /// Whether it came from the parent of this process.
    pub(super) fn is_inherited(&self) -> bool {
        self.write.is_none()
    }

    /// Slot `index` where it executes.
    pub(super) fn exec_slot(&self, index: u32) -> AddrRange {
        part(self.base + u64::from(index) * self.slot, self.slot)
    }

    /// Slot `index` where it is written.
    pub(super) fn write_slot(&self, index: u32) -> AddrRange {
        part(self.write_base + u64::from(index) * self.slot, self.slot)
    }

    /// Marks a free slot used; says whether it held code before.
    pub(super) fn take(&mut self, index: u32) -> bool {
        let (word, bit) = split(index);
        let marks = &mut self.marks[word];
        let reused = marks.reused & bit != 0;
        assert_eq!(marks.used & bit, 0, "slot {index} is handed out twice");
        marks.used |= bit;
        marks.reused |= bit;
        self.used += 1;
        reused
    }

    /// Marks a used slot free; says whether it may be written and used again.
    pub(super) fn give(&mut self, index: u32) -> bool {
        let (word, bit) = split(index);
        let marks = &mut self.marks[word];
        assert_ne!(marks.used & bit, 0, "slot {index} is freed twice");
        marks.used &= !bit;
        self.used -= 1;
        marks.shared & bit == 0 && self.write.is_some()
    }

    /// Whether slot `index` is used.
    pub(super) fn is_used(&self, index: u32) -> bool {
        let (word, bit) = split(index);
        self.marks[word].used & bit != 0
    }

    /// Notes what a child will have, too.
    pub(super) fn share(&mut self) {
        self.ever_shared |= self.used > 0;
        for marks in &mut self.marks {
            marks.shared |= marks.used;
        }
    }

    /// Gives up the write view, which a child does not have.
    pub(super) fn inherit(&mut self) {
        if let Some(mut write) = self.write.take() {
            write.kept = true;
            write.pages.disown(write.range);
        }
    }

    /// Populates the pages of slot `index`.
    pub(super) fn populate(&mut self, index: u32, fill: bool) -> Result<(), PlatformError> {
        let page = self.exec.pages.platform.config().page_size;
        let slot = self.write_slot(index);
        let end = slot.end().next_multiple_of(page);
        let mut start = align_down(slot.start(), page);
        while start < end {
            let mut stop = start;
            while stop < end && !self.is_populated(stop, page) {
                stop += page;
            }
            if stop > start {
                self.populate_pages(part(start, stop - start), fill)?;
            }
            start = stop + page;
        }
        Ok(())
    }

    fn page_bit(&self, addr: u64, page: u64) -> (usize, u64) {
        let index = (addr - self.write_base) / page;
        (to_usize(index / 64), 1 << (index % 64))
    }

    fn is_populated(&self, addr: u64, page: u64) -> bool {
        let (word, bit) = self.page_bit(addr, page);
        self.populated[word] & bit != 0
    }

    fn populate_pages(&mut self, pages: AddrRange, fill: bool) -> Result<(), PlatformError> {
        let platform = &self.exec.pages.platform;
        let page = platform.config().page_size;
        // SAFETY: populate needs a writable claim of ours: the pages lie in the write view.
        unsafe { platform.populate(pages) }?;
        if fill {
            self.fill(pages);
        }
        self.fault_in(pages.start() - self.write_base, pages.len());
        for addr in (pages.start()..pages.end()).step_by(to_usize(page)) {
            let (word, bit) = self.page_bit(addr, page);
            self.populated[word] |= bit;
        }
        Ok(())
    }

    /// Fills a part of the write view, which nobody uses, with breakpoints.
    pub(super) fn fill(&self, bytes: AddrRange) {
        if self.exec.pages.platform.is_simulated() || self.write.is_none() {
            return;
        }
        let start = std::ptr::with_exposed_provenance_mut::<u8>(to_usize(bytes.start()));
        // SAFETY: write_bytes needs that many writable bytes that nobody else uses: they lie in the
        // write view on populated pages, in slots that are not handed out.
        unsafe { start.write_bytes(INT3, to_usize(bytes.len())) };
    }

    /// Reads each page of `len` bytes from `offset` through the view that executes, so that the
    /// first call of a function there takes no page fault.
    fn fault_in(&self, offset: u64, len: u64) {
        let platform = &self.exec.pages.platform;
        if platform.is_simulated() {
            return;
        }
        let page = platform.config().page_size;
        for page in (offset..offset + len).step_by(to_usize(page)) {
            let byte = std::ptr::with_exposed_provenance_mut::<u8>(to_usize(self.base + page));
            // SAFETY: AtomicU8::from_ptr needs a byte that is mapped and only accessed atomically
            // meanwhile: the page is this arena's, readable, and was populated only now, so no slot
            // on it was handed out before.
            let byte = unsafe { AtomicU8::from_ptr(byte) };
            byte.load(Ordering::Relaxed);
        }
    }

    /// Takes it apart: its address space as a mapping, for a quarantine, and the write view, whose
    /// memory nobody else has if the last value says so.
    pub(super) fn into_parts(mut self) -> (Mapping, Option<View>, bool) {
        self.exec.kept = true;
        let pages = Arc::clone(&self.exec.pages);
        let access = Protection::ReadExecute;
        let mapping = Mapping::new(pages, self.exec.range, self.certificate, access);
        (mapping, self.write.take(), !self.ever_shared)
    }

    /// Gives the memory of a write view back, whatever else maps it.
    pub(super) fn discard(write: &View, slots: AddrRange) {
        // SAFETY: discard needs a claim on whose bytes nobody relies: no slot is used, no other
        // process has the pages, and the exec view was made inaccessible.
        let _ = unsafe { write.pages.platform.discard(slots) };
    }

    /// The slots in the write view.
    pub(super) fn write_slots(&self) -> AddrRange {
        let page = self.exec.pages.platform.config().page_size;
        part(self.write_base, self.bytes().next_multiple_of(page))
    }
}

fn split(index: u32) -> (usize, u64) {
    (to_usize(u64::from(index / 64)), 1 << (index % 64))
}
