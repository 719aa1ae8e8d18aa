//! Pages of a block's (or an arena's) own, with guards around them, and their way out: through a
//! quarantine, inaccessible.
//!
//! ```text
//!   | guard | the block's pages ...             | guard |     one claim
//! ```
//!
//! Invariants: guards cannot be accessed while the block lives; a block in quarantine has no
//! access, no memory, and an address that nobody else can have. A block aligned to more than the
//! system's granularity has no guard before it, because that would cost as much as its alignment;
//! before an arena it does.

use std::sync::Arc;

use low2g_platform::{AddrRange, Platform, PlatformError, Protection};

use crate::alloc::allocator::{LowAllocator, MapRequest, whole_pages};
use crate::alloc::block::part;
use crate::alloc::certificate::Certificate;
use crate::alloc::claim::Want;
use crate::alloc::error::AllocError;
use crate::alloc::exact::Source;
use crate::alloc::heap::Quarantine;
use crate::alloc::lock::SpinLock;
use crate::alloc::mapping::Mapping;
use crate::alloc::space::Kind;

/// A claim, and the part of it that is used; whoever has it gives it to an [`Own`] or to
/// [`LowAllocator::retire_claimed`].
#[derive(Debug)]
#[must_use]
pub(crate) struct Claimed {
    whole: AddrRange,
    range: AddrRange,
    certificate: Certificate,
}

impl Claimed {
    /// The pages to use.
    pub(crate) fn range(&self) -> AddrRange {
        self.range
    }

    pub(crate) fn certificate(&self) -> Certificate {
        self.certificate
    }

    /// Whether inaccessible pages belong to it.
    fn is_guarded(&self) -> bool {
        self.whole != self.range
    }
}

/// A claim that is given back on drop.
#[derive(Debug)]
pub(crate) struct Own {
    mapping: Mapping,
    range: AddrRange,
}

impl Own {
    /// The pages to use.
    pub(crate) fn range(&self) -> AddrRange {
        self.range
    }

    pub(crate) fn certificate(&self) -> Certificate {
        self.mapping.certificate()
    }

    /// As [`LowAllocator::resize_claimed`].
    pub(crate) fn resize(&mut self, low: &LowAllocator, size: u64) -> bool {
        let mut claimed = Claimed {
            whole: self.mapping.range(),
            range: self.range,
            certificate: self.certificate(),
        };
        let resized = low.resize_claimed(&mut claimed, size);
        self.range = claimed.range;
        self.mapping.set_range(claimed.whole);
        resized
    }

    pub(crate) fn platform(&self) -> &Arc<dyn Platform> {
        self.mapping.platform()
    }
}

/// Freed blocks that are not given back yet.
#[derive(Debug)]
pub(crate) struct Retired {
    waiting: SpinLock<(Quarantine<Mapping>, u64)>,
    /// Bytes of address space that may wait; 0 for no quarantine.
    most_bytes: u64,
}

/// Freed blocks of their own that wait.
const WAITING: usize = 32;

impl Retired {
    pub(crate) fn new(most_bytes: u64) -> Self {
        Self {
            waiting: SpinLock::new((Quarantine::new(WAITING), 0)),
            most_bytes,
        }
    }

    /// Whether a block of so many bytes may wait: a large one would push everything else out, and its
    /// address space is scarce.
    pub(crate) fn takes(&self, bytes: u64) -> bool {
        bytes <= self.most_bytes / 2
    }

    /// Takes a block in; gives what leaves for it, to be dropped.
    fn push(&self, mapping: Mapping, random: u64) -> Vec<Mapping> {
        let mut waiting = self.waiting.lock();
        let (quarantine, bytes) = &mut *waiting;
        *bytes += mapping.range().len();
        let below = |bound: u32| {
            u32::try_from(random % u64::from(bound.max(1))).expect("below a number of 32 bits")
        };
        let mut out: Vec<Mapping> = quarantine.push(mapping, below).into_iter().collect();
        *bytes -= out.iter().map(|mapping| mapping.range().len()).sum::<u64>();
        while *bytes > self.most_bytes
            && let Some(mapping) = quarantine.pop()
        {
            *bytes -= mapping.range().len();
            out.push(mapping);
        }
        out
    }

