//! Far data in every form that gcc and clang make of it: the C library's variables and functions
//! referred to by 32-bit fields, at every optimization level and code model, run natively and in
//! low2g with every relaxation.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;

use std::ffi::OsStr;
use std::process::Command;

use support::build;
use support::command::{assert_same, low2g_on, run};

/// Arguments of the program, which goes through getopt.
const ARGUMENTS: [&str; 4] = ["-a", "-b", "foo", "rest"];

/// Flags, and whether the native program must be position-independent.
const MODES: [(&str, bool); 14] = [
    ("-O0 -fno-pic -fno-pie", false),
    ("-O1 -fno-pic -fno-pie", false),
    ("-O2 -fno-pic -fno-pie", false),
    ("-O3 -fno-pic -fno-pie", false),
    ("-Os -fno-pic -fno-pie", false),
    (
        "-O2 -fno-pic -fno-pie -ffunction-sections -fdata-sections",
        false,
    ),
    ("-O2 -fno-pic -fno-pie -fno-plt", false),
    ("-O2 -fno-pic -fno-pie -mcmodel=large", false),
    ("-O2 -fno-pic -fno-pie -mcmodel=medium", false),
    ("-O2 -fpie", true),
    ("-O2 -fPIC", true),
    ("-O2 -fPIC -fno-plt", true),
    ("-O0 -fPIC", true),
    ("-O2 -fPIC -mcmodel=large", true),
];

fn every_mode(compiler: &OsStr) {
    let source = support::input("far_data.c");
    let seed = support::seed();
    for (flags, pie) in MODES {
        let words: Vec<String> = flags.split(' ').chain(["-w"]).map(str::to_owned).collect();
        let object = build::object_by(compiler, &source, &words);
        let link = if pie { "-pie" } else { "-no-pie" };
        let program = build::program("far_data", std::slice::from_ref(&object), &[link]);
        let native = run(Command::new(program).args(ARGUMENTS), b"");
        assert_eq!(
            native.status.code(),
            Some(7),
            "{flags}: the native program is the measure"
        );
        for relax in ["none", "pcrel", "all"] {
            let mut command = low2g_on("run", seed, &[], [object.as_path()]);
            command.args(["--relax", relax, "--"]).args(ARGUMENTS);
            let loaded = run(&mut command, b"");
            let context = format!(
                "{} {flags}, --relax {relax}, seed {seed}",
                compiler.display()
            );
            assert_same(&context, &native, &loaded);
        }
    }
}

#[test]
fn gcc() {
    every_mode(OsStr::new("gcc"));
}

#[test]
fn clang() {
    for compiler in ["clang-14", "clang-19"] {
        if support::require(support::program(compiler)).is_some() {
            every_mode(OsStr::new(compiler));
        }
    }
}
