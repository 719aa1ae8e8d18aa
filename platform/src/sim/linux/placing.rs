//! mmap: where a mapping goes, and the limits it may break.

use super::super::space::{Owner, SimMapping};
use super::files::File;
use super::{MMAP_BASE, Map32Bit, SimLinux, State, TASK_SIZE};
use crate::linux::SysResult;
use crate::linux::abi::{self, Errno};
use crate::range::{AddrRange, align_up, to_u64};

/// `MAP_32BIT`'s search window, and the span its start is drawn in.
const LOW_START: u64 = 0x4000_0000;
const LOW_END: u64 = 0x8000_0000;
const LOW_RANDOM: u64 = 0x200_0000;

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

impl SimLinux {
    /// do_mmap: the checks in the kernel's order.
    pub(super) fn place(&self, state: &mut State, request: Request) -> SysResult<u64> {
        assert_eq!(
            request.flags & abi::MAP_FIXED,
            0,
            "MAP_FIXED would replace mappings"
        );
        assert_ne!(
            request.prot & (abi::PROT_WRITE | abi::PROT_EXEC),
            abi::PROT_WRITE | abi::PROT_EXEC,
            "the backend asked for writable and executable memory"
        );
        let page = self.options.page_size;
        if request.len == 0 {
            return Err(Errno::EINVAL);
        }
        let len = align_up(request.len, page).ok_or(Errno::ENOMEM)?;
        if to_u64(state.kernel.space.len()) > self.options.max_map_count {
            return Err(Errno::ENOMEM);
        }
        let request = Request { len, ..request };
        let start = self.find_place(state, request)?;
        let range = AddrRange::at(start, len).ok_or(Errno::ENOMEM)?;
        let mapping = self.backed(state, range, request)?;
        self.check_limits(state, len, &mapping)?;
        state.kernel.space.insert(mapping);
        Ok(start)
    }

    fn find_place(&self, state: &mut State, request: Request) -> SysResult<u64> {
        let page = self.options.page_size;
        let exact = request.flags & abi::MAP_FIXED_NOREPLACE != 0 && self.since(4, 17);
        if exact && !request.addr.is_multiple_of(page) {
            return Err(Errno::EINVAL);
        }
        let floor = self.options.mmap_min_addr;
        let hint = align_up(request.addr, page).ok_or(Errno::ENOMEM)?;
        let hint = if hint != 0 && !exact {
            hint.max(floor)
        } else {
            hint
        };
        let wanted = AddrRange::at(hint, request.len).filter(|range| range.end() <= TASK_SIZE);
        if let Some(range) = wanted.filter(|_| hint != 0) {
            self.steal(state, range);
        }
        if exact {
            let range = wanted.ok_or(Errno::ENOMEM)?;
            return match (hint < floor, state.kernel.space.is_free(range)) {
                (true, _) => Err(Errno::EPERM),
                (false, false) => Err(Errno::EEXIST),
                (false, true) => Ok(hint),
            };
        }
        let low = request.flags & abi::MAP_32BIT != 0;
        let low = low && self.options.map_32bit != Map32Bit::Ignored;
        if low && self.options.map_32bit == Map32Bit::Fails {
            return Err(Errno::ENOMEM);
        }
        let end = if low { LOW_END } else { TASK_SIZE };
        let honoured = wanted.filter(|range| {
            let allowed = hint != 0 && self.options.hints_honoured && range.end() <= end;
            allowed && state.kernel.space.is_free(*range)
        });
        match honoured {
            Some(range) => Ok(range.start()),
            None if low => self.search_low(state, request.len),
            None => self.search_high(state, request.len),
        }
    }

    fn search_low(&self, state: &mut State, len: u64) -> SysResult<u64> {
        let page = self.options.page_size;
        let start = LOW_START + state.kernel.below(LOW_RANDOM / page) * page;
        let window = AddrRange::new(start, LOW_END).ok_or(Errno::ENOMEM)?;
        state
            .kernel
            .space
            .lowest_hole(window, len)
            .ok_or(Errno::ENOMEM)
    }

    fn search_high(&self, state: &State, len: u64) -> SysResult<u64> {
        let below = AddrRange::new(self.options.mmap_min_addr, MMAP_BASE).ok_or(Errno::ENOMEM)?;
        state
            .kernel
            .space
            .highest_hole(below, len)
            .ok_or(Errno::ENOMEM)
    }

    /// Another thread maps one page of a free range just before us.
    fn steal(&self, state: &mut State, range: AddrRange) {
        if range.start() >= self.options.mmap_min_addr {
            let prot = abi::PROT_READ | abi::PROT_WRITE;
            let per_mille = self.options.thief_per_mille;
            state
                .kernel
                .steal(range, self.options.page_size, per_mille, prot);
        }
    }

    /// The mapping with what stands behind it, if the descriptor has the rights.
    fn backed(&self, state: &State, range: AddrRange, request: Request) -> SysResult<SimMapping> {
        let private = SimMapping::private(range, request.prot, Owner::Backend);
        if request.flags & abi::MAP_ANONYMOUS != 0 {
            return Ok(private);
        }
        let file = state.files.get(&request.fd).ok_or(Errno::EBADF)?;
        let File::Memfd { inode, writable } = *file else {
            return Err(Errno::EACCES);
        };
        if !request.offset.is_multiple_of(self.options.page_size) {
            return Err(Errno::EINVAL);
        }
        let write = request.prot & abi::PROT_WRITE != 0;
        if write && !writable {
            return Err(Errno::EACCES);
        }
        let seals = state.memfds.get(&inode).ok_or(Errno::EBADF)?.seals;
        let sealed = seals & abi::F_SEAL_FUTURE_WRITE != 0;
        if write && sealed {
            return Err(Errno::EPERM);
        }
        Ok(SimMapping {
            name: "/memfd:low2g (deleted)",
            shared: Some((inode, request.offset)),
            may_write: writable && !sealed,
            ..private
        })
    }

    /// may_expand_vm.
    fn check_limits(&self, state: &State, len: u64, mapping: &SimMapping) -> SysResult<()> {
        let total: u64 = state.kernel.space.iter().map(|held| held.range.len()).sum();
        if total.saturating_add(len) > self.options.rlimit_as {
            return Err(Errno::ENOMEM);
        }
        let is_data = |held: &SimMapping| held.prot & abi::PROT_WRITE != 0 && held.shared.is_none();
        let data = state.kernel.space.iter().filter(|held| is_data(held));
        let data: u64 = data.map(|held| held.range.len()).sum();
        if is_data(mapping) && data.saturating_add(len) > self.options.rlimit_data {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }
}
