//! The port contract: what the layers above may ask of an operating system.
//!
//! An operating system's backend is a `Platform`; it is written against that
//! system's `Syscalls` trait, which the real kernel and the simulated one
//! (`crate::sim`) both implement. Differences that callers must know are
//! values in [`Config`], never a `cfg` above this crate.
//!
//! Invariants every backend keeps:
//! - a claim never replaces, covers or shortens a mapping that it did not make;
//! - the address that came back is checked: a claim is exactly where it says,
//!   and what came back elsewhere was released before the call returned;
//! - there is no [`Protection`] that is writable and executable.

use std::sync::atomic::AtomicU64;

use crate::error::{ClaimError, NoLowWindow, PlatformError};
use crate::range::AddrRange;

/// Access to a mapping. Writable and executable at once does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protection {
    /// No access: reserved address space, guards, the anchor page.
    None,
    /// Read.
    Read,
    /// Read and write.
    ReadWrite,
    /// Read and execute.
    ReadExecute,
}

/// What this system and process allow; all values fixed when the backend is made.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes of a page: the unit of protection. A power of two.
    pub page_size: u64,
    /// Bytes between addresses at which a mapping may start (64 KiB on Windows). A power of two, at least a page.
    pub granularity: u64,
    /// Addresses below 4 GiB where user mappings may lie at all (`[64 KiB, 4 GiB)` on
    /// Linux), or why there are none.
    pub low_window: Result<AddrRange, NoLowWindow>,
    /// Highest user address plus one: the bound for `Reach::near` and write views.
    pub user_end: u64,
    /// What can be asked for.
    pub capabilities: Capabilities,
}

/// Optional powers of a system, as values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// [`Platform::claim_exact`] works (`MAP_FIXED_NOREPLACE`, `MAP_FIXED|MAP_EXCL`, `VirtualAlloc`).
    pub exact_claims: bool,
    /// [`Platform::claim_low`] works (`MAP_32BIT`, `VirtualAlloc2`).
    pub low_claims: bool,
    /// Two views of the same pages ([`Platform::new_backing`]).
    pub second_views: bool,
    /// Private writable memory may become executable later (false under `PR_SET_MDWE`, ACG).
    pub protect_to_execute: bool,
    /// [`Platform::release`] of part of a claim frees its addresses at once (not on Windows, where
    /// they come free with the claim's last part).
    pub partial_release: bool,
    /// [`Platform::guard`] works inside a mapping without splitting it (`MADV_GUARD_INSTALL`).
    pub guard_in_place: bool,
    /// [`Platform::seal`] works (`mseal`).
    pub seal: bool,
    /// [`Platform::claim_jit`] works (`MAP_JIT` on arm64 macOS).
    pub jit_pages: bool,
}

/// One occupied stretch of address space, as a survey saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Where.
    pub range: AddrRange,
    /// What holds it, as far as the system tells.
    pub holder: Holder,
    /// Path or bracketed name that the system gives (`[heap]`, `/usr/lib/libc.so.6`); empty if it gives none.
    /// Filled only by [`Platform::describe`]; [`Platform::survey`] leaves it empty because it is slow to get.
    pub name: String,
    /// `rwxp`-style access string; only from [`Platform::describe`].
    pub access: String,
}

/// What kind of thing holds a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// The main program's segments.
    Executable,
    /// The brk heap, and the room kept for it to grow.
    Brk,
    /// A stack, and the room kept for it to grow.
    Stack,
    /// A shared library or another mapped file.
    Library,
    /// Other mapped memory.
    Mapping,
    /// The system or this crate itself: never free, and no memory (`__PAGEZERO`,
    /// `KUSER_SHARED_DATA`, vsyscall, the anchor page).
    System,
    /// Not known: [`Platform::survey`] does not tell kinds apart, except room it adds itself.
    Unknown,
}

/// Pages that may be mapped more than once (a memfd, a section object). Made by
/// [`Platform::new_backing`]; dropping it closes the descriptor, views stay.
pub trait Backing: std::fmt::Debug + Send + Sync {
    /// Bytes, a multiple of the page size.
    fn len(&self) -> u64;
    /// Whether it has no bytes (never, for one that `new_backing` made).
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// For the backend that made it to find its own type again.
    fn as_any(&self) -> &dyn std::any::Any;
}

