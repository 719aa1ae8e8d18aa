//! Values for the operands of one instruction, such that far operands lie in the data page,
//! near ones in theirs, and nothing is undefined.

use iced_x86::{Code, ConstantOffsets, Instruction, Mnemonic, OpKind, Register};

use super::Rng;
use super::machine::{self, Machine, PAGE, State};

/// The instruction with values for its fields, and the state before it.
pub(super) struct Setup {
    pub(super) insn: Instruction,
    pub(super) constants: ConstantOffsets,
    pub(super) disp_far: bool,
    pub(super) imm_far: bool,
    /// The instruction's bytes with near data.
    pub(super) native: Vec<u8>,
    /// Address of the memory operand with near data.
    pub(super) address: u64,
    /// Offset of the memory operand in its page.
    pub(super) in_page: usize,
    /// Displacement that, with base and index, gives `address`.
    pub(super) displacement: u64,
    pub(super) immediate: u64,
    /// A far immediate meets rsp, which is not moved with the data page.
    pub(super) flags_show_distance: bool,
    pub(super) before: State,
}

pub(super) fn random_state(machine: &Machine, rng: &mut Rng) -> State {
    let mut gpr = [0; 16];
    gpr.fill_with(|| rng.next());
    gpr[machine::RSP] = machine.at(machine::STACK);
    // Carry, parity, adjust, zero, sign, direction and overflow.
    let flags = 2 | (rng.next() & 0xcd5);
    State {
        gpr,
        flags,
        extended: machine.extended(&mut || rng.next() as u8),
        data: rng.bytes(PAGE),
        near: rng.bytes(PAGE),
        stack: rng.bytes(Machine::stack_len()),
    }
}

impl Setup {
    pub(super) fn is_displacement(&self, offset: usize) -> bool {
        self.constants.has_displacement() && self.constants.displacement_offset() == offset
    }

    /// Offsets of the 4-byte fields that are near.
    pub(super) fn wide_fields(&self) -> Vec<usize> {
        let mut fields = Vec::new();
        if self.constants.displacement_size() == 4 && !self.disp_far {
            fields.push(self.constants.displacement_offset());
        }
        if self.constants.immediate_size() == 4 && !self.imm_far {
            fields.push(self.constants.immediate_offset());
        }
        fields
    }

    fn has_memory(&self) -> bool {
        (0..self.insn.op_count()).any(|i| self.insn.op_kind(i) == OpKind::Memory)
    }

    /// The page that the memory operand lies in.
    fn page(&mut self) -> &mut [u8] {
        if self.disp_far {
            &mut self.before.data
        } else {
            &mut self.before.near
        }
    }

    /// Sets base, index and displacement so that the operand lies in its data page.
    pub(super) fn choose_address(&mut self, machine: &Machine, rng: &mut Rng) -> Option<()> {
        if !self.has_memory() {
            return Some(());
        }
        let insn = self.insn;
        let (base, index) = (insn.memory_base(), insn.memory_index());
        let bits_from_rsp = matches!(
            insn.mnemonic(),
            Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc
        ) && insn.op1_register().full_register() == Register::RSP;
        if base.is_gpr32() || index.is_gpr32() || base == Register::EIP || bits_from_rsp {
            return None;
        }
        let unaligned = if rng.below(2) == 0 { rng.below(64) } else { 0 };
        self.in_page = 0x800 + 64 * rng.below(4) as usize + unaligned as usize;
        let page = if self.disp_far {
            machine::DATA
        } else {
            machine::NEAR
        };
        self.address = machine.at(page + self.in_page);
        if index.is_gpr64() {
            // Nothing of a program lies below the red zone; words on the stack are aligned.
            let words = if base == Register::RSP {
                rng.below(16) as i64
            } else {
                rng.around(0x80)
            };
            self.before.gpr[index.number()] = (8 * words) as u64;
        }
        let alone = matches!(base, Register::None | Register::RIP);
        let by_displacement = self.disp_far || alone;
        if by_displacement && base.is_gpr64() && base != Register::RSP && base != index {
            self.before.gpr[base.number()] = rng.around(0x1000) as u64;
        }
        let scaled = if index.is_gpr64() {
            self.before.gpr[index.number()].wrapping_mul(u64::from(insn.memory_index_scale()))
        } else {
            0
        };
        if by_displacement {
            let popped = if insn.code() == Code::Pop_rm64 { 8 } else { 0 };
            let based = match base {
                Register::None | Register::RIP => 0,
                Register::RSP => self.before.gpr[machine::RSP] + popped,
                _ => self.before.gpr[base.number()],
            };
            self.displacement = self.address.wrapping_sub(based).wrapping_sub(scaled);
            let value = if base == Register::RIP {
                self.address.wrapping_sub(insn.next_ip())
            } else {
                self.displacement
            };
            let offset = self.constants.displacement_offset();
            self.put_field(offset, value);
            return Some(());
        }
        let displacement = insn.memory_displacement64();
        if base == Register::RSP {
            self.address = self.before.gpr[machine::RSP]
                .wrapping_add(displacement)
                .wrapping_add(scaled);
            let in_stack = self.in_stack(machine);
            return (in_stack < self.before.stack.len() - 64).then_some(());
        }
        if base == index {
            return None;
        }
        self.before.gpr[base.number()] =
            self.address.wrapping_sub(displacement).wrapping_sub(scaled);
        Some(())
    }

