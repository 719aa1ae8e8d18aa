//! The instruction to be moved: decoding, and which of its fields are relocated.
//!
//! Invariant: a [`Source`] was decoded from exactly its bytes, and its far fields
//! are whole 4-byte displacement or immediate fields.

use iced_x86::{
    Code, ConstantOffsets, Decoder, DecoderOptions, FlowControl, Instruction, OpCodeOperandKind,
    OpKind, Register,
};

use super::error::{InsnText, IslandError, Refusal};
use super::{FarField, FieldKind, FieldRole, Located};

/// The longest x86 instruction, in bytes.
const MAX_LEN: usize = 15;

/// A decoded instruction with the 64-bit values its far fields stand for.
pub(super) struct Source<'a> {
    pub(super) insn: Instruction,
    bytes: &'a [u8],
    /// Value of the displacement: the address itself where it is rip-relative or alone.
    pub(super) disp: Option<u64>,
    /// Value of the immediate.
    pub(super) imm: Option<u64>,
}

fn decode(bytes: &[u8], ip: u64) -> Result<(Instruction, ConstantOffsets), IslandError> {
    let mut decoder = Decoder::with_ip(64, bytes, ip, DecoderOptions::NONE);
    let insn = decoder.decode();
    if insn.is_invalid() {
        let end = bytes.len().min(MAX_LEN);
        return Err(IslandError::Decode {
            ip,
            bytes: bytes[..end].to_vec(),
        });
    }
    Ok((insn, decoder.get_constant_offsets(&insn)))
}

/// What the 4-byte field at `offset` of the instruction is, if there is one.
fn role(insn: &Instruction, constants: &ConstantOffsets, offset: usize) -> Option<FieldRole> {
    if constants.has_displacement()
        && constants.displacement_size() == 4
        && constants.displacement_offset() == offset
    {
        return Some(FieldRole::Displacement);
    }
    if constants.has_immediate()
        && constants.immediate_size() == 4
        && constants.immediate_offset() == offset
    {
        return Some(match insn.op0_kind() {
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => FieldRole::Branch,
            _ => FieldRole::Immediate,
        });
    }
    None
}

/// See [`super::instruction_at`].
pub(super) fn locate(
    code: &[u8],
    code_ip: u64,
    start: usize,
    field: usize,
) -> Result<Located, IslandError> {
    if start > field || field >= code.len() {
        return Err(IslandError::OutOfCode {
            start,
            field,
            len: code.len(),
        });
    }
    let mut at = start;
    loop {
        let ip = code_ip.wrapping_add(at as u64);
        let (insn, constants) = decode(&code[at..], ip)?;
        let end = at + insn.len();
        if field < end {
            let Some(role) = role(&insn, &constants, field - at) else {
                return Err(IslandError::NoField {
                    insn: InsnText::new(&insn, &code[at..end]),
                    field: code_ip.wrapping_add(field as u64),
                });
            };
            return Ok(Located {
                offset: at,
                len: insn.len(),
                field: field - at,
                role,
            });
        }
        at = end;
    }
}

impl<'a> Source<'a> {
    pub(super) fn new(bytes: &'a [u8], ip: u64, fields: &[FarField]) -> Result<Self, IslandError> {
        let (insn, constants) = decode(bytes, ip)?;
        let mut source = Self {
            insn,
            bytes: &bytes[..insn.len()],
            disp: None,
            imm: None,
        };
        for field in fields {
            let slot = match role(&insn, &constants, field.offset) {
                Some(FieldRole::Displacement) => {
                    source.check_displacement(field.kind)?;
                    &mut source.disp
                }
                Some(FieldRole::Immediate) if field.kind == FieldKind::PcRel => {
                    return Err(source.refuse(Refusal::Kind));
                }
                Some(FieldRole::Immediate) => &mut source.imm,
                Some(FieldRole::Branch) => return Err(source.refuse(Refusal::ControlFlow)),
                None => {
                    return Err(IslandError::NoField {
                        insn: source.text(),
                        field: ip.wrapping_add(field.offset as u64),
                    });
                }
            };
            if slot.replace(field.target).is_some() {
                return Err(source.field_count(fields.len()));
            }
        }
        if fields.is_empty() {
            return Err(source.field_count(0));
        }
        source.check_flow()?;
        Ok(source)
    }

    /// The same instruction with every near field at a value that any island reaches:
    /// what is left decides the island's size.
    pub(super) fn with_neutral_near_fields(mut self) -> Self {
        if self.disp.is_none() {
            if self.insn.is_ip_rel_memory_operand() {
                self.insn.set_memory_displacement64(self.insn.ip());
            } else if self.insn.memory_displ_size() == 8 {
                self.insn.set_memory_displacement64(0);
            }
        }
        self
    }

    pub(super) fn refuse(&self, why: Refusal) -> IslandError {
        IslandError::Refused {
            insn: self.text(),
            why,
        }
    }

    fn text(&self) -> InsnText {
        InsnText::new(&self.insn, self.bytes)
    }

    fn field_count(&self, count: usize) -> IslandError {
        IslandError::Fields {
            insn: self.text(),
            count,
        }
    }

    fn check_displacement(&self, kind: FieldKind) -> Result<(), IslandError> {
        let (base, index) = (self.insn.memory_base(), self.insn.memory_index());
        let absolute = base == Register::None && index == Register::None;
        let plain = (0..self.insn.op_count()).all(|i| {
            !matches!(
                self.insn.op_code().op_kind(i),
                OpCodeOperandKind::mem_mib | OpCodeOperandKind::sibmem
            )
        });
        let why = if matches!(self.insn.memory_segment(), Register::FS | Register::GS) {
            Refusal::Segment
        } else if !plain || self.insn.is_vsib() {
            Refusal::AddressForm
        } else if base.is_gpr32()
            || index.is_gpr32()
            || base == Register::EIP
            || (absolute && self.insn.memory_displ_size() == 4)
        {
            Refusal::AddressSize
        } else if (base == Register::RIP) != (kind == FieldKind::PcRel) {
            Refusal::Kind
        } else {
            return Ok(());
        };
        Err(self.refuse(why))
    }

    /// Only calls and jumps through 64-bit memory transfer control from an island.
    fn check_flow(&self) -> Result<(), IslandError> {
        let moves = self.insn.flow_control() == FlowControl::Next
            || matches!(self.insn.code(), Code::Call_rm64 | Code::Jmp_rm64);
        if moves {
            Ok(())
        } else {
            Err(self.refuse(Refusal::ControlFlow))
        }
    }
}
