//! A link that succeeded: protected memory, symbols, and what a report needs.

use hashbrown::HashMap;
use object::elf;
use object::endian::LittleEndian as LE;
use object::read::elf::Sym as _;

use crate::place::{Finalized, RegionInfo};

use super::apply::{Outcome, Row, Target, apply};
use super::debugger::Description;
use super::engine::{Phases, Tables};
use super::error::{LinkError, LinkFailure};
use super::far::{Key, Plan, SLOT_SIZE, STUB_SIZE};
use super::init::InitLists;
use super::layout::Layout;
use super::mirrors::Shared;
use super::module::{Export, Life, Module, PendingIfunc};
use super::object::SymbolPlace;
use super::options::{Debugger, LinkOptions, Relax};
use super::relocate::Own;
use super::symbols::{Definition, to_index};
use super::tls;
use super::unwind::Frames;
use super::value::{
    self, Addresses, FUNCTION, GOT_SYMBOL, IFUNC, TLS, UNRESOLVED, Value, WEAK_ZERO,
};

/// A finished link. Its memory is unmapped when it is dropped.
#[derive(Debug)]
pub struct Linked<'d> {
    pub(crate) tables: Tables<'d>,
    pub(crate) phases: Phases,
    pub(crate) layout: Layout,
    pub(crate) memory: Finalized,
    pub(crate) addrs: Vec<u64>,
    pub(crate) globals: Vec<Value>,
    pub(crate) plan: Plan,
    pub(crate) own: Own,
    pub(crate) rows: Vec<Row>,
    pub(crate) tls: tls::State,
    /// Mirrors that other links of the session may use as well.
    pub(crate) mirrors: Shared,
    pub(crate) debugger: Debugger,
    pub(crate) options: &'d LinkOptions,
}

/// A section of a finished link.
#[derive(Clone, Debug, PartialEq)]
pub struct PlacedSection {
    /// The object's name; `low2g` for what the link added.
    pub object: String,
    /// The section's name.
    pub section: String,
    /// Address of its first byte.
    pub addr: u64,
    /// Bytes.
    pub size: u64,
    /// Its pages; `None` for a section without bytes.
    pub region: Option<RegionInfo>,
}

