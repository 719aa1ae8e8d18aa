//! The running kernel: each call of `Syscalls` as one call of libc, nix or proc-maps.
//!
//! The only file of the backend with `unsafe`. Precondition shared by all
//! calls on memory: the backend passes only ranges that it mapped itself, never
//! `MAP_FIXED`, so no memory that Rust knows of is replaced, unmapped or
//! changed in access.

use super::LinuxPlatform;
use super::abi::{self, Errno, ProcmapQuery};
use super::syscalls::{MapLine, SysResult, Syscalls};
use crate::error::PlatformError;
use crate::pages;
use crate::range::{to_u64, to_usize};
use nix::sys::mman::{MapFlags, ProtFlags};
use std::ffi::{CStr, c_void};
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The kernel that this process runs on. Only this crate can make one.
#[derive(Debug)]
pub struct NativeSyscalls {
    page_size: u64,
}

/// The platform of the running Linux kernel, its capabilities probed now.
///
/// # Errors
/// The kernel refuses even the probing mappings (`RLIMIT_AS`, policy).
pub fn native() -> Result<LinuxPlatform<NativeSyscalls>, PlatformError> {
    // SAFETY: sysconf has no precondition.
    let page_size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let page_size = u64::try_from(page_size).expect("every Linux tells its page size");
    LinuxPlatform::new(NativeSyscalls { page_size }, super::Options::default())
}

/// The calling thread's errno, as a call that failed just left it.
fn last_errno() -> Errno {
    Errno(nix::errno::Errno::last_raw())
}

/// A C call's `int` result: -1 means errno.
fn check(result: i32) -> SysResult<i32> {
    if result == -1 {
        Err(last_errno())
    } else {
        Ok(result)
    }
}

/// A C call's `ssize_t` or `long` result: negative means errno.
fn check_size(result: isize) -> SysResult<usize> {
    usize::try_from(result).map_err(|_| last_errno())
}

fn from_nix(errno: nix::errno::Errno) -> Errno {
    Errno(errno as i32)
}

/// The address as a pointer without provenance of any Rust object.
fn pointer(addr: u64) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(to_usize(addr))
}

fn non_null(addr: u64) -> SysResult<NonNull<c_void>> {
    NonNull::new(pointer(addr)).ok_or(Errno::EINVAL)
}

impl Syscalls for NativeSyscalls {
    fn is_simulated(&self) -> bool {
        false
    }

    fn page_size(&self) -> u64 {
        self.page_size
    }

    fn stack_address(&self) -> u64 {
        // SAFETY: getauxval has no precondition; it returns 0 for what it does not know.
        unsafe { libc::getauxval(libc::AT_EXECFN) }
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
        debug_assert_eq!(flags & abi::MAP_FIXED, 0, "would replace other mappings");
        let hint = NonZeroUsize::new(to_usize(addr));
        let len = NonZeroUsize::new(to_usize(len)).ok_or(Errno::EINVAL)?;
        let prot = ProtFlags::from_bits_retain(prot);
        let flags = MapFlags::from_bits_retain(flags);
        let mapped = if fd < 0 {
            // SAFETY: without MAP_FIXED the kernel picks free address space only.
            unsafe { nix::sys::mman::mmap_anonymous(hint, len, prot, flags) }
        } else {
            let offset = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
            // SAFETY: `fd` is a descriptor that the backend holds open during the call.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            // SAFETY: without MAP_FIXED the kernel picks free address space only.
            unsafe { nix::sys::mman::mmap(hint, len, prot, flags, fd, offset) }
        };
        let at = mapped.map_err(from_nix)?;
        Ok(to_u64(at.as_ptr().expose_provenance()))
    }

    fn munmap(&self, addr: u64, len: u64) -> SysResult<()> {
        let at = non_null(addr)?;
        // SAFETY: the backend mapped the range and its owner gave it up.
        unsafe { nix::sys::mman::munmap(at, to_usize(len)) }.map_err(from_nix)
    }

    fn mprotect(&self, addr: u64, len: u64, prot: i32) -> SysResult<()> {
        let at = non_null(addr)?;
        let prot = ProtFlags::from_bits_retain(prot);
        // SAFETY: the backend mapped the range; its owner asked for this access.
        unsafe { nix::sys::mman::mprotect(at, to_usize(len), prot) }.map_err(from_nix)
    }

