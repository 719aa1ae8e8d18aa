//! macOS: dyld's images instead of `dl_iterate_phdr`; no symbol versions, no ELF objects.

use std::ffi::{CStr, c_char};
use std::marker::PhantomData;
use std::ops::ControlFlow;

use low2g_platform::to_u64;
use mach2::dyld::{_dyld_get_image_header, _dyld_get_image_vmaddr_slide, _dyld_image_count};
use mach2::loader::mach_header;

pub(crate) use super::unix::{at_exit, close, default_signals, exit_calls, open};
use super::{Scope, Segment, SegmentKind, Visibility};

/// The address of `name`; versions do not exist here, so one that is asked for is not found.
pub(crate) fn symbol(scope: Scope, name: &CStr, version: Option<&CStr>) -> Option<u64> {
    if version.is_some() {
        return None;
    }
    super::unix::unversioned(scope, name)
}

/// The process's environment, as C sees it.
pub(crate) fn environment() -> *const *const c_char {
    unsafe extern "C" {
        fn _NSGetEnviron() -> *const *const *const c_char;
    }
    // SAFETY: crt_externs.h: no precondition.
    let environ = unsafe { _NSGetEnviron() };
    // SAFETY: it points at the C library's `environ`.
    unsafe { environ.read() }
}

/// Bytes of `mach_header_64` (mach-o/loader.h): `mach_header` and a reserved word.
const HEADER_SIZE: usize = size_of::<mach_header>() + 4;

/// An image that dyld has loaded.
#[derive(Debug)]
pub(crate) struct LoadedObject<'a> {
    header: *const mach_header,
    slide: u64,
    count: u32,
    held: PhantomData<&'a ()>,
}

impl LoadedObject<'_> {
    /// What its addresses are relative to.
    pub(crate) fn base(&self) -> u64 {
        self.slide
    }

    /// Changes when images come or go.
    pub(crate) fn generation(&self) -> (u64, u64) {
        (u64::from(self.count), 0)
    }

    /// Its segments (`LC_SEGMENT_64`).
    pub(crate) fn segments(&self) -> impl Iterator<Item = Segment> {
        // SAFETY: dyld keeps the image's header mapped while it is loaded.
        let commands = unsafe { (*self.header).ncmds };
        let first = self.header.wrapping_byte_add(HEADER_SIZE);
        let mut at = first.cast::<libc::load_command>();
        (0..commands).filter_map(move |_| {
            let here = at;
            // SAFETY: `ncmds` load commands follow the header, each as long as it says.
            let command = unsafe { here.read_unaligned() };
            at = here.wrapping_byte_add(usize::try_from(command.cmdsize).unwrap_or(0));
            if command.cmd != libc::LC_SEGMENT_64 {
                return None;
            }
            // SAFETY: a command of this kind is a segment_command_64.
            let segment = unsafe { here.cast::<libc::segment_command_64>().read_unaligned() };
            (segment.initprot & libc::VM_PROT_READ != 0).then_some(Segment {
                kind: SegmentKind::Load,
                start: segment.vmaddr.wrapping_add(self.slide),
                len: segment.vmsize,
                writable: segment.initprot & libc::VM_PROT_WRITE != 0,
                executable: segment.initprot & libc::VM_PROT_EXECUTE != 0,
            })
        })
    }
}

type Visit<'v> = dyn FnMut(&LoadedObject<'_>) -> ControlFlow<()> + 'v;

/// Shows `visit` every loaded image, until it breaks.
pub(crate) fn each_object(visit: &mut Visit<'_>) {
    // SAFETY: no precondition.
    let count = unsafe { _dyld_image_count() };
    for index in 0..count {
        // SAFETY: no precondition: null for an index that is gone.
        let header = unsafe { _dyld_get_image_header(index) };
        if header.is_null() {
            continue;
        }
        // SAFETY: no precondition: 0 for an index that is gone.
        let slide = unsafe { _dyld_get_image_vmaddr_slide(index) };
        let object = LoadedObject {
            header,
            slide: to_u64(slide.cast_unsigned()),
            count,
            held: PhantomData,
        };
        if visit(&object).is_break() {
            return;
        }
    }
}

/// This system's dynamic linker takes no ELF objects: there is never one of these.
#[derive(Debug)]
pub(crate) enum MemoryFile {}

impl MemoryFile {
    /// # Errors
    /// Always.
    pub(crate) fn new(_name: &str, _contents: &[u8]) -> std::io::Result<Self> {
        Err(std::io::Error::new(
            std::io::ErrorKind::Unsupported,
            "the dynamic linker of macOS loads no ELF objects",
        ))
    }

    pub(crate) fn path(&self, _serial: u64) -> String {
        match *self {}
    }

    pub(crate) fn open(&self, _serial: u64, _visibility: Visibility) -> Result<usize, String> {
        match *self {}
    }

    pub(crate) fn is_open(&self, _serial: u64) -> bool {
        match *self {}
    }

    pub(crate) fn keep(self) {
        match self {}
    }
}

/// Every function of the C library is one that the dynamic linker finds.
pub(crate) fn linked(_name: &str) -> Option<u64> {
    None
}
