//! The running system: each call of `Syscalls` as one call of mach2 or libc.
//!
//! The only file of the backend with `unsafe`. Precondition shared by all
//! calls on memory: the backend passes only ranges that it mapped itself, and
//! `VM_FLAGS_OVERWRITE` only over such a range, so no memory that Rust knows of
//! is replaced, unmapped or changed in access.

use super::abi::{self, KernReturn};
use super::syscalls::{Machine, RegionInfo, SysResult, Syscalls};
use super::{MacOsPlatform, pagezero};
use crate::error::PlatformError;
use crate::pages;
use crate::range::{to_u64, to_usize};
use mach2::kern_return::{self, KERN_SUCCESS, kern_return_t};
use mach2::traps::mach_task_self;
use mach2::vm;
use mach2::vm_region::{VM_REGION_BASIC_INFO_64, vm_region_basic_info_64};
use mach2::{vm_inherit, vm_prot, vm_statistics};
use std::ffi::c_void;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

/// The system that this process runs on. Only this crate can make one.
#[derive(Debug)]
pub struct NativeSyscalls {
    page_size: u64,
}

/// The platform of the running system, its capabilities probed now.
///
/// # Errors
/// The kernel does not tell the map of the task.
pub fn native() -> Result<MacOsPlatform<NativeSyscalls>, PlatformError> {
    // SAFETY: sysconf has no precondition.
    let page_size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let page_size = u64::try_from(page_size).expect("every macOS tells its page size");
    MacOsPlatform::new(NativeSyscalls { page_size })
}

fn check(result: kern_return_t) -> SysResult<()> {
    if result == KERN_SUCCESS {
        Ok(())
    } else {
        Err(KernReturn(result))
    }
}

fn task() -> mach2::mach_types::task_t {
    // SAFETY: the task's own port is set before main and never changes.
    unsafe { mach_task_self() }
}

/// The address as a pointer without provenance of any Rust object.
fn pointer(addr: u64) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(to_usize(addr))
}

/// What Rust code may make references into from here on.
fn expose(addr: u64) -> u64 {
    to_u64(pointer(addr).expose_provenance())
}

impl Syscalls for NativeSyscalls {
    fn is_simulated(&self) -> bool {
        false
    }

    fn machine(&self) -> Machine {
        MACHINE
    }

    fn page_size(&self) -> u64 {
        self.page_size
    }

    fn mach_vm_region(&self, addr: u64) -> SysResult<RegionInfo> {
        let (mut start, mut len) = (addr, 0);
        let mut info = vm_region_basic_info_64::default();
        let mut count = vm_region_basic_info_64::count();
        let mut object = 0;
        let info_at = (&raw mut info).cast::<i32>();
        // SAFETY: the kernel writes `count` words of `info`, which is that long, and the other
        // exclusively borrowed numbers.
        check(unsafe {
            vm::mach_vm_region(
                task(),
                &raw mut start,
                &raw mut len,
                VM_REGION_BASIC_INFO_64,
                info_at,
                &raw mut count,
                &raw mut object,
            )
        })?;
        Ok(RegionInfo {
            start,
            len,
            protection: info.protection,
            max_protection: info.max_protection,
        })
    }

    fn mach_vm_map(
        &self,
        addr: u64,
        len: u64,
        flags: i32,
        protection: i32,
        max_protection: i32,
        inheritance: u32,
    ) -> SysResult<u64> {
        let mut at = addr;
        // SAFETY: VM_FLAGS_OVERWRITE comes over the backend's own private pages only, whose holder
        // gave up what they held; else the kernel maps free address space only.
        check(unsafe {
            vm::mach_vm_map(
                task(),
                &raw mut at,
                len,
                0,
                flags,
                0,
                0,
                0,
                protection,
                max_protection,
                inheritance,
            )
        })?;
        Ok(expose(at))
    }

