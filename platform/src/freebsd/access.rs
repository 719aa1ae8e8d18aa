//! What is done to pages that are already claimed: access, population, guards, release.
//!
//! Invariant: `MAP_FIXED` without `MAP_EXCL` appears in [`FreeBsdPlatform::renew`] alone, over
//! private memory that the caller holds. `MADV_FREE` would not do: pages may keep what they held
//! until memory is short.

use super::abi::{self, Errno};
use super::{FreeBsdPlatform, Syscalls, os_error, prot_bits, retry};
use crate::contract::Protection;
use crate::error::PlatformError;
use crate::pages;
use crate::range::AddrRange;

impl<S: Syscalls> FreeBsdPlatform<S> {
    /// FreeBSD has no call that populates; swap was reserved when the pages were mapped, so touching
    /// them fails only where the system overcommits, and then it ends a process of its own choice.
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
            .mprotect(range.start(), range.len(), prot_bits(protection))
            .map_err(|errno| self.limit_error("mprotect", range, errno))
    }

    pub(super) fn guard_range(&self, range: AddrRange) -> Result<(), PlatformError> {
        self.change_access(range, Protection::None)?;
        self.discard_range(range)
    }

    /// Private pages are mapped anew with the access they have. Of a view, what is writable is
    /// zeroed: the object keeps its pages until its last view goes. A view that is not writable
    /// stays as it is.
    pub(super) fn discard_range(&self, range: AddrRange) -> Result<(), PlatformError> {
        self.check(range);
        let mut parts: Vec<(AddrRange, i32)> = Vec::new();
        self.each_entry(&mut |entry| {
            let held = AddrRange::new(entry.start, entry.end);
            let part = held.and_then(|held| held.intersection(range));
            parts.extend(part.map(|part| (part, entry.protection & abi::PROT_ALL)));
            entry.end < range.end()
        })
        .map_err(|errno| os_error("sysctl(KERN_PROC_VMMAP) for a discard", range, errno))?;
        for (part, prot) in parts {
            if !self.views.touches(part) {
                self.renew(part, prot)?;
            } else if prot & abi::PROT_WRITE != 0 {
                self.sys.zero(part.start(), part.len());
            }
        }
        Ok(())
    }

    /// Fresh pages in place of private ones. They come without access first: that reserves no
    /// swap, so the replacement itself cannot fail after the old pages are gone.
    fn renew(&self, part: AddrRange, prot: i32) -> Result<(), PlatformError> {
        let (start, len) = (part.start(), part.len());
        let flags = abi::MAP_PRIVATE | abi::MAP_ANON | abi::MAP_FIXED;
        let none = self.private_prot(Protection::None);
        self.sys
            .mmap(start, len, none, flags, -1, 0)
            .map_err(|errno| self.limit_error("mmap(MAP_FIXED) over own pages", part, errno))?;
        if prot == abi::PROT_NONE {
            return Ok(());
        }
        self.sys
            .mprotect(start, len, prot)
            .map_err(|errno| self.limit_error("mprotect", part, errno))
    }

    pub(super) fn release_range(&self, range: AddrRange) -> Result<(), PlatformError> {
        self.check(range);
        let unmapped = self
            .views
            .release(range, || self.sys.munmap(range.start(), range.len()));
        unmapped.map_err(|errno| self.limit_error("munmap", range, errno))
    }

    /// Fills `buffer`, however often a signal interrupts.
    pub(super) fn fill_random(&self, buffer: &mut [u8]) {
        let mut rest = buffer;
        while !rest.is_empty() {
            let filled = retry(|| self.sys.getrandom(rest)).unwrap_or_else(|errno: Errno| {
                panic!("getrandom: {errno}: placement without randomness would be guessable")
            });
            rest = rest.split_at_mut(filled).1;
        }
    }
}
