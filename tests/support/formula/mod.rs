//! Fields that GNU ld cannot judge, checked by the psABI's formulas.
//!
//! S symbol, A addend, P place, G offset of the GOT slot, GOT the GOT's base, L stub, Z size. The
//! field is solved for the one thing that low2g was free to choose (slot, stub, island), and that
//! thing must then be in the dump and do its work in memory.

mod code;

pub(crate) use code::{Moved, check_island, instruction_len};

use super::dump::Dump;
use super::elf::size;

/// Names of types 0 to 51 without `R_X86_64_`, by number; the psABI's table.
const TYPES: [&str; 52] = [
    "NONE",
    "64",
    "PC32",
    "GOT32",
    "PLT32",
    "COPY",
    "GLOB_DAT",
    "JUMP_SLOT",
    "RELATIVE",
    "GOTPCREL",
    "32",
    "32S",
    "16",
    "PC16",
    "8",
    "PC8",
    "DTPMOD64",
    "DTPOFF64",
    "TPOFF64",
    "TLSGD",
    "TLSLD",
    "DTPOFF32",
    "GOTTPOFF",
    "TPOFF32",
    "PC64",
    "GOTOFF64",
    "GOTPC32",
    "GOT64",
    "GOTPCREL64",
    "GOTPC64",
    "GOTPLT64",
    "PLTOFF64",
    "SIZE32",
    "SIZE64",
    "GOTPC32_TLSDESC",
    "TLSDESC_CALL",
    "TLSDESC",
    "IRELATIVE",
    "RELATIVE64",
    "PC32_BND",
    "PLT32_BND",
    "GOTPCRELX",
    "REX_GOTPCRELX",
    "CODE_4_GOTPCRELX",
    "CODE_4_GOTTPOFF",
    "CODE_4_GOTPC32_TLSDESC",
    "CODE_5_GOTPCRELX",
    "CODE_5_GOTTPOFF",
    "CODE_5_GOTPC32_TLSDESC",
    "CODE_6_GOTPCRELX",
    "CODE_6_GOTTPOFF",
    "CODE_6_GOTPC32_TLSDESC",
];

/// The psABI's name of a type.
pub(crate) fn type_name(kind: u32) -> String {
    match TYPES.get(size(u64::from(kind))) {
        Some(name) => format!("R_X86_64_{name}"),
        None => format!("type {kind}"),
    }
}

/// Bytes of a type's field.
pub(crate) const fn width(kind: u32) -> usize {
    match kind {
        0 | 35 => 0,
        14 | 15 => 1,
        12 | 13 => 2,
        1 | 16..=18 | 24 | 25 | 27..=31 | 33 => 8,
        _ => 4,
    }
}

/// Types whose field is zero-extended.
const fn is_unsigned(kind: u32) -> bool {
    matches!(kind, 10 | 12 | 14 | 32)
}

/// Types that GNU ld applies as the psABI says and low2g applies with the symbol alone.
pub(crate) const fn is_plain(kind: u32) -> bool {
    matches!(kind, 1 | 2 | 4 | 10..=15 | 24 | 39 | 40)
}

/// Whether a plain type is relative to its place.
const fn is_relative(kind: u32) -> bool {
    matches!(kind, 2 | 4 | 13 | 15 | 24 | 39 | 40)
}

/// A field's bytes as a 64-bit value.
pub(crate) fn extend(kind: u32, field: &[u8]) -> u64 {
    let mut wide = [0u8; 8];
    let negative = field.last().is_some_and(|&last| last & 0x80 != 0);
    if negative && !is_unsigned(kind) {
        wide = [0xff; 8];
    }
    wide[..field.len()].copy_from_slice(field);
    u64::from_le_bytes(wide)
}

/// A relocation with all its formula needs; addresses and values are 64-bit.
#[derive(Clone, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) kind: u32,
    pub(crate) place: u64,
    pub(crate) symbol_value: u64,
    pub(crate) symbol_size: u64,
    pub(crate) ifunc: bool,
    pub(crate) addend: i64,
    pub(crate) action: &'a str,
    /// The field as found in memory, extended.
    pub(crate) value: u64,
}

