//! Low memory for data.

use std::collections::HashMap;
use std::ffi::{c_char, c_void};

use low2g_platform::{to_u64, to_usize};
use parking_lot::Mutex;

use crate::alloc::{AllocError, Certificate, Kind, LowAllocator, Step};

use super::code::Code;
use super::handle::{self, Handle, kind};
use super::options;
use super::status::{Failure, guard, guard_status, low2g_status};

/// An allocator of memory below 2 GiB, or in the reach that it was given. Several threads may use
/// one at the same time.
pub type low2g_allocator = Handle<Allocator>;

/// What a `low2g_allocator` points to.
#[derive(Debug)]
pub struct Allocator {
    pub(super) low: LowAllocator,
    /// Executable blocks, by the address where they run.
    pub(super) code: Mutex<HashMap<u64, Code>>,
}

kind!(Allocator, "allocator", b"l2gAlloc");

/// The step of placement that found an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum low2g_step {
    /// A uniform draw over the whole reach.
    Draw = 0,
    /// A uniform pick among what a survey showed free.
    Survey = 1,
    /// A draw or pick that the system took as a hint.
    Hint = 2,
    /// The system's own choice: a weaker grade.
    Map32bit = 3,
    /// A random slot of an arena at a random address.
    Arena = 4,
    /// The lowest address that fits.
    FirstFit = 5,
    /// The address that the caller named.
    Fixed = 6,
}

/// How an address was chosen, and how hard it is to guess.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct low2g_certificate {
    /// At least this many bits for one who knows none of the live addresses.
    pub entropy_bits: f64,
    /// At least this many bits for one who knows all other live addresses.
    pub conditional_bits: f64,
    /// Start addresses that were possible.
    pub free_slots: u64,
    /// The step of placement that found it.
    pub step: low2g_step,
    /// Whether `free_slots` was counted for this very request.
    pub free_slots_exact: bool,
    /// Whether a seed decided: both bit counts are 0 then.
    pub seeded: bool,
}

impl From<Certificate> for low2g_certificate {
    fn from(certificate: Certificate) -> Self {
        Self {
            entropy_bits: certificate.entropy_bits,
            conditional_bits: certificate.conditional_bits,
            free_slots: certificate.free_slots,
            step: match certificate.step {
                Step::Draw => low2g_step::Draw,
                Step::Survey => low2g_step::Survey,
                Step::Hint => low2g_step::Hint,
                Step::Map32bit => low2g_step::Map32bit,
                Step::Arena => low2g_step::Arena,
                Step::FirstFit => low2g_step::FirstFit,
                Step::Fixed => low2g_step::Fixed,
            },
            free_slots_exact: certificate.free_slots_exact,
            seeded: certificate.seeded,
        }
    }
}

/// What an allocator holds and did. Bytes are whole pages.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct low2g_statistics {
    /// Mappings held now.
    pub live_mappings: u64,
    /// Bytes of those.
    pub live_bytes: u64,
    /// Bytes of arenas for small data blocks.
    pub data_arena_bytes: u64,
    /// Bytes of slots in use in those.
    pub data_slot_bytes: u64,
    /// Bytes of arenas for code, one view counted.
    pub code_arena_bytes: u64,
    /// Bytes of slots in use in those.
    pub code_slot_bytes: u64,
    /// Claims that the system was asked for.
    pub attempts: u64,
    /// Claims that met something in the way.
    pub collisions: u64,
    /// Surveys made.
    pub surveys: u64,
    /// Mappings made by each `low2g_step`.
    pub steps: [u64; 7],
    /// Bytes that the system refused to take back.
    pub stuck_bytes: u64,
}

/// What lies at an address.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct low2g_owned {
    /// Where it starts: the block's slot, or its pages (with their guards).
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// Whether it executes.
    pub executable: bool,
    /// Whether it is in use; a free slot of an arena is not.
    pub in_use: bool,
}

