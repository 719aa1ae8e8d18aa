//! What other programs may rely on: the dump's shape field by field, the placing options of
//! `low2g link`, and a program's view of `low2g run` (arguments, environment, standard streams,
//! exit codes, signals). Source: the dump format "low2g-dump/1".

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod battery;

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;

use battery::elf::{self, Group, Obj, Of, Sec, Sym, Where};
use battery::link::unhex;
use battery::tool::{Folder, dump, low2g, output, stderr, stdout};
use serde_json::Value;

/// Code that loads from the GOT, calls a far function, names far data; data with 32-bit and
/// 64-bit words; a common, a debug section, a COMDAT copy too many.
const ONE: &str = r#"
#include <stdio.h>
extern char **environ;
int other(int);
__attribute__((weak)) extern int nothing;
int common_one;
int table[3] = {1, 2, 3};
int *const pointer = table;
int main(void) { printf("%p", (void *)&nothing); return other(common_one) + (environ == 0) + (stdout == 0); }
"#;
const TWO: &str = "static int counter = 7; int other(int x) { return x + counter; }";

fn dump_of(folder: &Folder, options: &[&str]) -> Value {
    let one = folder.compile("one.c", ONE, &["-fcommon", "-g"]);
    let two = folder.compile("two.c", TWO, &["-fno-plt"]);
    let mut arguments: Vec<OsString> = options.iter().map(OsString::from).collect();
    arguments.extend([one.into_os_string(), two.into_os_string()]);
    let arguments: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
    let (value, code) = dump(&arguments);
    assert_eq!(code, Some(0), "{value}");
    value
}

fn list<'v>(value: &'v Value, key: &str) -> &'v Vec<Value> {
    value[key]
        .as_array()
        .unwrap_or_else(|| panic!("{key} is a list"))
}

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

