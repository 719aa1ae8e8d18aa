//! The seam between the Linux backend and a kernel: the calls it makes, named
//! as Linux names them, with raw error numbers.
//!
//! The running kernel (`native.rs`) and the simulated one (`crate::sim`) both
//! implement it; nothing above knows which it talks to.
//!
//! Invariant: implementations add no policy. Checks, retries and rollback are
//! the backend's, so that the simulated kernel exercises them.

use super::abi::{Errno, ProcmapQuery};
use std::ffi::CStr;
use std::sync::atomic::AtomicU64;

/// What a call gives: its value, or the kernel's error number.
pub type SysResult<T> = Result<T, Errno>;

/// One line of `/proc/self/maps`, for pictures and error texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapLine {
    /// First address.
    pub start: u64,
    /// One past the last address.
    pub end: u64,
    /// `rwxp`-style access.
    pub access: String,
    /// Path or bracketed name; empty if it has none.
    pub name: String,
}

/// The calls that the backend makes. Addresses and lengths are in bytes;
/// see the manual page of the same name for each.
///
/// The methods are safe to call in Rust's sense only from this crate, which
/// passes no range it did not map: that is why nothing hands out the native
/// implementation.
pub trait Syscalls: std::fmt::Debug + Send + Sync + 'static {
    /// Whether addresses are only numbers (no memory stands behind them).
    fn is_simulated(&self) -> bool;

    /// `sysconf(_SC_PAGESIZE)`, bytes.
    fn page_size(&self) -> u64;

    /// An address within the main thread's stack near its top (`getauxval(AT_EXECFN)`), 0 if not told.
    fn stack_address(&self) -> u64;

    /// `mmap`. The backend never passes `MAP_FIXED`.
    ///
    /// # Errors
    /// The kernel's.
    fn mmap(
        &self,
        addr: u64,
        len: u64,
        prot: i32,
        flags: i32,
        fd: i32,
        offset: u64,
    ) -> SysResult<u64>;

    /// `munmap`.
    ///
    /// # Errors
    /// The kernel's.
    fn munmap(&self, addr: u64, len: u64) -> SysResult<()>;

    /// `mprotect`.
    ///
    /// # Errors
    /// The kernel's.
    fn mprotect(&self, addr: u64, len: u64, prot: i32) -> SysResult<()>;

    /// `madvise`. With length 0 it only tells whether the kernel knows the advice.
    ///
    /// # Errors
    /// The kernel's.
    fn madvise(&self, addr: u64, len: u64, advice: i32) -> SysResult<()>;

    /// `mseal` (6.10). With length 0 it only tells whether the call exists.
    ///
    /// # Errors
    /// The kernel's.
    fn mseal(&self, addr: u64, len: u64) -> SysResult<()>;

    /// `brk(0)`: the current end of the brk heap; 0 if there is none.
    fn brk(&self) -> u64;

    /// `memfd_create`.
    ///
    /// # Errors
    /// The kernel's.
    fn memfd_create(&self, name: &CStr, flags: u32) -> SysResult<i32>;

    /// `ftruncate`.
    ///
    /// # Errors
    /// The kernel's.
    fn ftruncate(&self, fd: i32, len: u64) -> SysResult<()>;

    /// `fallocate` of the first `len` bytes, mode 0.
    ///
    /// # Errors
    /// The kernel's.
    fn fallocate(&self, fd: i32, len: u64) -> SysResult<()>;

    /// `fcntl(F_ADD_SEALS)`.
    ///
    /// # Errors
    /// The kernel's.
    fn add_seals(&self, fd: i32, seals: i32) -> SysResult<()>;

    /// `open`.
    ///
    /// # Errors
    /// The kernel's.
    fn open(&self, path: &CStr, flags: i32) -> SysResult<i32>;

    /// `read`; 0 at the end of the file.
    ///
    /// # Errors
    /// The kernel's.
    fn read(&self, fd: i32, buffer: &mut [u8]) -> SysResult<usize>;

    /// `close`; the descriptor is gone whatever it would return.
    fn close(&self, fd: i32);

    /// `ioctl(PROCMAP_QUERY)` on an open `/proc/self/maps`.
    ///
    /// # Errors
    /// The kernel's; `ENOENT` when no mapping lies at or above `query_addr`.
    fn procmap_query(&self, fd: i32, query: &mut ProcmapQuery) -> SysResult<()>;

    /// `getrlimit`: the soft limit.
    ///
    /// # Errors
    /// The kernel's.
    fn getrlimit(&self, resource: u32) -> SysResult<u64>;

    /// `prctl(PR_GET_MDWE)` (6.3).
    ///
    /// # Errors
    /// The kernel's.
    fn prctl_get_mdwe(&self) -> SysResult<i32>;

    /// `membarrier`, flags 0 (4.3).
    ///
    /// # Errors
    /// The kernel's; `EPERM` for a command that the process has not registered for.
    fn membarrier(&self, command: i32) -> SysResult<()>;

    /// `getrandom`, flags 0; the number of bytes filled.
    ///
    /// # Errors
    /// The kernel's.
    fn getrandom(&self, buffer: &mut [u8]) -> SysResult<usize>;

    /// A number of this process's own: a random word in a page that fork wipes
    /// (`MADV_WIPEONFORK`), or `getpid` where the kernel has none.
    fn process(&self) -> u64;

    /// That word, if the kernel has such pages.
    fn process_word(&self) -> Option<&'static AtomicU64> {
        None
    }

    /// Writes to the page at `addr` without changing it, so that the kernel backs it.
    fn touch(&self, addr: u64);

    /// Makes written code visible to instruction fetch.
    fn flush_instruction_cache(&self, addr: u64, len: u64);

    /// The whole map of the process with names (the crate proc-maps); slow.
    ///
    /// # Errors
    /// The map could not be read.
    fn process_maps(&self) -> SysResult<Vec<MapLine>>;

    /// `readlink("/proc/self/exe")`.
    ///
    /// # Errors
    /// The kernel's.
    fn executable(&self) -> SysResult<String>;
}