    fn mach_vm_remap(
        &self,
        addr: u64,
        len: u64,
        flags: i32,
        source: u64,
        inheritance: u32,
    ) -> SysResult<u64> {
        let (mut at, mut protection, mut maximum) = (addr, 0, 0);
        // SAFETY: the source is the backend's own; without VM_FLAGS_OVERWRITE the kernel maps free
        // address space only, and writes the exclusively borrowed numbers.
        check(unsafe {
            vm::mach_vm_remap(
                task(),
                &raw mut at,
                len,
                0,
                flags,
                task(),
                source,
                0,
                &raw mut protection,
                &raw mut maximum,
                inheritance,
            )
        })?;
        Ok(expose(at))
    }

    fn mach_vm_protect(
        &self,
        addr: u64,
        len: u64,
        set_maximum: bool,
        protection: i32,
    ) -> SysResult<()> {
        // SAFETY: the backend mapped the range; its owner asked for this access.
        check(unsafe { vm::mach_vm_protect(task(), addr, len, set_maximum.into(), protection) })
    }

    fn mach_vm_deallocate(&self, addr: u64, len: u64) -> SysResult<()> {
        // SAFETY: the backend mapped the range and its owner gave it up.
        check(unsafe { vm::mach_vm_deallocate(task(), addr, len) })
    }

    fn mmap_jit(&self, hint: u64, len: u64) -> SysResult<u64> {
        let prot = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_JIT;
        // SAFETY: without MAP_FIXED the kernel picks free address space only.
        let at = unsafe { libc::mmap(pointer(hint), to_usize(len), prot, flags, -1, 0) };
        if at != libc::MAP_FAILED {
            return Ok(to_u64(at.expose_provenance()));
        }
        let errno = std::io::Error::last_os_error().raw_os_error();
        Err(match errno {
            Some(libc::ENOMEM) => KernReturn::NO_SPACE,
            Some(libc::EINVAL) => KernReturn::INVALID_ARGUMENT,
            Some(libc::ENOTSUP) => KernReturn::NOT_SUPPORTED,
            Some(libc::EACCES | libc::EPERM) => KernReturn::PROTECTION_FAILURE,
            _ => KernReturn::FAILURE,
        })
    }

    fn jit_supported(&self) -> bool {
        // SAFETY: the call has no precondition.
        unsafe { libc::pthread_jit_write_protect_supported_np() != 0 }
    }

    fn jit_write_protect(&self, protected: bool) {
        // SAFETY: the backend calls it only where it is supported. What the thread executes or
        // writes in MAP_JIT memory afterwards is its own business.
        unsafe { libc::pthread_jit_write_protect_np(protected.into()) };
    }

    fn main_header(&self) -> (u64, Vec<u8>) {
        // SAFETY: image 0 is the main program; the call has no precondition.
        let header = unsafe { mach2::dyld::_dyld_get_image_header(0) };
        if header.is_null() {
            return (0, Vec::new());
        }
        let addr = to_u64(header.addr());
        // SAFETY: dyld's header of the main program stays mapped and unchanged.
        let commands = unsafe { (*header).sizeofcmds };
        let len = pagezero::HEADER + to_usize(commands.into());
        // SAFETY: the load commands follow the header, as many bytes as it says.
        let bytes = unsafe { std::slice::from_raw_parts(header.cast::<u8>(), len) };
        (addr, bytes.to_vec())
    }

    fn region_filename(&self, addr: u64) -> String {
        // SAFETY: getpid has no precondition.
        let pid = unsafe { libc::getpid() };
        let mut name = [0_u8; 1024];
        let room = u32::try_from(name.len()).expect("small");
        // SAFETY: the call writes at most `room` bytes into the exclusively borrowed buffer.
        let len = unsafe { libc::proc_regionfilename(pid, addr, name.as_mut_ptr().cast(), room) };
        let len = usize::try_from(len).unwrap_or(0).min(name.len());
        String::from_utf8_lossy(&name[..len]).into_owned()
    }

    fn getentropy(&self, buffer: &mut [u8]) -> SysResult<()> {
        // SAFETY: the call writes `len` bytes into the exclusively borrowed buffer.
        let result = unsafe { libc::getentropy(buffer.as_mut_ptr().cast(), buffer.len()) };
        if result == 0 {
            return Ok(());
        }
        let errno = std::io::Error::last_os_error().raw_os_error();
        Err(KernReturn(errno.unwrap_or(abi::KernReturn::FAILURE.0)))
    }

