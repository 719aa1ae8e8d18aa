//! The map of the process with names, kinds and access, for pictures and error texts.

use super::abi;
use super::vmmap::Entry;
use super::{FreeBsdPlatform, Syscalls, os_error, retry};
use crate::contract::{Holder, Region};
use crate::error::PlatformError;
use crate::range::AddrRange;

/// Bytes of the longest path that the kernel gives (`PATH_MAX`).
const PATH_MAX: usize = 1024;

impl<S: Syscalls> FreeBsdPlatform<S> {
    /// The regions with names, kinds and access.
    pub(super) fn describe_within(&self, within: AddrRange) -> Result<Vec<Region>, PlatformError> {
        // Without a path (the file is gone) the program counts as one more file.
        let executable = self.executable().unwrap_or_default();
        let brk = self.sys.sbrk();
        let mut out: Vec<Region> = Vec::new();
        self.each_entry(&mut |entry| {
            let range = AddrRange::new(entry.start, entry.end);
            if let Some(range) = range.and_then(|range| range.intersection(within)) {
                out.extend(self.region_of(&entry, range, &executable, brk));
            }
            entry.end < within.end()
        })
        .map_err(|errno| os_error("sysctl(KERN_PROC_VMMAP) for a description", within, errno))?;
        self.add_kept_room(within, &mut out);
        Ok(out)
    }

    /// One entry as regions: a view of ours that the kernel joined with a neighbour still shows as shared.
    fn region_of(
        &self,
        entry: &Entry<'_>,
        range: AddrRange,
        executable: &str,
        brk: u64,
    ) -> Option<Region> {
        let name = String::from_utf8_lossy(entry.path);
        let is_heap = brk != 0 && entry.start < brk && brk <= entry.end && name.is_empty();
        let (holder, name) = if entry.flags & abi::KVME_FLAG_GROWS_DOWN != 0 {
            (Holder::Stack, "[stack]")
        } else if entry.kind == abi::KVME_TYPE_GUARD {
            (Holder::System, "[guard]")
        } else if is_heap {
            (Holder::Brk, "[heap]")
        } else if name.is_empty() {
            (Holder::Mapping, "")
        } else if name == executable {
            (Holder::Executable, &*name)
        } else {
            (Holder::Library, &*name)
        };
        Some(Region {
            range,
            holder,
            name: name.to_owned(),
            access: self.access_of(entry, range),
        })
    }

    fn access_of(&self, entry: &Entry<'_>, range: AddrRange) -> String {
        let bit = |bit: i32, letter: char| {
            if entry.protection & bit == 0 {
                '-'
            } else {
                letter
            }
        };
        [
            bit(abi::KVME_PROT_READ, 'r'),
            bit(abi::KVME_PROT_WRITE, 'w'),
            bit(abi::KVME_PROT_EXEC, 'x'),
            if self.views.touches(range) { 's' } else { 'p' },
        ]
        .iter()
        .collect()
    }

    /// The program's path.
    fn executable(&self) -> Option<String> {
        // Process id -1 is the calling process.
        let mib = [abi::CTL_KERN, abi::KERN_PROC, abi::KERN_PROC_PATHNAME, -1];
        let mut bytes = [0; PATH_MAX];
        let written = retry(|| self.sys.sysctl(&mib, Some(&mut bytes))).ok()?;
        let path = bytes.get(..written)?;
        let end = path.iter().position(|&byte| byte == 0);
        let path = path.get(..end.unwrap_or(path.len()))?;
        Some(String::from_utf8_lossy(path).into_owned())
    }
}
