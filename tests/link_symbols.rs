//! Symbols and archives as C programs meet them: each case is compiled, loaded and run by
//! `low2g run`, or linked and its dump read.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod battery;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use battery::elf::{self, Obj, Of, Sec, Sym, Where};
use battery::link::{Externals, bytes_at, dry, link, options};
use battery::tool::{Folder, low2g, output, run, stderr, stdout, succeed};
use low2g::link::{Input, LinkError, LinkOptions};

/// A main that prints `expression` as a number.
fn printing(declarations: &str, expression: &str) -> String {
    format!(
        "extern int printf(const char *, ...);\n{declarations}\nint main(void) {{ printf(\"%d\", (int)({expression})); return 0; }}"
    )
}

/// Compiles `sources` in order and gives what the program prints, by low2g; the natively linked
/// program must print the same.
fn prints(sources: &[&str], flags: &[&str]) -> String {
    let folder = Folder::new();
    let objects = compiled(&folder, sources, flags);
    let files: Vec<&Path> = objects.iter().map(PathBuf::as_path).collect();
    let loaded = run(&files);
    assert_eq!(
        loaded,
        native(&folder, &files),
        "as linked natively: {sources:?}"
    );
    loaded
}

fn compiled(folder: &Folder, sources: &[&str], flags: &[&str]) -> Vec<PathBuf> {
    let named = sources.iter().enumerate();
    let ending = |source: &str| if source.starts_with('.') { "s" } else { "c" };
    named
        .map(|(number, source)| {
            folder.compile(&format!("f{number}.{}", ending(source)), source, flags)
        })
        .collect()
}

fn native(folder: &Folder, files: &[&Path]) -> String {
    let program = folder.path("native");
    let mut command = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    succeed(command.arg("-no-pie").args(files).arg("-o").arg(&program));
    stdout(&output(&mut Command::new(program)))
}

#[test]
fn strong_beats_weak_in_either_order() {
    let main = printing("int value(void);", "value()");
    let weak = "__attribute__((weak)) int value(void) { return 1; }";
    let strong = "int value(void) { return 2; }";
    assert_eq!(prints(&[&main, weak, strong], &[]), "2");
    assert_eq!(prints(&[&main, strong, weak], &[]), "2");
    assert_eq!(prints(&[weak, &main], &[]), "1");
    let other = "__attribute__((weak)) int value(void) { return 3; }";
    assert_eq!(
        prints(&[&main, weak, other], &[]),
        "1",
        "the first weak one stays"
    );
}

#[test]
fn commons_merge_and_give_way() {
    let main = printing(
        "int shared[2]; int second(void);",
        "(shared[0] = 5, second())",
    );
    assert_eq!(
        prints(
            &[
                &main,
                "int shared[40]; int second(void) { return shared[0] + shared[39]; }"
            ],
            &["-fcommon"]
        ),
        "5"
    );
    let main = printing("int shared;", "shared");
    assert_eq!(prints(&[&main, "int shared = 9;"], &["-fcommon"]), "9");
    assert_eq!(prints(&["int shared = 9;", &main], &["-fcommon"]), "9");
    let weak = "__attribute__((weak)) int shared = 4;";
    assert_eq!(
        prints(&[&main, weak], &["-fcommon"]),
        "0",
        "a common beats a weak definition"
    );
    let aligned = printing(
        "__attribute__((aligned(4096))) char a; __attribute__((aligned(64))) char b;",
        "((long)&a % 4096) + ((long)&b % 64)",
    );
    assert_eq!(prints(&[&aligned], &["-fcommon"]), "0");
}

#[test]
fn weak_references_are_0_or_found() {
    let main = printing(
        "__attribute__((weak)) int maybe(void); __attribute__((weak)) extern int data;",
        "maybe ? maybe() : &data ? 2 : 1",
    );
    assert_eq!(prints(&[&main], &[]), "1");
    assert_eq!(prints(&[&main, "int maybe(void) { return 7; }"], &[]), "7");
}

