//! Archives: which members are pulled, by what, and under which names.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod battery;

use std::path::PathBuf;

use battery::ar;
use battery::programs::{native, printing};
use battery::tool::{Folder, low2g, output, run, stderr};

#[test]
fn archives_are_searched_until_nothing_changes() {
    let folder = Folder::new();
    let sources = [
        ("main", printing("int a(void);", "a()")),
        (
            "a",
            "int b(void); int a(void) { return b() + 1; }".to_owned(),
        ),
        (
            "b",
            "int c(void); int b(void) { return c() + 10; }".to_owned(),
        ),
        ("c", "int d; int c(void) { return 100 + d; }".to_owned()),
        (
            "unused",
            "extern int missing(void); int unused(void) { return missing(); }".to_owned(),
        ),
    ];
    let objects = sources.map(|(name, source)| folder.compile(&format!("{name}.c"), &source, &[]));
    let [main, a, b, c, unused] = &objects;
    // Each refers to the one before: one pass in order would not do.
    let first = folder.archive("first.a", "rcs", &[c, unused, b]);
    let second = folder.archive("second.a", "rcs", &[a]);
    for files in [
        [main, &first, &second],
        [&second, &first, main],
        [&first, main, &second],
    ] {
        assert_eq!(run(&files.map(PathBuf::as_path)), "111");
    }
    let without_index = folder.archive("bare.a", "rcS", &[c, unused, b, a]);
    assert_eq!(run(&[main, &without_index]), "111");
    let whole = output(
        low2g("run")
            .arg("--whole-archive")
            .args([main, &first, &second]),
    );
    assert!(
        stderr(&whole).contains("first.a(unused.o)(.text"),
        "{}",
        stderr(&whole)
    );
    assert!(
        stderr(&whole).contains("undefined_symbol: missing (1 use)"),
        "{}",
        stderr(&whole)
    );
}

#[test]
fn members_of_one_name_and_what_does_not_pull() {
    let folder = Folder::new();
    // Two members of one name, as from two folders.
    let [one, two] = [
        "int one(void) { return 1; }",
        "int two(void) { return 20; }",
    ]
    .map(|source| {
        let object = folder.compile("kept.c", source, &[]);
        std::fs::read(object).expect("it was just compiled")
    });
    let members = [("kept.o", one), ("kept.o", two)];
    let first = folder.write(
        "lib.a",
        ar::archive(&members, Some(&[("one", 0), ("two", 1)])),
    );
    let main = folder.compile(
        "main.c",
        &printing(
            "int one(void), two(void); __attribute__((weak)) int three(void);",
            "one() + two() + (three != 0) * 1000",
        ),
        &[],
    );
    let three = folder.compile("three.c", "int three(void) { return 3; }", &[]);
    let weak = folder.archive("weak.a", "rcs", &[&three]);
    assert_eq!(
        run(&[&main, &first, &weak]),
        "21",
        "a weak reference pulls nothing"
    );
    let ended = output(low2g("link").arg("--json").args([&main, &first]));
    let dump: serde_json::Value = serde_json::from_slice(&ended.stdout).expect("a dump");
    let names: Vec<&str> = dump["objects"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|o| o["name"].as_str())
        .collect();
    assert_eq!(names, ["main.o", "lib.a(kept.o)", "lib.a(kept.o)#2"]);
}

#[test]
fn an_archive_defines_what_is_common_elsewhere() {
    let folder = Folder::new();
    let main = folder.compile("main.c", &printing("int shared;", "shared"), &["-fcommon"]);
    let defined = folder.compile("defined.c", "int shared = 42;", &[]);
    let common = folder.compile("common.c", "int shared; int beside = 1;", &["-fcommon"]);
    let library = folder.archive("defined.a", "rcs", &[&defined]);
    assert_eq!(run(&[&main, &library]), "42", "as GNU ld and lld do");
    assert_eq!(native(&folder, &[&main, &library]), "42");
    let library = folder.archive("common.a", "rcs", &[&common]);
    let ended = output(low2g("link").arg("--json").args([&main, &library]));
    let dump: serde_json::Value = serde_json::from_slice(&ended.stdout).expect("a dump");
    assert_eq!(
        dump["objects"].as_array().map(Vec::len),
        Some(1),
        "another common is no definition"
    );
}
