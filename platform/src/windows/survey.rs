//! Which addresses are taken: `VirtualQuery`, run of pages by run of pages.
//!
//! Stacks are reserved with all their room, and there is no brk heap: no room is added. The end of
//! a reservation need not be the end of its 64 KiB slot; what follows in the slot is free and
//! nobody can begin a mapping there.
//!
//! Invariant: what is written to `out` is ascending and does not overlap.

use super::abi::{self, Win32Error};
use super::syscalls::MemoryInfo;
use super::{Syscalls, WindowsPlatform, os_error};
use crate::contract::{Holder, Region};
use crate::error::PlatformError;
use crate::range::AddrRange;
use crate::regions::{push_merged, region};

/// Where every process has the system's read-only page of clocks (winnt.h, ntddk.h).
const KUSER_SHARED_DATA: u64 = 0x7ffe_0000;

impl<S: Syscalls> WindowsPlatform<S> {
    /// Replaces `out` by the occupied regions that overlap `within`.
    pub(super) fn survey_into(
        &self,
        within: AddrRange,
        out: &mut Vec<Region>,
    ) -> Result<(), PlatformError> {
        out.clear();
        self.each_region(within, &mut |part, _| {
            push_merged(within, part.start(), part.end(), out);
        })
        .map_err(|code| os_error("VirtualQuery for a survey", within, code))?;
        self.add_ends(within, out);
        Ok(())
    }

    /// The regions with names, kinds and access.
    pub(super) fn describe_within(&self, within: AddrRange) -> Result<Vec<Region>, PlatformError> {
        let mut out = Vec::new();
        let mut allocations = Vec::new();
        self.each_region(within, &mut |part, info| {
            let (holder, name) = self.holder(&info);
            out.push(Region {
                name,
                access: access_of(&info),
                ..region(part, holder)
            });
            allocations.push(info);
        })
        .map_err(|code| os_error("VirtualQuery for a description", within, code))?;
        // A reservation with a guard page is a stack.
        for guard in &allocations {
            if guard.protect & abi::PAGE_GUARD == 0 || guard.kind != abi::MEM_PRIVATE {
                continue;
            }
            for (region, info) in out.iter_mut().zip(&allocations) {
                if info.allocation == guard.allocation {
                    region.holder = Holder::Stack;
                    "[stack]".clone_into(&mut region.name);
                }
            }
        }
        self.add_ends(within, &mut out);
        Ok(out)
    }

    fn holder(&self, info: &MemoryInfo) -> (Holder, String) {
        if info.base <= KUSER_SHARED_DATA && KUSER_SHARED_DATA < info.base + info.len {
            return (Holder::System, "KUSER_SHARED_DATA".to_owned());
        }
        match info.kind {
            abi::MEM_IMAGE if info.allocation == self.sys.program() => (
                Holder::Executable,
                self.sys.get_module_file_name(info.allocation),
            ),
            abi::MEM_IMAGE => match self.sys.get_module_file_name(info.allocation) {
                name if name.is_empty() => {
                    (Holder::Library, self.sys.get_mapped_file_name(info.base))
                }
                name => (Holder::Library, name),
            },
            abi::MEM_MAPPED => match self.sys.get_mapped_file_name(info.base) {
                name if name.is_empty() => (Holder::Mapping, name),
                name => (Holder::Library, name),
            },
            _ => (Holder::Mapping, String::new()),
        }
    }

    /// What lies below the first or above the last address of the process is the system's.
    fn add_ends(&self, within: AddrRange, out: &mut Vec<Region>) {
        let below = AddrRange::new(0, self.user.start());
        if let Some(below) = below.and_then(|below| below.intersection(within)) {
            out.insert(0, region(below, Holder::System));
        }
        let above = AddrRange::new(self.user.end(), u64::MAX);
        if let Some(above) = above.and_then(|above| above.intersection(within)) {
            out.push(region(above, Holder::System));
        }
    }

    /// Calls `each` with what is not free in `within`, clipped to it, ascending.
    fn each_region(
        &self,
        within: AddrRange,
        each: &mut dyn FnMut(AddrRange, MemoryInfo),
    ) -> Result<(), Win32Error> {
        let Some(within) = within.intersection(self.user) else {
            return Ok(());
        };
        let mut from = within.start();
        while from < within.end() {
            let info = self.sys.virtual_query(from)?;
            let end = info.base.saturating_add(info.len);
            let rest = AddrRange::new(from, end).filter(|rest| !rest.is_empty());
            let rest = rest.ok_or(Win32Error::INVALID_ADDRESS)?;
            if let Some(part) = rest.intersection(within)
                && info.state != abi::MEM_FREE
            {
                each(part, info);
            }
            from = end;
        }
        Ok(())
    }
}

/// `rwxp`, where a page that becomes private when it is written counts as one that can be written.
fn access_of(info: &MemoryInfo) -> String {
    let bits = if info.state == abi::MEM_COMMIT && info.protect & abi::PAGE_GUARD == 0 {
        info.protect & 0xff
    } else {
        abi::PAGE_NOACCESS
    };
    let access = match bits {
        abi::PAGE_READONLY => "r--",
        abi::PAGE_READWRITE | abi::PAGE_WRITECOPY => "rw-",
        abi::PAGE_EXECUTE => "--x",
        abi::PAGE_EXECUTE_READ => "r-x",
        abi::PAGE_EXECUTE_READWRITE | abi::PAGE_EXECUTE_WRITECOPY => "rwx",
        _ => "---",
    };
    let shared = if info.kind == abi::MEM_MAPPED {
        "s"
    } else {
        "p"
    };
    format!("{access}{shared}")
}
