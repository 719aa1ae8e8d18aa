//! What is done to pages that are already claimed: access, population, guards, release.
//!
//! Invariant: `MEM_RELEASE` takes what begins a claim of ours, and no call spans two claims.

use super::abi::{self, Win32Error};
use super::claims::{Kind, Release};
use super::syscalls::MemoryInfo;
use super::{Syscalls, WindowsPlatform, os_error, page_bits};
use crate::contract::Protection;
use crate::error::PlatformError;
use crate::pages;
use crate::range::AddrRange;

impl<S: Syscalls> WindowsPlatform<S> {
    /// Committed memory is there whatever else the system is asked for later, so touching it
    /// cannot fail; it only saves the faults of later.
    pub(super) fn populate_range(&self, range: AddrRange) -> Result<(), PlatformError> {
        self.check(range);
        pages::each(range, self.config.page_size, |page| self.sys.touch(page));
        Ok(())
    }

    /// Pages that had no memory get it with their first access.
    pub(super) fn change_access(
        &self,
        range: AddrRange,
        protection: Protection,
    ) -> Result<(), PlatformError> {
        self.check(range);
        let protect = page_bits(protection);
        self.each_part(range, &mut |part, _, info| {
            let (start, len) = (part.start(), part.len());
            let done = if info.state == abi::MEM_COMMIT {
                self.sys.virtual_protect(start, len, protect)
            } else if protection == Protection::None {
                Ok(())
            } else {
                let committed = self.sys.virtual_alloc(start, len, abi::MEM_COMMIT, protect);
                committed.map(drop)
            };
            done.map_err(|code| {
                let call = match info.state {
                    abi::MEM_COMMIT => "VirtualProtect",
                    _ => "VirtualAlloc(MEM_COMMIT)",
                };
                os_error(call, part, code)
            })
        })
    }

    /// Private pages lose their memory, views' only their access.
    pub(super) fn guard_range(&self, range: AddrRange) -> Result<(), PlatformError> {
        self.check(range);
        self.each_part(range, &mut |part, kind, info| match (kind, info.state) {
            (Kind::Private, abi::MEM_COMMIT) => self.decommit(part),
            (Kind::Private, _) => Ok(()),
            (Kind::View, _) => self.hide(part),
        })
    }

    /// Private pages are decommitted and committed anew with the access they have. Of a view, what
    /// is writable is zeroed: its pages stay until the last view goes. A view that is not writable
    /// stays as it is.
    pub(super) fn discard_range(&self, range: AddrRange) -> Result<(), PlatformError> {
        self.check(range);
        self.each_part(range, &mut |part, kind, info| {
            let (start, len) = (part.start(), part.len());
            if info.state != abi::MEM_COMMIT {
                return Ok(());
            }
            if kind == Kind::View {
                if info.protect == abi::PAGE_READWRITE {
                    self.sys.zero(start, len);
                }
                return Ok(());
            }
            self.decommit(part)?;
            if info.protect == abi::PAGE_NOACCESS {
                return Ok(());
            }
            let renewed = self
                .sys
                .virtual_alloc(start, len, abi::MEM_COMMIT, info.protect);
            renewed
                .map(drop)
                .map_err(|code| os_error("VirtualAlloc(MEM_COMMIT) of discarded pages", part, code))
        })
    }

    /// A claim goes with its last part. Until then released parts are reserved addresses without
    /// access or memory, or pages of a view without access.
    pub(super) fn release_range(&self, range: AddrRange) -> Result<(), PlatformError> {
        self.check(range);
        self.claims.release(range, |release| match release {
            Release::Whole(Kind::Private, whole) => self
                .sys
                .virtual_free(whole.start(), 0, abi::MEM_RELEASE)
                .map_err(|code| os_error("VirtualFree(MEM_RELEASE)", whole, code)),
            Release::Whole(Kind::View, whole) => self
                .sys
                .unmap_view_of_file(whole.start())
                .map_err(|code| os_error("UnmapViewOfFile", whole, code)),
            Release::Part(Kind::Private, part) => self.decommit(part),
            Release::Part(Kind::View, part) => self.hide(part),
        })
    }

    fn decommit(&self, part: AddrRange) -> Result<(), PlatformError> {
        self.sys
            .virtual_free(part.start(), part.len(), abi::MEM_DECOMMIT)
            .map_err(|code| os_error("VirtualFree(MEM_DECOMMIT)", part, code))
    }

    fn hide(&self, part: AddrRange) -> Result<(), PlatformError> {
        self.sys
            .virtual_protect(part.start(), part.len(), abi::PAGE_NOACCESS)
            .map_err(|code| os_error("VirtualProtect(PAGE_NOACCESS)", part, code))
    }

    /// Calls `each` with the parts of `range` that are of one claim and in one state, ascending.
    fn each_part(
        &self,
        range: AddrRange,
        each: &mut dyn FnMut(AddrRange, Kind, MemoryInfo) -> Result<(), PlatformError>,
    ) -> Result<(), PlatformError> {
        for (claim, kind) in self.claims.parts(range) {
            let mut from = claim.start();
            while from < claim.end() {
                let query = |code| os_error("VirtualQuery of own pages", claim, code);
                let info = self.sys.virtual_query(from).map_err(query)?;
                let end = info.base.saturating_add(info.len).min(claim.end());
                let part = AddrRange::new(from, end)
                    .filter(|part| !part.is_empty() && info.state != abi::MEM_FREE)
                    .ok_or_else(|| query(Win32Error::INVALID_ADDRESS))?;
                each(part, kind, info)?;
                from = part.end();
            }
        }
        Ok(())
    }

    /// Fills `buffer`.
    pub(super) fn fill_random(&self, buffer: &mut [u8]) {
        let filled = self
            .sys
            .bcrypt_gen_random(buffer)
            .or_else(|_| self.sys.bcrypt_gen_random(buffer));
        filled.expect("BCryptGenRandom: placement without randomness would be guessable");
    }
}
