//! The seam between the FreeBSD backend and a kernel: the calls it makes,
//! named as FreeBSD names them, with raw error numbers.
//!
//! The running kernel (`native.rs`) and the simulated one (`crate::sim`) both
//! implement it. Invariant: implementations add no policy.

use std::sync::atomic::AtomicU64;

use super::abi::Errno;

/// What a call gives: its value, or the kernel's error number.
pub type SysResult<T> = Result<T, Errno>;

/// The calls that the backend makes. Addresses and lengths are in bytes; see
/// the manual page of the same name for each.
///
/// The methods are safe to call in Rust's sense only from this crate, which
/// passes no range it did not map: that is why nothing hands out the native
/// implementation.
pub trait Syscalls: std::fmt::Debug + Send + Sync + 'static {
    /// Whether addresses are only numbers (no memory stands behind them).
    fn is_simulated(&self) -> bool;

    /// `getpagesize`, bytes.
    fn page_size(&self) -> u64;

    /// `mmap`. `MAP_FIXED` comes with `MAP_EXCL`, except over memory that the caller holds.
    ///
    /// # Errors
    /// The kernel's: `ENOMEM` also where `MAP_EXCL` finds the range taken.
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

    /// `minherit`.
    ///
    /// # Errors
    /// The kernel's.
    fn minherit(&self, addr: u64, len: u64, inherit: i32) -> SysResult<()>;

    /// `shm_open(SHM_ANON, O_RDWR | O_CLOEXEC, 0600)`: an object without a name.
    ///
    /// # Errors
    /// The kernel's.
    fn shm_open_anon(&self) -> SysResult<i32>;

    /// `ftruncate`.
    ///
    /// # Errors
    /// The kernel's: `ENOMEM` when swap cannot be reserved for it.
    fn ftruncate(&self, fd: i32, len: u64) -> SysResult<()>;

    /// `close`; the descriptor is gone whatever it would return.
    fn close(&self, fd: i32);

    /// `sysctl`, reading: the bytes written to `out`, or, without one, the bytes it would take.
    ///
    /// # Errors
    /// The kernel's: `ENOMEM` if `out` is too short.
    fn sysctl(&self, mib: &[i32], out: Option<&mut [u8]>) -> SysResult<usize>;

    /// `getpid`.
    fn getpid(&self) -> i32;

    /// `sbrk(0)`: the current end of the brk heap; 0 where there is none (arm64).
    fn sbrk(&self) -> u64;

    /// `getrlimit`: the soft limit.
    ///
    /// # Errors
    /// The kernel's.
    fn getrlimit(&self, resource: i32) -> SysResult<u64>;

    /// `getrandom`, flags 0; the number of bytes filled.
    ///
    /// # Errors
    /// The kernel's.
    fn getrandom(&self, buffer: &mut [u8]) -> SysResult<usize>;

    /// A number of this process's own: a random word in a page that a child gets as zeros
    /// (`minherit(INHERIT_ZERO)`), or `getpid` where the kernel has none.
    fn process(&self) -> u64;

    /// That word, if the kernel has such pages.
    fn process_word(&self) -> Option<&'static AtomicU64> {
        None
    }

    /// Writes to the page at `addr` without changing it, so that the kernel backs it.
    fn touch(&self, addr: u64);

    /// Writes zeros to the range, which is the caller's and writable.
    fn zero(&self, addr: u64, len: u64);

    /// Makes written code visible to instruction fetch.
    fn flush_instruction_cache(&self, addr: u64, len: u64);
}
