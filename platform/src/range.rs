//! Ranges of addresses that cannot wrap, and the few conversions between
//! `usize` and `u64` that the rest of the code would otherwise spell as casts.

use std::fmt;

/// A half-open range `[start, end)` of addresses in bytes, `start <= end`.
///
/// Invariant: the constructor refuses `start > end`, so `len` never wraps.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddrRange {
    start: u64,
    end: u64,
}

impl AddrRange {
    /// The range `[start, end)`, or `None` if `start > end`.
    #[inline]
    #[must_use]
    pub const fn new(start: u64, end: u64) -> Option<Self> {
        if start <= end {
            Some(Self { start, end })
        } else {
            None
        }
    }

    /// The `len` bytes from `start`, or `None` if they run past 2^64 - 1.
    #[inline]
    #[must_use]
    pub const fn at(start: u64, len: u64) -> Option<Self> {
        match start.checked_add(len) {
            Some(end) => Some(Self { start, end }),
            None => None,
        }
    }

    /// First address.
    #[inline]
    #[must_use]
    pub const fn start(self) -> u64 {
        self.start
    }

    /// One past the last address.
    #[inline]
    #[must_use]
    pub const fn end(self) -> u64 {
        self.end
    }

    /// Bytes.
    #[inline]
    #[must_use]
    pub const fn len(self) -> u64 {
        self.end - self.start
    }

    /// Whether the range holds no byte.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Whether `addr` lies inside.
    #[inline]
    #[must_use]
    pub const fn contains(self, addr: u64) -> bool {
        self.start <= addr && addr < self.end
    }

    /// Whether every byte of `other` lies inside (an empty range does if its start is within bounds).
    #[inline]
    #[must_use]
    pub const fn encloses(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// Whether the two share a byte.
    #[inline]
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// What both hold; `None` if they share no byte.
    #[inline]
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        (start < end).then_some(Self { start, end })
    }
}

impl fmt::Debug for AddrRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:#x}, {:#x})", self.start, self.end)
    }
}

impl fmt::Display for AddrRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// `value` rounded up to a multiple of `align` (a power of two), or `None` on overflow.
#[inline]
#[must_use]
pub const fn align_up(value: u64, align: u64) -> Option<u64> {
    debug_assert!(align.is_power_of_two());
    match value.checked_add(align - 1) {
        Some(sum) => Some(sum & !(align - 1)),
        None => None,
    }
}

/// `value` rounded down to a multiple of `align` (a power of two).
#[inline]
#[must_use]
pub const fn align_down(value: u64, align: u64) -> u64 {
    debug_assert!(align.is_power_of_two());
    value & !(align - 1)
}

/// Whether `value` is a multiple of `align` (a power of two): no division, as for an `align` that only
/// the running system knows.
#[inline]
#[must_use]
pub const fn is_aligned(value: u64, align: u64) -> bool {
    align_down(value, align) == value
}

/// An address or length as `usize`; lossless because only 64-bit targets are supported.
#[must_use]
#[allow(
    clippy::cast_possible_truncation,
    reason = "usize is 64 bits wide on every supported target, checked below"
)]
pub const fn to_usize(value: u64) -> usize {
    value as usize
}

/// A length or address as `u64`; lossless because only 64-bit targets are supported.
#[must_use]
pub const fn to_u64(value: usize) -> u64 {
    value as u64
}

const _: () = assert!(
    size_of::<usize>() == size_of::<u64>(),
    "low2g needs a 64-bit target: below 2 GiB is everything on a 32-bit one"
);
