//! Pages with two views: a section of the paging file, mapped writable in one place and executable
//! in another.
//!
//! Invariants:
//! - a view's access never grows beyond what it was mapped with (VirtualProtect's page: "must be
//!   compatible with the access protection specified when the view was mapped"), so an executable
//!   view never becomes writable, nor a writable one executable;
//! - the section itself permits all: whoever has its handle could map a third view. The handle is
//!   not inherited, has no name, and is closed with the backing.

use super::abi;
use super::claim::refusal;
use super::claims::Kind;
use super::{Syscalls, WindowsPlatform, os_error};
use crate::contract::{Backing, Protection};
use crate::error::{ClaimError, PlatformError};
use crate::pages;
use crate::range::AddrRange;
use std::sync::Arc;

/// The section; its pages live until the last view of them goes.
#[derive(Debug)]
pub(super) struct Section<S: Syscalls> {
    sys: Arc<S>,
    handle: usize,
    len: u64,
}

impl<S: Syscalls> Section<S> {
    /// `len` bytes, committed.
    pub(super) fn new(sys: &Arc<S>, len: u64) -> Result<Self, PlatformError> {
        let handle = sys.create_file_mapping(len, abi::PAGE_EXECUTE_READWRITE);
        let handle = handle.map_err(|code| {
            let range = AddrRange::at(0, len).expect("starts at 0");
            os_error("CreateFileMapping(PAGE_EXECUTE_READWRITE)", range, code)
        })?;
        Ok(Self {
            sys: Arc::clone(sys),
            handle,
            len,
        })
    }

    /// Its handle.
    pub(super) const fn handle(&self) -> usize {
        self.handle
    }
}

impl<S: Syscalls> Backing for Section<S> {
    fn len(&self) -> u64 {
        self.len
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

impl<S: Syscalls> Drop for Section<S> {
    fn drop(&mut self) {
        self.sys.close_handle(self.handle);
    }
}

/// The access to map with. What is mapped without access can read and write at most, later.
const fn view_access(protection: Protection) -> u32 {
    match protection {
        Protection::None | Protection::ReadWrite => abi::FILE_MAP_READ | abi::FILE_MAP_WRITE,
        Protection::Read => abi::FILE_MAP_READ,
        Protection::ReadExecute => abi::FILE_MAP_READ | abi::FILE_MAP_EXECUTE,
    }
}

impl<S: Syscalls> WindowsPlatform<S> {
    /// Maps a view of `backing` at exactly `range`.
    pub(super) fn claim_view(
        &self,
        backing: &dyn Backing,
        offset: u64,
        range: AddrRange,
        protection: Protection,
    ) -> Result<(), ClaimError> {
        const CALL: &str = "MapViewOfFileEx";
        self.check_claim(range);
        let section: &Section<S> = pages::of_view(backing, offset, range, self.config.granularity);
        if !self.user.encloses(range) {
            return Err(ClaimError::Occupied { range });
        }
        let (start, len) = (range.start(), range.len());
        let access = view_access(protection);
        let at = self
            .sys
            .map_view_of_file_ex(section.handle, access, offset, len, start)
            .map_err(|code| refusal(CALL, range, code))?;
        if at != start {
            self.unmap_fresh(at, len)?;
            return Err(ClaimError::Occupied { range });
        }
        if protection == Protection::None {
            let hidden = self.sys.virtual_protect(start, len, abi::PAGE_NOACCESS);
            if let Err(code) = hidden {
                self.unmap_fresh(start, len)?;
                return Err(refusal("VirtualProtect(PAGE_NOACCESS)", range, code));
            }
        }
        self.claims.add(range, Kind::View);
        Ok(())
    }

    /// Unmaps what was just mapped: one more try, then the error names what stays.
    fn unmap_fresh(&self, at: u64, len: u64) -> Result<(), ClaimError> {
        let unmap = || self.sys.unmap_view_of_file(at);
        unmap().or_else(|_| unmap()).map_err(|code| {
            let range = AddrRange::at(at, len).expect("the system mapped it");
            ClaimError::Exhausted(os_error("UnmapViewOfFile", range, code))
        })
    }
}
