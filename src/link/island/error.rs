//! Why an instruction cannot be moved to an island. Every error shows the instruction.

use std::fmt;

use iced_x86::{Formatter, Instruction, IntelFormatter};

/// An instruction as error messages show it: text, bytes and address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InsnText {
    /// Address of its first byte.
    pub ip: u64,
    /// Its encoding.
    pub bytes: Vec<u8>,
    /// Intel syntax; of a field that is not relocated yet it shows the old contents.
    pub text: String,
}

impl InsnText {
    pub(super) fn new(insn: &Instruction, bytes: &[u8]) -> Self {
        let mut text = String::new();
        IntelFormatter::new().format(insn, &mut text);
        Self {
            ip: insn.ip(),
            bytes: bytes.to_vec(),
            text,
        }
    }
}

impl fmt::Display for InsnText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` ({}) at {:#x}",
            self.text,
            Hex(&self.bytes),
            self.ip
        )
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            let gap = if i == 0 { "" } else { " " };
            write!(f, "{gap}{byte:02x}")?;
        }
        Ok(())
    }
}

/// Why an instruction that was decoded is not moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A 32-bit (or smaller) result would lose the upper half of a far address.
    #[error(
        "the operation is narrower than 64 bits and would cut the far address off; compile with -fPIC"
    )]
    Truncates,
    /// An immediate of an operation that has no register form.
    #[error("its immediate has no 64-bit register form")]
    Immediate,
    /// A displacement under `fs:` or `gs:` is an offset, not an address.
    #[error("its displacement is an offset from fs or gs, not an address")]
    Segment,
    /// The `addr32` prefix cuts every address to 32 bits.
    #[error("its address size is 32 bits (prefix 67)")]
    AddressSize,
    /// A vector of addresses, a tile or an MPX bound-table operand has no plain base.
    #[error("its memory operand is not a plain address (vector, tile or bound-table form)")]
    AddressForm,
    /// The stack pointer changes in a way an island cannot repeat safely.
    #[error("it changes the stack pointer")]
    StackPointer,
    /// A direct or far branch, or an interrupt; direct branches take stubs.
    #[error("it transfers control; a direct branch takes a stub, not an island")]
    ControlFlow,
    /// A PC-relative relocation on an absolute field, or the other way round.
    #[error(
        "the relocation's kind does not fit the field: rip-relative takes PC32, others 32 or 32S"
    )]
    Kind,
    /// Every register that may serve as scratch is used by the instruction itself.
    #[error("no scratch register is left")]
    NoScratch,
    /// An `rsp`-based operand leaves the range of a 32-bit displacement when adjusted.
    #[error("its rsp-based displacement does not fit 32 bits after adjustment by {0:#x}")]
    StackDisplacement(i32),
}

/// An island, or the jump to it, cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IslandError {
    /// The bytes are no instruction that is known (data in code, or an APX/REX2 encoding).
    #[error(
        "no instruction known at {ip:#x} ({}): data in code, or an APX encoding",
        Hex(bytes)
    )]
    Decode {
        /// Address of the first undecodable byte sequence.
        ip: u64,
        /// Up to 15 bytes from there.
        bytes: Vec<u8>,
    },
    /// Linear decoding reached the field, but no operand field lies exactly there.
    #[error("no 4-byte displacement or immediate lies at {field:#x}: decoding gives {insn}")]
    NoField {
        /// The instruction that covers the field.
        insn: InsnText,
        /// Address of the relocated field.
        field: u64,
    },
    /// `start`, `field` and the code do not lie in order.
    #[error("the field at offset {field:#x} does not lie in code from {start:#x} to {len:#x}")]
    OutOfCode {
        /// Offset where decoding would start.
        start: usize,
        /// Offset of the field.
        field: usize,
        /// Length of the code.
        len: usize,
    },
    /// No far field was given, or one twice.
    #[error("{count} far fields given for {insn}, 1 or 2 distinct ones needed")]
    Fields {
        /// The instruction.
        insn: InsnText,
        /// How many fields were given.
        count: usize,
    },
    /// The instruction cannot be moved.
    #[error("cannot move {insn} to an island: {why}")]
    Refused {
        /// The instruction.
        insn: InsnText,
        /// The reason.
        why: Refusal,
    },
    /// A rip-relative operand or jump of the island is out of its 32-bit reach.
    #[error(
        "{from:#x} cannot reach {to:#x} with a 32-bit displacement; place islands within 2 GiB"
    )]
    Range {
        /// Address of the referring instruction.
        from: u64,
        /// Address that it must reach.
        to: u64,
    },
    /// The instruction is shorter than the jump that replaces it.
    #[error("the instruction of {len} bytes at {ip:#x} has no room for a 5-byte jump")]
    TooShort {
        /// Address of the instruction.
        ip: u64,
        /// Its length in bytes.
        len: usize,
    },
    /// The encoder refused an instruction: a bug of this module, reported rather than hidden.
    #[error("cannot encode the island at {ip:#x}: {message}")]
    Encode {
        /// Address within the island.
        ip: u64,
        /// The encoder's words.
        message: String,
    },
}
