//! Unwinding through loaded code: frame tables from the objects' `.eh_frame`, for islands and
//! for stubs, made known to the process's unwinder while the module lives.
//!
//! ```text
//! .eh_frame of every object --(read)--> entries --+--> table of region 1 --(register)--> libgcc
//! rows at moved instructions --(moved)--> islands-+--> table of region 2
//! ```
//!
//! Sections are placed independently, and unwinders suppose that what one registration
//! describes is one stretch of code. So entries are sorted by the region (one mapping, which
//! belongs to one link) that holds their code, and written anew with absolute pointers. An
//! entry whose function a COMDAT group dropped is left out.

#[cfg(any(test, all(windows, target_arch = "x86_64")))]
mod functions;
#[cfg(all(windows, target_arch = "x86_64"))]
mod installed;
mod moved;
mod read;
mod register;
mod table;

use hashbrown::{HashMap, HashSet};
use low2g_platform::{AddrRange, to_u64};

use super::apply::fields;
use super::linked::Linked;
use super::object::{Object, Section, SymbolPlace};
use super::symbols::to_index;
use crate::place::SectionKind;
use moved::Moved;
use read::{Cie, FrameSection};
use register::Registered;
pub use register::unwinding_is_supported;
use table::{Finished, Table};

/// Why a frame entry is not part of the tables: unwinding stops at its function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameProblem {
    /// The section ends inside of an entry.
    #[error("the entry at offset {offset:#x} runs past the section's end")]
    Truncated {
        /// Offset in the section, bytes.
        offset: usize,
    },
    /// An entry refers to a common entry that is none.
    #[error("there is no common entry (CIE) at offset {offset:#x}")]
    NoCie {
        /// Offset in the section, bytes.
        offset: usize,
    },
    /// An augmentation, pointer encoding or instruction that is not known.
    #[error("the entry at offset {offset:#x} has an unknown augmentation, encoding or instruction")]
    Unsupported {
        /// Offset in the section, bytes.
        offset: usize,
    },
}

/// A problem with where it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{object}(.eh_frame): {problem}; exceptions and backtraces stop at its function")]
pub struct FrameWarning {
    /// Name of the object.
    pub object: String,
    /// What is wrong.
    #[source]
    pub problem: FrameProblem,
}

/// The frame tables of a module.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    tables: Vec<Finished>,
    registered: Option<Registered>,
    #[cfg(all(windows, target_arch = "x86_64"))]
    installed: Option<installed::Installed>,
    pub(crate) warnings: Vec<FrameWarning>,
}

impl Frames {
    /// Makes the tables of a finished link.
    pub(crate) fn of(linked: &Linked<'_>) -> Self {
        let mut builder = Builder::new(linked);
        builder.add_objects(linked);
        builder.add_islands(linked);
        let size = linked.plan.stubs_size();
        if size > 0 {
            let (cie, fde) = moved::stub_entry(linked.own.stubs.1, size);
            builder.add(OWN_STUBS, &cie, &fde);
        }
        let tables = builder.tables.into_values().map(Table::finish).collect();
        Self {
            tables,
            registered: None,
            #[cfg(all(windows, target_arch = "x86_64"))]
            installed: None,
            warnings: builder.warnings,
        }
    }

    /// All tables as one `.eh_frame` section: pointers are absolute, so it may lie anywhere.
    pub(crate) fn eh_frame(&self) -> Vec<u8> {
        let registered = self.registered.as_ref().map_or(&[][..], Registered::tables);
        let mut bytes = Vec::new();
        for table in self.tables.iter().chain(registered) {
            let words = table.words.split_last().map_or(&[][..], |(_, words)| words);
            bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        }
        // The end mark.
        bytes.extend([0; 4]);
        bytes
    }

    /// Tells the unwinder; once only.
    pub(crate) fn register(&mut self) {
        #[cfg(all(windows, target_arch = "x86_64"))]
        if self.installed.is_none() {
            self.installed = Some(installed::Installed::new(&self.tables));
        }
        if self.registered.is_none() && !self.tables.is_empty() {
            match Registered::new(std::mem::take(&mut self.tables)) {
                Ok(registered) => self.registered = Some(registered),
                Err(tables) => self.tables = tables,
            }
        }
    }

    /// Takes the tables back: none of their code may run any more.
    pub(crate) fn withdraw(&mut self) {
        self.registered = None;
        #[cfg(all(windows, target_arch = "x86_64"))]
        {
            self.installed = None;
        }
    }
}

/// Keys of CIEs that come from no section.
const OWN_STUBS: (usize, usize) = (usize::MAX, 0);
const OWN_ISLANDS: (usize, usize) = (usize::MAX, 1);
const OWN_SIGNAL_ISLANDS: (usize, usize) = (usize::MAX, 2);

