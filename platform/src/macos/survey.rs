//! Which addresses are taken: `mach_vm_region`, mapping by mapping, and `__PAGEZERO`, which that
//! call does not list. Stacks are mapped with all their room, and there is no brk heap.
//!
//! Invariant: what is written to `out` is ascending and does not overlap.

use super::abi::{self, KernReturn};
use super::syscalls::RegionInfo;
use super::{MacOsPlatform, Syscalls, os_error};
use crate::contract::{Holder, Region};
use crate::error::PlatformError;
use crate::range::AddrRange;
use crate::regions::{push_merged, region};

/// Name of the segment that keeps the bottom of the address space empty.
const PAGEZERO: &str = "__PAGEZERO";

impl<S: Syscalls> MacOsPlatform<S> {
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
        .map_err(|code| os_error("mach_vm_region for a survey", within, code))?;
        if let Some(bottom) = self.bottom(within) {
            out.insert(0, region(bottom, Holder::System));
        }
        Ok(())
    }

    /// The regions with names, kinds and access.
    pub(super) fn describe_within(&self, within: AddrRange) -> Result<Vec<Region>, PlatformError> {
        let (program, _) = self.sys.main_header();
        let program = self.sys.region_filename(program);
        let mut out = Vec::new();
        if let Some(bottom) = self.bottom(within) {
            out.push(Region {
                name: PAGEZERO.to_owned(),
                access: "---p".to_owned(),
                ..region(bottom, Holder::System)
            });
        }
        self.each_region(within, &mut |part, info| {
            let name = self.sys.region_filename(part.start());
            let holder = match &*name {
                "" => Holder::Mapping,
                file if file == program => Holder::Executable,
                _ => Holder::Library,
            };
            let access = self.access_of(part, info.protection);
            out.push(Region {
                name,
                access,
                ..region(part, holder)
            });
        })
        .map_err(|code| os_error("mach_vm_region for a description", within, code))?;
        Ok(out)
    }

    fn access_of(&self, range: AddrRange, protection: i32) -> String {
        let bit = |bit: i32, letter: char| if protection & bit == 0 { '-' } else { letter };
        let access = [
            bit(abi::VM_PROT_READ, 'r'),
            bit(abi::VM_PROT_WRITE, 'w'),
            bit(abi::VM_PROT_EXECUTE, 'x'),
            if self.views.touches(range) { 's' } else { 'p' },
        ];
        access.iter().collect()
    }

    /// The part of `__PAGEZERO` within `within`.
    fn bottom(&self, within: AddrRange) -> Option<AddrRange> {
        self.pagezero.intersection(within)
    }

    /// Calls `each` with every mapping that overlaps `within`, clipped to it, ascending.
    pub(super) fn each_region(
        &self,
        within: AddrRange,
        each: &mut dyn FnMut(AddrRange, RegionInfo),
    ) -> Result<(), KernReturn> {
        let mut from = within.start().max(self.pagezero.end());
        while from < within.end() {
            let info = match self.sys.mach_vm_region(from) {
                Ok(info) => info,
                Err(KernReturn::INVALID_ADDRESS) => break,
                Err(code) => return Err(code),
            };
            let held = AddrRange::at(info.start, info.len).filter(|held| held.end() > from);
            let held = held.ok_or(KernReturn::FAILURE)?;
            // Another thread may have joined it to what was reported before.
            let rest = AddrRange::new(held.start().max(from), held.end());
            if let Some(part) = rest.and_then(|rest| rest.intersection(within)) {
                each(part, info);
            }
            from = held.end();
        }
        Ok(())
    }
}
