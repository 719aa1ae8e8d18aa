//! Windows: `LoadLibrary`, `GetProcAddress` over all modules, sections of PE images.

use std::ffi::{CStr, c_char};
use std::marker::PhantomData;
use std::ops::ControlFlow;

use low2g_platform::{to_u64, to_usize};
use windows_sys::Win32::Foundation::{FreeLibrary, HMODULE};
use windows_sys::Win32::System::Diagnostics::Debug::{
    IMAGE_NT_HEADERS64, IMAGE_SCN_MEM_EXECUTE, IMAGE_SCN_MEM_READ, IMAGE_SCN_MEM_WRITE,
    IMAGE_SECTION_HEADER,
};
use windows_sys::Win32::System::LibraryLoader::{
    GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS, GetModuleHandleExW, GetProcAddress, LoadLibraryW,
};
use windows_sys::Win32::System::ProcessStatus::K32EnumProcessModules;
use windows_sys::Win32::System::SystemServices::IMAGE_DOS_HEADER;
use windows_sys::Win32::System::Threading::GetCurrentProcess;

use super::{ExitCalls, Scope, Segment, SegmentKind, Visibility};

/// Opens a library: its handle, as a number. Runs its `DllMain`. All symbols are visible to
/// who asks all modules, whatever `visibility` says.
///
/// # Errors
/// The system's words.
pub(crate) fn open(path: &CStr, _visibility: Visibility) -> Result<usize, String> {
    let path = path
        .to_str()
        .map_err(|_| "the name is not UTF-8".to_owned())?;
    let wide: Vec<u16> = path.encode_utf16().chain([0]).collect();
    // SAFETY: LoadLibraryW wants a NUL-terminated name. Running the library's `DllMain` is what
    // the caller asked for.
    let handle = unsafe { LoadLibraryW(wide.as_ptr()) };
    if handle.is_null() {
        return Err(std::io::Error::last_os_error().to_string());
    }
    Ok(handle.expose_provenance())
}

/// Closes a handle of [`open`], once.
pub(crate) fn close(handle: usize) {
    // SAFETY: the handle came from LoadLibraryW and is closed once.
    let done = unsafe { FreeLibrary(std::ptr::with_exposed_provenance_mut(handle)) };
    debug_assert_ne!(done, 0, "an open handle can be closed");
}

/// The address of `name`; versions do not exist here, so one that is asked for is not found.
pub(crate) fn symbol(scope: Scope, name: &CStr, version: Option<&CStr>) -> Option<u64> {
    if version.is_some() {
        return None;
    }
    match scope {
        Scope::Library(handle) => exported(std::ptr::with_exposed_provenance_mut(handle), name),
        Scope::Process => modules()
            .iter()
            .find_map(|module| exported(module.handle, name)),
    }
}

fn exported(module: HMODULE, name: &CStr) -> Option<u64> {
    // SAFETY: the module is held by the caller; the name ends in NUL.
    let found = unsafe { GetProcAddress(module, name.as_ptr().cast()) };
    found.map(|function| to_u64((function as *const ()).expose_provenance()))
}

/// A module that cannot be unloaded while this lives.
#[derive(Debug)]
struct Held {
    handle: HMODULE,
}

impl Held {
    /// Holds the module at `start`, if one is there still.
    fn new(start: HMODULE) -> Option<Self> {
        let mut handle = std::ptr::null_mut();
        let by_address = GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS;
        // SAFETY: with this flag the name is an address, which is only compared.
        let found = unsafe { GetModuleHandleExW(by_address, start.cast(), &raw mut handle) };
        (found != 0).then_some(Self { handle })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: the reference was taken by `new`, and is given back once.
        unsafe { FreeLibrary(self.handle) };
    }
}

/// All modules of the process, the program first.
fn modules() -> Vec<Held> {
    let mut handles: Vec<HMODULE> = vec![std::ptr::null_mut(); 256];
    loop {
        let size = size_of::<HMODULE>();
        let room = u32::try_from(handles.len() * size).unwrap_or(u32::MAX);
        let mut needed = 0;
        // SAFETY: no precondition; the handle is a constant.
        let process = unsafe { GetCurrentProcess() };
        // SAFETY: the buffer has `room` bytes and is exclusively borrowed.
        let done =
            unsafe { K32EnumProcessModules(process, handles.as_mut_ptr(), room, &raw mut needed) };
        if done == 0 {
            return Vec::new();
        }
        let count = to_usize(u64::from(needed)) / size;
        if count <= handles.len() {
            handles.truncate(count);
            return handles.into_iter().filter_map(Held::new).collect();
        }
        handles.resize(count + 16, std::ptr::null_mut());
    }
}

/// A loaded module.
#[derive(Debug)]
pub(crate) struct LoadedObject<'a> {
    base: u64,
    /// Sum of all modules' addresses: differs once modules came or went.
    generation: (u64, u64),
    held: PhantomData<&'a ()>,
}

