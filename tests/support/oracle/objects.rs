//! The input objects beside their rows in the dump, and what must hold of the rows by themselves.

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;

use super::super::dump::{self, Dump, Relocation};
use super::super::elf::{self, Elf, Rela, size};
use super::super::formula;
use super::Faults;

/// Small code promises that symbols lie below this: 2 GiB less 16 MiB (psABI 3.5.1).
const LOW_LIMIT: u64 = 0x7f00_0000;

/// An input object beside its rows in the dump.
pub(super) struct Object<'a> {
    pub(super) name: &'a str,
    pub(super) elf: Elf,
    /// By section index: the dump's row.
    pub(super) rows: Vec<Option<&'a dump::Section>>,
}

impl Object<'_> {
    pub(super) fn addr(&self, section: usize) -> Option<u64> {
        let row = self.rows.get(section).copied().flatten()?;
        if row.alloc && !row.discarded {
            row.addr.map(|addr| addr.0)
        } else {
            None
        }
    }

    /// A non-allocated section's bytes, where the dump has them to compare.
    pub(super) fn beside(&self, section: usize) -> Option<&[u8]> {
        let in_file = &self.elf.sections[section];
        let row = self.rows[section].filter(|row| !row.discarded)?;
        let comparable = !in_file.is_alloc() && in_file.has_content() && in_file.size > 0;
        if !comparable || in_file.flags & elf::SHF_COMPRESSED != 0 {
            return None;
        }
        row.bytes.as_ref().map(|bytes| bytes.0.as_slice())
    }

    /// Where a compared section lies: those beside memory count from 0.
    pub(super) fn placed(&self, section: usize) -> Option<u64> {
        self.addr(section)
            .or_else(|| self.beside(section).map(|_| 0))
    }
}

/// Memory rows are in order, apart, and never both writable and executable.
pub(super) fn check_memory(dump: &Dump, faults: &mut Faults) {
    for row in &dump.memory {
        if row.prot.contains('w') && row.prot.contains('x') {
            faults.add(format!("memory at {:?} is {}", row.addr, row.prot));
        }
        if row
            .bytes
            .as_ref()
            .is_some_and(|bytes| size(row.size) != bytes.0.len())
        {
            faults.add(format!(
                "memory at {:?}: its bytes are not {}",
                row.addr, row.size
            ));
        }
    }
    for pair in dump.memory.windows(2) {
        if pair[0].addr.0 + pair[0].size > pair[1].addr.0 {
            faults.add(format!(
                "memory rows at {:?} and {:?} overlap or are not sorted",
                pair[0].addr, pair[1].addr
            ));
        }
    }
}

/// Finds each object of the dump among the inputs, by the names that design.md gives them.
pub(super) fn pair_up<'a>(inputs: &[PathBuf], dump: &'a Dump) -> Result<Vec<Object<'a>>, String> {
    let mut files: HashMap<String, Vec<u8>> = HashMap::new();
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (name, bytes) in inputs.iter().flat_map(|path| elf::members(path)) {
        let count = seen.entry(name.clone()).or_insert(0);
        *count += 1;
        let name = if *count == 1 {
            name
        } else {
            format!("{name}#{count}")
        };
        files.insert(name, bytes);
    }
    let mut objects = Vec::new();
    for object in &dump.objects {
        let bytes = files
            .remove(&object.name)
            .ok_or_else(|| format!("no input is called {}", object.name))?;
        let elf = Elf::parse(bytes);
        let mut rows = vec![None; elf.sections.len()];
        for row in &object.sections {
            // The linker's own sections are listed too; they have no section in the file.
            let Some(index) = row.index else { continue };
            if elf
                .sections
                .get(index)
                .is_some_and(|section| section.name == row.name)
            {
                rows[index] = Some(row);
            }
        }
        objects.push(Object {
            name: &object.name,
            elf,
            rows,
        });
    }
    Ok(objects)
}

/// Every allocated section with bytes has an address: aligned, low, its own.
pub(super) fn check_sections(objects: &[Object<'_>], faults: &mut Faults) {
    let mut taken: Vec<(Range<u64>, String)> = Vec::new();
    for object in objects {
        for (index, section) in object.elf.sections.iter().enumerate() {
            if !section.is_alloc()
                || !section.has_content()
                || object.rows[index].is_some_and(|row| row.discarded)
            {
                continue;
            }
            let name = format!("{}({})", object.name, section.name);
            let Some(addr) = object.addr(index) else {
                if section.size > 0 {
                    faults.add(format!("{name}: section {index} has no address"));
                }
                continue;
            };
            if object.rows[index].is_some_and(|row| row.size != section.size) {
                faults.add(format!("{name}: its size is {}", section.size));
            }
            if addr % section.align.max(1) != 0 || addr + section.size > LOW_LIMIT {
                faults.add(format!(
                    "{name}: at {addr:#x}, size {:#x}, alignment {}",
                    section.size, section.align
                ));
            }
            taken.push((addr..addr + section.size, name));
        }
    }
    taken.retain(|(range, _)| !range.is_empty());
    taken.sort_by_key(|(range, _)| range.start);
    for pair in taken.windows(2) {
        if pair[0].0.end > pair[1].0.start {
            faults.add(format!(
                "{} and {} overlap at {:#x}",
                pair[0].1, pair[1].1, pair[1].0.start
            ));
        }
    }
}

/// The dump's relocation rows by object and place, each to be used once.
pub(super) struct Rows<'a> {
    by_place: HashMap<(&'a str, u64), Vec<&'a Relocation>>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(dump: &'a Dump) -> Self {
        let mut by_place: HashMap<_, Vec<_>> = HashMap::new();
        for row in &dump.relocations {
            by_place
                .entry((row.object.as_str(), row.place.0))
                .or_default()
                .push(row);
        }
        Self { by_place }
    }

    pub(super) fn take(
        &mut self,
        object: &Object<'a>,
        section: usize,
        rela: &Rela,
    ) -> Option<&'a Relocation> {
        let place = object.addr(section).unwrap_or(0) + rela.offset;
        let rows = self.by_place.get_mut(&(object.name, place))?;
        let wanted = formula::type_name(rela.kind);
        let index = rows.iter().position(|row| {
            row.kind == wanted
                && row.addend == rela.addend
                && row.offset == rela.offset
                && row.section == object.elf.sections[section].name
        })?;
        Some(rows.swap_remove(index))
    }

    pub(super) fn check_all_taken(&self, faults: &mut Faults) {
        for row in self
            .by_place
            .values()
            .flatten()
            .filter(|row| row.kind != "R_X86_64_NONE")
        {
            let (object, section, offset) = (&row.object, &row.section, row.offset);
            faults.add(format!(
                "{object}({section}+{offset:#x}): {} of no relocation in the object",
                row.kind
            ));
        }
    }
}

pub(super) fn describe(object: &Object<'_>, section: usize, rela: &Rela) -> String {
    format!(
        "{}({}+{:#x}): {} {}{:+}",
        object.name,
        object.elf.sections[section].name,
        rela.offset,
        formula::type_name(rela.kind),
        object.elf.symbols[rela.symbol].name,
        rela.addend
    )
}
