//! What the kernel's rules say to a call on mappings that exist.

use super::{SimLinux, SimMapping, State};
use crate::linux::SysResult;
use crate::linux::abi::{self, Errno};
use crate::range::{AddrRange, align_up, to_u64};
use parking_lot::MutexGuard;

impl SimLinux {
    /// Takes the lock; fails if the call was planned to.
    pub(super) fn enter(&self, call: &'static str) -> SysResult<MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        state.kernel.enter(call).map_err(Errno)?;
        Ok(state)
    }

    /// The pages of a call on a range: whole ones, rounded up, from an aligned start.
    pub(super) fn pages(&self, addr: u64, len: u64) -> SysResult<AddrRange> {
        let page = self.options.page_size;
        let len = align_up(len, page).ok_or(Errno::ENOMEM)?;
        let range = AddrRange::at(addr, len).ok_or(Errno::EINVAL)?;
        if addr.is_multiple_of(page) {
            Ok(range)
        } else {
            Err(Errno::EINVAL)
        }
    }

    pub(super) fn known_advice(&self, advice: i32) -> bool {
        match advice {
            abi::MADV_DONTNEED | abi::MADV_REMOVE | abi::MADV_DONTFORK => true,
            abi::MADV_POPULATE_WRITE => self.since(5, 14),
            abi::MADV_DONTNEED_LOCKED => self.since(5, 18),
            abi::MADV_GUARD_INSTALL => self.since(6, 13),
            _ => false,
        }
    }

    /// What the kernel says to advice for one mapping.
    pub(super) fn advise_one(&self, held: &SimMapping, advice: i32) -> SysResult<()> {
        let shared = held.shared.is_some();
        match advice {
            abi::MADV_REMOVE if !shared => Err(Errno::EINVAL),
            abi::MADV_REMOVE if !held.may_write => Err(Errno::EACCES),
            abi::MADV_POPULATE_WRITE if held.prot & abi::PROT_WRITE == 0 => Err(Errno::EINVAL),
            // Until 6.15 only writable anonymous memory took guard markers.
            abi::MADV_GUARD_INSTALL if shared && !self.since(6, 15) => Err(Errno::EINVAL),
            _ => Ok(()),
        }
    }

    /// mprotect of `part` of one mapping.
    pub(super) fn protect_one(
        &self,
        state: &mut State,
        mapping: &SimMapping,
        part: AddrRange,
        prot: i32,
    ) -> SysResult<()> {
        let gains = prot & !mapping.prot;
        let denied = prot & abi::PROT_WRITE != 0 && !mapping.may_write;
        if denied || (self.options.mdwe && gains & abi::PROT_EXEC != 0) {
            return Err(Errno::EACCES);
        }
        if mapping.sealed {
            return Err(Errno::EPERM);
        }
        if prot != mapping.prot && part != mapping.range && self.at_map_limit(state) {
            return Err(Errno::ENOMEM);
        }
        state.kernel.space.update(part, |held| held.prot = prot);
        Ok(())
    }

    pub(super) fn at_map_limit(&self, state: &State) -> bool {
        to_u64(state.kernel.space.len()) >= self.options.max_map_count
    }
}
