//! Pages with two views: an anonymous shared-memory object (`SHM_ANON`), mapped writable in one
//! place and executable in another.
//!
//! Invariants:
//! - an executable view can never become writable: it is mapped with `PROT_MAX` of what it has,
//!   which the kernel only ever lowers (13.0; before, the access can be changed back);
//! - a writable view is not inherited by fork: a child would write the parent's code;
//! - the object keeps its length as long as this crate holds its descriptor: nothing shrinks it.

use super::abi;
use super::claim::Pages;
use super::{FreeBsdPlatform, Syscalls, os_error, prot_bits, retry};
use crate::contract::{Backing, Protection};
use crate::error::{ClaimError, PlatformError};
use crate::pages;
use crate::range::AddrRange;
use std::sync::Arc;

/// A shared-memory object of fixed length.
#[derive(Debug)]
pub(super) struct Object<S: Syscalls> {
    sys: Arc<S>,
    fd: i32,
    len: u64,
}

impl<S: Syscalls> Backing for Object<S> {
    fn len(&self) -> u64 {
        self.len
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

impl<S: Syscalls> Drop for Object<S> {
    fn drop(&mut self) {
        self.sys.close(self.fd);
    }
}

impl<S: Syscalls> FreeBsdPlatform<S> {
    /// An object of `len` bytes, not populated; swap is reserved for all of it.
    pub(super) fn new_object(&self, len: u64) -> Result<Object<S>, PlatformError> {
        let range = AddrRange::at(0, len).expect("starts at 0");
        self.check(range);
        let failed = |call: &'static str| move |errno| os_error(call, range, errno);
        let fd = retry(|| self.sys.shm_open_anon()).map_err(failed("shm_open(SHM_ANON)"))?;
        // From here on dropping it closes the descriptor.
        let object = Object {
            sys: Arc::clone(&self.sys),
            fd,
            len,
        };
        retry(|| self.sys.ftruncate(fd, len)).map_err(failed("ftruncate of SHM_ANON"))?;
        Ok(object)
    }

    /// Maps a view of `backing` at exactly `range`.
    pub(super) fn claim_view(
        &self,
        backing: &dyn Backing,
        offset: u64,
        range: AddrRange,
        protection: Protection,
    ) -> Result<(), ClaimError> {
        self.check(range);
        let object: &Object<S> = pages::of_view(backing, offset, range, self.config.page_size);
        let executable = protection == Protection::ReadExecute;
        let most = if executable {
            abi::PROT_READ | abi::PROT_EXEC
        } else {
            abi::PROT_READ | abi::PROT_WRITE
        };
        let pages = Pages {
            flags: abi::MAP_SHARED,
            fd: object.fd,
            offset,
        };
        self.map_exact(range, self.with_max(prot_bits(protection), most), pages)?;
        let (start, len) = (range.start(), range.len());
        if !executable && let Err(errno) = self.sys.minherit(start, len, abi::INHERIT_NONE) {
            self.unmap_fresh(start, len)?;
            return Err(self.refusal("minherit(INHERIT_NONE)", range, errno));
        }
        self.views.add(range);
        Ok(())
    }
}
