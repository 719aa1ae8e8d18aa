//! Claims of address space: `VirtualAlloc` exactly here, or `VirtualAlloc2` within bounds.
//!
//! Invariants:
//! - no call here replaces anything: `VirtualAlloc` with `MEM_RESERVE` at an address takes free
//!   address space or fails;
//! - what came back is compared, and released if it lies outside what was asked for;
//! - a claim without access is address space only: it commits no memory.

use super::abi::{self, Win32Error};
use super::claims::Kind;
use super::{Syscalls, WindowsPlatform, os_error, page_bits};
use crate::contract::Protection;
use crate::error::ClaimError;
use crate::range::{AddrRange, align_down, align_up};

/// Low claims end here.
const LOW_2G: u64 = 1 << 31;

const EXACT_CALL: &str = "VirtualAlloc";
const BOUNDED_CALL: &str = "VirtualAlloc2";

impl<S: Syscalls> WindowsPlatform<S> {
    /// Private memory at exactly `range`.
    pub(super) fn claim_private(
        &self,
        range: AddrRange,
        protection: Protection,
    ) -> Result<(), ClaimError> {
        self.check_claim(range);
        if !self.user.encloses(range) {
            return Err(ClaimError::Occupied { range });
        }
        let (start, len) = (range.start(), range.len());
        let (kind, protect) = kind_and_access(protection);
        let at = self
            .sys
            .virtual_alloc(start, len, kind, protect)
            .map_err(|code| refusal(EXACT_CALL, range, code))?;
        self.keep_inside(at, range, range).map(drop)
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
        if within.encloses(wanted) {
            match self.claim_private(wanted, protection) {
                Ok(()) => return Ok(wanted),
                Err(ClaimError::Occupied { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        match self.claim_bounded(wanted, within, protection) {
            Err(ClaimError::Unsupported { .. }) => Err(ClaimError::Occupied { range: wanted }),
            done => done,
        }
    }

    /// Private memory below 2 GiB and inside `within`, where the system likes. Nothing is random
    /// about it.
    pub(super) fn claim_anywhere_low(
        &self,
        len: u64,
        within: AddrRange,
        protection: Protection,
    ) -> Result<AddrRange, ClaimError> {
        let wanted = AddrRange::at(0, len).expect("starts at 0");
        self.check(wanted);
        let low = AddrRange::at(0, LOW_2G).expect("starts at 0");
        match low.intersection(within) {
            Some(low) => self.claim_bounded(wanted, low, protection),
            None => Err(ClaimError::Occupied { range: wanted }),
        }
    }

    /// `VirtualAlloc2` inside `within`. Some systems (Wine 8) ignore the lower bound.
    fn claim_bounded(
        &self,
        wanted: AddrRange,
        within: AddrRange,
        protection: Protection,
    ) -> Result<AddrRange, ClaimError> {
        let granularity = self.config.granularity;
        let occupied = ClaimError::Occupied { range: wanted };
        let Some(inside) = within.intersection(self.user) else {
            return Err(occupied);
        };
        let lowest = align_up(inside.start(), granularity).unwrap_or(inside.end());
        let end = align_down(inside.end(), granularity);
        if lowest.saturating_add(wanted.len()) > end {
            return Err(occupied);
        }
        let (kind, protect) = kind_and_access(protection);
        let len = wanted.len();
        match self.sys.virtual_alloc2(lowest, end - 1, len, kind, protect) {
            Ok(at) => self.keep_inside(at, wanted, within),
            // No hole is large enough; a system out of memory says COMMITMENT_LIMIT.
            Err(Win32Error::NOT_ENOUGH_MEMORY) => Err(occupied),
            Err(Win32Error::INVALID_PARAMETER) => {
                Err(ClaimError::Unsupported { call: BOUNDED_CALL })
            }
            Err(code) => Err(refusal(BOUNDED_CALL, wanted, code)),
        }
    }

    /// Keeps what the system placed if it lies inside `within`; else gives it back.
    fn keep_inside(
        &self,
        at: u64,
        wanted: AddrRange,
        within: AddrRange,
    ) -> Result<AddrRange, ClaimError> {
        match AddrRange::at(at, wanted.len()).filter(|&range| within.encloses(range)) {
            Some(range) => {
                self.claims.add(range, Kind::Private);
                Ok(range)
            }
            None => {
                self.free_fresh(at, wanted.len())?;
                Err(ClaimError::Occupied { range: wanted })
            }
        }
    }

    /// Releases what the system has just given: one more try, then the error names what stays.
    fn free_fresh(&self, at: u64, len: u64) -> Result<(), ClaimError> {
        let free = || self.sys.virtual_free(at, 0, abi::MEM_RELEASE);
        free().or_else(|_| free()).map_err(|code| {
            let range = AddrRange::at(at, len).expect("the system gave it");
            ClaimError::Exhausted(os_error("VirtualFree(MEM_RELEASE)", range, code))
        })
    }
}

/// What `VirtualAlloc` is asked for.
const fn kind_and_access(protection: Protection) -> (u32, u32) {
    let kind = match protection {
        Protection::None => abi::MEM_RESERVE,
        _ => abi::MEM_RESERVE | abi::MEM_COMMIT,
    };
    (kind, page_bits(protection))
}

/// What a code of a claim means for the caller.
pub(super) fn refusal(call: &'static str, range: AddrRange, code: Win32Error) -> ClaimError {
    match code {
        Win32Error::INVALID_ADDRESS => ClaimError::Occupied { range },
        Win32Error::CALL_NOT_IMPLEMENTED => ClaimError::Unsupported { call },
        Win32Error::NOT_ENOUGH_MEMORY
        | Win32Error::NO_SYSTEM_RESOURCES
        | Win32Error::WORKING_SET_QUOTA
        | Win32Error::PAGEFILE_QUOTA
        | Win32Error::COMMITMENT_LIMIT => ClaimError::Exhausted(os_error(call, range, code)),
        // ACCESS_DENIED and DYNAMIC_CODE_BLOCKED are policy; what is unknown will not go away
        // elsewhere either.
        _ => ClaimError::Refused(os_error(call, range, code)),
    }
}
