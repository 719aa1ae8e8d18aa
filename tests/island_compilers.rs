//! What compilers make of C that uses data and functions defined elsewhere: every reference
//! is found by linear decoding and gets an island.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod island_support;
#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;

use std::collections::BTreeMap;

use island_support::assembled::compile;
use low2g::link::island::{self, FarField, JUMP_LEN};

const SOURCE: &str = include_str!("island_support/far_data.c");

fn every_reference_gets_an_island(compiler: &str, at_least: usize) {
    for level in ["-O0", "-O1", "-O2", "-O3", "-Os"] {
        for machine in ["-mtune=generic", "-mavx2", "-mavx512f", "-mno-red-zone"] {
            let options = [
                level,
                machine,
                "-fno-pic",
                "-fno-pie",
                "-mcmodel=small",
                "-w",
            ];
            let Some(texts) = compile(compiler, "c", &options, SOURCE) else {
                return;
            };
            let mut islands = 0;
            for text in &texts {
                let far = text
                    .references
                    .iter()
                    .filter(|r| r.symbol.starts_with("far"));
                // An instruction may have two far fields.
                let mut instructions: BTreeMap<(usize, usize), Vec<FarField>> = BTreeMap::new();
                for (start, len, field) in far.filter_map(|r| text.locate(r)) {
                    instructions.entry((start, len)).or_default().push(field);
                }
                for ((start, len), fields) in instructions {
                    let bytes = &text.code[start..start + len];
                    let ip = 0x1000_0000 + start as u64;
                    let island = island::build(bytes, ip, &fields, 0x1000_0000 - 0x1000);
                    let island = island.unwrap_or_else(|e| panic!("{compiler} {options:?}: {e}"));
                    assert!(len >= JUMP_LEN && !island.code.is_empty());
                    islands += 1;
                }
            }
            println!("{compiler} {options:?}: {islands} islands");
            assert!(
                islands >= at_least,
                "{compiler} {options:?}: only {islands} islands"
            );
        }
    }
}

#[test]
fn gcc() {
    every_reference_gets_an_island("gcc", 100);
}

#[test]
fn clang() {
    for compiler in ["clang-14", "clang-19"] {
        if support::require(support::program(compiler)).is_some() {
            every_reference_gets_an_island(compiler, 100);
        }
    }
}
