//! What a link did, as data: the dump format "low2g-dump/1" of `low2g link --json`.
//!
//! Addresses and 64-bit values are strings in lower-case hexadecimal, sizes, offsets and
//! addends numbers, bytes hex strings. `memory` is read back after protection is final.

use hashbrown::HashMap;
use low2g_platform::AddrRange;
use object::elf;
use serde::Serialize;

use crate::link::error::{LinkError, LinkFailure};
use crate::link::linked::{Linked, PlacedSection};
use crate::link::symbols::to_index;
use crate::link::value::Value;

mod own;
mod rows;
mod symbols;

pub use rows::{
    ErrorRow, GotRow, MemoryRow, ObjectRow, PlacementRow, RelocationRow, SectionRow, StubRow,
    SymbolRow, TlsRow,
};

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
            symbols: symbols::symbols(linked),
            got: own::got(linked),
            stubs: own::stubs(linked),
            got_base: Some(hex(linked.own.got.1)),
            tls: own::tls_row(linked),
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
        let values = linked.debug_values(number, &HashMap::new())?;
        for index in 1..object.sections.len() {
            sections.push(section_row(linked, number, index, &values)?);
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
    index: usize,
    values: &[Value],
) -> Result<SectionRow, LinkFailure> {
    let object = &linked.tables.objects[number];
    let section = &object.sections[index];
    let alloc = section.is_alloc();
    let bytes = if alloc || section.is_zero_fill() {
        None
    } else {
        let mut bytes = object.contents_of(index)?;
        linked.relocate_unloaded(number, index, &mut bytes, values)?;
        Some(hex_bytes(&bytes))
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

fn memory(linked: &Linked<'_>) -> Vec<MemoryRow> {
    let mut rows: Vec<(u64, MemoryRow)> = linked
        .memory
        .contents()
        .map(|(region, bytes)| {
            let row = MemoryRow {
                addr: hex(region.range.start()),
                size: region.range.len(),
                prot: region.kind.access(),
                zero: region.zero_fill,
                bytes: bytes.map(|bytes| hex_bytes(&bytes)),
            };
            (region.range.start(), row)
        })
        .collect();
    rows.sort_by_key(|(start, _)| *start);
    rows.into_iter().map(|(_, row)| row).collect()
}

fn placement(linked: &Linked<'_>) -> Vec<PlacementRow> {
    let row = |section: PlacedSection| {
        let region = section.region?;
        Some(PlacementRow {
            object: section.object,
            section: section.section,
            addr: hex(section.addr),
            size: section.size,
            entropy_bits: region.certificate.entropy_bits,
            step: region.step().to_string(),
            free_slots: region.certificate.free_slots,
        })
    };
    linked.sections().into_iter().filter_map(row).collect()
}

fn relocations(linked: &Linked<'_>) -> Vec<RelocationRow> {
    let row = |row: &crate::link::apply::Row| {
        let object = &linked.tables.objects[to_index(row.object)];
        RelocationRow {
            object: object.name.clone(),
            section: object.sections[to_index(row.section)].display_name(),
            offset: row.offset,
            r_type: crate::link::howto(row.r_type)
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