/// A predicate on a field, by name.
fn check(row: &Value, rules: &[(&str, &dyn Fn(&Value) -> bool)]) {
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
    let (text, number): (&dyn Fn(&Value) -> bool, &dyn Fn(&Value) -> bool) =
        (&Value::is_string, &Value::is_u64);
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
            ("offset", &|_| true),
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

/// The dump's memory at `addr`.
fn memory_at(dump: &Value, addr: u64, len: usize) -> Option<Vec<u8>> {
    list(dump, "memory").iter().find_map(|row| {
        let skip = usize::try_from(addr.checked_sub(unhex(row["addr"].as_str()?))?).ok()?;
        let size = usize::try_from(row["size"].as_u64()?).ok()?;
        (skip.checked_add(len)? <= size).then_some(())?;
        match row["bytes"].as_str() {
            Some(bytes) => bytes.as_bytes()[2 * skip..2 * (skip + len)]
                .chunks(2)
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
                .collect(),
            None => Some(vec![0; len]),
        }
    })
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
                            && addr % section["align"].as_u64().expect("a number") == 0
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

#[test]
fn names_of_archive_members_and_repeated_files() {
    let folder = Folder::new();
    let main = folder.compile(
        "main.c",
        "int helper(void); int main(void) { return helper(); }",
        &[],
    );
    let helper = folder.compile("helper.c", "int helper(void) { return 0; }", &[]);
    let library = folder.archive("lib.a", "rcs", &[&helper]);
    let extra = folder.write("other", "");
    std::fs::remove_file(&extra).expect("it was just written");
    std::fs::create_dir(&extra).expect("the folder can be written");
    let again = extra.join("main.o");
    std::fs::copy(folder.compile("empty.c", "int spare;", &[]), &again).expect("a copy");
    let (dump, code) = dump(&[main.as_os_str(), again.as_os_str(), library.as_os_str()]);
    assert_eq!(code, Some(0), "{dump}");
    let names: Vec<&str> = list(&dump, "objects")
        .iter()
        .filter_map(|o| o["name"].as_str())
        .collect();
    assert_eq!(names, ["main.o", "main.o#2", "lib.a(helper.o)"]);
}

fn addr_of(dump: &Value, object: &str, section: &str) -> u64 {
    let objects = list(dump, "objects");
    let object = objects
        .iter()
        .find(|row| row["name"] == object)
        .expect("the object is listed");
    let sections = list(object, "sections");
    let section = sections
        .iter()
        .find(|row| row["name"] == section)
        .expect("the section is listed");
    unhex(section["addr"].as_str().expect("an address"))
}

#[test]
fn sections_go_where_they_are_put() {
    let folder = Folder::new();
    let base = "0x10000000";
    let fixed = [
        "--base",
        base,
        "--map-section",
        "one.o,.text=0x20000000",
        "--map-section",
        "low2g,.got=0x30000000",
        "--map-section",
        "low2g,.stubs=0x30010000",
        "--map-section",
        "low2g,.islands=0x30020000",
    ];
    for dry in [&[][..], &["--dry-run"]] {
        let dump = dump_of(&folder, &[&fixed[..], dry].concat());
        assert_eq!(addr_of(&dump, "one.o", ".text"), 0x2000_0000);
        assert_eq!(dump["got_base"], "0x30000000");
        let data = addr_of(&dump, "one.o", ".data");
        assert!((0x1000_0000..0x1100_0000).contains(&data), "{data:#x}");
        assert!(addr_of(&dump, "two.o", ".text") > data, "input order");
        for row in list(&dump, "stubs") {
            let addr = unhex(row["addr"].as_str().expect("a string"));
            let room = if row["kind"] == "island" {
                0x3002_0000u64..0x3003_0000
            } else {
                0x3001_0000..0x3002_0000
            };
            assert!(room.contains(&addr), "{row}");
        }
    }
    let by_index = dump_of(&folder, &["--map-section", "one.o,#1=0x21000000"]);
    assert_eq!(addr_of(&by_index, "one.o", ".text"), 0x2100_0000);
}

#[test]
fn a_dry_run_takes_any_64_bit_address() {
    let folder = Folder::new();
    let mut object = Obj::default();
    let text = object.section(Sec::text([
        0xe8, 0, 0, 0, 0, 0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xc3,
    ]));
    let here = object.symbol(Sym::new(
        "here",
        elf::GLOBAL,
        elf::FUNC,
        Where::In(text),
        15,
    ));
    let far = object.symbol(Sym::new(
        "far",
        elf::GLOBAL,
        elf::NOTYPE,
        Where::Undefined,
        0,
    ));
    object.sections[text] = object.sections[text]
        .clone()
        .rel(1, 4, Of::Sym(far), -4)
        .rel(7, 1, Of::Sym(here), 0);
    let path = folder.object("high.o", &object);
    for base in ["0x7fffffff0000", "0xffffffff80000000", "0xfffffffffff00000"] {
        let arguments = [
            "--dry-run",
            "--base",
            base,
            "--abs",
            "far=0x1234567890ab",
            "--no-process-symbols",
        ];
        let arguments: Vec<&OsStr> = arguments
            .iter()
            .map(OsStr::new)
            .chain([path.as_os_str()])
            .collect();
        let (dump, code) = dump(&arguments);
        assert_eq!(code, Some(0), "{base}: {dump}");
        let at = unhex(base);
        assert_eq!(addr_of(&dump, "high.o", ".text"), at);
        let word = memory_at(&dump, at + 7, 8).expect("in memory");
        assert_eq!(word, (at + 15).to_le_bytes());
        let stub = &dump["stubs"][0];
        assert_eq!(
            stub["target"], "0x1234567890ab",
            "a call to an absolute external takes a stub"
        );
        let rows = list(&dump, "relocations");
        let call = rows
            .iter()
            .find(|row| row["symbol"] == "far")
            .expect("the call's row");
        assert_eq!(call["action"], "stub");
    }
    // Past the end of the address space there is nothing: an error, not another place.
    let end = [
        "--dry-run",
        "--base",
        "0xfffffffffffffff8",
        "--abs",
        "far=0",
    ];
    let ended = output(low2g("link").args(end).arg(&path));
    assert_ne!(ended.status.code(), Some(0), "{}", stdout(&ended));
    assert!(
        stderr(&ended).starts_with("low2g: error: high.o(.text+0x0): memory: "),
        "{}",
        stderr(&ended)
    );
}

#[test]
fn absolute_definitions_take_stubs_and_islands() {
    let folder = Folder::new();
    let source = "extern int value; int call(int); int *address(void) { return &value; } int main(void) { return call(value); }";
    let object = folder.compile("abs.c", source, &[]);
    let arguments = [
        "--abs",
        "value=0x7f0011223344",
        "--abs",
        "call=0x7f0055667788",
        "--no-process-symbols",
    ];
    let arguments: Vec<&OsStr> = arguments
        .iter()
        .map(OsStr::new)
        .chain([object.as_os_str()])
        .collect();
    let (dump, code) = dump(&arguments);
    assert_eq!(code, Some(0), "{dump}");
    let kinds: Vec<&str> = list(&dump, "stubs")
        .iter()
        .filter_map(|row| row["kind"].as_str())
        .collect();
    assert!(
        kinds.contains(&"plt") && kinds.iter().filter(|kind| **kind == "island").count() == 2,
        "{kinds:?}"
    );
    let word = folder.compile("word.s", ".data\n.long value\n", &[]);
    let ended = output(
        low2g("link")
            .args(["--abs", "value=0x7f0011223344"])
            .arg(&word),
    );
    assert_eq!(ended.status.code(), Some(1));
    assert!(
        stderr(&ended).contains("word.o(.data+0x0): overflow: R_X86_64_32 against value"),
        "{}",
        stderr(&ended)
    );
}

#[test]
fn a_seed_gives_the_same_addresses_and_no_seed_others() {
    let folder = Folder::new();
    let addresses = |options: &[&str]| {
        let dump = dump_of(&folder, options);
        (
            addr_of(&dump, "one.o", ".text"),
            addr_of(&dump, "two.o", ".data"),
            dump["placement"].clone(),
        )
    };
    for dry in [&[][..], &["--dry-run"]] {
        let seeded = [&["--seed", "77"][..], dry].concat();
        let first = addresses(&seeded);
        assert_eq!(first, addresses(&seeded));
        assert!(
            first
                .2
                .as_array()
                .expect("a list")
                .iter()
                .all(|row| row["entropy_bits"] == 0.0),
            "{}",
            first.2
        );
        assert_ne!(first.0, addresses(&[&["--seed", "78"][..], dry].concat()).0);
        assert_ne!(addresses(dry).0, addresses(dry).0, "drawn anew each time");
    }
}

#[test]
fn times_are_in_the_dump() {
    let folder = Folder::new();
    let dump = dump_of(&folder, &["--time", "--repeat", "3"]);
    let time = &dump["time"];
    assert_eq!(time["repeat"], 3);
    assert!(time["total_ns"]["median"].as_u64() >= time["total_ns"]["min"].as_u64());
    for phase in ["read", "resolve", "place", "copy", "relocate", "protect"] {
        assert!(time["phases_ns"][phase].is_u64(), "{phase}: {time}");
    }
    assert!(dump_of(&folder, &[])["time"].is_null());
}

#[test]
fn the_table_for_people_names_every_section() {
    let folder = Folder::new();
    let object = folder.compile("one.c", "int data = 1; int main(void) { return 0; }", &[]);
    let ended = output(low2g("link").arg(&object));
    assert_eq!(ended.status.code(), Some(0));
    for words in ["one.o(.text)", "one.o(.data)", "r-x", "rw-", "1 objects"] {
        assert!(
            stdout(&ended).contains(words),
            "{words}: {}",
            stdout(&ended)
        );
    }
}

fn compiled(folder: &Folder, source: &str) -> std::path::PathBuf {
    folder.compile("program.c", source, &[])
}

#[test]
fn arguments_environment_and_standard_streams() {
    let folder = Folder::new();
    let source = r#"
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv, char **envp) {
    for (int i = 0; i < argc; i++) printf("[%s]", argv[i]);
    printf("%d %s\n", argv[argc] == 0, getenv("LOW2G_TEST_WORD"));
    for (; *envp; envp++) if (!__builtin_strncmp(*envp, "LOW2G_TEST_WORD=", 16)) puts(*envp);
    int c; long sum = 0; while ((c = getchar()) != EOF) sum += c;
    printf("%ld", sum); fprintf(stderr, "to stderr"); return 3; }
"#;
    let program = compiled(&folder, source);
    let mut command = low2g("run");
    command
        .arg(&program)
        .args(["--", "one", "", "two words", "--seed", "-x", "é"]);
    command
        .env("LOW2G_TEST_WORD", "value")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("low2g starts");
    let text = vec![b'a'; 200_000];
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(&text)
        .expect("the program reads all");
    let ended = child.wait_with_output().expect("it ends");
    let wanted = format!(
        "[{}][one][][two words][--seed][-x][é]1 value\nLOW2G_TEST_WORD=value\n{}",
        program.display(),
        97 * 200_000
    );
    assert_eq!(stdout(&ended), wanted);
    assert_eq!(stderr(&ended), "to stderr");
    assert_eq!(ended.status.code(), Some(3));
}

#[test]
fn every_exit_code_and_the_ways_to_end() {
    let folder = Folder::new();
    let source = r#"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <signal.h>
static void bye(void) { printf("bye "); }
static void first(void) { printf("registered first "); }
__attribute__((constructor)) static void begin(void) { printf("begin "); }
__attribute__((destructor)) static void end(void) { printf("end"); }
int main(int argc, char **argv) {
    int code = atoi(argv[2]);
    atexit(first); atexit(bye); printf("main ");
    switch (argv[1][0]) {
    case 'r': return code;
    case 'e': exit(code);
    case '_': _exit(code);
    case 'a': abort();
    case 'k': raise(code);
    case 's': *(volatile int *)8 = 1;
    case 'f': __builtin_trap();
    }
    return 99; }
"#;
    let program = compiled(&folder, source);
    let ran = |how: &str, code: i32| {
        output(
            low2g("run")
                .arg(&program)
                .arg("--")
                .arg(how)
                .arg(code.to_string()),
        )
    };
    for code in (0..=255).step_by(if cfg!(debug_assertions) { 15 } else { 1 }) {
        assert_eq!(ran("return", code).status.code(), Some(code));
    }
    assert_eq!(
        ran("return", 256 + 7).status.code(),
        Some(7),
        "the low 8 bits, as everywhere"
    );
    assert_eq!(ran("return", -1).status.code(), Some(255));
    for (how, code) in [("return", 4), ("exit", 5)] {
        let ended = ran(how, code);
        assert_eq!(ended.status.code(), Some(code));
        assert_eq!(
            stdout(&ended),
            "begin main bye registered first end",
            "{how}"
        );
    }
    assert_eq!(stdout(&ran("_exit", 6)), "", "_exit flushes nothing");
    assert_eq!(ran("_exit", 6).status.code(), Some(6));
    for (how, number, signal) in [
        ("abort", 0, 6),
        ("kill", 15, 15),
        ("kill", 9, 9),
        ("segv", 0, 11),
        ("fault", 0, 4),
    ] {
        assert_eq!(
            ran(how, number).status.signal(),
            Some(signal),
            "{how} {number}"
        );
    }
}

#[test]
fn a_program_whose_reader_ends_is_ended_by_sigpipe() {
    let folder = Folder::new();
    let program = compiled(
        &folder,
        "#include <stdio.h>\nint main(void) { for (;;) puts(\"y\"); }",
    );
    let mut child = low2g("run")
        .arg(&program)
        .stdout(Stdio::piped())
        .spawn()
        .expect("low2g starts");
    drop(child.stdout.take());
    let status = child.wait().expect("it ends");
    assert_eq!(status.signal(), Some(13), "as when run natively: {status}");
}

#[test]
fn sources_objects_archives_and_entries() {
    let folder = Folder::new();
    let source = folder.write("direct.c", "int main(void) { return 11; }");
    assert_eq!(output(low2g("run").arg(&source)).status.code(), Some(11));
    let other = folder.compile(
        "other.c",
        "int main(void) { return 1; } int begin(void) { return 12; }",
        &[],
    );
    assert_eq!(
        output(low2g("run").args(["--entry", "begin"]).arg(&other))
            .status
            .code(),
        Some(12)
    );
    let library = folder.archive("lib.a", "rcs", &[&other]);
    assert_eq!(
        output(low2g("run").arg(&library)).status.code(),
        Some(1),
        "the entry pulls its member"
    );
    assert_eq!(
        output(low2g("run").args(["--entry", "begin"]).arg(&library))
            .status
            .code(),
        Some(12)
    );
    let plain = folder.compile(
        "plain.s",
        ".globl main\n.text\nmain:\nmov $13, %eax\nret\n",
        &[],
    );
    assert_eq!(
        output(low2g("run").arg(&plain)).status.code(),
        Some(13),
        "a label without a type"
    );
    for options in [
        ["--placement", "first-fit"],
        ["--placement", "kernel"],
        ["--reach", "2g-full"],
        ["--reach", "4g"],
        ["--relax", "none"],
        ["--model", "medium"],
    ] {
        assert_eq!(
            output(low2g("run").args(options).arg(&source))
                .status
                .code(),
            Some(11),
            "{options:?}"
        );
    }
    let library = ["-l", "libm.so.6"];
    let cosine = folder.write(
        "cos.c",
        "double cos(double); int main(int c, char **v) { return (int)(cos(c - 1) * 14); }",
    );
    assert_eq!(
        output(low2g("run").args(library).arg(&cosine))
            .status
            .code(),
        Some(14)
    );
    assert!(Path::new(&source).exists());
}
