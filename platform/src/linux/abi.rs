//! The numbers of the Linux system-call interface that the backend uses.
//!
//! They are ours rather than libc's so that the backend, and the simulated
//! Linux under it, compile on every operating system; `native.rs` tests them
//! against libc. Source: include/uapi/ of the kernel (asm-generic/mman*.h,
//! linux/memfd.h, linux/fcntl.h, linux/fs.h), values of x86-64 and aarch64,
//! which agree in all of these except `MAP_32BIT` (x86-64 only).

use crate::errno::errnos;

errnos! {
    EPERM = 1, "operation not permitted";
    ENOENT = 2, "no such file or mapping";
    EINTR = 4, "interrupted";
    EBADF = 9, "bad file descriptor";
    EAGAIN = 11, "too much memory is locked (RLIMIT_MEMLOCK), or try again";
    ENOMEM = 12, "no memory, address space or mappings left";
    EACCES = 13, "access denied";
    EFAULT = 14, "bad address";
    EEXIST = 17, "the range is occupied";
    EINVAL = 22, "invalid argument";
    ENFILE = 23, "too many open files in the system";
    EMFILE = 24, "too many open files in the process (RLIMIT_NOFILE)";
    ENOTTY = 25, "the file does not know this request";
    EFBIG = 27, "file too large";
    ENOSPC = 28, "no space left";
    ENOSYS = 38, "the kernel has no such call";
    EOVERFLOW = 75, "value too large";
    EOPNOTSUPP = 95, "not supported";
}

/// `PROT_NONE`
pub const PROT_NONE: i32 = 0;
/// `PROT_READ`
pub const PROT_READ: i32 = 1;
/// `PROT_WRITE`
pub const PROT_WRITE: i32 = 2;
/// `PROT_EXEC`
pub const PROT_EXEC: i32 = 4;

/// `MAP_SHARED`
pub const MAP_SHARED: i32 = 0x01;
/// `MAP_PRIVATE`
pub const MAP_PRIVATE: i32 = 0x02;
/// `MAP_FIXED`: replaces what it covers. Never passed by the backend; the simulated kernel refuses it.
pub const MAP_FIXED: i32 = 0x10;
/// `MAP_ANONYMOUS`
pub const MAP_ANONYMOUS: i32 = 0x20;
/// `MAP_32BIT`, x86-64 only; other machines ignore the bit.
pub const MAP_32BIT: i32 = 0x40;
/// `MAP_NORESERVE`
pub const MAP_NORESERVE: i32 = 0x4000;
/// `MAP_FIXED_NOREPLACE` (4.17); older kernels ignore the bit.
pub const MAP_FIXED_NOREPLACE: i32 = 0x10_0000;

/// `MADV_DONTNEED`
pub const MADV_DONTNEED: i32 = 4;
/// `MADV_REMOVE`: frees the pages of a shared mapping.
pub const MADV_REMOVE: i32 = 9;
/// `MADV_DONTFORK`
pub const MADV_DONTFORK: i32 = 10;
/// `MADV_WIPEONFORK` (4.14)
pub const MADV_WIPEONFORK: i32 = 18;
/// `MADV_POPULATE_WRITE` (5.14)
pub const MADV_POPULATE_WRITE: i32 = 23;
/// `MADV_DONTNEED_LOCKED` (5.18): as `MADV_DONTNEED`, on locked memory too.
pub const MADV_DONTNEED_LOCKED: i32 = 24;
/// `MADV_GUARD_INSTALL` (6.13)
pub const MADV_GUARD_INSTALL: i32 = 102;

/// `MFD_CLOEXEC`
pub const MFD_CLOEXEC: u32 = 0x01;
/// `MFD_ALLOW_SEALING`
pub const MFD_ALLOW_SEALING: u32 = 0x02;
/// `MFD_NOEXEC_SEAL` (6.3)
pub const MFD_NOEXEC_SEAL: u32 = 0x08;
/// `MFD_EXEC` (6.3)
pub const MFD_EXEC: u32 = 0x10;

/// `F_SEAL_SHRINK`
pub const F_SEAL_SHRINK: i32 = 0x02;
/// `F_SEAL_GROW`
pub const F_SEAL_GROW: i32 = 0x04;
/// `F_SEAL_FUTURE_WRITE` (5.1): mappings made from now on can never be written.
pub const F_SEAL_FUTURE_WRITE: i32 = 0x10;

/// `O_RDONLY | O_CLOEXEC`
pub const O_RDONLY_CLOEXEC: i32 = 0o2_000_000;

/// `MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE` (4.16)
pub const MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE: i32 = 1 << 5;
/// `MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE` (4.16)
pub const MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE: i32 = 1 << 6;

/// `RLIMIT_FSIZE`
pub const RLIMIT_FSIZE: u32 = 1;
/// `RLIMIT_DATA`
pub const RLIMIT_DATA: u32 = 2;
/// `RLIMIT_STACK`
pub const RLIMIT_STACK: u32 = 3;
/// `RLIMIT_AS`
pub const RLIMIT_AS: u32 = 9;
/// `RLIM_INFINITY`
pub const RLIM_INFINITY: u64 = u64::MAX;

/// `PR_MDWE_REFUSE_EXEC_GAIN`, a bit of what `PR_GET_MDWE` (6.3) returns.
pub const PR_MDWE_REFUSE_EXEC_GAIN: i32 = 1;

/// `PROCMAP_QUERY` (6.11): `_IOWR('f', 17, struct procmap_query)`.
pub const PROCMAP_QUERY: u64 = 0xc068_6611;
/// `PROCMAP_QUERY_COVERING_OR_NEXT_VMA`
pub const PROCMAP_QUERY_COVERING_OR_NEXT_VMA: u64 = 0x10;

/// `struct procmap_query` of linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(
    missing_docs,
    reason = "the fields are documented in include/uapi/linux/fs.h"
)]
pub struct ProcmapQuery {
    pub size: u64,
    pub query_flags: u64,
    pub query_addr: u64,
    pub vma_start: u64,
    pub vma_end: u64,
    pub vma_flags: u64,
    pub vma_page_size: u64,
    pub vma_offset: u64,
    pub inode: u64,
    pub dev_major: u32,
    pub dev_minor: u32,
    pub vma_name_size: u32,
    pub build_id_size: u32,
    pub vma_name_addr: u64,
    pub build_id_addr: u64,
}

const _: () = assert!(
    size_of::<ProcmapQuery>() == 0x68,
    "PROCMAP_QUERY encodes this size"
);
