//! The placing options of `low2g link`: --base, --map-section, --abs, --dry-run, --seed; and the
//! names, times and tables that it gives.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod battery;

use std::ffi::OsStr;

use battery::dump::{addr_of, dump_of, list, memory_at};
use battery::elf::{self, Obj, Of, Sec, Sym, Where};
use battery::link::unhex;
use battery::tool::{Folder, dump, low2g, output, stderr, stdout};

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

/// Every function of its own section has an address of its own: distances differ from one link
/// to the next, no two share a page, and each certificate speaks of that section alone.
#[test]
fn scattered_functions_have_independent_addresses() {
    let folder = Folder::new();
    let functions: String = (0..24)
        .map(|n| format!("__attribute__((noinline)) int f{n}(int x) {{ return x * {n} + 1; }}\n"))
        .collect();
    let calls: String = (0..24).map(|n| format!(" + f{n}(1)")).collect();
    let source = format!("{functions}int main(void) {{ return (0{calls}) % 256; }}");
    let object = folder.compile("many.c", &source, &["-ffunction-sections"]);
    let addresses = |options: &[&str]| {
        let mut arguments: Vec<&OsStr> = options.iter().map(OsStr::new).collect();
        arguments.push(object.as_os_str());
        let (dump, code) = dump(&arguments);
        assert_eq!(code, Some(0), "{dump}");
        let rows = list(&dump, "placement").to_vec();
        let functions = rows.into_iter().filter(|row| {
            let name = row["section"].as_str().expect("a string");
            name.starts_with(".text.f") || name == ".text.main"
        });
        functions
            .map(|row| {
                (
                    unhex(row["addr"].as_str().expect("a string")),
                    row["entropy_bits"].as_f64().expect("a number"),
                    row["step"].as_str().expect("a string").to_owned(),
                    row["free_slots"].as_u64().expect("a number"),
                )
            })
            .collect::<Vec<_>>()
    };
    let (first, second) = (addresses(&["--scatter"]), addresses(&["--scatter"]));
    assert_eq!(first.len(), 25);
    let mut same_distance = 0;
    for (pair, other) in first.windows(2).zip(second.windows(2)) {
        same_distance +=
            usize::from(pair[1].0.wrapping_sub(pair[0].0) == other[1].0.wrapping_sub(other[0].0));
    }
    assert!(
        same_distance < 3,
        "{same_distance} of 24 distances are the same"
    );
    for (addr, bits, step, slots) in &first {
        assert_ne!(step, "arena", "nothing shares its pages");
        let limit = f64::from(u32::try_from(*slots).expect("pages of 2 GiB")).log2();
        assert!(
            *bits > 15.0 && *bits <= limit + 0.01,
            "{addr:#x}: {bits} bits of {slots} slots"
        );
    }
    let mut pages: Vec<u64> = first.iter().map(|row| row.0 / 4096).collect();
    pages.sort_unstable();
    pages.dedup();
    assert_eq!(pages.len(), first.len(), "a page each at least");
    let plain = addresses(&[]);
    assert!(plain.iter().all(|row| row.2 == "arena"), "{plain:?}");
    let ran = output(low2g("run").arg("--scatter").arg(&object));
    let expected: i32 = (0..24).map(|n| n + 1).sum::<i32>() % 256;
    assert_eq!(ran.status.code(), Some(expected), "{}", stderr(&ran));
}
