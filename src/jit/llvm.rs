//! Low, randomized memory for LLVM's RuntimeDyld, the linker of MCJIT and of one of ORC's object
//! layers. The C callbacks stand in [`crate::capi`].
//!
//! ```text
//!   LLVM: new ─> allocate section ... ─> relocate in place ─> register frames ─> finalize ─> destroy
//!   here:        RW pages, low, random                                          R-X, R--    unmapped
//! ```
//!
//! LLVM writes through the address where a section will run, so a section has one view: writable until
//! `finalize`, then executable, never both.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::{NonNull, null_mut};

use low2g_platform::{to_u64, to_usize};
use parking_lot::Mutex;

use crate::alloc::LowAllocator;
use crate::place::{CodeModel, SectionKind};

use super::error::JitError;
use super::model::Relocations;
use super::round::{RoundMemory, RoundRegion};

/// Section memory for one MCJIT engine, or for one object of an ORC layer; a layer itself has one as
/// the pattern for its objects. Several threads may use it.
#[derive(Debug)]
pub struct SectionMemory {
    allocator: LowAllocator,
    model: CodeModel,
    relocations: Relocations,
    /// Whether LLVM asks `finalize` before it runs what failed (ORC does, MCJIT does not).
    tolerant: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    memory: Option<RoundMemory>,
    /// Why a section was not had since the last `finalize`.
    failure: Option<String>,
    stand_ins: Vec<StandIn>,
}

impl SectionMemory {
    /// Memory from `allocator` for code of this model. Maps nothing yet.
    ///
    /// # Errors
    /// As [`RoundMemory::new`].
    pub fn new(
        allocator: LowAllocator,
        model: CodeModel,
        relocations: Relocations,
    ) -> Result<Self, JitError> {
        let memory = RoundMemory::new(allocator.clone(), model, relocations)?;
        Ok(Self {
            allocator,
            model,
            relocations,
            tolerant: false,
            state: Mutex::new(State {
                memory: Some(memory),
                failure: None,
                stand_ins: Vec::new(),
            }),
        })
    }

    /// Memory of the same kind for one object of an ORC layer. It never fails at once: ORC has
    /// an error only where a context is finalized, and there this one tells what went wrong.
    #[must_use]
    pub fn context(&self) -> Self {
        let memory = RoundMemory::new(self.allocator.clone(), self.model, self.relocations);
        let failure = memory.as_ref().err().map(ToString::to_string);
        Self {
            allocator: self.allocator.clone(),
            model: self.model,
            relocations: self.relocations,
            tolerant: true,
            state: Mutex::new(State {
                memory: memory.ok(),
                failure,
                stand_ins: Vec::new(),
            }),
        }
    }

    /// A section of `size` bytes at a multiple of `align`, writable until it is finalized. LLVM asks
    /// for sections without bytes (an empty `.text`) and for alignment 0; both count as 1.
    ///
    /// On failure null, which LLVM ends the process for. A [`SectionMemory::context`] gives ordinary
    /// memory instead, for LLVM to write to and never to run: its `finalize` fails. Null there
    /// means that even that was not to be had.
    pub fn allocate(&self, size: usize, align: u64, kind: SectionKind, name: &str) -> *mut u8 {
        let (size, align) = (size.max(1), align.max(1));
        let mut state = self.state.lock();
        let placed = match &mut state.memory {
            Some(memory) => memory.allocate(to_u64(size), align, kind),
            // `failure` says why.
            None => return state.stand_in(size, align),
        };
        match placed {
            Ok(addr) => std::ptr::with_exposed_provenance_mut(to_usize(addr)),
            Err(error) => {
                let text = format!("section {name}, {size} bytes aligned to {align}: {error}");
                state.failure.get_or_insert(text);
                if self.tolerant {
                    state.stand_in(size, align)
                } else {
                    null_mut()
                }
            }
        }
    }

    /// Gives all sections their final access; may be called again after more were allocated.
    ///
    /// # Errors
    /// A section was not had since the last call, or the system refuses; in words.
    pub fn finalize(&self) -> Result<(), String> {
        let mut state = self.state.lock();
        if let Some(failure) = &state.failure {
            let text = failure.clone();
            // The next round of an engine is judged by itself; an object is lost as a whole.
            if !self.tolerant {
                state.failure = None;
            }
            return Err(text);
        }
        match &mut state.memory {
            Some(memory) => memory.finalize().map_err(|error| error.to_string()),
            None => Ok(()),
        }
    }

    /// Why a section was not had since the last [`SectionMemory::finalize`].
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.state.lock().failure.clone()
    }

    /// Every mapping that it holds now.
    #[must_use]
    pub fn regions(&self) -> Vec<RoundRegion> {
        let state = self.state.lock();
        let memory = state.memory.as_ref();
        memory.map_or_else(Vec::new, |memory| memory.regions().collect())
    }
}

impl State {
    fn stand_in(&mut self, size: usize, align: u64) -> *mut u8 {
        let stand_in = StandIn::new(size, align);
        let start = stand_in
            .as_ref()
            .map_or(null_mut(), |one| one.start.as_ptr());
        self.stand_ins.extend(stand_in);
        start
    }
}

/// Memory for a section that is written but never used.
#[derive(Debug)]
struct StandIn {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it owns its bytes like a box, and does not read them.
unsafe impl Send for StandIn {}

impl StandIn {
    fn new(size: usize, align: u64) -> Option<Self> {
        // A bad alignment is what failed: the section is never used.
        let align = usize::try_from(align)
            .ok()
            .filter(|align| align.is_power_of_two());
        let layout = Layout::from_size_align(size, align.unwrap_or(1).min(1 << 16)).ok()?;
        // SAFETY: alloc_zeroed needs a size that is not 0: `allocate` asks for 1 at least.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self { start, layout })
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // SAFETY: dealloc needs a block of alloc_zeroed with this layout: `new` made it.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}
