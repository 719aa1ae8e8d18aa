//! The numbers of the FreeBSD system-call interface that the backend uses.
//!
//! They are ours rather than libc's so that the backend, and the simulated
//! FreeBSD under it, compile on every operating system; `native.rs` holds them
//! against libc when it is compiled for FreeBSD. Source: sys/sys/mman.h,
//! sys/sys/errno.h, sys/sys/sysctl.h, sys/sys/resource.h, sys/sys/user.h.

use crate::errno::errnos;

errnos! {
    EPERM = 1, "operation not permitted";
    ENOENT = 2, "no such file or name";
    EINTR = 4, "interrupted";
    EBADF = 9, "bad file descriptor";
    ENOMEM = 12, "no memory, address space or swap left, or the range is occupied";
    EACCES = 13, "access denied";
    EFAULT = 14, "bad address";
    EEXIST = 17, "the range is occupied";
    EINVAL = 22, "invalid argument";
    ENFILE = 23, "too many open files in the system";
    EMFILE = 24, "too many open files in the process (RLIMIT_NOFILE)";
    EFBIG = 27, "file too large";
    EAGAIN = 35, "try again";
    ENOSYS = 78, "the kernel has no such call";
    EOPNOTSUPP = 45, "not supported";
    ECAPMODE = 94, "not permitted in capability mode";
}

/// `PROT_NONE`
pub const PROT_NONE: i32 = 0;
/// `PROT_READ`
pub const PROT_READ: i32 = 1;
/// `PROT_WRITE`
pub const PROT_WRITE: i32 = 2;
/// `PROT_EXEC`
pub const PROT_EXEC: i32 = 4;
/// All three: what private memory may ever be changed to.
pub const PROT_ALL: i32 = PROT_READ | PROT_WRITE | PROT_EXEC;

/// `PROT_MAX(prot)` (13.0): the access that a mapping may ever have. Without it, a process under
/// `vm.imply_prot_max` could never change the access it mapped with.
#[must_use]
pub const fn prot_max(prot: i32) -> i32 {
    prot << 16
}

/// `MAP_SHARED`
pub const MAP_SHARED: i32 = 0x0001;
/// `MAP_PRIVATE`
pub const MAP_PRIVATE: i32 = 0x0002;
/// `MAP_FIXED`: alone it replaces what it covers; the backend passes it with `MAP_EXCL`, or over its own memory.
pub const MAP_FIXED: i32 = 0x0010;
/// `MAP_ANON`
pub const MAP_ANON: i32 = 0x1000;
/// `MAP_EXCL`: with `MAP_FIXED`, fails where anything is mapped instead of replacing it.
pub const MAP_EXCL: i32 = 0x4000;
/// `MAP_32BIT`: below 2 GiB.
pub const MAP_32BIT: i32 = 0x0008_0000;

/// `INHERIT_NONE`: a child does not get the mapping.
pub const INHERIT_NONE: i32 = 2;
/// `INHERIT_ZERO` (12.0): a child gets zeros in its place.
pub const INHERIT_ZERO: i32 = 3;

/// `CTL_KERN`
pub const CTL_KERN: i32 = 1;
/// `KERN_PROC`
pub const KERN_PROC: i32 = 14;
/// `KERN_USRSTACK`
pub const KERN_USRSTACK: i32 = 33;
/// `KERN_PROC_PATHNAME`
pub const KERN_PROC_PATHNAME: i32 = 12;
/// `KERN_PROC_VMMAP`
pub const KERN_PROC_VMMAP: i32 = 32;

/// `RLIMIT_DATA`
pub const RLIMIT_DATA: i32 = 2;
/// `RLIMIT_VMEM`, also named `RLIMIT_AS`.
pub const RLIMIT_VMEM: i32 = 10;
/// `RLIM_INFINITY`
pub const RLIM_INFINITY: u64 = i64::MAX.unsigned_abs();

/// `KVME_TYPE_GUARD`: nothing is mapped there and nothing can be: guards, and the room of a stack.
pub const KVME_TYPE_GUARD: i32 = 9;
/// `KVME_PROT_READ`
pub const KVME_PROT_READ: i32 = 1;
/// `KVME_PROT_WRITE`
pub const KVME_PROT_WRITE: i32 = 2;
/// `KVME_PROT_EXEC`
pub const KVME_PROT_EXEC: i32 = 4;
/// `KVME_FLAG_COW`: a private mapping of something.
pub const KVME_FLAG_COW: i32 = 1;
/// `KVME_FLAG_GROWS_DOWN`: a stack.
pub const KVME_FLAG_GROWS_DOWN: i32 = 0x20;

/// Offsets of the fields of `struct kinfo_vmentry` that the backend reads (sys/sys/user.h,
/// 12.0 and later, 64-bit).
pub mod kve {
    /// `kve_structsize`, 4 bytes: the length of this record.
    pub const STRUCTSIZE: usize = 0;
    /// `kve_type`, 4 bytes.
    pub const TYPE: usize = 4;
    /// `kve_start`, 8 bytes.
    pub const START: usize = 8;
    /// `kve_end`, 8 bytes.
    pub const END: usize = 16;
    /// `kve_flags`, 4 bytes.
    pub const FLAGS: usize = 44;
    /// `kve_protection`, 4 bytes.
    pub const PROTECTION: usize = 56;
    /// `kve_path`: as much of it as the path needs, ended by NUL.
    pub const PATH: usize = 136;
}
