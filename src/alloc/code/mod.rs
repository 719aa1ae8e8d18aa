//! [`CodeBlock`]: memory for a function, written through one view and executed
//! through another.
//!
//! ```text
//!   low, random    | RX |  slot  |  slot  | ...     executes, can never be written
//!                     \___ same pages ___/
//!   high, random   | RW |  slot  |  slot  | ...     written, never executes
//! ```
//!
//! `views` claims them, `arena` is one such pair, `pool` knows which slots may be used, `batch`
//! publishes many functions at once. Where the system refuses second views, each block or batch
//! has private pages of its own that are first writable and then, once published, executable.
//!
//! Invariants: no page is writable and executable at one address; what is not in use is filled with
//! `int3`; pages are populated before a block on them is handed out.

use std::sync::Arc;

use low2g_platform::{AddrRange, Platform, Protection, to_usize};

use crate::alloc::allocator::{Inner, LowAllocator, MapRequest};
use crate::alloc::block::part;
use crate::alloc::certificate::Certificate;
use crate::alloc::error::{AllocError, Misuse};
use crate::alloc::lock::SpinGuard;
use crate::alloc::mapping::Mapping;
use crate::alloc::slots::{class_of, class_size};
use crate::alloc::space::Kind;

use arena::CodeArena;
use pool::{Place, Taken};

mod arena;
mod batch;
mod pool;
mod views;

pub use batch::CodeBatch;
pub(crate) use pool::CodeTier;

/// Largest slot in bytes; larger code has an arena to itself.
const MAX_SLOT: u64 = 4 << 10;

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
    exec: AddrRange,
    certificate: Certificate,
    writing: Writing,
}

/// Where a block is written.
#[derive(Debug)]
enum Writing {
    Views {
        slot: Slot,
        /// Address of its first byte in the view that is written.
        write: u64,
        /// Process that has that view.
        process: u64,
        /// Whether code was executed there before.
        reused: bool,
        /// What a child writes instead: it has no such view.
        stray: Vec<u8>,
    },
    Private(Mapping),
}

/// Code that can be executed; dropping it frees it.
#[derive(Debug)]
pub struct PublishedCode {
    exec: AddrRange,
    certificate: Certificate,
    home: Home,
}

/// What keeps published code.
#[derive(Debug)]
enum Home {
    Views(Slot),
    /// Shared by the functions of a batch.
    Private(Arc<Mapping>),
}

/// A place in an arena, freed on drop.
#[derive(Debug)]
struct Slot {
    allocator: LowAllocator,
    place: Place,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.allocator.give_code(self.place);
    }
}

impl LowAllocator {
    /// Memory for `size` bytes of code at a multiple of `align`, a power of two. Its bytes are
    /// zero or `int3` at first.
    ///
    /// # Errors
    /// See [`AllocError`]; nothing of the request is left mapped.
    pub fn allocate_code(&self, size: u64, align: u64) -> Result<CodeBlock, AllocError> {
        self.check_block(size, align)?;
        self.with_trim(|| match self.take_code(size, align)? {
            Some(taken) => self.code_block(size, &taken),
            None => self.private_code(size, align),
        })
    }

    /// A place for `size` bytes; `None` where this system has no second views.
    fn take_code(&self, size: u64, align: u64) -> Result<Option<Taken>, AllocError> {
        let class = class_of(size, align).filter(|_| align <= self.page_size());
        match class.filter(|class| class_size(*class) <= MAX_SLOT) {
            Some(class) => self.take_code_slot(class),
            None => self.take_code_alone(size.next_multiple_of(self.page_size()), align),
        }
    }

    fn take_code_slot(&self, class: usize) -> Result<Option<Taken>, AllocError> {
        let inner = &*self.inner;
        let platform = &**self.platform();
        let mut tier = inner.lock_code();
        if tier.wants_arena(class, platform) {
            let bytes = tier.arena_size(class, inner.page_size);
            match self.claim_views(bytes, 1, inner.hardening.arena_guards) {
                Ok(Some(views)) => tier.add(class, CodeArena::new(views, class_size(class))),
                // Fewer candidates than wished for are better than none; the certificate says so.
                Ok(None) | Err(_) if !tier.is_full(class) => {}
                Ok(None) => return Ok(None),
                Err(error) => {
                    tier.flush(class, platform);
                    if tier.is_full(class) {
                        return Err(error);
                    }
                }
            }
        }
        let taken = tier.take(class, platform);
        Ok(Some(
            taken.expect("there was a free slot, or an arena was added")?,
        ))
    }

