//! The relocation oracle: every byte that low2g put in memory, judged by GNU ld.
//!
//! ```text
//! dump: where each section lies -> ld links the same objects there -> bytes compared
//!       fields ld cannot judge (GOT, stubs, islands) -> solved by `formula`
//! ```
//!
//! A byte of a section is judged exactly once: by ld, or as a part of a field or a moved
//! instruction by formula; nothing is skipped. The relocations are read from the objects; rows of
//! the dump are evidence to be checked, they say only which way low2g took.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::path::PathBuf;

use super::dump::{self, Dump, Relocation};
use super::elf::{self, Elf, Rela, Symbol, size};
use super::formula::{self, Field, Moved};
use super::gnu_ld::{self, Linked, Part};

/// Small code promises that symbols lie below this: 2 GiB less 16 MiB (psABI 3.5.1).
const LOW_LIMIT: u64 = 0x7f00_0000;
const GOT_SYMBOL: &str = "_GLOBAL_OFFSET_TABLE_";
/// More complaints than these say nothing new.
const SHOWN: usize = 20;

/// How much was judged, and by what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) objects: usize,
    pub(crate) sections: usize,
    pub(crate) bytes: u64,
    pub(crate) by_ld: usize,
    pub(crate) by_formula: usize,
    pub(crate) islands: usize,
}

/// An input object beside its rows in the dump.
struct Object<'a> {
    name: &'a str,
    elf: Elf,
    /// By section index: the dump's row.
    rows: Vec<Option<&'a dump::Section>>,
}

impl Object<'_> {
    fn addr(&self, section: usize) -> Option<u64> {
        let row = self.rows.get(section).copied().flatten()?;
        if row.alloc && !row.discarded {
            row.addr.map(|addr| addr.0)
        } else {
            None
        }
    }

    /// Whether a non-allocated section's bytes are there to compare.
    fn is_beside(&self, section: usize) -> bool {
        let in_file = &self.elf.sections[section];
        let has_bytes = self.rows[section].is_some_and(|row| row.bytes.is_some() && !row.discarded);
        !in_file.is_alloc()
            && in_file.has_content()
            && has_bytes
            && in_file.size > 0
            && in_file.flags & elf::SHF_COMPRESSED == 0
    }

    fn symbol(&self, rela: &Rela) -> &Symbol {
        &self.elf.symbols[rela.symbol]
    }
}

/// A section whose bytes are compared, with the byte ranges that formulas judge.
struct Judged {
    object: usize,
    section: usize,
    fields: Vec<(Range<usize>, Field)>,
    moved: Vec<Range<usize>>,
}

/// Compares a dump of `low2g link` (with `--relax none`) of `inputs` with what GNU ld makes of the
/// same objects at the same addresses.
///
/// # Errors
///
/// All that differs, up to a bound, one line each.
pub(crate) fn check(inputs: &[PathBuf], dump: &Dump) -> Result<Summary, String> {
    if dump.status != "ok" {
        return Err(format!("the link failed: {:?}", dump.errors));
    }
    let mut faults = Faults::default();
    check_memory(dump, &mut faults);
    let objects = pair_up(inputs, dump)?;
    check_sections(&objects, &mut faults);
    let mut summary = Summary {
        objects: objects.len(),
        ..Summary::default()
    };
    let ifuncs = ifunc_names(&objects);
    let islands: HashMap<u64, &dump::Stub> = dump
        .stubs
        .iter()
        .filter_map(|row| Some((row.place?.0, row)))
        .collect();

    let mut rows = Rows::new(dump);
    let mut judged = Vec::new();
    let mut parts: Vec<Part<'_>> = Vec::new();
    for (number, object) in objects.iter().enumerate() {
        let mut part = Part {
            elf: &object.elf,
            placed: vec![None; object.elf.sections.len()],
            without: Vec::new(),
        };
        for section in 0..object.elf.sections.len() {
            let beside = object.is_beside(section);
            part.placed[section] = if beside {
                Some(0)
            } else {
                object.addr(section)
            };
            if part.placed[section].is_none() {
                continue;
            }
            let moved = moved_places(object, section, &islands, &mut faults);
            let mut one = Judged {
                object: number,
                section,
                fields: Vec::new(),
                moved,
            };
            for rela in object.elf.relocations(section) {
                let Some(row) = rows.take(object, section, &rela) else {
                    if rela.kind != 0 {
                        faults.add(format!(
                            "{}: no row in the dump",
                            describe(object, section, &rela)
                        ));
                    }
                    continue;
                };
                let symbol = object.symbol(&rela);
                let ifunc = symbol.kind == elf::STT_GNU_IFUNC || ifuncs.contains(&symbol.name);
                let inside = one
                    .moved
                    .iter()
                    .any(|range| range.contains(&size(rela.offset)));
                let plain = formula::is_plain(rela.kind) && row.action == "direct";
                if plain && !ifunc && !inside && symbol.name != GOT_SYMBOL {
                    summary.by_ld += 1;
                } else {
                    part.without.push(rela.entry);
                    one.fields
                        .push(field_of(object, section, &rela, row, ifunc));
                }
            }
            judged.push(one);
        }
        parts.push(part);
    }
    rows.check_all_taken(&mut faults);
    let linked = gnu_ld::link(&parts, &outside_symbols(&objects, dump, &mut faults))?;
    check_symbols(dump, &linked, &mut faults);
    for one in &mut judged {
        resolve_fields(one, &objects[one.object], &linked, dump);
        check_section(
            one,
            &objects[one.object],
            &linked,
            dump,
            &islands,
            &mut summary,
            &mut faults,
        );
    }
    faults.finish(summary)
}

