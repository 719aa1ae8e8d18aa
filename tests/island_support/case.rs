//! One instruction run three ways: as it is with near data, through an island with the same
//! near data, and through an island with far data. All that it may change must be equal;
//! an address of the data page, where one shows, differs by the distance of the pages.

use iced_x86::{
    Code, Decoder, DecoderOptions, Formatter, GasFormatter, Instruction, Mnemonic,
    OpCodeOperandKind,
};
use low2g::link::island::{self, FarField, FieldKind, Island, IslandError};

use super::Rng;
use super::machine::{self, End, Machine, State, TRAP_FLAG};
use super::setup::{Setup, random_state};

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

const STATUS_FLAGS: u64 = 0x8d5;

/// Instructions that change what the harness itself stands on (fs, the floating-point
/// environment), that store where they were executed, or that the kernel emulates (UMIP),
/// which swallows a single step.
pub fn left_out(code: Code) -> bool {
    let op = code.op_code();
    let segment = (0..op.op_count()).any(|i| op.op_kind(i) == OpCodeOperandKind::seg_reg);
    segment
        || matches!(
            code.mnemonic(),
            Mnemonic::Sldt
                | Mnemonic::Sgdt
                | Mnemonic::Sidt
                | Mnemonic::Str
                | Mnemonic::Smsw
                | Mnemonic::Lfs
                | Mnemonic::Lgs
                | Mnemonic::Lss
                | Mnemonic::Ldmxcsr
                | Mnemonic::Vldmxcsr
                | Mnemonic::Fldcw
                | Mnemonic::Fldenv
                | Mnemonic::Frstor
                | Mnemonic::Fnstenv
                | Mnemonic::Fstenv
                | Mnemonic::Fnsave
                | Mnemonic::Fsave
                | Mnemonic::Fxsave
                | Mnemonic::Fxsave64
                | Mnemonic::Fxrstor
                | Mnemonic::Fxrstor64
                | Mnemonic::Xsave
                | Mnemonic::Xsave64
                | Mnemonic::Xsavec
                | Mnemonic::Xsavec64
                | Mnemonic::Xsaveopt
                | Mnemonic::Xsaveopt64
                | Mnemonic::Xrstor
                | Mnemonic::Xrstor64
        )
}

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
