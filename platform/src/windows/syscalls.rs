//! The seam between the Windows backend and a system: the calls it makes,
//! named as Windows names them, with raw error codes.
//!
//! The running system (`native.rs`) and the simulated one (`crate::sim`) both
//! implement it. Invariant: implementations add no policy.

use super::abi::Win32Error;

/// What a call gives: its value, or what `GetLastError` says.
pub type SysResult<T> = Result<T, Win32Error>;

/// What the backend needs of `SYSTEM_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemInfo {
    /// `dwPageSize`, bytes.
    pub page_size: u64,
    /// `dwAllocationGranularity`, bytes.
    pub granularity: u64,
    /// `lpMinimumApplicationAddress`.
    pub first: u64,
    /// `lpMaximumApplicationAddress`: the last byte that a process may have.
    pub last: u64,
}

/// `MEMORY_BASIC_INFORMATION`: pages of one state, from the one asked for upwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryInfo {
    /// First byte of the pages.
    pub base: u64,
    /// Their bytes.
    pub len: u64,
    /// First byte of the reservation, view or image that they belong to; 0 for free addresses.
    pub allocation: u64,
    /// `MEM_FREE`, `MEM_RESERVE` or `MEM_COMMIT`.
    pub state: u32,
    /// `PAGE_` bits; 0 unless committed.
    pub protect: u32,
    /// `MEM_PRIVATE`, `MEM_MAPPED` or `MEM_IMAGE`; 0 for free addresses.
    pub kind: u32,
}

/// The calls that the backend makes. Addresses and lengths are in bytes; see
/// Microsoft's page on the function of the same name for each.
///
/// The methods are safe to call in Rust's sense only from this crate, which
/// passes no range it did not map: that is why nothing hands out the native
/// implementation.
pub trait Syscalls: std::fmt::Debug + Send + Sync + 'static {
    /// Whether addresses are only numbers (no memory stands behind them).
    fn is_simulated(&self) -> bool;

    /// `GetSystemInfo`.
    fn get_system_info(&self) -> SystemInfo;

    /// `VirtualQuery`.
    ///
    /// # Errors
    /// The system's: `ERROR_INVALID_PARAMETER` above the last address.
    fn virtual_query(&self, addr: u64) -> SysResult<MemoryInfo>;

    /// `VirtualAlloc`; `addr` 0 lets the system choose.
    ///
    /// # Errors
    /// The system's: `ERROR_INVALID_ADDRESS` where something is.
    fn virtual_alloc(&self, addr: u64, len: u64, kind: u32, protect: u32) -> SysResult<u64>;

    /// `VirtualAlloc2` with `MEM_ADDRESS_REQUIREMENTS`: `lowest` is a multiple of the granularity,
    /// `highest` the last byte that may be used, one below such a multiple.
    ///
    /// # Errors
    /// The system's; `ERROR_CALL_NOT_IMPLEMENTED` before Windows 10 1803, which have no such call.
    fn virtual_alloc2(
        &self,
        lowest: u64,
        highest: u64,
        len: u64,
        kind: u32,
        protect: u32,
    ) -> SysResult<u64>;

    /// Whether `VirtualAlloc2` is there.
    fn has_virtual_alloc2(&self) -> bool;

    /// `VirtualFree`; `len` is 0 with `MEM_RELEASE`.
    ///
    /// # Errors
    /// The system's.
    fn virtual_free(&self, addr: u64, len: u64, kind: u32) -> SysResult<()>;

    /// `VirtualProtect`, within one reservation or view.
    ///
    /// # Errors
    /// The system's.
    fn virtual_protect(&self, addr: u64, len: u64, protect: u32) -> SysResult<()>;

    /// `CreateFileMapping` of the paging file, without a name, not inherited.
    ///
    /// # Errors
    /// The system's.
    fn create_file_mapping(&self, len: u64, protect: u32) -> SysResult<usize>;

    /// `CloseHandle`; the handle is gone whatever it would return.
    fn close_handle(&self, handle: usize);

    /// `MapViewOfFileEx` at exactly `addr`.
    ///
    /// # Errors
    /// The system's: `ERROR_INVALID_ADDRESS` where something is.
    fn map_view_of_file_ex(
        &self,
        handle: usize,
        access: u32,
        offset: u64,
        len: u64,
        addr: u64,
    ) -> SysResult<u64>;

    /// `UnmapViewOfFile` of the view that begins at `addr`.
    ///
    /// # Errors
    /// The system's.
    fn unmap_view_of_file(&self, addr: u64) -> SysResult<()>;

    /// `GetModuleHandle(NULL)`: where the program lies.
    fn program(&self) -> u64;

    /// `GetModuleFileName` of the image at `base`; empty if it is none.
    fn get_module_file_name(&self, base: u64) -> String;

    /// `GetMappedFileName` of the view that holds `addr`; empty if no file is behind it.
    fn get_mapped_file_name(&self, addr: u64) -> String;

    /// `BCryptGenRandom` of the system's preferred generator; fills the whole buffer.
    ///
    /// # Errors
    /// The system's.
    fn bcrypt_gen_random(&self, buffer: &mut [u8]) -> SysResult<()>;

    /// `GetCurrentProcessId`.
    fn get_current_process_id(&self) -> u32;

    /// Writes to the page at `addr` without changing it, so that the system backs it.
    fn touch(&self, addr: u64);

    /// Writes zeros to the range, which is the caller's and writable.
    fn zero(&self, addr: u64, len: u64);

    /// `FlushInstructionCache` of this process.
    fn flush_instruction_cache(&self, addr: u64, len: u64);
}
