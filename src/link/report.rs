//! What a link did, as data: the dump format "low2g-dump/1" of `low2g link --json`.
//!
//! Addresses and 64-bit values are strings in lower-case hexadecimal, sizes, offsets and
//! addends numbers, bytes hex strings. `memory` is read back after protection is final.

use low2g_platform::AddrRange;
use object::elf;
use object::endian::LittleEndian as LE;
use object::read::elf::Sym as _;
use serde::Serialize;

use crate::place::SectionKind;

use super::error::{LinkError, LinkFailure};
use super::far::Key;
use super::linked::Linked;
use super::object::{Object, Section, SymbolPlace};
use super::symbols::{Definition, NO_GLOBAL, definition_place, to_index};
use super::tls::{Mode, Variable};
use super::value::{self, IFUNC, TLS, Value};

/// A value as the dump writes it.
#[must_use]
pub fn hex(value: u64) -> String {
    format!("{value:#x}")
}

/// Bytes as the dump writes them.
#[must_use]
pub fn hex_bytes(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for &byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// The whole dump.
#[derive(Debug, Default, Serialize)]
#[allow(
    missing_docs,
    reason = "field names are the dump format's, documented there"
)]
pub struct Report {
    pub format: &'static str,
    pub status: &'static str,
    pub errors: Vec<ErrorRow>,
    pub objects: Vec<ObjectRow>,
    pub memory: Vec<MemoryRow>,
    pub symbols: Vec<SymbolRow>,
    pub got: Vec<GotRow>,
    pub stubs: Vec<StubRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub got_base: Option<String>,
    pub tls: TlsRow,
    pub placement: Vec<PlacementRow>,
    pub relocations: Vec<RelocationRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<serde_json::Value>,
}

/// An error.
#[derive(Debug, Default, Serialize)]
#[allow(
    missing_docs,
    reason = "field names are the dump format's, documented there"
)]
pub struct ErrorRow {
    pub kind: &'static str,
    pub object: String,
    pub section: String,
    pub offset: u64,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub r_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symbol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addend: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    pub message: String,
}

/// An input object.
#[derive(Debug, Serialize)]
#[allow(
    missing_docs,
    reason = "field names are the dump format's, documented there"
)]
pub struct ObjectRow {
    pub name: String,
    pub sections: Vec<SectionRow>,
}

/// A section of an object.
#[derive(Debug, Serialize)]
#[allow(
    missing_docs,
    reason = "field names are the dump format's, documented there"
)]
pub struct SectionRow {
    pub index: usize,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addr: Option<String>,
    pub size: u64,
    pub align: u64,
    pub flags: String,
    pub alloc: bool,
    pub zero_fill: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub discarded: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<String>,
}

/// Pages of one access.
#[derive(Debug, Serialize)]
#[allow(
    missing_docs,
    reason = "field names are the dump format's, documented there"
)]
pub struct MemoryRow {
    pub addr: String,
    pub size: u64,
    pub prot: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub zero: bool,
}

/// A symbol.
#[derive(Debug, Serialize)]
#[allow(
    missing_docs,
    reason = "field names are the dump format's, documented there"
)]
pub struct SymbolRow {
    pub name: String,
    pub addr: String,
    pub size: u64,
    pub object: String,
    pub binding: &'static str,
    #[serde(rename = "type")]
    pub kind_of: &'static str,
    pub kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpoff: Option<String>,
}

/// A GOT slot as one object uses it.
#[derive(Debug, Serialize)]
#[allow(
    missing_docs,
    reason = "field names are the dump format's, documented there"
)]
pub struct GotRow {
    pub object: String,
    pub symbol: String,
    pub addr: String,
    pub kind: &'static str,
}

/// A stub as one object uses it, or an island.
#[derive(Debug, Serialize)]
#[allow(
    missing_docs,
    reason = "field names are the dump format's, documented there"
)]
pub struct StubRow {
    pub object: String,
    pub symbol: String,
    pub addr: String,
    pub section: String,
    pub kind: &'static str,
    pub target: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

/// Thread-local storage.
#[derive(Debug, Serialize)]
#[allow(
    missing_docs,
    reason = "field names are the dump format's, documented there"
)]
pub struct TlsRow {
    pub mode: &'static str,
    pub modid: u64,
    pub offset: String,
    pub size: u64,
    pub align: u64,
}

