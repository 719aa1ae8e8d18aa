//! The objects linked by GNU ld with every section at an address of our choice.
//!
//! Each object is copied with every section under a name of its own (`.o3.s12` is section 12 of
//! object 3), so that a linker script can place each one, also where an object has several of
//! one name. In the copy
//! - strings are not merged (SHF_MERGE and SHF_STRINGS cleared),
//! - special types are plain (notes are not combined, no `.eh_frame` is edited),
//! - commons are undefined, and get their address from the script, one by one,
//! - an ifunc is a function, so that ld makes no stub of its own,
//! - relocations that the caller judges by formula are `R_X86_64_NONE`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use super::elf::{self, Elf};

const OPTIONS: &[&str] = &[
    "-m",
    "elf_x86_64",
    "-static",
    "-nostdlib",
    "--no-relax",
    "--no-gc-sections",
    "--no-check-sections",
    "--no-warn-rwx-segments",
    "--build-id=none",
    "-z",
    "norelro",
    "-z",
    "noexecstack",
    "-n",
    "-e",
    "0",
];

/// What ld made of the objects.
#[derive(Debug)]
pub(crate) struct Linked {
    elf: Elf,
    by_name: BTreeMap<String, usize>,
    /// Addresses of global symbols.
    pub(crate) globals: BTreeMap<String, u64>,
}

impl Linked {
    /// The bytes of section `section` of object `object`; `None` where it has none in the file.
    pub(crate) fn section(&self, object: usize, section: usize) -> Option<(u64, &[u8])> {
        let &index = self.by_name.get(&unique_name(object, section))?;
        Some((self.elf.sections[index].addr, self.elf.contents(index)))
    }
}

/// An object to link: its file, where its sections go, and which relocations are left out.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    pub(crate) elf: &'a Elf,
    /// By section index: the address, for those that are linked.
    pub(crate) placed: Vec<Option<u64>>,
    /// File offsets of relocations that ld must not apply.
    pub(crate) without: Vec<usize>,
}

fn unique_name(object: usize, section: usize) -> String {
    format!(".o{object}.s{section}")
}

/// Links `parts` in order, with `symbols` defined as absolute addresses.
///
/// # Errors
///
/// What ld wrote, when it failed.
pub(crate) fn link(parts: &[Part<'_>], symbols: &BTreeMap<String, u64>) -> Result<Linked, String> {
    let folder = tempfile::tempdir().map_err(|error| format!("a temporary folder: {error}"))?;
    let mut script = String::from("PHDRS { none PT_NULL; }\nSECTIONS {\n");
    for (name, addr) in symbols {
        writeln!(script, "\"{name}\" = {addr:#x};").expect("a string takes all");
    }
    let mut command = Command::new("ld");
    command
        .args(OPTIONS)
        .arg("-T")
        .arg(folder.path().join("script"));
    command.arg("-o").arg(folder.path().join("out"));
    for (number, part) in parts.iter().enumerate() {
        let path = folder.path().join(format!("{number}.o"));
        write(&path, &copy(number, part))?;
        command.arg(path);
        for (section, addr) in part.placed.iter().enumerate() {
            if let Some(addr) = addr {
                let name = unique_name(number, section);
                writeln!(script, "{name} {addr:#x} : {{ *({name}) }} :none")
                    .expect("a string takes all");
            }
        }
    }
    script.push_str("/DISCARD/ : { *(.note.GNU-stack) *(.gnu.*) }\n}\n");
    write(&folder.path().join("script"), script.as_bytes())?;
    let output = command
        .output()
        .map_err(|error| format!("ld does not start: {error}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.contains("not in segment"))
            .take(20)
            .collect();
        return Err(format!("ld fails:\n{}", lines.join("\n")));
    }
    let bytes = std::fs::read(folder.path().join("out"))
        .map_err(|error| format!("ld's output: {error}"))?;
    let elf = Elf::parse(bytes);
    let by_name = elf
        .sections
        .iter()
        .enumerate()
        .map(|(index, section)| (section.name.clone(), index))
        .collect();
    let globals = elf
        .symbols
        .iter()
        .filter(|symbol| symbol.binding != elf::STB_LOCAL);
    let globals = globals
        .map(|symbol| (symbol.name.clone(), symbol.value))
        .collect();
    Ok(Linked {
        by_name,
        globals,
        elf,
    })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    std::fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()))
}

/// The object's copy, as the module's opening says.
fn copy(number: usize, part: &Part<'_>) -> Vec<u8> {
    let mut elf = part.elf.clone();
    // A new table of names at the end: the old one, which may be the symbols' too, and ours.
    let table = elf.sections[elf.names].clone();
    let mut names =
        elf.bytes[elf::size(table.offset)..elf::size(table.offset + table.size)].to_vec();
    for index in 0..elf.sections.len() {
        let section = elf.sections[index].clone();
        if !section.has_content() || part.placed[index].is_none() {
            continue;
        }
        let at = u32::try_from(names.len()).expect("names fit 4 GiB");
        names.extend_from_slice(unique_name(number, index).as_bytes());
        names.push(0);
        elf.put(section.header, &at.to_le_bytes());
        if section.kind != elf::SHT_NOBITS {
            elf.put(section.header + 4, &elf::SHT_PROGBITS.to_le_bytes());
        }
        let flags = section.flags & !(elf::SHF_MERGE | elf::SHF_STRINGS);
        elf.put(section.header + 8, &flags.to_le_bytes());
    }
    let end = u64::try_from(elf.bytes.len()).expect("usize fits 64 bits");
    let len = u64::try_from(names.len()).expect("usize fits 64 bits");
    elf.put(table.header + 24, &end.to_le_bytes());
    elf.put(table.header + 32, &len.to_le_bytes());
    elf.bytes.extend_from_slice(&names);

    for symbol in part.elf.symbols.iter() {
        if symbol.section == elf::SHN_COMMON {
            elf.put(symbol.entry + 6, &elf::SHN_UNDEF.to_le_bytes());
        }
        if symbol.kind == elf::STT_GNU_IFUNC {
            elf.put(symbol.entry + 4, &[symbol.binding << 4 | elf::STT_FUNC]);
        }
    }
    for &entry in &part.without {
        elf.put(entry + 8, &0u64.to_le_bytes());
    }
    elf.bytes
}