    fn madvise(&self, addr: u64, len: u64, advice: i32) -> SysResult<()> {
        // SAFETY: the backend mapped the range, or the length is 0 and nothing changes.
        check(unsafe { libc::madvise(pointer(addr), to_usize(len), advice) }).map(drop)
    }

    fn mseal(&self, addr: u64, len: u64) -> SysResult<()> {
        // SAFETY: the backend mapped the range, or the length is 0; mseal touches no memory.
        let result = unsafe { libc::syscall(libc::SYS_mseal, addr, len, 0_u64) };
        if result < 0 {
            Err(last_errno())
        } else {
            Ok(())
        }
    }

    fn brk(&self) -> u64 {
        // glibc's sbrk(0) may lag behind brk calls made by others; the kernel does not.
        // SAFETY: brk(0) changes nothing and returns the current break.
        let end = unsafe { libc::syscall(libc::SYS_brk, 0_u64) };
        u64::try_from(end).unwrap_or(0)
    }

    fn memfd_create(&self, name: &CStr, flags: u32) -> SysResult<i32> {
        // SAFETY: `name` is a NUL-terminated string that lives during the call.
        check(unsafe { libc::memfd_create(name.as_ptr(), flags) })
    }

    fn ftruncate(&self, fd: i32, len: u64) -> SysResult<()> {
        let len = i64::try_from(len).map_err(|_| Errno::EFBIG)?;
        // SAFETY: ftruncate takes no pointer; no view of this new memfd exists yet.
        check(unsafe { libc::ftruncate(fd, len) }).map(drop)
    }

    fn fallocate(&self, fd: i32, len: u64) -> SysResult<()> {
        let len = i64::try_from(len).map_err(|_| Errno::EFBIG)?;
        // SAFETY: fallocate takes no pointer; mode 0 changes no byte of the file.
        check(unsafe { libc::fallocate(fd, 0, 0, len) }).map(drop)
    }

    fn add_seals(&self, fd: i32, seals: i32) -> SysResult<()> {
        // SAFETY: F_ADD_SEALS takes an int and touches no memory.
        check(unsafe { libc::fcntl(fd, libc::F_ADD_SEALS, seals) }).map(drop)
    }

    fn open(&self, path: &CStr, flags: i32) -> SysResult<i32> {
        // SAFETY: `path` is a NUL-terminated string that lives during the call.
        check(unsafe { libc::open(path.as_ptr(), flags) })
    }

