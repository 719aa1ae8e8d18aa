//! Layout without the process: the block stands as a static program's, which GNU ld can judge,
//! and the dump says what became of each relocation.

#![cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;
#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod tls_support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use support::command::{low2g, run};
use support::elf::Elf;
use tls_support::{MODELS, compile};

/// Options of a link without the process.
const ALONE: &[&str] = &[
    "--dry-run",
    "--no-process-symbols",
    "--abs",
    "__tls_get_addr=0x7f0000000000",
];

/// The dump of a link that runs nothing.
fn dump(paths: &[PathBuf], options: &[&str]) -> Value {
    let mut command = low2g("link");
    command
        .args(["--json", "--entry", "mix"])
        .args(options)
        .args(paths);
    let finished = run(&mut command, b"");
    serde_json::from_slice(&finished.stdout).unwrap_or_else(|error| {
        panic!(
            "{command:?}: {error}: {}",
            String::from_utf8_lossy(&finished.stderr)
        )
    })
}

fn number(value: &Value) -> u64 {
    let text = value.as_str().expect("addresses are strings");
    u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("hexadecimal")
}

fn rows<'v>(dump: &'v Value, table: &str) -> &'v Vec<Value> {
    dump[table]
        .as_array()
        .unwrap_or_else(|| panic!("no {table}: {dump}"))
}

/// Bytes of the section `name` of the first object.
fn section(dump: &Value, name: &str) -> Vec<u8> {
    let sections = dump["objects"][0]["sections"].as_array().expect("a list");
    let row = sections
        .iter()
        .find(|row| row["name"] == name)
        .expect("is there");
    let (start, size) = (
        number(&row["addr"]),
        row["size"].as_u64().expect("a number"),
    );
    for region in rows(dump, "memory") {
        let base = number(&region["addr"]);
        let text = region["bytes"].as_str().unwrap_or_default();
        if base <= start && start + size <= base + region["size"].as_u64().expect("a number") {
            let at = usize::try_from(start - base).expect("small");
            return (at..at + usize::try_from(size).expect("small"))
                .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hexadecimal"))
                .collect();
        }
    }
    panic!("{name} is in no region");
}

/// The program that GNU ld makes of the objects.
fn gnu_ld(paths: &[PathBuf]) -> Elf {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let out = folder.path().join("out");
    let ld = Command::new("ld")
        .args(["-static", "-e", "mix", "--defsym", "__tls_get_addr=0", "-o"])
        .arg(&out)
        .args(paths)
        .output()
        .expect("ld starts");
    assert!(
        ld.status.success(),
        "{}",
        String::from_utf8_lossy(&ld.stderr)
    );
    Elf::parse(std::fs::read(&out).expect("ld wrote it"))
}

fn ld_section<'e>(elf: &'e Elf, name: &str) -> &'e [u8] {
    let section = elf.sections.iter().position(|section| section.name == name);
    elf.contents(section.expect("ld keeps it"))
}

#[test]
fn bytes_and_offsets_are_those_of_gnu_ld() {
    for model in MODELS {
        // Local-dynamic relaxes to other instructions (tls_models runs them); large code that is
        // position-independent holds the GOT's distance, which is not ld's.
        if model.name.starts_with("ld") || ["desc-ld", "gd-large"].contains(&model.name) {
            continue;
        }
        for align in [1, 8, 64, 256] {
            let object = compile(
                "define.c",
                model.flags,
                // Without `static`, or gcc makes those accesses local-dynamic.
                &[
                    format!("-DALIGN={align}"),
                    "-DSIZE=40".to_owned(),
                    "-Dstatic=".to_owned(),
                ],
            );
            let dump = dump(std::slice::from_ref(&object), ALONE);
            assert_eq!(dump["status"], "ok", "{}: {}", model.name, dump["errors"]);
            let elf = gnu_ld(&[object]);
            assert_eq!(
                section(&dump, ".text"),
                ld_section(&elf, ".text"),
                "{} alignment {align}",
                model.name
            );
            assert_eq!(dump["tls"]["mode"], "static");
            assert_eq!(dump["tls"]["align"], align);
            let block = dump["tls"]["offset"].as_i64().expect("offsets are numbers");
            let block = block.cast_unsigned();
            for row in rows(&dump, "symbols") {
                if row["kind"] == "tls" {
                    let offset = number(&row["addr"]);
                    assert_eq!(number(&row["tpoff"]), block.wrapping_add(offset), "{row}");
                }
            }
        }
    }
}

/// How often each action was taken.
fn actions(dump: &Value) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for row in rows(dump, "relocations") {
        let r_type = row["type"].as_str().expect("a name");
        let action = row["action"].as_str().expect("a name");
        if r_type.contains("TLS") || r_type.contains("TPOFF") {
            *counts.entry(action.to_owned()).or_default() += 1;
        }
    }
    counts
}

