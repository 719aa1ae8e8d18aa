//! A link as a value advanced in steps: read, resolve, place, relocate, protect.
//!
//! Dropping it at any step undoes all. Nothing of the objects runs here, and nothing is
//! visible to anybody before the last step succeeded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::{HashMap, HashSet};

use super::apply::Target;
use super::error::{LinkError, LinkFailure};
use super::far::Key;
use super::input::{Archive, ArchiveIndex, Input, Names};
use super::layout::resolve_pins;
use super::mirrors::Mirrors;
use super::object::Object;
use super::options::LinkOptions;
use super::resolve::SymbolResolver;
use super::symbols::{Definition, LinkerSymbol, Symbols, to_index};

/// Time that each phase took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// Parsing objects and archives, entering symbols.
    pub read: Duration,
    /// Asking for what the objects do not define.
    pub resolve: Duration,
    /// Drawing addresses and mapping memory.
    pub place: Duration,
    /// Copying section contents.
    pub copy: Duration,
    /// Applying relocations, slots, stubs and islands.
    pub relocate: Duration,
    /// Giving pages their final access.
    pub protect: Duration,
}

/// Objects and symbols.
#[derive(Debug, Default)]
pub(crate) struct Tables<'d> {
    pub(crate) objects: Vec<Object<'d>>,
    pub(crate) symbols: Symbols<'d>,
}

/// What the relocating steps look at.
#[derive(Debug)]
pub(crate) struct View<'a, 'd> {
    pub(crate) tables: &'a Tables<'d>,
    pub(crate) options: &'a LinkOptions,
    pub(crate) addrs: &'a [u64],
}

impl<'a, 'd> View<'a, 'd> {
    /// The section to relocate.
    pub(crate) fn target(&self, object: u32, section: u32) -> Target<'a, 'd> {
        let owner = &self.tables.objects[to_index(object)];
        let data = &owner.sections[to_index(section)];
        Target {
            tables: self.tables,
            object: owner,
            object_number: object,
            section: data,
            section_number: section,
            addr: data.placed.map_or(0, |placed| self.addrs[to_index(placed)]),
            relax: self.options.relax,
        }
    }

    pub(crate) fn key(&self, object: u32, symbol: u32) -> Key {
        Key::of(object, &self.tables.objects[to_index(object)], symbol)
    }
}

/// A link that has read its inputs.
#[derive(Debug)]
pub struct Link<'d> {
    pub(crate) tables: Tables<'d>,
    pub(crate) options: &'d LinkOptions,
    pub(crate) phases: Phases,
    /// Names of sections that `__start_`/`__stop_` symbols bracket.
    pub(crate) clusters: Vec<&'d [u8]>,
    names: Names,
    pub(crate) mirrors: Option<Arc<Mirrors>>,
}

impl<'d> Link<'d> {
    /// Reads objects in order, then archives until nothing more is needed of them.
    ///
    /// # Errors
    /// All malformed inputs, or all duplicate definitions.
    pub fn read(inputs: &'d [Input], options: &'d LinkOptions) -> Result<Self, LinkFailure> {
        let start = Instant::now();
        let mut link = Self {
            tables: Tables::default(),
            options,
            phases: Phases::default(),
            clusters: Vec::new(),
            names: Names::default(),
            mirrors: None,
        };
        let mut errors = Vec::new();
        let archives = link.read_objects(inputs, &mut errors);
        if let Some(entry) = &options.entry {
            let id = link.tables.symbols.intern(entry.as_bytes());
            link.tables.symbols.need(id);
        }
        if errors.is_empty()
            && let Err(error) = link.pull(&archives, &mut errors)
        {
            errors.push(error);
        }
        if !errors.is_empty() {
            return Err(LinkFailure::new(errors));
        }
        link.define_linker_symbols();
        link.phases.read = start.elapsed();
        Ok(link)
    }

    /// Takes low copies of the host's constants from `mirrors` and leaves new ones there. A link
    /// with given addresses has its own, where it was told.
    pub(crate) fn share_mirrors(&mut self, mirrors: &Arc<Mirrors>) {
        if !self.options.is_fixed() {
            self.mirrors = Some(Arc::clone(mirrors));
        }
    }

