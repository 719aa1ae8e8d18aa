//! [`CodeBlock`]: memory for a function, written through one view and executed
//! through another.
//!
//! ```text
//!   low, random    | RX |  slot  |  slot  | ...     executes, can never be written
//!                     \___ same pages ___/
//!   high, random   | RW |  slot  |  slot  | ...     written, never executes
//! ```
//!
//! Where the system refuses second views, each block has private pages of its
//! own that are first writable and then, once published, executable.
//!
//! Invariants: no page is writable and executable at one address; a freed slot
//! is filled with `int3`; pages are populated before a block on them is handed out.

use std::sync::Arc;

use low2g_platform::{AddrRange, Protection, to_usize};

use crate::alloc::allocator::{LowAllocator, MapRequest};
use crate::alloc::block::part;
use crate::alloc::certificate::Certificate;
use crate::alloc::code_arena::MAX_SLOT;
use crate::alloc::error::AllocError;
use crate::alloc::mapping::Mapping;
use crate::alloc::slots::slot_size;
use crate::alloc::space::Kind;
use crate::alloc::tier::Picked;

/// The x86 breakpoint instruction: what a freed slot holds.
const INT3: u8 = 0xcc;

/// How code becomes executable here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CodeViews {
    /// Two views of the same pages: publishing needs no system call.
    Two,
    /// Private pages that change from writable to executable when published.
    One,
}

/// Memory for code that is being written; dropping it frees it.
#[derive(Debug)]
pub struct CodeBlock {
    code: Code,
}

/// Code that can be executed; dropping it frees it.
#[derive(Debug)]
pub struct PublishedCode {
    code: Code,
}

#[derive(Debug)]
struct Code {
    exec: AddrRange,
    certificate: Certificate,
    home: Home,
}

#[derive(Debug)]
enum Home {
    Views {
        allocator: LowAllocator,
        picked: Picked,
        /// The whole slot in the view that is written.
        write: AddrRange,
    },
    Private(Mapping),
}

impl LowAllocator {
    /// Memory for `size` bytes of code at a multiple of `align`, a power of two. Its bytes are
    /// zero or `int3` at first.
    ///
    /// # Errors
    /// See [`AllocError`]; nothing of the request is left mapped.
    pub fn allocate_code(&self, size: u64, align: u64) -> Result<CodeBlock, AllocError> {
        self.check_block(size, align)?;
        let page = self.page_size();
        let small = size <= MAX_SLOT && align <= page && slot_size(size, align) <= MAX_SLOT;
        let slot = if small {
            slot_size(size, align)
        } else {
            size.next_multiple_of(page)
        };
        let align = if small { 1 } else { align };
        let code = match self.pick_code_slot(slot, align)? {
            Some((picked, write)) => {
                let code = Code {
                    exec: part(picked.base + picked.offset(), size),
                    certificate: picked.certificate,
                    home: Home::Views {
                        allocator: self.clone(),
                        picked,
                        write,
                    },
                };
                // Refused only now, so that the block frees its slot.
                self.check_minimum(&code.certificate)?;
                code
            }
            None => self.private_code(size, align)?,
        };
        Ok(CodeBlock { code })
    }

    fn private_code(&self, size: u64, align: u64) -> Result<Code, AllocError> {
        let mapping = self.map(&MapRequest {
            align,
            kind: Kind::CodeArena,
            ..MapRequest::new(size)
        })?;
        Ok(Code {
            exec: part(mapping.range().start(), size),
            certificate: mapping.certificate(),
            home: Home::Private(mapping),
        })
    }
}

impl CodeBlock {
    /// Where the code will execute.
    #[must_use]
    pub fn exec_addr(&self) -> u64 {
        self.code.exec.start()
    }

