//! The running kernel: each call of `Syscalls` as one call of libc or nix.
//!
//! The only file of the backend with `unsafe`. Precondition shared by all
//! calls on memory: the backend passes only ranges that it mapped itself, and
//! `MAP_FIXED` only with `MAP_EXCL` or over such a range, so no memory that
//! Rust knows of is replaced, unmapped or changed in access.

use super::abi::{self, Errno, kve};
use super::syscalls::{SysResult, Syscalls};
use super::{FreeBsdPlatform, Options};
use crate::error::PlatformError;
use crate::pages;
use crate::range::{to_u64, to_usize};
use nix::sys::mman::{MapFlags, ProtFlags};
use std::ffi::c_void;
use std::mem::offset_of;
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

/// The platform of the running FreeBSD kernel, its capabilities probed now.
///
/// # Errors
/// The kernel refuses even the probing mappings (`RLIMIT_VMEM`, policy).
pub fn native() -> Result<FreeBsdPlatform<NativeSyscalls>, PlatformError> {
    // SAFETY: sysconf has no precondition.
    let page_size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let page_size = u64::try_from(page_size).expect("every FreeBSD tells its page size");
    FreeBsdPlatform::new(NativeSyscalls { page_size }, Options::default())
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

    fn mmap(
        &self,
        addr: u64,
        len: u64,
        prot: i32,
        flags: i32,
        fd: i32,
        offset: u64,
    ) -> SysResult<u64> {
        let hint = NonZeroUsize::new(to_usize(addr));
        let len = NonZeroUsize::new(to_usize(len)).ok_or(Errno::EINVAL)?;
        let prot = ProtFlags::from_bits_retain(prot);
        let flags = MapFlags::from_bits_retain(flags);
        let mapped = if fd < 0 {
            // SAFETY: MAP_FIXED comes with MAP_EXCL or over the backend's own private pages, whose
            // holder gave up what they held: no mapping of anybody else is replaced.
            unsafe { nix::sys::mman::mmap_anonymous(hint, len, prot, flags) }
        } else {
            let offset = i64::try_from(offset).map_err(|_| Errno::EINVAL)?;
            // SAFETY: `fd` is a descriptor that the backend holds open during the call.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            // SAFETY: MAP_FIXED comes with MAP_EXCL: the kernel maps free address space only.
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

    fn minherit(&self, addr: u64, len: u64, inherit: i32) -> SysResult<()> {
        // SAFETY: the backend mapped the range; this process's pages do not change.
        check(unsafe { libc::minherit(pointer(addr), to_usize(len), inherit) }).map(drop)
    }

    fn shm_open_anon(&self) -> SysResult<i32> {
        let flags = libc::O_RDWR | libc::O_CLOEXEC;
        // SAFETY: SHM_ANON is the one name that is not read as a string.
        check(unsafe { libc::shm_open(libc::SHM_ANON, flags, 0o600) })
    }

    fn ftruncate(&self, fd: i32, len: u64) -> SysResult<()> {
        let len = i64::try_from(len).map_err(|_| Errno::EFBIG)?;
        // SAFETY: ftruncate takes no pointer; no view of this new object exists yet.
        check(unsafe { libc::ftruncate(fd, len) }).map(drop)
    }

    fn close(&self, fd: i32) {
        // SAFETY: the backend opened the descriptor and uses it no more.
        unsafe { libc::close(fd) };
    }

    fn sysctl(&self, mib: &[i32], out: Option<&mut [u8]>) -> SysResult<usize> {
        let names = u32::try_from(mib.len()).map_err(|_| Errno::EINVAL)?;
        let (buffer, mut len) = match out {
            Some(out) => (out.as_mut_ptr().cast::<c_void>(), out.len()),
            None => (std::ptr::null_mut(), 0),
        };
        // SAFETY: the kernel reads `names` numbers of `mib` and writes at most `len` bytes into the
        // exclusively borrowed buffer, or none to a null one; nothing is set.
        check(unsafe {
            libc::sysctl(
                mib.as_ptr(),
                names,
                buffer,
                &raw mut len,
                std::ptr::null(),
                0,
            )
        })?;
        Ok(len)
    }

    fn getpid(&self) -> i32 {
        // SAFETY: getpid has no precondition.
        unsafe { libc::getpid() }
    }

    fn sbrk(&self) -> u64 {
        current_break()
    }

    fn getrlimit(&self, resource: i32) -> SysResult<u64> {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: the structure is exclusively borrowed during the call.
        check(unsafe { libc::getrlimit(resource, &raw mut limit) })?;
        u64::try_from(limit.rlim_cur).map_err(|_| Errno::EINVAL)
    }

    fn getrandom(&self, buffer: &mut [u8]) -> SysResult<usize> {
        // SAFETY: the kernel writes at most `len` bytes into the exclusively borrowed buffer.
        let filled = unsafe { libc::getrandom(buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        usize::try_from(filled).map_err(|_| last_errno())
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

    fn zero(&self, addr: u64, len: u64) {
        // SAFETY: the caller of `discard` owns the range, mapped writable, and nothing relies on
        // what it holds.
        unsafe { pages::zero(addr, len) };
    }

    fn flush_instruction_cache(&self, addr: u64, len: u64) {
        // SAFETY: the caller of `flush_instruction_cache` wrote the range, which is mapped.
        unsafe { pages::flush(addr, len) };
    }
}

impl NativeSyscalls {
    /// Draws the number of a process that has none yet.
    #[cold]
    fn new_process(&self, mark: &AtomicU64) -> u64 {
        let mut bytes = [0; 8];
        let drawn = match self.getrandom(&mut bytes) {
            Ok(8) => u64::from_ne_bytes(bytes) | 1,
            // A signal: the process id is another than the parent's too.
            _ => u64::from(std::process::id()),
        };
        match mark.compare_exchange(0, drawn, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => drawn,
            Err(other_thread) => other_thread,
        }
    }
}

/// The word that fork zeroes, mapped once and kept; `None` before FreeBSD 12.
fn process_mark() -> Option<&'static AtomicU64> {
    static MARK: OnceLock<Option<&'static AtomicU64>> = OnceLock::new();
    *MARK.get_or_init(|| {
        let len = NonZeroUsize::new(size_of::<AtomicU64>())?;
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_PRIVATE;
        // SAFETY: without MAP_FIXED the kernel picks free address space only.
        let page = unsafe { nix::sys::mman::mmap_anonymous(None, len, prot, flags) }.ok()?;
        // SAFETY: the page was just mapped, and nothing is in it yet.
        let zeroed = unsafe { libc::minherit(page.as_ptr(), len.get(), abi::INHERIT_ZERO) };
        if zeroed != 0 {
            // SAFETY: the page was just mapped, and nothing refers to it. What cannot be
            // unmapped is one idle page.
            let _ = unsafe { nix::sys::mman::munmap(page, len.get()) };
            return None;
        }
        // SAFETY: from_ptr needs a word that is aligned, mapped for good and accessed atomically
        // only: a page of its own that nobody unmaps, known to nobody else. A child finds zeros
        // there before any of its threads run.
        Some(unsafe { AtomicU64::from_ptr(page.as_ptr().cast()) })
    })
}

/// The end of the brk heap.
#[cfg(target_arch = "x86_64")]
fn current_break() -> u64 {
    unsafe extern "C" {
        fn sbrk(increment: isize) -> *mut c_void;
    }
    // SAFETY: an increment of 0 changes nothing.
    let end = unsafe { sbrk(0) };
    // -1 would be an error.
    let end = to_u64(end.addr());
    if end == u64::MAX { 0 } else { end }
}

/// Newer machines have no brk (lib/libc/Symbol.map).
#[cfg(not(target_arch = "x86_64"))]
const fn current_break() -> u64 {
    0
}

/// The numbers of `abi` are those that the libc crate has from the system's headers; checked
/// whenever this file is compiled.
const _: () = {
    let pairs = [
        (abi::PROT_READ, libc::PROT_READ),
        (abi::PROT_WRITE, libc::PROT_WRITE),
        (abi::PROT_EXEC, libc::PROT_EXEC),
        (abi::MAP_SHARED, libc::MAP_SHARED),
        (abi::MAP_PRIVATE, libc::MAP_PRIVATE),
        (abi::MAP_FIXED, libc::MAP_FIXED),
        (abi::MAP_ANON, libc::MAP_ANON),
        (abi::MAP_EXCL, libc::MAP_EXCL),
        (abi::MAP_32BIT, libc::MAP_32BIT),
        (abi::INHERIT_NONE, libc::INHERIT_NONE),
        (abi::INHERIT_ZERO, libc::INHERIT_ZERO),
        (abi::CTL_KERN, libc::CTL_KERN),
        (abi::KERN_PROC, libc::KERN_PROC),
        (abi::KERN_USRSTACK, libc::KERN_USRSTACK),
        (abi::KERN_PROC_PATHNAME, libc::KERN_PROC_PATHNAME),
        (abi::KERN_PROC_VMMAP, libc::KERN_PROC_VMMAP),
        (abi::RLIMIT_DATA, libc::RLIMIT_DATA),
        (abi::RLIMIT_VMEM, libc::RLIMIT_VMEM),
        (abi::KVME_PROT_READ, libc::KVME_PROT_READ),
        (abi::KVME_PROT_WRITE, libc::KVME_PROT_WRITE),
        (abi::KVME_PROT_EXEC, libc::KVME_PROT_EXEC),
        (abi::KVME_FLAG_COW, libc::KVME_FLAG_COW),
        (abi::KVME_FLAG_GROWS_DOWN, libc::KVME_FLAG_GROWS_DOWN),
        (Errno::EPERM.0, libc::EPERM),
        (Errno::ENOENT.0, libc::ENOENT),
        (Errno::EINTR.0, libc::EINTR),
        (Errno::EBADF.0, libc::EBADF),
        (Errno::ENOMEM.0, libc::ENOMEM),
        (Errno::EACCES.0, libc::EACCES),
        (Errno::EFAULT.0, libc::EFAULT),
        (Errno::EEXIST.0, libc::EEXIST),
        (Errno::EINVAL.0, libc::EINVAL),
        (Errno::ENFILE.0, libc::ENFILE),
        (Errno::EMFILE.0, libc::EMFILE),
        (Errno::EFBIG.0, libc::EFBIG),
        (Errno::EAGAIN.0, libc::EAGAIN),
        (Errno::ENOSYS.0, libc::ENOSYS),
        (Errno::EOPNOTSUPP.0, libc::EOPNOTSUPP),
        (Errno::ECAPMODE.0, libc::ECAPMODE),
    ];
    let mut at = 0;
    while at < pairs.len() {
        assert!(pairs[at].0 == pairs[at].1);
        at += 1;
    }
    assert!(abi::RLIM_INFINITY == libc::RLIM_INFINITY.unsigned_abs());
    assert!(offset_of!(libc::kinfo_vmentry, kve_structsize) == kve::STRUCTSIZE);
    assert!(offset_of!(libc::kinfo_vmentry, kve_type) == kve::TYPE);
    assert!(offset_of!(libc::kinfo_vmentry, kve_start) == kve::START);
    assert!(offset_of!(libc::kinfo_vmentry, kve_end) == kve::END);
    assert!(offset_of!(libc::kinfo_vmentry, kve_flags) == kve::FLAGS);
    assert!(offset_of!(libc::kinfo_vmentry, kve_protection) == kve::PROTECTION);
    assert!(offset_of!(libc::kinfo_vmentry, kve_path) == kve::PATH);
};
