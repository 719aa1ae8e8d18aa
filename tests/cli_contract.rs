//! What other programs may rely on: the dump's shape field by field. Source: the dump format "low2g-dump/1".

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod battery;

use battery::dump::{dump_of, list, memory_at};
use battery::elf::{self, Group, Obj, Of, Sec, Sym, Where};
use battery::link::unhex;
use battery::tool::{Folder, dump};
use serde_json::Value;

fn is_hex(value: &Value) -> bool {
    value.as_str().is_some_and(|text| {
        text.strip_prefix("0x").is_some_and(|digits| {
            !digits.is_empty()
                && digits.len() <= 16
                && digits
                    .chars()
                    .all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
                && (digits == "0" || !digits.starts_with('0'))
        })
    })
}

fn is_bytes(value: &Value) -> bool {
    value.as_str().is_some_and(|text| {
        text.len() % 2 == 0
            && text
                .chars()
                .all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
    })
}

/// What a field must be.
type Rule<'r> = &'r dyn Fn(&Value) -> bool;

/// Every field as its rule says, and no other field.
fn check(row: &Value, rules: &[(&str, Rule<'_>)]) {
    for (key, rule) in rules {
        assert!(rule(&row[*key]), "{key} of {row}");
    }
    let known: Vec<&str> = rules.iter().map(|(key, _)| *key).collect();
    for key in row.as_object().expect("a row is an object").keys() {
        assert!(
            known.contains(&key.as_str()),
            "{key} is not in the format: {row}"
        );
    }
}

fn one_of(words: &'static [&'static str]) -> impl Fn(&Value) -> bool {
    move |value| value.as_str().is_some_and(|text| words.contains(&text))
}

#[test]
fn rows_have_the_fields_and_types_of_the_format() {
    let folder = Folder::new();
    let dump = dump_of(&folder, &[]);
    assert_eq!(dump["format"], "low2g-dump/1");
    assert_eq!(dump["status"], "ok");
    assert!(list(&dump, "errors").is_empty());
    assert!(is_hex(&dump["got_base"]));
    let (text, number): (Rule<'_>, Rule<'_>) = (&Value::is_string, &Value::is_u64);
    let optional = |rule: fn(&Value) -> bool| move |value: &Value| value.is_null() || rule(value);
    let discarded = |value: &Value| value.is_null() || value == &Value::Bool(true);
    for object in list(&dump, "objects") {
        check(object, &[("name", text), ("sections", &Value::is_array)]);
        for section in list(object, "sections") {
            check(
                section,
                &[
                    ("index", number),
                    ("name", text),
                    ("addr", &optional(is_hex)),
                    ("size", number),
                    ("align", number),
                    ("flags", &|flags| is_hex(flags) || flags.is_u64()),
                    ("alloc", &Value::is_boolean),
                    ("zero_fill", &Value::is_boolean),
                    ("discarded", &discarded),
                    ("bytes", &optional(is_bytes)),
                ],
            );
        }
    }
    for row in list(&dump, "memory") {
        check(
            row,
            &[
                ("addr", &is_hex),
                ("size", number),
                ("prot", &one_of(&["r-x", "r--", "rw-"])),
                ("bytes", &optional(is_bytes)),
                ("zero", &optional(Value::is_boolean)),
            ],
        );
        assert!(
            row["bytes"].is_string() != (row["zero"] == true),
            "bytes or zero: {}",
            row["addr"]
        );
    }
    for row in list(&dump, "symbols") {
        check(
            row,
            &[
                ("name", text),
                ("addr", &is_hex),
                ("size", number),
                ("object", text),
                ("binding", &one_of(&["local", "global", "weak", "unique"])),
                ("type", text),
                (
                    "kind",
                    &one_of(&[
                        "defined",
                        "common",
                        "absolute",
                        "external",
                        "undef-weak",
                        "tls",
                        "ifunc",
                    ]),
                ),
                ("tpoff", &optional(is_hex)),
            ],
        );
    }
}

#[test]
fn rows_of_slots_stubs_and_relocations_have_the_fields_of_the_format() {
    let folder = Folder::new();
    let dump = dump_of(&folder, &[]);
    let (text, number): (Rule<'_>, Rule<'_>) = (&Value::is_string, &Value::is_u64);
    let optional = |rule: fn(&Value) -> bool| move |value: &Value| value.is_null() || rule(value);
    for row in list(&dump, "got") {
        check(
            row,
            &[
                ("object", text),
                ("symbol", text),
                ("addr", &is_hex),
                (
                    "kind",
                    &one_of(&["addr", "tpoff", "tlsgd", "tlsld", "tlsdesc"]),
                ),
            ],
        );
    }
    for row in list(&dump, "stubs") {
        check(
            row,
            &[
                ("object", text),
                ("symbol", text),
                ("addr", &is_hex),
                ("section", text),
                ("kind", &one_of(&["plt", "ifunc", "veneer", "island"])),
                ("target", &is_hex),
                ("place", &optional(is_hex)),
            ],
        );
        assert_eq!(row["place"].is_string(), row["kind"] == "island", "{row}");
    }
    check(
        &dump["tls"],
        &[
            ("mode", &one_of(&["static", "dynamic", "pool", "none"])),
            ("modid", &|_| true),
            ("offset", number),
            ("size", number),
            ("align", number),
        ],
    );
    for row in list(&dump, "placement") {
        check(
            row,
            &[
                ("object", text),
                ("section", text),
                ("addr", &is_hex),
                ("size", number),
                ("entropy_bits", &Value::is_number),
                ("step", text),
                ("free_slots", number),
            ],
        );
    }
    for row in list(&dump, "relocations") {
        check(
            row,
            &[
                ("object", text),
                ("section", text),
                ("offset", number),
                ("type", text),
                ("symbol", text),
                ("addend", &Value::is_i64),
                ("P", &is_hex),
                ("S", &is_hex),
                ("value", &is_hex),
                ("action", text),
            ],
        );
    }
}

#[test]
fn rows_agree_with_memory_and_with_each_other() {
    let folder = Folder::new();
    for relax in ["none", "pcrel", "all"] {
        let dump = dump_of(&folder, &["--relax", relax]);
        let symbol = |name: &str| {
            let rows = list(&dump, "symbols");
            rows.iter()
                .find(|row| row["name"] == name)
                .unwrap_or_else(|| panic!("{name} is listed"))
        };
        assert_eq!(symbol("_GLOBAL_OFFSET_TABLE_")["addr"], dump["got_base"]);
        assert_eq!(symbol("common_one")["kind"], "common");
        assert_eq!(symbol("nothing")["kind"], "undef-weak");
        assert_eq!(symbol("environ")["kind"], "external");
        let mut kinds = std::collections::BTreeSet::new();
        for row in list(&dump, "relocations") {
            let action = row["action"].as_str().expect("a string");
            kinds.insert(action.to_owned());
            let bytes = match row["type"].as_str().expect("a string") {
                "R_X86_64_NONE" => continue,
                "R_X86_64_64" | "R_X86_64_PC64" => 8,
                _ => 4,
            };
            if !matches!(
                action,
                "direct" | "stub" | "got" | "relax:lea" | "relax:imm" | "relax:call"
            ) {
                continue;
            }
            let value = unhex(row["value"].as_str().expect("a string")).to_le_bytes();
            let place = unhex(row["P"].as_str().expect("a string"));
            let field = memory_at(&dump, place, bytes);
            assert_eq!(field.as_deref(), Some(&value[..bytes]), "{row}");
        }
        assert!(
            kinds.contains("direct") && kinds.contains("stub") && kinds.contains("island"),
            "{kinds:?}"
        );
        for row in list(&dump, "got") {
            let slot = memory_at(&dump, unhex(row["addr"].as_str().expect("a string")), 8)
                .expect("in memory");
            let held = u64::from_le_bytes(slot.try_into().expect("8 bytes"));
            assert_eq!(
                held,
                unhex(
                    symbol(row["symbol"].as_str().expect("a string"))["addr"]
                        .as_str()
                        .expect("a string")
                ),
                "{row}"
            );
        }
        for object in list(&dump, "objects") {
            let sections = list(object, "sections");
            let got = sections
                .iter()
                .find(|section| section["name"] == ".got")
                .expect("every object lists a .got");
            assert_eq!(got["addr"], dump["got_base"]);
            for section in sections {
                let has_memory = section["alloc"] == true && section["size"] != 0;
                assert_eq!(
                    section["bytes"].is_string(),
                    section["alloc"] == false && section["zero_fill"] == false,
                    "{}",
                    section["name"]
                );
                if has_memory {
                    let addr = unhex(section["addr"].as_str().expect("an address"));
                    assert!(
                        addr < 0x7f00_0000
                            && addr.is_multiple_of(section["align"].as_u64().expect("a number"))
                    );
                    assert!(
                        memory_at(&dump, addr, 1).is_some(),
                        "{} is in memory",
                        section["name"]
                    );
                }
            }
        }
        for (before, after) in list(&dump, "memory")
            .iter()
            .zip(list(&dump, "memory").iter().skip(1))
        {
            let end = unhex(before["addr"].as_str().expect("a string"))
                + before["size"].as_u64().expect("a number");
            assert!(
                end <= unhex(after["addr"].as_str().expect("a string")),
                "sorted and apart"
            );
        }
    }
}

#[test]
fn discarded_sections_and_debug_references_to_them() {
    let folder = Folder::new();
    let mut object = Obj::default();
    let text = object.section(Sec::new(
        ".text.once",
        elf::ALLOC | elf::EXEC,
        vec![0xc3; 8],
    ));
    let once = object.symbol(Sym::new("once", elf::WEAK, elf::FUNC, Where::In(text), 4));
    let local = object.symbol(Sym::new("", elf::LOCAL, elf::SECTION, Where::In(text), 0));
    object.section(
        Sec::new(".debug_info", 0, vec![0x55; 16])
            .rel(0, 1, Of::Sym(local), 4)
            .rel(8, 1, Of::Sym(once), 0),
    );
    object.groups.push(Group {
        signature: once,
        members: vec![text],
    });
    let first = folder.object("first.o", &object);
    let second = folder.object("second.o", &object);
    let (dump, code) = dump(&[first.as_os_str(), second.as_os_str()]);
    assert_eq!(code, Some(0));
    let section = |object: usize, name: &str| {
        let sections = list(&dump["objects"][object], "sections");
        sections
            .iter()
            .find(|section| section["name"] == name)
            .expect("listed")
            .clone()
    };
    assert!(section(0, ".text.once")["discarded"].is_null());
    assert_eq!(section(1, ".text.once")["discarded"], true);
    assert!(
        section(1, ".text.once")["addr"].is_null(),
        "discarded sections have no address"
    );
    let kept = unhex(
        section(0, ".text.once")["addr"]
            .as_str()
            .expect("an address"),
    ) + 4;
    let hex = |value: u64| {
        value
            .to_le_bytes()
            .map(|byte| format!("{byte:02x}"))
            .concat()
    };
    assert_eq!(section(0, ".debug_info")["bytes"], hex(kept).repeat(2));
    // The local reference is to dropped code: 0. The global one is to the copy that was kept.
    let bytes = section(1, ".debug_info")["bytes"]
        .as_str()
        .expect("bytes")
        .to_owned();
    assert_eq!(
        &bytes[16..],
        hex(kept),
        "a global's reference is to the copy that was kept"
    );
    assert!(
        bytes.starts_with(&hex(0)),
        "references to discarded code are 0: {bytes}"
    );
}
