//! The running system: each call of `Syscalls` as one call of windows-sys.
//!
//! The only file of the backend with `unsafe`. Precondition shared by all
//! calls on memory: the backend passes only ranges that it reserved or mapped
//! itself, and no call here replaces anything, so no memory that Rust knows of
//! is replaced, released or changed in access.

use super::WindowsPlatform;
use super::abi::{self, Win32Error};
use super::syscalls::{MemoryInfo, SysResult, Syscalls, SystemInfo};
use crate::error::PlatformError;
use crate::pages;
use crate::range::{to_u64, to_usize};
use std::ffi::c_void;
use std::sync::OnceLock;
use windows_sys::Win32::Foundation as foundation;
use windows_sys::Win32::Foundation::{CloseHandle, HANDLE, INVALID_HANDLE_VALUE};
use windows_sys::Win32::Security::Cryptography::{
    BCRYPT_USE_SYSTEM_PREFERRED_RNG, BCryptGenRandom,
};
use windows_sys::Win32::System::Diagnostics::Debug::FlushInstructionCache;
use windows_sys::Win32::System::LibraryLoader::{
    GetModuleFileNameW, GetModuleHandleA, GetProcAddress,
};
use windows_sys::Win32::System::Memory as memory;
use windows_sys::Win32::System::ProcessStatus::K32GetMappedFileNameW;
use windows_sys::Win32::System::SystemInformation::{GetSystemInfo, SYSTEM_INFO};
use windows_sys::Win32::System::Threading::GetCurrentProcess;

/// The system that this process runs on. Only this crate can make one.
#[derive(Debug)]
pub struct NativeSyscalls(());

/// The platform of the running system, its capabilities probed now.
///
/// # Errors
/// The system tells nonsense about its addresses.
pub fn native() -> Result<WindowsPlatform<NativeSyscalls>, PlatformError> {
    WindowsPlatform::new(NativeSyscalls(()))
}

/// Why the call just made failed.
fn last_error() -> Win32Error {
    let code = std::io::Error::last_os_error().raw_os_error();
    Win32Error(code.unwrap_or_default())
}

/// What a call that returns a `BOOL` says.
fn check(done: i32) -> SysResult<()> {
    if done == 0 { Err(last_error()) } else { Ok(()) }
}

/// The address as a pointer without provenance of any Rust object.
fn pointer(addr: u64) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(to_usize(addr))
}

/// What a call that returns memory says; Rust code may make references into it from here on.
fn expose(at: *mut c_void) -> SysResult<u64> {
    if at.is_null() {
        Err(last_error())
    } else {
        Ok(to_u64(at.expose_provenance()))
    }
}

/// The high and the low half.
fn halves(value: u64) -> (u32, u32) {
    let low = u32::try_from(value & 0xffff_ffff).expect("32 bits");
    (u32::try_from(value >> 32).expect("32 bits"), low)
}

fn process() -> HANDLE {
    // SAFETY: the call has no precondition; it gives a constant that stands for this process.
    unsafe { GetCurrentProcess() }
}

/// What `get` writes into a buffer of characters; it says how many.
fn text(get: impl FnOnce(&mut [u16]) -> u32) -> String {
    let mut buffer = [0; 1024];
    let len = usize::try_from(get(&mut buffer)).unwrap_or(0);
    String::from_utf16_lossy(&buffer[..len.min(buffer.len())])
}

fn characters(buffer: &[u16]) -> u32 {
    u32::try_from(buffer.len()).expect("small")
}

type VirtualAlloc2 = unsafe extern "system" fn(
    HANDLE,
    *const c_void,
    usize,
    u32,
    u32,
    *mut memory::MEM_EXTENDED_PARAMETER,
    u32,
) -> *mut c_void;

/// The call, where the system has it: importing it would keep the program from starting elsewhere.
fn virtual_alloc2() -> Option<VirtualAlloc2> {
    static FOUND: OnceLock<Option<VirtualAlloc2>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        // SAFETY: the name ends in NUL. The module is never unloaded.
        let module = unsafe { GetModuleHandleA(c"kernelbase.dll".as_ptr().cast()) };
        if module.is_null() {
            return None;
        }
        // SAFETY: the module is loaded and the name ends in NUL.
        let found = unsafe { GetProcAddress(module, c"VirtualAlloc2".as_ptr().cast()) }?;
        // SAFETY: memoryapi.h declares the function of this name with this signature.
        Some(unsafe {
            std::mem::transmute::<unsafe extern "system" fn() -> isize, VirtualAlloc2>(found)
        })
    })
}

impl Syscalls for NativeSyscalls {
    fn is_simulated(&self) -> bool {
        false
    }

    fn get_system_info(&self) -> SystemInfo {
        let mut info = SYSTEM_INFO::default();
        // SAFETY: the call writes the exclusively borrowed structure.
        unsafe { GetSystemInfo(&raw mut info) };
        SystemInfo {
            page_size: info.dwPageSize.into(),
            granularity: info.dwAllocationGranularity.into(),
            first: to_u64(info.lpMinimumApplicationAddress.addr()),
            last: to_u64(info.lpMaximumApplicationAddress.addr()),
        }
    }

