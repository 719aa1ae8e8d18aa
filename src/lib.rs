//! low2g: randomized memory below 2 GiB, and a relocation engine that loads
//! small-code-model x86-64 ELF objects there.
//!
//! Layers, imports point down only: `cli`, [`capi`], [`jit`] -> [`link`] -> [`place`] -> [`alloc`] -> [`platform`].
//!
//! Start with [`link::Session`] to load objects, with [`alloc::LowAllocator`] for memory.

pub use low2g_platform as platform;
pub mod alloc;
pub mod capi;
#[cfg(test)]
mod dice;
pub mod jit;
pub mod link;
pub mod place;

/// The README's samples are run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
