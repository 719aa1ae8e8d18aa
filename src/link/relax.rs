//! GOT relaxations: rows of byte patterns and one pure function.
//!
//! Source: x86-64 psABI, "Optimize GOTPCRELX Relocations", and what GNU ld does. A
//! relaxation applies only if the instruction's bytes match, the addend is exactly
//! -4, and the *final* value fits its field; else the slot is read. Optional always.

use super::howto::{Check, Width};
use super::options::Relax;

/// A rewritten instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Relaxed {
    /// The value in the final field.
    pub(crate) value: u64,
    /// The dump's action.
    pub(crate) action: &'static str,
}

/// Which form of instruction a GOT relocation's type promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prefix {
    /// `GOTPCREL`: no promise; only `mov` with REX.W is taken (as GNU ld does).
    Unknown,
    /// `GOTPCRELX`: no REX.
    None,
    /// `REX_GOTPCRELX`: a REX byte at P - 3.
    Rex,
}

/// REX bits.
const REX_W: u8 = 8;
const REX_R: u8 = 4;
const REX_B: u8 = 1;

/// Rewrites the instruction whose GOT field is at `offset` of `code` so that it needs no
/// slot, if `relax` allows it and the value fits. `symbol` is S, `place` is P.
pub(crate) fn relax(
    relax: Relax,
    prefix: Prefix,
    code: &mut [u8],
    offset: usize,
    symbol: u64,
    addend: i64,
    place: u64,
) -> Option<Relaxed> {
    if relax == Relax::None || addend != -4 || offset < 2 {
        return None;
    }
    let end = offset.checked_add(4)?;
    let (opcode, modrm) = (*code.get(offset - 2)?, *code.get(offset - 1)?);
    code.get(offset..end)?;
    if modrm & 0xc7 != 5 {
        return None;
    }
    let relative = symbol.wrapping_sub(4).wrapping_sub(place);
    let near = Check::Signed.fits(Width::Word, relative);
    if prefix == Prefix::None && opcode == 0xff {
        return branch(code, offset, modrm, symbol, place);
    }
    let rex = match prefix {
        Prefix::None => None,
        Prefix::Rex | Prefix::Unknown => {
            // 0x40 to 0x4f, and not as the tail of something longer: the type promises it.
            let rex = *code.get(offset.checked_sub(3)?)?;
            Some(rex).filter(|rex| rex & 0xf0 == 0x40)
        }
    };
    match (prefix, rex) {
        (Prefix::Rex, None) => return None,
        (Prefix::Unknown, rex) if opcode != 0x8b || rex.is_none_or(|rex| rex & REX_W == 0) => {
            return None;
        }
        _ => {}
    }
    if opcode == 0x8b && near {
        code[offset - 2] = 0x8d;
        write(code, offset, relative);
        return Some(Relaxed {
            value: relative,
            action: "relax:lea",
        });
    }
    if relax != Relax::All || prefix == Prefix::Unknown {
        return None;
    }
    immediate(code, offset, opcode, modrm, rex, symbol)
}

/// `call`/`jmp *slot(%rip)` to a direct branch.
fn branch(code: &mut [u8], offset: usize, modrm: u8, symbol: u64, place: u64) -> Option<Relaxed> {
    let (value, action, field) = match modrm {
        // call: an address-size prefix pads it to the same length.
        0x15 => (
            symbol.wrapping_sub(4).wrapping_sub(place),
            "relax:call",
            offset,
        ),
        // jmp: one byte shorter; the field moves down and a nop follows.
        0x25 => (
            symbol.wrapping_sub(4).wrapping_sub(place.wrapping_sub(1)),
            "relax:jmp",
            offset - 1,
        ),
        _ => return None,
    };
    if !Check::Signed.fits(Width::Word, value) {
        return None;
    }
    if modrm == 0x15 {
        code[offset - 2] = 0x67;
        code[offset - 1] = 0xe8;
    } else {
        code[offset - 2] = 0xe9;
        code[offset + 3] = 0x90;
    }
    write(code, field, value);
    Some(Relaxed { value, action })
}

/// `mov`, `test` and the binary operations to their immediate forms.
fn immediate(
    code: &mut [u8],
    offset: usize,
    opcode: u8,
    modrm: u8,
    rex: Option<u8>,
    symbol: u64,
) -> Option<Relaxed> {
    let wide = rex.is_some_and(|rex| rex & REX_W != 0);
    let check = if wide { Check::Signed } else { Check::Unsigned };
    if !check.fits(Width::Word, symbol) {
        return None;
    }
    let register = (modrm >> 3) & 7;
    let (new_opcode, new_modrm) = match opcode {
        0x8b => (0xc7, 0xc0 | register),
        0x85 => (0xf7, 0xc0 | register),
        // add, or, adc, sbb, and, sub, xor, cmp: r, r/m
        0x03 | 0x0b | 0x13 | 0x1b | 0x23 | 0x2b | 0x33 | 0x3b => {
            (0x81, 0xc0 | (opcode & 0x38) | register)
        }
        _ => return None,
    };
    if let Some(rex) = rex {
        // The register moves from ModRM.reg to ModRM.rm: its high bit from R to B.
        code[offset - 3] = (rex & !(REX_R | REX_B)) | if rex & REX_R != 0 { REX_B } else { 0 };
    }
    code[offset - 2] = new_opcode;
    code[offset - 1] = new_modrm;
    write(code, offset, symbol);
    Some(Relaxed {
        value: symbol,
        action: "relax:imm",
    })
}

fn write(code: &mut [u8], offset: usize, value: u64) {
    code[offset..offset + 4].copy_from_slice(&value.to_le_bytes()[..4]);
}
