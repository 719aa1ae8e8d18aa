//! Why sections could not be placed.

use low2g_platform::AddrRange;

use crate::alloc::AllocError;

/// Why sections could not be placed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// The allocator found no address.
    #[error("{source}")]
    Section {
        /// Index of a request in the region that found no place.
        index: usize,
        /// Why.
        source: AllocError,
    },
    /// A dry run's window has no room.
    #[error(
        "{size} bytes aligned to {align} do not fit into the window {window}; the largest free stretch has {largest} bytes"
    )]
    WindowFull {
        /// Index of a request in the region.
        index: usize,
        /// Bytes of the region.
        size: u64,
        /// Its alignment in bytes.
        align: u64,
        /// Where it was to lie.
        window: AddrRange,
        /// Bytes of the largest free stretch.
        largest: u64,
    },
    /// Two sections were given overlapping addresses.
    #[error("{range} overlaps {other}, where another section was put; give them addresses apart")]
    Overlap {
        /// Index of the request.
        index: usize,
        /// Where it was to lie.
        range: AddrRange,
        /// The other section's range.
        other: AddrRange,
    },
    /// Sections of different access were given addresses in one page.
    #[error(
        "the page of {range} would be both {first} and {second}; put sections of different access at least {page_size} bytes apart, or use --dry-run"
    )]
    SharedPage {
        /// Index of the request.
        index: usize,
        /// Where it was to lie.
        range: AddrRange,
        /// Access of the page's earlier section.
        first: &'static str,
        /// Access of this one.
        second: &'static str,
        /// Bytes of a page.
        page_size: u64,
    },
    /// A given address does not suit the section.
    #[error("{at:#x} is not a multiple of the section's alignment {align}")]
    Misaligned {
        /// Index of the request.
        index: usize,
        /// The address.
        at: u64,
        /// Bytes.
        align: u64,
    },
    /// The section would run past the end of the address space.
    #[error("{size} bytes at {at:#x} run past the end of the address space")]
    TooBig {
        /// Index of the request.
        index: usize,
        /// The address.
        at: u64,
        /// Bytes.
        size: u64,
    },
    /// Code with two views came out of reach of the rest.
    #[error(
        "this process may not make written memory executable (PR_SET_MDWE or a policy), and the two views it must use lie at {addr:#x}, outside of {span}; use the default reach"
    )]
    Views {
        /// Index of a request in the region.
        index: usize,
        /// Where the executable view is.
        addr: u64,
        /// Where the placement lies.
        span: AddrRange,
    },
    /// Contents that a dry run would have to keep are too big.
    #[error(
        "{size} bytes are more than the {limit} that a dry run keeps in a buffer; link for real"
    )]
    NoBuffer {
        /// Index of a request in the region.
        index: usize,
        /// Bytes of the region.
        size: u64,
        /// Most bytes that are kept.
        limit: u64,
    },
    /// Access of placed memory could not be changed.
    #[error("{source}")]
    Protect {
        /// Why.
        source: AllocError,
    },
}

impl PlaceError {
    /// Index of the request that the error is about.
    #[must_use]
    pub const fn index(&self) -> Option<usize> {
        match self {
            Self::Section { index, .. }
            | Self::WindowFull { index, .. }
            | Self::Overlap { index, .. }
            | Self::SharedPage { index, .. }
            | Self::Misaligned { index, .. }
            | Self::TooBig { index, .. }
            | Self::NoBuffer { index, .. }
            | Self::Views { index, .. } => Some(*index),
            Self::Protect { .. } => None,
        }
    }
}
