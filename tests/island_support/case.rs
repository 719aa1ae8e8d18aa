//! One instruction run three ways: as it is with near data, through an island with the same
//! near data, and through an island with far data. All that it may change must be equal;
//! an address of the data page, where one shows, differs by the distance of the pages.

use iced_x86::{
    Code, ConstantOffsets, Decoder, DecoderOptions, Formatter, GasFormatter, Instruction, Mnemonic,
    OpKind, Register,
};
use low2g::link::island::{self, FarField, FieldKind, Island, IslandError};

use super::Rng;
use super::machine::{self, End, Machine, PAGE, State, TRAP_FLAG};

#[derive(Debug)]
pub enum Verdict {
    Equal,
    /// The instruction faults by itself, here or with these operands.
    Faults,
    /// No operand values make it refer to the data pages.
    Unreachable,
    Refused(IslandError),
}

pub struct Case {
    pub bytes: Vec<u8>,
    /// Offset and kind of the far fields.
    pub far: Vec<(usize, FieldKind)>,
}

/// The instruction with values for its fields, and the state before it.
struct Setup {
    insn: Instruction,
    constants: ConstantOffsets,
    disp_far: bool,
    imm_far: bool,
    /// The instruction's bytes with near data.
    native: Vec<u8>,
    /// Address of the memory operand with near data.
    address: u64,
    /// Offset of the memory operand in its page.
    in_page: usize,
    /// Displacement that, with base and index, gives `address`.
    displacement: u64,
    immediate: u64,
    /// A far immediate meets rsp, which is not moved with the data page.
    flags_show_distance: bool,
    before: State,
}

const STATUS_FLAGS: u64 = 0x8d5;

pub fn text(bytes: &[u8]) -> String {
    let insn = Decoder::with_ip(64, bytes, 0x1000, DecoderOptions::NONE).decode();
    let mut text = String::new();
    GasFormatter::new().format(&insn, &mut text);
    format!("{text} ({bytes:02x?})")
}

impl Case {
    /// Runs the instruction and its island with values drawn from `rng`.
    pub fn check(&self, machine: &mut Machine, rng: &mut Rng) -> Verdict {
        let Some(setup) = self.setup(machine, rng) else {
            return Verdict::Unreachable;
        };
        let delta = machine.far_data() - machine.at(machine::DATA);
        let len = setup.native.len();
        machine.write(machine::PLACE, &setup.native);
        let (end, expected, _) = machine.run(len, &setup.before, false);
        if end == End::Fault {
            return Verdict::Faults;
        }
        let island_at = machine::ISLAND + rng.below(256) as usize;
        // With rsp in the data page there is no stack for a signal.
        let sets_rsp = expected.gpr[machine::RSP].abs_diff(setup.before.gpr[machine::RSP]) > 8;
        for (shift, trap) in [(0, 0), (delta, 0), (delta, TRAP_FLAG)] {
            if trap != 0 && sets_rsp {
                continue;
            }
            let island = match self.build(machine, &setup, shift, island_at, rng) {
                Ok(island) => island,
                Err(error) => return Verdict::Refused(error),
            };
            let jump = island::patch(len, machine.at(machine::PLACE), machine.at(island_at));
            match jump {
                Ok(jump) => machine.write(machine::PLACE, &jump),
                Err(error) => return Verdict::Refused(error),
            }
            machine.write(island_at, &island.code);
            let mut before = setup.translated(machine, &setup.before, shift);
            before.flags |= trap;
            let (island_end, mut found, steps) = machine.run(len, &before, shift != 0);
            let mut wanted = setup.translated(machine, &expected, shift);
            if end == End::Callee {
                // psABI 3.2.1: a call through memory may clobber r11.
                wanted.gpr[11] = 0;
                found.gpr[11] = 0;
            }
            if setup.insn.code() == Code::Pop_rm64 {
                // The red zone has moved up with rsp, and a signal may take what it left.
                wanted.stack.drain(..8);
                found.stack.drain(..8);
            }
            if shift != 0 && setup.flags_show_distance {
                wanted.flags &= !STATUS_FLAGS;
                found.flags &= !STATUS_FLAGS;
            }
            let difference = difference(&wanted, &found);
            assert!(
                island_end == end && difference.is_empty(),
                "{}\n{:#x} + {shift:#x}, trap {trap:#x}: {end:?} became {island_end:?}\n{difference}{}",
                text(&setup.native),
                setup.address,
                listing(&island, machine.at(island_at)),
            );
            if trap != 0 {
                check_rows(
                    &island,
                    machine.at(island_at),
                    setup.before.gpr[machine::RSP],
                    &steps,
                );
            }
        }
        Verdict::Equal
    }

