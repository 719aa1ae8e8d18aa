//! Blocks by address, for containers, C and global allocators: no handle, so everything about a
//! block is found by its address, and a free is checked before it is believed.

use hashbrown::HashMap;
use low2g_platform::AddrRange;

use crate::alloc::allocator::LowAllocator;
use crate::alloc::certificate::Certificate;
use crate::alloc::error::{AllocError, Misuse};
use crate::alloc::heap::{Arena, OwnPool, Taken};
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

/// A [`Misuse`] but for the address: two registers, so that whoever frees need not look into memory
/// to learn that all is well.
enum Refusal {
    NotInUse,
    Inside { start: u64 },
    NotOurs,
}

impl Refusal {
    fn of(misuse: Misuse) -> Self {
        match misuse {
            Misuse::NotInUse { .. } => Self::NotInUse,
            Misuse::Inside { start, .. } => Self::Inside { start },
            Misuse::NotOurs { .. } | Misuse::WrittenAfterFree { .. } => Self::NotOurs,
        }
    }

    #[cold]
    fn at(self, addr: u64) -> Misuse {
        match self {
            Self::NotInUse => Misuse::NotInUse { addr },
            Self::Inside { start } => Misuse::Inside { addr, start },
            Self::NotOurs => Misuse::NotOurs { addr },
        }
    }
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
        {
            if let Some(addr) = self.inner.heap.pick_ready(class) {
                return Ok(addr);
            }
            return self.allocate_raw_small(class, size, align);
        }
        self.allocate_raw_slowly(size, align)
    }

    // Nothing is to be kept over these calls, so that what calls them needs no frame.
    #[inline(never)]
    fn allocate_raw_small(&self, class: usize, size: u64, align: u64) -> Result<u64, AllocError> {
        match self.inner.heap.pick_own(class) {
            Some(addr) => Ok(addr),
            None => self.allocate_raw_slowly(size, align),
        }
    }

    #[cold]
    fn allocate_raw_slowly(&self, size: u64, align: u64) -> Result<u64, AllocError> {
        match self.take_part(size, align)? {
            Some(taken) => Ok(taken.addr),
            None => self.allocate_raw_own(size, align),
        }
    }

    /// A slot or a run for `size` bytes at a multiple of `align`, whatever these are; `None` if they
    /// need pages of their own.
    pub(crate) fn take_part(&self, size: u64, align: u64) -> Result<Option<Taken>, AllocError> {
        if let Some(taken) = self.take_extent(size, align) {
            return Ok(Some(taken));
        }
        match class_of(size, align) {
            Some(class) if align <= self.inner.page_size && size > 0 => {
                match self.take_slot(class) {
                    Ok(taken) => Ok(Some(taken)),
                    // A page of its own may lie where no arena can begin.
                    Err(AllocError::Exhausted { .. }) => Ok(None),
                    Err(error) => Err(error),
                }
            }
            _ => Ok(None),
        }
    }

    /// Clears `size` bytes of what was just taken, if they may hold others'.
    pub(crate) fn clear_taken(&self, taken: &Taken, size: u64) {
        let heap = &self.inner.heap;
        if taken.dirty && !heap.settings.clear_on_free {
            heap.clear(taken.addr, size);
        }
    }

    /// As [`LowAllocator::allocate_raw`], with all bytes zero.
    ///
    /// # Errors
    /// As there.
    pub fn allocate_raw_zeroed(&self, size: u64, align: u64) -> Result<u64, AllocError> {
        // Fresh pages are zero.
        let Some(taken) = self.take_part(size, align)? else {
            return self.allocate_raw_own(size, align);
        };
        self.clear_taken(&taken, size);
        Ok(taken.addr)
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
        let Some(taken) = self.take_part(size, align)? else {
            return self.allocate_certified_own(size, align);
        };
        self.clear_taken(&taken, size);
        let certificate = taken.certificate(self.inner.heap.settings.random);
        Ok((taken.addr, certificate))
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
        let freed = match self.inner.heap.own_home(addr) {
            None => self.deallocate_raw_slowly(addr),
            Some((mut pool, arena)) => {
                if pool.has_room_for_freed() {
                    if pool.give_ready(arena, addr).is_some() {
                        drop(pool);
                        return Ok(());
                    }
                } else if pool.frees_at_once()
                    && let Some(emptied) = pool.give_free(arena, addr)
                {
                    drop(pool);
                    if emptied {
                        self.inner.heap.sweep(arena, arena.number());
                    }
                    return Ok(());
                }
                self.deallocate_raw_small(pool, arena, addr)
            }
        };
        freed.map_err(|refusal| refusal.at(addr))
    }

    // Nothing is to be kept over these calls, so that what calls them needs no frame.
    #[inline(never)]
    fn deallocate_raw_small(
        &self,
        pool: OwnPool<'_>,
        arena: &Arena,
        addr: u64,
    ) -> Result<(), Refusal> {
        if self.inner.heap.give_to(pool, arena, addr) {
            return Ok(());
        }
        self.deallocate_raw_slowly(addr)
    }

    #[cold]
    fn deallocate_raw_slowly(&self, addr: u64) -> Result<(), Refusal> {
        let freed = match self.give_part(addr) {
            Some(freed) => freed,
            None => self.deallocate_raw_own(addr),
        };
        freed.map_err(Refusal::of)
    }

    /// Frees the slot or run at `addr`; `None` if it lies in pages of its own, or is not ours.
    pub(crate) fn give_part(&self, addr: u64) -> Option<Result<(), Misuse>> {
        let given = self.inner.heap.give(addr);
        given.or_else(|| self.inner.extents.as_ref()?.give(addr))
    }

    /// Makes the block in use at `addr`, allocated by address, hold `size` bytes, not 0, where it lies;
    /// gives how many it may hold then, if that can be done. Pages of its own that it does not need
    /// any more are given back; bytes that are added may hold anything.
    ///
    /// # Safety
    /// If a block in use starts at `addr`, it is the caller's, and nothing refers to what lies in it
    /// beyond `size`.
    pub unsafe fn resize_raw(&self, addr: u64, size: u64) -> Option<u64> {
        if size == 0 {
            return None;
        }
        if let Some(slot) = self.inner.heap.usable_size(addr) {
            return (size <= slot).then_some(slot);
        }
        let extents = self.inner.extents.as_ref();
        let run = extents.and_then(|extents| extents.resize(addr, size));
        if run.is_some() {
            return run;
        }
        let mut owned = self.inner.raw_owned.lock();
        let own = owned.get_mut(&addr)?;
        own.resize(self, size).then(|| own.range().len())
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
        let extents = self.inner.extents.as_ref();
        let run = || extents?.used_at(addr).map(|run| run.len());
        slot.or_else(run).or_else(|| {
            let owned = self.inner.raw_owned.lock();
            owned.get(&addr).map(|own| own.range().len())
        })
    }

    /// What of this allocator's lies at `addr`, which need not be a start; `None` if nothing does.
    #[must_use]
    pub fn owner_of(&self, addr: u64) -> Option<Owned> {
        let extents = self.inner.extents.as_ref();
        let run = || extents?.around(addr);
        if let Some((range, in_use)) = self.inner.heap.around(addr).or_else(run) {
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
