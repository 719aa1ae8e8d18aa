//! How the command-line tool fails: exit codes (1 link error, 2 usage, 3 no low memory) and one
//! line `low2g: error: OBJECT(SECTION+0xOFF): KIND: what` an error.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod battery;

use std::path::Path;
use std::process::Command;

use battery::elf::{self, Obj, Of, Sec, Sym, Where};
use battery::tool::{Folder, low2g, output, refused, stderr, stdout};

const MAIN: &str = "int main(void) { return 0; }";

/// `low2g link FILE` and `low2g run FILE` refuse it alike, with exit code 1.
fn refused_file(path: &Path, words: &[&str]) {
    for subcommand in ["link", "run"] {
        refused(low2g(subcommand).arg(path), 1, words);
    }
}

/// A good object with one changed byte range of its ELF header.
fn with_header(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut object = Obj::default();
    object.section(Sec::text([0x31, 0xc0, 0xc3]));
    let mut file = object.build();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

#[test]
fn files_that_are_no_objects() {
    let folder = Folder::new();
    refused_file(
        &folder.path("missing.o"),
        &["missing.o: input: cannot read", "No such file"],
    );
    refused_file(
        &folder.path("missing.c"),
        &["missing.c: input: cannot read"],
    );
    refused_file(Path::new("/"), &[": input: cannot read", "directory"]);
    let cases: &[(&str, &[u8], &str)] = &[
        (
            "empty.o",
            b"",
            "empty.o: input: is not an ELF file (0 bytes",
        ),
        (
            "text.o",
            b"hello, world",
            "text.o: input: is not an ELF file (12 bytes, begins with [68 65 6c 6c]",
        ),
        (
            "bitcode.o",
            b"BC\xc0\xde\x35\x14\0\0",
            "bitcode.o: input: is LLVM bitcode",
        ),
        ("short.o", b"\x7fELF\x02\x01", "short.o: input: "),
        (
            "script.a",
            b"/* GNU ld script */\nGROUP ( /nowhere/libm.so.6 )\n",
            "script.a: input: linker script: names /nowhere/libm.so.6, which is not in",
        ),
        (
            "input.so",
            b"SECTIONS { .text : { *(.text) } }\n",
            "input.so: input: linker script: SECTIONS is not understood",
        ),
        (
            "cut.a",
            b"!<arch>\nx.o/            0           0     0     644     1000      `\n",
            "cut.a",
        ),
    ];
    for (name, bytes, words) in cases {
        refused_file(&folder.write(name, bytes), &[words]);
    }
    // An archive without members defines nothing; it is not malformed.
    let nothing = folder.write("nothing.a", b"!<arch>\n");
    assert_eq!(output(low2g("link").arg(nothing)).status.code(), Some(0));
}

#[test]
fn elf_files_of_another_kind() {
    let folder = Folder::new();
    let cases: &[(&str, Vec<u8>, &str)] = &[
        (
            "class32.o",
            with_header(4, &[1]),
            "ELF of class 1 and byte order 1",
        ),
        (
            "big.o",
            with_header(5, &[2]),
            "ELF of class 2 and byte order 2",
        ),
        ("arm.o", with_header(18, &[40]), "is for machine 40"),
        ("aarch64.o", with_header(18, &[183]), "is for machine 183"),
        ("exec.o", with_header(16, &[2]), "is a linked executable"),
        ("dyn.o", with_header(16, &[3]), "is a shared library"),
        ("core.o", with_header(16, &[4]), "is ELF of type 4"),
    ];
    for (name, bytes, words) in cases {
        refused_file(&folder.write(name, bytes), &[name, ": input: ", words]);
    }
    refused_file(
        Path::new(env!("CARGO_BIN_EXE_low2g")),
        &["low2g: input: is a shared library"],
    );
    let slim = folder.compile("slim.c", MAIN, &["-flto", "-fno-fat-lto-objects"]);
    refused_file(&slim, &["slim.o: input: ", "-flto"]);
    // The trampoline of a nested function stands on the stack, which is not executable.
    let nested = "int call(int (*f)(void)) { return f(); }\n\
                  int main(int argc, char **argv) { int f(void) { return argc; } return call(f); }";
    let nested = folder.compile("nested.c", nested, &["-O0"]);
    refused_file(
        &nested,
        &["nested.o: input: ", "executable stack", "--noexecstack"],
    );
}

#[test]
fn every_truncation_of_the_demo_is_one_error() {
    let folder = Folder::new();
    let demo = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/demo/demo.o"))
        .expect("demo.o is part of the repository");
    // Every byte is tried in link_malformed; here a few through the tool.
    for len in [1, 4, 16, 63, 64, 100, demo.len() / 2, demo.len() - 1] {
        refused_file(&folder.write("cut.o", &demo[..len]), &["cut.o: input: "]);
    }
}

#[test]
fn compilers_that_fail() {
    let folder = Folder::new();
    let broken = folder.write("broken.c", "int main(void) { return }\n");
    let ended = output(low2g("run").arg(&broken));
    assert_eq!(ended.status.code(), Some(1));
    assert!(
        stderr(&ended).contains("low2g: error: broken.c: input: "),
        "{}",
        stderr(&ended)
    );
    let good = folder.write("good.c", MAIN);
    refused(
        low2g("run").arg(&good).env("CC", "/nonexistent/cc"),
        1,
        &[
            "good.c: input: cannot run the C compiler /nonexistent/cc",
            "set CC",
        ],
    );
    refused(
        low2g("run").args(["-l", "libnothing.so.9"]).arg(&good),
        1,
        &["input: cannot open library libnothing.so.9"],
    );
}

#[test]
fn usage() {
    let folder = Folder::new();
    let good = folder.compile("good.c", MAIN, &[]);
    let data = folder.compile("two.c", "int two;", &[]);
    let cases: &[&[&str]] = &[
        &["link"],
        &["run"],
        &["frobnicate"],
        &["link", "--relax", "some", "x.o"],
        &["link", "--far-data", "mirror", "x.o"],
        &["link", "--reach", "3g", "x.o"],
        &["link", "--placement", "anywhere", "x.o"],
        &["link", "--model", "kernel", "x.o"],
        &["link", "--seed", "-1", "x.o"],
        &["link", "--abs", "=5", "x.o"],
        &["link", "--abs", "x", "x.o"],
        &["link", "--base", "0xg", "x.o"],
        &["link", "--map-section", "x.o=1", "x.o"],
        &["link", "--repeat", "3", "x.o"],
        &["link", "--time", "--repeat", "0", "x.o"],
    ];
    for arguments in cases {
        let ended = output(Command::new(env!("CARGO_BIN_EXE_low2g")).args(*arguments));
        assert_eq!(
            ended.status.code(),
            Some(2),
            "{arguments:?}: {}",
            stderr(&ended)
        );
        assert_eq!(stdout(&ended), "", "{arguments:?}");
    }
    for (pin, words) in [
        ("nowhere.o,.text=0x5000000", "no object of that name"),
        ("good.o,.nothing=0x5000000", "no loaded section .nothing"),
        ("good.o,.comment=0x5000000", "no loaded section .comment"),
        ("good.o,#99=0x5000000", "no #99"),
        ("good.o,#0=0x5000000", "#0"),
        (
            "low2g,.text=0x5000000",
            ".got, .stubs, .islands and .mirrors",
        ),
    ] {
        for json in [&[][..], &["--json"]] {
            refused(
                low2g("link")
                    .args(json)
                    .args(["--map-section", pin])
                    .args([&good, &data]),
                2,
                &[words],
            );
        }
    }
}

#[test]
fn an_ambiguous_section_is_a_usage_error() {
    let folder = Folder::new();
    let mut object = Obj::default();
    object.section(Sec::text([0xc3]));
    object.section(Sec::text([0xc3]));
    let path = folder.object("twice.o", &object);
    let mut command = low2g("link");
    refused(
        command
            .args(["--map-section", "twice.o,.text=0x5000000"])
            .arg(&path),
        2,
        &["section name .text is ambiguous: #1 and #2"],
    );
    refused(
        low2g("link")
            .args(["--map-section", "twice.o,#1=0x5000000"])
            .args(["--map-section", "twice.o,#1=0x6000000"])
            .arg(&path),
        2,
        &["section #1 is put at 0x5000000 and at 0x6000000"],
    );
    let by_index = output(
        low2g("link")
            .args(["--map-section", "twice.o,#2=0x5000000"])
            .arg(&path),
    );
    assert_eq!(by_index.status.code(), Some(0), "{}", stderr(&by_index));
}

#[test]
fn symbols() {
    let folder = Folder::new();
    let uses = "extern int aaa, bbb(void); int main(void) { return bbb() + bbb() + aaa; }";
    let uses = folder.compile("uses.c", uses, &[]);
    let ended = output(low2g("link").arg(&uses));
    let text = stderr(&ended);
    assert_eq!(ended.status.code(), Some(1), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "one line a symbol: {text}");
    assert!(
        lines[0].starts_with("low2g: error: uses.o(.text+0x"),
        "{text}"
    );
    assert!(
        lines[0].contains("undefined_symbol: bbb (2 uses)"),
        "{text}"
    );
    assert!(lines[1].contains("undefined_symbol: aaa (1 use)"), "{text}");
    let one = folder.compile("one.c", "int twice = 1; int main(void) { return 0; }", &[]);
    let two = folder.compile("two.c", "int pad = 2; int twice = 3;", &[]);
    refused(
        low2g("run").args([&one, &two]),
        1,
        &[
            "two.o(.data+0x",
            "duplicate_symbol: twice is also defined in one.o(.data+0x0)",
        ],
    );
    refused(
        low2g("run").arg(&two),
        1,
        &["undefined_symbol: ", "main", "--entry"],
    );
    refused(
        low2g("run").args(["--entry", "twice"]).arg(&one),
        1,
        &["twice", "--entry"],
    );
    refused(
        low2g("link")
            .arg("--no-process-symbols")
            .arg(folder.compile(
                "p.c",
                "int puts(const char *); int main(void) { return puts(\"\"); }",
                &[],
            )),
        1,
        &["p.o(.text+0x", "undefined_symbol: puts"],
    );
}

/// An object whose `.data` word has a relocation of `kind` with `addend` against an absolute symbol.
fn one_word(kind: u32, addend: i64) -> Obj {
    let mut object = Obj::default();
    let number = object.symbol(Sym::new(
        "number",
        elf::GLOBAL,
        elf::NOTYPE,
        Where::Absolute,
        0x1000,
    ));
    object.section(Sec::data([0u8; 16]).rel(4, kind, Of::Sym(number), addend));
    object
}

#[test]
fn relocations() {
    let folder = Folder::new();
    let overflow = folder.object("over.o", &one_word(10, 0xffff_ffff));
    refused(
        low2g("link").arg(&overflow),
        1,
        &[
            "over.o(.data+0x4): overflow: R_X86_64_32 against number (S 0x1000, addend 4294967295) gives 0x100000fff at place 0x",
            "allowed 0x0 to 0xffffffff; ",
        ],
    );
    let unknown = folder.object("unknown.o", &one_word(52, 0));
    refused(
        low2g("link").arg(&unknown),
        1,
        &["unknown.o(.data+0x4): unsupported_reloc: relocation type 52"],
    );
    let dynamic = folder.object("dynamic.o", &one_word(8, 0));
    refused(
        low2g("link").arg(&dynamic),
        1,
        &["dynamic.o(.data+0x4): unsupported_reloc: R_X86_64_RELATIVE"],
    );
    let far = "extern char **environ; extern int printf(const char *, ...); int main(void) { return environ == 0; }";
    let far = folder.compile("far.c", far, &[]);
    refused(
        low2g("run").args(["--far-data", "error"]).arg(&far),
        1,
        &[
            "far.o(.text",
            "overflow: R_X86_64_PC32 against environ",
            "-fPIC",
            "-mno-direct-extern-access",
        ],
    );
    let tls = folder.compile(
        "tls.c",
        "#include <errno.h>\nextern int number; int main(void) { return number; }",
        &[],
    );
    refused(low2g("run").arg(&tls), 1, &["undefined_symbol: number"]);
}

#[test]
fn rel_and_crel() {
    let folder = Folder::new();
    let mut object = one_word(1, 0);
    object.sections[0].form = elf::Form::Rel;
    refused_file(
        &folder.object("rel.o", &object),
        &["rel.o: input: relocation section #", "SHT_REL"],
    );
    object.sections[0].form = elf::Form::Crel;
    let crel = output(low2g("link").arg(folder.object("crel.o", &object)));
    assert_eq!(crel.status.code(), Some(0), "{}", stderr(&crel));
}

#[test]
fn writable_code_is_refused_by_name() {
    let folder = Folder::new();
    let mut object = Obj::default();
    object.section(Sec::new(
        ".wx",
        elf::ALLOC | elf::WRITE | elf::EXEC,
        vec![0xc3],
    ));
    refused_file(
        &folder.object("wx.o", &object),
        &[
            "wx.o",
            ": input: ",
            "section .wx is writable and executable",
        ],
    );
}

#[test]
fn errors_with_json_are_in_the_dump() {
    let folder = Folder::new();
    let good = folder.write("good.c", MAIN);
    let missing = folder.path("missing.o");
    let overflow = folder.object("over.o", &one_word(10, -0x1001));
    let huge = {
        let mut object = Obj::default();
        object.section(Sec::zeros(".bss", elf::ALLOC | elf::WRITE, 3 << 30));
        folder.object("huge.o", &object)
    };
    let mut bad_library = low2g("link");
    bad_library
        .args(["--json", "-l", "libnothing.so.9"])
        .arg(&good);
    let mut bad_compiler = low2g("link");
    bad_compiler
        .arg("--json")
        .arg(&good)
        .env("CC", "/nonexistent/cc");
    let mut bad_reach = low2g("link");
    bad_reach
        .args(["--json", "--reach", "0x1000-0x2000"])
        .arg(&good);
    let of = |path: &Path| {
        let mut command = low2g("link");
        command.arg("--json").arg(path);
        command
    };
    let cases = [
        (of(&missing), 1, "input"),
        (of(&overflow), 1, "overflow"),
        (of(&huge), 3, "memory"),
        (bad_library, 1, "input"),
        (bad_compiler, 1, "input"),
        (bad_reach, 3, "memory"),
    ];
    for (mut command, code, kind) in cases {
        let ended = output(&mut command);
        assert_eq!(
            ended.status.code(),
            Some(code),
            "{command:?}: {}",
            stderr(&ended)
        );
        let dump: serde_json::Value = serde_json::from_slice(&ended.stdout)
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        assert_eq!(dump["format"], "low2g-dump/1", "{command:?}");
        assert_eq!(dump["status"], "error", "{command:?}");
        assert_eq!(dump["errors"][0]["kind"], kind, "{command:?}");
        assert!(dump["errors"][0]["message"].is_string(), "{command:?}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for argument in ["--help", "--version"] {
        let ended = output(Command::new(env!("CARGO_BIN_EXE_low2g")).arg(argument));
        assert_eq!(ended.status.code(), Some(0), "{argument}");
        assert!(stdout(&ended).contains("low2g"), "{argument}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let folder = Folder::new();
    let good = folder.compile("good.c", MAIN, &[]);
    let script = format!(
        "{} link --json {} | true",
        env!("CARGO_BIN_EXE_low2g"),
        good.display()
    );
    let ended = output(Command::new("sh").arg("-c").arg(script));
    assert!(!stderr(&ended).contains("panicked"), "{}", stderr(&ended));
}
