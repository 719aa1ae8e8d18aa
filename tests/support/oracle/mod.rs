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

mod objects;
mod symbols;
mod verdict;

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;

use super::dump::{self, Dump, Relocation};
use super::elf::{self, size};
use super::formula::{self, Field};
use super::gnu_ld::{self, Part};
use objects::{Object, Rows};
use symbols::GOT_SYMBOL;

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

/// A relocation of a compared section.
struct Entry<'a> {
    /// The field's bytes in the section.
    range: Range<usize>,
    field: Field<'a>,
    row: &'a Relocation,
    /// Index of its symbol in the object.
    symbol: usize,
    by_ld: bool,
}

/// A section whose bytes are compared.
struct Judged<'a> {
    object: usize,
    section: usize,
    entries: Vec<Entry<'a>>,
    /// Relocations beside memory that have no row; ld judges the bytes all the same.
    unlisted: usize,
    /// Byte ranges of instructions that moved to islands.
    moved: Vec<Range<usize>>,
}

/// Island rows by the address of the instruction that moved.
type Islands<'a> = HashMap<u64, &'a dump::Stub>;

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
    objects::check_memory(dump, &mut faults);
    let objects = objects::pair_up(inputs, dump)?;
    objects::check_sections(&objects, &mut faults);
    let islands: Islands<'_> = dump
        .stubs
        .iter()
        .filter_map(|row| Some((row.place?.0, row)))
        .collect();

    let (judged, without) = choose_judges(&objects, dump, &islands, &mut faults);
    let mut parts: Vec<Part<'_>> = objects
        .iter()
        .zip(without)
        .map(|(object, without)| Part {
            elf: &object.elf,
            placed: vec![None; object.elf.sections.len()],
            without,
        })
        .collect();
    for one in &judged {
        parts[one.object].placed[one.section] = objects[one.object].placed(one.section);
    }
    let linked = gnu_ld::link(&parts, &symbols::outside(&objects, dump, &mut faults))?;
    symbols::check(dump, &linked, &mut faults);

    let mut summary = Summary {
        objects: objects.len(),
        ..Summary::default()
    };
    let mut evidence = verdict::Evidence {
        dump,
        linked: &linked,
        islands: &islands,
        faults,
        summary,
    };
    for one in judged {
        evidence.judge(one, &objects);
    }
    summary = evidence.summary;
    evidence.faults.finish(summary)
}

/// Says of every relocation who judges it. Also returns, by object, the file offsets of those that
/// ld must not apply.
fn choose_judges<'a>(
    objects: &[Object<'a>],
    dump: &'a Dump,
    islands: &Islands<'_>,
    faults: &mut Faults,
) -> (Vec<Judged<'a>>, Vec<Vec<usize>>) {
    let ifuncs = symbols::ifunc_names(objects);
    let mut rows = Rows::new(dump);
    let (mut judged, mut without) = (Vec::new(), vec![Vec::new(); objects.len()]);
    for (number, object) in objects.iter().enumerate() {
        for section in 0..object.elf.sections.len() {
            let Some(base) = object.placed(section) else {
                continue;
            };
            let moved = moved_places(object, section, islands, faults);
            let (mut entries, mut unlisted) = (Vec::new(), 0);
            for rela in object.elf.relocations(section) {
                let Some(row) = rows.take(object, section, &rela) else {
                    let beside = object.beside(section).is_some();
                    if beside && formula::is_plain(rela.kind) {
                        unlisted += 1;
                    } else if rela.kind != 0 {
                        faults.add(format!(
                            "{}: no row in the dump",
                            objects::describe(object, section, &rela)
                        ));
                    }
                    continue;
                };
                let symbol = &object.elf.symbols[rela.symbol];
                let ifunc = symbol.kind == elf::STT_GNU_IFUNC || ifuncs.contains(&symbol.name);
                let inside = moved.iter().any(|range| range.contains(&size(rela.offset)));
                let plain = formula::is_plain(rela.kind) && row.action == "direct";
                let by_ld = plain && !ifunc && !inside && symbol.name != GOT_SYMBOL;
                if !by_ld {
                    without[number].push(rela.entry);
                }
                let start = size(rela.offset);
                entries.push(Entry {
                    range: start..start + formula::width(rela.kind),
                    field: Field {
                        kind: rela.kind,
                        place: base + rela.offset,
                        symbol_value: 0,
                        symbol_size: symbol.size,
                        ifunc,
                        addend: rela.addend,
                        action: &row.action,
                        value: 0,
                    },
                    row,
                    symbol: rela.symbol,
                    by_ld,
                });
            }
            judged.push(Judged {
                object: number,
                section,
                entries,
                unlisted,
                moved,
            });
        }
    }
    rows.check_all_taken(faults);
    (judged, without)
}

/// The instructions of a section that islands replaced, by their lengths in the object.
fn moved_places(
    object: &Object<'_>,
    section: usize,
    islands: &Islands<'_>,
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
