//! Debuggers know loaded code: gdb, run for real, breaks in it by name and walks through its
//! frames with file and line; the list that gdb reads holds each module while it lives.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use low2g::link::{Debugger, Input, LinkOptions, Session};
use object::read::{Object as _, ObjectSection as _, ObjectSymbol as _};
use support::command::run;
use support::{build, input, program, require};

fn objects(more: &[&str]) -> Vec<PathBuf> {
    let flags = [
        "-O1",
        "-fno-pic",
        "-fno-pie",
        "-mcmodel=small",
        "-fno-omit-frame-pointer",
    ];
    let flags: Vec<String> = flags
        .iter()
        .chain(more)
        .map(|&flag| flag.to_owned())
        .collect();
    let sources = ["debugged.c", "debugged_other.c"];
    sources
        .iter()
        .map(|source| build::object(&input(source), &flags))
        .collect()
}

/// What gdb says to `commands` when it runs `low2g run OPTIONS` on objects compiled with `flags`.
fn gdb(commands: &[&str], options: &[&str], flags: &[&str]) -> Option<String> {
    require(program("gdb"))?;
    let mut command = Command::new("gdb");
    command.args(["-batch", "-nx", "-iex", "set debuginfod enabled off"]);
    command.args(["-ex", "set breakpoint pending on", "-ex", "set width 0"]);
    for text in commands {
        command.args(["-ex", text]);
    }
    command.args(["--args", env!("CARGO_BIN_EXE_low2g"), "run"]);
    let finished = run(command.args(options).args(objects(flags)), b"");
    let all = [finished.stdout, finished.stderr].concat();
    Some(String::from_utf8_lossy(&all).into_owned())
}

fn has(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let at = rest.find(part);
        let at = at.unwrap_or_else(|| panic!("no `{part}` at its place in:\n{text}"));
        rest = &rest[at + part.len()..];
    }
}

#[test]
fn gdb_breaks_by_name_and_shows_frames_with_file_and_line() {
    let commands = [
        "break deepest",
        "run",
        "backtrace",
        "up",
        "print *x",
        "delete",
        "break debugged.c:21",
        "continue",
        "print global_state",
        "print pairs[0]",
        "continue",
    ];
    // -gz: compressed sections are shown as well. Each section at its own address changes nothing.
    for (options, flags) in [
        (&[][..], &["-g"][..]),
        (
            &["--scatter"],
            &["-g", "-gdwarf-4", "-gz", "-ffunction-sections"],
        ),
    ] {
        let Some(text) = gdb(&commands, options, flags) else {
            return;
        };
        has(
            &text,
            &[
                "deepest (n=",
                "debugged_other.c:",
                "#1 ",
                "in order (a=",
                "debugged.c:14",
                "qsort", // the C library's frames between ours
                "in sort_them (n=",
                "debugged.c:19",
                "in main (argc=",
                "debugged.c:26",
                "call_outermost", // where a program starts
                "{key = ",
                "sort_them (n=",
                "$2 = 7",
                "{key = 1, value = 1}",
                "exited normally",
            ],
        );
    }
}

#[test]
fn gdb_walks_through_islands_and_code_without_debug_information() {
    // -fomit-frame-pointer: only the frame tables tell the way.
    let flags = ["-fomit-frame-pointer", "-fcf-protection=none"];
    let commands = [
        "break *(char *)&'sort_them.island'",
        "run",
        "backtrace",
        "stepi",
        "backtrace",
        "delete",
        "break fputs",
        "continue",
        "backtrace",
    ];
    // A symbol that is not there yet cannot be part of an expression: first get to main.
    let mut all = vec!["break sort_them", "run", "delete"];
    all.extend(commands.iter().filter(|&&text| text != "run"));
    all.insert(4, "continue");
    let Some(text) = gdb(&all, &[], &flags) else {
        return;
    };
    // An island has the frame of the function that its instruction comes from.
    let island = [
        "#0 ",
        "in sort_them",
        "island",
        "#1 ",
        "in main",
        "call_outermost",
    ];
    let twice: Vec<&str> = island.iter().chain(&island).copied().collect();
    has(&text, &twice);
    has(&text, &["fputs (", "in sort_them", "in main"]);
}