#[test]
fn relaxation_is_as_asked() {
    let expect: [(&str, &str, &str); 8] = [
        ("ie-pic", "got", "relax:ie-le"),
        ("gd", "relax:gd-ie", "relax:gd-le"),
        ("gd-no-plt", "relax:gd-ie", "relax:gd-le"),
        ("gd-large", "relax:gd-ie", "relax:gd-le"),
        ("ld", "got", "relax:ld-le"),
        ("ld-no-plt", "got", "relax:ld-le"),
        ("ld-large", "got", "relax:ld-le"),
        ("desc", "relax:tlsdesc-ie", "relax:tlsdesc-le"),
    ];
    for (name, pcrel, all) in expect {
        let model = MODELS
            .iter()
            .find(|model| model.name == name)
            .expect("listed");
        let object = compile("define.c", model.flags, &[]);
        let options = |relax| [ALONE, &["--relax", relax]].concat();
        let relaxed = actions(&dump(std::slice::from_ref(&object), &options("all")));
        assert!(relaxed.contains_key(all), "{name}: {relaxed:?}");
        assert!(!relaxed.contains_key("got"), "{name}: {relaxed:?}");
        let some = actions(&dump(std::slice::from_ref(&object), &options("pcrel")));
        assert!(some.contains_key(pcrel), "{name}: {some:?}");
        // Without relaxation every access keeps its slot.
        let none = dump(&[object], &options("none"));
        if name == "desc" {
            assert_eq!(
                none["status"], "error",
                "a descriptor needs the dynamic linker"
            );
            assert_eq!(none["errors"][0]["kind"], "tls");
            continue;
        }
        let none_actions = actions(&none);
        assert!(
            none_actions
                .keys()
                .all(|key| key == "got" || key == "direct"),
            "{name}: {none_actions:?}"
        );
        check_slots(&none, name);
    }
}

/// Every thread-local field of code points at a slot of its object, symbol and kind.
fn check_slots(dump: &Value, context: &str) {
    let mut checked = 0;
    for row in rows(dump, "relocations")
        .iter()
        .filter(|row| row["action"] == "got")
    {
        let kind = match row["type"].as_str().expect("a name") {
            "R_X86_64_TLSGD" => "tlsgd",
            "R_X86_64_TLSLD" => "tlsld",
            "R_X86_64_GOTTPOFF" => "tpoff",
            _ => continue,
        };
        let addend = row["addend"].as_i64().expect("a number");
        let slot = number(&row["value"])
            .wrapping_sub(addend.cast_unsigned())
            .wrapping_add(number(&row["P"]));
        let found = rows(dump, "got").iter().any(|got| {
            got["kind"] == kind && got["symbol"] == row["symbol"] && number(&got["addr"]) == slot
        });
        assert!(found, "{context}: {row}");
        checked += 1;
    }
    assert!(checked > 0, "{context}");
}

#[test]
fn the_process_s_offsets_show_in_the_dump() {
    let model = MODELS
        .iter()
        .find(|model| model.name == "ie")
        .expect("listed");
    let paths = [
        compile("define.c", model.flags, &[]),
        compile("use.c", model.flags, &[]),
    ];
    let native = dump(&paths, &[]);
    assert_eq!(native["tls"]["mode"], "static");
    let errno = rows(&native, "symbols")
        .iter()
        .find(|row| row["name"] == "errno");
    let errno = errno.expect("is referred to");
    assert_eq!(
        (&errno["kind"], &errno["type"]),
        (&"external".into(), &"tls".into())
    );
    assert!(number(&errno["tpoff"]).cast_signed() < 0, "{errno}");
    // Without the process nobody knows where errno is.
    let library = ["--dry-run"];
    let refused = dump(&paths, &library);
    assert_eq!(refused["status"], "error");
    let message = refused["errors"][0]["message"].as_str().expect("text");
    assert!(message.contains("layout without the process"), "{message}");
}

/// Debuggers want a variable's offset in the block, whatever the code does.
#[test]
fn debug_information_holds_offsets_in_the_block() {
    let model = MODELS
        .iter()
        .find(|model| model.name == "le")
        .expect("listed");
    let object = compile("define.c", model.flags, &["-g".to_owned()]);
    let dump = dump(std::slice::from_ref(&object), ALONE);
    let elf = Elf::parse(std::fs::read(&object).expect("compiled"));
    let index = elf
        .sections
        .iter()
        .position(|section| section.name == ".debug_info");
    let sections = dump["objects"][0]["sections"].as_array().expect("a list");
    let row = sections.iter().find(|row| row["name"] == ".debug_info");
    let text = row.expect("listed")["bytes"]
        .as_str()
        .expect("not loaded: has bytes");
    let mut offsets = BTreeMap::new();
    for rela in elf.relocations(index.expect("compiled with -g")) {
        // R_X86_64_DTPOFF64 and R_X86_64_DTPOFF32.
        if [17, 21].contains(&rela.kind) {
            let at = 2 * usize::try_from(rela.offset).expect("small");
            let low = u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
            offsets.insert(elf.symbols[rela.symbol].name.clone(), u64::from(low));
        }
    }
    assert_eq!(offsets.len(), 4, "{offsets:?}");
    for row in rows(&dump, "symbols")
        .iter()
        .filter(|row| row["kind"] == "tls")
    {
        let name = row["name"].as_str().expect("a name");
        if let Some(offset) = offsets.get(name) {
            assert_eq!(*offset, number(&row["addr"]), "{name}");
        }
    }
}

/// `low2g doctor` tells what is left, and the setting it advises raises it.
#[test]
fn doctor_measures_the_static_space() {
    let measure = |setting: Option<&str>| {
        let mut command = low2g("doctor");
        command.arg("--json");
        match setting {
            Some(setting) => command.env("GLIBC_TUNABLES", setting),
            None => command.env_remove("GLIBC_TUNABLES"),
        };
        let finished = run(&mut command, b"");
        let document: Value = serde_json::from_slice(&finished.stdout).expect("JSON");
        let checks = document["checks"].as_array().expect("a list").clone();
        let check = checks.iter().find(|check| check["id"] == "static-tls");
        let value = check.expect("listed")["value"].as_str().expect("text");
        let bytes = value.split(' ').next().unwrap_or_default().to_owned();
        bytes.parse::<u64>().expect("a number")
    };
    let usual = measure(None);
    assert!((512..4096).contains(&usual), "{usual}");
    let raised = measure(Some("glibc.rtld.optional_static_tls=100000"));
    assert!((90_000..110_000).contains(&raised), "{raised}");
}