    fn read(&self, fd: i32, buffer: &mut [u8]) -> SysResult<usize> {
        // SAFETY: the kernel writes at most `len` bytes into the exclusively borrowed buffer.
        check_size(unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) })
    }

    fn close(&self, fd: i32) {
        // SAFETY: the backend opened the descriptor and uses it no more.
        unsafe { libc::close(fd) };
    }

    fn procmap_query(&self, fd: i32, query: &mut ProcmapQuery) -> SysResult<()> {
        query.size = to_u64(size_of::<ProcmapQuery>());
        #[allow(
            clippy::useless_conversion,
            reason = "the request is unsigned long on glibc, int on musl"
        )]
        let request = abi::PROCMAP_QUERY.try_into().map_err(|_| Errno::ENOTTY)?;
        // SAFETY: the request number encodes the size of the structure, which is borrowed exclusively
        // and whose name and build-id buffers are empty.
        check(unsafe { libc::ioctl(fd, request, std::ptr::from_mut(query)) }).map(drop)
    }

    fn getrlimit(&self, resource: u32) -> SysResult<u64> {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        #[allow(
            clippy::useless_conversion,
            reason = "the resource is unsigned on glibc, int on musl"
        )]
        let resource = resource.try_into().map_err(|_| Errno::EINVAL)?;
        // SAFETY: the structure is exclusively borrowed during the call.
        check(unsafe { libc::getrlimit(resource, &raw mut limit) })?;
        Ok(limit.rlim_cur)
    }

    fn prctl_get_mdwe(&self) -> SysResult<i32> {
        // SAFETY: PR_GET_MDWE takes no pointer; the other arguments must be 0.
        check(unsafe { libc::prctl(libc::PR_GET_MDWE, 0_u64, 0_u64, 0_u64, 0_u64) })
    }

    fn membarrier(&self, command: i32) -> SysResult<()> {
        // SAFETY: membarrier takes integers only.
        let result = unsafe { libc::syscall(libc::SYS_membarrier, command, 0_u32, 0_i32) };
        if result < 0 {
            Err(last_errno())
        } else {
            Ok(())
        }
    }

    fn getrandom(&self, buffer: &mut [u8]) -> SysResult<usize> {
        // SAFETY: the kernel writes at most `len` bytes into the exclusively borrowed buffer.
        check_size(unsafe { libc::getrandom(buffer.as_mut_ptr().cast(), buffer.len(), 0) })
    }

    fn process(&self) -> u64 {
        let Some(mark) = process_mark() else {
            return u64::from(std::process::id());
        };
        let number = mark.load(Ordering::Relaxed);
        if number == 0 {
            self.new_process(mark)
        } else {
            number
        }
    }

    fn process_word(&self) -> Option<&'static AtomicU64> {
        process_mark()
    }

    fn touch(&self, addr: u64) {
        // SAFETY: the caller of `populate` owns the page, mapped readable and writable.
        unsafe { pages::touch(addr) };
    }

    fn flush_instruction_cache(&self, addr: u64, len: u64) {
        // SAFETY: the caller of `flush_instruction_cache` wrote the range, which is mapped.
        unsafe { pages::flush(addr, len) };
    }

    fn process_maps(&self) -> SysResult<Vec<MapLine>> {
        let pid = std::process::id()
            .try_into()
            .map_err(|_| Errno::EOVERFLOW)?;
        let maps = proc_maps::get_process_maps(pid)
            .map_err(|error| Errno(error.raw_os_error().unwrap_or(Errno::EINVAL.0)))?;
        let line = |map: &proc_maps::MapRange| MapLine {
            start: to_u64(map.start()),
            end: to_u64(map.start() + map.size()),
            access: map.flags.clone(),
            name: map
                .filename()
                .map(|path| path.to_string_lossy().into_owned())
                .unwrap_or_default(),
        };
        Ok(maps.iter().map(line).collect())
    }

    fn executable(&self) -> SysResult<String> {
        let path = std::fs::read_link("/proc/self/exe")
            .map_err(|error| Errno(error.raw_os_error().unwrap_or(Errno::ENOENT.0)))?;
        Ok(path.to_string_lossy().into_owned())
    }
}

impl NativeSyscalls {
    /// Draws the number of a process that has none yet.
    #[cold]
    fn new_process(&self, mark: &AtomicU64) -> u64 {
        let mut bytes = [0; 8];
        let drawn = match self.getrandom(&mut bytes) {
            Ok(8) => u64::from_ne_bytes(bytes) | 1,
            // A signal or an early boot: the process id is another than the parent's too.
            _ => u64::from(std::process::id()),
        };
        match mark.compare_exchange(0, drawn, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => drawn,
            Err(other_thread) => other_thread,
        }
    }
}

/// The word that fork wipes, mapped once and kept; `None` before Linux 4.14.
fn process_mark() -> Option<&'static AtomicU64> {
    static MARK: OnceLock<Option<&'static AtomicU64>> = OnceLock::new();
    *MARK.get_or_init(|| {
        let len = NonZeroUsize::new(size_of::<AtomicU64>())?;
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_PRIVATE;
        // SAFETY: without MAP_FIXED the kernel picks free address space only.
        let page = unsafe { nix::sys::mman::mmap_anonymous(None, len, prot, flags) }.ok()?;
        // SAFETY: the page was just mapped, and nothing is in it yet.
        let wiped = unsafe { libc::madvise(page.as_ptr(), len.get(), abi::MADV_WIPEONFORK) };
        if wiped != 0 {
            // SAFETY: the page was just mapped, and nothing refers to it. What cannot be
            // unmapped is one idle page.
            let _ = unsafe { nix::sys::mman::munmap(page, len.get()) };
            return None;
        }
        // SAFETY: from_ptr needs a word that is aligned, mapped for good and accessed atomically
        // only: a page of its own that nobody unmaps, known to nobody else. The kernel's wipe
        // happens in a child before any of its threads run.
        Some(unsafe { AtomicU64::from_ptr(page.as_ptr().cast()) })
    })
}

