//! Windows' function tables, made of frame entries: what `RtlVirtualUnwind` walks by.
//!
//! Windows describes a function by the steps of its prologue; a frame entry says for each stretch of
//! instructions where the caller's frame and the saved registers are. So every stretch becomes a
//! "function" whose prologue is empty and over, and whose steps lead from the registers there to the
//! caller's (Microsoft, "x64 exception handling"):
//!
//! ```text
//!   frame at rsp + n            load saved registers from rsp + x, then pop n - 8 bytes
//!   frame at a register + n     rsp = register - 16 y, load saved registers from there, pop the rest
//! ```
//!
//! Invariant: a stretch whose frame these steps cannot express has no entry. (Windows takes it for a
//! function without a frame, so a walk goes astray there. Compilers make such stretches where they align
//! the stack by themselves.)

use gimli::{
    BaseAddresses, CfaRule, EhFrame, LittleEndian, Register, RegisterRule, UnwindContext,
    UnwindSection, UnwindTableRow,
};
use low2g_platform::AddrRange;

use super::table::Finished;

/// A stretch of code, and where in the table's bytes its `UNWIND_INFO` begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) code: AddrRange,
    pub(super) info: u32,
}

/// All stretches of a frame table, ascending, and their `UNWIND_INFO`, each aligned to 4 bytes.
#[derive(Debug, Default)]
pub(super) struct Functions {
    pub(super) stretches: Vec<Stretch>,
    pub(super) infos: Vec<u8>,
}

/// Padding between functions, bytes, that counts as part of the one before: a call that does not return
/// may be its last instruction.
const PADDING: u64 = 15;

impl Functions {
    /// Those of `table`; entries that cannot be read are left out.
    pub(super) fn of(table: &Finished) -> Self {
        let bytes = table.bytes();
        let mut functions = Self::default();
        let section = EhFrame::new(&bytes, LittleEndian);
        let bases = BaseAddresses::default();
        let mut context = UnwindContext::new();
        let mut bodies = Vec::new();
        for offset in &table.offsets {
            let offset = gimli::EhFrameOffset(*offset);
            let fde = section.fde_from_offset(&bases, offset, EhFrame::cie_from_offset);
            let Ok(fde) = fde else { continue };
            bodies.extend(AddrRange::new(fde.initial_address(), fde.end_address()));
            let Ok(mut rows) = fde.rows(&section, &bases, &mut context) else {
                continue;
            };
            while let Ok(Some(row)) = rows.next_row() {
                functions.add(row);
            }
        }
        functions.finish(bodies)
    }

    fn add(&mut self, row: &UnwindTableRow<usize>) {
        let code = AddrRange::new(row.start_address(), row.end_address());
        let Some(code) = code.filter(|code| !code.is_empty()) else {
            return;
        };
        let Some(info) = unwind_info(row) else { return };
        let info = self.place(&info);
        self.stretches.push(Stretch { code, info });
    }

    /// Where `info` stands, now if it did not yet.
    fn place(&mut self, info: &[u8]) -> u32 {
        // A module has few different ones, and neighbours are most alike.
        let known = self.stretches.iter().rev().take(64).find(|stretch| {
            let at = low2g_platform::to_usize(stretch.info.into());
            self.infos.get(at..at + info.len()) == Some(info)
        });
        if let Some(known) = known {
            return known.info;
        }
        let at = u32::try_from(self.infos.len()).expect("frame tables are below 4 GiB");
        self.infos.extend_from_slice(info);
        self.infos.resize(self.infos.len().next_multiple_of(4), 0);
        at
    }

    /// Sorts, joins and pads; `bodies` are the whole functions.
    fn finish(mut self, mut bodies: Vec<AddrRange>) -> Self {
        self.stretches.sort_by_key(|stretch| stretch.code.start());
        // Two entries for one address are somebody's mistake; the first stays.
        self.stretches
            .dedup_by(|next, first| first.code.overlaps(next.code));
        bodies.sort_by_key(|body| body.start());
        for stretch in &mut self.stretches {
            stretch.code = with_padding(stretch.code, &bodies);
        }
        self.stretches.dedup_by(|next, first| {
            let joins = first.info == next.info && first.code.end() == next.code.start();
            if joins {
                first.code = range(first.code.start(), next.code.end());
            }
            joins
        });
        self
    }
}

/// `code` with the padding behind it, if it ends where one of `bodies`, which ascend, does.
fn with_padding(code: AddrRange, bodies: &[AddrRange]) -> AddrRange {
    let next = bodies.partition_point(|body| body.start() < code.end());
    let ends = next
        .checked_sub(1)
        .is_some_and(|own| bodies[own].end() == code.end());
    let next = bodies.get(next).map(|body| body.start());
    match next {
        Some(next) if ends && next - code.end() <= PADDING => range(code.start(), next),
        _ => code,
    }
}

fn range(start: u64, end: u64) -> AddrRange {
    AddrRange::new(start, end).expect("they ascend")
}

/// Windows' numbers of the integer registers, by DWARF's.
const INTEGER: [u8; 16] = [0, 2, 1, 3, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15];
const RSP: Register = Register(7);
const RETURN_ADDRESS: Register = Register(16);
const FIRST_XMM: u16 = 17;

