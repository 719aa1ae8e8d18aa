//! Linux: a file in memory is opened by its path in /proc.

use std::ffi::CString;

use low2g_platform::to_u64;

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

/// Functions that the program has from the C library though the dynamic linker may not know them:
/// glibc before 2.33 keeps them in libc_nonshared.a, and objects name them as any other.
pub(crate) fn linked(name: &str) -> Option<u64> {
    let function = match name {
        "stat" => libc::stat as *const (),
        "fstat" => libc::fstat as *const (),
        "lstat" => libc::lstat as *const (),
        "fstatat" => libc::fstatat as *const (),
        "stat64" => libc::stat64 as *const (),
        "fstat64" => libc::fstat64 as *const (),
        "lstat64" => libc::lstat64 as *const (),
        "fstatat64" => libc::fstatat64 as *const (),
        "mknod" => libc::mknod as *const (),
        "mknodat" => libc::mknodat as *const (),
        _ => return None,
    };
    Some(to_u64(function.expose_provenance()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Called through the address, since a program may name a stub of its own for it.
    #[test]
    fn functions_of_the_static_part_work() {
        type Stat = unsafe extern "C" fn(*const libc::c_char, *mut libc::stat) -> libc::c_int;
        for name in ["stat", "lstat", "stat64", "lstat64"] {
            let addr = linked(name).expect("is one of them");
            let addr = std::ptr::with_exposed_provenance::<()>(low2g_platform::to_usize(addr));
            // SAFETY: POSIX gives them this signature; the 64-bit ones have the same record here.
            let stat = unsafe { std::mem::transmute::<*const (), Stat>(addr) };
            let mut found = std::mem::MaybeUninit::<libc::stat>::zeroed();
            // SAFETY: the path ends in NUL, the record is writable.
            let failed = unsafe { stat(c"/".as_ptr(), found.as_mut_ptr()) };
            assert_eq!(failed, 0, "{name}");
            // SAFETY: the call filled it; all zeros would be valid as well.
            let found = unsafe { found.assume_init() };
            assert_eq!(found.st_mode & libc::S_IFMT, libc::S_IFDIR, "{name}");
        }
        assert_eq!(linked("printf"), None);
    }

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
