//! The comparison itself: a section's bytes, its fields, its moved instructions.

use std::ops::Range;

use super::super::dump::Dump;
use super::super::elf::{self, size};
use super::super::formula::{self, Moved};
use super::super::gnu_ld::Linked;
use super::objects::Object;
use super::{Faults, Islands, Judged, Summary, symbols};

/// All that a verdict rests on, and what has been found so far.
pub(super) struct Evidence<'a> {
    pub(super) dump: &'a Dump,
    pub(super) linked: &'a Linked,
    pub(super) islands: &'a Islands<'a>,
    pub(super) faults: Faults,
    pub(super) summary: Summary,
}

impl Evidence<'_> {
    /// Compares one section.
    pub(super) fn judge(&mut self, mut one: Judged<'_>, objects: &[Object<'_>]) {
        let object = &objects[one.object];
        let in_file = &object.elf.sections[one.section];
        let name = format!("{}({})", object.name, in_file.name);
        if in_file.size == 0 {
            return;
        }
        let found = match object.addr(one.section) {
            Some(addr) => self.dump.read(addr, in_file.size),
            None => object.beside(one.section).map(<[u8]>::to_vec),
        };
        let Some(found) = found.filter(|found| found.len() == size(in_file.size)) else {
            return self.faults.add(format!(
                "{name}: its {} bytes are not all in the dump",
                in_file.size
            ));
        };
        for entry in &mut one.entries {
            let symbol = &object.elf.symbols[entry.symbol];
            entry.field.symbol_value = symbols::value(object, symbol, self.linked, self.dump);
            entry.field.value = formula::extend(entry.field.kind, &found[entry.range.clone()]);
        }
        let Some(wanted) = self.wanted(&one, object, &name) else {
            return;
        };
        self.summary.sections += 1;
        self.summary.bytes += in_file.size;
        self.summary.by_ld += one.unlisted;
        let by_formula = self.judge_fields(&one, &name, found.len());

        let differs = |&at: &usize| !by_formula[at] && wanted.get(at) != Some(&found[at]);
        if let Some(at) = (0..found.len()).find(differs) {
            let count = (0..found.len()).filter(differs).count();
            let until = (at + 16).min(found.len());
            self.faults.add(format!(
                "{name}: {count} bytes differ, first at +{at:#x}: low2g {:02x?}, ld {:02x?}",
                &found[at..until],
                wanted.get(at..until).unwrap_or_default()
            ));
        }
    }

    /// The section's bytes as ld has them.
    fn wanted(&mut self, one: &Judged<'_>, object: &Object<'_>, name: &str) -> Option<Vec<u8>> {
        let in_file = &object.elf.sections[one.section];
        let placed = object.placed(one.section);
        match self.linked.section(one.object, one.section) {
            Some((at, _)) if placed != Some(at) => {
                self.faults.add(format!(
                    "{name}: ld placed it at {at:#x}, not at {placed:x?}"
                ));
                None
            }
            _ if in_file.kind == elf::SHT_NOBITS => Some(vec![0; size(in_file.size)]),
            Some((_, bytes)) => Some(bytes.to_vec()),
            None => {
                self.faults.add(format!("{name}: ld left it out"));
                None
            }
        }
    }

    /// Checks every relocation's row, and by formula those that ld does not judge; returns which
    /// bytes those are.
    fn judge_fields(&mut self, one: &Judged<'_>, name: &str, len: usize) -> Vec<bool> {
        let mut by_formula = vec![false; len];
        for range in &one.moved {
            by_formula[range.clone()].fill(true);
            self.judge_island(one, range, name);
        }
        for entry in &one.entries {
            let field = &entry.field;
            let describe = |fault: String| {
                let kind = formula::type_name(field.kind);
                format!(
                    "{name}+{:#x}: {kind} {} ({}): {fault}",
                    entry.range.start, entry.row.symbol, field.action
                )
            };
            if entry.row.symbol_value.0 != field.symbol_value {
                let fault = format!(
                    "S is {:?}, ld has {:#x}",
                    entry.row.symbol_value, field.symbol_value
                );
                self.faults.add(describe(fault));
            }
            if one
                .moved
                .iter()
                .any(|moved| moved.contains(&entry.range.start))
            {
                continue;
            }
            if entry.row.value.0 != field.value {
                let fault = format!(
                    "the row's value is {:?}, the field holds {:#x}",
                    entry.row.value, field.value
                );
                self.faults.add(describe(fault));
            }
            if entry.by_ld {
                self.summary.by_ld += 1;
                continue;
            }
            by_formula[entry.range.clone()].fill(true);
            self.summary.by_formula += 1;
            if let Err(fault) = formula::check(self.dump, field) {
                self.faults.add(describe(fault));
            }
        }
        by_formula
    }

    fn judge_island(&mut self, one: &Judged<'_>, range: &Range<usize>, name: &str) {
        let inside = one
            .entries
            .iter()
            .filter(|entry| range.contains(&entry.range.start));
        let fields: Vec<_> = inside
            .map(|entry| (entry.range.start - range.start, entry.field.clone()))
            .collect();
        self.summary.islands += 1;
        self.summary.by_formula += fields.len();
        let Some((within, first)) = fields.first() else {
            return self.faults.add(format!(
                "{name}+{:#x}: an island where nothing is relocated",
                range.start
            ));
        };
        let place = first.place - u64::try_from(*within).expect("usize fits 64 bits");
        let Some(row) = self.islands.get(&place) else {
            return self.faults.add(format!(
                "{name}+{:#x}: no island row for {place:#x}",
                range.start
            ));
        };
        let fields = fields.into_iter().map(|(_, field)| field).collect();
        let moved = Moved {
            row,
            place,
            len: range.len(),
            fields,
        };
        if let Err(fault) = formula::check_island(self.dump, &moved) {
            self.faults
                .add(format!("{name}+{:#x}: {fault}", range.start));
        }
    }
}
