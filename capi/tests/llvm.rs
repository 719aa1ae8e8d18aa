//! LLVM's MCJIT and ORC on low2g's memory, from C through llvm-c: the C programs of tests/capi with the
//! LLVMs that are installed.

#![cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use support::llvm::Llvm;
use support::{Library, build, program, require, succeed, under_valgrind};

/// The addresses that a program printed, by name.
fn addresses(program: &Path, module: &Path) -> HashMap<String, u64> {
    let printed = succeed(Command::new(program).arg(module)).stdout;
    let printed = String::from_utf8(printed).expect("UTF-8");
    let line = |line: &str| {
        let (name, addr) = line.split_once(" 0x")?;
        Some((name.to_owned(), u64::from_str_radix(addr, 16).ok()?))
    };
    printed.lines().filter_map(line).collect()
}

fn scenario(version: u32, source: &str, library: Library) {
    let Some(llvm) = require(Llvm::find(version)) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let module = llvm.bitcode("llvm_module.c", false, folder.path());
    let flags: Vec<_> = llvm.flags.iter().map(String::as_str).collect();
    let program = build("cc", source, library, folder.path(), &flags);
    let (first, second) = (addresses(&program, &module), addresses(&program, &module));
    assert_eq!(first.len(), 6, "{first:?}");
    if version == 19 {
        // What LLVM leaks is not looked at.
        under_valgrind(&program, &[module], false);
    }
    for name in ["add", "calls"] {
        let (one, two) = (first[name], second[name]);
        assert!(one < 1 << 31 && two < 1 << 31);
        // 19 bits of page numbers.
        assert_ne!(
            one >> 12,
            two >> 12,
            "{name} lies at one address in both runs"
        );
    }
}

#[test]
fn mcjit_of_llvm_14_runs_static_small_code() {
    scenario(14, "mcjit.c", Library::Shared);
}

#[test]
fn mcjit_of_llvm_19_runs_static_small_code() {
    scenario(19, "mcjit.c", Library::Static);
}

#[test]
fn orc_with_runtime_dyld_runs_static_small_code() {
    scenario(19, "orc.c", Library::Shared);
}

/// Builds and runs a program of examples/c and gives what it prints.
fn example(source: &str, flags: &[String]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let program = build("cc", source, Library::Shared, folder.path(), &flags);
    let printed = succeed(&mut Command::new(program)).stdout;
    String::from_utf8(printed).expect("UTF-8")
}

#[test]
fn the_examples_run() {
    if require(program("cc")).is_some() {
        let printed = example("examples/c/own_jit.c", &[]);
        assert!(printed.ends_with("returns 42\n"), "{printed}");
    }
    for version in [14, 19] {
        if let Some(llvm) = require(Llvm::find(version)) {
            let printed = example("examples/c/mcjit.c", &llvm.flags);
            assert!(printed.ends_with("returns 42\n"), "{printed}");
        }
    }
    if let Some(llvm) = require(Llvm::find(19)) {
        let printed = example("examples/c/orc.c", &llvm.flags);
        assert!(printed.ends_with("returns 42\n"), "{printed}");
    }
}
