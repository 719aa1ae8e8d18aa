//! Every instruction with a memory or 32-bit immediate operand that the decoder knows, with
//! random operands, run natively and through its island. What this processor cannot run
//! faults natively and is left out; nothing else is.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "random words are cut to the size of an operand on purpose"
)]

mod island_support;

use std::collections::BTreeMap;

use iced_x86::{
    Code, Decoder, DecoderOptions, Encoder, FlowControl, Instruction, Mnemonic, OpCodeInfo,
    OpCodeOperandKind as Kind, OpKind, Register,
};
use island_support::Rng;
use island_support::case::{Case, Verdict, left_out};
use island_support::machine::Machine;
use low2g::link::island::{FieldKind, IslandError, Refusal};

/// Instructions per code; each is run with its own operands.
const ROUNDS: usize = 5;

fn takes_memory(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::mem
            | Kind::mem_mib
            | Kind::sibmem
            | Kind::r8_or_mem
            | Kind::r16_or_mem
            | Kind::r32_or_mem
            | Kind::r64_or_mem
            | Kind::mm_or_mem
            | Kind::xmm_or_mem
            | Kind::ymm_or_mem
            | Kind::zmm_or_mem
            | Kind::k_or_mem
    )
}

/// A random register for an operand, or nothing where the operand is none.
fn register(kind: Kind, evex: bool, rng: &mut Rng) -> Option<Register> {
    let general = rng.below(16) as u32;
    let vector = rng.below(if evex { 32 } else { 16 }) as u32;
    let mask = rng.below(8) as u32;
    Some(match kind {
        Kind::r8_reg | Kind::r8_or_mem | Kind::r8_opcode => {
            let all: Vec<Register> = Register::values().filter(|r| r.is_gpr8()).collect();
            rng.pick(&all)
        }
        Kind::r16_reg | Kind::r16_or_mem | Kind::r16_rm | Kind::r16_opcode => {
            Register::AX + general
        }
        Kind::r32_reg | Kind::r32_or_mem | Kind::r32_rm | Kind::r32_opcode | Kind::r32_vvvv => {
            Register::EAX + general
        }
        Kind::r64_reg | Kind::r64_or_mem | Kind::r64_rm | Kind::r64_opcode | Kind::r64_vvvv => {
            Register::RAX + general
        }
        Kind::mm_reg | Kind::mm_or_mem => Register::MM0 + mask,
        Kind::xmm_reg | Kind::xmm_vvvv | Kind::xmm_or_mem => Register::XMM0 + vector,
        Kind::xmmp3_vvvv => Register::XMM0 + 4 * (vector / 4),
        Kind::ymm_reg | Kind::ymm_vvvv => Register::YMM0 + vector,
        Kind::zmm_reg | Kind::zmm_vvvv => Register::ZMM0 + vector,
        Kind::zmmp3_vvvv => Register::ZMM0 + 4 * (vector / 4),
        Kind::xmm_is4 | Kind::xmm_is5 => Register::XMM0 + vector % 16,
        Kind::ymm_is4 | Kind::ymm_is5 => Register::YMM0 + vector % 16,
        Kind::k_reg | Kind::k_vvvv => Register::K0 + mask,
        Kind::al => Register::AL,
        Kind::cl => Register::CL,
        Kind::ax => Register::AX,
        Kind::dx => Register::DX,
        Kind::eax => Register::EAX,
        Kind::rax => Register::RAX,
        Kind::st0 => Register::ST0,
        _ => return None,
    })
}

