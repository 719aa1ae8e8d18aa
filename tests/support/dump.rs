//! The dump of `low2g link --json`, format "low2g-dump/1", as typed rows.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, de};

/// A 64-bit address or value, in the dump a string such as "0x10000000".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Hex(pub(crate) u64);

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let digits = text
            .strip_prefix("0x")
            .ok_or_else(|| de::Error::custom(format!("{text} has no 0x")))?;
        if digits.contains(|c: char| c.is_ascii_uppercase()) {
            return Err(de::Error::custom(format!("{text} is not in lower case")));
        }
        u64::from_str_radix(digits, 16)
            .map(Hex)
            .map_err(de::Error::custom)
    }
}

/// Bytes, in the dump a string of hex digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let digit = |c: u8| {
            char::from(c)
                .to_digit(16)
                .and_then(|d| u8::try_from(d).ok())
        };
        let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        });
        pairs
            .collect::<Option<Vec<u8>>>()
            .map(Bytes)
            .ok_or_else(|| de::Error::custom("bytes are pairs of hex digits"))
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Section {
    #[serde(default)]
    pub(crate) index: Option<usize>,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) addr: Option<Hex>,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) alloc: bool,
    #[serde(default)]
    pub(crate) discarded: bool,
    #[serde(default)]
    pub(crate) bytes: Option<Bytes>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Object {
    pub(crate) name: String,
    pub(crate) sections: Vec<Section>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Memory {
    pub(crate) addr: Hex,
    pub(crate) size: u64,
    pub(crate) prot: String,
    #[serde(default)]
    pub(crate) bytes: Option<Bytes>,
    #[serde(default)]
    pub(crate) zero: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Symbol {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) addr: Option<Hex>,
    #[serde(default)]
    pub(crate) size: u64,
    pub(crate) binding: String,
    pub(crate) kind: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Got {
    pub(crate) symbol: String,
    pub(crate) addr: Hex,
    pub(crate) kind: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Stub {
    pub(crate) object: String,
    pub(crate) symbol: String,
    pub(crate) addr: Hex,
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) target: Option<Hex>,
    /// Islands: the address of the instruction that moved.
    #[serde(default)]
    pub(crate) place: Option<Hex>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Relocation {
    pub(crate) object: String,
    pub(crate) section: String,
    pub(crate) offset: u64,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) symbol: String,
    pub(crate) addend: i64,
    #[serde(rename = "P")]
    pub(crate) place: Hex,
    #[serde(rename = "S")]
    pub(crate) symbol_value: Hex,
    pub(crate) value: Hex,
    pub(crate) action: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Dump {
    pub(crate) format: String,
    pub(crate) status: String,
    #[serde(default)]
    pub(crate) errors: Vec<serde_json::Value>,
    pub(crate) objects: Vec<Object>,
    pub(crate) memory: Vec<Memory>,
    pub(crate) symbols: Vec<Symbol>,
    #[serde(default)]
    pub(crate) got: Vec<Got>,
    #[serde(default)]
    pub(crate) stubs: Vec<Stub>,
    #[serde(default)]
    pub(crate) got_base: Option<Hex>,
    pub(crate) relocations: Vec<Relocation>,
}

impl Dump {
    /// Reads what `low2g link --json` printed.
    ///
    /// # Errors
    ///
    /// Where the text is not of the format.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        let dump: Self =
            serde_json::from_slice(text).map_err(|error| format!("the dump: {error}"))?;
        if dump.format == "low2g-dump/1" {
            Ok(dump)
        } else {
            Err(format!("the dump's format is {}", dump.format))
        }
    }

    /// Memory at `addr`, `len` bytes, across rows that follow each other.
    pub(crate) fn read(&self, addr: u64, len: u64) -> Option<Vec<u8>> {
        let mut all = Vec::new();
        let mut at = addr;
        let end = addr.checked_add(len)?;
        while at < end {
            // Rows are sorted (the oracle checks that).
            let after = self.memory.partition_point(|row| row.addr.0 <= at);
            let row = self.memory.get(after.checked_sub(1)?)?;
            let skip = at - row.addr.0;
            let take = row.size.checked_sub(skip)?.min(end - at);
            if take == 0 {
                return None;
            }
            let (skip, count) = (usize::try_from(skip).ok()?, usize::try_from(take).ok()?);
            match &row.bytes {
                Some(bytes) => all.extend_from_slice(bytes.0.get(skip..skip + count)?),
                None if row.zero => all.resize(all.len() + count, 0),
                None => return None,
            }
            at += take;
        }
        Some(all)
    }

    /// The 64-bit word at `addr`.
    pub(crate) fn word(&self, addr: u64) -> Option<u64> {
        self.read(addr, 8)?.try_into().ok().map(u64::from_le_bytes)
    }
}
