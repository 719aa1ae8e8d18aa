//! Chooses the island's instructions for each form of moved instruction.
//!
//! Invariants: flags are never written (lea moves rsp, movabs forms addresses); every
//! store of the island's own lies below the red zone, or is one the instruction makes.

use iced_x86::{Code, Instruction, MemoryOperand, OpKind, Register};

use super::error::{IslandError, Refusal};
use super::forms::{
    names_rsp, operand, register_form, replace_rsp, set_displacement, with_register,
};
use super::scratch::Usage;
use super::source::Source;
use super::steps::{Steps, at, load, store};

/// The island's instructions for `source`.
pub(super) fn plan(source: &Source<'_>) -> Result<Steps, IslandError> {
    let mut plan = Plan {
        source,
        usage: Usage::of(&source.insn),
        steps: Steps::new(),
    };
    match source.insn.code() {
        Code::Call_rm64 | Code::Jmp_rm64 => plan.transfer()?,
        Code::Pushq_imm32 | Code::Push_rm64 => plan.push()?,
        Code::Pop_rm64 => plan.pop()?,
        _ if source.insn.is_stack_instruction() => {
            return Err(source.refuse(Refusal::StackPointer));
        }
        _ => match plan.address_only()? {
            Some(register) => plan.steps.movabs(register, plan.value()),
            None => plan.general()?,
        },
    }
    if !matches!(source.insn.code(), Code::Call_rm64 | Code::Jmp_rm64) {
        plan.steps.jump(source.insn.next_ip());
    }
    Ok(plan.steps)
}

struct Plan<'a> {
    source: &'a Source<'a>,
    usage: Usage,
    steps: Steps,
}

