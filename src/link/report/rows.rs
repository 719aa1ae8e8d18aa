//! The rows of the dump: field names are the format's.

use serde::Serialize;

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
    /// From the thread pointer, so negative; 0 where no block is static.
    pub offset: i64,
    pub size: u64,
    pub align: u64,
}

impl Default for TlsRow {
    fn default() -> Self {
        Self {
            mode: "none",
            modid: 0,
            offset: 0,
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
