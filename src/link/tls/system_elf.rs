//! Thread pointer, the program's block and descriptors, on x86-64 systems with an ELF dynamic
//! linker (psABI, "Thread-Local Storage").

use std::ffi::c_void;
use std::ops::ControlFlow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use low2g_platform::{align_up, to_u64, to_usize};

use crate::link::host::{self, LoadedObject, Scope};

const PF_W: u32 = 2;

/// Arguments of `__tls_get_addr` (psABI).
#[repr(C)]
pub(super) struct Index {
    pub(super) module: u64,
    pub(super) offset: u64,
}

/// `__tls_get_addr`.
pub(super) type GetAddr = unsafe extern "C" fn(*const Index) -> *mut c_void;

/// The dynamic linker's; in a program without one, where module 1 is all there is, our own.
pub(super) fn get_addr() -> Option<GetAddr> {
    static FOUND: OnceLock<Option<GetAddr>> = OnceLock::new();
    *FOUND.get_or_init(find_get_addr)
}

fn find_get_addr() -> Option<GetAddr> {
    let Some(theirs) = host::symbol(Scope::Process, c"__tls_get_addr", None) else {
        let depth = ProgramBlock::find()?.depth()?;
        PROGRAM_DEPTH.store(depth, Ordering::Relaxed);
        return Some(program_get_addr);
    };
    let theirs = std::ptr::with_exposed_provenance::<()>(to_usize(theirs));
    // SAFETY: a function pointer needs the address of such a function: psABI and the systems'
    // interfaces fix that of `__tls_get_addr`.
    Some(unsafe { std::mem::transmute::<*const (), GetAddr>(theirs) })
}

/// From the start of the program's block to the thread pointer, bytes. A number that is stored
/// before code that reads it is made.
static PROGRAM_DEPTH: AtomicU64 = AtomicU64::new(0);

/// `__tls_get_addr` of the program's own block. Keeps what a compiler might wrongly expect to be
/// kept, as the dynamic linker's does.
#[unsafe(naked)]
unsafe extern "C" fn program_get_addr(_index: *const Index) -> *mut c_void {
    std::arch::naked_asm!(
        "mov rax, fs:[0]",
        "sub rax, [rip + {depth}]",
        "add rax, [rdi + 8]",
        "ret",
        depth = sym PROGRAM_DEPTH,
    )
}

/// The calling thread's thread pointer.
pub(super) fn thread_pointer() -> Option<usize> {
    let pointer: usize;
    // SAFETY: reads the word at the thread pointer, which holds its own address (psABI).
    unsafe {
        std::arch::asm!("mov {}, fs:[0]", out(reg) pointer, options(nostack, preserves_flags, readonly));
    }
    Some(pointer)
}

/// Address of the resolver of static variables' descriptors: the argument is the offset from
/// the thread pointer.
pub(super) fn resolver_of_static() -> u64 {
    to_u64((resolve_static as *const ()).expose_provenance())
}

/// The descriptor's address comes in %rax, the offset goes out in it; all else is kept.
#[unsafe(naked)]
extern "C" fn resolve_static() {
    std::arch::naked_asm!("mov rax, [rax + 8]", "ret")
}

/// Makes the pages of the program's initial values writable, or readable alone again.
///
/// # Errors
/// The system's code.
pub(super) fn protect(addr: usize, len: usize, writable: bool) -> Result<(), i32> {
    // SAFETY: sysconf has no precondition.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let page = usize::try_from(page).unwrap_or(4096);
    let start = addr & !(page - 1);
    let len = (addr + len).next_multiple_of(page) - start;
    let start = std::ptr::with_exposed_provenance_mut::<c_void>(start);
    let write = if writable { libc::PROT_WRITE } else { 0 };
    // SAFETY: the pages hold the program's initial values, and what else is write-protected
    // after relocation; they stay readable.
    if unsafe { libc::mprotect(start, len, libc::PROT_READ | write) } == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }
}

/// The program's thread-local block.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProgramBlock {
    /// Address of the initial values, and bytes of them.
    pub(super) image: u64,
    pub(super) image_size: u64,
    /// Bytes of the block.
    pub(super) size: u64,
    pub(super) align: u64,
    /// The image's address modulo the alignment, which the copies keep.
    pub(super) first: u64,
    /// The image is write-protected.
    pub(super) protected: bool,
}

impl ProgramBlock {
    /// `None` if the program has none.
    pub(super) fn find() -> Option<Self> {
        let mut found = None;
        host::each_object(&mut |program| {
            // The first is the program.
            found = Self::of(program);
            ControlFlow::Break(())
        });
        found
    }

    fn of(program: &LoadedObject<'_>) -> Option<Self> {
        let headers = program.headers();
        let tls = headers
            .iter()
            .find(|header| header.p_type == libc::PT_TLS)?;
        let protected = headers.iter().any(|header| {
            let holds = (header.p_vaddr..header.p_vaddr + header.p_memsz).contains(&tls.p_vaddr);
            let read_only = header.p_type == libc::PT_GNU_RELRO
                || header.p_type == libc::PT_LOAD && header.p_flags & PF_W == 0;
            holds && read_only
        });
        let align = tls.p_align.max(1);
        Some(Self {
            image: program.base().wrapping_add(tls.p_vaddr),
            image_size: tls.p_filesz,
            size: tls.p_memsz,
            align,
            first: tls.p_vaddr & (align - 1),
            protected,
        })
    }

    /// Bytes from its start to the thread pointer.
    ///
    /// glibc, elf/dl-tls.c: the block ends at the thread pointer, its size rounded up so that its
    /// start has the image's remainder.
    pub(super) fn depth(&self) -> Option<u64> {
        Some(align_up(self.size.checked_add(self.first)?, self.align)? - self.first)
    }
}
