//! More real programs below 2 GiB, with the output of the natively linked ones: bzip2 and lz4,
//! mimalloc with threads, harfbuzz; and static archives as Debian ships them, whose symbols the
//! dump shows to come from the archive, not from the process.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;

use std::process::Command;

use support::command::{assert_same, low2g_on, run};
use support::inputs::{self, Program};
use support::{require, seed};

/// Runs `program` both ways; returns what it printed.
fn same_as_native(program: &Program, arguments: &[&str]) -> String {
    let seed = seed();
    let native = run(Command::new(program.native()).args(arguments), b"");
    let mut command = low2g_on("run", seed, &program.libraries, program.paths());
    let loaded = run(command.arg("--").args(arguments), b"");
    assert_same(
        &format!("{} with seed {seed}", program.name),
        &native,
        &loaded,
    );
    String::from_utf8_lossy(&loaded.stdout).into_owned()
}

/// Asserts that each of `symbols` is defined by a member of the archive `archive`.
fn defined_by(program: &Program, archive: &str, symbols: &[&str]) {
    let mut command = low2g_on("link", seed(), &program.libraries, program.paths());
    let finished = run(command.arg("--json"), b"");
    let dump: serde_json::Value = serde_json::from_slice(&finished.stdout).expect("a dump");
    assert_eq!(dump["status"], "ok");
    let rows = dump["symbols"].as_array().expect("rows");
    for name in symbols {
        let row = rows
            .iter()
            .find(|row| row["name"] == *name && row["binding"] != "local");
        let row = row.unwrap_or_else(|| panic!("{name} is among the symbols"));
        let object = row["object"].as_str().expect("a string");
        let kind = row["kind"].as_str().expect("a string");
        assert!(
            object.starts_with(&format!("{archive}(")) && ["defined", "ifunc"].contains(&kind),
            "{name} is {kind}, of {object}"
        );
    }
}

#[test]
fn bzip2_and_lz4_pack_the_same_bytes() {
    let program = inputs::bzip2_lz4();
    let text = same_as_native(&program, &[&seed().to_string()]);
    assert_eq!(text.matches(", restored").count(), 12, "{text}");
    defined_by(
        &program,
        "libbz2.a",
        &["BZ2_bzBuffToBuffCompress", "BZ2_blockSort"],
    );
    defined_by(
        &program,
        "liblz4.a",
        &["LZ4_compress_HC", "LZ4F_decompress"],
    );
}

#[test]
fn mimalloc_serves_threads_from_thread_local_heaps() {
    let text = same_as_native(&inputs::mimalloc(), &[&seed().to_string()]);
    assert_eq!(text.matches(" found ").count(), 4, "{text}");
}

#[test]
fn harfbuzz_shapes_the_same_glyphs() {
    let text = same_as_native(&inputs::harfbuzz(), &[]);
    assert!(
        text.contains("Latn -> ") && text.contains("Arab <- "),
        "{text}"
    );
    assert!(
        text.contains("gid1999"),
        "the font's ligature is used:\n{text}"
    );
}

#[test]
fn zlib_of_debian() {
    let program = inputs::with_archive("zlib", "archives/zlib.c", "libz.a", "zlib1g-dev");
    let Some(program) = require(program) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let file = folder.path().join("packed.gz");
    let text = same_as_native(&program, &[file.to_str().expect("UTF-8")]);
    assert!(text.contains("3 lines"), "{text}");
    defined_by(
        &program,
        "libz.a",
        &[
            "compress2",
            "uncompress",
            "crc32",
            "gzopen",
            "deflate",
            "inflate",
        ],
    );
}

#[test]
fn gmp_of_debian() {
    let program = inputs::with_archive("gmp", "archives/gmp.c", "libgmp.a", "libgmp-dev");
    let Some(program) = require(program) else {
        return;
    };
    same_as_native(&program, &[]);
    defined_by(
        &program,
        "libgmp.a",
        &["__gmpz_fac_ui", "__gmpz_powm", "__gmpn_mul_1"],
    );
}

#[test]
fn atomic_of_gcc_with_its_ifuncs() {
    let program = inputs::with_archive("atomic", "archives/atomic.c", "libatomic.a", "gcc");
    let Some(program) = require(program) else {
        return;
    };
    let text = same_as_native(&program, &[]);
    assert!(
        text.starts_with("1 16\n"),
        "one address in code and data: {text}"
    );
    let names = [
        "__atomic_fetch_add_16",
        "__atomic_exchange_16",
        "__atomic_load_16",
        "__atomic_exchange",
    ];
    defined_by(&program, "libatomic.a", &names);
    // Every member: all the ifuncs that the archive has, each resolved once.
    let seed = seed();
    let mut command = low2g_on("run", seed, &[], program.paths());
    let whole = run(command.arg("--whole-archive"), b"");
    assert_eq!(
        String::from_utf8_lossy(&whole.stdout),
        text,
        "{}",
        String::from_utf8_lossy(&whole.stderr)
    );
    let mut command = low2g_on("link", seed, &[], program.paths());
    let dump = run(command.args(["--whole-archive", "--json"]), b"");
    let dump: serde_json::Value = serde_json::from_slice(&dump.stdout).expect("a dump");
    let symbols = dump["symbols"].as_array().expect("rows");
    let ifuncs = symbols.iter().filter(|row| row["kind"] == "ifunc").count();
    assert!(ifuncs >= 17, "{ifuncs} ifuncs");
}

#[test]
fn the_cpp_library_of_gcc() {
    let program = inputs::with_archive("cxx", "archives/cxx.cpp", "libstdc++.a", "g++");
    let Some(program) = require(program) else {
        return;
    };
    let text = same_as_native(&program, &[]);
    assert!(text.ends_with("static object gone\n"), "{text}");
    // Nothing of the process's own C++ library, if it has one, takes part.
    let names = [
        "__cxa_throw",
        "_ZSt4cout",
        "_ZTVSt12out_of_range",
        "__gxx_personality_v0",
        "_ZNSt8ios_base4InitC1Ev",
    ];
    defined_by(&program, "libstdc++.a", &names);
}
