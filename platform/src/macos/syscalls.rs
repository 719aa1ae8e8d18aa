//! The seam between the macOS backend and a kernel: the calls it makes, named as the system
//! names them, on the calling task.
//!
//! The running system (`native.rs`) and the simulated one (`crate::sim`) both implement it.
//! Invariant: implementations add no policy.

use super::abi::KernReturn;

/// What a call gives: its value, or the kernel's code.
pub type SysResult<T> = Result<T, KernReturn>;

/// The machine that the process runs on, as far as it decides about addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// Pages of 4 KiB; `__PAGEZERO` is what the program was linked with. Also under Rosetta.
    X86_64,
    /// Pages of 16 KiB; the first 4 GiB are never mapped.
    Arm64,
}

/// `mach_vm_region(VM_REGION_BASIC_INFO_64)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionInfo {
    /// First address.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// Access.
    pub protection: i32,
    /// The most it may become.
    pub max_protection: i32,
}

/// The calls that the backend makes. Addresses and lengths are in bytes.
///
/// The methods are safe to call in Rust's sense only from this crate, which
/// passes no range it did not map: that is why nothing hands out the native
/// implementation.
pub trait Syscalls: std::fmt::Debug + Send + Sync + 'static {
    /// Whether addresses are only numbers (no memory stands behind them).
    fn is_simulated(&self) -> bool;

    /// What the process was compiled for.
    fn machine(&self) -> Machine;

    /// `vm_page_size`, bytes.
    fn page_size(&self) -> u64;

    /// `mach_vm_region`: the mapping that holds `addr`, or the next above it.
    ///
    /// # Errors
    /// The kernel's; `KERN_INVALID_ADDRESS` when nothing lies there or above.
    fn mach_vm_region(&self, addr: u64) -> SysResult<RegionInfo>;

    /// `mach_vm_map` of zero-filled memory; where it lies. `VM_FLAGS_OVERWRITE` is passed only
    /// over memory that the caller holds.
    ///
    /// # Errors
    /// The kernel's.
    fn mach_vm_map(
        &self,
        addr: u64,
        len: u64,
        flags: i32,
        protection: i32,
        max_protection: i32,
        inheritance: u32,
    ) -> SysResult<u64>;

    /// `mach_vm_remap` of the caller's memory at `source`, sharing its pages; where it lies. It
    /// has the source's access.
    ///
    /// # Errors
    /// The kernel's.
    fn mach_vm_remap(
        &self,
        addr: u64,
        len: u64,
        flags: i32,
        source: u64,
        inheritance: u32,
    ) -> SysResult<u64>;

    /// `mach_vm_protect`: the access, or (`set_maximum`) the most it may become.
    ///
    /// # Errors
    /// The kernel's.
    fn mach_vm_protect(
        &self,
        addr: u64,
        len: u64,
        set_maximum: bool,
        protection: i32,
    ) -> SysResult<()>;

    /// `mach_vm_deallocate`.
    ///
    /// # Errors
    /// The kernel's.
    fn mach_vm_deallocate(&self, addr: u64, len: u64) -> SysResult<()>;

    /// `mmap(hint, len, RWX, MAP_PRIVATE | MAP_ANON | MAP_JIT)`; its errno as the code of the same meaning.
    ///
    /// # Errors
    /// The kernel's.
    fn mmap_jit(&self, hint: u64, len: u64) -> SysResult<u64>;

    /// `pthread_jit_write_protect_supported_np`.
    fn jit_supported(&self) -> bool;

    /// `pthread_jit_write_protect_np`, for the calling thread.
    fn jit_write_protect(&self, protected: bool);

    /// Address and bytes of the main program's Mach-O header with its load commands
    /// (`_dyld_get_image_header(0)`); empty if there is none.
    fn main_header(&self) -> (u64, Vec<u8>);

    /// `proc_regionfilename`: path of the file mapped at `addr`; empty if there is none.
    fn region_filename(&self, addr: u64) -> String;

    /// `getentropy`, at most 256 bytes.
    ///
    /// # Errors
    /// The kernel's, with errno as the code.
    fn getentropy(&self, buffer: &mut [u8]) -> SysResult<()>;

    /// A number of this process's own, drawn anew in a child (`pthread_atfork`).
    fn process(&self) -> u64;

    /// Writes to the page at `addr` without changing it, so that the kernel backs it.
    fn touch(&self, addr: u64);

    /// Writes zeros to the range, which is the caller's and writable.
    fn zero(&self, addr: u64, len: u64);

    /// `sys_icache_invalidate`.
    fn icache_invalidate(&self, addr: u64, len: u64);
}
