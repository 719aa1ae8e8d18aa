//! Lua 5.4 below 2 GiB: an archive and an interpreter run scripts as the native program does.
//!
//! Lua's objects refer to stdin, stdout and stderr, data of the C library, by 32-bit PC-relative
//! fields: far data, which the loader must make reachable.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;

use std::process::Command;

use support::command::{Finished, assert_same, low2g_on, run};
use support::inputs::{self, Program};
use support::seed;

/// Runs a script of tests/inputs/lua natively and in low2g; returns what low2g's run gave.
fn compare(lua: &Program, script: &str, arguments: &[&str], stdin: &[u8]) -> Finished {
    compare_with(lua, &[], script, arguments, stdin)
}

/// The same with `options` for low2g.
fn compare_with(
    lua: &Program,
    options: &[&str],
    script: &str,
    arguments: &[&str],
    stdin: &[u8],
) -> Finished {
    let seed = seed();
    let path = support::input("lua").join(script);
    let native = run(
        Command::new(lua.native())
            .arg(&path)
            .args(arguments)
            .env("LOW2G_TEST_VALUE", "inherited"),
        stdin,
    );
    let mut command = low2g_on("run", seed, &lua.libraries, lua.paths());
    command
        .args(options)
        .arg("--")
        .arg(&path)
        .args(arguments)
        .env("LOW2G_TEST_VALUE", "inherited");
    let loaded = run(&mut command, stdin);
    assert_same(&format!("{script} with seed {seed}"), &native, &loaded);
    loaded
}

#[test]
fn language() {
    let ran = compare(
        &inputs::lua(&[]),
        "language.lua",
        &["one", "two words"],
        b"",
    );
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(
        text.contains("primes\t17984") && text.ends_with("closing state\n"),
        "the script did not finish:\n{text}"
    );
    assert_eq!(
        ran.status.code(),
        Some(17),
        "the script's result is the exit code"
    );
}

#[test]
fn library_standard_streams_and_files() {
    let lua = inputs::lua(&[]);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let folder_name = folder.path().to_str().expect("its path is UTF-8");
    let stdin = b"first\n42 0x1p4\nrest\nabcdefgh\nx\ny";
    let ran = compare(&lua, "library.lua", &[folder_name, "9"], stdin);
    let errors = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(
        errors.contains("to standard error 1 2.5") && errors.contains("Lua warning"),
        "standard error: {errors}"
    );
    assert!(
        ran.stdout.ends_with(b"before exit\n"),
        "os.exit flushes standard output"
    );
    assert_eq!(ran.status.code(), Some(9), "os.exit gives the exit code");
}

#[test]
fn uncaught_error_goes_to_standard_error() {
    let ran = compare(&inputs::lua(&[]), "uncaught.lua", &[], b"");
    let errors = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(
        errors.contains("attempt to index a nil value (field 'missing')"),
        "standard error: {errors}"
    );
    assert_eq!(ran.status.code(), Some(1));
}

#[test]
fn one_section_a_function_and_a_datum() {
    let lua = inputs::lua(&["-ffunction-sections", "-fdata-sections"]);
    compare(&lua, "language.lua", &["one", "two"], b"");
    // A thousand functions, each at an address of its own; errors unwind by longjmp.
    compare_with(&lua, &["--scatter"], "language.lua", &["one", "two"], b"");
}
