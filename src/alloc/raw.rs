//! Blocks by address, for containers, C and global allocators: no handle, so everything about a
//! block is found by its address, and a free is checked before it is believed.

use hashbrown::HashMap;
use low2g_platform::AddrRange;

use crate::alloc::allocator::LowAllocator;
use crate::alloc::certificate::Certificate;
use crate::alloc::error::{AllocError, Misuse};
use crate::alloc::lock::SpinLock;
use crate::alloc::own::Own;
use crate::alloc::slots::{QUANTUM, class_of, class_of_size};
use crate::alloc::space::{Kind, Owner};

/// Blocks with pages of their own that were handed out by address.
pub(crate) type RawOwned = SpinLock<HashMap<u64, Own>>;

/// What lies at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The whole block: its slot, or its pages (with their guards).
    pub range: AddrRange,
    /// What it is for.
    pub kind: Kind,
    /// Whether it is in use; a free slot of an arena is not.
    pub in_use: bool,
}

impl LowAllocator {
    /// `size` bytes (of any content) at a multiple of `align`, a power of two, until
    /// [`LowAllocator::deallocate_raw`] is called with the address.
    ///
    /// # Errors
    /// See [`AllocError`]; nothing of the request is left mapped.
    #[inline]
    pub fn allocate_raw(&self, size: u64, align: u64) -> Result<u64, AllocError> {
        if align <= QUANTUM
            && align.is_power_of_two()
            && let Some(class) = class_of_size(size)
            && let Some(addr) = self.inner.heap.pick_own(class)
        {
            return Ok(addr);
        }
        self.allocate_raw_slowly(size, align)
    }

    #[cold]
    fn allocate_raw_slowly(&self, size: u64, align: u64) -> Result<u64, AllocError> {
        match class_of(size, align) {
            Some(class) if align <= self.inner.page_size && size > 0 => {
                self.take_slot(class).map(|taken| taken.addr)
            }
            _ => self.allocate_raw_own(size, align),
        }
    }

    /// As [`LowAllocator::allocate_raw`], with all bytes zero.
    ///
    /// # Errors
    /// As there.
    pub fn allocate_raw_zeroed(&self, size: u64, align: u64) -> Result<u64, AllocError> {
        match class_of(size, align) {
            Some(class) if align <= self.inner.page_size && size > 0 => {
                let taken = self.take_slot(class)?;
                if taken.dirty && !self.inner.heap.settings.clear_on_free {
                    self.inner.heap.clear(taken.addr, size);
                }
                Ok(taken.addr)
            }
            // Fresh pages are zero.
            _ => self.allocate_raw_own(size, align),
        }
    }

    /// As [`LowAllocator::allocate_raw_zeroed`], and how the address was chosen.
    ///
    /// # Errors
    /// As there.
    pub fn allocate_raw_certified(
        &self,
        size: u64,
        align: u64,
    ) -> Result<(u64, Certificate), AllocError> {
        match class_of(size, align) {
            Some(class) if align <= self.inner.page_size && size > 0 => {
                let taken = self.take_slot(class)?;
                let heap = &self.inner.heap;
                if taken.dirty && !heap.settings.clear_on_free {
                    heap.clear(taken.addr, size);
                }
                Ok((taken.addr, taken.certificate(heap.settings.random)))
            }
            _ => self.allocate_certified_own(size, align),
        }
    }

    #[cold]
    fn allocate_raw_own(&self, size: u64, align: u64) -> Result<u64, AllocError> {
        Ok(self.allocate_certified_own(size, align)?.0)
    }

    fn allocate_certified_own(
        &self,
        size: u64,
        align: u64,
    ) -> Result<(u64, Certificate), AllocError> {
        self.check_block(size, align)?;
        let own = self.with_trim(|| self.map_own(size, align, Kind::Block))?;
        let (addr, certificate) = (own.range().start(), own.certificate());
        self.inner.raw_owned.lock().insert(addr, own);
        Ok((addr, certificate))
    }

    /// Frees the block at `addr`.
    ///
    /// # Errors
    /// [`Misuse`] if no block in use that was allocated by address starts there; nothing is
    /// changed then. A second free of an address that is in use again is not noticed.
    ///
    /// # Safety
    /// If a block in use starts at `addr`, it is the caller's, was allocated by
    /// [`LowAllocator::allocate_raw`] of this allocator, and nothing refers to it any more.
    #[inline]
    pub unsafe fn deallocate_raw(&self, addr: u64) -> Result<(), Misuse> {
        if self.inner.heap.give_own(addr) {
            return Ok(());
        }
        self.deallocate_raw_slowly(addr)
    }

    #[cold]
    fn deallocate_raw_slowly(&self, addr: u64) -> Result<(), Misuse> {
        match self.inner.heap.give(addr) {
            Some(result) => result,
            None => self.deallocate_raw_own(addr),
        }
    }

    #[cold]
    fn deallocate_raw_own(&self, addr: u64) -> Result<(), Misuse> {
        let own = self.inner.raw_owned.lock().remove(&addr);
        match own {
            Some(own) => {
                self.retire(own);
                Ok(())
            }
            None => Err(Misuse::NotOurs { addr }),
        }
    }

    /// Bytes that the block in use at `addr`, allocated by address, may hold; `None` if there is none.
    #[must_use]
    pub fn usable_size(&self, addr: u64) -> Option<u64> {
        let slot = self.inner.heap.usable_size(addr);
        slot.or_else(|| {
            let owned = self.inner.raw_owned.lock();
            owned.get(&addr).map(|own| own.range().len())
        })
    }

    /// What of this allocator's lies at `addr`, which need not be a start; `None` if nothing does.
    #[must_use]
    pub fn owner_of(&self, addr: u64) -> Option<Owned> {
        if let Some((range, in_use)) = self.inner.heap.around(addr) {
            return Some(Owned {
                range,
                kind: Kind::Block,
                in_use,
            });
        }
        if let Some((range, in_use)) = self.code_around(addr) {
            return Some(Owned {
                range,
                kind: Kind::CodeArena,
                in_use,
            });
        }
        let state = self.inner.pages.state.lock();
        let byte = AddrRange::at(addr, 1)?;
        let (range, owner) = state.space.taken_in(byte).next()?;
        match owner {
            Owner::Ours(owned) => Some(Owned {
                range,
                kind: owned.kind,
                in_use: true,
            }),
            Owner::Others | Owner::Room | Owner::Hole => None,
        }
    }
}
