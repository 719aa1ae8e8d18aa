//! The oracle judged: it accepts a right dump and finds every wrong byte and every wrong row.
//!
//! The dump is made by hand from a plain link by GNU ld, with scripts and names unlike those the
//! oracle makes; the stub of the far function is two lines of this file.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use support::build::{STATIC_SMALL, object};
use support::dump::Dump;
use support::elf::{Elf, STB_LOCAL};
use support::{formula, oracle};

const FAR: u64 = 0x7fff_1234_5000;
const STUB: u64 = 0x2000_0000;
const COMMON: u64 = 0x3000_0040;
const NEAR: u64 = 0x7eff_0000;

fn hex(value: u64) -> String {
    format!("{value:#x}")
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The sample linked by ld with section number i at 0x1000000 * (i + 1); references to the far
/// function go to where the stub is.
fn reference(sample: &PathBuf, elf: &Elf) -> Elf {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut script = format!(
        "far_function = {STUB:#x}; near_function = {NEAR:#x}; near_datum = {NEAR:#x} + 64; SECTIONS {{\n"
    );
    for (index, section) in elf.sections.iter().enumerate() {
        if section.is_alloc() {
            let name = &section.name;
            script.push_str(&format!(
                "{name} {:#x} : {{ KEEP(*({name})) }}\n",
                address(index)
            ));
        }
    }
    script.push_str(&format!(".commons {COMMON:#x} : {{ *(COMMON) }} }}\n"));
    let (script_path, out) = (folder.path().join("s"), folder.path().join("out"));
    std::fs::write(&script_path, script).expect("the folder is ours");
    let ld = Command::new("ld")
        .args(["-static", "-e", "entry", "--no-check-sections", "-n", "-T"])
        .arg(&script_path)
        .arg("-o")
        .arg(&out)
        .arg(sample)
        .output()
        .expect("ld starts");
    assert!(
        ld.status.success(),
        "{}",
        String::from_utf8_lossy(&ld.stderr)
    );
    Elf::parse(std::fs::read(&out).expect("ld wrote it"))
}

fn address(section: usize) -> u64 {
    0x0100_0000 * u64::try_from(section + 1).expect("few sections")
}

/// What low2g would print for the sample, were it to choose these addresses.
fn right_dump(sample: &PathBuf) -> Value {
    let elf = Elf::parse(std::fs::read(sample).expect("the sample is compiled"));
    let linked = reference(sample, &elf);
    let (mut sections, mut memory, mut relocations) = (vec![], vec![], vec![]);
    for (index, section) in elf
        .sections
        .iter()
        .enumerate()
        .filter(|(_, section)| section.is_alloc())
    {
        let addr = address(index);
        sections.push(json!({"index": index, "name": section.name, "addr": hex(addr), "size": section.size, "alloc": true}));
        if section.size > 0 {
            let at = linked
                .sections
                .iter()
                .position(|s| s.addr == addr && s.size == section.size)
                .expect("ld kept it");
            let bytes = linked.contents(at);
            let row = json!({"addr": hex(addr), "size": section.size, "prot": "rw-"});
            memory.push(row);
            let row = memory.last_mut().expect("just pushed");
            if bytes.is_empty() {
                row["zero"] = json!(true)
            } else {
                row["bytes"] = json!(digits(bytes))
            }
        }
        for rela in elf.relocations(index) {
            let symbol = &elf.symbols[rela.symbol];
            let far = symbol.name == "far_function";
            let s = match symbol.name.as_str() {
                "far_function" => FAR,
                "near_function" => NEAR,
                "near_datum" => NEAR + 64,
                "common_datum" => COMMON,
                _ => address(usize::from(symbol.section)) + symbol.value,
            };
            let at = linked
                .sections
                .iter()
                .position(|s| s.addr == addr && s.size == section.size)
                .expect("ld kept it");
            let start = usize::try_from(rela.offset).expect("an offset in a section");
            let field = &linked.contents(at)[start..start + formula::width(rela.kind)];
            let value = formula::extend(rela.kind, field);
            relocations.push(json!({
                "object": "oracle_sample.o", "section": section.name, "offset": rela.offset,
                "type": formula::type_name(rela.kind), "symbol": symbol.name, "addend": rela.addend,
                "P": hex(addr + rela.offset), "S": hex(s), "value": hex(value), "action": if far { "stub" } else { "direct" },
            }));
        }
    }
    let mut stub = vec![0xff, 0x25, 2, 0, 0, 0, 0xcc, 0xcc];
    stub.extend_from_slice(&FAR.to_le_bytes());
    memory.push(json!({"addr": hex(STUB), "size": 16, "prot": "r-x", "bytes": digits(&stub)}));
    memory.push(json!({"addr": hex(COMMON), "size": 4, "prot": "rw-", "zero": true}));
    let mut symbols = vec![
        json!({"name": "far_function", "addr": hex(FAR), "binding": "global", "kind": "external"}),
        json!({"name": "near_function", "addr": hex(NEAR), "binding": "global", "kind": "external"}),
        json!({"name": "near_datum", "addr": hex(NEAR + 64), "binding": "global", "kind": "external"}),
        json!({"name": "common_datum", "addr": hex(COMMON), "size": 4, "binding": "global", "kind": "common"}),
    ];
    for symbol in elf
        .symbols
        .iter()
        .filter(|s| s.binding != STB_LOCAL && s.section != 0 && s.section < 0xff00)
    {
        let addr = address(usize::from(symbol.section)) + symbol.value;
        symbols.push(
            json!({"name": symbol.name, "addr": hex(addr), "binding": "global", "kind": "defined"}),
        );
    }
    json!({
        "format": "low2g-dump/1", "status": "ok", "errors": [], "memory": memory, "symbols": symbols,
        "objects": [{"name": "oracle_sample.o", "sections": sections}], "relocations": relocations,
        "stubs": [{"object": "oracle_sample.o", "symbol": "far_function", "addr": hex(STUB), "section": ".stubs",
                   "kind": "plt", "target": hex(FAR)}],
    })
}

fn sample() -> PathBuf {
    let flags: Vec<String> = STATIC_SMALL
        .iter()
        .chain(&["-fcommon", "-fno-merge-constants", "-g"])
        .map(|&flag| flag.to_owned())
        .collect();
    object(&support::input("oracle_sample.c"), &flags)
}

fn judge(sample: &PathBuf, dump: &Value) -> Result<oracle::Summary, String> {
    let dump = Dump::parse(dump.to_string().as_bytes()).expect("the dump has the format");
    oracle::check(std::slice::from_ref(sample), &dump)
}

#[test]
fn a_right_dump_passes() {
    let sample = sample();
    let summary = judge(&sample, &right_dump(&sample)).expect("the dump is right");
    assert_eq!(
        (summary.objects, summary.by_formula, summary.islands),
        (1, 1, 0),
        "{summary:?}"
    );
    assert!(summary.by_ld >= 12 && summary.sections == 4, "{summary:?}");
}

#[test]
fn every_wrong_byte_is_found() {
    let sample = sample();
    let right = right_dump(&sample);
    let rows = right["memory"].as_array().expect("memory is a list");
    for (index, row) in rows.iter().enumerate() {
        let Some(bytes) = row["bytes"].as_str() else {
            continue;
        };
        // Each link by ld takes milliseconds: every seventh byte, and the last.
        let last = bytes.len() / 2 - 1;
        for at in (0..last).step_by(7).chain([last]) {
            let is_padding = row["addr"] == hex(STUB) && (6..8).contains(&at);
            if is_padding {
                continue;
            }
            let mut wrong = right.clone();
            let flipped = if &bytes[2 * at..2 * at + 1] == "0" {
                "1"
            } else {
                "0"
            };
            let text = format!("{}{flipped}{}", &bytes[..2 * at], &bytes[2 * at + 1..]);
            wrong["memory"][index]["bytes"] = json!(text);
            judge(&sample, &wrong)
                .expect_err(&format!("byte {at} of the row at {} is wrong", row["addr"]));
        }
    }
}

#[test]
fn every_wrong_row_is_found() {
    let sample = sample();
    let right = right_dump(&sample);
    let expect_fault = |what: &str, change: &dyn Fn(&mut Value)| {
        let mut wrong = right.clone();
        change(&mut wrong);
        judge(&sample, &wrong).expect_err(what)
    };
    expect_fault("a relocation is not listed", &|dump| {
        drop(dump["relocations"].as_array_mut().map(Vec::pop))
    });
    let extra = right["relocations"][0].clone();
    expect_fault("a relocation is listed twice", &|dump| {
        dump["relocations"]
            .as_array_mut()
            .expect("a list")
            .push(extra.clone());
    });
    expect_fault("a stub is not listed", &|dump| dump["stubs"] = json!([]));
    expect_fault("a stub's target is wrong", &|dump| {
        dump["stubs"][0]["target"] = json!("0x1")
    });
    expect_fault("a section is not in memory", &|dump| {
        drop(dump["memory"].as_array_mut().map(|m| m.remove(0)))
    });
    expect_fault("memory is writable and executable", &|dump| {
        dump["memory"][0]["prot"] = json!("rwx")
    });
    expect_fault("a value is wrong", &|dump| {
        dump["relocations"][0]["value"] = json!("0x1")
    });
    expect_fault("an S is wrong", &|dump| {
        dump["relocations"][0]["S"] = json!("0x1")
    });
    expect_fault("a symbol is elsewhere", &|dump| {
        let last = dump["symbols"].as_array().map_or(0, Vec::len) - 1;
        dump["symbols"][last]["addr"] = json!("0x1234");
    });
    expect_fault("a common is elsewhere", &|dump| {
        dump["symbols"][3]["addr"] = json!(hex(COMMON + 8))
    });
    expect_fault("a section is not low", &|dump| {
        dump["objects"][0]["sections"][0]["addr"] = json!("0x7f000000")
    });
    let unneeded = expect_fault("a stub where none is needed", &|dump| {
        for row in dump["relocations"].as_array_mut().expect("a list") {
            if row["symbol"] == "near_function" {
                row["action"] = json!("stub");
            }
        }
    });
    assert!(unneeded.contains("no stub of the dump"), "{unneeded}");
}