/// An allocator. `options` is NULL or `key=value` pairs joined by commas, in the command line's words:
/// `placement=randomized|first-fit|kernel`, `reach=2g|2g-full|4g|near:0xADDR|0xSTART-0xEND`, `seed=N`,
/// `min-entropy=BITS`, `min-conditional-entropy=BITS`, `preset=bare|default|hardened`,
/// `floor=ADDR`, `byte-limit=N`, `keep-hole=N`, `guards=yes|no`, `seal-code=yes|no`.
///
/// Returns NULL on failure; then `*error`, if `error` is not NULL, is a text to `free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_allocator_new(
    options: *const c_char,
    error: *mut *mut c_char,
) -> *mut low2g_allocator {
    let made = guard(error, || {
        // SAFETY: the caller's string.
        let options = unsafe { options::optional_text(options, "options") }?;
        Ok(handle::give(Allocator {
            low: options::allocator(options)?,
            code: Mutex::default(),
        }))
    });
    made.unwrap_or(std::ptr::null_mut())
}

/// Frees an allocator and every block that is still allocated. Sessions, modules and JIT memory made
/// from it stay as they are. NULL is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_allocator_free(allocator: *mut low2g_allocator) -> low2g_status {
    guard_status(std::ptr::null_mut(), || {
        if allocator.is_null() {
            return Ok(());
        }
        // SAFETY: the caller's handle, which no thread uses.
        drop(unsafe { handle::take(allocator) }?);
        Ok(())
    })
}

/// The addresses that blocks may have: the first, and the first past them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_allocator_window(
    allocator: *const low2g_allocator,
    start: *mut u64,
    end: *mut u64,
    error: *mut *mut c_char,
) -> low2g_status {
    guard_status(error, || {
        // SAFETY: the caller's handle.
        let window = unsafe { handle::get(allocator) }?.low.window();
        // SAFETY: the caller's places.
        unsafe { set(start, "start", window.start()) }?;
        // SAFETY: as above.
        unsafe { set(end, "end", window.end()) }
    })
}

/// Counters; cheap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_allocator_statistics(
    allocator: *const low2g_allocator,
    out: *mut low2g_statistics,
    error: *mut *mut c_char,
) -> low2g_status {
    guard_status(error, || {
        // SAFETY: the caller's handle.
        let counted = unsafe { handle::get(allocator) }?.low.statistics();
        let statistics = low2g_statistics {
            live_mappings: counted.live_mappings,
            live_bytes: counted.live_bytes,
            data_arena_bytes: counted.data_arena_bytes,
            data_slot_bytes: counted.data_slot_bytes,
            code_arena_bytes: counted.code_arena_bytes,
            code_slot_bytes: counted.code_slot_bytes,
            attempts: counted.attempts,
            collisions: counted.collisions,
            surveys: counted.surveys,
            steps: counted.steps,
            stuck_bytes: counted.stuck_bytes,
        };
        // SAFETY: the caller's place.
        unsafe { set(out, "out", statistics) }
    })
}

/// Gives back what is held for later: freed blocks that wait, empty arenas.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_allocator_trim(
    allocator: *const low2g_allocator,
    error: *mut *mut c_char,
) -> low2g_status {
    guard_status(error, || {
        // SAFETY: the caller's handle.
        unsafe { handle::get(allocator) }?.low.trim();
        Ok(())
    })
}

/// `size` bytes of any content at a multiple of `align`, a power of two. NULL on failure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_data_allocate(
    allocator: *const low2g_allocator,
    size: usize,
    align: usize,
    error: *mut *mut c_char,
) -> *mut c_void {
    let addr = guard(error, || {
        // SAFETY: the caller's handle.
        let low = &unsafe { handle::get(allocator) }?.low;
        Ok(low.allocate_raw(to_u64(size), alignment(align)?)?)
    });
    pointer(addr.unwrap_or(0))
}

/// As `low2g_data_allocate`, with all bytes zero. `certificate` is NULL or is told how the address
/// was chosen.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_data_allocate_zeroed(
    allocator: *const low2g_allocator,
    size: usize,
    align: usize,
    certificate: *mut low2g_certificate,
    error: *mut *mut c_char,
) -> *mut c_void {
    let addr = guard(error, || {
        // SAFETY: the caller's handle.
        let low = &unsafe { handle::get(allocator) }?.low;
        let (addr, chosen) = low.allocate_raw_certified(to_u64(size), alignment(align)?)?;
        if !certificate.is_null() {
            // SAFETY: the caller's place.
            unsafe { certificate.write(chosen.into()) };
        }
        Ok(addr)
    });
    pointer(addr.unwrap_or(0))
}

