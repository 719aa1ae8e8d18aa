//! The numbers of Mach's virtual-memory interface that the backend uses.
//!
//! They are ours rather than those of the crates mach2 and libc so that the backend, and the
//! simulated macOS under it, compile on every operating system; `native.rs` holds them against
//! those crates when it is compiled for macOS. Source: osfmk/mach/kern_return.h, vm_prot.h,
//! vm_inherit.h, vm_statistics.h; EXTERNAL_HEADERS/mach-o/loader.h.

use crate::errno::errnos;

errnos! {
    KernReturn "kern_return_t";
    INVALID_ADDRESS = 1, "the address is outside what the process may map, or nothing is there";
    PROTECTION_FAILURE = 2, "the access is denied";
    NO_SPACE = 3, "the range is occupied, or no hole is large enough";
    INVALID_ARGUMENT = 4, "invalid argument";
    FAILURE = 5, "the kernel refuses";
    RESOURCE_SHORTAGE = 6, "no memory left";
    NOT_SUPPORTED = 46, "not supported";
    DENIED = 53, "policy denies it";
}

/// `VM_PROT_NONE`
pub const VM_PROT_NONE: i32 = 0;
/// `VM_PROT_READ`
pub const VM_PROT_READ: i32 = 1;
/// `VM_PROT_WRITE`
pub const VM_PROT_WRITE: i32 = 2;
/// `VM_PROT_EXECUTE`
pub const VM_PROT_EXECUTE: i32 = 4;
/// `VM_PROT_ALL`: what private memory may ever be changed to.
pub const VM_PROT_ALL: i32 = VM_PROT_READ | VM_PROT_WRITE | VM_PROT_EXECUTE;

/// `VM_FLAGS_FIXED`: exactly there; fails where anything is mapped.
pub const VM_FLAGS_FIXED: i32 = 0;
/// `VM_FLAGS_ANYWHERE`: the first hole at or above the address.
pub const VM_FLAGS_ANYWHERE: i32 = 1;
/// `VM_FLAGS_OVERWRITE`: with `VM_FLAGS_FIXED`, replaces what it covers. Over the backend's own memory only.
pub const VM_FLAGS_OVERWRITE: i32 = 0x4000;

/// `VM_INHERIT_COPY`: a child gets a copy.
pub const VM_INHERIT_COPY: u32 = 1;
/// `VM_INHERIT_NONE`: a child does not get the mapping.
pub const VM_INHERIT_NONE: u32 = 2;

/// `MH_MAGIC_64`
pub const MH_MAGIC_64: u32 = 0xfeed_facf;
/// `LC_SEGMENT_64`
pub const LC_SEGMENT_64: u32 = 0x19;
