//! Low copies of the host's constant data that all links of a session share: one a symbol.
//!
//! Each link's new copies lie together in read-only memory of their own, which belongs to the
//! modules that use them and goes with the last of these. Invariant: what the table names is
//! looked at under its lock, and only while some module holds its memory.

use std::sync::{Arc, Weak};

use hashbrown::HashMap;
use low2g_platform::{AddrRange, to_u64, to_usize};
use parking_lot::Mutex;

use crate::place::{Finalized, PlaceError, Placer, SectionKind, SectionRequest};

use super::far::{MIRROR_ALIGN, Mirror};

/// The copies of a session.
#[derive(Debug, Default)]
pub(crate) struct Mirrors {
    /// By address and size of the original.
    known: Mutex<HashMap<(u64, usize), Copied>>,
}

#[derive(Debug)]
struct Copied {
    addr: u64,
    memory: Weak<Finalized>,
}

/// Where a link's mirrors are, in its order, and what keeps them there.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) addrs: Vec<u64>,
    pub(crate) memory: Vec<Arc<Finalized>>,
}

impl Mirrors {
    /// The copies that `wanted` stands for: those already there, and new ones placed by `placer`.
    pub(crate) fn obtain(&self, wanted: &[Mirror], placer: &Placer) -> Result<Shared, PlaceError> {
        let mut known = self.known.lock();
        known.retain(|_, copied| copied.memory.strong_count() > 0);
        let mut shared = Shared::default();
        let (mut size, mut missing) = (0u64, Vec::new());
        for mirror in wanted {
            let found = known.get(&key(mirror)).and_then(|copied| {
                let memory = copied.memory.upgrade()?;
                let range = AddrRange::at(copied.addr, to_u64(mirror.bytes.len()))?;
                // Another library may have come where the original was.
                (memory.read(range)? == mirror.bytes).then_some((copied.addr, memory))
            });
            if let Some((addr, memory)) = found {
                shared.addrs.push(addr);
                if !shared.memory.iter().any(|held| Arc::ptr_eq(held, &memory)) {
                    shared.memory.push(memory);
                }
            } else {
                let offset = size.next_multiple_of(mirror.align());
                size = offset + to_u64(mirror.bytes.len());
                missing.push((shared.addrs.len(), offset));
                shared.addrs.push(0);
            }
        }
        if missing.is_empty() {
            return Ok(shared);
        }
        let mut memory = placer.place(&[SectionRequest {
            kind: SectionKind::ReadOnly,
            size,
            align: MIRROR_ALIGN,
            zero_fill: false,
            anywhere: false,
            at: None,
        }])?;
        for &(number, offset) in &missing {
            let bytes = &wanted[number].bytes;
            memory.working_mem(0)[to_usize(offset)..][..bytes.len()].copy_from_slice(bytes);
        }
        let memory = Arc::new(memory.finalize()?);
        for (number, offset) in missing {
            let addr = memory.slot(0).addr + offset;
            shared.addrs[number] = addr;
            let memory = Arc::downgrade(&memory);
            known.insert(key(&wanted[number]), Copied { addr, memory });
        }
        shared.memory.push(memory);
        Ok(shared)
    }
}

fn key(mirror: &Mirror) -> (u64, usize) {
    (mirror.original, mirror.bytes.len())
}
