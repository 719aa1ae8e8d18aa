//! Symbol values once sections have addresses: one small record a symbol, so that
//! the relocation loop looks nothing up by name.

use object::elf;
use object::endian::LittleEndian as LE;
use object::read::elf::Sym as _;

use super::error::LinkError;
use super::object::{Object, Symbol, SymbolPlace};
use super::resolve::ExternalKind;
use super::symbols::{Definition, NO_GLOBAL, Symbols, to_index};

/// What a symbol came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    /// S.
    pub(crate) addr: u64,
    pub(crate) flags: u16,
}

/// Defined outside of the objects.
pub(crate) const EXTERNAL: u16 = 1;
/// `STT_GNU_IFUNC`: the address is the resolver's.
pub(crate) const IFUNC: u16 = 1 << 1;
/// Thread-local.
pub(crate) const TLS: u16 = 1 << 2;
/// In a section that a COMDAT group dropped.
pub(crate) const DISCARDED: u16 = 1 << 3;
/// Nowhere defined, and not weak.
pub(crate) const UNRESOLVED: u16 = 1 << 4;
/// Weak and nowhere defined: 0.
pub(crate) const WEAK_ZERO: u16 = 1 << 5;
/// A function.
pub(crate) const FUNCTION: u16 = 1 << 6;
/// `_GLOBAL_OFFSET_TABLE_`, whose address is known last.
pub(crate) const GOT_SYMBOL: u16 = 1 << 7;
/// A number (`SHN_ABS`), not an address in a section.
pub(crate) const ABSOLUTE: u16 = 1 << 8;
/// External data of known type.
pub(crate) const DATA: u16 = 1 << 9;

/// Flags with which S cannot be put into a field as it is.
pub(crate) const CARE: u16 = IFUNC | TLS | DISCARDED | UNRESOLVED | GOT_SYMBOL;

