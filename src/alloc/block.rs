//! [`LowBlock`]: data from one byte up. Large ones have a mapping of their own,
//! small ones a slot in an arena.
//!
//! Invariants: a block's bytes are readable, writable, zero at first, and
//! nobody else's while it lives; an arena goes with its last block.

use low2g_platform::{AddrRange, to_usize};

use crate::alloc::allocator::{LowAllocator, whole_pages};
use crate::alloc::certificate::Certificate;
use crate::alloc::error::{AllocError, Misuse};
use crate::alloc::heap::{GRANULE, Taken};
use crate::alloc::own::Claimed;
use crate::alloc::space::Kind;

/// Low memory for data, zeroed; dropping it frees it.
#[derive(Debug)]
pub struct LowBlock {
    allocator: LowAllocator,
    range: AddrRange,
    home: Home,
}

#[derive(Debug)]
enum Home {
    /// Pages of its own.
    Own(Claimed),
    /// A slot or a run of so many bytes.
    Part(u64, Certificate),
}

impl LowAllocator {
    /// `size` zeroed bytes at a multiple of `align`, a power of two.
    ///
    /// # Errors
    /// See [`AllocError`]; nothing of the request is left mapped.
    pub fn allocate(&self, size: u64, align: u64) -> Result<LowBlock, AllocError> {
        self.check_block(size, align)?;
        let Some(taken) = self.take_part(size, align)? else {
            let own = self.with_trim(|| self.claim_own(size, align, Kind::Block))?;
            return Ok(LowBlock {
                allocator: self.clone(),
                range: part(own.range().start(), size),
                home: Home::Own(own),
            });
        };
        self.clear_taken(&taken, taken.bytes);
        Ok(LowBlock {
            allocator: self.clone(),
            range: part(taken.addr, size),
            home: Home::Part(
                taken.bytes,
                taken.certificate(self.inner.heap.settings.random),
            ),
        })
    }

    /// Whether a block of this size and alignment can be asked for.
    pub(crate) fn check_block(&self, size: u64, align: u64) -> Result<(), AllocError> {
        whole_pages(size, self.page_size())?;
        if align.is_power_of_two() {
            return Ok(());
        }
        Err(AllocError::BadRequest {
            what: "alignment",
            value: align,
            expected: "a power of two",
        })
    }

    /// Refuses a slot that is too easy to guess.
    pub(crate) fn check_minimum(&self, certificate: &Certificate) -> Result<(), AllocError> {
        let inner = &self.inner;
        let pairs = [
            (certificate.entropy_bits, inner.min_entropy),
            (certificate.conditional_bits, inner.min_conditional_entropy),
        ];
        let missed = pairs.into_iter().find(|(bits, minimum)| bits < minimum);
        let Some((bits, minimum)) = missed else {
            return Ok(());
        };
        Err(AllocError::EntropyTooLow {
            bits,
            minimum,
            free_slots: certificate.free_slots,
            advice: "use randomized placement without a seed, or lower the minimum",
        })
    }

    /// Takes a slot of `class`, adding an arena where the placement asks for one.
    #[inline]
    pub(crate) fn take_slot(&self, class: usize) -> Result<Taken, AllocError> {
        let heap = &self.inner.heap;
        let taken = heap.take(class, |size| self.map_own(size, GRANULE, Kind::Arena))?;
        if heap.settings.checked {
            self.check_slot(&taken)?;
        }
        Ok(taken)
    }

    /// What hardening asks of a slot that was just picked.
    #[cold]
    fn check_slot(&self, taken: &Taken) -> Result<(), AllocError> {
        let heap = &self.inner.heap;
        let slot = taken.bytes;
        if heap.settings.clear_on_free && taken.dirty && !heap.is_clear(taken.addr, slot) {
            // The slot stays taken: whoever wrote to it may do so again.
            return Err(AllocError::Misuse(Misuse::WrittenAfterFree {
                addr: taken.addr,
                size: slot,
            }));
        }
        let refused = self.check_minimum(&taken.certificate(heap.settings.random));
        if refused.is_err() {
            heap.give(taken.addr)
                .expect("the slot lies in an arena")
                .expect("the slot was just picked");
        }
        refused
    }
}

