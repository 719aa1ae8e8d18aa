//! The Windows backend, for x86-64.
//!
//! ```text
//! WindowsPlatform<S: Syscalls>   the port contract: this file
//!   probe     what the system allows, found once       claims    reservations and views held
//!   claim     VirtualAlloc here, VirtualAlloc2 within  views     sections with two views
//!   survey    VirtualQuery, also with names            access    protect, guard, discard, release
//! Syscalls = native (the running system) | sim::windows (the simulated one)
//! ```
//!
//! Everything but `native.rs` is safe code that compiles on every operating system.

pub mod abi;
mod access;
mod claim;
mod claims;
#[cfg(windows)]
mod native;
mod probe;
mod survey;
mod syscalls;
mod views;

#[cfg(windows)]
pub use native::{NativeSyscalls, native};
pub use syscalls::{MemoryInfo, SysResult, Syscalls, SystemInfo};

use crate::contract::{Backing, Config, Platform, Protection, Region};
use crate::error::{ClaimError, PlatformError};
use crate::pages;
use crate::range::{AddrRange, is_aligned};
use abi::Win32Error;
use claims::Claims;
use std::sync::Arc;

/// Windows, on the system `S`.
#[derive(Debug)]
pub struct WindowsPlatform<S: Syscalls> {
    sys: Arc<S>,
    config: Config,
    /// Addresses that a process may have at all.
    user: AddrRange,
    claims: Claims,
}

impl<S: Syscalls> WindowsPlatform<S> {
    /// The backend on `sys`, its capabilities probed now.
    ///
    /// # Errors
    /// The system tells nonsense about its addresses.
    pub fn new(sys: S) -> Result<Self, PlatformError> {
        let sys = Arc::new(sys);
        let info = sys.get_system_info();
        let user = AddrRange::new(info.first, info.last.saturating_add(1));
        let user = user.filter(|user| !user.is_empty()).ok_or_else(|| {
            let none = AddrRange::at(0, 0).expect("starts at 0");
            os_error("GetSystemInfo", none, Win32Error::INVALID_PARAMETER)
        })?;
        let config = probe::config(&sys, info, user);
        Ok(Self {
            sys,
            config,
            user,
            claims: Claims::default(),
        })
    }

    /// The system below, for this crate only: its calls trust their caller.
    pub(crate) fn syscalls(&self) -> &S {
        &self.sys
    }

    /// Asserts what every operation on pages asks of its range.
    fn check(&self, range: AddrRange) {
        pages::check(range, self.config.page_size);
    }

    /// As [`Self::check`], for what must begin at an address where mappings begin.
    fn check_claim(&self, range: AddrRange) {
        self.check(range);
        let granularity = self.config.granularity;
        assert!(
            is_aligned(range.start(), granularity),
            "{range} does not begin at a multiple of {granularity}"
        );
    }
}

/// A failed call, with the code in words.
fn os_error(call: &'static str, range: AddrRange, code: Win32Error) -> PlatformError {
    PlatformError {
        call,
        range,
        code: code.0,
        reason: code.to_string(),
    }
}

/// The system's bits for an access.
const fn page_bits(protection: Protection) -> u32 {
    match protection {
        Protection::None => abi::PAGE_NOACCESS,
        Protection::Read => abi::PAGE_READONLY,
        Protection::ReadWrite => abi::PAGE_READWRITE,
        Protection::ReadExecute => abi::PAGE_EXECUTE_READ,
    }
}

// SAFETY: a claim returns Ok only for a reservation or view that the system made in free address
// space (nothing here replaces) at an address that was compared with the one reported;
// `fill_random` fills all of the buffer or panics.
unsafe impl<S: Syscalls> Platform for WindowsPlatform<S> {
    fn config(&self) -> &Config {
        &self.config
    }

    fn is_simulated(&self) -> bool {
        self.sys.is_simulated()
    }

    fn survey(&self, within: AddrRange, out: &mut Vec<Region>) -> Result<(), PlatformError> {
        self.survey_into(within, out)
    }

    fn describe(&self, within: AddrRange) -> Result<Vec<Region>, PlatformError> {
        self.describe_within(within)
    }

    fn claim_exact(&self, range: AddrRange, protection: Protection) -> Result<(), ClaimError> {
        self.claim_private(range, protection)
    }

    fn claim_hinted(
        &self,
        hint: u64,
        len: u64,
        within: AddrRange,
        protection: Protection,
    ) -> Result<AddrRange, ClaimError> {
        self.claim_near_hint(hint, len, within, protection)
    }

    fn claim_low(
        &self,
        len: u64,
        within: AddrRange,
        protection: Protection,
    ) -> Result<AddrRange, ClaimError> {
        self.claim_anywhere_low(len, within, protection)
    }

    fn new_backing(&self, len: u64) -> Result<Box<dyn Backing>, PlatformError> {
        let range = AddrRange::at(0, len).expect("starts at 0");
        self.check(range);
        Ok(Box::new(views::Section::new(&self.sys, len)?))
    }

    fn claim_view_exact(
        &self,
        backing: &dyn Backing,
        offset: u64,
        range: AddrRange,
        protection: Protection,
    ) -> Result<(), ClaimError> {
        self.claim_view(backing, offset, range, protection)
    }

    unsafe fn populate(&self, range: AddrRange) -> Result<(), PlatformError> {
        self.populate_range(range)
    }

    unsafe fn protect(
        &self,
        range: AddrRange,
        protection: Protection,
    ) -> Result<(), PlatformError> {
        self.change_access(range, protection)
    }

    unsafe fn seal(&self, range: AddrRange) -> Result<(), PlatformError> {
        self.check(range);
        let code = Win32Error::CALL_NOT_IMPLEMENTED;
        Err(os_error("mseal (Windows has none)", range, code))
    }

    unsafe fn guard(&self, range: AddrRange) -> Result<(), PlatformError> {
        self.guard_range(range)
    }

    unsafe fn discard(&self, range: AddrRange) -> Result<(), PlatformError> {
        self.discard_range(range)
    }

    unsafe fn release(&self, range: AddrRange) -> Result<(), PlatformError> {
        self.release_range(range)
    }

    fn random(&self, buffer: &mut [u8]) {
        self.fill_random(buffer);
    }

    fn process(&self) -> u64 {
        self.sys.get_current_process_id().into()
    }

    fn flush_instruction_cache(&self, range: AddrRange) {
        self.sys.flush_instruction_cache(range.start(), range.len());
    }
}