    /// Takes the lock, to keep it over a fork.
    pub(crate) fn lock_for_fork(&self) {
        self.waiting.lock().keep();
    }

    /// # Safety
    /// `lock_for_fork` was called, and this not since.
    pub(crate) unsafe fn unlock_after_fork(&self) {
        // SAFETY: resume needs a guard that was kept: by lock_for_fork, the caller says.
        drop(unsafe { self.waiting.resume() });
    }

    /// Gives all back.
    pub(crate) fn flush(&self) {
        let all = {
            let mut waiting = self.waiting.lock();
            waiting.1 = 0;
            waiting.0.drain()
        };
        drop(all);
    }
}

impl LowAllocator {
    /// As [`LowAllocator::claim_own`], with an owner.
    pub(crate) fn map_own(&self, size: u64, align: u64, kind: Kind) -> Result<Own, AllocError> {
        let claimed = self.claim_own(size, align, kind)?;
        Ok(Own {
            range: claimed.range,
            mapping: self.mapping_of(&claimed).with_guards_around(claimed.range),
        })
    }

    /// The claim with an owner who knows nothing of its guards.
    fn mapping_of(&self, claimed: &Claimed) -> Mapping {
        let pages = Arc::clone(&self.inner.pages);
        let protection = Protection::ReadWrite;
        Mapping::new(pages, claimed.whole, claimed.certificate, protection)
    }

    /// Pages to read and write, with guards if this allocator has them for `kind`.
    pub(crate) fn claim_own(
        &self,
        size: u64,
        align: u64,
        kind: Kind,
    ) -> Result<Claimed, AllocError> {
        let hardening = &self.inner.hardening;
        let guarded = match kind {
            Kind::Arena => hardening.arena_guards,
            _ => hardening.guards,
        };
        let config = self.platform().config();
        let guard = if guarded { config.granularity } else { 0 };
        let before = match kind {
            Kind::Arena => guard.next_multiple_of(align),
            _ if align <= config.granularity => guard,
            _ => 0,
        };
        let pages = whole_pages(size, config.page_size)?;
        let Some(all) = pages.checked_add(before + guard) else {
            return Err(AllocError::BadRequest {
                what: "size",
                value: size,
                expected: "one that leaves room for guards",
            });
        };
        let inner = &*self.inner;
        let (whole, certificate) = inner.pages.claim(&Want {
            size: all,
            align,
            window: inner.window,
            placement: inner.placement,
            // The minimum is for blocks: a slot adds its own bits.
            min_entropy: match kind {
                Kind::Arena => 0.0,
                _ => inner.least_entropy(),
            },
            source: Source::Private(Protection::ReadWrite),
            kind,
            label: "",
        })?;
        let range = part(whole.start() + before, pages);
        let claimed = Claimed {
            whole,
            range,
            certificate,
        };
        if guarded && let Err(refused) = self.guard_around(&claimed) {
            inner.pages.release(whole);
            return Err(refused.into());
        }
        Ok(claimed)
    }

    fn guard_around(&self, claimed: &Claimed) -> Result<(), PlatformError> {
        let Claimed { whole, range, .. } = claimed;
        let before = part(whole.start(), range.start() - whole.start());
        let after = part(range.end(), whole.end() - range.end());
        for guard in [before, after] {
            if !guard.is_empty() {
                // SAFETY: guard needs a claim to whose bytes nothing refers: it was just made.
                unsafe { self.platform().guard(guard) }?;
            }
        }
        Ok(())
    }

