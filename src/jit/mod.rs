//! Faces for other people's JITs: low2g as the memory manager of a compiler that is somebody else's.
//!
//! May use: `link`, `place`, `alloc`, `platform`.
//!
//! ```text
//!   cranelift    a cranelift_jit::JITMemoryProvider (feature `cranelift`)
//!   llvm         sections for LLVM's RuntimeDyld (MCJIT, ORC)
//!       |
//!   RoundMemory  blocks written at the address where they will run, finalized in rounds
//!   check_reach  whether an allocator's addresses serve a code model
//! ```

mod error;
mod model;
mod round;

pub mod llvm;

#[cfg(feature = "cranelift")]
pub mod cranelift;

pub use crate::place::{CodeModel, SectionKind};
pub use error::JitError;
pub use model::{Relocations, check_reach};
pub use round::{RoundMemory, RoundRegion};
