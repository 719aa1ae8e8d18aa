//! mmap: where a mapping goes, and the limits it may break.

use super::super::space::{Owner, SimMapping};
use super::{MIN_ADDRESS, MapExcl, SimFreeBsd, State, USER_END};
use crate::freebsd::SysResult;
use crate::freebsd::abi::{self, Errno};
use crate::range::{AddrRange, align_up};

/// `MAP_32BIT` means addresses below this (`MAP_32BIT_MAX_ADDR`).
const LOW_END: u64 = 1 << 31;

/// Random pages added to a hint (`aslr_pages_rnd_64`, `aslr_pages_rnd_32`).
const RANDOM_PAGES: u64 = 0x1000;
const RANDOM_PAGES_LOW: u64 = 0x100;

/// The arguments of a call of mmap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) addr: u64,
    pub(super) len: u64,
    pub(super) prot: i32,
    pub(super) flags: i32,
    pub(super) fd: i32,
    pub(super) offset: u64,
}

impl Request {
    const fn has(&self, flag: i32) -> bool {
        self.flags & flag != 0
    }
}

impl SimFreeBsd {
    /// kern_mmap: the checks in the kernel's order.
    pub(super) fn place(&self, state: &mut State, request: Request) -> SysResult<u64> {
        let (prot, max) = self.split_prot(request.prot)?;
        assert_ne!(
            prot & (abi::PROT_WRITE | abi::PROT_EXEC),
            abi::PROT_WRITE | abi::PROT_EXEC,
            "the backend asked for writable and executable memory"
        );
        let anonymous = request.has(abi::MAP_ANON);
        let exclusive = request.has(abi::MAP_EXCL);
        let malformed = request.len == 0
            || (anonymous && (request.fd != -1 || request.offset != 0))
            || (exclusive && !request.has(abi::MAP_FIXED))
            || (exclusive && self.options.excl == MapExcl::Unknown);
        if malformed {
            return Err(Errno::EINVAL);
        }
        let len = align_up(request.len, self.options.page_size).ok_or(Errno::ENOMEM)?;
        let request = Request {
            len,
            prot,
            ..request
        };
        let mapping = self.backed(state, request, max)?;
        self.check_limits(state, &mapping)?;
        let start = if request.has(abi::MAP_FIXED) {
            self.fixed(state, request)?
        } else {
            self.search(state, request)?
        };
        let range = AddrRange::at(start, len).ok_or(Errno::ENOMEM)?;
        state.kernel.space.insert(SimMapping { range, ..mapping });
        Ok(start)
    }

    /// The access asked for, and the most that it may ever become.
    fn split_prot(&self, prot: i32) -> SysResult<(i32, i32)> {
        let max = (prot >> 16) & abi::PROT_ALL;
        let now = prot & abi::PROT_ALL;
        if prot & !(abi::PROT_ALL | abi::prot_max(abi::PROT_ALL)) != 0
            || (max != 0 && !self.options.prot_max)
            || (max != 0 && max & now != now)
        {
            return Err(Errno::EINVAL);
        }
        let implied = if self.options.imply_prot_max && now != abi::PROT_NONE {
            now
        } else {
            abi::PROT_ALL
        };
        Ok((now, if max == 0 { implied } else { max }))
    }

    /// vm_map_fixed.
    fn fixed(&self, state: &mut State, request: Request) -> SysResult<u64> {
        let range = AddrRange::at(request.addr, request.len).ok_or(Errno::EINVAL)?;
        let bound = if request.has(abi::MAP_32BIT) {
            LOW_END
        } else {
            USER_END
        };
        if !request.addr.is_multiple_of(self.options.page_size)
            || request.addr < MIN_ADDRESS
            || range.end() > bound
        {
            return Err(Errno::EINVAL);
        }
        if request.has(abi::MAP_EXCL) && self.options.excl == MapExcl::Works {
            self.steal(state, range);
            return if state.kernel.space.is_free(range) {
                Ok(request.addr)
            } else {
                Err(Errno::ENOMEM)
            };
        }
        let own = |held: &SimMapping| held.owner == Owner::Backend && held.shared.is_none();
        assert!(
            state.kernel.space.is_mapped(range) && state.kernel.space.overlapping(range).all(own),
            "mmap(MAP_FIXED) of {range} would replace what is not the backend's"
        );
        state.kernel.space.remove(range);
        Ok(request.addr)
    }

