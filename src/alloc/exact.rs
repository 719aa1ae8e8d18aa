//! Claims of one named range, and the trimming of one that the kernel chose.
//!
//! Invariant: what came back elsewhere is released before these return.

use low2g_platform::{AddrRange, Backing, ClaimError, Protection, align_up};

use crate::alloc::error::AllocError;
use crate::alloc::pages::{Pages, State};
use crate::alloc::space::Shape;

/// Where the pages come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a> {
    /// Fresh private ones.
    Private(Protection),
    /// Those of a backing, from so many bytes on.
    View {
        backing: &'a dyn Backing,
        offset: u64,
        protection: Protection,
    },
}

impl Source<'_> {
    /// Whether there is only one way to claim it.
    pub(crate) const fn is_view(self) -> bool {
        matches!(self, Self::View { .. })
    }
}

/// How a range was had.
pub(crate) enum Exactness {
    /// By an exact claim.
    Claimed,
    /// By a hint that the system followed.
    Hinted,
}

/// Claims exactly `range`: by an exact claim, or where those do not exist by a hint.
pub(crate) fn claim_at(
    pages: &Pages,
    state: &mut State,
    range: AddrRange,
    within: AddrRange,
    source: Source<'_>,
) -> Result<Exactness, ClaimError> {
    let platform = &*pages.platform;
    let protection = match source {
        Source::View {
            backing,
            offset,
            protection,
        } => {
            platform.claim_view_exact(backing, offset, range, protection)?;
            return Ok(Exactness::Claimed);
        }
        Source::Private(protection) => protection,
    };
    if state.exact {
        match platform.claim_exact(range, protection) {
            Ok(()) => return Ok(Exactness::Claimed),
            Err(ClaimError::Unsupported { .. }) => state.exact = false,
            Err(error) => return Err(error),
        }
    }
    let got = platform.claim_hinted(range.start(), range.len(), within, protection)?;
    if got == range {
        return Ok(Exactness::Hinted);
    }
    // SAFETY: release needs a claim to which nothing refers: it was just made, and named nowhere.
    match unsafe { platform.release(got) } {
        Ok(()) => Err(ClaimError::Occupied { range }),
        Err(refused) => Err(ClaimError::Refused(refused)),
    }
}

/// Gives back what of `got` is not needed for a block of `shape`.
pub(crate) fn trim(pages: &Pages, got: AddrRange, shape: Shape) -> Result<AddrRange, AllocError> {
    let start = align_up(got.start(), shape.step)
        .filter(|start| start + shape.size <= got.end())
        .expect("the claim was made larger by the slack that aligning can cost");
    let end = start + shape.size;
    let mut left = got;
    for (surplus, rest) in [
        (
            AddrRange::new(got.start(), start),
            AddrRange::new(start, got.end()),
        ),
        (AddrRange::new(end, got.end()), AddrRange::new(start, end)),
    ] {
        let surplus = surplus.expect("the block lies inside what was got");
        if surplus.is_empty() {
            continue;
        }
        // SAFETY: release needs a claim to which nothing refers: part of `got`, which the caller
        // just claimed and named nowhere, not yet released in this loop.
        if let Err(error) = unsafe { pages.platform.release(surplus) } {
            // A split was refused; without one, all of it can go.
            // SAFETY: as above; `left` is what of `got` was not released.
            unsafe { pages.platform.release(left) }?;
            return Err(error.into());
        }
        left = rest.expect("the block lies inside what was got");
    }
    Ok(AddrRange::new(start, end).expect("sizes are not negative"))
}