impl LoadedObject<'_> {
    /// What its addresses are relative to.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Changes when modules come or go.
    pub(crate) fn generation(&self) -> (u64, u64) {
        self.generation
    }

    /// Its sections that can be read.
    pub(crate) fn segments(&self) -> impl Iterator<Item = Segment> {
        let at = |offset: usize| to_usize(self.base) + offset;
        let dos = std::ptr::with_exposed_provenance::<IMAGE_DOS_HEADER>(at(0));
        // SAFETY: a module starts with this header, mapped as long as the module is held.
        let offset = usize::try_from(unsafe { (*dos).e_lfanew }).unwrap_or(0);
        let nt = std::ptr::with_exposed_provenance::<IMAGE_NT_HEADERS64>(at(offset));
        // SAFETY: the loader took the module, so its headers are where the first one says.
        let file = unsafe { (*nt).FileHeader };
        let optional = std::mem::offset_of!(IMAGE_NT_HEADERS64, OptionalHeader);
        let first = at(offset + optional + usize::from(file.SizeOfOptionalHeader));
        let first = std::ptr::with_exposed_provenance::<IMAGE_SECTION_HEADER>(first);
        let base = self.base;
        (0..usize::from(file.NumberOfSections)).filter_map(move |index| {
            let section = first.wrapping_add(index);
            // SAFETY: so many section headers follow the optional header.
            let section = unsafe { section.read_unaligned() };
            // SAFETY: both fields of the union are numbers of this size.
            let len = unsafe { section.Misc.VirtualSize };
            let has = |flag| section.Characteristics & flag != 0;
            has(IMAGE_SCN_MEM_READ).then_some(Segment {
                kind: SegmentKind::Load,
                start: base + u64::from(section.VirtualAddress),
                len: u64::from(len),
                writable: has(IMAGE_SCN_MEM_WRITE),
                executable: has(IMAGE_SCN_MEM_EXECUTE),
            })
        })
    }
}

type Visit<'v> = dyn FnMut(&LoadedObject<'_>) -> ControlFlow<()> + 'v;

/// Shows `visit` every loaded module, until it breaks. None can go meanwhile.
pub(crate) fn each_object(visit: &mut Visit<'_>) {
    let modules = modules();
    let bases = modules
        .iter()
        .map(|module| to_u64(module.handle.expose_provenance()));
    let sum = bases.clone().fold(0_u64, u64::wrapping_add);
    for base in bases {
        let object = LoadedObject {
            base,
            generation: (to_u64(modules.len()), sum),
            held: PhantomData,
        };
        if visit(&object).is_break() {
            return;
        }
    }
}

/// Has `handler` called when the process exits. `false` if there is no room.
pub(crate) fn at_exit(handler: extern "C" fn()) -> bool {
    // SAFETY: `handler` is a function without arguments that never unwinds.
    unsafe { libc::atexit(handler) == 0 }
}

/// The C runtime registers handlers for the whole process only.
pub(crate) fn exit_calls() -> &'static ExitCalls {
    static NONE: ExitCalls = ExitCalls {
        register: None,
        finalize: None,
        register_quick: None,
        register_fork: None,
    };
    &NONE
}

/// The process's environment, as C sees it: `_environ` of the C library that is loaded, `msvcrt.dll`
/// or the universal one, which has a function for it.
pub(crate) fn environment() -> *const *const c_char {
    struct Nothing([*const c_char; 1]);
    // SAFETY: the one pointer is null and never changes.
    unsafe impl Sync for Nothing {}
    static NOTHING: Nothing = Nothing([std::ptr::null()]);
    let list = variable().filter(|list| !list.is_null());
    list.unwrap_or(NOTHING.0.as_ptr())
}

fn variable() -> Option<*const *const c_char> {
    type Variable = *const *const *const c_char;
    if let Some(addr) = symbol(Scope::Process, c"_environ", None) {
        let variable: Variable = std::ptr::with_exposed_provenance(to_usize(addr));
        // SAFETY: a C library's variable of this name is such a pointer, and stays.
        return Some(unsafe { variable.read() });
    }
    let addr = symbol(Scope::Process, c"__p__environ", None)?;
    let function = std::ptr::with_exposed_provenance::<()>(to_usize(addr));
    // SAFETY: the universal C library declares the function of this name so.
    let function =
        unsafe { std::mem::transmute::<*const (), unsafe extern "C" fn() -> Variable>(function) };
    // SAFETY: it has no precondition.
    let variable = unsafe { function() };
    // SAFETY: it points at the C library's variable, which stays.
    Some(unsafe { variable.read() })
}

/// Windows has no signals that Rust's runtime takes.
pub(crate) fn default_signals() {}

/// This system's dynamic linker takes no ELF objects: there is never one of these.
#[derive(Debug)]
pub(crate) enum MemoryFile {}

impl MemoryFile {
    /// # Errors
    /// Always.
    pub(crate) fn new(_name: &str, _contents: &[u8]) -> std::io::Result<Self> {
        Err(std::io::Error::new(
            std::io::ErrorKind::Unsupported,
            "the dynamic linker of Windows loads no ELF objects",
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
