//! Why a JIT did not get its memory.

use low2g_platform::AddrRange;

use crate::alloc::AllocError;
use crate::alloc::reach::SMALL_MODEL_END;
use crate::place::CodeModel;

/// Why a JIT did not get its memory.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum JitError {
    /// Absolute 32-bit fields would not hold all addresses of the allocator.
    #[error(
        "the {model} code model has absolute 32-bit addresses, but this allocator's addresses lie \
         in {window}, past 2 GiB: build it with the reach 2g, or compile for the large code model"
    )]
    AbsoluteReach {
        /// The code model.
        model: CodeModel,
        /// Where the allocator's blocks may lie.
        window: AddrRange,
    },
    /// Pc-relative fields would not reach from each address of the allocator to each other.
    #[error(
        "the {model} code model has pc-relative 32-bit addresses, but blocks of this allocator may \
         be {width:#x} bytes apart (in {window}), more than {limit:#x}: build it with the reach 2g, or \
         compile for the large code model",
        width = window.len(), limit = SMALL_MODEL_END
    )]
    RelativeReach {
        /// The code model.
        model: CodeModel,
        /// Where the allocator's blocks may lie.
        window: AddrRange,
    },
    /// The JIT writes code where it will run, and this process may not make such pages executable.
    #[error(
        "this JIT writes code at the address where it will run, but this process may not make \
         written memory executable (PR_SET_MDWE, SELinux execmem or a like policy): run it without \
         that policy, or use a JIT that takes two views of its code"
    )]
    SingleAddress,
    /// The allocator's addresses are a simulation's.
    #[error("the allocator's system is simulated: there is no memory at its addresses")]
    Simulated,
    /// A block without bytes.
    #[error("a block of 0 bytes was asked for: it has no address of its own; ask for 1 byte")]
    Empty,
    /// An alignment that is none.
    #[error("alignment {align} is not a power of two")]
    Alignment {
        /// What was asked for, in bytes.
        align: u64,
    },
    /// Branch protection that the pages cannot be given.
    #[error(
        "pages cannot be marked for branch target identification (BTI) here: compile without it"
    )]
    BranchProtection,
    /// The allocator found no address, or the system refused.
    #[error(transparent)]
    Alloc(#[from] AllocError),
}

impl JitError {
    /// The same in the terms of `std::io`, itself the cause.
    #[must_use]
    pub fn into_io(self) -> std::io::Error {
        use std::io::ErrorKind;
        let kind = match &self {
            Self::Empty
            | Self::Alignment { .. }
            | Self::AbsoluteReach { .. }
            | Self::RelativeReach { .. }
            | Self::Alloc(AllocError::BadRequest { .. }) => ErrorKind::InvalidInput,
            Self::SingleAddress | Self::Alloc(AllocError::Refused { .. }) => {
                ErrorKind::PermissionDenied
            }
            Self::Simulated | Self::BranchProtection => ErrorKind::Unsupported,
            Self::Alloc(_) => ErrorKind::OutOfMemory,
        };
        std::io::Error::new(kind, self)
    }
}
