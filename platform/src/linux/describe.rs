//! The map of the process with names, kinds and access, for pictures and error texts.

use super::{LinuxPlatform, Syscalls, os_error};
use crate::contract::{Holder, Region};
use crate::error::PlatformError;
use crate::range::AddrRange;

impl<S: Syscalls> LinuxPlatform<S> {
    /// The regions with names, kinds and access.
    pub(super) fn describe_within(&self, within: AddrRange) -> Result<Vec<Region>, PlatformError> {
        let lines = self.sys.process_maps().map_err(|errno| {
            os_error("reading /proc/self/maps for a description", within, errno)
        })?;
        // Without /proc/self/exe (a chroot) the program counts as one more file.
        let executable = self.sys.executable().unwrap_or_default();
        let anchor = self.anchor.get().copied().flatten();
        let mut out: Vec<Region> = Vec::new();
        for line in lines {
            let Some(whole) = AddrRange::new(line.start, line.end) else {
                continue;
            };
            let Some(range) = whole.intersection(within) else {
                continue;
            };
            let (holder, name) = if anchor == Some(whole) {
                (Holder::System, ANCHOR_NAME.to_owned())
            } else {
                (holder_of(&line.name, &executable), line.name)
            };
            out.push(Region {
                range,
                holder,
                name,
                access: line.access,
            });
        }
        self.add_kept_room(within, &mut out);
        Ok(out)
    }
}

/// The name that [`Platform::describe`](crate::Platform::describe) gives the anchor page.
const ANCHOR_NAME: &str = "[low2g anchor]";

/// What kind of thing the kernel's name tells.
fn holder_of(name: &str, executable: &str) -> Holder {
    match name {
        "" => Holder::Mapping,
        "[heap]" => Holder::Brk,
        "[vdso]" | "[vsyscall]" => Holder::System,
        _ if name == executable => Holder::Executable,
        _ if name.starts_with("[vvar") => Holder::System,
        _ if name.starts_with("[stack") => Holder::Stack,
        _ if name.starts_with("/memfd:") || name.starts_with("/dev/zero") => Holder::Mapping,
        _ if name.starts_with('/') => Holder::Library,
        _ => Holder::Mapping,
    }
}
