//! The macOS backend: x86-64 with low memory where the program was linked for it, and both
//! machines near given addresses.
//!
//! ```text
//! MacOsPlatform<S: Syscalls>   the port contract: this file
//!   probe     what the system allows, found once       pagezero   where __PAGEZERO ends
//!   claim     fixed claims, hints, the first hole; MAP_JIT
//!   views     mach_vm_remap of one object              access     protect, guard, discard, release
//!   survey    the map of the task, also with names
//! Syscalls = native (the running system) | sim::macos (the simulated one)
//! ```
//!
//! Everything but `native.rs` is safe code that compiles on every operating system.

pub mod abi;
mod access;
mod claim;
#[cfg(target_os = "macos")]
mod native;
pub(crate) mod pagezero;
mod probe;
mod survey;
mod syscalls;
mod views;

#[cfg(target_os = "macos")]
pub use native::{NativeSyscalls, native};
pub use syscalls::{Machine, RegionInfo, SysResult, Syscalls};

use crate::contract::{Backing, Config, Platform, Protection, Region};
use crate::error::{ClaimError, PlatformError};
use crate::pages;
use crate::range::AddrRange;
use crate::view_set::ViewSet;
use abi::KernReturn;
use std::sync::Arc;

/// macOS, on the kernel `S`.
#[derive(Debug)]
pub struct MacOsPlatform<S: Syscalls> {
    sys: Arc<S>,
    config: Config,
    /// What can never be mapped at the bottom: `__PAGEZERO`, or all below the first mapping.
    pagezero: AddrRange,
    /// Views of shared pages, which are discarded otherwise than private ones.
    views: ViewSet,
}

impl<S: Syscalls> MacOsPlatform<S> {
    /// The backend on `sys`, its capabilities probed now.
    ///
    /// # Errors
    /// The kernel does not tell the map of the task.
    pub fn new(sys: S) -> Result<Self, PlatformError> {
        let sys = Arc::new(sys);
        let pagezero = probe::pagezero(&*sys)?;
        let config = probe::config(&sys, pagezero);
        Ok(Self {
            sys,
            config,
            pagezero,
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
}

/// A failed call, with the code in words.
fn os_error(call: &'static str, range: AddrRange, code: KernReturn) -> PlatformError {
    PlatformError {
        call,
        range,
        code: code.0,
        reason: code.to_string(),
    }
}

/// The kernel's bits for an access.
const fn prot_bits(protection: Protection) -> i32 {
    match protection {
        Protection::None => abi::VM_PROT_NONE,
        Protection::Read => abi::VM_PROT_READ,
        Protection::ReadWrite => abi::VM_PROT_READ | abi::VM_PROT_WRITE,
        Protection::ReadExecute => abi::VM_PROT_READ | abi::VM_PROT_EXECUTE,
    }
}

// SAFETY: a claim returns Ok only for a mapping that the kernel made in free address space
// (VM_FLAGS_FIXED without OVERWRITE, VM_FLAGS_ANYWHERE, mmap without MAP_FIXED) at an address that
// was compared with the one reported; `fill_random` fills all of the buffer or panics.
unsafe impl<S: Syscalls> Platform for MacOsPlatform<S> {
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
        self.claim_lowest(len, within, protection)
    }

    fn claim_jit(&self, hint: u64, len: u64, within: AddrRange) -> Result<AddrRange, ClaimError> {
        self.claim_jit_pages(hint, len, within)
    }

    fn jit_write_protect(&self, protected: bool) {
        if self.config.capabilities.jit_pages {
            self.sys.jit_write_protect(protected);
        }
    }

    fn new_backing(&self, len: u64) -> Result<Box<dyn Backing>, PlatformError> {
        let range = AddrRange::at(0, len).expect("starts at 0");
        self.check(range);
        Ok(Box::new(views::Object::new(&self.sys, len)?))
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
        let code = KernReturn::NOT_SUPPORTED;
        Err(os_error("mseal (macOS has none)", range, code))
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

    fn flush_instruction_cache(&self, range: AddrRange) {
        self.sys.icache_invalidate(range.start(), range.len());
    }
}
