//! Symbols as C programs meet them: each case is compiled, loaded and run by
//! `low2g run`, or linked and its dump read.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod battery;

use std::path::{Path, PathBuf};

use battery::elf::{self, Obj, Of, Sec, Sym, Where};
use battery::link::{Externals, dry, link, options};
use battery::programs::{compiled, printing, prints};
use battery::tool::{Folder, low2g, output, run, stderr};
use low2g::link::{Input, LinkError};

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
                hidden: false,
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
fn versions_of_process_symbols() {
    let main = ".symver old_puts, puts@GLIBC_2.2.5\n.globl main\n.type main,@function\n.text\nmain: mov $text, %edi\nxor %eax, %eax\nsub $8, %rsp\ncall old_puts\nxor %eax, %eax\nadd $8, %rsp\nret\n.section .rodata\ntext: .string \"by version\"\n";
    let folder = Folder::new();
    let object = folder.compile("v.s", main, &[]);
    assert_eq!(run(&[&object]), "by version\n");
}

#[test]
fn a_default_version_is_what_the_plain_name_means() {
    let main = printing("int value(void);", "value()");
    let versions = "int old_value(void) { return 1; } int new_value(void) { return 2; }\n\
                    __asm__(\".symver old_value, value@V1\\n.symver new_value, value@@V2\");";
    assert_eq!(prints(&[&main, versions], &[]), "2");
    assert_eq!(prints(&[versions, &main], &[]), "2");
}

#[test]
fn an_undefined_hidden_symbol_says_where_it_must_come_from() {
    let source = "__attribute__((visibility(\"hidden\"))) int puts(const char *);\n\
                  int main(void) { return puts(\"not the process's\"); }";
    let folder = Folder::new();
    let object = folder.compile("h.c", source, &[]);
    let ran = output(low2g("run").arg(&object));
    assert_eq!(ran.status.code(), Some(1));
    let text = stderr(&ran);
    assert!(
        text.contains("undefined_symbol: puts") && text.contains("it is hidden"),
        "{text}"
    );
}