    fn virtual_query(&self, addr: u64) -> SysResult<MemoryInfo> {
        let mut info = memory::MEMORY_BASIC_INFORMATION::default();
        let room = size_of_val(&info);
        // SAFETY: the call writes at most `room` bytes of the exclusively borrowed structure.
        let written = unsafe { memory::VirtualQuery(pointer(addr), &raw mut info, room) };
        if written == 0 {
            return Err(last_error());
        }
        Ok(MemoryInfo {
            base: to_u64(info.BaseAddress.addr()),
            len: to_u64(info.RegionSize),
            allocation: to_u64(info.AllocationBase.addr()),
            state: info.State,
            protect: info.Protect,
            kind: info.Type,
        })
    }

    fn virtual_alloc(&self, addr: u64, len: u64, kind: u32, protect: u32) -> SysResult<u64> {
        // SAFETY: MEM_RESERVE takes free address space only; MEM_COMMIT alone comes for pages
        // that the backend has reserved.
        expose(unsafe { memory::VirtualAlloc(pointer(addr), to_usize(len), kind, protect) })
    }

    fn virtual_alloc2(
        &self,
        lowest: u64,
        highest: u64,
        len: u64,
        kind: u32,
        protect: u32,
    ) -> SysResult<u64> {
        let call = virtual_alloc2().ok_or(Win32Error::CALL_NOT_IMPLEMENTED)?;
        let mut requirements = memory::MEM_ADDRESS_REQUIREMENTS {
            LowestStartingAddress: pointer(lowest),
            HighestEndingAddress: pointer(highest),
            Alignment: 0,
        };
        let address = u64::try_from(memory::MemExtendedParameterAddressRequirements);
        let mut parameter = memory::MEM_EXTENDED_PARAMETER {
            Anonymous1: memory::MEM_EXTENDED_PARAMETER_0 {
                _bitfield: address.expect("a small number"),
            },
            Anonymous2: memory::MEM_EXTENDED_PARAMETER_1 {
                Pointer: (&raw mut requirements).cast(),
            },
        };
        let (process, none) = (process(), std::ptr::null());
        // SAFETY: the one parameter and what it points to outlive the call, which without a base
        // address takes free address space only.
        expose(unsafe {
            call(
                process,
                none,
                to_usize(len),
                kind,
                protect,
                &raw mut parameter,
                1,
            )
        })
    }

    fn has_virtual_alloc2(&self) -> bool {
        virtual_alloc2().is_some()
    }

    fn virtual_free(&self, addr: u64, len: u64, kind: u32) -> SysResult<()> {
        // SAFETY: the backend reserved the range and its owner gave up what it held.
        check(unsafe { memory::VirtualFree(pointer(addr), to_usize(len), kind) })
    }

    fn virtual_protect(&self, addr: u64, len: u64, protect: u32) -> SysResult<()> {
        let mut before = 0;
        // SAFETY: the backend mapped the range; its owner asked for this access.
        check(unsafe {
            memory::VirtualProtect(pointer(addr), to_usize(len), protect, &raw mut before)
        })
    }

    fn create_file_mapping(&self, len: u64, protect: u32) -> SysResult<usize> {
        let (high, low) = halves(len);
        let (security, name) = (std::ptr::null(), std::ptr::null());
        let file = INVALID_HANDLE_VALUE;
        // SAFETY: null stands for default security and for no name.
        let handle =
            unsafe { memory::CreateFileMappingW(file, security, protect, high, low, name) };
        if handle.is_null() {
            Err(last_error())
        } else {
            Ok(handle.expose_provenance())
        }
    }

    fn close_handle(&self, handle: usize) {
        // SAFETY: the backend opened the handle and closes it once.
        unsafe { CloseHandle(std::ptr::with_exposed_provenance_mut(handle)) };
    }

    fn map_view_of_file_ex(
        &self,
        handle: usize,
        access: u32,
        offset: u64,
        len: u64,
        addr: u64,
    ) -> SysResult<u64> {
        let (high, low) = halves(offset);
        let handle = std::ptr::with_exposed_provenance_mut(handle);
        // SAFETY: the handle is an open section's; a view takes free address space only.
        let view = unsafe {
            memory::MapViewOfFileEx(handle, access, high, low, to_usize(len), pointer(addr))
        };
        expose(view.Value)
    }

    fn unmap_view_of_file(&self, addr: u64) -> SysResult<()> {
        let view = memory::MEMORY_MAPPED_VIEW_ADDRESS {
            Value: pointer(addr),
        };
        // SAFETY: the backend mapped the view and its owner gave it up.
        check(unsafe { memory::UnmapViewOfFile(view) })
    }

    fn program(&self) -> u64 {
        // SAFETY: null stands for the program.
        let module = unsafe { GetModuleHandleA(std::ptr::null()) };
        to_u64(module.addr())
    }