    /// Makes a claim hold `size` bytes, not 0, where it lies; says whether it does. What it does not need is
    /// given back, in whole pages, or at least their memory.
    pub(crate) fn resize_claimed(&self, claimed: &mut Claimed, size: u64) -> bool {
        let (has, start) = (claimed.range.len(), claimed.range.start());
        let Ok(pages) = whole_pages(size, self.page_size()) else {
            return false;
        };
        let inner = &*self.inner;
        let Some(more) = pages.checked_sub(has) else {
            self.shed(claimed, part(start + pages, has - pages));
            return true;
        };
        if more == 0 {
            return true;
        }
        // The guard that stands behind it stays where it is.
        let extends =
            !claimed.is_guarded() && inner.pages.extend(claimed.whole, more, inner.window);
        if extends {
            claimed.range = part(start, pages);
            claimed.whole = claimed.range;
        }
        extends
    }

    /// Gives back `surplus`, the end of what is used of a claim.
    fn shed(&self, claimed: &mut Claimed, surplus: AddrRange) {
        if !claimed.is_guarded() && self.inner.pages.shrink(claimed.whole, surplus.start()) {
            claimed.range = part(claimed.range.start(), claimed.range.len() - surplus.len());
            claimed.whole = claimed.range;
            return;
        }
        // Best effort: what is refused is the block's still.
        // SAFETY: discard needs a claim of ours on what nobody relies on: the block is smaller now.
        let _ = unsafe { self.platform().discard(surplus) };
    }

    /// Ends the life of a block whose bytes nobody refers to any more, once for each that was claimed.
    pub(crate) fn retire_claimed(&self, claimed: &Claimed) {
        if self.inner.retired.takes(claimed.whole.len()) {
            // All of it is made inaccessible next.
            self.retire_mapping(self.mapping_of(claimed));
        } else {
            self.inner.pages.release(claimed.whole);
        }
    }

    /// Ends the life of a block of its own, whose bytes nobody refers to any more.
    pub(crate) fn retire(&self, own: Own) {
        self.retire_mapping(own.mapping);
    }

    /// Gives a mapping up, through the quarantine if there is one; says whether it waits there.
    pub(crate) fn retire_mapping(&self, mut mapping: Mapping) -> bool {
        let retired = &self.inner.retired;
        if !retired.takes(mapping.range().len()) {
            return false;
        }
        // What cannot be made inaccessible is not kept.
        if mapping.guard(mapping.range()).is_err() {
            return false;
        }
        let out = retired.push(mapping, self.random_below(1 << 32));
        // Unmapping needs no lock of the quarantine.
        drop(out);
        true
    }

    /// Gives back what is held for later: freed blocks in quarantine, empty arenas, and what the
    /// system refused to take before.
    pub fn trim(&self) {
        self.inner.retired.flush();
        self.inner.heap.flush();
        if let Some(extents) = &self.inner.extents {
            extents.flush();
        }
        self.flush_code();
        self.inner.pages.give_back_stuck();
    }

    /// Runs `allocate`; if the window or a limit is exhausted, once more after a trim.
    pub(crate) fn with_trim<T>(
        &self,
        allocate: impl Fn() -> Result<T, AllocError>,
    ) -> Result<T, AllocError> {
        match allocate() {
            Err(
                AllocError::Exhausted { .. }
                | AllocError::Limit { .. }
                | AllocError::ByteLimit { .. },
            ) => {
                self.trim();
                allocate()
            }
            result => result,
        }
    }

    /// Address space to be filled later: no access, no memory, until parts of it are protected
    /// otherwise. Every byte lies in `reach` (`None` for the allocator's own).
    ///
    /// # Errors
    /// See [`AllocError`]; nothing of the request is left mapped.
    pub fn reserve(
        &self,
        bytes: u64,
        reach: Option<crate::alloc::reach::Reach>,
    ) -> Result<Mapping, AllocError> {
        let request = MapRequest {
            reach,
            protection: Protection::None,
            kind: Kind::Reservation,
            ..MapRequest::new(bytes)
        };
        self.with_trim(|| self.map(&request))
    }
}