impl Default for TlsRow {
    fn default() -> Self {
        Self {
            mode: "none",
            modid: 0,
            offset: hex(0),
            size: 0,
            align: 0,
        }
    }
}

/// How a section's address was chosen.
#[derive(Debug, Serialize)]
#[allow(
    missing_docs,
    reason = "field names are the dump format's, documented there"
)]
pub struct PlacementRow {
    pub object: String,
    pub section: String,
    pub addr: String,
    pub size: u64,
    pub entropy_bits: f64,
    pub step: String,
    pub free_slots: u64,
}

/// A relocation that was applied.
#[derive(Debug, Serialize)]
#[allow(
    missing_docs,
    reason = "field names are the dump format's, documented there"
)]
pub struct RelocationRow {
    pub object: String,
    pub section: String,
    pub offset: u64,
    #[serde(rename = "type")]
    pub r_type: String,
    pub symbol: String,
    pub addend: i64,
    #[serde(rename = "P")]
    pub place: String,
    #[serde(rename = "S")]
    pub s: String,
    pub value: String,
    pub action: &'static str,
}

impl Report {
    /// The dump of a link that failed: its errors.
    #[must_use]
    pub fn of_failure(failure: &LinkFailure) -> Self {
        Self {
            format: "low2g-dump/1",
            status: "error",
            errors: failure.errors().iter().map(ErrorRow::new).collect(),
            ..Self::default()
        }
    }

    /// The dump of a link that did not begin: one error, about no object.
    #[must_use]
    pub fn of_message(kind: &'static str, message: &str) -> Self {
        Self {
            format: "low2g-dump/1",
            status: "error",
            errors: vec![ErrorRow {
                kind,
                message: message.to_owned(),
                ..ErrorRow::default()
            }],
            ..Self::default()
        }
    }

    /// The dump of a link.
    ///
    /// # Errors
    /// The contents or relocations of a section that is not loaded are malformed.
    pub fn of(linked: &Linked<'_>) -> Result<Self, LinkFailure> {
        Ok(Self {
            format: "low2g-dump/1",
            status: "ok",
            objects: objects(linked)?,
            memory: memory(linked),
            symbols: symbols(linked),
            got: got(linked),
            stubs: stubs(linked),
            got_base: Some(hex(linked.own.got.1)),
            tls: tls_row(linked),
            placement: placement(linked),
            relocations: relocations(linked),
            ..Self::default()
        })
    }
}

impl ErrorRow {
    fn new(error: &LinkError) -> Self {
        let at = error.at();
        let mut row = Self {
            kind: error.kind(),
            object: at.object.clone(),
            section: at.section.clone(),
            offset: at.offset,
            message: error.to_string(),
            ..Self::default()
        };
        let site = match error {
            LinkError::Overflow {
                site, value, place, ..
            } => {
                row.value = Some(hex(*value));
                row.place = Some(hex(*place));
                Some(site)
            }
            LinkError::UnsupportedRelocation { site, .. }
            | LinkError::Tls { site, .. }
            | LinkError::StaticTls { site, .. } => Some(site),
            LinkError::UndefinedSymbol { symbol, .. }
            | LinkError::DuplicateSymbol { symbol, .. } => {
                row.symbol = Some(symbol.clone());
                None
            }
            _ => None,
        };
        if let Some(site) = site {
            row.r_type = Some(site.r_type.clone());
            row.symbol = Some(site.symbol.clone());
            row.addend = Some(site.addend);
        }
        row
    }
}

fn objects(linked: &Linked<'_>) -> Result<Vec<ObjectRow>, LinkFailure> {
    let mut rows = Vec::new();
    for (number, object) in linked.tables.objects.iter().enumerate() {
        let mut sections = Vec::new();
        for (index, section) in object.sections.iter().enumerate().skip(1) {
            sections.push(section_row(linked, number, object, index, section)?);
        }
        sections.push(SectionRow {
            index: object.sections.len(),
            name: ".got".to_owned(),
            addr: Some(hex(linked.own.got.1)),
            size: linked.plan.got_size(),
            align: 8,
            flags: hex(elf::SHF_ALLOC.0 | elf::SHF_WRITE.0),
            alloc: true,
            zero_fill: false,
            discarded: false,
            bytes: None,
        });
        rows.push(ObjectRow {
            name: object.name.clone(),
            sections,
        });
    }
    Ok(rows)
}

