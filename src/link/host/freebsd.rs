//! FreeBSD: a file in memory is opened by its descriptor; fdescfs need not be mounted.

use std::ffi::{c_int, c_void};
use std::fs::File;

use parking_lot::Mutex;

use super::Visibility;
pub(crate) use super::elf::{LoadedObject, MemoryFile, each_object, environment, open, symbol};
pub(crate) use super::unix::{at_exit, default_signals, exit_calls};
use super::unix::{open_flags, opened};

unsafe extern "C" {
    /// dlopen(3); the dynamic linker tells objects apart by device and inode.
    fn fdlopen(fd: c_int, mode: c_int) -> *mut c_void;
}

/// The files of loaded objects, by handle: a closed file's inode number returns, and the
/// dynamic linker would give the object loaded from the earlier one.
static LOADED: Mutex<Vec<(usize, File)>> = Mutex::new(Vec::new());

/// Closes a handle of [`open`], once.
pub(crate) fn close(handle: usize) {
    super::unix::close(handle);
    let mut loaded = LOADED.lock();
    if let Some(index) = loaded.iter().position(|(known, _)| *known == handle) {
        loaded.swap_remove(index);
    }
}

impl MemoryFile {
    /// How the dynamic linker's messages and ours name it.
    pub(crate) fn path(&self, _serial: u64) -> String {
        format!("/dev/fd/{}", self.number())
    }

    /// Loads it as a shared object.
    ///
    /// # Errors
    /// The dynamic linker's words.
    pub(crate) fn open(&self, _serial: u64, visibility: Visibility) -> Result<usize, String> {
        super::elf::dynamic()?;
        // SAFETY: the descriptor is open. The object has no constructors.
        let handle = opened(unsafe { fdlopen(self.number(), open_flags(visibility)) })?;
        match self.file.try_clone() {
            Ok(file) => {
                LOADED.lock().push((handle, file));
                Ok(handle)
            }
            Err(error) => {
                super::unix::close(handle);
                Err(format!("the descriptor cannot be kept: {error}"))
            }
        }
    }

    /// Whether it is loaded.
    pub(crate) fn is_open(&self, _serial: u64) -> bool {
        // SAFETY: the descriptor is open; with RTLD_NOLOAD nothing is loaded.
        let handle = unsafe { fdlopen(self.number(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        if !handle.is_null() {
            close(handle.expose_provenance());
        }
        !handle.is_null()
    }
}

/// Every function of the C library is one that the dynamic linker finds.
pub(crate) fn linked(_name: &str) -> Option<u64> {
    None
}