    fn get_module_file_name(&self, base: u64) -> String {
        text(|buffer| {
            let (to, room) = (buffer.as_mut_ptr(), characters(buffer));
            // SAFETY: the call writes at most `room` characters into the exclusively borrowed
            // buffer; it looks the module up in the loader's list.
            unsafe { GetModuleFileNameW(pointer(base), to, room) }
        })
    }

    fn get_mapped_file_name(&self, addr: u64) -> String {
        text(|buffer| {
            let (to, room) = (buffer.as_mut_ptr(), characters(buffer));
            // SAFETY: the call writes at most `room` characters into the exclusively borrowed
            // buffer.
            unsafe { K32GetMappedFileNameW(process(), pointer(addr), to, room) }
        })
    }

    fn bcrypt_gen_random(&self, buffer: &mut [u8]) -> SysResult<()> {
        let none = std::ptr::null_mut();
        for part in buffer.chunks_mut(1 << 20) {
            let len = u32::try_from(part.len()).expect("a chunk is small");
            let flags = BCRYPT_USE_SYSTEM_PREFERRED_RNG;
            // SAFETY: the call writes `len` bytes into the exclusively borrowed buffer.
            let status = unsafe { BCryptGenRandom(none, part.as_mut_ptr(), len, flags) };
            if status < 0 {
                return Err(Win32Error(status));
            }
        }
        Ok(())
    }

    fn get_current_process_id(&self) -> u32 {
        std::process::id()
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
        // SAFETY: the range is mapped by the backend; the call changes no byte of it. It can fail
        // for another process only.
        unsafe { FlushInstructionCache(process(), pointer(addr), to_usize(len)) };
    }
}

/// The numbers of `abi` are those that the crate windows-sys has from the system's headers; checked
/// whenever this file is compiled.
const _: () = {
    let pairs = [
        (abi::MEM_COMMIT, memory::MEM_COMMIT),
        (abi::MEM_RESERVE, memory::MEM_RESERVE),
        (abi::MEM_DECOMMIT, memory::MEM_DECOMMIT),
        (abi::MEM_RELEASE, memory::MEM_RELEASE),
        (abi::MEM_FREE, memory::MEM_FREE),
        (abi::MEM_PRIVATE, memory::MEM_PRIVATE),
        (abi::MEM_MAPPED, memory::MEM_MAPPED),
        (abi::MEM_IMAGE, memory::MEM_IMAGE),
        (abi::PAGE_NOACCESS, memory::PAGE_NOACCESS),
        (abi::PAGE_READONLY, memory::PAGE_READONLY),
        (abi::PAGE_READWRITE, memory::PAGE_READWRITE),
        (abi::PAGE_WRITECOPY, memory::PAGE_WRITECOPY),
        (abi::PAGE_EXECUTE, memory::PAGE_EXECUTE),
        (abi::PAGE_EXECUTE_READ, memory::PAGE_EXECUTE_READ),
        (abi::PAGE_EXECUTE_READWRITE, memory::PAGE_EXECUTE_READWRITE),
        (abi::PAGE_EXECUTE_WRITECOPY, memory::PAGE_EXECUTE_WRITECOPY),
        (abi::PAGE_GUARD, memory::PAGE_GUARD),
        (abi::FILE_MAP_WRITE, memory::FILE_MAP_WRITE),
        (abi::FILE_MAP_READ, memory::FILE_MAP_READ),
        (abi::FILE_MAP_EXECUTE, memory::FILE_MAP_EXECUTE),
    ];
    let mut at = 0;
    while at < pairs.len() {
        assert!(pairs[at].0 == pairs[at].1);
        at += 1;
    }
    let codes = [
        (Win32Error::ACCESS_DENIED, foundation::ERROR_ACCESS_DENIED),
        (
            Win32Error::NOT_ENOUGH_MEMORY,
            foundation::ERROR_NOT_ENOUGH_MEMORY,
        ),
        (
            Win32Error::INVALID_PARAMETER,
            foundation::ERROR_INVALID_PARAMETER,
        ),
        (
            Win32Error::CALL_NOT_IMPLEMENTED,
            foundation::ERROR_CALL_NOT_IMPLEMENTED,
        ),
        (
            Win32Error::INVALID_ADDRESS,
            foundation::ERROR_INVALID_ADDRESS,
        ),
        (
            Win32Error::NO_SYSTEM_RESOURCES,
            foundation::ERROR_NO_SYSTEM_RESOURCES,
        ),
        (
            Win32Error::WORKING_SET_QUOTA,
            foundation::ERROR_WORKING_SET_QUOTA,
        ),
        (Win32Error::PAGEFILE_QUOTA, foundation::ERROR_PAGEFILE_QUOTA),
        (
            Win32Error::COMMITMENT_LIMIT,
            foundation::ERROR_COMMITMENT_LIMIT,
        ),
        (
            Win32Error::DYNAMIC_CODE_BLOCKED,
            foundation::ERROR_DYNAMIC_CODE_BLOCKED,
        ),
    ];
    let mut at = 0;
    while at < codes.len() {
        assert!(codes[at].0.0.cast_unsigned() == codes[at].1);
        at += 1;
    }
};
