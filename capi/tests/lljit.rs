//! include/low2g/llvm.hpp under LLJIT of LLVM 14, 15, 16 and 19: low2g's linker as an ORC object layer, and its
//! memory under JITLink and RuntimeDyld, with modules that clang made of C and C++.

#![cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::llvm::Llvm;
use support::{Library, build, require, succeed, under_valgrind};

/// What every linker is given, in the order of the program's arguments.
const SOURCES: [&str; 4] = ["cycle.c", "cxx.cpp", "other.cpp", "missing.c"];

/// What only low2g's linker takes.
const OF_THE_LAYER: [&str; 3] = ["far.c", "tls.cpp", "tls_other.cpp"];

/// Builds `source` with that LLVM's compiler; what is loaded finds the program's own functions.
fn compile(llvm: &Llvm, source: &str, library: Library, folder: &Path) -> PathBuf {
    let mut flags = vec!["-rdynamic", "-Wno-unused-parameter", "-O0"];
    flags.extend(llvm.flags.iter().map(String::as_str));
    let compiler = format!("clang++-{}", llvm.version);
    build(&compiler, source, library, folder, &flags)
}

/// Runs tests/capi/lljit/lljit.cpp in each of `kinds`, twice: it lies elsewhere each time.
fn run(version: u32, library: Library, kinds: &[&str]) {
    let Some(llvm) = require(Llvm::find_cpp(version)) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let program = compile(&llvm, "tests/capi/lljit/lljit.cpp", library, folder.path());
    for kind in kinds {
        let pic = ["jitlink", "rtdyld-pic"].contains(kind);
        let more: &[&str] = match *kind {
            "layer" => &OF_THE_LAYER,
            // To be refused.
            "rtdyld" | "rtdyld-objects" => &OF_THE_LAYER[1..2],
            _ => &[],
        };
        let modules: Vec<_> = SOURCES
            .iter()
            .chain(more)
            .map(|source| llvm.bitcode(&format!("lljit/{source}"), pic, folder.path()))
            .collect();
        let mut places = BTreeSet::new();
        for _ in 0..2 {
            // A hang is a failure that says so.
            let mut command = Command::new("timeout");
            command.args(["-s", "KILL", "120"]).arg(&program);
            let printed = succeed(command.arg(kind).args(&modules)).stdout;
            let printed = String::from_utf8(printed).expect("UTF-8");
            assert_eq!(printed.lines().count(), 2, "{printed}");
            places.insert(printed);
        }
        assert_eq!(places.len(), 2, "{kind}: one address in both runs");
    }
}

#[test]
fn llvm_14() {
    let kinds = ["layer", "jitlink", "rtdyld", "rtdyld-objects"];
    run(14, Library::Shared, &kinds);
}

#[test]
fn llvm_15() {
    run(15, Library::Shared, &["layer", "jitlink", "rtdyld"]);
}

#[test]
fn llvm_16() {
    run(16, Library::Shared, &["layer", "jitlink", "rtdyld"]);
}

#[test]
fn llvm_19() {
    let kinds = ["layer", "jitlink", "rtdyld", "rtdyld-objects", "rtdyld-pic"];
    run(19, Library::Static, &kinds);
}

/// What JITs and their objects do wrong.
#[test]
fn bad_input_is_an_error_of_orc() {
    for version in [14, 19] {
        let Some(llvm) = require(Llvm::find_cpp(version)) else {
            continue;
        };
        let folder = tempfile::tempdir().expect("a folder");
        let program = compile(
            &llvm,
            "tests/capi/lljit/bad_input.cpp",
            Library::Shared,
            folder.path(),
        );
        for kind in ["jitlink", "layer"] {
            let modules = SOURCES[..2].iter().map(|source| {
                let pic = kind == "jitlink";
                llvm.bitcode(&format!("lljit/{source}"), pic, folder.path())
            });
            let arguments: Vec<PathBuf> = [kind.into()].into_iter().chain(modules).collect();
            let mut command = Command::new("timeout");
            command.args(["-s", "KILL", "120"]).arg(&program);
            succeed(command.args(&arguments));
            if version == 14 {
                under_valgrind(&program, &arguments, false);
            }
        }
    }
}

#[test]
fn the_example_runs() {
    for version in [14, 19] {
        let Some(llvm) = require(Llvm::find_cpp(version)) else {
            continue;
        };
        let folder = tempfile::tempdir().expect("a folder");
        let program = compile(
            &llvm,
            "examples/cpp/orc_layer.cpp",
            Library::Shared,
            folder.path(),
        );
        let printed = succeed(Command::new("timeout").arg("60").arg(program)).stdout;
        let printed = String::from_utf8(printed).expect("UTF-8");
        assert!(printed.starts_with("hello from low memory\n"), "{printed}");
        assert!(printed.ends_with("returns 2\n"), "{printed}");
    }
}
