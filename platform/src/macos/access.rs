//! What is done to pages that are already claimed: access, population, guards, release.
//!
//! Invariant: `VM_FLAGS_OVERWRITE` appears in [`MacOsPlatform::renew`] alone, over private memory
//! that the caller holds. `MADV_FREE` would not do: pages may keep what they held until memory
//! is short.

use super::abi;
use super::{MacOsPlatform, Syscalls, os_error, prot_bits};
use crate::contract::Protection;
use crate::error::PlatformError;
use crate::pages;
use crate::range::AddrRange;

/// Bytes that `getentropy` gives at most.
const ENTROPY_MAX: usize = 256;

impl<S: Syscalls> MacOsPlatform<S> {
    /// There is no call that populates; a system out of memory and swap ends a process of its own choice.
    pub(super) fn populate_range(&self, range: AddrRange) -> Result<(), PlatformError> {
        self.check(range);
        pages::each(range, self.config.page_size, |page| self.sys.touch(page));
        Ok(())
    }

    pub(super) fn change_access(
        &self,
        range: AddrRange,
        protection: Protection,
    ) -> Result<(), PlatformError> {
        self.check(range);
        self.sys
            .mach_vm_protect(range.start(), range.len(), false, prot_bits(protection))
            .map_err(|code| os_error("mach_vm_protect", range, code))
    }

    pub(super) fn guard_range(&self, range: AddrRange) -> Result<(), PlatformError> {
        self.change_access(range, Protection::None)?;
        self.discard_range(range)
    }

    /// Private pages are mapped anew with the access they have. Of a view, what is writable is
    /// zeroed: its pages stay until the last view goes. A view that is not writable stays as it is.
    pub(super) fn discard_range(&self, range: AddrRange) -> Result<(), PlatformError> {
        self.check(range);
        let mut parts: Vec<(AddrRange, i32)> = Vec::new();
        self.each_region(range, &mut |part, info| {
            parts.push((part, info.protection & abi::VM_PROT_ALL));
        })
        .map_err(|code| os_error("mach_vm_region for a discard", range, code))?;
        for (part, prot) in parts {
            if !self.views.touches(part) {
                self.renew(part, prot)?;
            } else if prot & abi::VM_PROT_WRITE != 0 {
                self.sys.zero(part.start(), part.len());
            }
        }
        Ok(())
    }

    /// Fresh pages in place of private ones; the kernel puts the old ones back if it cannot
    /// (vm_map_enter's zap_old_map). They get access by a change, as claims do.
    fn renew(&self, part: AddrRange, prot: i32) -> Result<(), PlatformError> {
        let (start, len) = (part.start(), part.len());
        let flags = abi::VM_FLAGS_FIXED | abi::VM_FLAGS_OVERWRITE;
        let none = abi::VM_PROT_NONE;
        self.sys
            .mach_vm_map(
                start,
                len,
                flags,
                none,
                abi::VM_PROT_ALL,
                abi::VM_INHERIT_COPY,
            )
            .map_err(|code| {
                os_error("mach_vm_map(VM_FLAGS_OVERWRITE) over own pages", part, code)
            })?;
        if prot == none {
            return Ok(());
        }
        self.sys
            .mach_vm_protect(start, len, false, prot)
            .map_err(|code| os_error("mach_vm_protect", part, code))
    }

    pub(super) fn release_range(&self, range: AddrRange) -> Result<(), PlatformError> {
        self.check(range);
        let unmapped = self.views.release(range, || {
            self.sys.mach_vm_deallocate(range.start(), range.len())
        });
        unmapped.map_err(|code| os_error("mach_vm_deallocate", range, code))
    }

    /// Fills `buffer`.
    pub(super) fn fill_random(&self, buffer: &mut [u8]) {
        for part in buffer.chunks_mut(ENTROPY_MAX) {
            // One more try; getentropy(2) names no error that passes.
            let filled = self
                .sys
                .getentropy(part)
                .or_else(|_| self.sys.getentropy(part));
            filled.expect("getentropy: placement without randomness would be guessable");
        }
    }
}