impl LowBlock {
    /// Address of the first byte.
    #[must_use]
    pub fn addr(&self) -> u64 {
        self.range.start()
    }

    /// The address as 32 bits; `None` if the block does not end below 4 GiB.
    #[must_use]
    pub fn addr32(&self) -> Option<u32> {
        u32::try_from(self.range.end() - 1).ok()?;
        u32::try_from(self.range.start()).ok()
    }

    /// Bytes asked for.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.range.len()
    }

    /// Bytes set aside for it: its slot's, or its whole pages'.
    #[must_use]
    pub fn usable_size(&self) -> u64 {
        match &self.home {
            Home::Own(own) => own.range().len(),
            Home::Part(bytes, _) => *bytes,
        }
    }

    /// Makes it `size` bytes where it lies, if that fits what is set aside for it
    /// ([`LowBlock::usable_size`]) or can be; says whether it did. Bytes that are added are zero.
    ///
    /// What a block with pages of its own does not need any more is given back, page by page; one
    /// without a guard behind it grows into the pages that follow, if those are free.
    pub fn resize_in_place(&mut self, size: u64) -> bool {
        let (before, usable) = (self.size(), self.usable_size());
        if size == 0 || !self.makes_room(size) {
            return false;
        }
        self.range = part(self.addr(), size);
        // They were this block's once, before it was made smaller, or a neighbour's; pages that are
        // new are zero.
        let stale = match self.home {
            Home::Own(_) => size.min(usable),
            Home::Part(..) => size,
        };
        if stale > before && !self.allocator.platform().is_simulated() {
            self.as_mut_slice()[to_usize(before)..to_usize(stale)].fill(0);
        }
        true
    }

    /// Sets aside room for `size` bytes, not 0; says whether there is.
    fn makes_room(&mut self, size: u64) -> bool {
        let (addr, low) = (self.addr(), &self.allocator);
        match &mut self.home {
            Home::Own(own) => return low.resize_claimed(own, size),
            Home::Part(bytes, _) => {
                let extents = low.inner.extents.as_ref();
                if let Some(resized) = extents.and_then(|extents| extents.resize(addr, size)) {
                    *bytes = resized;
                }
            }
        }
        size <= self.usable_size()
    }

    /// Where it lies.
    #[must_use]
    pub fn range(&self) -> AddrRange {
        self.range
    }

    /// How its address was chosen.
    #[must_use]
    pub fn certificate(&self) -> Certificate {
        match &self.home {
            Home::Own(own) => own.certificate(),
            Home::Part(_, certificate) => *certificate,
        }
    }

    /// The bytes, to read.
    ///
    /// # Panics
    /// On a simulated platform, whose addresses are only numbers.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        let start = self.pointer();
        // SAFETY: from_raw_parts needs size() bytes that are mapped, initialised and not written
        // meanwhile: see `pointer`; writing needs `&mut self`.
        unsafe { std::slice::from_raw_parts(start, to_usize(self.size())) }
    }

    /// The bytes, to write.
    ///
    /// # Panics
    /// On a simulated platform, whose addresses are only numbers.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let start = self.pointer();
        // SAFETY: from_raw_parts_mut needs size() bytes that are mapped, initialised and not
        // reachable otherwise: see `pointer`, and `&mut self` is the only way to them.
        unsafe { std::slice::from_raw_parts_mut(start, to_usize(self.size())) }
    }

    /// The first of `size()` bytes that are mapped to read and write, zeroed at first, and this block's own.
    fn pointer(&self) -> *mut u8 {
        assert!(
            !self.allocator.platform().is_simulated(),
            "a simulated platform has no memory to touch"
        );
        std::ptr::with_exposed_provenance_mut(to_usize(self.addr()))
    }
}

impl Drop for LowBlock {
    fn drop(&mut self) {
        match &self.home {
            Home::Own(own) => self.allocator.retire_claimed(own),
            Home::Part(..) => {
                let given = self.allocator.give_part(self.range.start());
                if let Some(Err(misuse)) = given {
                    panic!("a block was freed behind its handle's back: {misuse}");
                }
            }
        }
    }
}

/// `size` bytes from `start`, which lie inside a claim.
pub(crate) fn part(start: u64, size: u64) -> AddrRange {
    AddrRange::at(start, size).expect("a part of a claim does not wrap")
}
