//! The calls of `Syscalls` on the simulated process.

use super::files::{File, lines};
use super::placing::Request;
use super::{Memfd, PROGRAM, STACK_END, SimLinux, SimMapping, State};
use crate::linux::abi::{self, Errno, ProcmapQuery};
use crate::linux::{MapLine, SysResult, Syscalls};
use std::ffi::CStr;

impl Syscalls for SimLinux {
    fn is_simulated(&self) -> bool {
        true
    }

    fn page_size(&self) -> u64 {
        self.options.page_size
    }

    fn stack_address(&self) -> u64 {
        STACK_END - 0x20
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
        if state
            .kernel
            .space
            .overlapping(range)
            .any(|held| held.sealed)
        {
            return Err(Errno::EPERM);
        }
        let hole = state
            .kernel
            .space
            .at_or_above(range.start())
            .is_some_and(|held| {
                held.range.start() < range.start() && range.end() < held.range.end()
            });
        if hole && self.at_map_limit(&state) {
            return Err(Errno::ENOMEM);
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
        if range.is_empty() {
            return Ok(());
        }
        // Mapping by mapping: what precedes the first refusal is changed all the same.
        let held: Vec<SimMapping> = state.kernel.space.overlapping(range).cloned().collect();
        let mut next = range.start();
        for mapping in held {
            if mapping.range.start() > next {
                break;
            }
            let part = mapping.range.intersection(range).expect("overlaps");
            self.protect_one(&mut state, &mapping, part, prot)?;
            next = part.end();
        }
        if next == range.end() {
            Ok(())
        } else {
            Err(Errno::ENOMEM)
        }
    }

    fn madvise(&self, addr: u64, len: u64, advice: i32) -> SysResult<()> {
        let mut state = self.enter("madvise")?;
        if !self.known_advice(advice) {
            return Err(Errno::EINVAL);
        }
        let range = self.pages(addr, len)?;
        if range.is_empty() {
            return Ok(());
        }
        let populates = advice == abi::MADV_POPULATE_WRITE;
        let mut next = range.start();
        for held in state.kernel.space.overlapping(range) {
            // Populating stops at the first hole, other advice walks over holes and tells at the end.
            if populates && held.range.start() > next {
                return Err(Errno::ENOMEM);
            }
            next = held.range.end();
            self.advise_one(held, advice)?;
        }
        let whole = state.kernel.space.is_mapped(range);
        if advice == abi::MADV_DONTFORK {
            state
                .kernel
                .space
                .update(range, |held| held.inherited = false);
        }
        if whole { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    fn mseal(&self, addr: u64, len: u64) -> SysResult<()> {
        let mut state = self.enter("mseal")?;
        if !self.since(6, 10) {
            return Err(Errno::ENOSYS);
        }
        let range = self.pages(addr, len)?;
        if !range.is_empty() && !state.kernel.space.is_mapped(range) {
            return Err(Errno::ENOMEM);
        }
        state.kernel.space.update(range, |held| held.sealed = true);
        Ok(())
    }

    fn brk(&self) -> u64 {
        self.state.lock().brk
    }

    fn memfd_create(&self, _name: &CStr, flags: u32) -> SysResult<i32> {
        let mut state = self.enter("memfd_create")?;
        if flags & (abi::MFD_EXEC | abi::MFD_NOEXEC_SEAL) != 0 && !self.since(6, 3) {
            return Err(Errno::EINVAL);
        }
        if self.options.memfd_noexec == 2 && flags & abi::MFD_NOEXEC_SEAL == 0 {
            return Err(Errno::EACCES);
        }
        let inode = state.memfds.keys().next_back().map_or(1, |last| last + 1);
        state.memfds.insert(inode, Memfd::default());
        Ok(Self::install(
            &mut state,
            File::Memfd {
                inode,
                writable: true,
            },
        ))
    }

    fn ftruncate(&self, fd: i32, len: u64) -> SysResult<()> {
        let mut state = self.enter("ftruncate")?;
        // The kernel would also send SIGXFSZ, which kills.
        assert!(
            len <= self.options.rlimit_fsize,
            "ftruncate beyond RLIMIT_FSIZE"
        );
        memfd(&mut state, fd)?.len = len;
        Ok(())
    }

    fn fallocate(&self, fd: i32, len: u64) -> SysResult<()> {
        let mut state = self.enter("fallocate")?;
        let memfd = memfd(&mut state, fd)?;
        let grows = len > memfd.len && memfd.seals & abi::F_SEAL_GROW != 0;
        if grows { Err(Errno::EPERM) } else { Ok(()) }
    }

    fn add_seals(&self, fd: i32, seals: i32) -> SysResult<()> {
        let mut state = self.enter("fcntl")?;
        if seals & abi::F_SEAL_FUTURE_WRITE != 0 && !self.since(5, 1) {
            return Err(Errno::EINVAL);
        }
        memfd(&mut state, fd)?.seals |= seals;
        Ok(())
    }

    fn open(&self, path: &CStr, _flags: i32) -> SysResult<i32> {
        let mut state = self.enter("open")?;
        self.open_path(&mut state, path)
    }

    fn read(&self, fd: i32, buffer: &mut [u8]) -> SysResult<usize> {
        let mut state = self.enter("read")?;
        Self::read_text(&mut state, fd, buffer)
    }

    fn close(&self, fd: i32) {
        let closed = self.state.lock().files.remove(&fd);
        assert!(closed.is_some(), "descriptor {fd} is not open");
    }

    fn procmap_query(&self, fd: i32, query: &mut ProcmapQuery) -> SysResult<()> {
        let state = self.enter("ioctl")?;
        let is_maps = matches!(state.files.get(&fd), Some(File::Text { is_maps: true, .. }));
        if !is_maps || !self.since(6, 11) {
            return Err(Errno::ENOTTY);
        }
        let found = state
            .kernel
            .space
            .at_or_above(query.query_addr)
            .ok_or(Errno::ENOENT)?;
        (query.vma_start, query.vma_end) = (found.range.start(), found.range.end());
        Ok(())
    }

    fn getrlimit(&self, resource: u32) -> SysResult<u64> {
        let _state = self.enter("getrlimit")?;
        match resource {
            abi::RLIMIT_AS => Ok(self.options.rlimit_as),
            abi::RLIMIT_DATA => Ok(self.options.rlimit_data),
            abi::RLIMIT_FSIZE => Ok(self.options.rlimit_fsize),
            abi::RLIMIT_STACK => Ok(8 << 20),
            _ => Err(Errno::EINVAL),
        }
    }

    fn prctl_get_mdwe(&self) -> SysResult<i32> {
        let _state = self.enter("prctl")?;
        match (self.since(6, 3), self.options.mdwe) {
            (false, _) => Err(Errno::EINVAL),
            (true, false) => Ok(0),
            (true, true) => Ok(abi::PR_MDWE_REFUSE_EXEC_GAIN),
        }
    }

    fn membarrier(&self, command: i32) -> SysResult<()> {
        let mut state = self.enter("membarrier")?;
        if !self.since(4, 16) {
            return Err(Errno::EINVAL);
        }
        match command {
            abi::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE => {
                state.registered = true;
                Ok(())
            }
            abi::MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE if state.registered => Ok(()),
            abi::MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE => Err(Errno::EPERM),
            _ => Err(Errno::EINVAL),
        }
    }

    fn getrandom(&self, buffer: &mut [u8]) -> SysResult<usize> {
        let mut state = self.enter("getrandom")?;
        state.kernel.fill(buffer);
        Ok(buffer.len())
    }

    fn process(&self) -> u64 {
        1
    }

    fn touch(&self, addr: u64) {
        let state = self.state.lock();
        let held = state
            .kernel
            .space
            .at_or_above(addr)
            .filter(|held| held.range.contains(addr));
        let writable = held.is_some_and(|held| held.prot & abi::PROT_WRITE != 0);
        assert!(writable, "a write to {addr:#x} would be SIGSEGV");
    }

    fn flush_instruction_cache(&self, _addr: u64, _len: u64) {}

    fn process_maps(&self) -> SysResult<Vec<MapLine>> {
        let state = self.enter("process_maps")?;
        if self.options.proc_mounted {
            Ok(lines(&state))
        } else {
            Err(Errno::ENOENT)
        }
    }

    fn executable(&self) -> SysResult<String> {
        let _state = self.enter("readlink")?;
        if self.options.proc_mounted {
            Ok(PROGRAM.to_owned())
        } else {
            Err(Errno::ENOENT)
        }
    }
}

fn memfd(state: &mut State, fd: i32) -> SysResult<&mut Memfd> {
    let file = state.files.get(&fd).ok_or(Errno::EBADF)?;
    let File::Memfd { inode, .. } = *file else {
        return Err(Errno::EINVAL);
    };
    state.memfds.get_mut(&inode).ok_or(Errno::EBADF)
}
