//! Linux and FreeBSD: symbol versions, `dl_iterate_phdr`, files in memory.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs::File;
use std::io::Write as _;
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _};
use std::sync::OnceLock;

use super::unix::{found_at, function, handle_of, unversioned};
use super::{Scope, Segment, SegmentKind, Visibility};

// Flags of program headers (gABI, chapter 5); the crate libc has them for Linux only.
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const PF_R: u32 = 4;

/// Whether the program was linked statically.
///
/// `dlopen` and `dlsym` of a static glibc then load a dynamic linker and a C library beside the
/// program's own, whose thread-local storage is not the threads'.
fn is_static() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let mut interpreted = false;
        each_object(&mut |object| {
            // The first is the program.
            let mut headers = object.headers().iter();
            interpreted = headers.any(|header| header.p_type == libc::PT_INTERP);
            ControlFlow::Break(())
        });
        !interpreted
    })
}

/// Opens a library: its handle, as a number. Runs its constructors.
///
/// # Errors
/// The dynamic linker's words, or that there is none.
pub(crate) fn open(path: &CStr, visibility: Visibility) -> Result<usize, String> {
    dynamic()?;
    super::unix::open(path, visibility)
}

/// # Errors
/// There is no dynamic linker.
pub(super) fn dynamic() -> Result<(), String> {
    if is_static() {
        Err("a program linked statically cannot open shared objects".to_owned())
    } else {
        Ok(())
    }
}

/// The address of `name`, of its version `version` if one is given.
pub(crate) fn symbol(scope: Scope, name: &CStr, version: Option<&CStr>) -> Option<u64> {
    if is_static() {
        return None;
    }
    let Some(version) = version else {
        return unversioned(scope, name);
    };
    // musl has no versions and not this function.
    static FOUND: OnceLock<Option<Dlvsym>> = OnceLock::new();
    // SAFETY: where it is there it has this signature (dlvsym(3)).
    let dlvsym = (*FOUND.get_or_init(|| unsafe { function(c"dlvsym") }))?;
    // SAFETY: the handle came from dlopen and was never closed, or is RTLD_DEFAULT; both
    // strings end in NUL.
    found_at(unsafe { dlvsym(handle_of(scope), name.as_ptr(), version.as_ptr()) })
}

type Dlvsym = unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char) -> *mut c_void;

#[cfg(target_pointer_width = "64")]
type ProgramHeader = libc::Elf64_Phdr;
#[cfg(target_pointer_width = "32")]
type ProgramHeader = libc::Elf32_Phdr;

/// An object that the dynamic linker has loaded, while it holds its list.
#[derive(Debug)]
pub(crate) struct LoadedObject<'a> {
    info: *const libc::dl_phdr_info,
    held: PhantomData<&'a ()>,
}

impl LoadedObject<'_> {
    fn info(&self) -> &libc::dl_phdr_info {
        // SAFETY: the dynamic linker passed a valid info, for as long as this lives.
        unsafe { &*self.info }
    }

    /// What its addresses are relative to.
    pub(crate) fn base(&self) -> u64 {
        self.info().dlpi_addr
    }

    /// How many objects had been loaded and unloaded.
    pub(crate) fn generation(&self) -> (u64, u64) {
        (self.info().dlpi_adds, self.info().dlpi_subs)
    }

    /// Its program headers.
    pub(crate) fn headers(&self) -> &[ProgramHeader] {
        let info = self.info();
        let count = usize::from(info.dlpi_phnum);
        // SAFETY: dlpi_phdr points at dlpi_phnum program headers.
        unsafe { std::slice::from_raw_parts(info.dlpi_phdr, count) }
    }

    /// Its segments of the kinds known here.
    pub(crate) fn segments(&self) -> impl Iterator<Item = Segment> {
        let info = self.info();
        self.headers().iter().filter_map(|header| {
            let kind = match header.p_type {
                libc::PT_LOAD if header.p_flags & PF_R != 0 => SegmentKind::Load,
                libc::PT_GNU_RELRO => SegmentKind::Relro,
                libc::PT_DYNAMIC => SegmentKind::Dynamic,
                _ => return None,
            };
            Some(Segment {
                kind,
                start: info.dlpi_addr.wrapping_add(header.p_vaddr),
                len: header.p_memsz,
                writable: header.p_flags & PF_W != 0,
                executable: header.p_flags & PF_X != 0,
            })
        })
    }
}

/// Shows `visit` every loaded object, until it breaks. None can go meanwhile.
pub(crate) fn each_object(visit: &mut Visit<'_>) {
    let mut visit = visit;
    // SAFETY: the callback takes `data` for the &mut &mut Visit that it is, and only during the
    // call.
    unsafe { libc::dl_iterate_phdr(Some(visit_one), (&raw mut visit).cast()) };
}

type Visit<'v> = dyn FnMut(&LoadedObject<'_>) -> ControlFlow<()> + 'v;

unsafe extern "C" fn visit_one(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    data: *mut c_void,
) -> c_int {
    // SAFETY: `each_object` passed a &mut &mut Visit and does not touch it meanwhile.
    let visit = unsafe { &mut *data.cast::<&mut Visit<'_>>() };
    let object = LoadedObject {
        info,
        held: PhantomData,
    };
    c_int::from(visit(&object).is_break())
}

/// A file in memory. `open` and `is_open` are the system's own.
#[derive(Debug)]
pub(crate) struct MemoryFile {
    pub(super) file: File,
}

impl MemoryFile {
    /// A file of `contents`. `name` is for people.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn new(name: &str, contents: &[u8]) -> std::io::Result<Self> {
        let name = CString::new(name)?;
        // SAFETY: memfd_create wants a NUL-terminated name.
        let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made, and is nobody else's.
        let mut file = unsafe { File::from_raw_fd(fd) };
        file.write_all(contents)?;
        Ok(Self { file })
    }

    /// Its descriptor.
    pub(super) fn number(&self) -> c_int {
        self.file.as_raw_fd()
    }

    /// Leaves it open for ever.
    pub(crate) fn keep(self) {
        let _kept_open = self.file.into_raw_fd();
    }
}

/// The process's environment, as C sees it.
pub(crate) fn environment() -> *const *const c_char {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    // SAFETY: `environ` is the C library's, always initialised before Rust's main.
    unsafe { environ }
}
