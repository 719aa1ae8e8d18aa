//! [`CodeBatch`]: many functions that are published at once.
//!
//! With two views it saves system calls where slots are used again: one barrier serializes all cores
//! after all of them were written. With one view it saves pages and calls: the functions share
//! pages, which one `mprotect` makes executable, and which go with the last of them.

use std::sync::Arc;

use low2g_platform::{AddrRange, Protection, to_usize};

use crate::alloc::allocator::{LowAllocator, MapRequest};
use crate::alloc::block::part;
use crate::alloc::error::AllocError;
use crate::alloc::mapping::Mapping;
use crate::alloc::space::Kind;

use super::{CodeBlock, CodeViews, Home, PublishedCode, Writing};

/// The x86 breakpoint instruction.
const INT3: u8 = 0xcc;

/// Memory for functions that are being written; dropping it frees all.
#[derive(Debug)]
pub struct CodeBatch {
    allocator: LowAllocator,
    parts: Parts,
}

#[derive(Debug)]
enum Parts {
    Views(Vec<CodeBlock>),
    Private {
        mapping: Mapping,
        parts: Vec<AddrRange>,
    },
}

impl LowAllocator {
    /// Memory for functions of these sizes and alignments (bytes; powers of two). Bytes between
    /// them are `int3`.
    ///
    /// # Errors
    /// See [`AllocError`]; nothing of the request is left mapped.
    pub fn allocate_code_batch(&self, requests: &[(u64, u64)]) -> Result<CodeBatch, AllocError> {
        let mut blocks = Vec::with_capacity(requests.len());
        for (size, align) in requests {
            let block = self.allocate_code(*size, *align)?;
            if block.views() == CodeViews::One {
                drop(block);
                return self.private_batch(requests);
            }
            blocks.push(block);
        }
        Ok(CodeBatch {
            allocator: self.clone(),
            parts: Parts::Views(blocks),
        })
    }

    fn private_batch(&self, requests: &[(u64, u64)]) -> Result<CodeBatch, AllocError> {
        let mut end = 0_u64;
        let mut largest = 1;
        let mut offsets = Vec::with_capacity(requests.len());
        for (size, align) in requests {
            self.check_block(*size, *align)?;
            let start = low2g_platform::align_up(end, *align);
            let next = start.and_then(|start| start.checked_add(*size));
            let (Some(start), Some(next)) = (start, next) else {
                return Err(AllocError::BadRequest {
                    what: "size",
                    value: *size,
                    expected: "sizes of a batch whose sum is below 2^64",
                });
            };
            offsets.push((start, *size));
            end = next;
            largest = largest.max(*align);
        }
        let mut mapping = self.with_trim(|| {
            self.map(&MapRequest {
                align: largest,
                kind: Kind::CodeArena,
                ..MapRequest::new(end)
            })
        })?;
        if let Some(bytes) = mapping.working_mem() {
            bytes.fill(INT3);
        }
        let base = mapping.range().start();
        let parts = offsets.into_iter();
        let parts = parts
            .map(|(start, size)| part(base + start, size))
            .collect();
        Ok(CodeBatch {
            allocator: self.clone(),
            parts: Parts::Private { mapping, parts },
        })
    }
}

impl CodeBatch {
    /// Functions in it.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.parts {
            Parts::Views(blocks) => blocks.len(),
            Parts::Private { parts, .. } => parts.len(),
        }
    }

    /// Whether it has no functions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How its code becomes executable.
    #[must_use]
    pub fn views(&self) -> CodeViews {
        match self.parts {
            Parts::Views(_) => CodeViews::Two,
            Parts::Private { .. } => CodeViews::One,
        }
    }

    /// Where function `index` will execute; `None` past the last.
    #[must_use]
    pub fn exec_addr(&self, index: usize) -> Option<u64> {
        match &self.parts {
            Parts::Views(blocks) => blocks.get(index).map(CodeBlock::exec_addr),
            Parts::Private { parts, .. } => parts.get(index).map(|part| part.start()),
        }
    }

    /// The bytes of function `index`, to write; `None` past the last.
    ///
    /// # Panics
    /// On a simulated platform, whose addresses are only numbers.
    #[must_use]
    pub fn working_mem(&mut self, index: usize) -> Option<&mut [u8]> {
        match &mut self.parts {
            Parts::Views(blocks) => blocks.get_mut(index).map(CodeBlock::working_mem),
            Parts::Private { mapping, parts } => {
                let part = parts.get(index)?;
                let start = to_usize(part.start() - mapping.range().start());
                let bytes = mapping.working_mem();
                let bytes = bytes.expect("private code is writable until published");
                Some(&mut bytes[start..start + to_usize(part.len())])
            }
        }
    }

    /// Makes all of it executable; gives the functions in the order asked for.
    ///
    /// # Errors
    /// As [`CodeBlock::publish`]; nothing is published then.
    pub fn publish(self) -> Result<Vec<PublishedCode>, AllocError> {
        let platform = Arc::clone(self.allocator.platform());
        match self.parts {
            Parts::Views(blocks) => {
                let reused = |block: &CodeBlock| {
                    matches!(block.writing, Writing::Views { reused: true, .. })
                };
                if blocks.iter().any(reused) {
                    // Where the system cannot, the slots' own quarantine must do.
                    let _ = platform.serialize_cores();
                }
                blocks.into_iter().map(CodeBlock::publish).collect()
            }
            Parts::Private { mut mapping, parts } => {
                mapping.protect(mapping.range(), Protection::ReadExecute)?;
                let mapping = Arc::new(mapping);
                let publish = |exec| {
                    platform.flush_instruction_cache(exec);
                    PublishedCode {
                        exec,
                        certificate: mapping.certificate(),
                        home: Home::Private(Arc::clone(&mapping)),
                    }
                };
                Ok(parts.into_iter().map(publish).collect())
            }
        }
    }
}