/// What was found wrong.
#[derive(Default)]
struct Faults {
    lines: Vec<String>,
    more: usize,
}

impl Faults {
    fn add(&mut self, line: String) {
        if self.lines.len() < SHOWN {
            self.lines.push(line)
        } else {
            self.more += 1
        }
    }

    fn finish(self, summary: Summary) -> Result<Summary, String> {
        match (self.lines.is_empty(), self.more) {
            (true, _) => Ok(summary),
            (false, 0) => Err(self.lines.join("\n")),
            (false, more) => Err(format!("{}\nand {more} more", self.lines.join("\n"))),
        }
    }
}

/// Memory rows are in order, apart, and never both writable and executable.
fn check_memory(dump: &Dump, faults: &mut Faults) {
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
                "memory at {:?}: {} bytes, not {}",
                row.addr, "bytes", row.size
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
fn pair_up<'a>(inputs: &[PathBuf], dump: &'a Dump) -> Result<Vec<Object<'a>>, String> {
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
fn check_sections(objects: &[Object<'_>], faults: &mut Faults) {
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

fn ifunc_names(objects: &[Object<'_>]) -> HashSet<String> {
    let symbols = objects.iter().flat_map(|object| &object.elf.symbols);
    let ifuncs = symbols.filter(|symbol| {
        symbol.kind == elf::STT_GNU_IFUNC
            && symbol.section != elf::SHN_UNDEF
            && symbol.binding != elf::STB_LOCAL
    });
    ifuncs.map(|symbol| symbol.name.clone()).collect()
}

/// The dump's relocation rows by object and place, each to be used once.
struct Rows<'a> {
    by_place: HashMap<(&'a str, u64), Vec<&'a Relocation>>,
}

impl<'a> Rows<'a> {
    fn new(dump: &'a Dump) -> Self {
        let mut by_place: HashMap<_, Vec<_>> = HashMap::new();
        for row in &dump.relocations {
            by_place
                .entry((row.object.as_str(), row.place.0))
                .or_default()
                .push(row);
        }
        Self { by_place }
    }

    fn take(&mut self, object: &Object<'a>, section: usize, rela: &Rela) -> Option<&'a Relocation> {
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

    fn check_all_taken(&self, faults: &mut Faults) {
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

fn describe(object: &Object<'_>, section: usize, rela: &Rela) -> String {
    format!(
        "{}({}+{:#x}): {} {}{:+}",
        object.name,
        object.elf.sections[section].name,
        rela.offset,
        formula::type_name(rela.kind),
        object.symbol(rela).name,
        rela.addend
    )
}

/// The instructions of a section that islands replaced, by the lengths in the object.
fn moved_places(
    object: &Object<'_>,
    section: usize,
    islands: &HashMap<u64, &dump::Stub>,
    faults: &mut Faults,
) -> Vec<Range<usize>> {
    let Some(addr) = object.addr(section) else {
        return Vec::new();
    };
    let code = object.elf.contents(section);
    let end = addr + object.elf.sections[section].size;
    let mut found = Vec::new();
    for (&place, row) in islands
        .iter()
        .filter(|&(&place, _)| (addr..end).contains(&place))
    {
        let start = size(place - addr);
        match formula::instruction_len(&code[start..]) {
            Some(len) => found.push(start..start + len),
            None => faults.add(format!(
                "{}: the island at {:?} replaces no instruction",
                object.name, row.addr
            )),
        }
    }
    found
}

/// The relocation as a field; S and the value are filled in when ld has said where symbols are.
fn field_of(
    object: &Object<'_>,
    section: usize,
    rela: &Rela,
    row: &Relocation,
    ifunc: bool,
) -> (Range<usize>, Field) {
    let start = size(rela.offset);
    let field = Field {
        kind: rela.kind,
        place: object.addr(section).unwrap_or(0) + rela.offset,
        symbol_value: row.symbol_value.0,
        symbol_size: object.symbol(rela).size,
        ifunc,
        addend: rela.addend,
        action: row.action.clone(),
        value: 0,
    };
    (start..start + formula::width(rela.kind), field)
}

/// Symbols that no object defines by a section, at the addresses that low2g found for them.
fn outside_symbols(
    objects: &[Object<'_>],
    dump: &Dump,
    faults: &mut Faults,
) -> BTreeMap<String, u64> {
    let globals = || {
        let all = objects.iter().flat_map(|object| &object.elf.symbols);
        all.filter(|symbol| symbol.binding != elf::STB_LOCAL)
    };
    let is_inside =
        |symbol: &&Symbol| symbol.section != elf::SHN_UNDEF && symbol.section != elf::SHN_COMMON;
    let inside: HashSet<&str> = globals()
        .filter(is_inside)
        .map(|symbol| symbol.name.as_str())
        .collect();
    let outside = globals()
        .map(|symbol| symbol.name.as_str())
        .filter(|name| !inside.contains(name));
    let outside: HashSet<&str> = outside.filter(|&name| name != GOT_SYMBOL).collect();
    let mut found = BTreeMap::new();
    for row in &dump.symbols {
        let (true, Some(addr)) = (outside.contains(row.name.as_str()), row.addr) else {
            continue;
        };
        if row.binding == "local" || row.kind == "undef-weak" || row.kind == "tls" {
            continue;
        }
        if let Some(other) = found.insert(row.name.clone(), addr.0)
            && other != addr.0
        {
            faults.add(format!(
                "symbol {} is at {other:#x} and at {addr:?}",
                row.name
            ));
        }
    }
    found
}

/// The dump's global symbols are where ld has them.
fn check_symbols(dump: &Dump, linked: &Linked, faults: &mut Faults) {
    for row in dump
        .symbols
        .iter()
        .filter(|row| row.binding != "local" && row.kind != "tls")
    {
        if row.name == GOT_SYMBOL {
            continue;
        }
        if let (Some(addr), Some(&wanted)) = (row.addr, linked.globals.get(&row.name))
            && addr.0 != wanted
        {
            faults.add(format!(
                "symbol {} ({}) is at {addr:?}, ld has it at {wanted:#x}",
                row.name, row.kind
            ));
        }
    }
}

/// Gives each field its S, from the object and ld, and its value, from memory.
fn resolve_fields(one: &mut Judged, object: &Object<'_>, linked: &Linked, dump: &Dump) {
    let mut entries: HashMap<u64, Vec<Rela>> = HashMap::new();
    for rela in object.elf.relocations(one.section) {
        entries.entry(rela.offset).or_default().push(rela);
    }
    let base = object.addr(one.section).unwrap_or(0);
    for (_, field) in &mut one.fields {
        let candidates = entries.get(&(field.place - base)).into_iter().flatten();
        let rela = candidates
            .into_iter()
            .find(|rela| rela.kind == field.kind && rela.addend == field.addend);
        if let Some(rela) = rela {
            field.symbol_value = symbol_value(object, object.symbol(rela), linked, dump);
        }
        let width = u64::try_from(formula::width(field.kind)).expect("a width is small");
        if let Some(bytes) = dump.read(field.place, width) {
            field.value = formula::extend(field.kind, &bytes);
        }
    }
}

fn symbol_value(object: &Object<'_>, symbol: &Symbol, linked: &Linked, dump: &Dump) -> u64 {
    if symbol.name == GOT_SYMBOL {
        return dump.got_base.map_or(0, |base| base.0);
    }
    match symbol.section {
        elf::SHN_ABS => symbol.value,
        section if symbol.binding == elf::STB_LOCAL && section < elf::SHN_LORESERVE => object
            .addr(usize::from(section))
            .unwrap_or(0)
            .wrapping_add(symbol.value),
        // Weak and undefined: 0, as ld has it.
        _ => linked.globals.get(&symbol.name).copied().unwrap_or(0),
    }
}

/// Compares one section's bytes, and checks its fields and moved instructions.
fn check_section(
    one: &Judged,
    object: &Object<'_>,
    linked: &Linked,
    dump: &Dump,
    islands: &HashMap<u64, &dump::Stub>,
    summary: &mut Summary,
    faults: &mut Faults,
) {
    let in_file = &object.elf.sections[one.section];
    let name = format!("{}({})", object.name, in_file.name);
    if in_file.size == 0 {
        return;
    }
    let addr = object.addr(one.section);
    let found = match addr {
        Some(addr) => dump.read(addr, in_file.size),
        None => object.rows[one.section]
            .and_then(|row| row.bytes.as_ref())
            .map(|bytes| bytes.0.clone()),
    };
    let Some(found) = found.filter(|found| found.len() == size(in_file.size)) else {
        return faults.add(format!(
            "{name}: its {} bytes are not all in memory",
            in_file.size
        ));
    };
    let wanted = match linked.section(one.object, one.section) {
        Some((at, _)) if addr.is_some_and(|addr| addr != at) => {
            return faults.add(format!("{name}: ld placed it at {at:#x}, not at {addr:x?}"));
        }
        Some((_, bytes)) if in_file.kind != elf::SHT_NOBITS => bytes.to_vec(),
        _ if in_file.kind == elf::SHT_NOBITS => vec![0; found.len()],
        _ => return faults.add(format!("{name}: ld left it out")),
    };
    summary.sections += 1;
    summary.bytes += in_file.size;

    let mut by_formula = vec![false; found.len()];
    for range in &one.moved {
        by_formula[range.clone()].fill(true);
        check_moved(
            one,
            range,
            &name,
            addr.unwrap_or(0),
            dump,
            islands,
            summary,
            faults,
        );
    }
    for (range, field) in &one.fields {
        if one.moved.iter().any(|moved| moved.contains(&range.start)) {
            continue;
        }
        by_formula[range.clone()].fill(true);
        summary.by_formula += 1;
        if let Err(fault) = formula::check(dump, field) {
            let kind = formula::type_name(field.kind);
            faults.add(format!(
                "{name}+{:#x}: {kind} ({}): {fault}",
                range.start, field.action
            ));
        }
    }
    let differs = |&at: &usize| !by_formula[at] && wanted.get(at) != Some(&found[at]);
    if let Some(at) = (0..found.len()).find(differs) {
        let count = (0..found.len()).filter(differs).count();
        let until = (at + 16).min(found.len());
        faults.add(format!(
            "{name}: {count} bytes differ, first at +{at:#x}: low2g {:02x?}, ld {:02x?}",
            &found[at..until],
            wanted.get(at..until).unwrap_or_default()
        ));
    }
}

#[allow(
    clippy::too_many_arguments,
    reason = "one step of check_section, with its state"
)]
fn check_moved(
    one: &Judged,
    range: &Range<usize>,
    name: &str,
    addr: u64,
    dump: &Dump,
    islands: &HashMap<u64, &dump::Stub>,
    summary: &mut Summary,
    faults: &mut Faults,
) {
    let place = addr + u64::try_from(range.start).expect("usize fits 64 bits");
    let Some(row) = islands.get(&place) else {
        return;
    };
    let inside = one
        .fields
        .iter()
        .filter(|(field, _)| range.contains(&field.start));
    let moved = Moved {
        row,
        place,
        len: range.len(),
        fields: inside.map(|(_, field)| field.clone()).collect(),
    };
    summary.islands += 1;
    summary.by_formula += moved.fields.len();
    if let Err(fault) = formula::check_island(dump, &moved) {
        faults.add(format!("{name}+{:#x}: {fault}", range.start));
    }
}
