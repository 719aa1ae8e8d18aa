//! How the two views of an arena are claimed.
//!
//! Invariants:
//! - the write view is claimed first: where executable views are made final by sealing the memfd
//!   (no /proc), one mapped before that could be made writable again;
//! - the pages before and after what is written cannot be accessed;
//! - both views are gone again if the second cannot be had.

use std::sync::Arc;

use low2g_platform::{AddrRange, Backing, Protection};

use crate::alloc::allocator::LowAllocator;
use crate::alloc::block::part;
use crate::alloc::certificate::Certificate;
use crate::alloc::claim::Want;
use crate::alloc::error::AllocError;
use crate::alloc::exact::Source;
use crate::alloc::policy::Placement;
use crate::alloc::space::Kind;

use super::arena::{View, Views};

/// Write views lie above what 32 bits reach, so that no overflow of a low pointer meets them.
const WRITE_VIEWS_FROM: u64 = 1 << 32;

/// Bytes of the random stretch in which a write view is then placed: the survey of it is short.
const STRETCH: u64 = 1 << 30;
/// Stretches tried for a write view: with half of the address space taken, all fail once in 2^32.
const STRETCHES: u32 = 32;

impl LowAllocator {
    /// Both views of new pages, with guards around the one that executes if `guarded`; `None` where
    /// the system refuses such pages, or to execute them, and private pages do instead.
    pub(super) fn claim_views(
        &self,
        bytes: u64,
        align: u64,
        guarded: bool,
    ) -> Result<Option<Views>, AllocError> {
        let config = self.platform().config();
        let private_works = config.capabilities.protect_to_execute;
        if !config.capabilities.second_views && private_works {
            return Ok(None);
        }
        // Offsets of views are multiples of the granularity: so is the room before the slots.
        let edges = config.granularity + config.page_size;
        let Some(all) = bytes.checked_add(edges) else {
            return Err(AllocError::BadRequest {
                what: "size",
                value: bytes,
                expected: "one that leaves room for guards",
            });
        };
        let backing = match self.platform().new_backing(all) {
            Ok(backing) => backing,
            Err(_) if private_works => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let views = self
            .claim_write_view(&*backing)
            .and_then(|write| self.claim_exec_view(&*backing, write, align, guarded));
        match views {
            Err(AllocError::Refused { .. } | AllocError::Unsupported { .. }) if private_works => {
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    fn claim_exec_view(
        &self,
        backing: &dyn Backing,
        write: View,
        align: u64,
        guarded: bool,
    ) -> Result<Views, AllocError> {
        let config = self.platform().config();
        let (front, page) = (config.granularity, config.page_size);
        let before = if guarded && align <= front { front } else { 0 };
        let after = if guarded { page } else { 0 };
        let slots = backing.len() - front - page;
        let source = Source::View {
            backing,
            offset: front - before,
            protection: Protection::ReadExecute,
        };
        let size = before + slots + after;
        let (mut exec, certificate) =
            self.claim_view(source, size, self.window(), align, Kind::CodeArena)?;
        let slots = part(exec.range.start() + before, slots);
        close_edges(&exec, slots)?;
        if self.inner.seal_code {
            // SAFETY: seal needs a claim of ours: it was just made.
            unsafe { self.platform().seal(slots) }?;
            exec.kept = true;
        }
        Ok(Views {
            write_base: write.range.start() + front,
            exec,
            write,
            slots,
            certificate,
        })
    }

    /// A view in a random stretch; in another one where all of that is taken, as large parts
    /// of the address space are in processes that reserve it (sanitizers, Java, Go).
    fn claim_write_view(&self, backing: &dyn Backing) -> Result<View, AllocError> {
        let config = self.platform().config();
        let (front, page) = (config.granularity, config.page_size);
        let source = Source::View {
            backing,
            offset: 0,
            protection: Protection::ReadWrite,
        };
        let mut left = STRETCHES;
        let view = loop {
            let stretch = self.random_stretch(backing.len());
            let view = self.claim_view(source, backing.len(), stretch, 1, Kind::WriteView);
            self.inner.pages.forget_survey(stretch);
            left -= 1;
            match view {
                Err(AllocError::Exhausted { .. }) if left > 0 => {}
                other => break other?.0,
            }
        };
        let inside = part(view.range.start() + front, backing.len() - front - page);
        close_edges(&view, inside)?;
        Ok(view)
    }

    fn claim_view(
        &self,
        source: Source<'_>,
        size: u64,
        window: AddrRange,
        align: u64,
        kind: Kind,
    ) -> Result<(View, Certificate), AllocError> {
        let placement = match kind {
            Kind::WriteView => Placement::Randomized,
            _ => self.placement(),
        };
        let pages = &self.inner.pages;
        let (range, certificate) = pages.claim(&Want {
            size,
            align,
            window,
            placement,
            // The minimum is for blocks: a slot adds its own bits.
            min_entropy: 0.0,
            source,
            kind,
            label: "",
        })?;
        let view = View {
            pages: Arc::clone(pages),
            range,
            kept: false,
        };
        Ok((view, certificate))
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

/// Makes what of `view` lies outside `inside` inaccessible.
fn close_edges(view: &View, inside: AddrRange) -> Result<(), AllocError> {
    let before = AddrRange::new(view.range.start(), inside.start());
    let after = AddrRange::new(inside.end(), view.range.end());
    for edge in [before, after].into_iter().flatten() {
        if !edge.is_empty() {
            // SAFETY: protect needs a claim of ours that nothing uses: it was just made.
            unsafe { view.pages.platform.protect(edge, Protection::None) }?;
        }
    }
    Ok(())
}
