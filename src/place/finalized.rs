//! Memory with its final access.

use low2g_platform::{AddrRange, to_usize};

use super::error::PlaceError;
use super::memory::{Bytes, Region, RegionInfo, Slot};
use super::request::SectionKind;

/// Placed sections with their final access. Dropping it unmaps them.
#[derive(Debug, Default)]
pub struct Finalized {
    pub(super) regions: Vec<Region>,
    pub(super) slots: Vec<Slot>,
}

impl Finalized {
    /// All regions.
    pub fn regions(&self) -> impl Iterator<Item = &RegionInfo> {
        self.regions.iter().map(|region| &region.info)
    }

    /// Address, size and region of section `index`.
    ///
    /// # Panics
    /// If there is no such section.
    #[must_use]
    pub fn slot(&self, index: usize) -> Slot {
        self.slots[index]
    }

    /// The region of section `index`; `None` for a section without bytes.
    #[must_use]
    pub fn region_of(&self, index: usize) -> Option<&RegionInfo> {
        Some(&self.regions[self.slots.get(index)?.region?].info)
    }

    /// The bytes of section `index` if its region is still writable, for the link's own slots.
    pub(crate) fn data_mem(&mut self, index: usize) -> Option<&mut [u8]> {
        let slot = *self.slots.get(index)?;
        let region = self.regions.get_mut(slot.region?)?;
        let start = to_usize(slot.addr - region.info.range.start());
        let range = start..start + to_usize(slot.size);
        match &mut region.bytes {
            Bytes::Mapped(mapping) => mapping.working_mem()?.get_mut(range),
            Bytes::Buffer(buffer) => buffer.get_mut(range),
            Bytes::Untouched | Bytes::Writing(_) | Bytes::Published(_) => None,
        }
    }

    /// Takes write access from the (data) region of section `index`, for good.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn make_read_only(&mut self, index: usize) -> Result<(), PlaceError> {
        match self.slots[index].region {
            Some(number) => self.regions[number].set_access(SectionKind::ReadOnly),
            None => Ok(()),
        }
    }

    /// Every region with its bytes as the process sees them now; `None` for zero-fill ones.
    pub(crate) fn contents(&self) -> impl Iterator<Item = (&RegionInfo, Option<Vec<u8>>)> {
        self.regions.iter().map(|region| {
            let bytes = !region.info.zero_fill;
            (
                &region.info,
                bytes.then(|| region.read(region.info.range)).flatten(),
            )
        })
    }

    /// Copies out `range`, as the process sees it now; `None` if no region holds all of it.
    /// A zero-fill region of a dry run reads as zeros.
    #[must_use]
    pub fn read(&self, range: AddrRange) -> Option<Vec<u8>> {
        let region = self
            .regions
            .iter()
            .find(|region| region.info.range.encloses(range))?;
        region.read(range)
    }
}
