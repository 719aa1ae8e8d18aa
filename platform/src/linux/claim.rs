//! Claims of address space: exactly here, at a hint, or wherever MAP_32BIT likes.
//!
//! Invariants:
//! - `MAP_FIXED` is never passed: no call here can replace a mapping;
//! - the address that came back is compared with what was asked for, and what
//!   came back elsewhere is unmapped before the call returns;
//! - private memory is never executable from the start: it is mapped without
//!   that right and changed afterwards, because SELinux's denial of an
//!   executable mmap reads like a lack of memory.

use super::abi::{self, Errno};
use super::probe::Exactness;
use super::{LinuxPlatform, Syscalls, os_error, prot_bits};
use crate::contract::Protection;
use crate::error::{ClaimError, PlatformError};
use crate::range::{AddrRange, is_aligned};

/// `MAP_32BIT` means addresses below this.
const LOW_2G: u64 = 1 << 31;

/// The search window of `MAP_32BIT` without a hint (arch/x86/kernel/sys_x86_64.c).
const MAP_32BIT_WINDOW: AddrRange = match AddrRange::new(0x4000_0000, 0x8000_0000) {
    Some(window) => window,
    None => panic!("bounds in order"),
};

/// What stands behind a mapping: the last three arguments of mmap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pages {
    pub(super) flags: i32,
    pub(super) fd: i32,
    pub(super) offset: u64,
}

/// Private zero-filled memory.
///
/// `MAP_NORESERVE`: a 1.9 GiB `.bss` that stays mostly untouched must be mappable on a
/// machine with less memory (the kernel's heuristic refuses only what exceeds all memory and
/// swap when reserved at once). Who must know now asks `populate`. Under
/// `vm.overcommit_memory=2` the kernel ignores the flag.
const PRIVATE: Pages = Pages {
    flags: abi::MAP_PRIVATE | abi::MAP_ANONYMOUS | abi::MAP_NORESERVE,
    fd: -1,
    offset: 0,
};

impl<S: Syscalls> LinuxPlatform<S> {
    /// Private memory at exactly `range`.
    pub(super) fn claim_private(
        &self,
        range: AddrRange,
        protection: Protection,
    ) -> Result<(), ClaimError> {
        self.check_claim(range);
        self.ensure_anchor(range);
        self.map_exact(range, first_access(protection), PRIVATE)?;
        self.finish(range, protection)
    }

    /// `pages` at exactly `range`, or nothing.
    pub(super) fn map_exact(
        &self,
        range: AddrRange,
        prot: i32,
        pages: Pages,
    ) -> Result<(), ClaimError> {
        let flags = pages.flags | abi::MAP_FIXED_NOREPLACE;
        let (start, len) = (range.start(), range.len());
        match self
            .sys
            .mmap(start, len, prot, flags, pages.fd, pages.offset)
        {
            Ok(at) if at == start => Ok(()),
            // Before 4.17 the flag is unknown, hence ignored, and the address only a hint.
            Ok(at) => {
                self.unmap_fresh(at, len)?;
                match self.exactness {
                    Exactness::HintsIgnored => Err(ClaimError::Unsupported {
                        call: "mmap(MAP_FIXED_NOREPLACE)",
                    }),
                    Exactness::Enforced | Exactness::HintsHonoured => {
                        Err(ClaimError::Occupied { range })
                    }
                }
            }
            Err(errno) => Err(self.refusal("mmap(MAP_FIXED_NOREPLACE)", range, errno)),
        }
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
        self.check_claim(wanted);
        self.ensure_anchor(wanted);
        let low = self.config.capabilities.low_claims && wanted.end() <= LOW_2G;
        let (call, extra) = if low {
            ("mmap(MAP_32BIT, hint)", abi::MAP_32BIT)
        } else {
            ("mmap(hint)", 0)
        };
        let flags = PRIVATE.flags | extra;
        match self
            .sys
            .mmap(hint, len, first_access(protection), flags, -1, 0)
        {
            Ok(at) => self.keep_inside(at, wanted, within, protection),
            // The hint is taken and the kernel's own window is full: a collision, unless a limit is broken.
            Err(Errno::ENOMEM) if low && self.broken_limit(len).is_none() => {
                Err(ClaimError::Occupied { range: wanted })
            }
            Err(errno) => Err(self.refusal(call, wanted, errno)),
        }
    }