    fn process(&self) -> u64 {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            // SAFETY: the handler stores to an atomic and does nothing else. A refusal (no memory)
            // leaves the process id as the only difference, below.
            let _ = unsafe { libc::pthread_atfork(None, None, Some(forget_process)) };
        });
        let number = PROCESS.load(Ordering::Relaxed);
        let number = if number == 0 {
            new_process(self)
        } else {
            number
        };
        number ^ u64::from(std::process::id())
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

    fn icache_invalidate(&self, addr: u64, len: u64) {
        unsafe extern "C" {
            /// libkern/OSCacheControl.h
            fn sys_icache_invalidate(start: *mut c_void, len: usize);
        }
        // SAFETY: the range is mapped by the backend; the call changes no byte of it.
        unsafe { sys_icache_invalidate(pointer(addr), to_usize(len)) };
    }
}

/// Drawn at the first question in a process; 0 before.
static PROCESS: AtomicU64 = AtomicU64::new(0);

/// Runs in a child before any of its threads go on.
extern "C" fn forget_process() {
    PROCESS.store(0, Ordering::Relaxed);
}

/// Draws the number of a process that has none yet.
#[cold]
fn new_process(sys: &NativeSyscalls) -> u64 {
    let mut bytes = [0; 8];
    let drawn = match sys.getentropy(&mut bytes) {
        Ok(()) => u64::from_ne_bytes(bytes) | 1,
        Err(_) => 1,
    };
    match PROCESS.compare_exchange(0, drawn, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => drawn,
        Err(other_thread) => other_thread,
    }
}

#[cfg(target_arch = "aarch64")]
const MACHINE: Machine = Machine::Arm64;
#[cfg(not(target_arch = "aarch64"))]
const MACHINE: Machine = Machine::X86_64;

/// The numbers of `abi` are those that the crate mach2 has from the system's headers; checked
/// whenever this file is compiled.
const _: () = {
    let pairs = [
        (abi::VM_PROT_NONE, vm_prot::VM_PROT_NONE),
        (abi::VM_PROT_READ, vm_prot::VM_PROT_READ),
        (abi::VM_PROT_WRITE, vm_prot::VM_PROT_WRITE),
        (abi::VM_PROT_EXECUTE, vm_prot::VM_PROT_EXECUTE),
        (abi::VM_FLAGS_FIXED, vm_statistics::VM_FLAGS_FIXED),
        (abi::VM_FLAGS_ANYWHERE, vm_statistics::VM_FLAGS_ANYWHERE),
        (abi::VM_FLAGS_OVERWRITE, vm_statistics::VM_FLAGS_OVERWRITE),
        (
            KernReturn::INVALID_ADDRESS.0,
            kern_return::KERN_INVALID_ADDRESS,
        ),
        (
            KernReturn::PROTECTION_FAILURE.0,
            kern_return::KERN_PROTECTION_FAILURE,
        ),
        (KernReturn::NO_SPACE.0, kern_return::KERN_NO_SPACE),
        (
            KernReturn::INVALID_ARGUMENT.0,
            kern_return::KERN_INVALID_ARGUMENT,
        ),
        (KernReturn::FAILURE.0, kern_return::KERN_FAILURE),
        (
            KernReturn::RESOURCE_SHORTAGE.0,
            kern_return::KERN_RESOURCE_SHORTAGE,
        ),
        (KernReturn::NOT_SUPPORTED.0, kern_return::KERN_NOT_SUPPORTED),
    ];
    let mut at = 0;
    while at < pairs.len() {
        assert!(pairs[at].0 == pairs[at].1);
        at += 1;
    }
    assert!(abi::VM_INHERIT_COPY == vm_inherit::VM_INHERIT_COPY);
    assert!(abi::VM_INHERIT_NONE == vm_inherit::VM_INHERIT_NONE);
    // mach-o/loader.h's numbers are also those of the libc crate.
    #[allow(deprecated, reason = "mach2 has none of them")]
    {
        assert!(abi::MH_MAGIC_64 == libc::MH_MAGIC_64);
        assert!(abi::LC_SEGMENT_64 == libc::LC_SEGMENT_64);
    }
};