/// A memory operand with a 32-bit displacement, near or to be made far, or a short one.
fn set_memory(insn: &mut Instruction, ip: u64, short: bool, rng: &mut Rng) {
    let general = |rng: &mut Rng| Register::RAX + rng.below(16) as u32;
    let index = |rng: &mut Rng| {
        let register = general(rng);
        if register == Register::RSP {
            Register::RBP
        } else {
            register
        }
    };
    let form = if short {
        2 + rng.below(2)
    } else {
        rng.below(5)
    };
    if form == 0 {
        insn.set_memory_base(Register::RIP);
        insn.set_memory_displacement64(ip);
        insn.set_memory_displ_size(8);
        return;
    }
    if matches!(form, 2 | 3) {
        insn.set_memory_base(general(rng));
    }
    if matches!(form, 3 | 4) {
        insn.set_memory_index(index(rng));
        insn.set_memory_index_scale(1 << rng.below(4));
    }
    if short {
        insn.set_memory_displacement64((8 * rng.around(16)) as u64);
        insn.set_memory_displ_size(1);
    } else {
        insn.set_memory_displacement64(0x1234);
        insn.set_memory_displ_size(8);
    }
}

/// A random instruction of `code`; its memory operand is `short` of a relocatable field or not.
fn random(code: Code, op: &OpCodeInfo, ip: u64, short: bool, rng: &mut Rng) -> Option<Instruction> {
    let mut insn = Instruction::default();
    insn.set_code(code);
    let evex = op.encoding() == iced_x86::EncodingKind::EVEX;
    for i in 0..op.op_count() {
        let kind = op.op_kind(i);
        if takes_memory(kind) && (op.op_count() == 1 || rng.below(16) > 0) {
            insn.set_op_kind(i, OpKind::Memory);
            set_memory(&mut insn, ip, short, rng);
        } else if let Some(register) = register(kind, evex, rng) {
            if i < 4 {
                insn.set_op_kind(i, OpKind::Register);
            }
            insn.set_op_register(i, register);
        } else {
            let value = rng.next();
            let (kind, value) = match kind {
                Kind::imm8 => (OpKind::Immediate8, value & 0xff),
                Kind::imm4_m2z => (OpKind::Immediate8, value & 3),
                Kind::imm8_const_1 => (OpKind::Immediate8, 1),
                Kind::imm8sex16 => (OpKind::Immediate8to16, value & 0x7f),
                Kind::imm8sex32 => (OpKind::Immediate8to32, value & 0x7f),
                Kind::imm8sex64 => (OpKind::Immediate8to64, value & 0x7f),
                Kind::imm16 => (OpKind::Immediate16, value & 0xffff),
                Kind::imm32 => (OpKind::Immediate32, value & 0x7fff_ffff),
                Kind::imm32sex64 => (OpKind::Immediate32to64, value & 0x7fff_ffff),
                _ => return None,
            };
            insn.set_op_kind(i, kind);
            match kind {
                OpKind::Immediate8 => insn.set_immediate8(value as u8),
                OpKind::Immediate16 => insn.set_immediate16(value as u16),
                OpKind::Immediate32 => insn.set_immediate32(value as u32),
                OpKind::Immediate8to16 => insn.set_immediate8to16(value as i16),
                OpKind::Immediate8to32 => insn.set_immediate8to32(value as i32),
                OpKind::Immediate8to64 => insn.set_immediate8to64(value as i64),
                _ => insn.set_immediate32to64(value as i64),
            }
        }
    }
    let memory = (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory);
    insn.set_has_lock_prefix(
        memory
            && op.can_use_lock_prefix()
            && insn.op0_kind() == OpKind::Memory
            && rng.below(2) == 0,
    );
    insn.set_is_broadcast(memory && op.can_broadcast() && rng.below(3) == 0);
    if op.can_use_op_mask_register() && (op.require_op_mask_register() || rng.below(2) == 0) {
        insn.set_op_mask(Register::K1 + rng.below(7) as u32);
        insn.set_zeroing_masking(op.can_use_zeroing_masking() && rng.below(2) == 0);
    }
    Some(insn)
}

