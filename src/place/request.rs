//! What is asked of the placer.

use low2g_platform::{AddrRange, Protection};

use crate::alloc::{LowAllocator, Reach};

use super::error::PlaceError;
use super::memory::InFlight;

/// Final access of a section's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SectionKind {
    /// Read and execute.
    Code,
    /// Read; also what is only relocated (`.data.rel.ro`, the GOT).
    ReadOnly,
    /// Read and write.
    Data,
}

impl SectionKind {
    /// The final access in the manner of `ls`.
    #[must_use]
    pub const fn access(self) -> &'static str {
        match self {
            Self::Code => "r-x",
            Self::ReadOnly => "r--",
            Self::Data => "rw-",
        }
    }

    /// The access that [`InFlight::finalize`] gives.
    #[must_use]
    pub const fn protection(self) -> Protection {
        match self {
            Self::Code => Protection::ReadExecute,
            Self::ReadOnly => Protection::Read,
            Self::Data => Protection::ReadWrite,
        }
    }
}

/// Code model of what is placed (psABI, "Code Models"). An input, never guessed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CodeModel {
    /// All symbols below 2 GiB - 16 MiB.
    #[default]
    Small,
    /// As small; sections marked `SHF_X86_64_LARGE` may be anywhere.
    Medium,
    /// No promise; low placement serves it as well.
    Large,
}

impl std::fmt::Display for CodeModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
        })
    }
}

impl std::str::FromStr for CodeModel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "small" => Ok(Self::Small),
            "medium" => Ok(Self::Medium),
            "large" => Ok(Self::Large),
            "kernel" => Err(
                "the kernel code model needs the top 2 GiB of the address space, which no process has"
                    .to_owned(),
            ),
            other => Err(format!(
                "code model {other} is none of small, medium, large"
            )),
        }
    }
}

/// One section to place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionRequest {
    /// Final access.
    pub kind: SectionKind,
    /// Bytes; 0 gives an address without memory.
    pub size: u64,
    /// A power of two, in bytes.
    pub align: u64,
    /// No bytes to copy: stays untouched zero pages.
    pub zero_fill: bool,
    /// Need not lie within reach of the others (`SHF_X86_64_LARGE` under the medium model).
    pub anywhere: bool,
    /// Exactly this address instead of a drawn one.
    pub at: Option<u64>,
}

/// Where sections are to lie, and whether for real.
#[derive(Clone, Debug)]
pub enum Placer {
    /// Memory of this process.
    Mapped {
        /// Gives the addresses and the memory.
        allocator: LowAllocator,
        /// Narrower than the allocator's own reach, if some.
        reach: Option<Reach>,
        /// Refuse a region with fewer bits than this.
        min_entropy: Option<f64>,
    },
    /// Addresses that are not mapped; bytes are kept in buffers.
    DryRun {
        /// Drawn addresses lie here.
        window: AddrRange,
        /// Seed of the draws.
        seed: u64,
    },
}

impl Placer {
    /// Places `requests`: the largest regions first, all or nothing.
    ///
    /// # Errors
    /// A request that cannot be served, by its index.
    pub fn place(&self, requests: &[SectionRequest]) -> Result<InFlight, PlaceError> {
        let mut memory = InFlight::new(self.clone(), false);
        memory.extend(requests)?;
        Ok(memory)
    }

    /// As [`place`](Self::place), and every code section gets pages of its own at an address
    /// drawn for it alone: with `-ffunction-sections`, every function. Costs a page of memory and
    /// a mapping a section (Linux allows a process 65,530 mappings by default).
    ///
    /// # Errors
    /// A request that cannot be served, by its index.
    pub fn place_scattered(&self, requests: &[SectionRequest]) -> Result<InFlight, PlaceError> {
        let mut memory = InFlight::new(self.clone(), true);
        memory.extend(requests)?;
        Ok(memory)
    }
}