    /// Private memory below 2 GiB wherever the kernel likes.
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
        self.check_claim(wanted);
        self.ensure_anchor(wanted);
        let flags = PRIVATE.flags | abi::MAP_32BIT;
        match self
            .sys
            .mmap(0, len, first_access(protection), flags, -1, 0)
        {
            Ok(at) => self.keep_inside(at, wanted, within, protection),
            Err(Errno::ENOMEM) if self.broken_limit(len).is_none() => {
                let mut error = os_error(CALL, wanted, Errno::ENOMEM);
                error.reason = format!(
                    "no hole of {len} bytes in the window {MAP_32BIT_WINDOW} that the kernel searches"
                );
                Err(ClaimError::Exhausted(error))
            }
            Err(errno) => Err(self.refusal(CALL, wanted, errno)),
        }
    }

    /// Keeps what the kernel placed if it lies inside `within`, else gives it back.
    fn keep_inside(
        &self,
        at: u64,
        wanted: AddrRange,
        within: AddrRange,
        protection: Protection,
    ) -> Result<AddrRange, ClaimError> {
        match AddrRange::at(at, wanted.len()) {
            Some(range) if within.encloses(range) => {
                self.finish(range, protection)?;
                Ok(range)
            }
            _ => {
                self.unmap_fresh(at, wanted.len())?;
                Err(ClaimError::Occupied { range: wanted })
            }
        }
    }

    /// Gives a fresh private mapping the access that it could not be mapped with.
    fn finish(&self, range: AddrRange, protection: Protection) -> Result<(), ClaimError> {
        if first_access(protection) == prot_bits(protection) {
            return Ok(());
        }
        let (start, len) = (range.start(), range.len());
        let Err(errno) = self.sys.mprotect(start, len, prot_bits(protection)) else {
            return Ok(());
        };
        let refusal = self.refusal("mprotect", range, errno);
        self.unmap_fresh(start, len)?;
        Err(refusal)
    }

    /// Unmaps what the kernel has just given. That fails only at `vm.max_map_count` when it had
    /// been merged with a neighbour, or by interposition; one more try, then the error names what stays.
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

    /// What an error number of a claim means for the caller.
    pub(super) fn refusal(&self, call: &'static str, range: AddrRange, errno: Errno) -> ClaimError {
        match errno {
            Errno::EEXIST => ClaimError::Occupied { range },
            Errno::ENOMEM | Errno::EAGAIN | Errno::EOVERFLOW | Errno::ENFILE => {
                ClaimError::Exhausted(self.limit_error(call, range, errno))
            }
            Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOSYS => ClaimError::Unsupported { call },
            // EPERM and EACCES are policy; what is unknown will not go away at another address either.
            _ => ClaimError::Refused(os_error(call, range, errno)),
        }
    }

    /// A failed call with the limit named that it most likely ran into.
    pub(super) fn limit_error(
        &self,
        call: &'static str,
        range: AddrRange,
        errno: Errno,
    ) -> PlatformError {
        PlatformError {
            reason: self.reason(errno, range.len()),
            ..os_error(call, range, errno)
        }
    }

    fn check_claim(&self, range: AddrRange) {
        self.check(range);
        let granularity = self.config.granularity;
        assert!(
            is_aligned(range.start(), granularity),
            "{range} does not start at a multiple of {granularity}"
        );
    }
}

/// The access that private memory is mapped with before it gets its own.
const fn first_access(protection: Protection) -> i32 {
    match protection {
        Protection::ReadExecute => abi::PROT_NONE,
        Protection::None | Protection::Read | Protection::ReadWrite => prot_bits(protection),
    }
}
