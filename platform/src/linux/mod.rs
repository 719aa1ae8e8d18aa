//! The Linux backend.
//!
//! ```text
//! LinuxPlatform<S: Syscalls>     the port contract: this file
//!   probe     what the kernel allows, found once
//!   claim     exact, hinted and MAP_32BIT claims       anchor   the page below all blocks
//!   views     memfds with two views                    access   protect, guard, discard, release
//!   survey    the map of the process, fast             describe the same with names and kinds
//!   rooms     where brk and the stack may grow         limits   which limit an ENOMEM means
//! Syscalls = native (the running kernel) | sim::linux (the simulated one)
//! ```
//!
//! Everything but `native.rs` is safe code that compiles on every operating system.

pub mod abi;
mod access;
mod anchor;
mod claim;
mod describe;
mod files;
mod limits;
mod maps_text;
#[cfg(target_os = "linux")]
mod native;
mod probe;
mod rooms;
mod survey;
mod syscalls;
mod views;

#[cfg(target_os = "linux")]
pub use native::{NativeSyscalls, native};
pub use syscalls::{MapLine, SysResult, Syscalls};

use crate::contract::{Backing, Config, Platform, Protection, Region};
use crate::error::{ClaimError, PlatformError};
use crate::pages;
use crate::range::AddrRange;
use abi::Errno;
use probe::Exactness;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock};

/// What a user of the backend may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes above the brk heap that surveys show as held, so that malloc can grow (128 MiB).
    pub brk_room: u64,
    /// Whether to keep a page at the bottom of the low window, which makes releases cheap.
    pub anchor: bool,
    /// Whether surveys may use the `PROCMAP_QUERY` ioctl where the kernel has it.
    pub procmap_query: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            brk_room: 128 << 20,
            anchor: true,
            procmap_query: true,
        }
    }
}

/// Linux, on the kernel `S`.
#[derive(Debug)]
pub struct LinuxPlatform<S: Syscalls> {
    sys: Arc<S>,
    options: Options,
    config: Config,
    exactness: Exactness,
    procmap_query: bool,
    populate: bool,
    anchor: OnceLock<Option<AddrRange>>,
    /// Regions that the last survey saw: decides how the next one reads the map.
    last_survey: AtomicUsize,
}

impl<S: Syscalls> LinuxPlatform<S> {
    /// The backend on `sys`, its capabilities probed now.
    ///
    /// # Errors
    /// The kernel refuses even the probing mappings.
    pub fn new(sys: S, options: Options) -> Result<Self, PlatformError> {
        let probed = probe::probe(&sys, &options)?;
        Ok(Self {
            sys: Arc::new(sys),
            options,
            config: probed.config,
            exactness: probed.exactness,
            procmap_query: probed.procmap_query,
            populate: probed.populate,
            anchor: OnceLock::new(),
            last_survey: AtomicUsize::new(0),
        })
    }

    /// The kernel below, for this crate only: its calls trust their caller.
    pub(crate) fn syscalls(&self) -> &S {
        &self.sys
    }

    /// Asserts what every operation on pages asks of its range.
    fn check(&self, range: AddrRange) {
        pages::check(range, self.config.page_size);
    }
}

impl<S: Syscalls> Drop for LinuxPlatform<S> {
    fn drop(&mut self) {
        self.drop_anchor();
    }
}

/// A failed call, with the code in words.
fn os_error(call: &'static str, range: AddrRange, errno: Errno) -> PlatformError {
    PlatformError {
        call,
        range,
        code: errno.0,
        reason: errno.to_string(),
    }
}

/// The kernel's bits for an access.
const fn prot_bits(protection: Protection) -> i32 {
    match protection {
        Protection::None => abi::PROT_NONE,
        Protection::Read => abi::PROT_READ,
        Protection::ReadWrite => abi::PROT_READ | abi::PROT_WRITE,
        Protection::ReadExecute => abi::PROT_READ | abi::PROT_EXEC,
    }
}

// SAFETY: a claim returns Ok only for a mapping that the kernel made in free address space
// (never MAP_FIXED) at an address that was compared with the one reported; `fill_random` fills
// all of the buffer or panics.
unsafe impl<S: Syscalls> Platform for LinuxPlatform<S> {
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
        Ok(Box::new(self.new_memfd(len)?))
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
        self.seal_range(range)
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
        self.sys.process()
    }

    fn process_word(&self) -> Option<&'static AtomicU64> {
        self.sys.process_word()
    }

    fn serialize_cores(&self) -> bool {
        self.serialize_all_cores()
    }

    fn flush_instruction_cache(&self, range: AddrRange) {
        self.sys.flush_instruction_cache(range.start(), range.len());
    }
}
