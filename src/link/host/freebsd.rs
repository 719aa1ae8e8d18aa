//! FreeBSD: a file in memory is opened by its descriptor; fdescfs need not be mounted.

use std::ffi::{c_int, c_void};

use super::Visibility;
pub(crate) use super::elf::{LoadedObject, MemoryFile, each_object, environment, symbol};
pub(crate) use super::unix::{at_exit, close, default_signals, exit_calls, open};
use super::unix::{open_flags, opened};

unsafe extern "C" {
    /// dlopen(3); the dynamic linker tells objects apart by device and inode.
    fn fdlopen(fd: c_int, mode: c_int) -> *mut c_void;
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
        // SAFETY: the descriptor is open. The object has no constructors.
        opened(unsafe { fdlopen(self.number(), open_flags(visibility)) })
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