    /// Bytes asked for.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.code.exec.len()
    }

    /// How its address was chosen.
    #[must_use]
    pub fn certificate(&self) -> Certificate {
        self.code.certificate
    }

    /// Whether it has a view of its own for writing.
    #[must_use]
    pub fn views(&self) -> CodeViews {
        self.code.views()
    }

    /// The bytes, to write, at another address than [`CodeBlock::exec_addr`] where there are two views.
    ///
    /// # Panics
    /// On a simulated platform, whose addresses are only numbers.
    #[must_use]
    pub fn working_mem(&mut self) -> &mut [u8] {
        let size = to_usize(self.size());
        match &mut self.code.home {
            Home::Private(mapping) => {
                let bytes = mapping.working_mem();
                &mut bytes.expect("private code is writable until published")[..size]
            }
            Home::Views {
                allocator, write, ..
            } => {
                assert!(
                    !allocator.platform().is_simulated(),
                    "a simulated platform has no memory to touch"
                );
                let start = std::ptr::with_exposed_provenance_mut(to_usize(write.start()));
                // SAFETY: from_raw_parts_mut needs size bytes that are mapped, writable, initialised
                // and not reachable otherwise: they are in this block's slot of a populated write
                // view, and nothing executes the slot's other view before it is published.
                unsafe { std::slice::from_raw_parts_mut(start, size) }
            }
        }
    }

    /// Makes the code executable at [`CodeBlock::exec_addr`]; it can be written no more.
    ///
    /// # Errors
    /// [`AllocError::Platform`] if private pages may not become executable; never with two views.
    pub fn publish(mut self) -> Result<PublishedCode, AllocError> {
        let code = &mut self.code;
        let platform = match &mut code.home {
            Home::Views { allocator, .. } => Arc::clone(allocator.platform()),
            Home::Private(mapping) => {
                mapping.protect(mapping.range(), Protection::ReadExecute)?;
                Arc::clone(mapping.platform())
            }
        };
        platform.flush_instruction_cache(code.exec);
        Ok(PublishedCode { code: self.code })
    }
}

impl PublishedCode {
    /// Where the code is.
    #[must_use]
    pub fn exec_addr(&self) -> u64 {
        self.code.exec.start()
    }

    /// Bytes asked for.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.code.exec.len()
    }

    /// How its address was chosen.
    #[must_use]
    pub fn certificate(&self) -> Certificate {
        self.code.certificate
    }

    /// Whether it was written through a view of its own.
    #[must_use]
    pub fn views(&self) -> CodeViews {
        self.code.views()
    }

    /// Copies the code's bytes out, as they are where they execute.
    ///
    /// # Panics
    /// On a simulated platform, whose addresses are only numbers.
    #[must_use]
    pub fn read(&self) -> Vec<u8> {
        let platform = match &self.code.home {
            Home::Views { allocator, .. } => allocator.platform(),
            Home::Private(mapping) => mapping.platform(),
        };
        assert!(
            !platform.is_simulated(),
            "a simulated platform has no memory to touch"
        );
        let exec = self.code.exec;
        let start = std::ptr::with_exposed_provenance::<u8>(to_usize(exec.start()));
        // SAFETY: from_raw_parts needs that many readable bytes that nobody changes meanwhile: the
        // executable view is readable as long as this lives, and its slot is not written again.
        unsafe { std::slice::from_raw_parts(start, to_usize(exec.len())) }.to_vec()
    }
}

impl Code {
    fn views(&self) -> CodeViews {
        match self.home {
            Home::Views { .. } => CodeViews::Two,
            Home::Private(_) => CodeViews::One,
        }
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        let Home::Views {
            allocator,
            picked,
            write,
        } = &self.home
        else {
            return;
        };
        if !allocator.platform().is_simulated() {
            let start = std::ptr::with_exposed_provenance_mut::<u8>(to_usize(write.start()));
            // SAFETY: write_bytes needs that many writable bytes that nobody else uses: the slot
            // is this value's until it is given back below, and its write view is populated.
            unsafe { start.write_bytes(INT3, to_usize(write.len())) };
        }
        let emptied = allocator.inner.code.lock().give(picked);
        // Unmapping needs no lock of the tier.
        drop(emptied);
    }
}
