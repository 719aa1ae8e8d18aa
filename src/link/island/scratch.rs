//! Which registers an instruction uses, and which may carry far addresses for it.
//!
//! Invariant: scratch registers are caller-saved ones, so no unwind rule of the
//! moved instruction names them; r10 comes last, gcc's realigned frames count from it.

use iced_x86::{Instruction, InstructionInfoFactory, OpAccess, OpKind, Register};

const CANDIDATES: [Register; 9] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R11,
    Register::R10,
];

/// General-purpose registers of one instruction, as bit sets by register number.
pub(super) struct Usage {
    read: u32,
    written: u32,
    /// ah, bh, ch or dh is an operand: a REX prefix, and so r8 to r15, cannot be used.
    high_byte: bool,
}

fn bit(register: Register) -> u32 {
    1 << register.number()
}

impl Usage {
    pub(super) fn of(insn: &Instruction) -> Self {
        let mut factory = InstructionInfoFactory::new();
        let (mut read, mut written) = (0, 0);
        for used in factory.info(insn).used_registers() {
            let full = used.register().full_register();
            if !full.is_gpr64() {
                continue;
            }
            let (reads, writes) = match used.access() {
                OpAccess::Read | OpAccess::CondRead => (true, false),
                OpAccess::Write => (false, true),
                OpAccess::None | OpAccess::NoMemAccess => (false, false),
                // A conditional write keeps the old value sometimes.
                OpAccess::ReadWrite | OpAccess::ReadCondWrite | OpAccess::CondWrite => (true, true),
            };
            read |= if reads { bit(full) } else { 0 };
            written |= if writes { bit(full) } else { 0 };
        }
        let high_byte = (0..insn.op_count()).any(|i| {
            insn.op_kind(i) == OpKind::Register
                && matches!(
                    insn.op_register(i),
                    Register::AH | Register::BH | Register::CH | Register::DH
                )
        });
        Self {
            read,
            written,
            high_byte,
        }
    }

    pub(super) fn writes(&self, register: Register) -> bool {
        self.written & bit(register) != 0
    }

    pub(super) fn uses(&self, register: Register) -> bool {
        (self.read | self.written) & bit(register) != 0
    }

    /// A register that the instruction overwrites whole and never reads: it can carry
    /// the address and needs no saving. Not rsp, which must stay a stack at all times.
    pub(super) fn overwritten(&self, insn: &Instruction) -> Option<Register> {
        (0..insn.op_count())
            .filter(|&i| insn.op_kind(i) == OpKind::Register)
            .map(|i| insn.op_register(i))
            .filter(|r| r.is_gpr32() || r.is_gpr64())
            .map(Register::full_register)
            .find(|&r| r != Register::RSP && self.writes(r) && self.read & bit(r) == 0)
    }

    /// Marks as used and returns a register that the instruction leaves alone.
    pub(super) fn take(&mut self) -> Option<Register> {
        let found = CANDIDATES
            .into_iter()
            .find(|&r| !(self.uses(r) || self.high_byte && r.number() >= 8))?;
        self.take_this(found);
        Some(found)
    }

    /// Marks `register` as used, so that `take` does not return it.
    pub(super) fn take_this(&mut self, register: Register) {
        self.read |= bit(register);
    }
}

/// The part of `whole` (64 bits) that has the size of `like`, low part.
pub(super) fn part(whole: Register, like: Register) -> Register {
    let first = match like.size() {
        1 => Register::AL,
        2 => Register::AX,
        4 => Register::EAX,
        _ => return whole,
    };
    // Byte registers are numbered AL CL DL BL AH CH DH BH SPL BPL SIL DIL R8L: skip AH to BH.
    let skip = if first == Register::AL && whole.number() >= 4 {
        4
    } else {
        0
    };
    let number = whole.number() + skip;
    Register::values()
        .nth(first as usize + number)
        .unwrap_or(whole)
}