    fn put_field(&mut self, offset: usize, value: u64) {
        let field = i32::try_from(value as i64).expect("near values fit 32 bits");
        self.native[offset..offset + 4].copy_from_slice(&field.to_le_bytes());
    }

    /// A far immediate is an address in the data page, and so is what it is compared with.
    pub(super) fn choose_immediate(&mut self, machine: &Machine, rng: &mut Rng) {
        if !self.imm_far {
            return;
        }
        self.immediate = machine.at(machine::DATA) + 0x400 + rng.below(0x400);
        self.put_field(self.constants.immediate_offset(), self.immediate);
        // Sums and products stay in the page with a small operand, the rest with an address.
        let operand = match self.insn.mnemonic() {
            Mnemonic::Add | Mnemonic::Adc => rng.below(0x400),
            Mnemonic::Imul => 1,
            _ => self.immediate.wrapping_add_signed(rng.around(0x200)),
        };
        let source = if self.insn.mnemonic() == Mnemonic::Imul {
            1
        } else {
            0
        };
        if self.insn.op_kind(source) == OpKind::Register {
            let register = self.insn.op_register(source);
            if register == Register::RSP {
                self.flags_show_distance = true;
            } else {
                self.before.gpr[register.number()] = operand;
            }
        } else if self.insn.memory_base() != Register::RSP || self.disp_far {
            let at = self.in_page;
            self.page()[at..at + 8].copy_from_slice(&operand.to_le_bytes());
        } else {
            let at = self.in_stack(machine);
            self.before.stack[at..at + 8].copy_from_slice(&operand.to_le_bytes());
        }
    }

    /// Where an operand based on rsp lies in the stack that is compared.
    fn in_stack(&self, machine: &Machine) -> usize {
        let start = machine.at(machine::STACK - machine::RED_ZONE);
        self.address.wrapping_sub(start) as usize
    }

    /// Values for which divisions, bit strings and transfers are defined.
    pub(super) fn tame(&mut self, machine: &Machine, rng: &mut Rng) {
        let at = self.in_page;
        match self.insn.mnemonic() {
            Mnemonic::Div | Mnemonic::Idiv if at != 0 => {
                self.page()[at..at + 8].copy_from_slice(&[0x41; 8]);
                if !self.addressing(Register::RAX) && !self.addressing(Register::RDX) {
                    self.before.gpr[0] &= 0x7f;
                    self.before.gpr[2] = 0;
                }
            }
            Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc => {
                let register = self.insn.op1_register();
                let whole = register.full_register();
                if register != Register::None && !self.addressing(whole) && whole != Register::RSP {
                    self.before.gpr[whole.number()] = rng.around(0x400) as u64;
                }
            }
            Mnemonic::Cmpxchg
                if at != 0 && rng.below(2) == 0 && !self.addressing(Register::RAX) =>
            {
                let bytes = self.page()[at..at + 8].try_into().expect("8 bytes");
                self.before.gpr[0] = u64::from_le_bytes(bytes);
            }
            Mnemonic::Call | Mnemonic::Jmp => {
                let callee = machine.callee().to_le_bytes();
                self.page()[at..at + 8].copy_from_slice(&callee);
            }
            _ => {}
        }
    }

    fn addressing(&self, register: Register) -> bool {
        self.insn.memory_base() == register || self.insn.memory_index() == register
    }

    /// `state` with addresses of the data page moved by `shift`.
    pub(super) fn translated(&self, machine: &Machine, state: &State, shift: u64) -> State {
        let start = machine.at(machine::DATA);
        let move_word = |word: u64| {
            if (start..start + PAGE as u64).contains(&word) {
                word + shift
            } else {
                word
            }
        };
        let move_bytes = |bytes: &mut [u8]| {
            let word = u64::from_le_bytes((&*bytes).try_into().expect("8 bytes"));
            bytes.copy_from_slice(&move_word(word).to_le_bytes());
        };
        let mut state = state.clone();
        state.gpr.iter_mut().for_each(|r| *r = move_word(*r));
        state.stack.chunks_exact_mut(8).for_each(&move_bytes);
        let operand = self.in_page..self.in_page + 8;
        move_bytes(&mut state.data[operand.clone()]);
        move_bytes(&mut state.near[operand]);
        state
    }
}
