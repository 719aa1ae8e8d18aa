//! What the battery's tests share: objects written byte by byte, links of them through the
//! library, and programs run by the command-line tool.
//!
//! Objects come from [`elf`], a writer of our own, because most of what is tested here no
//! assembler would write: old contents of fields, `SHT_REL`, CREL, absurd headers.

pub(crate) mod ar;
pub(crate) mod dump;
pub(crate) mod elf;
pub(crate) mod link;
pub(crate) mod programs;
pub(crate) mod rng;
pub(crate) mod tool;
pub(crate) mod write;