/// An operating system, or a simulated one.
///
/// All lengths are in bytes and must be non-zero multiples of the page size;
/// all starts must be multiples of the page size (claims: of the granularity).
/// A breach is a bug above and asserts.
///
/// # Safety
/// Callers hand out memory on the word of an implementation: a claim that
/// returned `Ok` must name address space that nobody else had and that stays
/// the caller's until released, and `random` must fill the whole buffer.
/// (The simulated system satisfies it trivially: it has no memory to touch,
/// and says so in [`Platform::is_simulated`].)
pub unsafe trait Platform: std::fmt::Debug + Send + Sync {
    /// What this system allows.
    fn config(&self) -> &Config;

    /// Whether addresses claimed here are only numbers, not memory of this process.
    fn is_simulated(&self) -> bool {
        false
    }

    /// Replaces `out` by the occupied regions that overlap `within`, clipped to it, ascending, not overlapping, touching
    /// ones possibly merged. It includes the room kept clear for brk and stacks to grow
    /// (as regions of their own with that holder). Names are empty; the fast way.
    ///
    /// # Errors
    /// The system's map could not be read.
    fn survey(&self, within: AddrRange, out: &mut Vec<Region>) -> Result<(), PlatformError>;

    /// As [`Platform::survey`], with names, kinds and access: for pictures and error texts; may be slow.
    ///
    /// # Errors
    /// The system's map could not be read.
    fn describe(&self, within: AddrRange) -> Result<Vec<Region>, PlatformError>;

    /// Maps fresh zero-filled private memory at exactly `range`, or nothing.
    ///
    /// # Errors
    /// [`ClaimError::Occupied`] if any page of it is taken (try elsewhere); anything else means stop.
    fn claim_exact(&self, range: AddrRange, protection: Protection) -> Result<(), ClaimError>;

    /// Maps fresh memory inside `within`, at `hint` if that is free, else where the system likes
    /// (Linux: `MAP_32BIT` with a hint; elsewhere a verified hint). What came back outside
    /// `within` is released and reported as [`ClaimError::Occupied`].
    ///
    /// # Errors
    /// As [`Platform::claim_exact`].
    fn claim_hinted(
        &self,
        hint: u64,
        len: u64,
        within: AddrRange,
        protection: Protection,
    ) -> Result<AddrRange, ClaimError>;

    /// Maps fresh memory below 2 GiB wherever the system likes (`MAP_32BIT` without a hint),
    /// aligned to the granularity, inside `within`.
    ///
    /// # Errors
    /// As [`Platform::claim_exact`]; [`ClaimError::Occupied`] if it came back outside `within`.
    fn claim_low(
        &self,
        len: u64,
        within: AddrRange,
        protection: Protection,
    ) -> Result<AddrRange, ClaimError>;

    /// Maps fresh memory near `hint`, inside `within`, that each thread sees either writable or
    /// executable, never both, as it last chose with [`Platform::jit_write_protect`]; at first executable.
    ///
    /// # Errors
    /// As [`Platform::claim_hinted`]; [`ClaimError::Unsupported`] where there is no such memory.
    fn claim_jit(&self, hint: u64, len: u64, within: AddrRange) -> Result<AddrRange, ClaimError> {
        let _ = (hint, len, within);
        Err(ClaimError::Unsupported {
            call: "mmap(MAP_JIT)",
        })
    }

    /// Makes all memory of [`Platform::claim_jit`] executable (true) or writable (false) for the
    /// calling thread; nothing where there is none.
    fn jit_write_protect(&self, protected: bool) {
        let _ = protected;
    }

    /// Pages that can have two views, `len` bytes, zero-filled, not yet populated.
    ///
    /// # Errors
    /// The system refuses (no memfd, a limit), with the call and its code.
    fn new_backing(&self, len: u64) -> Result<Box<dyn Backing>, PlatformError>;

