//! Code arenas: pages with a low view that executes and a high one that is written.
//!
//! Invariants: the two views are of the same pages and length, at unrelated
//! random addresses; both go when the arena does; a page is populated before
//! a slot on it is handed out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use low2g_platform::{AddrRange, Backing, PlatformError, Protection, align_down};

use crate::alloc::allocator::LowAllocator;
use crate::alloc::block::part;
use crate::alloc::certificate::Certificate;
use crate::alloc::claim::Want;
use crate::alloc::error::AllocError;
use crate::alloc::exact::Source;
use crate::alloc::pages::Pages;
use crate::alloc::policy::Placement;
use crate::alloc::slots::Slots;
use crate::alloc::space::{Kind, Owned};
use crate::alloc::tier::{Arena, Class, Picked};

/// Largest slot in bytes; larger code has an arena to itself.
pub(crate) const MAX_SLOT: u64 = 4 << 10;

/// Write views lie above what 32 bits reach, so that no overflow of a low pointer meets them.
const WRITE_VIEWS_FROM: u64 = 1 << 32;

/// Bytes of the random stretch in which a write view is then placed: the survey of it is short.
const STRETCH: u64 = 1 << 30;
/// Stretches tried for a write view: with half of the address space taken, all fail once in 2^32.
const STRETCHES: u32 = 32;

/// A claim of a view that is given back on drop.
#[derive(Debug)]
struct View {
    pages: Arc<Pages>,
    range: AddrRange,
}

impl Drop for View {
    fn drop(&mut self) {
        self.pages.release(self.range);
    }
}

/// Small functions, or a large one.
#[derive(Debug)]
pub(crate) struct CodeArena {
    exec: View,
    write: View,
    certificate: Certificate,
    slots: Slots,
    /// Which pages are populated.
    populated: Vec<bool>,
}

impl Arena for CodeArena {
    fn base(&self) -> u64 {
        self.exec.range.start()
    }
    fn bytes(&self) -> u64 {
        self.exec.range.len()
    }
    fn certificate(&self) -> Certificate {
        self.certificate
    }
    fn slots(&self) -> &Slots {
        &self.slots
    }
    fn slots_mut(&mut self) -> &mut Slots {
        &mut self.slots
    }
}

impl CodeArena {
    /// Populates the pages of a slot; gives the slot in the write view.
    fn populate(&mut self, picked: &Picked) -> Result<AddrRange, PlatformError> {
        let platform = &self.write.pages.platform;
        let page = platform.config().page_size;
        let slot = part(
            self.write.range.start() + picked.offset(),
            picked.class.slot,
        );
        let mut start = align_down(slot.start(), page);
        let first = start;
        let index = |addr: u64| low2g_platform::to_usize((addr - self.write.range.start()) / page);
        // The first page may be populated by a neighbour; past it, one call does the rest.
        while start < slot.end() && self.populated[index(start)] {
            start += page;
        }
        if start < slot.end() {
            let end = slot.end().next_multiple_of(page);
            // SAFETY: populate needs a writable claim of ours: the pages lie in the write view.
            unsafe { platform.populate(part(start, end - start)) }?;
            self.populated[index(first)..index(end)].fill(true);
            self.fault_in(start - self.write.range.start(), end - start);
        }
        Ok(slot)
    }

    /// Reads each page of `len` bytes from `offset` through the view that executes, so that the
    /// first call of a function there takes no page fault.
    fn fault_in(&self, offset: u64, len: u64) {
        let platform = &self.exec.pages.platform;
        if platform.is_simulated() {
            return;
        }
        let page = platform.config().page_size;
        for page in (offset..offset + len).step_by(low2g_platform::to_usize(page)) {
            let addr = low2g_platform::to_usize(self.exec.range.start() + page);
            let byte = std::ptr::with_exposed_provenance_mut::<u8>(addr);
            // SAFETY: AtomicU8::from_ptr needs a byte that is mapped and only accessed atomically
            // meanwhile: the page is this arena's, readable, and was populated only now, so no slot
            // on it was handed out before.
            let byte = unsafe { AtomicU8::from_ptr(byte) };
            byte.load(Ordering::Relaxed);
        }
    }
}

