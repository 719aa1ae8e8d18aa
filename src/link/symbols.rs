//! The table of global symbols of a link, and the rules by which definitions meet.
//!
//! Rules (gABI, "Symbol Table", and what GNU ld does where it is silent):
//! strong beats common beats weak; the first weak stays; two strong ones clash
//! unless both are `STB_GNU_UNIQUE` or absolute with one value; commons merge to
//! the greatest size and alignment; the most constraining visibility counts.

use hashbrown::HashMap;
use object::elf;
use object::endian::LittleEndian as LE;
use object::read::elf::Sym as _;

use super::error::{LinkError, Place};
use super::object::{Object, SymbolPlace};
use super::resolve::ExternalSymbol;

/// No entry in the table: a symbol that is local after all.
pub(crate) const NO_GLOBAL: u32 = u32::MAX;

/// Where a global symbol is defined.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Definition {
    Undefined,
    /// In an object's section, or an absolute number.
    Object {
        object: u32,
        symbol: u32,
    },
    /// Tentative: the link allots `size` bytes.
    Common {
        object: u32,
        symbol: u32,
        size: u64,
        align: u64,
    },
    /// Outside of the objects.
    External(ExternalSymbol),
    /// Weakly referenced and nowhere defined: 0.
    WeakZero,
    /// Defined by the link itself.
    Linker(LinkerSymbol),
}

/// Symbols that a linker defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkerSymbol {
    /// `_GLOBAL_OFFSET_TABLE_`
    GlobalOffsetTable,
    /// `_TLS_MODULE_BASE_`: the start of the thread-local block.
    TlsModuleBase,
    /// `__dso_handle`: an address that is this module's alone.
    DsoHandle,
    /// `__start_NAME`, by index of the cluster of sections of that name.
    Start(u32),
    /// `__stop_NAME`
    Stop(u32),
}

/// A global symbol.
#[derive(Debug)]
pub(crate) struct Global<'d> {
    pub(crate) name: &'d [u8],
    pub(crate) definition: Definition,
    /// The definition is weak.
    pub(crate) weak: bool,
    pub(crate) unique: bool,
    /// Some object needs it (a strong undefined reference).
    pub(crate) needed: bool,
    /// Some object says that it is thread-local.
    pub(crate) thread_local: bool,
    /// Most constraining `STV_*` seen.
    pub(crate) visibility: u8,
}

impl Global<'_> {
    /// Hidden or internal: for this link alone (gABI, visibility).
    pub(crate) const fn is_local(&self) -> bool {
        matches!(self.visibility, 1 | 2)
    }
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Symbols<'d> {
    index: HashMap<&'d [u8], u32>,
    pub(crate) list: Vec<Global<'d>>,
    /// Needed and undefined when queued: what archives are searched for.
    pub(crate) pending: Vec<u32>,
    /// Signatures of COMDAT groups that were taken.
    signatures: HashMap<&'d [u8], ()>,
}

impl<'d> Symbols<'d> {
    /// The entry of `name`, made if there is none.
    pub(crate) fn intern(&mut self, name: &'d [u8]) -> u32 {
        *self.index.entry(name).or_insert_with(|| {
            let id = u32::try_from(self.list.len()).expect("fewer than 2^32 symbols");
            self.list.push(Global {
                name,
                definition: Definition::Undefined,
                weak: false,
                unique: false,
                needed: false,
                thread_local: false,
                visibility: 0,
            });
            id
        })
    }

    /// The entry of `name`, if any object mentions it.
    pub(crate) fn find(&self, name: &[u8]) -> Option<u32> {
        self.index.get(name).copied()
    }

    /// Marks `id` as needed, so that archives are searched for it.
    pub(crate) fn need(&mut self, id: u32) {
        let global = &mut self.list[to_index(id)];
        if !global.needed {
            global.needed = true;
            if matches!(
                global.definition,
                Definition::Undefined | Definition::Common { .. }
            ) {
                self.pending.push(id);
            }
        }
    }

    /// Discards members of COMDAT groups whose signature an earlier object brought.
    pub(crate) fn take_groups(&mut self, object: &mut Object<'d>) {
        let groups = std::mem::take(&mut object.groups);
        for group in &groups {
            if self.signatures.insert(group.signature, ()).is_none() {
                continue;
            }
            for member in group.members {
                let index = usize::try_from(member.get(LE)).unwrap_or(usize::MAX);
                if let Some(section) = object.sections.get_mut(index) {
                    section.discarded = true;
                }
            }
        }
        object.groups = groups;
    }

