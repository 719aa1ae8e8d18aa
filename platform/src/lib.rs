//! `low2g-platform`: what an operating system must supply to low2g.
//!
//! Layers: this crate imports nothing of low2g. [`contract`] is the port
//! contract, [`linux`], [`freebsd`], [`macos`] and [`windows`] are backends, [`sim`] a simulated
//! kernel with one personality an operating system, on which the real backends run too.

pub mod contract;
mod errno;
pub mod error;
mod fork;
pub mod freebsd;
pub mod linux;
pub mod macos;
mod pages;
pub mod range;
mod regions;
pub mod sim;
pub mod unsupported;
mod view_set;
pub mod windows;

pub use contract::{Backing, Capabilities, Config, Holder, Platform, Protection, Region};
pub use error::{ClaimError, NoLowWindow, PlatformError};
pub use fork::at_fork;
pub use range::{AddrRange, align_down, align_up, is_aligned, to_u64, to_usize};

use std::sync::{Arc, OnceLock};

/// The one place that chooses the operating system.
mod choice {
    #[cfg(target_os = "linux")]
    pub(super) fn native() -> Result<std::sync::Arc<dyn crate::Platform>, crate::PlatformError> {
        Ok(std::sync::Arc::new(crate::linux::native()?))
    }

    #[cfg(target_os = "freebsd")]
    pub(super) fn native() -> Result<std::sync::Arc<dyn crate::Platform>, crate::PlatformError> {
        Ok(std::sync::Arc::new(crate::freebsd::native()?))
    }

    #[cfg(target_os = "macos")]
    pub(super) fn native() -> Result<std::sync::Arc<dyn crate::Platform>, crate::PlatformError> {
        Ok(std::sync::Arc::new(crate::macos::native()?))
    }

    #[cfg(windows)]
    pub(super) fn native() -> Result<std::sync::Arc<dyn crate::Platform>, crate::PlatformError> {
        Ok(std::sync::Arc::new(crate::windows::native()?))
    }

    #[cfg(not(any(
        target_os = "linux",
        target_os = "freebsd",
        target_os = "macos",
        windows
    )))]
    pub(super) use crate::unsupported::native;
}

/// The operating system that this process runs on, probed at the first call and shared after.
///
/// # Errors
/// The system refuses even the probing mappings, and the next call tries again; or there is no
/// backend for it.
pub fn native() -> Result<Arc<dyn Platform>, PlatformError> {
    static NATIVE: OnceLock<Arc<dyn Platform>> = OnceLock::new();
    if let Some(platform) = NATIVE.get() {
        return Ok(Arc::clone(platform));
    }
    let platform = choice::native()?;
    Ok(Arc::clone(NATIVE.get_or_init(|| platform)))
}