#[cfg(test)]
mod tests {
    use super::abi::{self, Errno};

    #[test]
    fn numbers_are_those_of_libc() {
        let pairs = [
            (abi::PROT_READ, libc::PROT_READ),
            (abi::PROT_WRITE, libc::PROT_WRITE),
            (abi::PROT_EXEC, libc::PROT_EXEC),
            (abi::MAP_SHARED, libc::MAP_SHARED),
            (abi::MAP_PRIVATE, libc::MAP_PRIVATE),
            (abi::MAP_FIXED, libc::MAP_FIXED),
            (abi::MAP_ANONYMOUS, libc::MAP_ANONYMOUS),
            (abi::MAP_NORESERVE, libc::MAP_NORESERVE),
            (abi::MAP_FIXED_NOREPLACE, libc::MAP_FIXED_NOREPLACE),
            (abi::MADV_DONTNEED, libc::MADV_DONTNEED),
            (abi::MADV_REMOVE, libc::MADV_REMOVE),
            (abi::MADV_DONTFORK, libc::MADV_DONTFORK),
            (abi::MADV_WIPEONFORK, libc::MADV_WIPEONFORK),
            (abi::MADV_POPULATE_WRITE, libc::MADV_POPULATE_WRITE),
            (abi::F_SEAL_SHRINK, libc::F_SEAL_SHRINK),
            (abi::F_SEAL_GROW, libc::F_SEAL_GROW),
            (abi::F_SEAL_FUTURE_WRITE, libc::F_SEAL_FUTURE_WRITE),
            (abi::O_RDONLY_CLOEXEC, libc::O_RDONLY | libc::O_CLOEXEC),
            (Errno::EPERM.0, libc::EPERM),
            (Errno::ENOENT.0, libc::ENOENT),
            (Errno::EINTR.0, libc::EINTR),
            (Errno::EBADF.0, libc::EBADF),
            (Errno::EAGAIN.0, libc::EAGAIN),
            (Errno::ENOMEM.0, libc::ENOMEM),
            (Errno::EACCES.0, libc::EACCES),
            (Errno::EFAULT.0, libc::EFAULT),
            (Errno::EEXIST.0, libc::EEXIST),
            (Errno::EINVAL.0, libc::EINVAL),
            (Errno::ENFILE.0, libc::ENFILE),
            (Errno::EMFILE.0, libc::EMFILE),
            (Errno::ENOTTY.0, libc::ENOTTY),
            (Errno::EFBIG.0, libc::EFBIG),
            (Errno::ENOSPC.0, libc::ENOSPC),
            (Errno::ENOSYS.0, libc::ENOSYS),
            (Errno::EOVERFLOW.0, libc::EOVERFLOW),
            (Errno::EOPNOTSUPP.0, libc::EOPNOTSUPP),
        ];
        for (ours, theirs) in pairs {
            assert_eq!(ours, theirs);
        }
        let unsigned = [
            (abi::MFD_CLOEXEC, libc::MFD_CLOEXEC),
            (abi::MFD_ALLOW_SEALING, libc::MFD_ALLOW_SEALING),
            (abi::MFD_NOEXEC_SEAL, libc::MFD_NOEXEC_SEAL),
            (abi::MFD_EXEC, libc::MFD_EXEC),
        ];
        for (ours, theirs) in unsigned {
            assert_eq!(ours, theirs);
        }
        let limits = [
            (abi::RLIMIT_FSIZE, libc::RLIMIT_FSIZE),
            (abi::RLIMIT_DATA, libc::RLIMIT_DATA),
            (abi::RLIMIT_STACK, libc::RLIMIT_STACK),
            (abi::RLIMIT_AS, libc::RLIMIT_AS),
        ];
        for (ours, theirs) in limits {
            assert_eq!(i64::from(ours), i64::from(theirs));
        }
        assert_eq!(abi::RLIM_INFINITY, libc::RLIM_INFINITY);
        assert_eq!(
            abi::PR_MDWE_REFUSE_EXEC_GAIN.cast_unsigned(),
            libc::PR_MDWE_REFUSE_EXEC_GAIN
        );
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn map_32bit_is_that_of_libc() {
        assert_eq!(abi::MAP_32BIT, libc::MAP_32BIT);
    }
}