#[test]
fn visibility() {
    let main = printing(
        "int hidden(void), protected(void), internal(void);",
        "hidden() + protected() + internal()",
    );
    let other = "__attribute__((visibility(\"hidden\"))) int hidden(void) { return 1; }\n__attribute__((visibility(\"protected\"))) int protected(void) { return 2; }\n__attribute__((visibility(\"internal\"))) int internal(void) { return 4; }";
    assert_eq!(prints(&[&main, other], &[]), "7");
    // A hidden reference is never the process's.
    let folder = Folder::new();
    let hidden = folder.compile("h.c", "__attribute__((visibility(\"hidden\"))) int puts(const char *); int main(void) { return puts(\"x\"); }", &[]);
    let ended = output(low2g("run").arg(hidden));
    assert_eq!(ended.status.code(), Some(1));
    assert!(
        stderr(&ended).contains("undefined_symbol: puts"),
        "{}",
        stderr(&ended)
    );
}

#[test]
fn unique_symbols_merge() {
    let unique =
        ".globl value\n.type value, @gnu_unique_object\n.data\nvalue: .long 6\n.size value, 4\n";
    let main = printing("extern int value;", "value");
    let folder = Folder::new();
    let objects = compiled(&folder, &[&main, unique, unique], &[]);
    let files: Vec<&Path> = objects.iter().map(PathBuf::as_path).collect();
    assert_eq!(run(&files), "6");
}

#[test]
fn absolute_symbols_are_numbers() {
    let number = ".globl number\n.set number, 0x1234\n.globl same\n.set same, 5\n";
    let main = printing("extern char number[], same[];", "(long)number + (long)same");
    assert_eq!(prints(&[&main, number], &[]), (0x1234 + 5).to_string());
    // Two absolute definitions of one value are one (as in GNU ld); of two values they clash.
    let folder = Folder::new();
    let [one, two, three] = ["5", "5", "6"].map(|value| {
        let mut object = Obj::default();
        object.symbol(Sym::new(
            "n",
            elf::GLOBAL,
            elf::NOTYPE,
            Where::Absolute,
            value.parse().expect("a number"),
        ));
        object
    });
    let paths = [("one.o", one), ("two.o", two), ("three.o", three)]
        .map(|(name, object)| folder.object(name, &object));
    assert_eq!(
        output(low2g("link").args(&paths[..2])).status.code(),
        Some(0)
    );
    let ended = output(low2g("link").args([&paths[0], &paths[2]]));
    assert!(
        stderr(&ended).contains(
            "three.o(*ABS*+0x6): duplicate_symbol: n is also defined in one.o(*ABS*+0x5)"
        ),
        "{}",
        stderr(&ended)
    );
}

#[test]
fn every_duplicate_is_listed_with_both_places() {
    let twice = |text: &[u8]| {
        let mut object = Obj::default();
        let text = object.section(Sec::text(text));
        object.symbol(Sym::new("a", elf::GLOBAL, elf::FUNC, Where::In(text), 1));
        object.symbol(Sym::new("b", elf::GLOBAL, elf::FUNC, Where::In(text), 2));
        object.build()
    };
    let inputs = [
        Input::from_bytes("x.o", twice(&[0xc3; 4])),
        Input::from_bytes("y.o", twice(&[0xc3; 4])),
    ];
    let options = options();
    let failure = link(&inputs, &options, &Externals::default(), &dry(1)).expect_err("duplicates");
    let places: Vec<(String, String, String)> = failure
        .errors()
        .iter()
        .map(|error| match error {
            LinkError::DuplicateSymbol {
                symbol,
                first,
                second,
            } => (symbol.clone(), first.to_string(), second.to_string()),
            other => panic!("{other}"),
        })
        .collect();
    let row = |name: &str, offset: u32| {
        (
            name.to_owned(),
            format!("x.o(.text+{offset:#x})"),
            format!("y.o(.text+{offset:#x})"),
        )
    };
    assert_eq!(places, [row("a", 1), row("b", 2)]);
}

#[test]
fn comdat_groups_keep_the_first_copy() {
    let inline = |number: u32| {
        format!(
            ".section .text.pick,\"axG\",@progbits,pick,comdat\n.weak pick\n.type pick,@function\npick: mov ${number}, %eax\nret\n.text\n.globl from{number}\n.type from{number},@function\nfrom{number}: call pick\nret\n"
        )
    };
    let main = printing("int from1(void), from2(void);", "from1() * 10 + from2()");
    assert_eq!(prints(&[&main, &inline(1), &inline(2)], &[]), "11");
    assert_eq!(prints(&[&main, &inline(2), &inline(1)], &[]), "22");
    // Strong symbols in groups are no duplicates.
    let strong = |number: u32| inline(number).replace(".weak", ".globl");
    assert_eq!(prints(&[&main, &strong(1), &strong(2)], &[]), "11");
}