impl LowAllocator {
    /// Takes a code slot and its place in the write view; `None` where this system has no second views.
    pub(crate) fn pick_code_slot(
        &self,
        slot: u64,
        align: u64,
    ) -> Result<Option<(Picked, AddrRange)>, AllocError> {
        let below = |bound| self.random_below(bound);
        let pick = self.pick(&below);
        let config = self.platform().config();
        let alone = slot > MAX_SLOT || align > 1;
        let class = Class { slot, alone };
        let mut tier = self.inner.code.lock();
        let free = if alone { 0 } else { tier.free(class) };
        if alone || pick.wants_arena(free) {
            let bytes = if alone {
                slot
            } else {
                pick.arena_bytes(slot, config.page_size)
            };
            match self.new_code_arena(bytes, slot, align) {
                Ok(Some(arena)) => tier.add(class, arena),
                Ok(None) if free == 0 => return Ok(None),
                Err(error) if free == 0 => return Err(error),
                // Fewer candidates than wished for are better than none; the certificate says so.
                Ok(None) | Err(_) => {}
            }
        }
        let picked = tier
            .take(class, config.granularity, &pick)
            .expect("there was a free slot, or an arena was added");
        let populated = tier.arena(class, picked.base).populate(&picked);
        match populated {
            Ok(write) => Ok(Some((picked, write))),
            Err(error) => {
                let emptied = tier.give(&picked);
                drop(tier);
                drop(emptied);
                Err(error.into())
            }
        }
    }

    /// Both views of new pages; `None` where the system refuses such pages, or to execute them.
    fn new_code_arena(
        &self,
        bytes: u64,
        slot: u64,
        align: u64,
    ) -> Result<Option<CodeArena>, AllocError> {
        let config = self.platform().config();
        let private_works = config.capabilities.protect_to_execute;
        if !config.capabilities.second_views && private_works {
            return Ok(None);
        }
        let backing = match self.platform().new_backing(bytes) {
            Ok(backing) => backing,
            Err(_) if private_works => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let exec = self.claim_view(&*backing, self.window(), align, Kind::CodeArena);
        let (exec, certificate) = match exec {
            Ok(exec) => exec,
            Err(AllocError::Refused { .. } | AllocError::Unsupported { .. }) if private_works => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let write = self.claim_write_view(&*backing)?;
        let pages = low2g_platform::to_usize(bytes / config.page_size);
        Ok(Some(CodeArena {
            exec,
            write,
            certificate,
            slots: Slots::new(bytes / slot),
            populated: vec![false; pages],
        }))
    }

    /// A view in a random stretch; in another one where all of that is taken, as large parts
    /// of the address space are in processes that reserve it (sanitizers, Java, Go).
    fn claim_write_view(&self, backing: &dyn Backing) -> Result<View, AllocError> {
        let mut left = STRETCHES;
        loop {
            let stretch = self.random_stretch(backing.len());
            let write = self.claim_view(backing, stretch, 1, Kind::WriteView);
            self.inner.pages.forget_survey(stretch);
            left -= 1;
            match write {
                Err(AllocError::Exhausted { .. }) if left > 0 => {}
                other => return other.map(|(view, _)| view),
            }
        }
    }

    fn claim_view(
        &self,
        backing: &dyn Backing,
        window: AddrRange,
        align: u64,
        kind: Kind,
    ) -> Result<(View, Certificate), AllocError> {
        let (protection, placement) = match kind {
            Kind::WriteView => (Protection::ReadWrite, Placement::Randomized),
            _ => (Protection::ReadExecute, self.placement()),
        };
        let pages = &self.inner.pages;
        let (range, certificate) = pages.claim(&Want {
            size: backing.len(),
            align,
            window,
            placement,
            // The minimum is for blocks: a slot adds its own bits.
            min_entropy: 0.0,
            source: Source::View(backing, protection),
            owned: Owned {
                kind,
                label: "".into(),
            },
        })?;
        let pages = Arc::clone(pages);
        Ok((View { pages, range }, certificate))
    }

    /// A random stretch of high address space with room for `bytes`.
    fn random_stretch(&self, bytes: u64) -> AddrRange {
        let config = self.platform().config();
        let len = STRETCH.max(bytes.next_power_of_two().saturating_mul(2));
        let end = config.user_end.max(WRITE_VIEWS_FROM + len);
        let starts = (end - len - WRITE_VIEWS_FROM) / config.granularity + 1;
        let start = WRITE_VIEWS_FROM + self.random_below(starts) * config.granularity;
        part(start, len)
    }
}
