//! zlib and zstd below 2 GiB: megabytes of several kinds of data packed and restored, with the
//! same packed bytes as natively; zstd also with threads, and from its assembly source.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;

use std::process::Command;

use support::command::{assert_same, low2g_on, run};
use support::{inputs, seed};

#[test]
fn compress_and_restore() {
    let compress = inputs::compress();
    let seed = seed();
    // An xorshift generator must not start at 0.
    let data_seed = (seed | 1).to_string();
    let native = run(Command::new(compress.native()).arg(&data_seed), b"");
    let mut command = low2g_on("run", seed, &compress.libraries, compress.paths());
    let loaded = run(command.arg("--").arg(&data_seed), b"");
    assert_same(&format!("zlib and zstd with seed {seed}"), &native, &loaded);
    let text = String::from_utf8_lossy(&loaded.stdout).into_owned();
    assert_eq!(
        text.matches(", restored").count(),
        20,
        "four kinds of data, five ways:\n{text}"
    );
    assert_eq!(
        loaded.status.code(),
        Some(0),
        "the driver counts failures:\n{text}"
    );
}