#[test]
fn section_brackets_and_linker_symbols() {
    let entry = |value: u32| {
        format!("__attribute__((section(\"entries\"), used)) static int e{value} = {value};")
    };
    let main = printing(
        "extern int __start_entries[], __stop_entries[]; __attribute__((weak)) extern int __start_none[]; extern char _GLOBAL_OFFSET_TABLE_[]; extern void *__dso_handle;\nint sum(void) { int s = 0; for (int *p = __start_entries; p < __stop_entries; p++) s = s * 10 + *p; return s; }",
        "&__dso_handle && _GLOBAL_OFFSET_TABLE_ && !__start_none ? sum() : -1",
    );
    assert_eq!(
        prints(&[&main, &entry(1), &entry(2), &entry(3), &entry(4)], &[]),
        "1234"
    );
}

#[test]
fn brackets_around_pinned_sections_hold_them() {
    let folder = Folder::new();
    let main = folder.compile("m.c", "extern int __start_zone[], __stop_zone[]; __attribute__((section(\"zone\"))) int a[4]; int main(void) { return __stop_zone - __start_zone; }", &[]);
    let ended = output(
        low2g("link")
            .args(["--json", "--map-section", "m.o,zone=0x20000000"])
            .arg(&main),
    );
    let dump: serde_json::Value = serde_json::from_slice(&ended.stdout).expect("a dump");
    let rows = dump["symbols"].as_array().expect("a list");
    let addr =
        |name: &str| rows.iter().find(|row| row["name"] == name).expect("listed")["addr"].clone();
    assert_eq!(
        (addr("__start_zone"), addr("a"), addr("__stop_zone")),
        (
            "0x20000000".into(),
            "0x20000000".into(),
            "0x20000010".into()
        )
    );
}

#[test]
fn brackets_around_code_and_data_are_refused() {
    let mut object = Obj::default();
    object.section(Sec::new("mixed", elf::ALLOC | elf::EXEC, vec![0xc3; 8]));
    object.section(Sec::new("mixed", elf::ALLOC | elf::WRITE, vec![0; 8]));
    let start = object.symbol(Sym::new(
        "__start_mixed",
        elf::GLOBAL,
        elf::NOTYPE,
        Where::Undefined,
        0,
    ));
    object.section(Sec::data([0u8; 8]).rel(0, 1, Of::Sym(start), 0));
    let inputs = [Input::from_bytes("mixed.o", object.build())];
    let options = options();
    let failure =
        link(&inputs, &options, &Externals::default(), &dry(1)).expect_err("no access suits both");
    assert!(failure.to_string().contains("mixed"), "{failure}");
}

