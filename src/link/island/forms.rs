//! Changes to one instruction: its register form, and its operands on rsp or in memory.

use iced_x86::{Code, Instruction, MemoryOperand, OpKind, Register};

use super::error::Refusal;
use super::scratch::part;

/// A displacement of fixed size, so that its value never changes the island's.
pub(super) fn set_displacement(insn: &mut Instruction, value: i32) {
    insn.set_memory_displacement64(i64::from(value).cast_unsigned());
    insn.set_memory_displ_size(8);
}

/// The memory operand of `insn` for use in another instruction.
pub(super) fn operand(insn: &Instruction) -> MemoryOperand {
    MemoryOperand::new(
        insn.memory_base(),
        insn.memory_index(),
        insn.memory_index_scale(),
        insn.memory_displacement64().cast_signed(),
        insn.memory_displ_size(),
        false,
        Register::None,
    )
}

/// The code that takes a register in place of a sign-extended 32-bit immediate.
pub(super) fn register_form(code: Code) -> Result<Code, Refusal> {
    Ok(match code {
        Code::Mov_rm64_imm32 => Code::Mov_rm64_r64,
        Code::Add_rm64_imm32 | Code::Add_RAX_imm32 => Code::Add_rm64_r64,
        Code::Or_rm64_imm32 | Code::Or_RAX_imm32 => Code::Or_rm64_r64,
        Code::Adc_rm64_imm32 | Code::Adc_RAX_imm32 => Code::Adc_rm64_r64,
        Code::Sbb_rm64_imm32 | Code::Sbb_RAX_imm32 => Code::Sbb_rm64_r64,
        Code::And_rm64_imm32 | Code::And_RAX_imm32 => Code::And_rm64_r64,
        Code::Sub_rm64_imm32 | Code::Sub_RAX_imm32 => Code::Sub_rm64_r64,
        Code::Xor_rm64_imm32 | Code::Xor_RAX_imm32 => Code::Xor_rm64_r64,
        Code::Cmp_rm64_imm32 | Code::Cmp_RAX_imm32 => Code::Cmp_rm64_r64,
        Code::Test_rm64_imm32 | Code::Test_rm64_imm32_F7r1 | Code::Test_RAX_imm32 => {
            Code::Test_rm64_r64
        }
        Code::Imul_r64_rm64_imm32 => Code::Imul_r64_rm64,
        // The 32-bit forms of the same operations, memory and register.
        Code::Mov_rm32_imm32
        | Code::Add_rm32_imm32
        | Code::Add_EAX_imm32
        | Code::Or_rm32_imm32
        | Code::Or_EAX_imm32
        | Code::Adc_rm32_imm32
        | Code::Adc_EAX_imm32
        | Code::Sbb_rm32_imm32
        | Code::Sbb_EAX_imm32
        | Code::And_rm32_imm32
        | Code::And_EAX_imm32
        | Code::Sub_rm32_imm32
        | Code::Sub_EAX_imm32
        | Code::Xor_rm32_imm32
        | Code::Xor_EAX_imm32
        | Code::Cmp_rm32_imm32
        | Code::Cmp_EAX_imm32
        | Code::Test_rm32_imm32
        | Code::Test_rm32_imm32_F7r1
        | Code::Test_EAX_imm32
        | Code::Imul_r32_rm32_imm32 => return Err(Refusal::Truncates),
        _ => return Err(Refusal::Immediate),
    })
}

/// `insn` as `code`, with `scratch` in place of the immediate.
pub(super) fn with_register(insn: &Instruction, code: Code, scratch: Register) -> Instruction {
    let mut moved = *insn;
    moved.set_code(code);
    if code == Code::Imul_r64_rm64 {
        // The three-operand form has no register twin: the product forms in the scratch.
        moved.set_op0_register(scratch);
    } else {
        moved.set_op1_kind(OpKind::Register);
        moved.set_op1_register(scratch);
    }
    moved
}

pub(super) fn names_rsp(insn: &Instruction) -> bool {
    (0..insn.op_count()).any(|i| is_rsp_operand(insn, i))
}

fn is_rsp_operand(insn: &Instruction, operand: u32) -> bool {
    insn.op_kind(operand) == OpKind::Register
        && insn.op_register(operand).full_register() == Register::RSP
}

pub(super) fn replace_rsp(insn: &mut Instruction, copy: Register) {
    for i in 0..insn.op_count() {
        if is_rsp_operand(insn, i) {
            insn.set_op_register(i, part(copy, insn.op_register(i)));
        }
    }
}