/// The instruction's bytes with its 4-byte fields, some or all, made far.
fn case(insn: &Instruction, ip: u64, rng: &mut Rng) -> Option<Case> {
    let mut encoder = Encoder::new(64);
    encoder.encode(insn, ip).ok()?;
    let bytes = encoder.take_buffer();
    let mut decoder = Decoder::with_ip(64, &bytes, ip, DecoderOptions::NONE);
    let decoded = decoder.decode();
    if decoded.is_invalid() || decoded.code() != insn.code() || decoded.len() != bytes.len() {
        return None;
    }
    let constants = decoder.get_constant_offsets(&decoded);
    let mut far = Vec::new();
    if constants.displacement_size() == 4 {
        let relative = decoded.memory_base() == Register::RIP;
        let kind = if relative {
            FieldKind::PcRel
        } else {
            FieldKind::Abs32S
        };
        far.push((constants.displacement_offset(), kind));
    }
    let wide = (0..decoded.op_count()).any(|i| decoded.op_kind(i) == OpKind::Immediate32to64);
    if constants.immediate_size() == 4 && (wide || decoded.code() == Code::Mov_r32_imm32) {
        far.push((constants.immediate_offset(), FieldKind::Abs32S));
    }
    if far.len() == 2 && rng.below(3) > 0 {
        far.remove(rng.below(2) as usize);
    }
    if far.is_empty() {
        None
    } else {
        Some(Case { bytes, far })
    }
}

/// The reasons that hold for instructions of this corpus, and what must be so for each.
fn check_refusal(case: &Case, error: &IslandError) -> Refusal {
    let insn = Decoder::new(64, &case.bytes, DecoderOptions::NONE).decode();
    let IslandError::Refused { why, .. } = *error else {
        // The harness makes random instructions; those under 5 bytes have no far field.
        panic!("{error}");
    };
    let holds = match why {
        Refusal::StackPointer => {
            let names_rsp = (0..insn.op_count()).any(|i| {
                insn.op_kind(i) == OpKind::Register
                    && insn.op_register(i).full_register() == Register::RSP
            });
            insn.is_stack_instruction() || names_rsp
        }
        Refusal::AddressForm => insn.is_vsib() || insn.mnemonic() == Mnemonic::Bndldx,
        Refusal::ControlFlow => insn.flow_control() != FlowControl::Next,
        Refusal::Truncates => {
            matches!(insn.code(), Code::Lea_r16_m | Code::Lea_r32_m)
        }
        _ => false,
    };
    assert!(holds, "{error}");
    why
}

#[test]
fn random_instructions_do_through_an_island_what_they_do_in_place() {
    let mut machine = Machine::new();
    let mut rng = Rng(island_support::seed());
    let place = machine.at(island_support::machine::PLACE);
    let (mut equal, mut faults, mut unreachable) = (0, 0, 0);
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    let mut codes = 0;
    for code in Code::values() {
        let op = code.op_code();
        let operands = || (0..op.op_count()).map(|i| op.op_kind(i));
        let with_memory = operands().any(takes_memory);
        let with_immediate = operands().any(|k| matches!(k, Kind::imm32sex64 | Kind::imm32));
        if !op.is_instruction()
            || !op.mode64()
            || left_out(code)
            || !(with_memory || with_immediate)
        {
            continue;
        }
        codes += 1;
        for round in 0..ROUNDS {
            let short = with_immediate && round % 3 == 0;
            let Some(insn) = random(code, op, place, short, &mut rng) else {
                continue;
            };
            let Some(case) = case(&insn, place, &mut rng) else {
                continue;
            };
            match case.check(&mut machine, &mut rng) {
                Verdict::Equal => equal += 1,
                Verdict::Faults => faults += 1,
                Verdict::Unreachable => unreachable += 1,
                Verdict::Refused(error) => {
                    let why = check_refusal(&case, &error);
                    *refused.entry(format!("{why:?}")).or_default() += 1;
                }
            }
        }
    }
    println!(
        "{codes} codes: {equal} instructions equal, {faults} cannot run here, {unreachable} \
         without operands, refused {refused:?}"
    );
    assert!(equal > 5000, "only {equal} instructions ran");
}