#[test]
fn ifuncs_are_called_and_named_by_one_address() {
    let main = "
extern int printf(const char *, ...);
static int two(void) { return 2; }
static int (*choose(void))(void) { return two; }
int chosen(void) __attribute__((ifunc(\"choose\")));
int (*const table[])(void) = { chosen };
int other(void); int (*other_address(void))(void);
int main(void) { int (*p)(void) = chosen; printf(\"%d %d %d %d\", chosen(), p(), p == table[0] && p == other_address(), other()); return 0; }";
    let other = "int chosen(void); int other(void) { return chosen() + 40; } int (*other_address(void))(void) { return chosen; }";
    assert_eq!(prints(&[main, other], &[]), "2 2 1 42");
    assert_eq!(prints(&[main, other], &["-fno-plt"]), "2 2 1 42");
    assert_eq!(prints(&[main, other], &["-fpic"]), "2 2 1 42");
}

#[test]
fn undefined_symbols_once_each_with_count_and_first_use() {
    let mut object = Obj::default();
    let [a, b, weak] = [
        ("alpha", elf::GLOBAL),
        ("beta", elf::GLOBAL),
        ("gamma", elf::WEAK),
    ]
    .map(|(name, bind)| object.symbol(Sym::new(name, bind, elf::NOTYPE, Where::Undefined, 0)));
    object.symbol(Sym::new("alphb", elf::GLOBAL, elf::OBJECT, Where::In(0), 0));
    object.symbol(Sym::new(
        "unused",
        elf::GLOBAL,
        elf::NOTYPE,
        Where::Undefined,
        0,
    ));
    let data = Sec::data([0u8; 64])
        .rel(0, 1, Of::Sym(weak), 0)
        .rel(8, 1, Of::Sym(b), 0);
    object.section(
        data.rel(16, 1, Of::Sym(a), 0)
            .rel(24, 1, Of::Sym(b), 0)
            .rel(32, 1, Of::Sym(b), 0),
    );
    let inputs = [Input::from_bytes("u.o", object.build())];
    let options = options();
    let failure = link(&inputs, &options, &Externals::default(), &dry(1)).expect_err("undefined");
    let rows: Vec<_> = failure
        .errors()
        .iter()
        .map(|error| match error {
            LinkError::UndefinedSymbol {
                symbol,
                first_use,
                uses,
                nearest,
            } => (symbol.as_str(), first_use.offset, *uses, nearest.as_deref()),
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(
        rows,
        [("beta", 8, 3, None), ("alpha", 16, 1, Some("alphb"))]
    );
}

#[test]
fn constructors_and_destructors_in_the_order_of_their_priorities() {
    let say = "extern int puts(const char *); extern int atexit(void (*)(void));";
    let first = format!(
        "{say}
__attribute__((constructor(300))) static void c300(void) {{ puts(\"c300\"); }}
__attribute__((constructor(101))) static void c101(void) {{ puts(\"c101\"); }}
__attribute__((constructor)) static void c(void) {{ puts(\"c first\"); }}
__attribute__((destructor(101))) static void d101(void) {{ puts(\"d101\"); }}
__attribute__((destructor)) static void d(void) {{ puts(\"d first\"); }}
static void bye(void) {{ puts(\"atexit\"); }}
int main(void) {{ atexit(bye); puts(\"main\"); return 0; }}"
    );
    let second = format!("{say}
__attribute__((constructor(200))) static void c200(void) {{ puts(\"c200\"); }}
__attribute__((constructor)) static void c(void) {{ puts(\"c second\"); }}
__attribute__((destructor(200))) static void d200(void) {{ puts(\"d200\"); }}
__attribute__((destructor)) static void d(void) {{ puts(\"d second\"); }}
static void old(void) {{ puts(\"ctors\"); }} static void old150(void) {{ puts(\"ctors 150\"); }}
__attribute__((section(\".ctors\"), used)) static void (*const entry)(void) = old;
__attribute__((section(\".ctors.65385\"), used)) static void (*const numbered)(void) = old150;
static void early(int argc, char **argv) {{ puts(argc >= 1 && argv[argc] == 0 ? \"preinit\" : \"no arguments\"); }}
__attribute__((section(\".preinit_array\"), used)) static void (*const before)(int, char **) = early;");
    let order = prints(&[&first, &second], &[]);
    let lines: Vec<&str> = order.lines().collect();
    assert_eq!(
        lines[..5],
        ["preinit", "c101", "ctors 150", "c200", "c300"],
        "{order}"
    );
    assert_eq!(lines.last(), Some(&"d101"), "{order}");
}

#[test]
fn archives_are_searched_until_nothing_changes() {
    let folder = Folder::new();
    let sources = [
        ("main", printing("int a(void);", "a()")),
        (
            "a",
            "int b(void); int a(void) { return b() + 1; }".to_owned(),
        ),
        (
            "b",
            "int c(void); int b(void) { return c() + 10; }".to_owned(),
        ),
        ("c", "int d; int c(void) { return 100 + d; }".to_owned()),
        (
            "unused",
            "extern int missing(void); int unused(void) { return missing(); }".to_owned(),
        ),
    ];
    let objects = sources.map(|(name, source)| folder.compile(&format!("{name}.c"), &source, &[]));
    let [main, a, b, c, unused] = &objects;
    // Each refers to the one before: one pass in order would not do.
    let first = folder.archive("first.a", "rcs", &[c, unused, b]);
    let second = folder.archive("second.a", "rcs", &[a]);
    for files in [
        [main, &first, &second],
        [&second, &first, main],
        [&first, main, &second],
    ] {
        assert_eq!(run(&files.map(PathBuf::as_path)), "111");
    }
    let without_index = folder.archive("bare.a", "rcS", &[c, unused, b, a]);
    assert_eq!(run(&[main, &without_index]), "111");
    let whole = output(
        low2g("run")
            .arg("--whole-archive")
            .args([main, &first, &second]),
    );
    assert!(
        stderr(&whole).contains("first.a(unused.o)(.text"),
        "{}",
        stderr(&whole)
    );
    assert!(
        stderr(&whole).contains("undefined_symbol: missing (1 use)"),
        "{}",
        stderr(&whole)
    );
}

#[test]
fn members_of_one_name_and_what_does_not_pull() {
    let folder = Folder::new();
    // Two members of one name, as from two folders.
    let [one, two] = [
        "int one(void) { return 1; }",
        "int two(void) { return 20; }",
    ]
    .map(|source| {
        let object = folder.compile("kept.c", source, &[]);
        std::fs::read(object).expect("it was just compiled")
    });
    let members = [("kept.o", one), ("kept.o", two)];
    let first = folder.write(
        "lib.a",
        elf::archive(&members, Some(&[("one", 0), ("two", 1)])),
    );
    let main = folder.compile(
        "main.c",
        &printing(
            "int one(void), two(void); __attribute__((weak)) int three(void);",
            "one() + two() + (three != 0) * 1000",
        ),
        &[],
    );
    let three = folder.compile("three.c", "int three(void) { return 3; }", &[]);
    let weak = folder.archive("weak.a", "rcs", &[&three]);
    assert_eq!(
        run(&[&main, &first, &weak]),
        "21",
        "a weak reference pulls nothing"
    );
    let ended = output(low2g("link").arg("--json").args([&main, &first]));
    let dump: serde_json::Value = serde_json::from_slice(&ended.stdout).expect("a dump");
    let names: Vec<&str> = dump["objects"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|o| o["name"].as_str())
        .collect();
    assert_eq!(names, ["main.o", "lib.a(kept.o)", "lib.a(kept.o)#2"]);
}

#[test]
fn an_archive_defines_what_is_common_elsewhere() {
    let folder = Folder::new();
    let main = folder.compile("main.c", &printing("int shared;", "shared"), &["-fcommon"]);
    let defined = folder.compile("defined.c", "int shared = 42;", &[]);
    let common = folder.compile("common.c", "int shared; int beside = 1;", &["-fcommon"]);
    let library = folder.archive("defined.a", "rcs", &[&defined]);
    assert_eq!(run(&[&main, &library]), "42", "as GNU ld and lld do");
    assert_eq!(native(&folder, &[&main, &library]), "42");
    let library = folder.archive("common.a", "rcs", &[&common]);
    let ended = output(low2g("link").arg("--json").args([&main, &library]));
    let dump: serde_json::Value = serde_json::from_slice(&ended.stdout).expect("a dump");
    assert_eq!(
        dump["objects"].as_array().map(Vec::len),
        Some(1),
        "another common is no definition"
    );
}

#[test]
fn versions_of_process_symbols() {
    let main = ".symver old_puts, puts@GLIBC_2.2.5\n.globl main\n.type main,@function\n.text\nmain: mov $text, %edi\nxor %eax, %eax\nsub $8, %rsp\ncall old_puts\nxor %eax, %eax\nadd $8, %rsp\nret\n.section .rodata\ntext: .string \"by version\"\n";
    let folder = Folder::new();
    let object = folder.compile("v.s", main, &[]);
    assert_eq!(run(&[&object]), "by version\n");
}

#[test]
fn every_function_in_a_section_of_its_own() {
    let functions: String = (0..300)
        .map(|n| format!("int f{n}(int x) {{ return x + {n}; }}\n"))
        .collect();
    let calls: String = (0..300).map(|n| format!("s = f{n}(s);")).collect();
    let declarations: String = (0..300).map(|n| format!("int f{n}(int);")).collect();
    let main = printing(
        &format!("{declarations} int all(void) {{ int s = 0; {calls} return s; }}"),
        "all()",
    );
    assert_eq!(
        prints(
            &[&main, &functions],
            &["-ffunction-sections", "-fdata-sections"]
        ),
        (299 * 150).to_string()
    );
}

#[test]
fn more_than_65280_sections() {
    let mut object = Obj::default();
    let count = 66_000;
    for number in 0..count {
        let value = u64::try_from(number).expect("small").to_le_bytes();
        object.section(Sec::new(".data.n", elf::ALLOC | elf::WRITE, value.to_vec()).aligned(8));
    }
    let last = object.symbol(Sym::new(
        "last",
        elf::GLOBAL,
        elf::OBJECT,
        Where::In(count - 1),
        0,
    ));
    let local = object.symbol(Sym::new(
        "",
        elf::LOCAL,
        elf::SECTION,
        Where::In(count - 2),
        0,
    ));
    object.section(
        Sec::new("table", elf::ALLOC | elf::WRITE, vec![0; 16])
            .rel(0, 1, Of::Sym(last), 0)
            .rel(8, 1, Of::Sym(local), 0),
    );
    let inputs = [Input::from_bytes("many.o", object.build())];
    let options = LinkOptions::default();
    let linked = link(&inputs, &options, &Externals::default(), &dry(1)).expect("links");
    let last = linked.symbol("last").expect("defined");
    let number = u64::try_from(count - 1).expect("small");
    assert_eq!(bytes_at(&linked, last, 8), number.to_le_bytes());
    let table = linked
        .sections()
        .into_iter()
        .find(|section| section.section == "table")
        .expect("placed");
    let words = bytes_at(&linked, table.addr, 16);
    let word = |at: usize| u64::from_le_bytes(words[at..at + 8].try_into().expect("8 bytes"));
    assert_eq!(word(0), last);
    assert_eq!(bytes_at(&linked, word(8), 8), (number - 1).to_le_bytes());
    let start = Instant::now();
    let folder = Folder::new();
    let path = folder.object("many.o", &object);
    let ended = output(low2g("link").arg("--json").arg(path));
    assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "the dump took {:?}",
        start.elapsed()
    );
}

#[test]
fn huge_alignments_and_zeros() {
    for align in [1u64 << 12, 1 << 16, 1 << 21, 1 << 26, 1 << 30] {
        let mut object = Obj::default();
        let at = object.section(Sec::data([7u8; 8]).aligned(align));
        object.symbol(Sym::new("here", elf::GLOBAL, elf::OBJECT, Where::In(at), 0));
        let inputs = [Input::from_bytes("align.o", object.build())];
        let options = LinkOptions::default();
        let linked = link(&inputs, &options, &Externals::default(), &dry(1)).expect("links");
        assert_eq!(
            linked.symbol("here").expect("defined") % align,
            0,
            "{align:#x}"
        );
        let folder = Folder::new();
        assert_eq!(
            output(low2g("link").arg(folder.object("align.o", &object)))
                .status
                .code(),
            Some(0),
            "{align:#x}"
        );
    }
    let big = "static char zeros[1900L << 20]; extern int printf(const char *, ...); int main(int c, char **v) { long n = sizeof zeros; zeros[c] = 1; zeros[n - c] = 2; printf(\"%d\", zeros[1] + zeros[n - 1] + zeros[n / 2]); return 0; }";
    assert_eq!(prints(&[big], &[]), "3");
}

#[test]
fn ten_thousand_objects_in_one_link() {
    let count = 10_000usize;
    let inputs: Vec<Input> = (0..count)
        .map(|number| {
            let mut object = Obj::default();
            let text = object.section(Sec::text([0xe8, 0, 0, 0, 0, 0xc3]).aligned(16));
            object.section(Sec::data(Vec::new()));
            object.section(Sec::zeros(".bss", elf::ALLOC | elf::WRITE, 0));
            object.symbol(Sym::new(
                &format!("f{number}"),
                elf::GLOBAL,
                elf::FUNC,
                Where::In(text),
                0,
            ));
            let next = object.symbol(Sym::new(
                &format!("f{}", (number + 1) % count),
                elf::GLOBAL,
                elf::NOTYPE,
                Where::Undefined,
                0,
            ));
            object.sections[text] = object.sections[text].clone().rel(1, 4, Of::Sym(next), -4);
            Input::from_bytes(format!("o{number}.o"), object.build())
        })
        .collect();
    let options = LinkOptions::default();
    let start = Instant::now();
    let linked = link(&inputs, &options, &Externals::default(), &dry(1)).expect("links");
    let took = start.elapsed();
    let limit = Duration::from_millis(if cfg!(debug_assertions) { 5_000 } else { 900 });
    assert!(took < limit, "10,000 objects took {took:?}");
    for number in [0, 1, count - 1] {
        let [from, to] = [number, (number + 1) % count]
            .map(|n| linked.symbol(&format!("f{n}")).expect("defined"));
        let field = bytes_at(&linked, from + 1, 4);
        let distance = i32::from_le_bytes(field.try_into().expect("4 bytes"));
        assert_eq!((from + 5).wrapping_add_signed(i64::from(distance)), to);
    }
}