    fn build(
        &self,
        machine: &Machine,
        setup: &Setup,
        shift: u64,
        island_at: usize,
        rng: &mut Rng,
    ) -> Result<Island, IslandError> {
        let len = setup.native.len();
        let ip = machine.at(machine::PLACE);
        let mut bytes = setup.native.clone();
        let fields: Vec<FarField> = self
            .far
            .iter()
            .map(|&(offset, kind)| {
                bytes[offset..offset + 4].copy_from_slice(&rng.bytes(4));
                let s_plus_a = if !setup.is_displacement(offset) {
                    setup.immediate
                } else if kind == FieldKind::PcRel {
                    setup.address - (len - offset) as u64
                } else {
                    setup.displacement
                };
                FarField::new(offset, kind, s_plus_a.wrapping_add(shift), len)
            })
            .collect();
        let mut unrelocated = bytes.clone();
        for offset in setup.wide_fields() {
            unrelocated[offset..offset + 4].copy_from_slice(&rng.bytes(4));
        }
        let bound = island::size_bound(&unrelocated, ip, &fields)?;
        let island = island::build(&bytes, ip, &fields, machine.at(island_at))?;
        assert_eq!(island.code.len(), bound, "size of {}", text(&bytes));
        Ok(island)
    }

    fn setup(&self, machine: &Machine, rng: &mut Rng) -> Option<Setup> {
        let ip = machine.at(machine::PLACE);
        let mut decoder = Decoder::with_ip(64, &self.bytes, ip, DecoderOptions::NONE);
        let insn = decoder.decode();
        assert_eq!(insn.len(), self.bytes.len(), "{}", text(&self.bytes));
        let constants = decoder.get_constant_offsets(&insn);
        let mut setup = Setup {
            insn,
            constants,
            disp_far: false,
            imm_far: false,
            native: self.bytes.clone(),
            address: 0,
            in_page: 0,
            displacement: 0,
            immediate: 0,
            flags_show_distance: false,
            before: random_state(machine, rng),
        };
        for &(offset, _) in &self.far {
            if setup.is_displacement(offset) {
                setup.disp_far = true;
            } else {
                setup.imm_far = true;
            }
        }
        setup.choose_address(machine, rng)?;
        setup.choose_immediate(machine, rng);
        setup.tame(machine, rng);
        Some(setup)
    }
}

fn random_state(machine: &Machine, rng: &mut Rng) -> State {
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
    fn is_displacement(&self, offset: usize) -> bool {
        self.constants.has_displacement() && self.constants.displacement_offset() == offset
    }

    /// Offsets of the 4-byte fields that are near.
    fn wide_fields(&self) -> Vec<usize> {
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
    fn choose_address(&mut self, machine: &Machine, rng: &mut Rng) -> Option<()> {
        if !self.has_memory() {
            return Some(());
        }
        let insn = self.insn;
        let (base, index) = (insn.memory_base(), insn.memory_index());
        if base.is_gpr32() || index.is_gpr32() || base == Register::EIP {
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
            return Some(());
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
    fn choose_immediate(&mut self, machine: &Machine, rng: &mut Rng) {
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
        } else if self.insn.memory_base() != Register::RSP {
            let at = self.in_page;
            self.page()[at..at + 8].copy_from_slice(&operand.to_le_bytes());
        }
    }

    /// Values for which divisions, bit strings and transfers are defined.
    fn tame(&mut self, machine: &Machine, rng: &mut Rng) {
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
    fn translated(&self, machine: &Machine, state: &State, shift: u64) -> State {
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

fn difference(wanted: &State, found: &State) -> String {
    let mut text = String::new();
    for (i, (w, f)) in wanted.gpr.iter().zip(&found.gpr).enumerate() {
        if w != f {
            text += &format!("register {i}: {w:#x} became {f:#x}\n");
        }
    }
    if wanted.flags != found.flags {
        text += &format!("flags: {:#x} became {:#x}\n", wanted.flags, found.flags);
    }
    let areas = [
        ("extended state", &wanted.extended, &found.extended),
        ("far page", &wanted.data, &found.data),
        ("near page", &wanted.near, &found.near),
        ("stack from rsp - 128", &wanted.stack, &found.stack),
    ];
    for (name, w, f) in areas {
        if let Some(i) = (0..w.len()).find(|&i| w[i] != f[i]) {
            text += &format!("{name} +{i:#x}: {:02x} became {:02x}\n", w[i], f[i]);
        }
    }
    text
}

fn instructions(island: &Island, ip: u64) -> Vec<Instruction> {
    Decoder::with_ip(64, &island.code, ip, DecoderOptions::NONE)
        .into_iter()
        .collect()
}

fn listing(island: &Island, ip: u64) -> String {
    let mut all = String::new();
    for insn in instructions(island, ip) {
        let mut text = String::new();
        GasFormatter::new().format(&insn, &mut text);
        all += &format!("{:#x}: {text}\n", insn.ip());
    }
    all
}

/// Every instruction of the island ran once, with rsp where its row says.
fn check_rows(island: &Island, ip: u64, rsp: u64, steps: &[(u64, u64)]) {
    let starts: Vec<u64> = instructions(island, ip)
        .iter()
        .map(Instruction::ip)
        .collect();
    let ran: Vec<u64> = steps.iter().map(|&(ip, _)| ip).collect();
    assert_eq!(ran, starts, "steps of\n{}", listing(island, ip));
    assert!(island.rows.is_sorted_by(|a, b| a.offset < b.offset));
    for &(at, found) in steps {
        let offset = (at - ip) as usize;
        let row = island.rows.iter().rev().find(|row| row.offset <= offset);
        let row = row.expect("a row at offset 0");
        assert_eq!(
            rsp.wrapping_add_signed(i64::from(row.rsp_delta)),
            found,
            "row at {offset:#x} of\n{}{:?}",
            listing(island, ip),
            island.rows
        );
    }
}
