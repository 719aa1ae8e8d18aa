//! The real inputs under the oracle: every byte that low2g relocates, judged by GNU ld.
//!
//! Twice each: with the process's own symbols, which are far (stubs and islands are judged by
//! formula), and with every outside symbol at a low address of our own, so that GNU ld judges all
//! that it can.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;

use std::collections::BTreeSet;
use std::process::Command;

use support::command::{low2g_on, run};
use support::dump::Dump;
use support::inputs::{self, Program};
use support::oracle::{self, Summary};
use support::{require, seed};

fn link(program: &Program, seed: u64, change: impl FnOnce(&mut Command)) -> Dump {
    let mut command = low2g_on("link", seed, &program.libraries, program.paths());
    command.args(["--json", "--relax", "none", "--entry", "main"]);
    change(&mut command);
    let ran = run(&mut command, b"");
    let dump = Dump::parse(&ran.stdout).unwrap_or_else(|error| {
        panic!(
            "{command:?}: {error}\n{}",
            String::from_utf8_lossy(&ran.stderr)
        )
    });
    assert_eq!(
        dump.errors,
        Vec::<serde_json::Value>::new(),
        "{} with seed {seed}",
        program.name
    );
    assert_eq!(
        ran.status.code(),
        Some(0),
        "{} with seed {seed}",
        program.name
    );
    dump
}

fn judge(program: &Program, seed: u64, dump: &Dump) -> Summary {
    let verdict = oracle::check(&program.files, dump);
    let summary =
        verdict.unwrap_or_else(|faults| panic!("{} with seed {seed}:\n{faults}", program.name));
    eprintln!("{}: {summary:?}", program.name);
    summary
}

/// Judges a program both ways; returns what was judged with the process's symbols, and with ours.
fn judge_both(program: &Program) -> (Summary, Summary) {
    let seed = seed();
    let dump = link(program, seed, |_| {});
    let far = judge(program, seed, &dump);

    // Every symbol that came from outside, 64 bytes apart from 0x7d000000 up.
    let rows = dump.symbols.iter().filter(|row| row.kind == "external");
    let names: BTreeSet<&str> = rows.map(|row| row.name.as_str()).collect();
    let dump = link(program, seed, |command| {
        command.arg("--no-process-symbols");
        for (addr, name) in (0x7d00_0000_u64..).step_by(64).zip(&names) {
            command.arg("--abs").arg(format!("{name}={addr:#x}"));
        }
    });
    let low = judge(program, seed, &dump);
    assert!(
        dump.stubs.is_empty(),
        "{}: everything is near, yet there are stubs",
        program.name
    );
    (far, low)
}

#[test]
fn sqlite() {
    let (far, low) = judge_both(&inputs::sqlite());
    assert!(
        far.by_ld > 10_000 && low.by_ld > far.by_ld,
        "{far:?} {low:?}"
    );
    assert_eq!(
        (low.by_formula, low.islands),
        (0, 0),
        "GNU ld can judge all of it"
    );
}

#[test]
fn lua_archive_with_debugging_data() {
    let (far, low) = judge_both(&inputs::lua(&["-g"]));
    assert!(
        far.islands > 0,
        "stdin, stdout and stderr are far data: {far:?}"
    );
    assert!(
        low.by_ld > 40_000,
        "debugging data is relocated too: {low:?}"
    );
    assert_eq!(
        (low.by_formula, low.islands),
        (0, 0),
        "GNU ld can judge all of it"
    );
}

#[test]
fn lua_with_a_section_for_each_function() {
    let (far, low) = judge_both(&inputs::lua(&["-ffunction-sections", "-fdata-sections"]));
    assert!(
        far.sections > 1000 && low.sections == far.sections,
        "{far:?} {low:?}"
    );
}

#[test]
fn zlib_and_zstd() {
    let (far, low) = judge_both(&inputs::compress());
    assert!(far.by_ld > 1000, "{far:?}");
    assert_eq!(
        (low.by_formula, low.islands),
        (0, 0),
        "GNU ld can judge all of it"
    );
}

#[test]
fn python() {
    let Some(program) = require(inputs::python()) else {
        return;
    };
    let (far, low) = judge_both(&program);
    assert!(far.by_ld > 150_000 && far.islands > 0, "{far:?}");
    assert!(low.by_ld > 190_000, "{low:?}");
    assert_eq!(
        (low.by_formula, low.islands),
        (0, 0),
        "GNU ld can judge all of it"
    );
}
