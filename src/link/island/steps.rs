//! The instructions of an island, with where the stack pointer is before each.

use iced_x86::{Code, Encoder, Instruction, MemoryOperand, Register};

use super::error::IslandError;
use super::{Island, IslandRow};

/// Bytes below rsp that a leaf function may use without moving it (psABI 3.2.2).
const RED_ZONE: i32 = 128;

struct Step {
    insn: Instruction,
    before: IslandRow,
}

/// An island under construction.
///
/// Invariant: `row` is the state of the stack after the last instruction.
pub(super) struct Steps {
    list: Vec<Step>,
    row: IslandRow,
}

/// The pattern `[register + displacement]`.
pub(super) fn at(base: Register, displacement: i32) -> MemoryOperand {
    MemoryOperand::with_base_displ(base, i64::from(displacement))
}

/// The pattern `code register, memory`.
pub(super) fn load(code: Code, to: Register, from: MemoryOperand) -> Instruction {
    Instruction::with2(code, to, from).expect("a code that takes a register and memory")
}

/// The pattern `mov memory, register`, 64 bits.
pub(super) fn store(to: MemoryOperand, from: Register) -> Instruction {
    Instruction::with2(Code::Mov_rm64_r64, to, from).expect("mov takes memory and a register")
}

impl Steps {
    pub(super) fn new() -> Self {
        Self {
            list: Vec::new(),
            row: IslandRow {
                offset: 0,
                rsp_delta: 0,
                return_pushed: false,
            },
        }
    }

    /// How far rsp is below its value at the moved instruction, in bytes.
    pub(super) fn depth(&self) -> i32 {
        -self.row.rsp_delta
    }

    /// Adds an instruction that leaves rsp alone.
    pub(super) fn add(&mut self, insn: Instruction) {
        self.list.push(Step {
            insn,
            before: self.row,
        });
    }

    /// Adds an instruction that changes rsp by `change`.
    pub(super) fn add_moving(&mut self, insn: Instruction, change: i32) {
        self.add(insn);
        self.row.rsp_delta += change;
    }

    /// From here on the original return address is at the top of the stack.
    pub(super) fn return_address_pushed(&mut self) {
        self.row.return_pushed = true;
    }

    pub(super) fn movabs(&mut self, register: Register, value: u64) {
        let insn = Instruction::with2(Code::Mov_r64_imm64, register, value);
        self.add(insn.expect("movabs takes a register and 64 bits"));
    }

    /// Moves rsp without touching the flags.
    pub(super) fn move_rsp(&mut self, change: i32) {
        let memory = at(Register::RSP, change);
        self.add_moving(load(Code::Lea_r64_m, Register::RSP, memory), change);
    }

    pub(super) fn push(&mut self, register: Register) {
        let insn = Instruction::with1(Code::Push_r64, register);
        self.add_moving(insn.expect("push takes a register"), -8);
    }

    pub(super) fn pop(&mut self, register: Register) {
        let insn = Instruction::with1(Code::Pop_r64, register);
        self.add_moving(insn.expect("pop takes a register"), 8);
    }

    /// Saves registers below the red zone, and below `reserve` more bytes.
    pub(super) fn save(&mut self, registers: &[Register], reserve: i32) {
        self.move_rsp(-RED_ZONE - reserve);
        registers.iter().for_each(|&r| self.push(r));
    }

    /// Undoes `save`, except that `keep` bytes of its stack stay taken.
    pub(super) fn restore(&mut self, registers: &[Register], keep: i32) {
        registers.iter().rev().for_each(|&r| self.pop(r));
        let change = self.depth() - keep;
        self.move_rsp(change);
    }

    /// Adds the instruction's jump to `target`, five bytes long.
    pub(super) fn jump(&mut self, target: u64) {
        let insn = Instruction::with_branch(Code::Jmp_rel32_64, target);
        self.add(insn.expect("jmp takes a target"));
    }

    /// The island's bytes at `ip` and its rows.
    pub(super) fn encode(&self, ip: u64) -> Result<Island, IslandError> {
        let mut encoder = Encoder::new(64);
        let mut rows: Vec<IslandRow> = Vec::new();
        let mut offset = 0;
        for step in &self.list {
            let row = IslandRow {
                offset,
                ..step.before
            };
            if rows.last().is_none_or(|last| !last.same_state(&row)) {
                rows.push(row);
            }
            let at = ip.wrapping_add(offset as u64);
            offset += encoder
                .encode(&step.insn, at)
                .map_err(|error| encode_error(&step.insn, at, &error))?;
        }
        Ok(Island {
            code: encoder.take_buffer(),
            rows,
        })
    }
}

fn encode_error(insn: &Instruction, from: u64, error: &iced_x86::IcedError) -> IslandError {
    let to = if insn.code() == Code::Jmp_rel32_64 {
        insn.near_branch64()
    } else if insn.is_ip_rel_memory_operand() {
        insn.memory_displacement64()
    } else {
        let message = error.to_string();
        return IslandError::Encode { ip: from, message };
    };
    IslandError::Range { from, to }
}
