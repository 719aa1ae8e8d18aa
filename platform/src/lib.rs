//! `low2g-platform`: what an operating system must supply to low2g.
//!
//! Layers: this crate imports nothing of low2g. [`contract`] is the port
//! contract, `linux` the backend for Linux, `sim` a simulated kernel with one
//! personality an operating system, on which the real backends run too.

pub mod contract;
pub mod error;
pub mod range;

pub use contract::{Backing, Capabilities, Config, Holder, Platform, Protection, Region};
pub use error::{ClaimError, NoLowWindow, PlatformError};
pub use range::{AddrRange, align_down, align_up, to_u64, to_usize};
