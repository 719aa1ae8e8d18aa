//! The callbacks of LLVM's C API: of `LLVMCreateSimpleMCJITMemoryManager` and, from LLVM 16 on, of
//! `LLVMOrcCreateRTDyldObjectLinkingLayerWithMCJITMemoryManagerLikeCallbacks`. Their signatures are those of
//! llvm-c/ExecutionEngine.h and llvm-c/OrcEE.h; no header of LLVM's is needed here.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr::null_mut;

use low2g_platform::to_u64;

use crate::jit::llvm::SectionMemory;
use crate::jit::{CodeModel, Relocations, SectionKind};

use super::allocator::{low2g_allocator, low2g_certificate, set};
use super::handle::{self, Handle, kind};
use super::status::{Failure, guard, guard_status, low2g_status};

/// Section memory for LLVM: what its callbacks take as their first argument.
pub type low2g_llvm_memory = Handle<LlvmMemory>;

/// What a `low2g_llvm_memory` points to.
#[derive(Debug)]
pub struct LlvmMemory(SectionMemory);

kind!(LlvmMemory, "LLVM memory", b"l2gLLVMm");

/// What the JIT compiles for. The memory manager cannot see it, so it must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum low2g_code_model {
    /// Small, with the static relocation model (MCJIT's default): absolute 32-bit addresses.
    Small = 0,
    /// Medium, static.
    Medium = 1,
    /// Large: 64-bit addresses; any reach serves.
    Large = 2,
    /// Small, with the PIC relocation model: 32-bit distances; any reach of less than 2 GiB serves.
    SmallPic = 3,
}

/// A `low2g_code_model` as C gives it: any number.
pub type CodeModelValue = c_uint;

fn model(value: CodeModelValue) -> Result<(CodeModel, Relocations), Failure> {
    match value {
        0 => Ok((CodeModel::Small, Relocations::Absolute)),
        1 => Ok((CodeModel::Medium, Relocations::Absolute)),
        2 => Ok((CodeModel::Large, Relocations::Absolute)),
        3 => Ok((CodeModel::Small, Relocations::PcRelative)),
        other => Err(Failure::invalid(format!(
            "code model {other} is no low2g_code_model"
        ))),
    }
}

/// Memory from `allocator` for code of `model`, to be given to
/// `LLVMCreateSimpleMCJITMemoryManager`, or to ORC's layer as the context of contexts. It may outlive
/// the allocator's handle. NULL on failure (`LOW2G_STATUS_REACH_TOO_WIDE` if the allocator's reach
/// does not serve the model), and low2g_last_error tells why.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_llvm_memory_new(
    allocator: *const low2g_allocator,
    model: CodeModelValue,
) -> *mut low2g_llvm_memory {
    let made = guard(null_mut(), || {
        // SAFETY: the caller's handle.
        let low = unsafe { handle::get(allocator) }?.low.clone();
        let (model, relocations) = self::model(model)?;
        let memory = SectionMemory::new(low, model, relocations)?;
        Ok(handle::give(LlvmMemory(memory)))
    });
    made.unwrap_or(null_mut())
}

/// `LLVMMemoryManagerAllocateCodeSectionCallback`. NULL on failure, which LLVM reports as a fatal
/// error; in a context of ORC's, ordinary memory instead, and `low2g_llvm_finalize_memory` fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_llvm_allocate_code_section(
    opaque: *mut c_void,
    size: usize,
    alignment: c_uint,
    section_id: c_uint,
    section_name: *const c_char,
) -> *mut u8 {
    // SAFETY: LLVM's arguments.
    unsafe {
        section(
            opaque,
            size,
            alignment,
            section_id,
            section_name,
            SectionKind::Code,
        )
    }
}

/// `LLVMMemoryManagerAllocateDataSectionCallback`; as the one for code.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_llvm_allocate_data_section(
    opaque: *mut c_void,
    size: usize,
    alignment: c_uint,
    section_id: c_uint,
    section_name: *const c_char,
    is_read_only: c_int,
) -> *mut u8 {
    let kind = if is_read_only == 0 {
        SectionKind::Data
    } else {
        SectionKind::ReadOnly
    };
    // SAFETY: LLVM's arguments.
    unsafe { section(opaque, size, alignment, section_id, section_name, kind) }
}