impl Value {
    const fn new(addr: u64, flags: u16) -> Self {
        Self { addr, flags }
    }
    pub(crate) const fn has(self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// Addresses that values are made from.
#[derive(Debug)]
pub(crate) struct Addresses<'a> {
    /// Of each loaded section, by `Section::placed`.
    pub(crate) loaded: &'a [u64],
    /// Of commons, by global; 0 where it is none.
    pub(crate) commons: &'a hashbrown::HashMap<u32, u64>,
    /// First and last address of `__start_`/`__stop_` clusters.
    pub(crate) clusters: &'a [(u64, u64)],
    /// Offsets of thread-local commons in the thread-local block, by global.
    pub(crate) tls_commons: &'a hashbrown::HashMap<u32, u64>,
    /// What `__dso_handle` stands for.
    pub(crate) dso_handle: u64,
}

fn type_flags(symbol: &Symbol) -> u16 {
    match symbol.st_type() {
        elf::STT_FUNC => FUNCTION,
        elf::STT_GNU_IFUNC => FUNCTION | IFUNC,
        elf::STT_TLS => TLS,
        _ => 0,
    }
}

/// A thread-local symbol that no thread-local section holds.
fn misplaced(object: &Object<'_>, index: usize, place: &str) -> LinkError {
    LinkError::object(
        &object.name,
        format!(
            "symbol {} is thread-local (STT_TLS) and defined in {place}, which is not (SHF_TLS); the object is inconsistent, compile it anew",
            object.symbol_display(index)
        ),
    )
}

/// The value of a definition in `object`.
fn defined(
    object: &Object<'_>,
    index: usize,
    symbol: &Symbol,
    addresses: &Addresses<'_>,
) -> Result<Value, LinkError> {
    let flags = type_flags(symbol);
    let offset = symbol.st_value(LE);
    Ok(match object.place_of(index, symbol)? {
        SymbolPlace::Section(section) if flags & TLS != 0 && !object.sections[section].is_tls() => {
            return Err(misplaced(
                object,
                index,
                &object.sections[section].display_name(),
            ));
        }
        SymbolPlace::Absolute if flags & TLS != 0 => {
            return Err(misplaced(object, index, "SHN_ABS"));
        }
        SymbolPlace::Absolute => Value::new(offset, flags | ABSOLUTE),
        SymbolPlace::Section(section) => {
            let section = &object.sections[section];
            match section.placed {
                Some(placed) => Value::new(
                    addresses.loaded[to_index(placed)].wrapping_add(offset),
                    flags,
                ),
                None if section.discarded => Value::new(0, flags | DISCARDED),
                None if section.is_thread_local() => {
                    Value::new(section.tls_offset.wrapping_add(offset), TLS)
                }
                // Not loaded (debug information): such sections start at 0.
                None => Value::new(offset, flags),
            }
        }
        SymbolPlace::Undefined | SymbolPlace::Common => Value::new(0, UNRESOLVED),
    })
}

/// The values of all globals.
pub(crate) fn globals(
    symbols: &Symbols<'_>,
    objects: &[Object<'_>],
    addresses: &Addresses<'_>,
) -> Result<Vec<Value>, LinkError> {
    let mut values = Vec::with_capacity(symbols.list.len());
    for (id, global) in symbols.list.iter().enumerate() {
        let id = u32::try_from(id).expect("fewer than 2^32 symbols");
        values.push(match global.definition {
            Definition::Object { object, symbol } => {
                let (object, index) = (&objects[to_index(object)], to_index(symbol));
                defined(object, index, object.symbol(index)?, addresses)?
            }
            Definition::Common { .. } => match addresses.tls_commons.get(&id) {
                Some(&offset) => Value::new(offset, TLS),
                None => Value::new(addresses.commons.get(&id).copied().unwrap_or(0), 0),
            },
            Definition::External(external) => Value::new(
                external.addr,
                EXTERNAL
                    | match external.kind {
                        ExternalKind::Function => FUNCTION,
                        ExternalKind::Data => DATA,
                        ExternalKind::Tls | ExternalKind::ModuleTls { .. } => TLS,
                        ExternalKind::Unknown => 0,
                    },
            ),
            Definition::WeakZero => Value::new(0, WEAK_ZERO),
            Definition::Undefined => Value::new(0, UNRESOLVED),
            Definition::Linker(which) => linker_value(which, addresses),
        });
    }
    Ok(values)
}

fn linker_value(which: super::symbols::LinkerSymbol, addresses: &Addresses<'_>) -> Value {
    use super::symbols::LinkerSymbol as L;
    match which {
        L::GlobalOffsetTable => Value::new(0, GOT_SYMBOL),
        L::TlsModuleBase => Value::new(0, TLS),
        L::DsoHandle => Value::new(addresses.dso_handle, 0),
        L::Start(cluster) => Value::new(addresses.clusters[to_index(cluster)].0, 0),
        L::Stop(cluster) => Value::new(addresses.clusters[to_index(cluster)].1, 0),
    }
}

/// The values of all symbols of one object, by symbol number.
pub(crate) fn of_object(
    object: &Object<'_>,
    globals: &[Value],
    addresses: &Addresses<'_>,
    out: &mut Vec<Value>,
) -> Result<(), LinkError> {
    out.clear();
    let symbols = object.symbols();
    for (index, symbol) in symbols.iter().enumerate().take(object.first_global) {
        out.push(defined(object, index, symbol, addresses)?);
    }
    for (index, &id) in object.globals.iter().enumerate() {
        out.push(if id == NO_GLOBAL {
            let index = index + object.first_global;
            defined(object, index, object.symbol(index)?, addresses)?
        } else {
            globals[to_index(id)]
        });
    }
    // Symbol 0 stands for "no symbol" and is 0, also where the object has no symbol table.
    match out.first_mut() {
        Some(null) => *null = Value::new(0, ABSOLUTE),
        None => out.push(Value::new(0, ABSOLUTE)),
    }
    Ok(())
}