    fn read_objects(
        &mut self,
        inputs: &'d [Input],
        errors: &mut Vec<LinkError>,
    ) -> Vec<Archive<'d>> {
        let mut archives = Vec::new();
        for input in inputs {
            if let Err(error) = self.read_input(input, &mut archives, errors) {
                errors.push(error);
            }
        }
        archives
    }

    fn read_input(
        &mut self,
        input: &'d Input,
        archives: &mut Vec<Archive<'d>>,
        errors: &mut Vec<LinkError>,
    ) -> Result<(), LinkError> {
        if let Some(script) = input.script() {
            for input in &script.inputs {
                self.read_input(input, archives, errors)?;
            }
            return Ok(());
        }
        if input.is_unread_script() {
            return Err(LinkError::object(
                input.name(),
                "is a linker script given as bytes: give its path, so that the files it names are found",
            ));
        }
        if !input.is_archive() {
            return self.add(input.name().to_owned(), input.data(), errors);
        }
        let archive = Archive::read(input)?;
        if self.options.whole_archive {
            for (_, name, data) in archive.members()? {
                self.add(name, data, errors)?;
            }
        } else {
            archives.push(archive);
        }
        Ok(())
    }

    fn add(
        &mut self,
        name: String,
        data: &'d [u8],
        errors: &mut Vec<LinkError>,
    ) -> Result<(), LinkError> {
        let mut object = Object::read(self.names.unique(name), data)?;
        object.refuse_lto()?;
        object.refuse_executable_stack()?;
        let Tables { objects, symbols } = &mut self.tables;
        symbols.take_groups(&mut object);
        let number = u32::try_from(objects.len()).expect("fewer than 2^32 objects");
        symbols.add(objects, &mut object, number, errors)?;
        objects.push(object);
        Ok(())
    }

    /// Pulls archive members that define what is needed, until nothing changes.
    fn pull(
        &mut self,
        archives: &[Archive<'d>],
        errors: &mut Vec<LinkError>,
    ) -> Result<(), LinkError> {
        let mut index = ArchiveIndex::new();
        for (number, archive) in archives.iter().enumerate() {
            archive.index(number, &mut index)?;
        }
        let mut pulled: HashSet<(usize, u64)> = HashSet::new();
        let mut next = 0;
        while let Some(&id) = self.tables.symbols.pending.get(next) {
            next += 1;
            let global = &self.tables.symbols.list[to_index(id)];
            let common = matches!(global.definition, Definition::Common { .. });
            if !common && global.definition != Definition::Undefined {
                continue;
            }
            let symbol = global.name;
            let Some(&member) = index.get(symbol) else {
                continue;
            };
            if pulled.contains(&(member.0, member.1.0)) {
                continue;
            }
            let (name, data) = archives[member.0].member(member.1)?;
            if common && !Object::read(name.clone(), data)?.defines(symbol)? {
                continue;
            }
            pulled.insert((member.0, member.1.0));
            self.add(name, data, errors)?;
        }
        Ok(())
    }

    /// Symbols that linkers define, where something refers to them and nothing defines them.
    fn define_linker_symbols(&mut self) {
        let mut sections: HashSet<&'d [u8]> = HashSet::new();
        let mut clusters: HashMap<&'d [u8], u32> = HashMap::new();
        let brackets = |name: &'d [u8]| {
            let start = name.strip_prefix(b"__start_");
            start.or_else(|| name.strip_prefix(b"__stop_"))
        };
        let undefined = |definition| definition == Definition::Undefined;
        let list = &mut self.tables.symbols.list;
        if list
            .iter()
            .any(|g| undefined(g.definition) && brackets(g.name).is_some())
        {
            let all = self
                .tables
                .objects
                .iter()
                .flat_map(|object| &object.sections);
            sections.extend(all.filter(|s| s.is_loaded()).map(|section| section.name));
        }
        for global in list
            .iter_mut()
            .filter(|global| undefined(global.definition))
        {
            let symbol = match global.name {
                b"_GLOBAL_OFFSET_TABLE_" => LinkerSymbol::GlobalOffsetTable,
                b"_TLS_MODULE_BASE_" => LinkerSymbol::TlsModuleBase,
                b"__dso_handle" => LinkerSymbol::DsoHandle,
                name => {
                    let Some(section) = brackets(name).filter(|name| sections.contains(name))
                    else {
                        continue;
                    };
                    let cluster = *clusters.entry(section).or_insert_with(|| {
                        self.clusters.push(section);
                        u32::try_from(self.clusters.len() - 1).expect("fewer than 2^32 names")
                    });
                    if name.starts_with(b"__start_") {
                        LinkerSymbol::Start(cluster)
                    } else {
                        LinkerSymbol::Stop(cluster)
                    }
                }
            };
            global.definition = Definition::Linker(symbol);
        }
    }

    /// Asks `resolver` for every name that is still undefined. May be called again with
    /// another resolver for what the first did not know. Returns the names that are needed
    /// and still undefined.
    pub fn resolve(&mut self, resolver: &dyn SymbolResolver) -> Vec<String> {
        let start = Instant::now();
        let missing = self.tables.resolve(resolver, self.options.share_hidden);
        self.phases.resolve += start.elapsed();
        missing
    }

    /// Whether every pinned section exists and is named without doubt.
    ///
    /// # Errors
    /// The first pin that does not, in words.
    pub fn check_pins(&self) -> Result<(), String> {
        resolve_pins(&self.tables, self.options)
            .map(|_| ())
            .map_err(|(pin, reason)| format!("--map-section {}: {reason}", pin.file))
    }

    /// Time of the phases so far.
    #[must_use]
    pub const fn phases(&self) -> &Phases {
        &self.phases
    }
}
