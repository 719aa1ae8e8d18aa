//! Linux: a file in memory is opened by its path in /proc.

use std::ffi::CString;

use super::Visibility;
pub(crate) use super::elf::{LoadedObject, MemoryFile, each_object, environment, open, symbol};
pub(crate) use super::unix::{at_exit, close, default_signals, exit_calls};

impl MemoryFile {
    /// A path that names it while it is open, another one for every `serial`: dynamic linkers
    /// know loaded objects by the path as a string, and a descriptor's number returns. The bits
    /// of `serial` are written as `/` and `/.`, which name the same file.
    pub(crate) fn path(&self, serial: u64) -> String {
        let mut path = "/proc/self/fd".to_owned();
        let mut serial = serial;
        while serial != 0 {
            path.push_str(if serial & 1 == 1 { "/." } else { "/" });
            serial >>= 1;
        }
        path.push('/');
        path.push_str(&self.number().to_string());
        path
    }

    /// Loads it as a shared object.
    ///
    /// # Errors
    /// The dynamic linker's words.
    pub(crate) fn open(&self, serial: u64, visibility: Visibility) -> Result<usize, String> {
        open(&self.c_path(serial), visibility)
    }

    /// Whether it is loaded.
    pub(crate) fn is_open(&self, serial: u64) -> bool {
        let path = self.c_path(serial);
        // SAFETY: dlopen wants a NUL-terminated path; with RTLD_NOLOAD nothing is loaded.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        if !handle.is_null() {
            close(handle.expose_provenance());
        }
        !handle.is_null()
    }

    fn c_path(&self, serial: u64) -> CString {
        CString::new(self.path(serial)).expect("no NUL in it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_never_repeat_and_name_the_file() {
        let file = MemoryFile::new("low2g-test", b"carried").expect("memory");
        let mut seen = std::collections::HashSet::new();
        for serial in 0..300 {
            let path = file.path(serial);
            assert_eq!(std::fs::read(&path).expect("opens"), b"carried", "{path}");
            assert!(seen.insert(path));
        }
    }
}
