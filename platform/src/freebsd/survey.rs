//! Which addresses are taken: `sysctl KERN_PROC_VMMAP`, the system's own map of the process.
//!
//! Guards and the room that a stack may grow into are entries of that map
//! (`KVME_TYPE_GUARD`), so only the room of the brk heap is added here.
//!
//! Invariant: what is written to `out` is ascending and does not overlap.

use super::abi::{self, Errno};
use super::vmmap::{self, Entry};
use super::{FreeBsdPlatform, Syscalls, os_error, retry};
use crate::contract::Region;
use crate::error::PlatformError;
use crate::range::{AddrRange, align_up};
use crate::regions::{add_room_above, push_merged};

/// Where the main stack ends when the kernel does not tell (amd64, sys/amd64/include/vmparam.h).
pub(super) const USUAL_STACK: u64 = 0x7fff_ffff_f000;

/// How often the map is read again because it grew between asking for its size and for itself.
const TRIES: usize = 8;

impl<S: Syscalls> FreeBsdPlatform<S> {
    /// Replaces `out` by the occupied regions that overlap `within`, and the room kept clear.
    pub(super) fn survey_into(
        &self,
        within: AddrRange,
        out: &mut Vec<Region>,
    ) -> Result<(), PlatformError> {
        out.clear();
        self.each_entry(&mut |entry| {
            if entry.start < within.end() {
                push_merged(within, entry.start, entry.end, out);
            }
            entry.end < within.end()
        })
        .map_err(|errno| os_error("sysctl(KERN_PROC_VMMAP) for a survey", within, errno))?;
        self.add_kept_room(within, out);
        Ok(())
    }

    /// Whether anything is mapped in `range`.
    pub(super) fn is_taken(&self, range: AddrRange) -> Result<bool, Errno> {
        let mut taken = false;
        self.each_entry(&mut |entry| {
            taken |= entry.start < range.end() && range.start() < entry.end;
            entry.end < range.end()
        })?;
        Ok(taken)
    }

    /// Calls `each` with every entry of the map, ascending, until it returns false.
    pub(super) fn each_entry(&self, each: &mut dyn FnMut(Entry<'_>) -> bool) -> Result<(), Errno> {
        let bytes = self.read_map()?;
        vmmap::entries(&bytes, each).map_err(|_| Errno::EINVAL)
    }

    fn read_map(&self) -> Result<Vec<u8>, Errno> {
        let mib = [
            abi::CTL_KERN,
            abi::KERN_PROC,
            abi::KERN_PROC_VMMAP,
            self.sys.getpid(),
        ];
        let mut last = Errno::ENOMEM;
        for _ in 0..TRIES {
            let needed = retry(|| self.sys.sysctl(&mib, None))?;
            // A third more, as libutil's kinfo_getvmmap does: other threads map meanwhile.
            let mut bytes = vec![0; needed + needed / 3 + 1024];
            match retry(|| self.sys.sysctl(&mib, Some(&mut bytes))) {
                Ok(written) => {
                    bytes.truncate(written);
                    return Ok(bytes);
                }
                Err(Errno::ENOMEM) => last = Errno::ENOMEM,
                Err(errno) => return Err(errno),
            }
        }
        Err(last)
    }

    /// Adds the free room in which brk grows.
    pub(super) fn add_kept_room(&self, within: AddrRange, out: &mut Vec<Region>) {
        let brk = self.sys.sbrk();
        let start = align_up(brk, self.config.page_size);
        let room = start.and_then(|start| AddrRange::at(start, self.options.brk_room));
        if let Some(room) = room.filter(|_| brk != 0) {
            add_room_above(room, within, out);
        }
    }
}
