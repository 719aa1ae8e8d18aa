//! What compilers make of C that uses data and functions defined elsewhere: every reference
//! is found by linear decoding and gets an island.

mod island_support;

use island_support::assembled::compile;
use low2g::link::island::{self, JUMP_LEN};

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
                for reference in far {
                    let Some((start, len, field)) = text.locate(reference) else {
                        continue;
                    };
                    let bytes = &text.code[start..start + len];
                    let ip = 0x1000_0000 + start as u64;
                    let island = island::build(bytes, ip, &[field], 0x1000_0000 - 0x1000);
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
    let found = ["clang", "clang-14", "clang-19"].into_iter().find(|name| {
        std::process::Command::new(name)
            .arg("--version")
            .output()
            .is_ok()
    });
    match found {
        Some(name) => every_reference_gets_an_island(name, 100),
        None => println!("skipped: no clang"),
    }
}
