//! CPython below 2 GiB: Debian's static library as shipped runs a script and CPython's own tests.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal;
use support::command::{assert_same, low2g_on, run};
use support::inputs::{self, Program, SYSTEM_PYTHON};
use support::{require, seed};

/// Modules of CPython's package `test`.
const TESTS: [&str; 6] = [
    "test_dict",
    "test_list",
    "test_struct",
    "test_generators",
    "test_exceptions",
    "test_zlib",
];

fn low2g_python(python: &Program, seed: u64) -> Command {
    let mut command = low2g_on("run", seed, &python.libraries, python.paths());
    // Extension modules need the interpreter's symbols.
    command.args(["--export", "--"]);
    command
}

#[test]
fn script_gives_what_the_system_interpreter_gives() {
    let Some(python) = require(inputs::python()) else {
        return;
    };
    let seed = seed();
    let script = support::input("python_basics.py");
    let arguments = [
        "-I".as_ref(),
        script.as_os_str(),
        "word".as_ref(),
        "23".as_ref(),
    ];
    let system = run(Command::new(SYSTEM_PYTHON).args(arguments), b"");
    let loaded = run(low2g_python(&python, seed).args(arguments), b"");
    assert_same(
        &format!("{} with seed {seed}", script.display()),
        &system,
        &loaded,
    );
    assert_eq!(
        loaded.status.code(),
        Some(23),
        "sys.exit gives the exit code"
    );
    let text = String::from_utf8_lossy(&loaded.stdout).into_owned();
    assert!(
        text.contains("maximum recursion depth exceeded"),
        "the script did not finish:\n{text}"
    );
}

/// A command line as an executable file: tests start `sys.executable`.
fn wrapper(path: PathBuf, command: &Command) -> PathBuf {
    let quote =
        |word: &std::ffi::OsStr| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"));
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(quote)
        .collect();
    fs::write(
        &path,
        format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" ")),
    )
    .expect("the folder is ours");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the file is ours");
    path
}

/// Runs CPython's tests by `command`, children by `executable`; in a folder of its own.
fn run_tests(mut command: Command, executable: &Path) -> support::command::Finished {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    // A shell's background job ignores it, and its children with it; a test of generators raises it.
    let interruptible = || {
        let default = signal::SigHandler::SigDfl;
        // SAFETY: signal needs no handler to run in this process: the default one is none.
        unsafe { signal::signal(signal::Signal::SIGINT, default) }?;
        Ok(())
    };
    // SAFETY: pre_exec needs what may be done between fork and exec: signal(2) is a system call.
    unsafe { command.pre_exec(interruptible) };
    command
        .arg("-I")
        .arg(support::input("python_tests.py"))
        .arg(executable)
        .args(TESTS)
        .current_dir(folder.path());
    run(&mut command, b"")
}

#[test]
fn own_tests_give_the_counts_of_the_native_program() {
    let Some(python) = require(inputs::python()) else {
        return;
    };
    let seed = seed();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let native_program = python.native();
    let native = run_tests(Command::new(&native_program), &native_program);
    let executable = wrapper(folder.path().join("python"), &low2g_python(&python, seed));
    let loaded = run_tests(low2g_python(&python, seed), &executable);
    assert_same(
        &format!("CPython's tests with seed {seed}"),
        &native,
        &loaded,
    );
    let text = String::from_utf8_lossy(&loaded.stdout).into_owned();
    let passing = text.matches("failures 0, errors 0").count();
    assert_eq!(passing, TESTS.len(), "modules fail:\n{text}");
    assert_eq!(
        text.matches(": ran ").count(),
        TESTS.len(),
        "a module gave nothing:\n{text}"
    );
    assert!(!text.contains("ran 0"), "a module ran no test:\n{text}");
}
