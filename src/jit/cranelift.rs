//! Low, randomized memory for `cranelift-jit` (feature `cranelift`).
//!
//! ```no_run
//! use cranelift_jit::{JITBuilder, JITModule};
//! use low2g::alloc::LowAllocator;
//! use low2g::jit::{CodeModel, cranelift::LowMemoryProvider};
//!
//! let low = LowAllocator::new()?;
//! let memory = LowMemoryProvider::new(low, CodeModel::Small)?;
//! let mut builder = JITBuilder::new(cranelift_module::default_libcall_names())?;
//! builder.memory_provider(Box::new(memory));
//! let module = JITModule::new(builder);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Cranelift writes through the address that it gets, so code has one view: private pages, writable
//! until `finalize_definitions`, executable from then on, never both.
//!
//! As with Cranelift's own providers, memory that was finalized outlives its module, because
//! function pointers may: `JITModule::free_memory` or [`LowMemoryProvider::free`] give it back.

use std::fmt;
use std::io;
use std::sync::Arc;

use cranelift_jit::{BranchProtection, JITMemoryKind, JITMemoryProvider};
use cranelift_module::{ModuleError, ModuleResult};
use low2g_platform::{to_u64, to_usize};
use parking_lot::Mutex;

use crate::alloc::LowAllocator;
use crate::place::{CodeModel, SectionKind};

use super::error::JitError;
use super::model::Relocations;
use super::round::{RoundMemory, RoundRegion};

/// A [`JITMemoryProvider`] whose memory comes from a [`LowAllocator`].
///
/// Clones share the memory: give one to the module, keep one to look at it or to free it.
#[derive(Clone)]
pub struct LowMemoryProvider {
    state: Arc<Mutex<State>>,
}

struct State {
    model: CodeModel,
    memory: RoundMemory,
}

impl LowMemoryProvider {
    /// Memory from `allocator` for one module, compiled for this model.
    ///
    /// Cranelift's x86-64 code refers to colocated symbols (functions and data that the module
    /// itself defines) by 32-bit distance and to others by 64-bit address. So `Small` and `Medium` say
    /// that symbols may be colocated, and want a reach in which every block reaches every other;
    /// `Large` says that none is, and takes any reach.
    ///
    /// # Errors
    /// As [`RoundMemory::new`].
    pub fn new(allocator: LowAllocator, model: CodeModel) -> Result<Self, JitError> {
        let memory = RoundMemory::new(allocator, model, Relocations::PcRelative)?;
        Ok(Self {
            state: Arc::new(Mutex::new(State { model, memory })),
        })
    }

    /// Every mapping that it holds now.
    #[must_use]
    pub fn regions(&self) -> Vec<RoundRegion> {
        self.state.lock().memory.regions().collect()
    }

    /// The code model that it was made for.
    #[must_use]
    pub fn code_model(&self) -> CodeModel {
        self.state.lock().model
    }

    /// Gives all memory back; what is allocated afterwards is new.
    ///
    /// # Safety
    /// No function in it is running or is called afterwards, no data in it is used afterwards, and
    /// no module that it was given to defines or finalizes anything it had begun.
    pub unsafe fn free(&self) {
        self.state.lock().memory.clear();
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.memory.leak();
    }
}

impl fmt::Debug for LowMemoryProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("LowMemoryProvider")
            .field("model", &state.model)
            .field("memory", &state.memory)
            .finish()
    }
}

impl JITMemoryProvider for LowMemoryProvider {
    fn allocate(&mut self, size: usize, align: u64, kind: JITMemoryKind) -> io::Result<*mut u8> {
        let kind = match kind {
            JITMemoryKind::Executable => SectionKind::Code,
            JITMemoryKind::Writable => SectionKind::Data,
            JITMemoryKind::ReadOnly => SectionKind::ReadOnly,
        };
        let mut state = self.state.lock();
        let addr = state.memory.allocate(to_u64(size), align, kind);
        let addr = addr.map_err(JitError::into_io)?;
        Ok(std::ptr::with_exposed_provenance_mut(to_usize(addr)))
    }

    unsafe fn free_memory(&mut self) {
        self.state.lock().memory.clear();
    }

    fn finalize(&mut self, branch_protection: BranchProtection) -> ModuleResult<()> {
        let backend = |error: JitError| ModuleError::Backend(error.into());
        // An Arm extension: other processors have no such pages, and nothing to refuse.
        if cfg!(target_arch = "aarch64") && branch_protection == BranchProtection::BTI {
            return Err(backend(JitError::BranchProtection));
        }
        self.state.lock().memory.finalize().map_err(backend)
    }
}
