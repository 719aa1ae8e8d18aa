//! Claims of address space: exactly here, from a hint upwards, or the lowest hole.
//!
//! Invariants:
//! - `VM_FLAGS_OVERWRITE` is never passed here: no claim can replace a mapping;
//! - what came back is compared, and deallocated if it lies outside what was asked for.

use super::abi::{self, KernReturn};
use super::{MacOsPlatform, Syscalls, os_error, prot_bits};
use crate::contract::Protection;
use crate::error::ClaimError;
use crate::range::AddrRange;

/// Low claims end here.
const LOW_2G: u64 = 1 << 31;

const EXACT_CALL: &str = "mach_vm_map(VM_FLAGS_FIXED)";

impl<S: Syscalls> MacOsPlatform<S> {
    /// Private memory at exactly `range`.
    pub(super) fn claim_private(
        &self,
        range: AddrRange,
        protection: Protection,
    ) -> Result<(), ClaimError> {
        self.check(range);
        if range.overlaps(self.pagezero) {
            return Err(ClaimError::Occupied { range });
        }
        let at = self
            .map(range.start(), range.len(), abi::VM_FLAGS_FIXED, protection)
            .map_err(|code| refusal(EXACT_CALL, range, code))?;
        self.keep_inside(at, range, range, protection).map(drop)
    }

    /// Private memory inside `within`, at `hint` if that is free.
    pub(super) fn claim_near_hint(
        &self,
        hint: u64,
        len: u64,
        within: AddrRange,
        protection: Protection,
    ) -> Result<AddrRange, ClaimError> {
        const CALL: &str = "mach_vm_map(VM_FLAGS_ANYWHERE, hint)";
        let wanted = AddrRange::at(hint, len).expect("the hinted range ends below 2^64");
        self.check(wanted);
        if within.encloses(wanted) {
            match self.claim_private(wanted, protection) {
                Ok(()) => return Ok(wanted),
                Err(ClaimError::Occupied { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let at = self
            .map(hint, len, abi::VM_FLAGS_ANYWHERE, protection)
            .map_err(|code| refusal(CALL, wanted, code))?;
        self.keep_inside(at, wanted, within, protection)
    }

    /// Private memory in the lowest hole of `within` below 2 GiB. Nothing is random about it.
    pub(super) fn claim_lowest(
        &self,
        len: u64,
        within: AddrRange,
        protection: Protection,
    ) -> Result<AddrRange, ClaimError> {
        const CALL: &str = "mach_vm_map(VM_FLAGS_ANYWHERE)";
        let Ok(window) = self.config.low_window else {
            return Err(ClaimError::Unsupported { call: CALL });
        };
        let wanted = AddrRange::at(0, len).expect("starts at 0");
        self.check(wanted);
        let low = AddrRange::new(window.start(), LOW_2G).unwrap_or(window);
        let Some(low) = low.intersection(within) else {
            return Err(ClaimError::Occupied { range: wanted });
        };
        match self.map(low.start(), len, abi::VM_FLAGS_ANYWHERE, protection) {
            Ok(at) => self.keep_inside(at, wanted, low, protection),
            Err(code @ KernReturn::NO_SPACE) => {
                let mut error = os_error(CALL, wanted, code);
                error.reason = format!("no hole of {len} bytes above {:#x}", low.start());
                Err(ClaimError::Exhausted(error))
            }
            Err(code) => Err(refusal(CALL, wanted, code)),
        }
    }

    /// `MAP_JIT` memory inside `within`, from `hint` upwards: it takes no fixed address.
    pub(super) fn claim_jit_pages(
        &self,
        hint: u64,
        len: u64,
        within: AddrRange,
    ) -> Result<AddrRange, ClaimError> {
        const CALL: &str = "mmap(MAP_JIT)";
        if !self.config.capabilities.jit_pages {
            return Err(ClaimError::Unsupported { call: CALL });
        }
        let wanted = AddrRange::at(hint, len).expect("the hinted range ends below 2^64");
        self.check(wanted);
        let at = self
            .sys
            .mmap_jit(hint, len)
            .map_err(|code| refusal(CALL, wanted, code))?;
        match AddrRange::at(at, len).filter(|&range| within.encloses(range)) {
            Some(range) => Ok(range),
            None => {
                self.unmap_fresh(at, len)?;
                Err(ClaimError::Occupied { range: wanted })
            }
        }
    }

    /// Zero-filled memory that may get any access later. It is executable only by a change of
    /// access, as the probe tried it.
    fn map(
        &self,
        addr: u64,
        len: u64,
        flags: i32,
        protection: Protection,
    ) -> Result<u64, KernReturn> {
        let first = match protection {
            Protection::ReadExecute => Protection::None,
            other => other,
        };
        self.sys.mach_vm_map(
            addr,
            len,
            flags,
            prot_bits(first),
            abi::VM_PROT_ALL,
            abi::VM_INHERIT_COPY,
        )
    }

    /// Keeps what the kernel placed if it lies inside `within`, with its final access; else gives it back.
    fn keep_inside(
        &self,
        at: u64,
        wanted: AddrRange,
        within: AddrRange,
        protection: Protection,
    ) -> Result<AddrRange, ClaimError> {
        let len = wanted.len();
        let Some(range) = AddrRange::at(at, len).filter(|&range| within.encloses(range)) else {
            self.unmap_fresh(at, len)?;
            return Err(ClaimError::Occupied { range: wanted });
        };
        if protection == Protection::ReadExecute {
            let prot = prot_bits(protection);
            if let Err(code) = self.sys.mach_vm_protect(at, len, false, prot) {
                self.unmap_fresh(at, len)?;
                return Err(refusal("mach_vm_protect", range, code));
            }
        }
        Ok(range)
    }

    /// Deallocates what the kernel has just given: one more try, then the error names what stays.
    pub(super) fn unmap_fresh(&self, at: u64, len: u64) -> Result<(), ClaimError> {
        let unmapped = self
            .sys
            .mach_vm_deallocate(at, len)
            .or_else(|_| self.sys.mach_vm_deallocate(at, len));
        unmapped.map_err(|code| {
            let range = AddrRange::at(at, len).expect("the kernel mapped it");
            ClaimError::Exhausted(os_error("mach_vm_deallocate", range, code))
        })
    }
}

/// What a code of a claim means for the caller.
pub(super) fn refusal(call: &'static str, range: AddrRange, code: KernReturn) -> ClaimError {
    match code {
        // An address outside the task's limits is the system's: try elsewhere.
        KernReturn::NO_SPACE | KernReturn::INVALID_ADDRESS => ClaimError::Occupied { range },
        KernReturn::RESOURCE_SHORTAGE => ClaimError::Exhausted(os_error(call, range, code)),
        KernReturn::INVALID_ARGUMENT | KernReturn::NOT_SUPPORTED => {
            ClaimError::Unsupported { call }
        }
        // PROTECTION_FAILURE and DENIED are policy; what is unknown will not go away elsewhere either.
        _ => ClaimError::Refused(os_error(call, range, code)),
    }
}
