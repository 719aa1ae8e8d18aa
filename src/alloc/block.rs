//! [`LowBlock`]: data from one byte up. Large ones have a mapping of their own,
//! small ones a slot in an arena.
//!
//! Invariants: a block's bytes are readable, writable, zero at first, and
//! nobody else's while it lives; an arena goes with its last block.

use low2g_platform::{AddrRange, Protection, to_usize};

use crate::alloc::allocator::{LowAllocator, MapRequest, whole_pages};
use crate::alloc::certificate::Certificate;
use crate::alloc::claim::Want;
use crate::alloc::error::AllocError;
use crate::alloc::exact::Source;
use crate::alloc::mapping::Mapping;
use crate::alloc::policy::Placement;
use crate::alloc::slots::{Pick, Slots, slot_size};
use crate::alloc::space::{Kind, Owned};
use crate::alloc::tier::{Arena, Class, Picked};

/// Largest slot in bytes; what needs more has a mapping of its own.
const MAX_SLOT: u64 = 32 << 10;

/// Small blocks of data.
#[derive(Debug)]
pub(crate) struct DataArena {
    mapping: Mapping,
    slots: Slots,
}

impl Arena for DataArena {
    fn base(&self) -> u64 {
        self.mapping.range().start()
    }
    fn bytes(&self) -> u64 {
        self.mapping.range().len()
    }
    fn certificate(&self) -> Certificate {
        self.mapping.certificate()
    }
    fn slots(&self) -> &Slots {
        &self.slots
    }
    fn slots_mut(&mut self) -> &mut Slots {
        &mut self.slots
    }
}

/// Low memory for data, zeroed; dropping it frees it.
#[derive(Debug)]
pub struct LowBlock {
    range: AddrRange,
    certificate: Certificate,
    home: Home,
}

#[derive(Debug)]
enum Home {
    Own(Mapping),
    Slot {
        allocator: LowAllocator,
        picked: Picked,
    },
}

impl LowAllocator {
    /// `size` zeroed bytes at a multiple of `align`, a power of two.
    ///
    /// # Errors
    /// See [`AllocError`]; nothing of the request is left mapped.
    pub fn allocate(&self, size: u64, align: u64) -> Result<LowBlock, AllocError> {
        self.check_block(size, align)?;
        let page = self.page_size();
        if size > MAX_SLOT || align > page || slot_size(size, align) > MAX_SLOT {
            let request = MapRequest {
                align,
                ..MapRequest::new(size)
            };
            let mapping = self.map(&request)?;
            return Ok(LowBlock {
                range: part(mapping.range().start(), size),
                certificate: mapping.certificate(),
                home: Home::Own(mapping),
            });
        }
        let picked = self.pick_data_slot(slot_size(size, align))?;
        let block = LowBlock {
            range: part(picked.base + picked.offset(), size),
            certificate: picked.certificate,
            home: Home::Slot {
                allocator: self.clone(),
                picked,
            },
        };
        if picked.dirty && !self.platform().is_simulated() {
            let start = std::ptr::with_exposed_provenance_mut::<u8>(to_usize(block.addr()));
            // SAFETY: write_bytes needs that many writable bytes that nobody else uses: the slot
            // was free, is now the new block's, and its arena is mapped to read and write.
            unsafe { start.write_bytes(0, to_usize(picked.class.slot)) };
        }
        // Refused only now, so that the block frees its slot.
        self.check_minimum(&picked.certificate)?;
        Ok(block)
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
        certificate.check(self.inner.min_entropy)
    }

    /// Takes a slot of `slot` bytes, adding an arena where the placement asks for one.
    fn pick_data_slot(&self, slot: u64) -> Result<Picked, AllocError> {
        let below = |bound| self.random_below(bound);
        let pick = self.pick(&below);
        let granularity = self.platform().config().granularity;
        let class = Class { slot, alone: false };
        let mut tier = self.inner.data.lock();
        let free = tier.free(class);
        if pick.wants_arena(free) {
            match self.new_data_arena(slot, &pick) {
                Ok(arena) => tier.add(class, arena),
                // Fewer candidates than wished for are better than none; the certificate says so.
                Err(_) if free > 0 => {}
                Err(error) => return Err(error),
            }
        }
        let picked = tier.take(class, granularity, &pick);
        Ok(picked.expect("there was a free slot, or an arena was added"))
    }

    /// How this allocator's placement picks slots.
    pub(crate) fn pick<'a>(&self, below: &'a dyn Fn(u64) -> u64) -> Pick<'a> {
        match self.placement() {
            Placement::FirstFit => Pick::Lowest,
            Placement::Randomized | Placement::Kernel => Pick::Random(below),
        }
    }

    fn new_data_arena(&self, slot: u64, pick: &Pick<'_>) -> Result<DataArena, AllocError> {
        let page = self.page_size();
        let full = pick.arena_bytes(slot, page);
        let mapping = match self.map_arena(full) {
            // The largest hole may still do for a small one.
            Err(AllocError::Exhausted { .. }) => self.map_arena(slot.next_multiple_of(page))?,
            result => result?,
        };
        let slots = Slots::new(mapping.range().len() / slot);
        Ok(DataArena { mapping, slots })
    }

    fn map_arena(&self, size: u64) -> Result<Mapping, AllocError> {
        let pages = &self.inner.pages;
        let protection = Protection::ReadWrite;
        let (range, certificate) = pages.claim(&Want {
            size,
            align: 1,
            window: self.window(),
            placement: self.placement(),
            // The minimum is for blocks: a slot adds its own bits.
            min_entropy: 0.0,
            source: Source::Private(protection),
            owned: Owned {
                kind: Kind::Arena,
                label: "".into(),
            },
        })?;
        Ok(Mapping::new(pages.clone(), range, certificate, protection))
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
            Home::Own(mapping) => mapping.range().len(),
            Home::Slot { picked, .. } => picked.class.slot,
        }
    }

    /// Where it lies.
    #[must_use]
    pub fn range(&self) -> AddrRange {
        self.range
    }

    /// How its address was chosen.
    #[must_use]
    pub fn certificate(&self) -> Certificate {
        self.certificate
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
        let platform = match &self.home {
            Home::Own(mapping) => mapping.platform(),
            Home::Slot { allocator, .. } => allocator.platform(),
        };
        assert!(
            !platform.is_simulated(),
            "a simulated platform has no memory to touch"
        );
        std::ptr::with_exposed_provenance_mut(to_usize(self.addr()))
    }
}

impl Drop for LowBlock {
    fn drop(&mut self) {
        if let Home::Slot { allocator, picked } = &self.home {
            let emptied = allocator.inner.data.lock().give(picked);
            // Unmapping needs no lock of the tier.
            drop(emptied);
        }
    }
}

/// `size` bytes from `start`, which lie inside a claim.
pub(crate) fn part(start: u64, size: u64) -> AddrRange {
    AddrRange::at(start, size).expect("a part of a claim does not wrap")
}
