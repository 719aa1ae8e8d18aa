//! low2g as the memory manager of an MCJIT engine made by inkwell: all that a user has to write.

use inkwell::memory_manager::McjitMemoryManager;
use low2g::alloc::LowAllocator;
use low2g::jit::llvm::SectionMemory;
use low2g::jit::{CodeModel, JitError, Relocations, SectionKind};

/// Sections at random addresses below 2 GiB; the engine owns it and ends it.
#[derive(Debug)]
pub struct LowSections(SectionMemory);

impl LowSections {
    /// For MCJIT's static code of this model.
    ///
    /// # Errors
    /// The allocator's reach does not serve the model.
    pub fn new(low: LowAllocator, model: CodeModel) -> Result<Self, JitError> {
        SectionMemory::new(low, model, Relocations::Absolute).map(Self)
    }
}

impl McjitMemoryManager for LowSections {
    fn allocate_code_section(
        &mut self,
        size: usize,
        alignment: u32,
        _section_id: u32,
        name: &str,
    ) -> *mut u8 {
        self.0
            .allocate(size, alignment.into(), SectionKind::Code, name)
    }

    fn allocate_data_section(
        &mut self,
        size: usize,
        alignment: u32,
        _section_id: u32,
        name: &str,
        is_read_only: bool,
    ) -> *mut u8 {
        let kind = match is_read_only {
            true => SectionKind::ReadOnly,
            false => SectionKind::Data,
        };
        self.0.allocate(size, alignment.into(), kind, name)
    }

    fn finalize_memory(&mut self) -> Result<(), String> {
        self.0.finalize()
    }

    /// inkwell drops the value next, and with it goes the memory.
    fn destroy(&mut self) {}
}
