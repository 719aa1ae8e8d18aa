//! Claims of address space: exactly here, at a hint, or wherever `MAP_32BIT` likes.
//!
//! Invariants:
//! - `MAP_FIXED` never comes without `MAP_EXCL` here: no claim can replace a mapping;
//! - a hint is a wish: address-space randomization adds up to 0x1000 pages to it (0x100 with
//!   `MAP_32BIT`), and one between the program's text and the end of what `RLIMIT_DATA` allows
//!   its data is moved above that. What came back is compared, and unmapped if it is outside.

use super::abi::{self, Errno};
use super::{FreeBsdPlatform, Syscalls, os_error, prot_bits};
use crate::contract::Protection;
use crate::error::ClaimError;
use crate::range::AddrRange;

/// `MAP_32BIT` means addresses below this.
const LOW_2G: u64 = 1 << 31;

/// How often a claim is repeated that failed although nothing is there and no limit is broken.
const TRIES: usize = 3;

const EXACT_CALL: &str = "mmap(MAP_FIXED|MAP_EXCL)";

/// What stands behind a mapping.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pages {
    pub(super) flags: i32,
    pub(super) fd: i32,
    pub(super) offset: u64,
}

/// Fresh private memory.
const PRIVATE: Pages = Pages {
    flags: abi::MAP_PRIVATE | abi::MAP_ANON,
    fd: -1,
    offset: 0,
};

impl<S: Syscalls> FreeBsdPlatform<S> {
    /// Private memory at exactly `range`.
    pub(super) fn claim_private(
        &self,
        range: AddrRange,
        protection: Protection,
    ) -> Result<(), ClaimError> {
        self.check(range);
        self.map_exact(range, self.private_prot(protection), PRIVATE)
    }

    /// The access of private memory, which may be changed to any other later.
    pub(super) fn private_prot(&self, protection: Protection) -> i32 {
        self.with_max(prot_bits(protection), abi::PROT_ALL)
    }

    /// `pages` at exactly `range`, or nothing.
    pub(super) fn map_exact(
        &self,
        range: AddrRange,
        prot: i32,
        pages: Pages,
    ) -> Result<(), ClaimError> {
        if !self.exclusive {
            return Err(ClaimError::Unsupported { call: EXACT_CALL });
        }
        let flags = pages.flags | abi::MAP_FIXED | abi::MAP_EXCL;
        let (start, len) = (range.start(), range.len());
        let mut last = Errno::ENOMEM;
        for _ in 0..TRIES {
            match self
                .sys
                .mmap(start, len, prot, flags, pages.fd, pages.offset)
            {
                Ok(at) if at == start => return Ok(()),
                Ok(at) => {
                    self.unmap_fresh(at, len)?;
                    return Err(ClaimError::Unsupported { call: EXACT_CALL });
                }
                Err(Errno::ENOMEM) => match self.is_taken(range) {
                    Ok(true) => return Err(ClaimError::Occupied { range }),
                    Ok(false) if self.broken_limit(len).is_some() => break,
                    // Whoever had it is gone again.
                    Ok(false) => last = Errno::ENOMEM,
                    Err(_) => break,
                },
                Err(errno) => {
                    last = errno;
                    break;
                }
            }
        }
        Err(self.refusal(EXACT_CALL, range, last))
    }

    /// Private memory inside `within`, at `hint` if that is free.
    pub(super) fn claim_near_hint(
        &self,
        hint: u64,
        len: u64,
        within: AddrRange,
        protection: Protection,
    ) -> Result<AddrRange, ClaimError> {
        let wanted = AddrRange::at(hint, len).expect("the hinted range ends below 2^64");
        self.check(wanted);
        if self.exclusive && within.encloses(wanted) {
            match self.claim_private(wanted, protection) {
                Ok(()) => return Ok(wanted),
                Err(ClaimError::Occupied { .. } | ClaimError::Unsupported { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let low = self.config.capabilities.low_claims && wanted.end() <= LOW_2G;
        let (call, extra) = if low {
            ("mmap(MAP_32BIT, hint)", abi::MAP_32BIT)
        } else {
            ("mmap(hint)", 0)
        };
        match self.map_somewhere(hint, len, extra, protection) {
            Ok(at) => self.keep_inside(at, wanted, within),
            // The hint is taken and the low half is full: a collision, unless a limit is broken.
            Err(Errno::ENOMEM) if low && self.broken_limit(len).is_none() => {
                Err(ClaimError::Occupied { range: wanted })
            }
            Err(errno) => Err(self.refusal(call, wanted, errno)),
        }
    }

    /// Private memory below 2 GiB wherever the kernel likes: the first hole from the bottom of
    /// `within` upwards, plus up to 8 random bits of pages.
    pub(super) fn claim_anywhere_low(
        &self,
        len: u64,
        within: AddrRange,
        protection: Protection,
    ) -> Result<AddrRange, ClaimError> {
        const CALL: &str = "mmap(MAP_32BIT)";
        if !self.config.capabilities.low_claims {
            return Err(ClaimError::Unsupported { call: CALL });
        }
        let wanted = AddrRange::at(0, len).expect("starts at 0");
        self.check(wanted);
        // The kernel drops hints that leave no room below 2 GiB; what comes back is then outside.
        let bottom = self.config.low_window.as_ref().map_or(0, |low| low.start());
        let hint = within.start().max(bottom);
        match self.map_somewhere(hint, len, abi::MAP_32BIT, protection) {
            Ok(at) => self.keep_inside(at, wanted, within),
            Err(Errno::ENOMEM) if self.broken_limit(len).is_none() => {
                let mut error = os_error(CALL, wanted, Errno::ENOMEM);
                error.reason = format!("no hole of {len} bytes below 2 GiB");
                Err(ClaimError::Exhausted(error))
            }
            Err(errno) => Err(self.refusal(CALL, wanted, errno)),
        }
    }

    fn map_somewhere(
        &self,
        hint: u64,
        len: u64,
        extra: i32,
        protection: Protection,
    ) -> Result<u64, Errno> {
        let prot = self.private_prot(protection);
        self.sys.mmap(hint, len, prot, PRIVATE.flags | extra, -1, 0)
    }

    /// Keeps what the kernel placed if it lies inside `within`, else gives it back.
    fn keep_inside(
        &self,
        at: u64,
        wanted: AddrRange,
        within: AddrRange,
    ) -> Result<AddrRange, ClaimError> {
        match AddrRange::at(at, wanted.len()) {
            Some(range) if within.encloses(range) => Ok(range),
            _ => {
                self.unmap_fresh(at, wanted.len())?;
                Err(ClaimError::Occupied { range: wanted })
            }
        }
    }

    /// Unmaps what the kernel has just given: one more try, then the error names what stays.
    pub(super) fn unmap_fresh(&self, at: u64, len: u64) -> Result<(), ClaimError> {
        let unmapped = self
            .sys
            .munmap(at, len)
            .or_else(|_| self.sys.munmap(at, len));
        unmapped.map_err(|errno| {
            let range = AddrRange::at(at, len).expect("the kernel mapped it");
            ClaimError::Exhausted(self.limit_error("munmap", range, errno))
        })
    }
}