    fn take_code_alone(&self, bytes: u64, align: u64) -> Result<Option<Taken>, AllocError> {
        let spare = self.inner.lock_code().take_spare(bytes, align);
        let arena = match spare {
            Some(arena) => arena,
            None => match self.claim_views(bytes, align, self.inner.hardening.guards)? {
                Some(views) => CodeArena::new(views, bytes),
                None => return Ok(None),
            },
        };
        let mut tier = self.inner.lock_code();
        let base = tier.add_alone(arena);
        match tier.take_alone(base) {
            Ok(taken) => Ok(Some(taken)),
            Err(error) => {
                let arena = tier.remove_alone(base);
                drop(tier);
                // Unmapping needs no lock of the tier.
                drop(arena);
                Err(error.into())
            }
        }
    }

    fn code_block(&self, size: u64, taken: &Taken) -> Result<CodeBlock, AllocError> {
        let block = CodeBlock {
            exec: part(taken.exec, size),
            certificate: taken.certificate,
            writing: Writing::Views {
                slot: Slot {
                    allocator: self.clone(),
                    place: taken.place,
                },
                write: taken.write,
                process: self.platform().process(),
                reused: taken.reused,
                stray: Vec::new(),
            },
        };
        // Refused only now, so that the block frees its slot.
        self.check_minimum(&block.certificate)?;
        Ok(block)
    }

    fn private_code(&self, size: u64, align: u64) -> Result<CodeBlock, AllocError> {
        let mapping = self.map(&MapRequest {
            align,
            kind: Kind::CodeArena,
            ..MapRequest::new(size)
        })?;
        Ok(CodeBlock {
            exec: part(mapping.range().start(), size),
            certificate: mapping.certificate(),
            writing: Writing::Private(mapping),
        })
    }

    /// Frees a place; what is not needed any more is unmapped.
    fn give_code(&self, place: Place) {
        let mut tier = self.inner.lock_code();
        let emptied = tier.give(place, &**self.platform());
        drop(tier);
        // Unmapping needs no lock of the tier.
        if let Some(arena) = emptied {
            self.retire_code(arena);
        }
    }

    /// Ends the life of an arena without a used slot.
    fn retire_code(&self, arena: CodeArena) {
        let slots = arena.write_slots();
        let (mapping, write, alone) = arena.into_parts();
        // First inaccessible where it executes, then without memory.
        let kept = self.retire_mapping(mapping);
        if let Some(write) = write.filter(|_| kept && alone) {
            CodeArena::discard(&write, slots);
        }
    }

    /// Lets all code slots out of quarantine.
    pub(crate) fn flush_code(&self) {
        self.inner.lock_code().flush_all(&**self.platform());
    }

    /// Frees the code at `addr`, which [`PublishedCode::into_raw`] gave.
    ///
    /// # Errors
    /// [`Misuse`] if no such code starts there; nothing is changed then. A second free of an address
    /// that is in use again is not noticed.
    ///
    /// # Safety
    /// If such code starts at `addr`, it is the caller's, and nothing runs or refers to it any more.
    pub unsafe fn deallocate_code(&self, addr: u64) -> Result<(), Misuse> {
        let code = self.inner.raw_code.lock().remove(&addr);
        if let Some(code) = code {
            drop(code);
            return Ok(());
        }
        match self.inner.lock_code().find(addr) {
            // In use, but through a handle.
            Some(found) => found.check(addr).and(Err(Misuse::NotOurs { addr })),
            None => Err(Misuse::NotOurs { addr }),
        }
    }

    /// The code slot around `addr`, and whether it is in use.
    pub(crate) fn code_around(&self, addr: u64) -> Option<(AddrRange, bool)> {
        let found = self.inner.lock_code().find(addr)?;
        Some((found.slot, found.used))
    }
}

impl Inner {
    /// The code tier; in a child, without what it cannot use of the parent's.
    fn lock_code(&self) -> SpinGuard<'_, CodeTier> {
        let mut tier = self.code.lock();
        let idle = tier.check_process(&*self.pages.platform);
        if !idle.is_empty() {
            drop(tier);
            drop(idle);
            tier = self.code.lock();
        }
        tier
    }

    /// In a child: closes what the parent writes.
    pub(crate) fn close_inherited_code(&self) {
        drop(self.lock_code());
    }
}

impl CodeBlock {
    /// Where the code will execute.
    #[must_use]
    pub fn exec_addr(&self) -> u64 {
        self.exec.start()
    }

