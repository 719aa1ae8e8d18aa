//! Low memory that cannot be had is exit code 3, with the section, the size and the limit.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod battery;

use std::process::Command;

use battery::elf::{self, Obj, Sec};
use battery::tool::{Folder, low2g, refused};

const MAIN: &str = "int main(void) { return 0; }";

#[test]
fn no_memory_is_exit_code_3() {
    let folder = Folder::new();
    for zeros in [3 << 30, 1 << 40, 1 << 62] {
        let mut object = Obj::default();
        object.section(Sec::zeros(".bss", elf::ALLOC | elf::WRITE, zeros));
        let path = folder.object("huge.o", &object);
        refused(
            low2g("link").arg(&path),
            3,
            &["huge.o(.bss+0x0): memory: ", &zeros.to_string()],
        );
        refused(
            low2g("link").arg("--dry-run").arg(&path),
            3,
            &["huge.o(.bss+0x0): memory: "],
        );
    }
    let mut object = Obj::default();
    object.section(Sec::zeros(".bss.a", elf::ALLOC | elf::WRITE, 1_100_000_000));
    object.section(Sec::zeros(".bss.b", elf::ALLOC | elf::WRITE, 1_100_000_000));
    refused(
        low2g("link").arg(folder.object("both.o", &object)),
        3,
        &["both.o(.bss.", "memory: "],
    );
    let good = folder.compile("good.c", MAIN, &[]);
    refused(
        low2g("link").args(["--min-entropy", "40"]).arg(&good),
        3,
        &["memory: ", "40"],
    );
    refused(
        low2g("link").args(["--reach", "0x1000-0x2000"]).arg(&good),
        3,
        &["memory: "],
    );
}

#[test]
fn an_address_space_limit_is_exit_code_3() {
    let folder = Folder::new();
    let mut object = Obj::default();
    object.section(Sec::zeros(".bss", elf::ALLOC | elf::WRITE, 1_500_000_000));
    let path = folder.object("big.o", &object);
    let tool = env!("CARGO_BIN_EXE_low2g");
    let script = format!("ulimit -v 1000000; exec {tool} link {}", path.display());
    refused(
        Command::new("sh").arg("-c").arg(&script),
        3,
        &["big.o(.bss+0x0): memory: ", "RLIMIT_AS"],
    );
}
