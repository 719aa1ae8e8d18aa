//! Thin archives: members are read from beside the archive, and only those that are needed.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use low2g::link::{Input, Link, LinkOptions};
use support::build;
use support::command::{low2g_on, run};
use support::seed;

/// A folder with a thin archive `lib/libthin.a` of three objects, and an object that calls.
struct Thin {
    folder: tempfile::TempDir,
}

impl Thin {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let thin = Self { folder };
        fs::create_dir_all(thin.path("lib/deep")).expect("new folders");
        thin.compile(
            "main",
            "long one(void); int main(void) { return (int)one() + 1; }",
        );
        thin.compile(
            "lib/one",
            "long two(void); long one(void) { return two() * 10; }",
        );
        thin.compile(
            "lib/deep/a_member_with_a_long_name",
            "long two(void) { return 4; }",
        );
        thin.compile(
            "lib/unneeded",
            "long unneeded(void) { return undefined_too(); }",
        );
        let members = ["one.o", "deep/a_member_with_a_long_name.o", "unneeded.o"];
        let members = members.map(|member| format!("lib/{member}"));
        thin.succeed(
            Command::new("ar")
                .args(["rcT", "lib/libthin.a"])
                .args(members),
        );
        thin
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn succeed(&self, command: &mut Command) {
        let finished = run(command.current_dir(self.folder.path()), b"");
        let message = String::from_utf8_lossy(&finished.stderr).into_owned();
        assert!(finished.status.success(), "{message}");
    }

    fn compile(&self, name: &str, source: &str) {
        let file = self.path(&format!("{name}.c"));
        fs::write(&file, source).expect("the folder can be written");
        let mut command = Command::new(build::cc());
        command
            .args(build::STATIC_SMALL)
            .args(["-w", "-std=gnu89", "-c"]);
        self.succeed(
            command
                .arg(&file)
                .arg("-o")
                .arg(self.path(&format!("{name}.o"))),
        );
    }

    fn low2g(&self, subcommand: &str, more: &[&str]) -> (Option<i32>, String) {
        let (main, archive) = (self.path("main.o"), self.path("lib/libthin.a"));
        let files: [&Path; 2] = [&main, &archive];
        let finished = run(low2g_on(subcommand, seed(), &[], files).args(more), b"");
        let message = String::from_utf8_lossy(&finished.stderr).into_owned();
        (finished.status.code(), message)
    }
}

#[test]
fn members_come_from_their_files_if_needed() {
    let thin = Thin::new();
    assert_eq!(thin.low2g("run", &[]), (Some(41), String::new()));
    // What nothing needs need not even be there.
    fs::remove_file(thin.path("lib/unneeded.o")).expect("it was there");
    assert_eq!(thin.low2g("run", &[]), (Some(41), String::new()));
    let (code, message) = thin.low2g("link", &["--whole-archive"]);
    assert_eq!(code, Some(1), "every member is wanted now");
    assert!(message.contains("libthin.a(unneeded.o)"), "{message}");
}

#[test]
fn a_missing_member_is_an_error_that_names_archive_and_file() {
    let thin = Thin::new();
    fs::remove_file(thin.path("lib/one.o")).expect("it was there");
    let (code, message) = thin.low2g("run", &[]);
    assert_eq!(code, Some(1));
    let file = thin.path("lib/one.o").display().to_string();
    for part in ["libthin.a(one.o)", &file, "No such file"] {
        assert!(message.contains(part), "{part} in: {message}");
    }
}

#[test]
fn a_thin_archive_in_memory_has_no_members() {
    let thin = Thin::new();
    let bytes = fs::read(thin.path("lib/libthin.a")).expect("it was written");
    let main = Input::from_file(thin.path("main.o")).expect("it was written");
    let inputs = [main, Input::from_bytes("libthin.a", bytes)];
    let options = LinkOptions::default();
    let message = Link::read(&inputs, &options)
        .expect_err("no members")
        .to_string();
    assert!(
        message.contains("libthin.a(one.o)") && message.contains("give its path"),
        "{message}"
    );
}