    /// vm_map_find_min: upwards from the hint, then from above the largest heap.
    fn search(&self, state: &mut State, request: Request) -> SysResult<u64> {
        let low = request.has(abi::MAP_32BIT) && self.options.map_32bit;
        let above_heap = state.data.saturating_add(self.options.rlimit_data);
        let mut hint = if self.options.hints_honoured {
            request.addr
        } else {
            0
        };
        if low {
            if hint.saturating_add(request.len) > LOW_END {
                hint = 0;
            }
        } else if hint == 0 || (state.text..above_heap).contains(&hint) {
            hint = above_heap;
        }
        if let Some(wanted) = AddrRange::at(hint, request.len).filter(|_| hint >= MIN_ADDRESS) {
            self.steal(state, wanted);
        }
        let found = self.find(state, hint, request.len, low);
        let mut again = || self.find(state, above_heap, request.len, low);
        match found {
            None if above_heap < hint => again().ok_or(Errno::ENOMEM),
            found => found.ok_or(Errno::ENOMEM),
        }
    }

    /// vm_map_find: with a random gap if there is room for one, else the first fit.
    fn find(&self, state: &mut State, from: u64, len: u64, low: bool) -> Option<u64> {
        let page = self.options.page_size;
        let end = if low { LOW_END } else { USER_END };
        let from = align_up(from, page)?.max(MIN_ADDRESS);
        let within = AddrRange::new(from, USER_END)?;
        if self.options.aslr {
            let pages = if low { RANDOM_PAGES_LOW } else { RANDOM_PAGES };
            let hole = state.kernel.space.lowest_hole(within, len + pages * page);
            let start = hole.map(|hole| hole + state.kernel.below(pages) * page);
            if let Some(start) = start.filter(|start| start + len <= end) {
                return Some(start);
            }
        }
        let start = state.kernel.space.lowest_hole(within, len)?;
        (start + len <= end).then_some(start)
    }

    /// Another thread maps one page of a free range just before us.
    fn steal(&self, state: &mut State, range: AddrRange) {
        let prot = abi::PROT_READ | abi::PROT_WRITE;
        let per_mille = self.options.thief_per_mille;
        state
            .kernel
            .steal(range, self.options.page_size, per_mille, prot);
    }

    /// The mapping with what stands behind it, if the descriptor is one. Its range is not yet known.
    fn backed(&self, state: &State, request: Request, max_prot: i32) -> SysResult<SimMapping> {
        let range = AddrRange::at(0, request.len).ok_or(Errno::ENOMEM)?;
        let private = SimMapping {
            max_prot,
            ..SimMapping::private(range, request.prot, Owner::Backend)
        };
        if request.has(abi::MAP_ANON) {
            return Ok(private);
        }
        let object = *state.files.get(&request.fd).ok_or(Errno::EBADF)?;
        let len = *state.objects.get(&object).ok_or(Errno::EBADF)?;
        let end = request.offset.checked_add(request.len);
        if !request.offset.is_multiple_of(self.options.page_size) || end.is_none_or(|end| end > len)
        {
            return Err(Errno::EINVAL);
        }
        Ok(SimMapping {
            shared: Some((object, request.offset)),
            ..private
        })
    }

    /// `RLIMIT_VMEM`, and swap for writable private memory.
    fn check_limits(&self, state: &State, mapping: &SimMapping) -> SysResult<()> {
        let held = state.kernel.space.iter();
        let total: u64 = held.map(|held| held.range.len()).sum();
        let len = mapping.range.len();
        if total.saturating_add(len) > self.options.rlimit_vmem {
            return Err(Errno::ENOMEM);
        }
        if is_charged(mapping) && self.reserved(state).saturating_add(len) > self.options.swap {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }

    /// Bytes of swap reserved for the backend.
    pub(super) fn reserved(&self, state: &State) -> u64 {
        let objects: u64 = state.objects.values().sum();
        let charged = state.kernel.space.iter().filter(|held| is_charged(held));
        charged.map(|held| held.range.len()).sum::<u64>() + objects
    }
}

/// Whether swap stands behind a mapping of the backend.
fn is_charged(mapping: &SimMapping) -> bool {
    let own = mapping.owner == Owner::Backend;
    own && mapping.shared.is_none() && mapping.prot & abi::PROT_WRITE != 0
}
