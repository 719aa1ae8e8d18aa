//! A program without a dynamic linker: what its pool serves, and what is refused, and how.
//!
//! The tool itself, linked statically: `LOW2G_STATIC_TOOL` names it. docs/tls.md tells how it is
//! made, against glibc and against musl.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;

use std::path::PathBuf;
use std::process::Command;

fn object(source: &str, flags: &[&str]) -> PathBuf {
    let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
    support::build::object(&support::input("tls").join(source), &flags)
}

/// The tool, or a word on why not.
fn tool() -> Option<PathBuf> {
    let tool = std::env::var_os("LOW2G_STATIC_TOOL").map(PathBuf::from);
    support::require(tool.ok_or_else(|| {
        "LOW2G_STATIC_TOOL names no tool that is linked statically (docs/tls.md)".to_owned()
    }))
}

fn run(tool: &PathBuf, arguments: &[&str], object: &PathBuf) -> (Option<i32>, String) {
    let mut command = Command::new(tool);
    command.arg("run").args(arguments).arg(object);
    let finished = support::command::run(&mut command, b"");
    let said = String::from_utf8_lossy(&finished.stderr).into_owned();
    (finished.status.code(), said)
}

#[test]
fn own_variables_are_in_the_pool() {
    let Some(tool) = tool() else { return };
    for flags in [
        &["-O1", "-fno-pic"][..],
        &["-O1", "-fPIC"],
        &["-O1", "-fPIC", "-fno-plt"],
        &["-O1", "-fPIC", "-ftls-model=initial-exec"],
        &["-O1", "-fPIC", "-ftls-model=local-dynamic"],
        &["-O1", "-fPIC", "-mtls-dialect=gnu2"],
        &["-O1", "-fPIC", "-mcmodel=large"],
    ] {
        let object = object("alone.c", flags);
        for relax in ["all", "pcrel", "none"] {
            let (code, said) = run(&tool, &["--relax", relax], &object);
            assert_eq!(code, Some(42), "{flags:?} {relax}: {said}");
        }
    }
}

#[test]
fn what_a_static_program_cannot_have_is_refused() {
    let Some(tool) = tool() else { return };
    let (code, said) = run(&tool, &[], &object("alone.c", &["-DSIZE=1000000"]));
    assert_eq!(code, Some(1));
    assert!(
        said.contains("a program linked statically cannot open shared objects"),
        "{said}"
    );
    assert!(said.contains("pool of 65536 bytes"), "{said}");
    let (code, said) = run(&tool, &[], &object("use.c", &["-DSIZE=1"]));
    assert_eq!(code, Some(1));
    assert!(said.contains("undefined_symbol: errno"), "{said}");
}

#[test]
fn a_static_program_opens_no_libraries() {
    let Some(tool) = tool() else { return };
    let object = object("alone.c", &["-O1", "-fPIC"]);
    let (code, said) = run(&tool, &["-l", "libm.so.6"], &object);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("libm.so.6") && said.contains("linked statically"),
        "{said}"
    );
}

/// What glibc before 2.33 has in its static part alone: here no dynamic linker finds it either.
#[test]
fn functions_that_the_program_alone_has() {
    let Some(tool) = tool() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let source = folder.path().join("stat.c");
    let text = "#include <sys/stat.h>\nint main(void) { struct stat s, t; return stat(\"/\", &s) == 0 && lstat(\"/\", &t) == 0 && S_ISDIR(s.st_mode) && s.st_ino == t.st_ino ? 42 : 1; }";
    std::fs::write(&source, text).expect("the folder is ours");
    let object = support::build::object(&source, &["-O1".to_owned(), "-fno-pic".to_owned()]);
    let (code, said) = run(&tool, &[], &object);
    assert_eq!(code, Some(42), "{said}");
}
