//! Section placer: sections with kinds and code model in, in-flight memory out.
//!
//! May use: `alloc`, `platform`.
//!
//! ```text
//! requests --(group)--> regions --(largest first)--> mappings --> working_mem --> finalize
//!   .text 1 MiB          region of its own, R-X
//!   .text 40 B, 96 B     one arena region, R-X          private memory, RW until finalize
//!   .rodata 200 B        one arena region, R--
//!   .bss 1.9 GiB         region of its own, RW-, never touched
//! ```
//!
//! Invariants: sections of different final access never share a page; no page is
//! ever writable and executable; dropping an [`InFlight`] gives everything back.

mod dry;
mod error;
mod finalized;
mod fixed;
mod group;
mod memory;
mod request;
mod take;

pub use error::PlaceError;
pub use finalized::Finalized;
pub use memory::{InFlight, RegionInfo, Slot};
pub use request::{CodeModel, Placer, SectionKind, SectionRequest};
