//! Rust below 2 GiB: an object of rustc's against the shared standard library, and a static
//! library with all of the standard library in it. Panics unwind as in the native program.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::build;
use support::command::{assert_same, low2g_on, run};
use support::{input, require, seed};

fn rustc() -> Command {
    Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

/// Compiles the program as `kind` into cargo's folder for tests.
fn compile(kind: &[&str], out: &str) -> PathBuf {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(out);
    let finished = run(
        rustc()
            .args(["--edition", "2024", "-O", "-C", "panic=unwind"])
            .args(["-C", "relocation-model=static"])
            .args(kind)
            .arg("-o")
            .arg(&out)
            .arg(input("rust/panics.rs")),
        b"",
    );
    let message = String::from_utf8_lossy(&finished.stderr).into_owned();
    assert!(finished.status.success(), "{message}");
    out
}

/// The shared standard library that the compiler comes with.
fn shared_std() -> Result<PathBuf, String> {
    let folder = run(rustc().args(["--print", "target-libdir"]), b"");
    let folder = String::from_utf8_lossy(&folder.stdout).trim().to_owned();
    let entries = std::fs::read_dir(&folder).map_err(|error| format!("{folder}: {error}"))?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("libstd-") && name.ends_with(".so")
        })
        .ok_or_else(|| format!("no shared standard library in {folder}"))
}

fn native(name: &str, file: &Path, more: &[OsString]) -> Command {
    let flags: Vec<&str> = more.iter().filter_map(|flag| flag.to_str()).collect();
    Command::new(build::program(name, &[file.to_owned()], &flags))
}

#[test]
fn an_object_unwinds_against_the_shared_standard_library() {
    let Some(library) = require(shared_std()) else {
        return;
    };
    let object = compile(&["--crate-type", "lib", "--emit", "obj"], "panics.o");
    let mut path = OsString::from("-Wl,-rpath,");
    path.push(library.parent().expect("in a folder"));
    let more = [path, library.clone().into_os_string()];
    let native = run(&mut native("panics_shared", &object, &more), b"");
    let library = library.to_string_lossy().into_owned();
    let seed = seed();
    let mut low2g = low2g_on("run", seed, &[&library], [object.as_path()]);
    let loaded = run(&mut low2g, b"");
    assert_same(&format!("panics.o, seed {seed}"), &native, &loaded);
    assert_eq!(loaded.status.code(), Some(7));
}

#[test]
fn a_static_library_brings_its_own_standard_library() {
    let archive = compile(&["--crate-type", "staticlib"], "libpanics.a");
    let more = ["-Wl,-u,main", "-lpthread", "-ldl", "-lm"].map(OsString::from);
    let native = run(&mut native("panics_static", &archive, &more), b"");
    let seed = seed();
    let loaded = run(&mut low2g_on("run", seed, &[], [archive.as_path()]), b"");
    assert_same(&format!("libpanics.a, seed {seed}"), &native, &loaded);
    assert_eq!(loaded.status.code(), Some(7));
}
