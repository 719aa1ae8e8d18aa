//! What the integration tests share: C sources and how they become objects, programs linked
//! natively to compare with, running commands with a time limit, the dump, and the oracle.
//!
//! A test states `mod support;` and works from [`inputs`], which gives each real program as the
//! files to load and as the same program linked by the system's linker. Nothing here uses the
//! library `low2g`: the tests see only its command-line tool, and read ELF by code of their own,
//! so that a mistake of the linker cannot hide in a mistake shared with its judge.

pub(crate) mod build;
pub(crate) mod command;
pub(crate) mod dump;
pub(crate) mod elf;
pub(crate) mod formula;
pub(crate) mod gnu_ld;
pub(crate) mod inputs;
mod needs;
pub(crate) mod oracle;
pub(crate) mod sources;

use std::path::PathBuf;

#[allow(
    unused_imports,
    reason = "each test binary uses a part of what they share"
)]
pub(crate) use needs::{program, require};

/// A file of tests/inputs.
pub(crate) fn input(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/inputs")
        .join(name)
}

/// The seed of this run: `LOW2G_SEED`, or one drawn from the clock. Printed, so that a
/// failure shows how to repeat it.
pub(crate) fn seed() -> u64 {
    let seed = match std::env::var("LOW2G_SEED") {
        Ok(text) => text.parse().expect("LOW2G_SEED is a decimal number"),
        Err(_) => u64::from(
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .expect("the clock is past 1970")
                .subsec_nanos(),
        ),
    };
    eprintln!("seed {seed} (set LOW2G_SEED to repeat)");
    seed
}