/// Checks one field.
///
/// # Errors
///
/// What does not hold.
pub(crate) fn check(dump: &Dump, field: &Field<'_>) -> Result<(), String> {
    let got = || {
        dump.got_base
            .map(|base| base.0)
            .ok_or_else(|| "the dump has no got_base".to_owned())
    };
    // What the field says once addend and place are taken away.
    let named = field.value.wrapping_sub(field.addend.cast_unsigned());
    match field.kind {
        9 | 28 | 41 | 42 | 43 | 46 | 49 => slot(dump, field, named.wrapping_add(field.place)),
        3 | 27 | 30 => slot(dump, field, named.wrapping_add(got()?)),
        26 | 29 => equal("GOT", named.wrapping_add(field.place), got()?),
        25 => equal("S", named.wrapping_add(got()?), field.symbol_value),
        31 if field.action != "stub" => equal("S", named.wrapping_add(got()?), field.symbol_value),
        31 => stub(dump, field, named.wrapping_add(got()?)),
        32 | 33 => equal("Z", named, field.symbol_size),
        kind if is_plain(kind) => {
            let target = if is_relative(kind) {
                named.wrapping_add(field.place)
            } else {
                named
            };
            match field.action {
                "direct" => equal("S", target, field.symbol_value),
                "stub" => stub(dump, field, target),
                "mirror" => mirror(dump, field, target),
                other => Err(format!("no formula for the action {other:?}")),
            }
        }
        kind => Err(format!("no formula for {}", type_name(kind))),
    }
}

fn equal(what: &str, found: u64, wanted: u64) -> Result<(), String> {
    if found == wanted {
        Ok(())
    } else {
        Err(format!(
            "the field names {what} = {found:#x}, it should be {wanted:#x}"
        ))
    }
}

fn slot(dump: &Dump, field: &Field<'_>, addr: u64) -> Result<(), String> {
    let row = dump.got.iter().find(|row| row.addr.0 == addr);
    let row = row.ok_or_else(|| format!("the field names {addr:#x}, no slot of the dump"))?;
    if row.kind != "addr" {
        return Err(format!(
            "slot {addr:#x} of {} holds a {}",
            row.symbol, row.kind
        ));
    }
    let held = dump
        .word(addr)
        .ok_or_else(|| format!("slot {addr:#x} is not in memory"))?;
    if field.ifunc {
        return stub(dump, field, held);
    }
    equal("a slot holding", held, field.symbol_value)
}

/// The low copy at `addr` must be in the dump, stand for S, lie in read-only memory, and have
/// been needed.
fn mirror(dump: &Dump, field: &Field<'_>, addr: u64) -> Result<(), String> {
    let row = dump
        .stubs
        .iter()
        .find(|row| row.addr.0 == addr && row.kind == "mirror");
    let row = row.ok_or_else(|| format!("the field names {addr:#x}, no mirror of the dump"))?;
    equal(
        "a mirror of",
        row.target.map_or(0, |target| target.0),
        field.symbol_value,
    )?;
    let holds = |memory: &&super::dump::Memory| {
        (memory.addr.0..memory.addr.0 + memory.size).contains(&addr)
    };
    let prot = dump.memory.iter().find(holds).map(|memory| &*memory.prot);
    if prot != Some("r--") {
        return Err(format!(
            "the mirror at {addr:#x} is in memory {prot:?}, not r--"
        ));
    }
    if u32::try_from(field.symbol_value).is_ok() {
        return Err(format!(
            "{:#x} is near: it needs no mirror",
            field.symbol_value
        ));
    }
    Ok(())
}

/// The stub at `addr` must be in the dump, jump to S, and have been needed.
fn stub(dump: &Dump, field: &Field<'_>, addr: u64) -> Result<(), String> {
    let row = dump
        .stubs
        .iter()
        .find(|row| row.addr.0 == addr && row.kind != "island" && row.kind != "mirror");
    let row = row.ok_or_else(|| format!("the field names {addr:#x}, no stub of the dump"))?;
    if field.ifunc {
        if row.kind != "ifunc" {
            return Err(format!(
                "the stub at {addr:#x} is of kind {}, not ifunc",
                row.kind
            ));
        }
        // Its slot is filled when the program runs: only the code can be judged.
        return code::jump_target(dump, addr).map(drop);
    }
    let direct = field
        .symbol_value
        .wrapping_add(field.addend.cast_unsigned());
    let direct = if is_relative(field.kind) {
        direct.wrapping_sub(field.place)
    } else {
        direct
    };
    let kept = size(u64::try_from(width(field.kind)).expect("a width is small"));
    if is_plain(field.kind) && extend(field.kind, &direct.to_le_bytes()[..kept]) == direct {
        return Err(format!(
            "a stub at {addr:#x}, though {:#x} fits the field",
            direct
        ));
    }
    let reached = code::jump_target(dump, addr)?;
    if row.target.is_some_and(|target| target.0 != reached) {
        return Err(format!(
            "the stub at {addr:#x} jumps to {reached:#x}, its row says {:?}",
            row.target
        ));
    }
    equal("a stub jumping to", reached, field.symbol_value)
}