impl Plan<'_> {
    /// The value of the instruction's one far field.
    fn value(&self) -> u64 {
        let either = self.source.disp.or(self.source.imm);
        either.expect("a source has a far field")
    }

    fn take(&mut self) -> Result<Register, IslandError> {
        let taken = self.usage.take();
        taken.ok_or_else(|| self.source.refuse(Refusal::NoScratch))
    }

    /// The register, where all the instruction does is to set one to the far address.
    ///
    /// Under the small model `mov $sym,%r32` and `lea sym,%r32` mean the whole address,
    /// which they zero-extend.
    fn address_only(&self) -> Result<Option<Register>, IslandError> {
        let insn = &self.source.insn;
        let register = insn.op0_register();
        let alone = matches!(insn.memory_base(), Register::None | Register::RIP)
            && insn.memory_index() == Register::None;
        match insn.code() {
            Code::Mov_r32_imm32 => Ok(Some(register.full_register())),
            Code::Mov_rm32_imm32 | Code::Mov_rm64_imm32 if insn.op0_kind() == OpKind::Register => {
                Ok(Some(register.full_register()))
            }
            Code::Lea_r32_m | Code::Lea_r64_m if alone => Ok(Some(register.full_register())),
            Code::Lea_r16_m | Code::Lea_r32_m => Err(self.source.refuse(Refusal::Truncates)),
            _ => Ok(None),
        }
    }

    /// Points the memory operand of `insn` through `scratch`, which holds the far
    /// displacement's value; base and index stay part of the address.
    fn through(&mut self, insn: &mut Instruction, scratch: Register, depth: i32) {
        let (base, index) = (insn.memory_base(), insn.memory_index());
        let adjust = if base == Register::RSP { depth } else { 0 };
        insn.set_memory_displacement64(0);
        insn.set_memory_displ_size(0);
        match (base, index) {
            (Register::None | Register::RIP, _) => insn.set_memory_base(scratch),
            (_, Register::None) => {
                insn.set_memory_index(scratch);
                insn.set_memory_index_scale(1);
                if adjust != 0 {
                    set_displacement(insn, adjust);
                }
            }
            _ => {
                let sum = MemoryOperand::with_base_index_scale_displ_size(
                    base,
                    scratch,
                    1,
                    i64::from(adjust),
                    8,
                );
                self.steps.add(load(Code::Lea_r64_m, scratch, sum));
                insn.set_memory_base(scratch);
            }
        }
    }

    /// Corrects a near operand that is based on rsp for how far rsp has moved.
    fn follow_rsp(&self, insn: &mut Instruction, depth: i32) -> Result<(), IslandError> {
        if depth == 0 || insn.memory_base() != Register::RSP {
            return Ok(());
        }
        let old = insn.memory_displacement64().cast_signed();
        let new = old.wrapping_add(i64::from(depth));
        let Ok(new) = i32::try_from(new) else {
            return Err(self.source.refuse(Refusal::StackDisplacement(depth)));
        };
        set_displacement(insn, new);
        Ok(())
    }

    /// The instruction's memory operand, far or near, where rsp is `depth` bytes below the
    /// value that it should count from.
    fn reach(
        &mut self,
        insn: &mut Instruction,
        address: Option<Register>,
        depth: i32,
    ) -> Result<(), IslandError> {
        match (address, self.source.disp) {
            (Some(scratch), Some(value)) => {
                self.steps.movabs(scratch, value);
                self.through(insn, scratch, depth);
                Ok(())
            }
            _ => self.follow_rsp(insn, depth),
        }
    }

    /// Everything that is not a stack operation, a call or a jump.
    fn general(&mut self) -> Result<(), IslandError> {
        let mut insn = self.source.insn;
        if self.usage.writes(Register::RSP) {
            return Err(self.source.refuse(Refusal::StackPointer));
        }
        let mut saved = Vec::with_capacity(3);
        let mut address = None;
        if self.source.disp.is_some() {
            address = self.usage.overwritten(&insn);
            if address.is_none() {
                address = Some(self.take()?);
                saved.extend(address);
            }
        }
        let mut immediate = None;
        let result = insn.op0_register();
        if self.source.imm.is_some() {
            let code = register_form(insn.code()).map_err(|why| self.source.refuse(why))?;
            let scratch = self.take()?;
            saved.push(scratch);
            immediate = Some(scratch);
            insn = with_register(&insn, code, scratch);
        }
        let stack_pointer = if !saved.is_empty() && names_rsp(&insn) {
            let copy = self.take()?;
            saved.push(copy);
            Some(copy)
        } else {
            None
        };
        if !saved.is_empty() {
            self.steps.save(&saved, 0);
        }
        if let Some(copy) = stack_pointer {
            let memory = at(Register::RSP, self.steps.depth());
            self.steps.add(load(Code::Lea_r64_m, copy, memory));
            replace_rsp(&mut insn, copy);
        }
        self.reach(&mut insn, address, self.steps.depth())?;
        if let (Some(scratch), Some(value)) = (immediate, self.source.imm) {
            self.steps.movabs(scratch, value);
        }
        self.steps.add(insn);
        if let (Code::Imul_r64_rm64, Some(product)) = (insn.code(), immediate) {
            let mov = Instruction::with2(Code::Mov_r64_rm64, result, product);
            self.steps.add(mov.expect("mov takes two registers"));
        }
        if !saved.is_empty() {
            self.steps.restore(&saved, 0);
        }
        Ok(())
    }

    /// `push`: the scratch register is saved in the very slot that the push fills, and
    /// changes places with the value there (xchg writes no flags).
    fn push(&mut self) -> Result<(), IslandError> {
        let scratch = self.take()?;
        self.steps.push(scratch);
        if let Some(value) = self.source.imm {
            self.steps.movabs(scratch, value);
        } else {
            let mut memory = self.source.insn;
            self.reach(&mut memory, Some(scratch), self.steps.depth())?;
            self.steps
                .add(load(Code::Mov_r64_rm64, scratch, operand(&memory)));
        }
        let swap = Instruction::with2(Code::Xchg_rm64_r64, at(Register::RSP, 0), scratch);
        self.steps
            .add(swap.expect("xchg takes memory and a register"));
        Ok(())
    }

    /// `pop` to far memory. Its rsp-based address counts from rsp after the pop (SDM, POP).
    fn pop(&mut self) -> Result<(), IslandError> {
        let saved = [self.take()?, self.take()?];
        let [address, value] = saved;
        self.steps.save(&saved, 0);
        let slot = at(Register::RSP, self.steps.depth());
        self.steps.add(load(Code::Mov_r64_rm64, value, slot));
        let mut memory = self.source.insn;
        self.reach(&mut memory, Some(address), self.steps.depth() + 8)?;
        self.steps.add(store(operand(&memory), value));
        self.steps.restore(&saved, -8);
        Ok(())
    }

    /// `call` and `jmp` through far memory. The callee returns to the original place,
    /// so its unwind and exception tables hold; r11 is lost, as psABI 3.2.1 allows there.
    fn transfer(&mut self) -> Result<(), IslandError> {
        let is_call = self.source.insn.code() == Code::Call_rm64;
        let slot = if is_call { 8 } else { 0 };
        let mut memory = self.source.insn;
        memory.set_code(Code::Jmp_rm64);
        if !self.usage.uses(Register::R11) {
            if is_call {
                self.steps.move_rsp(-slot);
                self.store_return_address(Register::R11, 0);
            }
            self.reach(&mut memory, Some(Register::R11), self.steps.depth())?;
            self.steps.add(memory);
            return Ok(());
        }
        self.usage.take_this(Register::R11);
        let scratch = self.take()?;
        self.steps.save(&[scratch], slot);
        self.reach(&mut memory, Some(scratch), self.steps.depth())?;
        self.steps
            .add(load(Code::Mov_r64_rm64, Register::R11, operand(&memory)));
        if is_call {
            let depth = self.steps.depth() - slot;
            self.store_return_address(scratch, depth);
        }
        self.steps.restore(&[scratch], slot);
        let jump = Instruction::with1(Code::Jmp_rm64, Register::R11);
        self.steps.add(jump.expect("jmp takes a register"));
        Ok(())
    }

    fn store_return_address(&mut self, scratch: Register, depth: i32) {
        let next = self.source.insn.next_ip().cast_signed();
        let address = MemoryOperand::with_base_displ(Register::RIP, next);
        self.steps.add(load(Code::Lea_r64_m, scratch, address));
        self.steps.add(store(at(Register::RSP, depth), scratch));
        self.steps.return_address_pushed();
    }
}
