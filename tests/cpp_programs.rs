//! C++ programs below 2 GiB: exceptions, run-time types, static objects and streams, compiled in
//! the ways that g++ offers, do what the same objects do when the system's linker links them.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;

use std::path::PathBuf;
use std::process::Command;

use support::build;
use support::command::{assert_same, low2g_on, run};
use support::dump::Dump;
use support::{input, oracle, require, seed};

/// Ways to compile: what the loader is for, and what differs for it most.
const WAYS: [(&str, &[&str]); 5] = [
    ("static small -O2", &["-O2", "-fno-pic", "-fno-pie"]),
    ("static small -O0", &["-O0", "-fno-pic", "-fno-pie"]),
    (
        "static small, a section a function",
        &[
            "-O2",
            "-fno-pic",
            "-fno-pie",
            "-ffunction-sections",
            "-fdata-sections",
            "-fno-plt",
        ],
    ),
    ("pic -O2", &["-O2", "-fPIC"]),
    (
        "large -O1",
        &["-O1", "-fno-pic", "-fno-pie", "-mcmodel=large"],
    ),
];

fn cpp_compiler() -> Result<(), String> {
    let answer = Command::new(build::cc())
        .arg("-print-prog-name=cc1plus")
        .output()
        .map_err(|error| format!("no C compiler: {error}"))?;
    // A compiler that has no C++ answers the bare name.
    if answer.stdout.starts_with(b"/") {
        Ok(())
    } else {
        Err("no C++ compiler (apt: g++)".to_owned())
    }
}

fn compile(files: &[&str], way: &[&str]) -> Vec<PathBuf> {
    let mut flags: Vec<String> = way.iter().map(|flag| (*flag).to_owned()).collect();
    flags.push("-std=c++17".to_owned());
    let sources: Vec<PathBuf> = files.iter().map(|file| input("cpp").join(file)).collect();
    build::objects(&sources, &flags)
}

fn same_as_native(name: &str, files: &[&str], stdin: &[u8], code: i32) {
    if require(cpp_compiler()).is_none() {
        return;
    }
    let seed = seed();
    for (what, way) in WAYS {
        let objects = compile(files, way);
        let native = run(
            &mut Command::new(build::program(name, &objects, &["-lstdc++"])),
            stdin,
        );
        let paths = objects.iter().map(PathBuf::as_path);
        let mut low2g = low2g_on("run", seed, &["libstdc++.so.6"], paths);
        let loaded = run(&mut low2g, stdin);
        assert_same(&format!("{name}, {what}, seed {seed}"), &native, &loaded);
        assert_eq!(loaded.status.code(), Some(code), "{name}, {what}");
    }
}

/// What unwinds beyond main finds no caller there, as natively.
#[test]
fn programs_end_beyond_main_as_natively() {
    if require(cpp_compiler()).is_none() {
        return;
    }
    let seed = seed();
    for (what, way) in WAYS {
        let mut way = way.to_vec();
        // A hidden main is an entry all the same.
        way.push("-fvisibility=hidden");
        let objects = compile(&["endings.cpp"], &way);
        let native = build::program("endings", &objects, &["-lstdc++", "-lpthread"]);
        for how in ["u", "n", "c", "h", "p", "l", "f"] {
            let native = run(Command::new(&native).arg(how), b"");
            let paths = objects.iter().map(PathBuf::as_path);
            let mut low2g = low2g_on("run", seed, &["libstdc++.so.6"], paths);
            let loaded = run(low2g.args(["--", how]), b"");
            assert_same(&format!("{how}, {what}, seed {seed}"), &native, &loaded);
        }
    }
}

#[test]
fn exceptions_pass_as_in_a_native_program() {
    same_as_native("exceptions", &["exceptions.cpp"], b"", 3);
}

#[test]
fn library_types_and_static_objects_work_as_in_a_native_program() {
    same_as_native(
        "library",
        &["library.cpp", "library_other.cpp"],
        b"line\nanother line",
        3,
    );
}

/// What makes them work is what the documentation says: words of exception tables that name
/// the library's types go through mirrors, std::cout in instructions through islands.
#[test]
fn far_types_take_mirrors_and_far_objects_islands() {
    if require(cpp_compiler()).is_none() {
        return;
    }
    let seed = seed();
    let objects = compile(&["exceptions.cpp"], WAYS[0].1);
    let paths = objects.iter().map(PathBuf::as_path);
    let mut command = low2g_on("link", seed, &["libstdc++.so.6"], paths);
    let finished = run(command.arg("--json"), b"");
    let dump: serde_json::Value = serde_json::from_slice(&finished.stdout).expect("JSON");
    let stub_kind = |symbol: &str| -> Vec<String> {
        let rows = dump["stubs"].as_array().expect("rows").iter();
        rows.filter(|row| row["symbol"] == symbol)
            .map(|row| row["kind"].as_str().expect("a kind").to_owned())
            .collect()
    };
    assert_eq!(stub_kind("_ZTISt12out_of_range"), ["mirror"]);
    assert_eq!(stub_kind("__gxx_personality_v0"), ["plt"]);
    let cout = stub_kind("_ZSt4cout");
    assert!(!cout.is_empty() && cout.iter().all(|kind| kind == "island"));
    let words = dump["relocations"].as_array().expect("rows").iter();
    let mirrored: Vec<_> = words.filter(|row| row["action"] == "mirror").collect();
    assert!(!mirrored.is_empty());
    for row in mirrored {
        assert_eq!(row["type"], "R_X86_64_32");
        let value = row["value"].as_str().expect("hex");
        assert!(value.len() <= "0x7effffff".len(), "{row}: a mirror is low");
        assert_ne!(row["S"], row["value"], "S is the symbol's own address");
    }
}

/// Every byte that is relocated in a C++ program, judged by GNU ld; mirrors by formula.
#[test]
fn gnu_ld_agrees_with_every_relocated_byte() {
    if require(cpp_compiler()).is_none() {
        return;
    }
    let seed = seed();
    for (what, way) in [WAYS[0], WAYS[2], WAYS[3]] {
        let objects = compile(&["exceptions.cpp"], way);
        let paths = objects.iter().map(PathBuf::as_path);
        let mut command = low2g_on("link", seed, &["libstdc++.so.6"], paths);
        let finished = run(command.args(["--json", "--relax", "none"]), b"");
        let dump = Dump::parse(&finished.stdout).expect("a dump");
        let summary = oracle::check(&objects, &dump)
            .unwrap_or_else(|faults| panic!("{what}, seed {seed}:\n{faults}"));
        eprintln!("{what}: {summary:?}");
    }
}

/// Writable far data in a 32-bit word has no mirror: the error names the flag to compile with.
#[test]
fn writable_far_data_in_a_word_is_an_error_that_names_the_flag() {
    let object = build::object(
        &input("far_word.c"),
        &build::STATIC_SMALL
            .iter()
            .map(|&flag| flag.to_owned())
            .collect::<Vec<_>>(),
    );
    let finished = run(&mut low2g_on("link", seed(), &[], [object.as_path()]), b"");
    let message = String::from_utf8_lossy(&finished.stderr).into_owned();
    assert_eq!(finished.status.code(), Some(1), "{message}");
    for part in ["environ", ".data", "overflow", "-mno-direct-extern-access"] {
        assert!(message.contains(part), "{part} in: {message}");
    }
}
