//! The process's libraries come and go between links; their symbol tables must not be read
//! once they are gone.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod battery;

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use battery::tool::{Folder, succeed};
use low2g::link::{ExternalKind, ProcessSymbols, SymbolResolver as _};

fn library(folder: &Folder, name: &str, source: &str) -> PathBuf {
    let (c, so) = (
        folder.write(&format!("{name}.c"), source),
        folder.path(name),
    );
    let mut command = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    succeed(command.args(["-shared", "-fPIC", "-o"]).arg(&so).arg(&c));
    so
}

fn open(path: &Path) -> *mut libc::c_void {
    let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL in it");
    // SAFETY: the path ends in NUL, and the library has no constructors.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    assert!(!handle.is_null(), "dlopen");
    handle
}

#[test]
fn tables_of_a_closed_library_are_not_read() {
    let folder = Folder::new();
    let gone = open(&library(&folder, "libgone.so", "int review_gone[3] = {1};"));
    let stays = open(&library(
        &folder,
        "libstays.so",
        "__thread int review_thread; int review_stays[5] = {1}; int review_call(void) { return 1; }",
    ));
    let process = ProcessSymbols::new();
    let found = process.resolve("review_stays").expect("loaded");
    assert_eq!((found.kind, found.size), (ExternalKind::Data, 20));
    // Found symbols keep their library loaded (glibc); this one was never asked for.
    // SAFETY: the handle is open, and nothing was linked to the library.
    assert_eq!(unsafe { libc::dlclose(gone) }, 0);
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc is there");
    assert!(!maps.contains("libgone.so"), "it is gone for real");
    // These searches pass where the closed library stood in the list.
    let found = process.resolve("review_call").expect("loaded");
    assert_eq!(found.kind, ExternalKind::Function);
    assert_eq!(process.resolve_thread_local("review_no_such_name"), None);
    let found = process.resolve_thread_local("review_thread");
    assert_eq!(found.expect("loaded").kind, ExternalKind::Tls);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::dlclose(stays) }, 0);
}
