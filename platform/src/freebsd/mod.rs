//! The FreeBSD backend.
//!
//! ```text
//! FreeBsdPlatform<S: Syscalls>   the port contract: this file
//!   probe     what the kernel allows, found once
//!   claim     MAP_FIXED|MAP_EXCL, hints, MAP_32BIT      views    SHM_ANON objects with two views
//!   survey    the map of the process (vmmap: its records), the room of brk
//!   describe  the same with names and kinds             access   protect, guard, discard, release
//!   limits    which limit an ENOMEM means
//! Syscalls = native (the running kernel) | sim::freebsd (the simulated one)
//! ```
//!
//! Everything but `native.rs` is safe code that compiles on every operating system.

pub mod abi;
mod access;
mod claim;
mod describe;
mod limits;
#[cfg(target_os = "freebsd")]
mod native;
mod probe;
mod survey;
mod syscalls;
mod views;
pub(crate) mod vmmap;

#[cfg(target_os = "freebsd")]
pub use native::{NativeSyscalls, native};
pub use syscalls::{SysResult, Syscalls};

use crate::contract::{Backing, Config, Platform, Protection, Region};
use crate::error::{ClaimError, PlatformError};
use crate::pages;
use crate::range::AddrRange;
use crate::view_set::ViewSet;
use abi::Errno;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// What a user of the backend may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes above the brk heap that surveys show as held, so that it can grow (128 MiB).
    pub brk_room: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            brk_room: 128 << 20,
        }
    }
}

/// FreeBSD, on the kernel `S`.
#[derive(Debug)]
pub struct FreeBsdPlatform<S: Syscalls> {
    sys: Arc<S>,
    options: Options,
    config: Config,
    /// Whether `MAP_FIXED|MAP_EXCL` fails over a mapping, as it must.
    exclusive: bool,
    /// Whether `mmap` takes `PROT_MAX`.
    prot_max: bool,
    /// Views of shared objects: their pages are discarded otherwise than private ones.
    views: ViewSet,
}

impl<S: Syscalls> FreeBsdPlatform<S> {
    /// The backend on `sys`, its capabilities probed now.
    ///
    /// # Errors
    /// The kernel refuses even the probing mappings.
    pub fn new(sys: S, options: Options) -> Result<Self, PlatformError> {
        let probed = probe::probe(&sys)?;
        Ok(Self {
            sys: Arc::new(sys),
            options,
            config: probed.config,
            exclusive: probed.exclusive,
            prot_max: probed.prot_max,
            views: ViewSet::default(),
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

    /// Protection bits with the most that the mapping may ever have, where the kernel takes it.
    const fn with_max(&self, prot: i32, most: i32) -> i32 {
        if self.prot_max {
            prot | abi::prot_max(most)
        } else {
            prot
        }
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

/// Repeats a call that a signal interrupted.
fn retry<T>(mut call: impl FnMut() -> SysResult<T>) -> SysResult<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}

// SAFETY: a claim returns Ok only for a mapping that the kernel made in free address space
// (MAP_EXCL, or a hint without MAP_FIXED) at an address that was compared with the one reported;
// `fill_random` fills all of the buffer or panics.
unsafe impl<S: Syscalls> Platform for FreeBsdPlatform<S> {
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
        Ok(Box::new(self.new_object(len)?))
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
        Err(os_error("mseal (FreeBSD has none)", range, Errno::ENOSYS))
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

    fn flush_instruction_cache(&self, range: AddrRange) {
        self.sys.flush_instruction_cache(range.start(), range.len());
    }
}