fn section_row(
    linked: &Linked<'_>,
    number: usize,
    object: &Object<'_>,
    index: usize,
    section: &Section<'_>,
) -> Result<SectionRow, LinkFailure> {
    let alloc = section.is_alloc();
    let bytes = if alloc || section.is_zero_fill() {
        None
    } else {
        Some(hex_bytes(&linked.unloaded_bytes(number, index)?))
    };
    Ok(SectionRow {
        index,
        name: section.display_name(),
        addr: section
            .placed
            .map(|placed| hex(linked.addrs[to_index(placed)])),
        size: bytes.as_ref().map_or(section.size, |bytes| {
            low2g_platform::to_u64(bytes.len() / 2)
        }),
        align: object.section_align(index),
        flags: hex(section.flags),
        alloc,
        zero_fill: section.is_zero_fill(),
        discarded: section.discarded,
        bytes,
    })
}

const fn access(kind: SectionKind) -> &'static str {
    match kind {
        SectionKind::Code => "r-x",
        SectionKind::ReadOnly => "r--",
        SectionKind::Data => "rw-",
    }
}

fn memory(linked: &Linked<'_>) -> Vec<MemoryRow> {
    let mut rows: Vec<(u64, MemoryRow)> = linked
        .memory
        .regions()
        .map(|region| {
            let bytes = (!region.zero_fill)
                .then(|| linked.memory.read(region.range))
                .flatten();
            let row = MemoryRow {
                addr: hex(region.range.start()),
                size: region.range.len(),
                prot: access(region.kind),
                zero: region.zero_fill,
                bytes: bytes.map(|bytes| hex_bytes(&bytes)),
            };
            (region.range.start(), row)
        })
        .collect();
    rows.sort_by_key(|(start, _)| *start);
    rows.into_iter().map(|(_, row)| row).collect()
}

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