/// # Safety
/// A handle that is not freed meanwhile, and NULL or a string.
unsafe fn section(
    opaque: *mut c_void,
    size: usize,
    alignment: c_uint,
    section_id: c_uint,
    section_name: *const c_char,
    kind: SectionKind,
) -> *mut u8 {
    let section = guard(null_mut(), || {
        // SAFETY: the caller's handle.
        let memory = &unsafe { memory(opaque) }?.0;
        let name = if section_name.is_null() {
            format!("#{section_id}").into()
        } else {
            // SAFETY: from_ptr needs a string that lives: LLVM's does.
            unsafe { CStr::from_ptr(section_name) }.to_string_lossy()
        };
        let start = memory.allocate(size, u64::from(alignment), kind, &name);
        match memory.failure().filter(|_| start.is_null()) {
            Some(text) => Err(Failure::new(low2g_status::NoMemory, text)),
            None => Ok(start),
        }
    });
    section.unwrap_or(null_mut())
}

/// `LLVMMemoryManagerFinalizeMemoryCallback`: gives all sections their final access. May be called again
/// after more were allocated. 0, or 1 with a malloc'ed `*error`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_llvm_finalize_memory(
    opaque: *mut c_void,
    error: *mut *mut c_char,
) -> c_int {
    let done = guard(error, || {
        // SAFETY: the caller's handle.
        let memory = &unsafe { memory(opaque) }?.0;
        let finalized = memory.finalize();
        finalized.map_err(|text| Failure::new(low2g_status::NoMemory, text))
    });
    c_int::from(done.is_err())
}

/// `LLVMMemoryManagerDestroyCallback`: unmaps everything. What is no memory, or was destroyed before, is
/// left alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_llvm_destroy(opaque: *mut c_void) {
    let _ = guard(null_mut(), || {
        // SAFETY: the caller's handle.
        drop(unsafe { handle::take(opaque.cast_const().cast::<low2g_llvm_memory>()) }?);
        Ok(())
    });
}

/// `LLVMMemoryManagerCreateContextCallback`, for a `low2g_llvm_memory` as the context of contexts:
/// memory of the same kind for one object, which `low2g_llvm_destroy` ends.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_llvm_create_context(memory: *mut c_void) -> *mut c_void {
    let made = guard(null_mut(), || {
        // SAFETY: the caller's handle.
        let memory = &unsafe { self::memory(memory) }?.0;
        Ok(handle::give(LlvmMemory(memory.context())))
    });
    made.map_or(null_mut(), <*mut low2g_llvm_memory>::cast)
}

/// `LLVMMemoryManagerNotifyTerminatingCallback`: ends the context of contexts. Contexts stay.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_llvm_notify_terminating(memory: *mut c_void) {
    // SAFETY: the caller's handle.
    unsafe { low2g_llvm_destroy(memory) };
}

/// How the address of the section around `addr` was chosen.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_llvm_certificate(
    memory: *const low2g_llvm_memory,
    addr: *const c_void,
    out: *mut low2g_certificate,
    error: *mut *mut c_char,
) -> low2g_status {
    guard_status(error, || {
        // SAFETY: the caller's handle.
        let regions = unsafe { handle::get(memory) }?.0.regions();
        let addr = to_u64(addr.addr());
        let region = regions.iter().find(|region| region.range.contains(addr));
        let region = region.ok_or_else(|| {
            let text = format!("{addr:#x} lies in no section of this LLVM memory");
            Failure::new(low2g_status::NotInUse, text)
        })?;
        // SAFETY: the caller's place.
        unsafe { set(out, "out", region.certificate.into()) }
    })
}

/// # Safety
/// A handle that is not freed during `'h`.
unsafe fn memory<'h>(opaque: *mut c_void) -> Result<&'h LlvmMemory, Failure> {
    // SAFETY: the caller's handle.
    unsafe { handle::get(opaque.cast_const().cast::<low2g_llvm_memory>()) }
}