    /// Enters the globals of `object` (the link's object number `number`). Clashes go to `errors`.
    pub(crate) fn add(
        &mut self,
        objects: &[Object<'d>],
        object: &mut Object<'d>,
        number: u32,
        errors: &mut Vec<LinkError>,
    ) -> Result<(), LinkError> {
        let symbols = object.symbols();
        let mut globals = Vec::with_capacity(symbols.len() - object.first_global);
        for (index, symbol) in symbols.iter().enumerate().skip(object.first_global) {
            if symbol.st_bind() == elf::STB_LOCAL {
                globals.push(NO_GLOBAL);
                continue;
            }
            let name = default_version(object.symbol_name(symbol)?);
            let id = self.intern(name);
            globals.push(id);
            let mut place = object.place_of(index, symbol)?;
            if let SymbolPlace::Section(section) = place
                && object.sections[section].discarded
            {
                place = SymbolPlace::Undefined;
            }
            let global = &mut self.list[to_index(id)];
            global.visibility = stricter(global.visibility, symbol.st_visibility().0);
            global.thread_local |= symbol.st_type() == elf::STT_TLS;
            let weak = symbol.st_bind() == elf::STB_WEAK;
            let symbol_number = u32::try_from(index).expect("fewer than 2^32 symbols in a file");
            match place {
                SymbolPlace::Undefined => {
                    if !weak {
                        self.need(id);
                    }
                }
                SymbolPlace::Common => {
                    merge_common(global, number, symbol_number, symbol);
                    // An archive's definition takes a common's place (as in GNU ld and lld).
                    self.pending.push(id);
                }
                SymbolPlace::Absolute | SymbolPlace::Section(_) => {
                    let unique = symbol.st_bind() == elf::STB_GNU_UNIQUE;
                    match rank(global).cmp(&if weak { 1 } else { 3 }) {
                        std::cmp::Ordering::Less => {
                            global.definition = Definition::Object {
                                object: number,
                                symbol: symbol_number,
                            };
                            global.weak = weak;
                            global.unique = unique;
                        }
                        std::cmp::Ordering::Equal if !(weak || unique && global.unique) => {
                            let first = global.definition;
                            if let Some(error) = clash(objects, first, object, index, name) {
                                errors.push(error);
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
        object.globals = globals;
        Ok(())
    }
}

/// `name@@VERSION` (`.symver`) is the default version: what references to `name` mean.
fn default_version(name: &[u8]) -> &[u8] {
    // Few names have one: a quick look first.
    if !name.contains(&b'@') {
        return name;
    }
    let versioned = name.windows(2).position(|pair| pair == b"@@");
    versioned
        .filter(|&at| at > 0)
        .map_or(name, |at| &name[..at])
}

/// `u32` numbers of ours as indices.
pub(crate) fn to_index(number: u32) -> usize {
    usize::try_from(number).expect("usize has at least 32 bits")
}

fn rank(global: &Global<'_>) -> u8 {
    match global.definition {
        Definition::Object { .. } if global.weak => 1,
        Definition::Common { .. } => 2,
        Definition::Object { .. } | Definition::Linker(_) => 3,
        Definition::Undefined | Definition::External(_) | Definition::WeakZero => 0,
    }
}

/// gABI: of default, protected (3), hidden (2), internal (1), the most constraining counts.
fn stricter(old: u8, new: u8) -> u8 {
    let new = new & 3;
    if old == 0 || (new != 0 && new < old) {
        new
    } else {
        old
    }
}

fn merge_common(global: &mut Global<'_>, object: u32, symbol: u32, raw: &super::object::Symbol) {
    // st_value of a common symbol is its alignment.
    let (mut size, mut align) = (raw.st_size(LE), raw.st_value(LE).max(1));
    if let Definition::Common {
        size: other,
        align: other_align,
        object: o,
        symbol: s,
    } = global.definition
    {
        let (keep_object, keep_symbol) = if size > other {
            (object, symbol)
        } else {
            (o, s)
        };
        size = size.max(other);
        align = align.max(other_align);
        global.definition = Definition::Common {
            object: keep_object,
            symbol: keep_symbol,
            size,
            align,
        };
    } else if rank(global) < 2 {
        global.definition = Definition::Common {
            object,
            symbol,
            size,
            align,
        };
        global.weak = false;
    }
}

fn clash(
    objects: &[Object<'_>],
    first: Definition,
    second: &Object<'_>,
    index: usize,
    name: &[u8],
) -> Option<LinkError> {
    let Definition::Object { object, symbol } = first else {
        return None;
    };
    let (first_object, first_index) = match objects.get(to_index(object)) {
        Some(object) => (object, to_index(symbol)),
        None => (second, to_index(symbol)),
    };
    let (old, new) = (
        first_object.symbols().get(first_index)?,
        second.symbols().get(index)?,
    );
    let absolute = |symbol: &super::object::Symbol| symbol.st_shndx(LE) == elf::SHN_ABS;
    if absolute(old) && absolute(new) && old.st_value(LE) == new.st_value(LE) {
        return None;
    }
    Some(LinkError::DuplicateSymbol {
        symbol: String::from_utf8_lossy(name).into_owned(),
        first: Box::new(definition_place(first_object, first_index)),
        second: definition_place(second, index),
    })
}

/// Object, section and offset of a symbol's definition.
pub(crate) fn definition_place(object: &Object<'_>, index: usize) -> Place {
    let mut place = Place {
        object: object.name.clone(),
        section: String::new(),
        offset: 0,
    };
    if let Some(symbol) = object.symbols().get(index) {
        place.offset = symbol.st_value(LE);
        match object.place_of(index, symbol) {
            Ok(SymbolPlace::Section(section)) => {
                place.section = object.sections[section].display_name();
            }
            Ok(SymbolPlace::Absolute) => "*ABS*".clone_into(&mut place.section),
            Ok(SymbolPlace::Common) => "*COM*".clone_into(&mut place.section),
            _ => {}
        }
    }
    place
}