fn symbols(linked: &Linked<'_>) -> Vec<SymbolRow> {
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

fn tls_row(linked: &Linked<'_>) -> TlsRow {
    let block = &linked.layout.tls;
    let (mode, offset) = match linked.tls.mode {
        Mode::None => return TlsRow::default(),
        Mode::Static { offset } => ("static", offset),
        Mode::Dynamic => ("dynamic", 0),
    };
    TlsRow {
        mode,
        modid: linked.tls.module,
        offset: hex(offset),
        size: block.size,
        align: block.align,
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

fn global_row(
    linked: &Linked<'_>,
    id: usize,
    global: &super::symbols::Global<'_>,
) -> Option<SymbolRow> {
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
                super::ExternalKind::Function => "func",
                super::ExternalKind::Data => "object",
                super::ExternalKind::Tls | super::ExternalKind::ModuleTls { .. } => "tls",
                super::ExternalKind::Unknown => "notype",
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

/// The name that a report shows for a slot's or stub's symbol.
fn key_name(linked: &Linked<'_>, key: Key) -> String {
    match key {
        Key::Global(id) => {
            String::from_utf8_lossy(linked.tables.symbols.list[to_index(id)].name).into_owned()
        }
        Key::Local { object, symbol } => {
            linked.tables.objects[to_index(object)].symbol_display(to_index(symbol))
        }
    }
}

fn got(linked: &Linked<'_>) -> Vec<GotRow> {
    let mut rows = Vec::new();
    for entry in &linked.plan.entries {
        let Some(slot) = entry.slot else { continue };
        for &user in &entry.slot_users {
            rows.push(GotRow {
                object: linked.tables.objects[to_index(user)].name.clone(),
                symbol: key_name(linked, entry.key),
                addr: hex(linked.slot_addr(slot)),
                kind: "addr",
            });
        }
    }
    for slot in &linked.tls.slots {
        for &(user, symbol) in &slot.users {
            let object = &linked.tables.objects[to_index(user)];
            rows.push(GotRow {
                object: object.name.clone(),
                symbol: object.symbol_display(to_index(symbol)),
                addr: hex(linked.slot_addr(slot.number)),
                kind: slot.kind.name(),
            });
        }
    }
    rows
}

fn stubs(linked: &Linked<'_>) -> Vec<StubRow> {
    let mut rows = Vec::new();
    for entry in &linked.plan.entries {
        if let Some(mirror) = entry.mirror {
            let offset = linked.plan.mirrors[to_index(mirror)].offset;
            for &user in &entry.mirror_users {
                rows.push(StubRow {
                    object: linked.tables.objects[to_index(user)].name.clone(),
                    symbol: key_name(linked, entry.key),
                    addr: hex(linked.own.mirrors.1 + offset),
                    section: ".mirrors".to_owned(),
                    kind: "mirror",
                    target: hex(entry.value.addr),
                    place: None,
                });
            }
        }
        let Some(stub) = entry.stub else { continue };
        for &user in &entry.stub_users {
            rows.push(StubRow {
                object: linked.tables.objects[to_index(user)].name.clone(),
                symbol: key_name(linked, entry.key),
                addr: hex(linked.stub_addr(stub)),
                section: ".stubs".to_owned(),
                kind: if entry.value.has(IFUNC) {
                    "ifunc"
                } else if entry.value.has(value::EXTERNAL) {
                    "plt"
                } else {
                    "veneer"
                },
                target: hex(entry.value.addr),
                place: None,
            });
        }
    }
    for island in &linked.plan.islands {
        let object = &linked.tables.objects[to_index(island.object)];
        let section = &object.sections[to_index(island.section)];
        let start = section
            .placed
            .map_or(0, |placed| linked.addrs[to_index(placed)]);
        for item in &island.relocations {
            let symbol = super::apply::fields(&item.rela).symbol;
            rows.push(StubRow {
                object: object.name.clone(),
                symbol: object.symbol_display(to_index(symbol)),
                addr: hex(linked.own.islands.1 + island.offset),
                section: ".islands".to_owned(),
                kind: "island",
                target: hex(item.value.addr),
                place: Some(hex(start + low2g_platform::to_u64(island.insn))),
            });
        }
    }
    rows
}

fn placement(linked: &Linked<'_>) -> Vec<PlacementRow> {
    let mut rows = Vec::new();
    let mut push = |object: &str, section: String, addr: u64, size: u64, request: usize| {
        if let Some(region) = linked.memory.region_of(request) {
            rows.push(PlacementRow {
                object: object.to_owned(),
                section,
                addr: hex(addr),
                size,
                entropy_bits: region.certificate.entropy_bits,
                step: if region.arena {
                    "arena".to_owned()
                } else {
                    region.certificate.step.to_string()
                },
                free_slots: region.certificate.free_slots,
            });
        }
    };
    for (loaded, &addr) in linked.layout.loaded.iter().zip(&linked.addrs) {
        let object = &linked.tables.objects[to_index(loaded.object)];
        let name = object.sections[to_index(loaded.section)].display_name();
        push(&object.name, name, addr, loaded.size, loaded.request);
    }
    for (name, (request, addr), size) in linked.own_sections() {
        if size > 0 {
            push("low2g", name.to_owned(), addr, size, request);
        }
    }
    rows
}

fn relocations(linked: &Linked<'_>) -> Vec<RelocationRow> {
    let row = |row: &super::apply::Row| {
        let object = &linked.tables.objects[to_index(row.object)];
        RelocationRow {
            object: object.name.clone(),
            section: object.sections[to_index(row.section)].display_name(),
            offset: row.offset,
            r_type: super::howto(row.r_type)
                .map_or_else(|| row.r_type.to_string(), |howto| howto.name.to_owned()),
            symbol: object.symbol_display(to_index(row.symbol)),
            addend: row.addend,
            place: hex(row.place),
            s: hex(row.s),
            value: hex(row.value),
            action: row.action,
        }
    };
    linked.rows.iter().map(row).collect()
}

impl Linked<'_> {
    /// What `range` holds, read back from the process.
    #[must_use]
    pub fn read(&self, range: AddrRange) -> Option<Vec<u8>> {
        self.memory.read(range)
    }
}
