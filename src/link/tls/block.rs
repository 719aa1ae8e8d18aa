//! The link's own thread-local block: which variable stands at which offset.
//!
//! ```text
//! 0                 file_size                       size
//! | .tdata sections | .tbss sections, common symbols |     aligned to the strictest
//! ```
//!
//! The order is GNU ld's: sections with contents, then those without, each in input order.
//! Invariant: after `lay_out`, offsets are aligned and `size` is below 2^31.

use hashbrown::HashMap;
use low2g_platform::align_up;

use crate::link::engine::Tables;
use crate::link::error::LinkError;
use crate::link::symbols::to_index;

/// Offsets from the thread pointer are 32-bit fields in code.
const LIMIT: u64 = 1 << 31;

/// The carrier's file is padded to the alignment: no more than this, in bytes.
const MAX_ALIGN: u64 = 1 << 20;

/// Object and section number.
type SectionNumber = (usize, usize);

/// The block's layout.
#[derive(Debug, Default)]
pub(crate) struct Block {
    pub(crate) sections: Vec<SectionNumber>,
    /// Global, size and alignment of thread-local common symbols.
    pending_commons: Vec<(u32, u64, u64)>,
    /// Offsets of thread-local common symbols, by global.
    pub(crate) commons: HashMap<u32, u64>,
    /// Bytes that have initial values.
    pub(crate) file_size: u64,
    /// Bytes of all.
    pub(crate) size: u64,
    /// A power of two; 1 if the block is empty.
    pub(crate) align: u64,
}

impl Block {
    pub(crate) fn add_section(&mut self, object: usize, section: usize) {
        self.sections.push((object, section));
    }

    pub(crate) fn add_common(&mut self, global: u32, size: u64, align: u64) {
        self.pending_commons.push((global, size, align));
    }

    /// Object and section numbers of the sections.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = (u32, u32)> {
        let number = |index| u32::try_from(index).expect("fewer than 2^32");
        self.sections
            .iter()
            .map(move |&(object, section)| (number(object), number(section)))
    }

    /// Gives every section and common symbol its offset.
    pub(crate) fn lay_out(&mut self, tables: &mut Tables<'_>) -> Result<(), LinkError> {
        self.align = 1;
        // A stable sort keeps the input order.
        self.sections.sort_by_key(|&(object, section)| {
            tables.objects[object].sections[section].is_zero_fill()
        });
        for index in 0..self.sections.len() {
            let (object, section) = self.sections[index];
            let section = &tables.objects[object].sections[section];
            let (size, align, zero) = (section.size, section.align, section.is_zero_fill());
            let Some(offset) = self.allot(size, align) else {
                return Err(too_big(&tables.objects[object].name, size, align));
            };
            if !zero {
                self.file_size = self.size;
            }
            let (object, section) = self.sections[index];
            tables.objects[object].sections[section].tls_offset = offset;
        }
        for (global, size, align) in std::mem::take(&mut self.pending_commons) {
            let align = align.checked_next_power_of_two().unwrap_or(LIMIT);
            let Some(offset) = self.allot(size, align) else {
                let name = tables.symbols.list[to_index(global)].name;
                return Err(too_big(&String::from_utf8_lossy(name), size, align));
            };
            self.commons.insert(global, offset);
        }
        Ok(())
    }

    fn allot(&mut self, size: u64, align: u64) -> Option<u64> {
        if align > MAX_ALIGN {
            return None;
        }
        let offset = align_up(self.size, align)?;
        let end = offset.checked_add(size).filter(|&end| end < LIMIT)?;
        self.align = self.align.max(align);
        self.size = end;
        Some(offset)
    }

    /// The offset of the block from the thread pointer if it were a program's only one:
    /// it ends there, rounded up to its alignment (psABI, TLS variant II).
    pub(crate) fn only_offset(&self) -> u64 {
        align_up(self.size, self.align).map_or(0, u64::wrapping_neg)
    }
}

fn too_big(what: &str, size: u64, align: u64) -> LinkError {
    LinkError::object(
        what,
        format!(
            "{size} thread-local bytes aligned to {align} are too many or aligned too strictly: the link's thread-local block can have 2 GiB, aligned to 1 MiB; allocate the variable, and keep a thread-local pointer to it"
        ),
    )
}