    /// Bytes asked for.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.exec.len()
    }

    /// How its address was chosen.
    #[must_use]
    pub fn certificate(&self) -> Certificate {
        self.certificate
    }

    /// Whether it has a view of its own for writing.
    #[must_use]
    pub fn views(&self) -> CodeViews {
        match self.writing {
            Writing::Views { .. } => CodeViews::Two,
            Writing::Private(_) => CodeViews::One,
        }
    }

    /// The bytes, to write, at another address than [`CodeBlock::exec_addr`] where there are two views.
    ///
    /// In a child, of a block that the parent allocated, these are bytes of no use: such a block
    /// cannot be published.
    ///
    /// # Panics
    /// On a simulated platform, whose addresses are only numbers.
    #[must_use]
    pub fn working_mem(&mut self) -> &mut [u8] {
        let size = to_usize(self.size());
        let inherited = self.is_inherited();
        match &mut self.writing {
            Writing::Private(mapping) => {
                let bytes = mapping.working_mem();
                &mut bytes.expect("private code is writable until published")[..size]
            }
            Writing::Views { stray, .. } if inherited => {
                stray.resize(size, 0);
                stray
            }
            Writing::Views { slot, write, .. } => {
                assert!(
                    !slot.allocator.platform().is_simulated(),
                    "a simulated platform has no memory to touch"
                );
                let start = std::ptr::with_exposed_provenance_mut(to_usize(*write));
                // SAFETY: from_raw_parts_mut needs size bytes that are mapped, writable, initialised
                // and not reachable otherwise: they are in this block's slot of a populated write
                // view, and nothing executes the slot's other view before it is published.
                unsafe { std::slice::from_raw_parts_mut(start, size) }
            }
        }
    }

    /// Whether this process is a child of the one that can write it.
    fn is_inherited(&self) -> bool {
        match &self.writing {
            Writing::Views { slot, process, .. } => slot.allocator.platform().process() != *process,
            Writing::Private(_) => false,
        }
    }

    /// Makes the code executable at [`CodeBlock::exec_addr`]; it can be written no more.
    ///
    /// # Errors
    /// [`AllocError::Platform`] if private pages may not become executable, and
    /// [`AllocError::Inherited`] in a child of the process that allocated it; no other with two views.
    #[inline(always)]
    pub fn publish(self) -> Result<PublishedCode, AllocError> {
        let home = match self.writing {
            Writing::Views { slot, process, .. } => {
                if slot.allocator.platform().process() != process {
                    let addr = self.exec.start();
                    return Err(AllocError::Inherited { addr });
                }
                Home::Views(slot)
            }
            Writing::Private(mapping) => Home::Private(execute(mapping)?),
        };
        home.platform().flush_instruction_cache(self.exec);
        Ok(PublishedCode {
            exec: self.exec,
            certificate: self.certificate,
            home,
        })
    }
}

/// Makes private pages executable.
#[cold]
fn execute(mut mapping: Mapping) -> Result<Arc<Mapping>, AllocError> {
    mapping.protect(mapping.range(), Protection::ReadExecute)?;
    Ok(Arc::new(mapping))
}

impl PublishedCode {
    /// Where the code is.
    #[must_use]
    pub fn exec_addr(&self) -> u64 {
        self.exec.start()
    }

    /// Bytes asked for.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.exec.len()
    }

    /// How its address was chosen.
    #[must_use]
    pub fn certificate(&self) -> Certificate {
        self.certificate
    }

    /// Whether it was written through a view of its own.
    #[must_use]
    pub fn views(&self) -> CodeViews {
        match self.home {
            Home::Views(_) => CodeViews::Two,
            Home::Private(_) => CodeViews::One,
        }
    }

    /// Copies the code's bytes out, as they are where they execute.
    ///
    /// # Panics
    /// On a simulated platform, whose addresses are only numbers.
    #[must_use]
    pub fn read(&self) -> Vec<u8> {
        assert!(
            !self.home.platform().is_simulated(),
            "a simulated platform has no memory to touch"
        );
        let start = std::ptr::with_exposed_provenance::<u8>(to_usize(self.exec.start()));
        // SAFETY: from_raw_parts needs that many readable bytes that nobody changes meanwhile: the
        // executable view is readable as long as this lives, and its slot is not written again.
        unsafe { std::slice::from_raw_parts(start, to_usize(self.exec.len())) }.to_vec()
    }

    /// Gives the code up to [`LowAllocator::deallocate_code`] of the allocator that it came from,
    /// by its address; until then it keeps that allocator alive.
    #[must_use]
    pub fn into_raw(self, allocator: &LowAllocator) -> u64 {
        let addr = self.exec.start();
        allocator.inner.raw_code.lock().insert(addr, self);
        addr
    }
}

impl Home {
    fn platform(&self) -> &Arc<dyn Platform> {
        match self {
            Self::Views(slot) => slot.allocator.platform(),
            Self::Private(mapping) => mapping.platform(),
        }
    }
}
