//! The dump's symbols: locals of each object, then globals.

use object::elf;
use object::endian::LittleEndian as LE;
use object::read::elf::Sym as _;

use crate::link::linked::Linked;
use crate::link::object::{Object, SymbolPlace};
use crate::link::symbols::{Definition, Global, NO_GLOBAL, definition_place, to_index};
use crate::link::tls::Variable;
use crate::link::value::{self, IFUNC, TLS, Value};

use super::hex;
use super::rows::SymbolRow;

const fn type_name(number: u8) -> &'static str {
    match number {
        1 => "object",
        2 => "func",
        3 => "section",
        4 => "file",
        5 => "common",
        6 => "tls",
        10 => "ifunc",
        _ => "notype",
    }
}

const fn binding_name(number: u8) -> &'static str {
    match number {
        0 => "local",
        2 => "weak",
        10 => "unique",
        _ => "global",
    }
}

pub(super) fn symbols(linked: &Linked<'_>) -> Vec<SymbolRow> {
    let mut rows = Vec::new();
    for object in &linked.tables.objects {
        let globals = object.globals.iter().enumerate();
        let odd = globals.filter(|(_, id)| **id == NO_GLOBAL);
        let locals = (1..object.first_global).chain(odd.map(|(i, _)| i + object.first_global));
        for index in locals {
            rows.extend(local_row(linked, object, index));
        }
    }
    for (id, global) in linked.tables.symbols.list.iter().enumerate() {
        rows.extend(global_row(linked, id, global));
    }
    if linked
        .tables
        .symbols
        .find(b"_GLOBAL_OFFSET_TABLE_")
        .is_none()
    {
        rows.push(plain_row(
            "_GLOBAL_OFFSET_TABLE_",
            linked.own.got.1,
            "low2g",
            "defined",
        ));
    }
    rows
}

fn plain_row(name: &str, addr: u64, object: &str, kind: &'static str) -> SymbolRow {
    SymbolRow {
        name: name.to_owned(),
        addr: hex(addr),
        size: 0,
        object: object.to_owned(),
        binding: "global",
        kind_of: "notype",
        kind,
        tpoff: None,
    }
}

fn local_row(linked: &Linked<'_>, object: &Object<'_>, index: usize) -> Option<SymbolRow> {
    let symbol = object.symbols().get(index)?;
    let mut tpoff = None;
    if symbol.st_type() == elf::STT_FILE {
        return None;
    }
    let (addr, kind) = match object.place_of(index, symbol).ok()? {
        SymbolPlace::Section(section) => {
            let section = &object.sections[section];
            let start = match section.placed {
                Some(placed) => linked.addrs[to_index(placed)],
                None if section.is_thread_local() => {
                    let at = section.tls_offset.wrapping_add(symbol.st_value(LE));
                    tpoff = linked.tls.offset_of(Variable::Own(at)).map(hex);
                    section.tls_offset
                }
                None if section.is_alloc() && !section.is_tls() => return None,
                None => 0,
            };
            let kind = match symbol.st_type() {
                elf::STT_TLS => "tls",
                elf::STT_GNU_IFUNC => "ifunc",
                _ if section.is_thread_local() => "tls",
                _ => "defined",
            };
            (start.wrapping_add(symbol.st_value(LE)), kind)
        }
        SymbolPlace::Absolute => (symbol.st_value(LE), "absolute"),
        SymbolPlace::Undefined | SymbolPlace::Common => return None,
    };
    Some(SymbolRow {
        name: object.symbol_display(index),
        addr: hex(addr),
        size: symbol.st_size(LE),
        object: object.name.clone(),
        binding: binding_name(symbol.st_bind().0),
        kind_of: type_name(symbol.st_type().0),
        kind,
        tpoff,
    })
}

fn global_row(linked: &Linked<'_>, id: usize, global: &Global<'_>) -> Option<SymbolRow> {
    let name = String::from_utf8_lossy(global.name).into_owned();
    let value = *linked.globals.get(id)?;
    let mut row = plain_row(&name, value.addr, "", "defined");
    row.tpoff = linked
        .tls
        .offset_of_symbol(value, u32::try_from(id).ok())
        .map(hex);
    match global.definition {
        Definition::Object { object, symbol } => {
            let owner = &linked.tables.objects[to_index(object)];
            let raw = owner.symbols().get(to_index(symbol))?;
            row.object.clone_from(&owner.name);
            row.size = raw.st_size(LE);
            row.binding = binding_name(raw.st_bind().0);
            row.kind_of = type_name(raw.st_type().0);
            row.kind = kind_of(value);
        }
        Definition::Common {
            object,
            symbol,
            size,
            ..
        } => {
            let owner = &linked.tables.objects[to_index(object)];
            row.object = definition_place(owner, to_index(symbol)).object;
            row.size = size;
            row.kind_of = if value.has(TLS) { "tls" } else { "object" };
            row.kind = if value.has(TLS) { "tls" } else { "common" };
        }
        Definition::External(external) => {
            row.size = external.size;
            row.kind = "external";
            row.kind_of = match external.kind {
                crate::link::ExternalKind::Function => "func",
                crate::link::ExternalKind::Data => "object",
                crate::link::ExternalKind::Tls | crate::link::ExternalKind::ModuleTls { .. } => {
                    "tls"
                }
                crate::link::ExternalKind::Unknown => "notype",
            };
        }
        Definition::WeakZero => {
            row.kind = "undef-weak";
            row.binding = "weak";
        }
        Definition::Undefined => return None,
        Definition::Linker(_) => {
            "low2g".clone_into(&mut row.object);
            if value.has(value::GOT_SYMBOL) {
                row.addr = hex(linked.own.got.1);
            }
        }
    }
    Some(row)
}

const fn kind_of(value: Value) -> &'static str {
    if value.has(TLS) {
        "tls"
    } else if value.has(IFUNC) {
        "ifunc"
    } else if value.has(value::ABSOLUTE) {
        "absolute"
    } else {
        "defined"
    }
}
