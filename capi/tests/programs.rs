//! The C API from C and C++: programs of tests/capi, built by the system's compilers against the
//! header and both libraries, run plainly and under valgrind.

#![cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;

use std::process::Command;

use support::{Library, build, object, program, require, succeed, under_valgrind};

/// Builds and runs a program with both libraries, its objects as arguments, and of several an archive
/// with the last.
fn run(compiler: &str, source: &str, objects: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut objects: Vec<_> = objects
        .iter()
        .map(|source| object(source, folder.path()))
        .collect();
    if let Some(last) = objects.last().filter(|_| objects.len() > 1) {
        let archive = folder.path().join("lib.a");
        succeed(Command::new("ar").arg("rcs").arg(&archive).arg(last));
        objects.push(archive);
    }
    for library in Library::BOTH {
        let flags: &[&str] = match compiler {
            "cc" => &["-std=c11", "-D_GNU_SOURCE"],
            _ => &["-std=c++11", "-pedantic"],
        };
        let program = build(compiler, source, library, folder.path(), flags);
        succeed(Command::new(&program).args(&objects));
        under_valgrind(&program, &objects, true);
    }
}

#[test]
fn allocators_from_c() {
    if require(program("cc")).is_some() {
        run("cc", "allocator.c", &[]);
    }
}

#[test]
fn sessions_from_c() {
    if require(program("cc")).is_some() {
        run("cc", "session.c", &["module.c", "user.c"]);
    }
}

#[test]
fn containers_and_exceptions_from_cpp() {
    if require(program("c++")).is_some() {
        run("c++", "api.cpp", &["thrower.cpp"]);
    }
}

#[test]
fn llvm_callbacks_without_llvm() {
    if require(program("cc")).is_some() {
        run("cc", "callbacks.c", &[]);
    }
}

/// A heap that lies low keeps its room, whatever is allocated and however it grows.
#[test]
fn brk_grows_beside_low_memory() {
    if require(program("cc")).is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let flags = ["-std=c11", "-D_GNU_SOURCE", "-no-pie", "-fno-pie"];
    let program = build("cc", "brk.c", Library::Static, folder.path(), &flags);
    for options in [
        "preset=bare,placement=first-fit,reach=2g-full",
        "preset=bare,keep-hole=0",
        "preset=hardened",
        "placement=kernel",
    ] {
        succeed(Command::new(&program).arg(options));
    }
}

/// What is installed is found by pkg-config, for both libraries.
#[test]
fn an_installed_library_is_found_by_pkg_config() {
    if require(program("cc").and(program("pkg-config"))).is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let prefix = folder.path().join("prefix");
    let mut install = Command::new(support::root().join("capi/install.sh"));
    succeed(install.arg(&prefix).arg(support::built()));
    let ask = |what: &[&str]| {
        let mut command = Command::new("pkg-config");
        command.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
        let printed = succeed(command.args(what).arg("low2g")).stdout;
        let printed = String::from_utf8(printed).expect("UTF-8");
        let words = printed.split_whitespace().map(str::to_owned);
        words.collect::<Vec<_>>()
    };
    assert_eq!(ask(&["--modversion"]), [env!("CARGO_PKG_VERSION")]);
    let library = prefix.join("lib");
    for flags in [
        &["--cflags", "--libs"][..],
        &["--cflags", "--libs", "--static"],
    ] {
        let out = folder.path().join("program");
        let mut compile = Command::new("cc");
        compile.arg(support::root().join("tests/capi/allocator.c"));
        compile.arg("-o").arg(&out).args(ask(flags));
        if flags.contains(&"--static") {
            std::fs::remove_file(library.join("liblow2g.so")).expect("it was installed");
        }
        succeed(&mut compile);
        succeed(Command::new(&out).env("LD_LIBRARY_PATH", &library));
    }
}

#[test]
fn without_executable_writes_llvm_memory_is_refused_by_name() {
    if require(program("cc")).is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let object = object("module.c", folder.path());
    let flags = ["-std=c11", "-D_GNU_SOURCE"];
    let program = build("cc", "mdwe.c", Library::Shared, folder.path(), &flags);
    let output = succeed(Command::new(&program).arg(&object));
    if output.stdout.starts_with(b"skip") {
        eprintln!("SKIP: this kernel has no PR_SET_MDWE (Linux 6.3 has it)");
    }
}
