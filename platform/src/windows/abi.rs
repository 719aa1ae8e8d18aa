//! The numbers of the Windows memory interface that the backend uses.
//!
//! They are ours rather than those of the crate windows-sys so that the backend, and the simulated
//! Windows under it, compile on every operating system; `native.rs` holds them against that crate
//! when it is compiled for Windows. Source: winnt.h, memoryapi.h, winerror.h.

use crate::errno::errnos;

errnos! {
    Win32Error "Windows error";
    ACCESS_DENIED = 5, "policy denies it";
    NOT_ENOUGH_MEMORY = 8, "no memory, or no address range that is large enough";
    INVALID_PARAMETER = 87, "invalid parameter";
    CALL_NOT_IMPLEMENTED = 120, "this Windows does not have the call";
    INVALID_ADDRESS = 487, "the range is occupied, or cannot be had";
    NO_SYSTEM_RESOURCES = 1450, "the system's resources are used up";
    WORKING_SET_QUOTA = 1453, "the process's quota of memory is used up";
    PAGEFILE_QUOTA = 1454, "the process's quota of committed memory is used up";
    COMMITMENT_LIMIT = 1455, "the system can commit no more memory: its paging file is too small";
    DYNAMIC_CODE_BLOCKED = 1655, "Arbitrary Code Guard (ProcessDynamicCodePolicy) is on in this process: \
        no memory may become executable; allow dynamic code for it, or make the code in another process";
}

/// `MEM_COMMIT`: give reserved pages memory; also the state of such pages.
pub const MEM_COMMIT: u32 = 0x1000;
/// `MEM_RESERVE`: take address space; also the state of pages without memory.
pub const MEM_RESERVE: u32 = 0x2000;
/// `MEM_DECOMMIT`: take pages' memory, keep their addresses.
pub const MEM_DECOMMIT: u32 = 0x4000;
/// `MEM_RELEASE`: give a whole reservation back.
pub const MEM_RELEASE: u32 = 0x8000;
/// `MEM_FREE`: the state of addresses that nobody has.
pub const MEM_FREE: u32 = 0x1_0000;

/// `MEM_PRIVATE`: the type of memory of `VirtualAlloc`.
pub const MEM_PRIVATE: u32 = 0x2_0000;
/// `MEM_MAPPED`: the type of views of sections.
pub const MEM_MAPPED: u32 = 0x4_0000;
/// `MEM_IMAGE`: the type of programs and DLLs.
pub const MEM_IMAGE: u32 = 0x100_0000;

/// `PAGE_NOACCESS`
pub const PAGE_NOACCESS: u32 = 0x01;
/// `PAGE_READONLY`
pub const PAGE_READONLY: u32 = 0x02;
/// `PAGE_READWRITE`
pub const PAGE_READWRITE: u32 = 0x04;
/// `PAGE_WRITECOPY`: a write makes the page private.
pub const PAGE_WRITECOPY: u32 = 0x08;
/// `PAGE_EXECUTE`
pub const PAGE_EXECUTE: u32 = 0x10;
/// `PAGE_EXECUTE_READ`
pub const PAGE_EXECUTE_READ: u32 = 0x20;
/// `PAGE_EXECUTE_READWRITE`: the most that views of a section may have; no page gets it here.
pub const PAGE_EXECUTE_READWRITE: u32 = 0x40;
/// `PAGE_EXECUTE_WRITECOPY`
pub const PAGE_EXECUTE_WRITECOPY: u32 = 0x80;
/// `PAGE_GUARD`: one access raises an exception; the page below a stack.
pub const PAGE_GUARD: u32 = 0x100;

/// `FILE_MAP_WRITE`: a view that reads and writes.
pub const FILE_MAP_WRITE: u32 = 0x02;
/// `FILE_MAP_READ`
pub const FILE_MAP_READ: u32 = 0x04;
/// `FILE_MAP_EXECUTE`
pub const FILE_MAP_EXECUTE: u32 = 0x20;