impl Linked<'_> {
    /// Time that each phase took.
    #[must_use]
    pub const fn phases(&self) -> &Phases {
        &self.phases
    }

    /// How many objects took part, archive members included.
    #[must_use]
    pub fn object_count(&self) -> usize {
        self.tables.objects.len()
    }

    /// All regions that the link holds.
    pub fn regions(&self) -> impl Iterator<Item = &RegionInfo> {
        self.memory.regions()
    }

    /// All sections that have memory: the inputs', then `.got`, `.stubs`, `.islands` and `.mirrors`.
    #[must_use]
    pub fn sections(&self) -> Vec<PlacedSection> {
        let mut all: Vec<PlacedSection> = self
            .layout
            .loaded
            .iter()
            .zip(&self.addrs)
            .map(|(loaded, &addr)| {
                let object = &self.tables.objects[to_index(loaded.object)];
                PlacedSection {
                    object: object.name.clone(),
                    section: object.sections[to_index(loaded.section)].display_name(),
                    addr,
                    size: loaded.size,
                    region: self.memory.region_of(loaded.request).cloned(),
                }
            })
            .collect();
        for (name, (request, addr), size) in self.own_sections() {
            if size > 0 {
                all.push(PlacedSection {
                    object: "low2g".to_owned(),
                    section: name.to_owned(),
                    addr,
                    size,
                    region: self.memory.region_of(request).cloned(),
                });
            }
        }
        all
    }

    /// Name, request and address, and bytes of what the link added itself.
    pub(crate) fn own_sections(&self) -> [(&'static str, (usize, u64), u64); 4] {
        // Shared ones are no section of this link.
        let shared = !self.mirrors.addrs.is_empty();
        let mirrors = if shared { 0 } else { self.plan.mirrors_size() };
        [
            (".got", self.own.got, self.plan.got_size()),
            (".stubs", self.own.stubs, self.plan.stubs_size()),
            (".islands", self.own.islands, self.plan.islands_size()),
            (".mirrors", self.own.mirrors, mirrors),
        ]
    }

    /// The address of the symbol `name`, as other modules would see it: an ifunc's is its
    /// stub's, and thread-local variables have none.
    #[must_use]
    pub fn symbol(&self, name: &str) -> Option<u64> {
        let id = self.tables.symbols.find(name.as_bytes())?;
        let value = *self.globals.get(to_index(id))?;
        if value.has(TLS | UNRESOLVED | WEAK_ZERO) {
            return None;
        }
        if value.has(GOT_SYMBOL) {
            return Some(self.own.got.1);
        }
        if value.has(IFUNC) {
            let mut entries = self.plan.entries.iter();
            let entry = entries.find(|entry| entry.key == Key::Global(id))?;
            return Some(self.stub_addr(entry.stub?));
        }
        Some(value.addr)
    }

    pub(crate) fn slot_addr(&self, slot: u32) -> u64 {
        self.own.got.1 + SLOT_SIZE * u64::from(slot)
    }

    pub(crate) fn stub_addr(&self, stub: u32) -> u64 {
        self.own.stubs.1 + STUB_SIZE * u64::from(stub)
    }

    /// Values of an object's symbols for sections that are not loaded, as a debugger wants them;
    /// `starts` are addresses of such sections, 0 where none is given.
    pub(crate) fn debug_values(
        &self,
        number: usize,
        starts: &HashMap<usize, u64>,
    ) -> Result<Vec<Value>, LinkError> {
        let object = &self.tables.objects[number];
        let (commons, clusters) = (HashMap::new(), vec![(0, 0); self.layout.clusters.len()]);
        let addresses = Addresses {
            loaded: &self.addrs,
            commons: &commons,
            clusters: &clusters,
            tls_commons: &self.layout.tls.commons,
            dso_handle: 0,
        };
        let mut values = Vec::new();
        value::of_object(object, &self.globals, &addresses, &mut values)?;
        for value in &mut values {
            if value.has(value::UNRESOLVED) {
                *value = Value { addr: 0, flags: 0 };
            }
            // Debug information wants the variable's offset, the function's own address, whatever they are.
            value.flags &= !(TLS | IFUNC);
        }
        if !starts.is_empty() {
            for (index, symbol) in object.symbols().iter().enumerate() {
                if let Ok(SymbolPlace::Section(section)) = object.place_of(index, symbol)
                    && let Some(start) = starts.get(&section)
                {
                    values[index].addr = values[index].addr.wrapping_add(*start);
                }
            }
        }
        Ok(values)
    }

    /// Relocates `bytes`, the contents of a section that is not loaded; references to dropped
    /// code are 0. `values` by [`Self::debug_values`].
    pub(crate) fn relocate_unloaded(
        &self,
        number: usize,
        index: usize,
        bytes: &mut [u8],
        values: &[Value],
    ) -> Result<(), LinkFailure> {
        let object = &self.tables.objects[number];
        let relas = object.relocations_of(index)?;
        if relas.is_empty() {
            return Ok(());
        }
        let mut section = object.sections[index].shallow();
        section.relas = std::borrow::Cow::Owned(relas);
        let target = Target {
            tables: &self.tables,
            object,
            object_number: u32::try_from(number).expect("fewer than 2^32 objects"),
            section: &section,
            section_number: u32::try_from(index).expect("fewer than 2^32 sections"),
            addr: 0,
            relax: Relax::None,
        };
        let mut out = Outcome::default();
        apply::<false>(&target, bytes, values, &mut out);
        match out
            .errors
            .into_iter()
            .find(|error| matches!(error, LinkError::Input { .. }))
        {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// The name that reports and debuggers see for a slot's or stub's symbol.
    pub(crate) fn key_name(&self, key: Key) -> String {
        match key {
            Key::Global(id) => {
                String::from_utf8_lossy(self.tables.symbols.list[to_index(id)].name).into_owned()
            }
            Key::Local { object, symbol } => {
                self.tables.objects[to_index(object)].symbol_display(to_index(symbol))
            }
        }
    }

    /// The module: memory, exported symbols and what runs at load and unload.
    /// Nothing of it has run yet.
    #[must_use]
    pub fn into_module(mut self) -> Module {
        let exports = self.exports();
        let init = InitLists::collect(&self);
        let ifuncs = self
            .plan
            .entries
            .iter()
            .filter_map(|entry| {
                Some(PendingIfunc {
                    resolver: entry.value.addr,
                    slot: to_index(entry.ifunc_slot?),
                })
            })
            .collect();
        let frames = Frames::of(&self);
        let life = Life {
            description: Description::of(&self, &frames),
            frames,
            dso_handle: self.tls.dso_handle,
            mirrors: std::mem::take(&mut self.mirrors.memory),
        };
        let variables = self.variables();
        let tls = self.tls.into_runtime(&self.tables.symbols, variables);
        Module::new(self.memory, exports, init, ifuncs, self.own.got, life, tls)
    }

    /// Thread-local variables that other modules see: offset in the block and size.
    fn variables(&self) -> HashMap<Box<str>, (u64, u64)> {
        let mut variables = HashMap::new();
        for (global, value) in self.tables.symbols.list.iter().zip(&self.globals) {
            if !value.has(TLS) || !self.options.offers(global) {
                continue;
            }
            let size = match global.definition {
                Definition::Object { object, symbol } => {
                    let object = &self.tables.objects[to_index(object)];
                    let raw = object.symbols().get(to_index(symbol));
                    raw.map_or(0, |raw| raw.st_size(LE))
                }
                Definition::Common { size, .. } => size,
                _ => continue,
            };
            let name = String::from_utf8_lossy(global.name).into();
            variables.insert(name, (value.addr, size));
        }
        variables
    }

    fn exports(&self) -> HashMap<Box<str>, Export> {
        let mut stubs: HashMap<u32, u64> = HashMap::new();
        for entry in &self.plan.entries {
            if let (Key::Global(id), Some(stub)) = (entry.key, entry.stub)
                && entry.value.has(IFUNC)
            {
                stubs.insert(id, self.stub_addr(stub));
            }
        }
        exports(&self.tables, &self.globals, &stubs, self.options)
    }
}

/// What a link offers to others, thread-local variables aside. `stubs` are those of ifuncs, by global.
pub(crate) fn exports(
    tables: &Tables<'_>,
    values: &[Value],
    stubs: &HashMap<u32, u64>,
    options: &LinkOptions,
) -> HashMap<Box<str>, Export> {
    let mut exports = HashMap::new();
    for (id, global) in tables.symbols.list.iter().enumerate() {
        if !options.offers(global) {
            continue;
        }
        let (Ok(id), value) = (u32::try_from(id), values[id]) else {
            continue;
        };
        let (size, function) = match global.definition {
            Definition::Object { object, symbol } => {
                let object = &tables.objects[to_index(object)];
                let index = to_index(symbol);
                match object.symbols().get(index) {
                    Some(raw) if !value.has(TLS) => {
                        // Assembly often leaves the type out: a label in code is a function.
                        let label = raw.st_type() == elf::STT_NOTYPE && object.is_code(index, raw);
                        (raw.st_size(LE), value.has(FUNCTION) || label)
                    }
                    _ => continue,
                }
            }
            Definition::Common { size, .. } if !value.has(TLS) => (size, false),
            _ => continue,
        };
        // An ifunc that nothing in the link refers to has no stub: it is not exported.
        let addr = match stubs.get(&id) {
            Some(&stub) => stub,
            None if value.has(IFUNC) => continue,
            None => value.addr,
        };
        let name = String::from_utf8_lossy(global.name).into();
        exports.insert(
            name,
            Export {
                addr,
                size,
                function,
            },
        );
    }
    exports
}
