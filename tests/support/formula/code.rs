//! Code that low2g writes, decoded: where a stub goes, and what an island does.

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, OpKind, Register};

use super::super::dump::{Dump, Stub};
use super::{Field, is_relative, type_name};

fn decode(bytes: &[u8], addr: u64) -> impl Iterator<Item = Instruction> {
    let decoded: Vec<Instruction> = Decoder::with_ip(64, bytes, addr, DecoderOptions::NONE)
        .into_iter()
        .collect();
    decoded.into_iter()
}

/// Where the code of a stub goes: `jmp *slot(%rip)`, or `movabs` and a jump by that register.
pub(super) fn jump_target(dump: &Dump, addr: u64) -> Result<u64, String> {
    let bytes = (1..=16).rev().find_map(|len| dump.read(addr, len));
    let bytes = bytes.ok_or_else(|| format!("the stub at {addr:#x} is not in memory"))?;
    let mut code = decode(&bytes, addr).filter(|insn| insn.code() != Code::Endbr64);
    let unknown = || format!("the stub at {addr:#x} is none we know: {bytes:02x?}");
    let first = code.next().ok_or_else(unknown)?;
    match first.code() {
        Code::Jmp_rm64 if first.is_ip_rel_memory_operand() => {
            let slot = first.ip_rel_memory_address();
            dump.word(slot)
                .ok_or_else(|| format!("the stub's slot {slot:#x} is not in memory"))
        }
        Code::Mov_r64_imm64 => {
            let jump = code.next().ok_or_else(unknown)?;
            let same = jump.code() == Code::Jmp_rm64 && jump.op0_register() == first.op0_register();
            if same {
                Ok(first.immediate64())
            } else {
                Err(unknown())
            }
        }
        _ => Err(unknown()),
    }
}

/// A moved instruction: where it was, how long, and its relocated fields.
#[derive(Clone, Debug)]
pub(crate) struct Moved<'a> {
    pub(crate) row: &'a Stub,
    pub(crate) place: u64,
    pub(crate) len: usize,
    /// Relocations inside it; `value` is not used.
    pub(crate) fields: Vec<Field<'a>>,
}

/// The length of the instruction at the start of `code`.
pub(crate) fn instruction_len(code: &[u8]) -> Option<usize> {
    let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
    let insn = decoder.decode();
    (!insn.is_invalid()).then(|| insn.len())
}

/// Checks an island: the place jumps to it, the rest of the place is nops, the island uses each
/// field's 64-bit value, and it comes back to the next instruction.
///
/// # Errors
///
/// What does not hold.
pub(crate) fn check_island(dump: &Dump, moved: &Moved<'_>) -> Result<(), String> {
    let len = u64::try_from(moved.len).expect("an instruction is short");
    let next = moved.place.wrapping_add(len);
    let patch = dump
        .read(moved.place, len)
        .ok_or("the place of a moved instruction is not in memory")?;
    let island = moved.row.addr.0;
    let jump = decode(&patch, moved.place)
        .next()
        .ok_or("the place of a moved instruction is empty")?;
    if jump.code() != Code::Jmp_rel32_64 || jump.near_branch_target() != island {
        return Err(format!(
            "the place of the island at {island:#x} holds {patch:02x?}"
        ));
    }
    if patch[5..].iter().any(|&byte| byte != 0x90) {
        return Err(format!(
            "after its jump the place holds {:02x?}, not nops",
            &patch[5..]
        ));
    }
    let window = (1..=160).rev().find_map(|len| dump.read(island, len));
    let window = window.ok_or_else(|| format!("the island at {island:#x} is not in memory"))?;
    let mut code = Vec::new();
    for insn in decode(&window, island) {
        code.push(insn);
        if insn.code() == Code::Jmp_rel32_64 && insn.near_branch_target() == next {
            break;
        }
    }
    if !code
        .last()
        .is_some_and(|last| last.code() == Code::Jmp_rel32_64 && last.near_branch_target() == next)
    {
        return Err(format!(
            "the island at {island:#x} does not come back to {next:#x}: {window:02x?}"
        ));
    }
    for field in &moved.fields {
        let in_insn = field.place.wrapping_sub(moved.place);
        let mut wanted = field
            .symbol_value
            .wrapping_add(field.addend.cast_unsigned());
        if is_relative(field.kind) {
            // The processor counts from the instruction's end, the relocation from its field.
            wanted = wanted.wrapping_add(len.wrapping_sub(in_insn));
        }
        if !code.iter().any(|insn| names(insn, wanted)) {
            let relocation = type_name(field.kind);
            return Err(format!(
                "the island at {island:#x} never names {wanted:#x} ({relocation}): {window:02x?}"
            ));
        }
    }
    Ok(())
}

/// Whether an instruction has `wanted` as an immediate, a displacement or a rip-relative address.
fn names(insn: &Instruction, wanted: u64) -> bool {
    (0..insn.op_count()).any(|operand| match insn.op_kind(operand) {
        OpKind::Memory => {
            let relative = insn.memory_base() == Register::RIP;
            let addr = if relative {
                insn.ip_rel_memory_address()
            } else {
                insn.memory_displacement64()
            };
            addr == wanted
        }
        OpKind::Register => false,
        OpKind::NearBranch64 => insn.near_branch_target() == wanted,
        _ => insn.immediate(operand) == wanted,
    })
}
