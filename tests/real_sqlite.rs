//! SQLite below 2 GiB: the amalgamation and a driver run a script as the native program does.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;

use std::path::Path;
use std::process::Command;

use support::command::{Finished, assert_same, low2g_on, run};
use support::{inputs, seed};

fn script() -> Vec<u8> {
    std::fs::read(support::input("sqlite_script.sql")).expect("the script is among the inputs")
}

/// Runs the script against `database` natively and in low2g; returns what both gave.
fn compare(database: impl Fn(&str) -> String) -> Finished {
    let sqlite = inputs::sqlite();
    let seed = seed();
    let native = run(
        Command::new(sqlite.native()).arg(database("native")),
        &script(),
    );
    let mut command = low2g_on("run", seed, &sqlite.libraries, sqlite.paths());
    let loaded = run(command.arg("--").arg(database("low2g")), &script());
    assert_same(&format!("SQLite with seed {seed}"), &native, &loaded);
    loaded
}

#[test]
fn database_in_memory() {
    let ran = compare(|_| ":memory:".to_owned());
    let text = String::from_utf8(ran.stdout).expect("the rows are UTF-8");
    // That the script did its work, whatever the native program says.
    assert!(
        text.contains("1779979416004714189|270"),
        "no Fibonacci numbers in:\n{text}"
    );
    assert!(
        text.contains("[Relocating] code patches"),
        "no full text search in:\n{text}"
    );
    assert!(
        text.contains("error: UNIQUE constraint failed: city.id"),
        "no constraint in:\n{text}"
    );
    assert_eq!(
        ran.status.code(),
        Some(5),
        "the script has five statements that fail"
    );
}

#[test]
fn database_on_disk_is_readable_by_the_native_program() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = |who: &str| {
        folder
            .path()
            .join(format!("{who}.db"))
            .display()
            .to_string()
    };
    compare(path);

    // Each program reads what the other wrote.
    let sqlite = inputs::sqlite();
    let query = b"PRAGMA integrity_check; SELECT count(*), sum(k), max(v) FROM big_table; SELECT name FROM city ORDER BY 1;";
    let seed = seed();
    let native = run(Command::new(sqlite.native()).arg(path("low2g")), query);
    let mut command = low2g_on("run", seed, &sqlite.libraries, sqlite.paths());
    let loaded = run(command.arg("--").arg(path("native")), query);
    assert!(
        native.stdout.starts_with(b"sqlite"),
        "the native program printed nothing"
    );
    assert_same(
        &format!("databases exchanged, seed {seed}"),
        &native,
        &loaded,
    );
    assert!(
        Path::new(&path("native"))
            .metadata()
            .expect("it was written")
            .len()
            > 100_000
    );
}