    /// Maps `range.len()` bytes of `backing` from `offset`, a multiple of the granularity, at exactly `range`, never replacing.
    /// A [`Protection::ReadExecute`] view can never be made writable again where the system
    /// offers that (Linux: mapped from a read-only reopening).
    ///
    /// # Errors
    /// As [`Platform::claim_exact`].
    fn claim_view_exact(
        &self,
        backing: &dyn Backing,
        offset: u64,
        range: AddrRange,
        protection: Protection,
    ) -> Result<(), ClaimError>;

    /// Populates every page of `range` (writable) so that a full system is an error now
    /// rather than a signal at first touch.
    ///
    /// # Errors
    /// There is no memory for it.
    ///
    /// # Safety
    /// Every page of `range` is the caller's: claimed here, not yet released, and writable.
    unsafe fn populate(&self, range: AddrRange) -> Result<(), PlatformError>;

    /// Changes the access of whole pages that the caller claimed.
    ///
    /// # Errors
    /// The system refuses (policy, limits). If `range` covers more than one claim, those before
    /// the one that was refused may have changed.
    ///
    /// # Safety
    /// Every page of `range` is the caller's: claimed here and not yet released. Nothing that
    /// uses those pages in a way the new access forbids may do so afterwards.
    unsafe fn protect(&self, range: AddrRange, protection: Protection)
    -> Result<(), PlatformError>;

    /// Makes access, place and existence of a claimed range final until the process ends (`mseal`).
    ///
    /// # Errors
    /// Not supported, or refused.
    ///
    /// # Safety
    /// Every page of `range` is the caller's: claimed here and not yet released.
    unsafe fn seal(&self, range: AddrRange) -> Result<(), PlatformError>;

    /// Makes pages inside a claimed private range inaccessible and frees what they held,
    /// without splitting the mapping where the system can.
    ///
    /// # Errors
    /// The system refuses.
    ///
    /// # Safety
    /// Every page of `range` is the caller's: claimed here and not yet released. Nothing refers
    /// to what they held.
    unsafe fn guard(&self, range: AddrRange) -> Result<(), PlatformError>;

    /// Gives the pages' memory back, keeps the address space; private pages read as zero afterwards.
    ///
    /// # Errors
    /// The system refuses.
    ///
    /// # Safety
    /// Every page of `range` is the caller's: claimed here and not yet released. Nothing relies
    /// on what they held; other views of the same backing lose it too.
    unsafe fn discard(&self, range: AddrRange) -> Result<(), PlatformError>;

    /// Gives claimed address space back. May cover part of a claim, or of several: the part's memory
    /// is freed and any access to it faults; its addresses may be others' at once, or, without
    /// [`Capabilities::partial_release`], when the last part of the claim goes.
    ///
    /// # Errors
    /// The system refuses (`max_map_count` on a split): the range is then still mapped.
    ///
    /// # Safety
    /// Every page of `range` is the caller's: claimed here and not yet released. Nothing refers
    /// to it any more; from here on it may be anybody's.
    unsafe fn release(&self, range: AddrRange) -> Result<(), PlatformError>;

    /// Fills `buffer` with random bytes fit for a CSPRNG's seed. Never fails: a system without
    /// randomness is one that this must not run on (asserts).
    fn random(&self, buffer: &mut [u8]);

    /// A number that differs in this process and in every process that forked off it; cheap
    /// enough to be asked before each random number.
    fn process(&self) -> u64;

    /// A word that says what `process` says, and something else in a process that was forked off and
    /// has not asked; `None` if this system has none.
    fn process_word(&self) -> Option<&'static AtomicU64> {
        None
    }

    /// Has every core that runs a thread of this process execute a serializing instruction, so that
    /// none runs instructions it fetched before, which is a full memory barrier on each of them too;
    /// says whether it did. False where the system has no
    /// call for that, or refuses it.
    fn serialize_cores(&self) -> bool {
        false
    }

    /// Makes code just written at `range` visible to instruction fetch on this core (nothing on x86-64).
    fn flush_instruction_cache(&self, range: AddrRange);
}
