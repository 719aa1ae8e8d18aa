//! Islands: instructions moved out of line so that they reach far addresses.
//!
//! Small-model code names a symbol by a 32-bit field of an instruction. Where the symbol
//! lies far away (`stdout` in the C library), the instruction moves to an island in low
//! executable memory that forms the 64-bit address, and its place jumps there:
//!
//! ```text
//! place:  mov  stdout(%rip),%rdi        place:  jmp island; nop; nop
//!                                       island: movabs $stdout,%rdi
//!                                               mov (%rdi),%rdi
//!                                               jmp place+7
//! ```
//!
//! Where no register of the instruction can carry the address, a scratch register is
//! saved on the stack below the red zone. Registers, flags, the red zone and memory are
//! at the end as the instruction itself would leave them. The exception is r11 at calls
//! and jumps through far memory, which psABI 3.2.1 lets a call clobber. A moved call
//! leaves the original return address (the instruction after the place), so that unwind
//! and exception tables of the place hold once the callee runs; the processor's
//! return prediction is kept by a jump, but a shadow stack would not know the call.
//! A fault inside an island shows the island's address, and may show a scratch register.
//!
//! Invariants: pure functions on bytes, no process memory, no unsafe code. rsp never
//! rises above its value at the moved instruction before that instruction's own effect,
//! nothing is stored into the red zone, so a signal may arrive at any instruction. The
//! size of an island depends on the instruction's form alone, not on any address.

mod error;
mod forms;
mod plan;
mod scratch;
mod source;
mod steps;

pub use error::{InsnText, IslandError, Refusal};

use source::Source;

/// Length in bytes of the `jmp rel32` that replaces a moved instruction.
pub const JUMP_LEN: usize = 5;

/// How a 32-bit field stands for its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FieldKind {
    /// A rip-relative displacement (`R_X86_64_PC32`).
    PcRel,
    /// Zero-extended (`R_X86_64_32`).
    Abs32,
    /// Sign-extended (`R_X86_64_32S`).
    Abs32S,
}

/// A relocated field whose value does not fit its 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FarField {
    /// Offset in bytes of the field from the start of the instruction.
    pub offset: usize,
    /// How the field is read.
    pub kind: FieldKind,
    /// The 64-bit value wanted. For [`FieldKind::PcRel`] the absolute address that the
    /// operand denotes, that is `S + A + (instruction length - offset)`; otherwise `S + A`,
    /// the displacement that is added to base and index, or the immediate itself.
    pub target: u64,
}

impl FarField {
    /// The field of a relocation whose symbol value plus addend is `s_plus_a`, in an
    /// instruction of `len` bytes.
    ///
    /// The processor counts rip-relative operands from the instruction's end, the
    /// relocation from the field: an immediate after the field lies between.
    #[must_use]
    pub fn new(offset: usize, kind: FieldKind, s_plus_a: u64, len: usize) -> Self {
        let target = match kind {
            FieldKind::PcRel => s_plus_a.wrapping_add(len.saturating_sub(offset) as u64),
            FieldKind::Abs32 | FieldKind::Abs32S => s_plus_a,
        };
        Self {
            offset,
            kind,
            target,
        }
    }
}

/// What a 4-byte field of an instruction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldRole {
    /// The displacement of the memory operand.
    Displacement,
    /// An immediate operand.
    Immediate,
    /// The target of a direct call or jump, which takes a stub rather than an island.
    Branch,
}

/// An instruction found by [`instruction_at`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Located {
    /// Offset in bytes of the instruction from the start of the code.
    pub offset: usize,
    /// Its length in bytes.
    pub len: usize,
    /// Offset in bytes of the field from the start of the instruction.
    pub field: usize,
    /// What the field is.
    pub role: FieldRole,
}

/// The state of the stack from an island offset on, for unwind rows.
///
/// A canonical frame address that counts from rsp is `-rsp_delta` further from it than at
/// the moved instruction; all other rules stay, since scratch registers are caller-saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IslandRow {
    /// Offset in bytes from the start of the island.
    pub offset: usize,
    /// rsp minus its value before the moved instruction, in bytes.
    pub rsp_delta: i32,
    /// The moved call's return address has been stored, just below rsp's value before it.
    pub return_pushed: bool,
}

impl IslandRow {
    fn same_state(&self, other: &Self) -> bool {
        (self.rsp_delta, self.return_pushed) == (other.rsp_delta, other.return_pushed)
    }
}

/// Code that does what a moved instruction did, for one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Island {
    /// The island's instructions, for the address given.
    pub code: Vec<u8>,
    /// States of the stack by ascending offset; the first is at offset 0. Each holds up to
    /// the next.
    pub rows: Vec<IslandRow>,
}

/// Finds the instruction whose displacement or immediate lies exactly at `field`.
///
/// `code` begins at the address `code_ip`; decoding runs from `start`, a known start of an
/// instruction (a function symbol, an FDE). Fields need not be relocated yet. Only
/// 4-byte fields are found.
///
/// # Errors
/// [`IslandError::OutOfCode`], [`IslandError::Decode`] where the bytes on the way are no
/// instructions, and [`IslandError::NoField`] where no field lies exactly there.
pub fn instruction_at(
    code: &[u8],
    code_ip: u64,
    start: usize,
    field: usize,
) -> Result<Located, IslandError> {
    source::locate(code, code_ip, start, field)
}

/// Builds the island at `island_ip` for the instruction `insn` of the address `insn_ip`.
///
/// The contents of `fields` in `insn` are ignored; its other fields must be relocated.
///
/// # Errors
/// [`IslandError::Refused`] with the instruction and why it cannot move, [`IslandError::Range`]
/// where the island does not reach the place or a near operand, and those of bad arguments.
pub fn build(
    insn: &[u8],
    insn_ip: u64,
    fields: &[FarField],
    island_ip: u64,
) -> Result<Island, IslandError> {
    plan::plan(&Source::new(insn, insn_ip, fields)?)?.encode(island_ip)
}

/// The size in bytes of the island that [`build`] makes, wherever it is placed and
/// whatever the instruction's near fields and the far targets will be.
///
/// # Errors
/// As [`build`], but for [`IslandError::Range`].
pub fn size_bound(insn: &[u8], insn_ip: u64, fields: &[FarField]) -> Result<usize, IslandError> {
    let source = Source::new(insn, insn_ip, fields)?.with_neutral_near_fields();
    Ok(plan::plan(&source)?.encode(insn_ip)?.code.len())
}

/// The bytes for the place of a moved instruction: a jump to the island, then nops.
///
/// # Errors
/// [`IslandError::TooShort`] under five bytes, [`IslandError::Range`] beyond 2 GiB.
pub fn patch(insn_len: usize, insn_ip: u64, island_ip: u64) -> Result<Vec<u8>, IslandError> {
    if insn_len < JUMP_LEN {
        return Err(IslandError::TooShort {
            ip: insn_ip,
            len: insn_len,
        });
    }
    let from = insn_ip.wrapping_add(JUMP_LEN as u64);
    let distance = island_ip.wrapping_sub(from).cast_signed();
    let distance = i32::try_from(distance).map_err(|_| IslandError::Range {
        from: insn_ip,
        to: island_ip,
    })?;
    let mut bytes = vec![0x90; insn_len];
    bytes[0] = 0xe9;
    bytes[1..JUMP_LEN].copy_from_slice(&distance.to_le_bytes());
    Ok(bytes)
}
