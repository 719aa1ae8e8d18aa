//! The calls of `Syscalls` on the simulated process.

use super::placing::Request;
use super::{GUARD, PROGRAM, STACK, SimFreeBsd, SimMapping, State, USER_END};
use crate::freebsd::abi::{self, Errno};
use crate::freebsd::vmmap::write_entry;
use crate::freebsd::{SysResult, Syscalls};
use crate::range::{AddrRange, align_up};
use parking_lot::MutexGuard;

/// `KVME_TYPE_DEFAULT` and `KVME_TYPE_VNODE`.
const DEFAULT: i32 = 1;
const VNODE: i32 = 2;

impl SimFreeBsd {
    /// Takes the lock; fails if the call was planned to.
    fn enter(&self, call: &'static str) -> SysResult<MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        state.kernel.enter(call).map_err(Errno)?;
        Ok(state)
    }

    /// The pages of a call on a range: whole ones, rounded up, from an aligned start.
    fn pages(&self, addr: u64, len: u64) -> SysResult<AddrRange> {
        let len = align_up(len, self.options.page_size).ok_or(Errno::EINVAL)?;
        let range = AddrRange::at(addr, len).filter(|range| range.end() <= USER_END);
        assert!(addr.is_multiple_of(self.options.page_size), "{addr:#x}");
        range.ok_or(Errno::EINVAL)
    }

    /// The records of the map, as kern_proc_vmmap_out gives them.
    fn map(state: &State) -> Vec<u8> {
        let mut out = Vec::new();
        for held in state.kernel.space.iter() {
            let (kind, path, flags) = match held.name {
                GUARD => (abi::KVME_TYPE_GUARD, "", 0),
                STACK => (DEFAULT, "", abi::KVME_FLAG_GROWS_DOWN),
                "" => (DEFAULT, "", 0),
                path => (VNODE, path, abi::KVME_FLAG_COW),
            };
            write_entry(kind, held.range, flags, held.prot, path, &mut out);
        }
        out
    }

    fn copy_out(bytes: &[u8], out: Option<&mut [u8]>) -> SysResult<usize> {
        let Some(out) = out else {
            return Ok(bytes.len());
        };
        let room = out.get_mut(..bytes.len()).ok_or(Errno::ENOMEM)?;
        room.copy_from_slice(bytes);
        Ok(bytes.len())
    }

    /// Asserts that a write to the range would not be a signal.
    fn expect_writable(&self, addr: u64, len: u64) {
        let range = AddrRange::at(addr, len).expect("small");
        let state = self.state.lock();
        let space = &state.kernel.space;
        let writable = |held: &SimMapping| held.prot & abi::PROT_WRITE != 0;
        assert!(
            space.is_mapped(range) && space.overlapping(range).all(writable),
            "a write to {range} would be SIGSEGV"
        );
    }
}

impl Syscalls for SimFreeBsd {
    fn is_simulated(&self) -> bool {
        true
    }

    fn page_size(&self) -> u64 {
        self.options.page_size
    }

    fn mmap(
        &self,
        addr: u64,
        len: u64,
        prot: i32,
        flags: i32,
        fd: i32,
        offset: u64,
    ) -> SysResult<u64> {
        let mut state = self.enter("mmap")?;
        let request = Request {
            addr,
            len,
            prot,
            flags,
            fd,
            offset,
        };
        self.place(&mut state, request)
    }

    fn munmap(&self, addr: u64, len: u64) -> SysResult<()> {
        let mut state = self.enter("munmap")?;
        let range = self.pages(addr, len)?;
        if range.is_empty() {
            return Err(Errno::EINVAL);
        }
        state.kernel.space.remove(range);
        Ok(())
    }

