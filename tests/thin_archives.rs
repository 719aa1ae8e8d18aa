//! Lists of files in place of archives. Thin archives: members are read from beside the archive,
//! and only those that are needed. Linker scripts: the files they name are read or opened.

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

/// What `low2g run main.o FILE` does where FILE is the linker script `text`.
fn run_script(thin: &Thin, text: &str, options: &[&str]) -> (Option<i32>, String) {
    let script = thin.path("lib/libscript.a");
    fs::write(&script, text).expect("the folder can be written");
    let main = thin.path("main.o");
    let files: [&Path; 2] = [&main, &script];
    let finished = run(low2g_on("run", seed(), &[], files).args(options), b"");
    let message = String::from_utf8_lossy(&finished.stderr).into_owned();
    (finished.status.code(), message)
}

#[test]
fn a_linker_script_stands_for_the_files_it_names() {
    let thin = Thin::new();
    let absolute = thin.path("lib/libthin.a").display().to_string();
    for text in [
        "GROUP ( libthin.a )".to_owned(),
        format!("/* GNU ld script */ OUTPUT_FORMAT(elf64-x86-64)\nINPUT({absolute})"),
        "INPUT(-lthin)".to_owned(),
        "SEARCH_DIR(\"/nowhere\") GROUP(one.o, AS_NEEDED(deep/a_member_with_a_long_name.o))"
            .to_owned(),
    ] {
        assert_eq!(
            run_script(&thin, &text, &[]),
            (Some(41), String::new()),
            "{text}"
        );
    }
    // A script that names another one.
    fs::write(thin.path("lib/inner.a"), "INPUT ( libthin.a )").expect("writable");
    assert_eq!(run_script(&thin, "GROUP ( inner.a )", &[]).0, Some(41));
    let (code, message) = run_script(&thin, "GROUP ( libscript.a )", &[]);
    assert_eq!(code, Some(1));
    assert!(message.contains("does one name itself?"), "{message}");
    let (_, message) = run_script(&thin, "GROUP ( absent.a )", &[]);
    assert!(
        message.contains("names absent.a, which is not in"),
        "{message}"
    );
    let (_, message) = run_script(&thin, "GROUP ( libthin.a ) ENTRY(main)", &[]);
    assert!(message.contains("ENTRY is not understood"), "{message}");
}

/// A script as glibc's `libc.so` is: a shared library, and an archive for the rest.
#[test]
fn shared_libraries_of_a_script_are_opened() {
    let thin = Thin::new();
    thin.compile("shared", "int shared_value(void) { return 40; }");
    let mut command = Command::new(build::cc());
    let flags = [
        "-shared",
        "-fPIC",
        "-w",
        "-o",
        "lib/libshared.so",
        "shared.c",
    ];
    thin.succeed(command.args(flags));
    thin.compile(
        "lib/rest",
        "int shared_value(void); int rest(void) { return shared_value() + 2; }",
    );
    thin.compile("main", "int rest(void); int main(void) { return rest(); }");
    thin.succeed(Command::new("ar").args(["rcs", "lib/librest.a", "lib/rest.o"]));
    let text = "GROUP ( librest.a AS_NEEDED ( libshared.so ) )";
    assert_eq!(
        run_script(&thin, text, &[]),
        (Some(42), String::new()),
        "as a file"
    );
    // The same as a library.
    let (main, script) = (thin.path("main.o"), thin.path("lib/libscript.a"));
    let library = script.display().to_string();
    let finished = run(
        &mut low2g_on("run", seed(), &[&library], [main.as_path()]),
        b"",
    );
    let message = String::from_utf8_lossy(&finished.stderr).into_owned();
    assert_eq!(
        (finished.status.code(), message),
        (Some(42), String::new()),
        "with -l"
    );
    let mut session = low2g::link::Session::new().expect("low memory");
    let error = session
        .open_library(&library)
        .expect_err("it names an archive")
        .to_string();
    assert!(
        error.contains("names librest.a, which is no shared library"),
        "{error}"
    );
    fs::write(&script, "INPUT ( libshared.so )").expect("writable");
    session
        .open_library(&library)
        .expect("only a shared library");
}