const UWOP_ALLOC_LARGE: u8 = 1;
const UWOP_ALLOC_SMALL: u8 = 2;
const UWOP_SET_FPREG: u8 = 3;
const UWOP_SAVE_NONVOL: u8 = 4;
const UWOP_SAVE_NONVOL_FAR: u8 = 5;
const UWOP_SAVE_XMM128: u8 = 8;
const UWOP_SAVE_XMM128_FAR: u8 = 9;

/// A register that was saved, so many bytes below the caller's frame.
struct Saved {
    xmm: bool,
    number: u8,
    below: u64,
}

/// Steps, as `UNWIND_INFO` has them.
#[derive(Default)]
struct Steps(Vec<u8>);

impl Steps {
    fn push(&mut self, step: u8, info: u8) {
        // The prologue is over wherever in a stretch one looks: its steps end at offset 0.
        self.0.extend([0, step | info << 4]);
    }

    /// A step on a multiple of `unit` bytes: in units if that fits 16 bits, else in bytes.
    fn push_scaled(&mut self, [near, far]: [(u8, u8); 2], bytes: u64, unit: u64) -> Option<()> {
        if !bytes.is_multiple_of(unit) {
            return None;
        }
        if let Ok(units) = u16::try_from(bytes / unit) {
            self.push(near.0, near.1);
            self.0.extend(units.to_le_bytes());
        } else {
            let bytes = u32::try_from(bytes).ok()?;
            self.push(far.0, far.1);
            self.0.extend(bytes.to_le_bytes());
        }
        Some(())
    }

    fn load(&mut self, saved: &Saved, at: u64) -> Option<()> {
        let (near, far, unit) = if saved.xmm {
            (UWOP_SAVE_XMM128, UWOP_SAVE_XMM128_FAR, 16)
        } else {
            (UWOP_SAVE_NONVOL, UWOP_SAVE_NONVOL_FAR, 8)
        };
        self.push_scaled([(near, saved.number), (far, saved.number)], at, unit)
    }

    fn pop(&mut self, bytes: u64) -> Option<()> {
        if bytes == 0 {
            return Some(());
        }
        match u8::try_from(bytes / 8) {
            Ok(words @ 1..=16) if bytes.is_multiple_of(8) => {
                self.push(UWOP_ALLOC_SMALL, words - 1);
                Some(())
            }
            _ => self.push_scaled([(UWOP_ALLOC_LARGE, 0), (UWOP_ALLOC_LARGE, 1)], bytes, 8),
        }
    }
}

/// The `UNWIND_INFO` of a stretch; `None` if it cannot be expressed.
fn unwind_info(row: &UnwindTableRow<usize>) -> Option<Vec<u8>> {
    let CfaRule::RegisterAndOffset { register, offset } = *row.cfa() else {
        return None;
    };
    let frame = u64::try_from(offset).ok()?;
    let saved = saved(row)?;
    let mut steps = Steps::default();
    let (mut base_register, mut scaled) = (0, 0);
    // What the saved registers' places count from, so many bytes below the frame.
    let mut base = frame;
    if register != RSP {
        base_register = *INTEGER.get(usize::from(register.0))?;
        // 0 stands for none.
        if base_register == 0 {
            return None;
        }
        let lowest = saved.iter().map(|saved| saved.below).max().unwrap_or(0);
        scaled = u8::try_from(lowest.saturating_sub(frame).div_ceil(16)).ok()?;
        if scaled > 15 {
            return None;
        }
        base += u64::from(scaled) * 16;
        steps.push(UWOP_SET_FPREG, 0);
    }
    for saved in &saved {
        steps.load(saved, base.checked_sub(saved.below)?)?;
    }
    // The return address stands below the frame.
    steps.pop(base.checked_sub(8)?)?;
    let count = u8::try_from(steps.0.len() / 2).ok()?;
    let mut info = vec![1, 0, count, base_register | scaled << 4];
    info.extend(steps.0);
    Some(info)
}

/// The registers that a stretch has saved; `None` if one is to be had otherwise.
fn saved(row: &UnwindTableRow<usize>) -> Option<Vec<Saved>> {
    let mut saved = Vec::new();
    for (register, rule) in row.registers() {
        let below = match rule {
            RegisterRule::Undefined | RegisterRule::SameValue => continue,
            // The caller's stack pointer is the frame.
            RegisterRule::ValOffset(0) if *register == RSP => continue,
            RegisterRule::Offset(offset) => u64::try_from(-*offset).ok()?,
            _ => return None,
        };
        match *register {
            RETURN_ADDRESS if below == 8 => {}
            RETURN_ADDRESS | RSP => return None,
            Register(number) if number < 16 => saved.push(Saved {
                xmm: false,
                number: INTEGER[usize::from(number)],
                below,
            }),
            Register(number) if (FIRST_XMM..FIRST_XMM + 16).contains(&number) => {
                saved.push(Saved {
                    xmm: true,
                    number: u8::try_from(number - FIRST_XMM).ok()?,
                    below,
                });
            }
            _ => return None,
        }
    }
    Some(saved)
}

#[cfg(test)]
#[path = "functions_tests.rs"]
mod tests;