/// Without a debugger, or where it is not wanted, nothing is told.
#[test]
fn gdb_is_told_nothing_if_so_asked() {
    let commands = ["break deepest", "run", "backtrace"];
    let Some(text) = gdb(&commands, &["--debugger", "never"], &["-g"]) else {
        return;
    };
    has(&text, &["pending.", "exited normally"]);
}

/// The interface's structures (gdb's manual, "Registering Code").
#[repr(C)]
struct Entry {
    next: *const Entry,
    prev: *const Entry,
    image: *const u8,
    size: u64,
}

#[repr(C)]
struct Descriptor {
    version: u32,
    action: u32,
    relevant: *const Entry,
    first: *const Entry,
}

unsafe extern "C" {
    static __jit_debug_descriptor: Descriptor;
}

/// One test at a time looks at the list.
static ALONE: Mutex<()> = Mutex::new(());

/// The images in the list. Nobody may load or unload meanwhile.
fn listed() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let descriptor = &raw const __jit_debug_descriptor;
    // SAFETY: a static of this process, which the holder of ALONE has for itself.
    let descriptor = unsafe { &*descriptor };
    assert_eq!(descriptor.version, 1);
    let mut at = descriptor.first;
    while !at.is_null() {
        // SAFETY: entries of the list are valid until they are taken out.
        let entry = unsafe { &*at };
        let len = usize::try_from(entry.size).expect("64 bits");
        // SAFETY: the image is valid as long as its entry.
        all.push(unsafe { std::slice::from_raw_parts(entry.image, len) }.to_vec());
        at = entry.next;
    }
    all
}

#[test]
fn the_list_holds_an_image_a_module_while_it_lives() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let session = Session::new().expect("low memory").options(LinkOptions {
        debugger: Debugger::Always,
        ..LinkOptions::default()
    });
    let inputs: Vec<Input> = objects(&["-g"])
        .iter()
        .map(|path| Input::from_file(path).expect("it was made"))
        .collect();
    // SAFETY: the objects are those of tests/inputs; they have no constructors.
    let load = || unsafe { session.load(&inputs) }.expect("it links");
    let modules: Vec<_> = (0..40).map(|_| load()).collect();
    let images = listed();
    assert_eq!(images.len(), 40, "one for both objects of a module");
    for (module, image) in modules.iter().zip(images.iter().rev()) {
        let file = object::read::elf::ElfFile64::<object::Endianness>::parse(&**image);
        let file = file.expect("an ELF file");
        for name in ["main", "deepest", "sort_them"] {
            let symbol = file.symbols().find(|symbol| symbol.name() == Ok(name));
            let symbol = symbol.unwrap_or_else(|| panic!("{name} is among the symbols"));
            let export = module.symbol(name).expect("it is global");
            assert_eq!(
                (symbol.address(), symbol.size()),
                (export.addr, export.size),
                "{name}"
            );
            let section = symbol.section_index().expect("in a section");
            let section = file.section_by_index(section).expect("it is there");
            let range = section.address()..section.address() + section.size();
            assert!(range.contains(&export.addr), "{name}: {range:x?}");
        }
        assert!(
            file.symbols().any(|symbol| symbol.name() == Ok("order")),
            "a local symbol"
        );
        for name in [".debug_info", ".debug_line", ".eh_frame"] {
            let section = file
                .section_by_name(name)
                .unwrap_or_else(|| panic!("{name}"));
            assert!(section.size() > 0, "{name}");
        }
    }
    drop(modules);
    assert_eq!(listed().len(), 0, "unloaded modules are gone");
}
