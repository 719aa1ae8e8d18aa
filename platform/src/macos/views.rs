//! Pages with two views: memory without access somewhere high, remapped writable in one place and
//! executable in another.
//!
//! Invariants:
//! - the maximum access of a view is lowered to what it has, for good: an executable view can
//!   never become writable, nor a writable one executable;
//! - a writable view is not inherited by fork; an executable one becomes a copy in the child.

use super::abi;
use super::claim::refusal;
use super::{MacOsPlatform, Syscalls, os_error, prot_bits};
use crate::contract::{Backing, Protection};
use crate::error::{ClaimError, PlatformError};
use crate::pages;
use crate::range::AddrRange;
use std::sync::Arc;

/// Backings and probing pages lie at or above this, out of the low window.
const HIGH: u64 = 1 << 32;

/// The pages, mapped without access as long as this lives.
#[derive(Debug)]
pub(super) struct Object<S: Syscalls> {
    sys: Arc<S>,
    base: u64,
    len: u64,
}

impl<S: Syscalls> Object<S> {
    /// `len` bytes, not populated.
    pub(super) fn new(sys: &Arc<S>, len: u64) -> Result<Self, PlatformError> {
        let base = sys.mach_vm_map(
            HIGH,
            len,
            abi::VM_FLAGS_ANYWHERE,
            abi::VM_PROT_NONE,
            abi::VM_PROT_ALL,
            abi::VM_INHERIT_NONE,
        );
        let base = base.map_err(|code| {
            let range = AddrRange::at(0, len).expect("starts at 0");
            os_error("mach_vm_map of a backing", range, code)
        })?;
        Ok(Self {
            sys: Arc::clone(sys),
            base,
            len,
        })
    }

    /// Where they lie.
    pub(super) const fn base(&self) -> u64 {
        self.base
    }
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
        give_back(&*self.sys, self.base, self.len);
    }
}

/// Deallocates what nobody could free later; tried twice.
pub(super) fn give_back<S: Syscalls>(sys: &S, at: u64, len: u64) {
    if sys.mach_vm_deallocate(at, len).is_err() {
        let _ = sys.mach_vm_deallocate(at, len);
    }
}

impl<S: Syscalls> MacOsPlatform<S> {
    /// Maps a view of `backing` at exactly `range`.
    pub(super) fn claim_view(
        &self,
        backing: &dyn Backing,
        offset: u64,
        range: AddrRange,
        protection: Protection,
    ) -> Result<(), ClaimError> {
        const CALL: &str = "mach_vm_remap(VM_FLAGS_FIXED)";
        self.check(range);
        let object: &Object<S> = pages::of_view(backing, offset, range, self.config.page_size);
        if range.overlaps(self.pagezero) {
            return Err(ClaimError::Occupied { range });
        }
        let executable = protection == Protection::ReadExecute;
        let inheritance = if executable {
            abi::VM_INHERIT_COPY
        } else {
            abi::VM_INHERIT_NONE
        };
        let (start, len) = (range.start(), range.len());
        let source = object.base + offset;
        let at = self
            .sys
            .mach_vm_remap(start, len, abi::VM_FLAGS_FIXED, source, inheritance)
            .map_err(|code| refusal(CALL, range, code))?;
        if at != start {
            self.unmap_fresh(at, len)?;
            return Err(ClaimError::Occupied { range });
        }
        let most = if executable {
            prot_bits(protection)
        } else {
            abi::VM_PROT_READ | abi::VM_PROT_WRITE
        };
        let changed = self
            .sys
            .mach_vm_protect(start, len, false, prot_bits(protection))
            .and_then(|()| self.sys.mach_vm_protect(start, len, true, most));
        if let Err(code) = changed {
            self.unmap_fresh(start, len)?;
            return Err(refusal("mach_vm_protect", range, code));
        }
        self.views.add(range);
        Ok(())
    }
}