/// Tables by the region that their code lies in.
struct Builder {
    /// Regions of code, ascending.
    regions: Vec<AddrRange>,
    tables: HashMap<usize, Table>,
    warnings: Vec<FrameWarning>,
}

impl Builder {
    fn new(linked: &Linked<'_>) -> Self {
        let code = linked.memory.regions();
        let code = code.filter(|region| region.kind == SectionKind::Code);
        let mut regions: Vec<AddrRange> = code.map(|region| region.range).collect();
        regions.sort_unstable_by_key(|range| range.start());
        Self {
            regions,
            tables: HashMap::new(),
            warnings: Vec::new(),
        }
    }

    fn add(&mut self, key: (usize, usize), cie: &Cie<'_>, fde: &read::Fde<'_>) {
        let after = self
            .regions
            .partition_point(|region| region.start() <= fde.start);
        let Some(region) = after.checked_sub(1) else {
            return;
        };
        let inside = fde.len > 0
            && AddrRange::at(fde.start, fde.len)
                .is_some_and(|code| self.regions[region].encloses(code));
        if inside {
            self.tables.entry(region).or_default().add(key, cie, fde);
        }
    }

    fn add_objects(&mut self, linked: &Linked<'_>) {
        for (number, (loaded, &addr)) in linked.layout.loaded.iter().zip(&linked.addrs).enumerate()
        {
            let object = &linked.tables.objects[to_index(loaded.object)];
            let section = &object.sections[to_index(loaded.section)];
            if section.name != b".eh_frame" {
                continue;
            }
            let range = AddrRange::at(addr, loaded.size);
            let Some(bytes) = range.and_then(|range| linked.memory.read(range)) else {
                continue;
            };
            let frames = FrameSection {
                addr,
                bytes: &bytes,
            };
            let dropped = dropped_fields(object, section);
            self.add_section(number, frames, &dropped, &object.name);
        }
    }

    fn add_section(
        &mut self,
        number: usize,
        frames: FrameSection<'_>,
        dropped: &HashSet<u64>,
        object: &str,
    ) {
        let mut cies: HashMap<usize, Option<Cie<'_>>> = HashMap::new();
        for entry in frames.entries() {
            let mut warn = |problem| {
                self.warnings.push(FrameWarning {
                    object: object.to_owned(),
                    problem,
                });
            };
            let entry = match entry {
                Ok(entry) => entry,
                Err(problem) => {
                    warn(problem);
                    continue;
                }
            };
            let Some(cie_at) = entry.cie() else { continue };
            if dropped.contains(&to_u64(entry.start_field())) {
                continue;
            }
            let cie = cies
                .entry(cie_at)
                .or_insert_with(|| frames.cie(cie_at).map_err(&mut warn).ok());
            let Some(cie) = cie else { continue };
            match frames.fde(&entry, cie) {
                Ok(fde) => self.add((number, cie_at), cie, &fde),
                Err(problem) => warn(problem),
            }
        }
    }

    fn add_islands(&mut self, linked: &Linked<'_>) {
        let mut islands: Vec<Moved<'_>> = linked
            .plan
            .islands
            .iter()
            .filter_map(|island| {
                let object = &linked.tables.objects[to_index(island.object)];
                let placed = object.sections[to_index(island.section)].placed?;
                Some(Moved {
                    from: linked.addrs[to_index(placed)] + to_u64(island.insn),
                    to: linked.own.islands.1 + island.offset,
                    size: to_u64(island.size),
                    rows: &island.rows,
                })
            })
            .collect();
        if islands.is_empty() {
            return;
        }
        islands.sort_unstable_by_key(|island| island.from);
        let mut found = Vec::new();
        for table in self.tables.values() {
            for entry in &table.entries {
                moved::each_of_entry(table, entry, &islands, &mut |island, instructions| {
                    found.push((island, instructions, entry.signal));
                });
            }
        }
        for (island, instructions, signal) in found {
            let fde = read::Fde {
                start: island.to,
                len: island.size,
                lsda: 0,
                instructions: &instructions,
            };
            let key = if signal {
                OWN_SIGNAL_ISLANDS
            } else {
                OWN_ISLANDS
            };
            self.add(key, &moved::cie(signal), &fde);
        }
    }
}

/// Offsets in `section` of fields that refer to dropped sections.
fn dropped_fields(object: &Object<'_>, section: &Section<'_>) -> HashSet<u64> {
    if !object.sections.iter().any(|section| section.discarded) {
        return HashSet::new();
    }
    let refers_to_dropped = |symbol: u32| {
        let index = to_index(symbol);
        let place = object
            .symbol(index)
            .and_then(|symbol| object.place_of(index, symbol));
        matches!(place, Ok(SymbolPlace::Section(section)) if object.sections[section].discarded)
    };
    section
        .relas
        .iter()
        .map(fields)
        .filter(|field| refers_to_dropped(field.symbol))
        .map(|field| field.offset)
        .collect()
}