    fn mprotect(&self, addr: u64, len: u64, prot: i32) -> SysResult<()> {
        let mut state = self.enter("mprotect")?;
        let both = abi::PROT_WRITE | abi::PROT_EXEC;
        assert_ne!(
            prot & both,
            both,
            "the backend asked for writable and executable memory"
        );
        let range = self.pages(addr, len)?;
        // All of it is checked before any of it is changed; holes are passed over.
        let denied = |held: &SimMapping| {
            let gains = prot & !held.prot;
            prot & !held.max_prot != 0
                || (!self.options.exec_gain && gains & abi::PROT_EXEC != 0)
                || held.name == GUARD
        };
        if state.kernel.space.overlapping(range).any(denied) {
            return Err(Errno::EACCES);
        }
        let reserved = self.reserved(&state);
        let charged = range.len();
        if prot & abi::PROT_WRITE != 0 && reserved.saturating_add(charged) > self.options.swap {
            return Err(Errno::ENOMEM);
        }
        state.kernel.space.update(range, |held| held.prot = prot);
        Ok(())
    }

    fn minherit(&self, addr: u64, len: u64, inherit: i32) -> SysResult<()> {
        let mut state = self.enter("minherit")?;
        let range = self.pages(addr, len)?;
        let inherited = inherit != abi::INHERIT_NONE;
        state
            .kernel
            .space
            .update(range, |held| held.inherited = inherited);
        Ok(())
    }

    fn shm_open_anon(&self) -> SysResult<i32> {
        let mut state = self.enter("shm_open")?;
        let object = state.objects.keys().next_back().map_or(1, |last| last + 1);
        let fd = state.next_fd;
        state.next_fd += 1;
        state.objects.insert(object, 0);
        state.files.insert(fd, object);
        Ok(fd)
    }

    fn ftruncate(&self, fd: i32, len: u64) -> SysResult<()> {
        let mut state = self.enter("ftruncate")?;
        let object = *state.files.get(&fd).ok_or(Errno::EBADF)?;
        if self.reserved(&state).saturating_add(len) > self.options.swap {
            return Err(Errno::ENOMEM);
        }
        state.objects.insert(object, len);
        Ok(())
    }

    fn close(&self, fd: i32) {
        let mut state = self.state.lock();
        let object = state.files.remove(&fd);
        let object = object.unwrap_or_else(|| panic!("descriptor {fd} is not open"));
        let viewed = |held: &SimMapping| held.shared.is_some_and(|(of, _)| of == object);
        if !state.kernel.space.iter().any(viewed) {
            state.objects.remove(&object);
        }
    }

    fn sysctl(&self, mib: &[i32], out: Option<&mut [u8]>) -> SysResult<usize> {
        let mut state = self.enter("sysctl")?;
        match *mib {
            [abi::CTL_KERN, abi::KERN_USRSTACK] => Self::copy_out(&USER_END.to_ne_bytes(), out),
            [
                abi::CTL_KERN,
                abi::KERN_PROC,
                abi::KERN_PROC_PATHNAME,
                -1 | 1,
            ] => Self::copy_out(format!("{PROGRAM}\0").as_bytes(), out),
            [abi::CTL_KERN, abi::KERN_PROC, abi::KERN_PROC_VMMAP, 1] => {
                // Another thread made the map longer than the caller allowed for.
                if out.is_some() && state.kernel.below(16) == 0 {
                    return Err(Errno::ENOMEM);
                }
                Self::copy_out(&Self::map(&state), out)
            }
            _ => Err(Errno::ENOENT),
        }
    }

    fn getpid(&self) -> i32 {
        1
    }

    fn sbrk(&self) -> u64 {
        self.state.lock().brk
    }

    fn getrlimit(&self, resource: i32) -> SysResult<u64> {
        let _state = self.enter("getrlimit")?;
        match resource {
            abi::RLIMIT_VMEM => Ok(self.options.rlimit_vmem),
            abi::RLIMIT_DATA => Ok(self.options.rlimit_data),
            _ => Err(Errno::EINVAL),
        }
    }

    fn getrandom(&self, buffer: &mut [u8]) -> SysResult<usize> {
        let mut state = self.enter("getrandom")?;
        // At most 256 bytes a call are promised.
        let count = buffer.len().min(256);
        state.kernel.fill(&mut buffer[..count]);
        Ok(count)
    }

    fn process(&self) -> u64 {
        1
    }

    fn touch(&self, addr: u64) {
        self.expect_writable(addr, 1);
    }

    fn zero(&self, addr: u64, len: u64) {
        self.expect_writable(addr, len);
    }

    fn flush_instruction_cache(&self, _addr: u64, _len: u64) {}
}