/// Makes a data block hold `size` bytes at a multiple of `align`, a power of two: where it lies if that
/// can be, else elsewhere, with what it held as far as that fits. Bytes that are added may hold
/// anything. A `block` of NULL is allocated. NULL on failure: the block is then as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_data_reallocate(
    allocator: *const low2g_allocator,
    block: *mut c_void,
    size: usize,
    align: usize,
    error: *mut *mut c_char,
) -> *mut c_void {
    let addr = guard(error, || {
        // SAFETY: the caller's handle.
        let low = &unsafe { handle::get(allocator) }?.low;
        let (size, align) = (to_u64(size), alignment(align)?);
        if block.is_null() {
            return Ok(low.allocate_raw(size, align)?);
        }
        let old = to_u64(block.addr());
        let has = low.usable_size(old).ok_or_else(|| not_ours(old))?;
        // SAFETY: resize_raw needs a block of the caller's, who gives up what lies beyond the new size.
        if old.is_multiple_of(align) && unsafe { low.resize_raw(old, size) }.is_some() {
            return Ok(old);
        }
        let new = low.allocate_raw(size, align)?;
        let kept = to_usize(has.min(size));
        // SAFETY: copy_to_nonoverlapping needs both sides valid for so many bytes and apart: the old
        // block may hold `has`, the new one `size`, and both are in use.
        unsafe { block.copy_to_nonoverlapping(pointer(new), kept) };
        // SAFETY: deallocate_raw needs that a block in use there is the caller's to free.
        unsafe { low.deallocate_raw(old) }?;
        Ok(new)
    });
    pointer(addr.unwrap_or(0))
}

/// Frees a data block. NULL is ignored; what is no block in use is an error and changes nothing. A
/// second free of an address that is in use again is not noticed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_data_free(
    allocator: *const low2g_allocator,
    block: *mut c_void,
    error: *mut *mut c_char,
) -> low2g_status {
    guard_status(error, || {
        // SAFETY: the caller's handle.
        let low = &unsafe { handle::get(allocator) }?.low;
        if block.is_null() {
            return Ok(());
        }
        // SAFETY: deallocate_raw needs that a block in use there is the caller's to free.
        unsafe { low.deallocate_raw(to_u64(block.addr())) }?;
        Ok(())
    })
}

/// Bytes that the data block may hold, at least those asked for; 0 if it is none in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_data_usable_size(
    allocator: *const low2g_allocator,
    block: *const c_void,
) -> usize {
    let size = guard(std::ptr::null_mut(), || {
        // SAFETY: the caller's handle.
        let low = &unsafe { handle::get(allocator) }?.low;
        let addr = to_u64(block.addr());
        let none = || not_ours(addr);
        low.usable_size(addr).ok_or_else(none)
    });
    to_usize(size.unwrap_or(0))
}

/// What of this allocator's lies at `addr`, which need not be a start.
/// `LOW2G_STATUS_NOT_IN_USE` if nothing does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_owner_of(
    allocator: *const low2g_allocator,
    addr: *const c_void,
    out: *mut low2g_owned,
    error: *mut *mut c_char,
) -> low2g_status {
    guard_status(error, || {
        // SAFETY: the caller's handle.
        let low = &unsafe { handle::get(allocator) }?.low;
        let addr = to_u64(addr.addr());
        let owned = low.owner_of(addr).ok_or_else(|| not_ours(addr))?;
        let owned = low2g_owned {
            start: owned.range.start(),
            size: owned.range.len(),
            executable: owned.kind == Kind::CodeArena,
            in_use: owned.in_use,
        };
        // SAFETY: the caller's place.
        unsafe { set(out, "out", owned) }
    })
}

/// The allocator takes it on trust.
fn alignment(align: usize) -> Result<u64, AllocError> {
    let value = to_u64(align);
    if align.is_power_of_two() {
        return Ok(value);
    }
    Err(AllocError::BadRequest {
        what: "alignment",
        value,
        expected: "a power of two",
    })
}

fn not_ours(addr: u64) -> Failure {
    Failure::new(
        low2g_status::NotInUse,
        format!("{addr:#x} is no block of this allocator in use"),
    )
}

/// An address of the allocator's as a pointer.
pub(super) fn pointer(addr: u64) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(to_usize(addr))
}

/// Writes a result.
///
/// # Safety
/// `out` is NULL or a place for a `T`.
pub(super) unsafe fn set<T>(out: *mut T, name: &str, value: T) -> Result<(), Failure> {
    if out.is_null() {
        return Err(Failure::null(name));
    }
    // SAFETY: writing needs a place for a T: the caller says so.
    unsafe { out.write(value) };
    Ok(())
}
