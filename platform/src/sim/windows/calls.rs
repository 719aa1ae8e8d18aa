//! The calls of `Syscalls` on the simulated process.

use super::super::space::{Owner, SimMapping};
use super::{
    Allocation, BoundedAlloc, GRANULARITY, LAST, PAGE, RESERVED, Section, SimWindows, State,
};
use crate::range::{AddrRange, align_down, align_up};
use crate::windows::abi::{self, Win32Error};
use crate::windows::{MemoryInfo, SysResult, Syscalls, SystemInfo};
use parking_lot::MutexGuard;

impl SimWindows {
    /// Takes the lock; fails if the call was planned to.
    fn enter(&self, call: &'static str) -> SysResult<MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        state.kernel.enter(call).map_err(Win32Error)?;
        Ok(state)
    }

    /// Asserts that no page would be writable and executable, and refuses what policy refuses.
    fn may_have(&self, protect: u32) -> SysResult<()> {
        const KNOWN: [u32; 4] = [
            abi::PAGE_NOACCESS,
            abi::PAGE_READONLY,
            abi::PAGE_READWRITE,
            abi::PAGE_EXECUTE_READ,
        ];
        assert!(
            KNOWN.contains(&protect),
            "the backend asked for access {protect:#x}"
        );
        if protect == abi::PAGE_EXECUTE_READ && self.options.dynamic_code_blocked {
            return Err(Win32Error::DYNAMIC_CODE_BLOCKED);
        }
        Ok(())
    }

    /// The range at `addr`, or the lowest hole if that is 0.
    fn place(&self, state: &mut State, addr: u64, len: u64) -> SysResult<AddrRange> {
        if addr == 0 {
            return self.lowest(state, GRANULARITY, LAST, len);
        }
        let range = AddrRange::at(addr, len).filter(|range| {
            addr.is_multiple_of(GRANULARITY) && addr >= GRANULARITY && range.end() <= LAST
        });
        let range = range.ok_or(Win32Error::INVALID_PARAMETER)?;
        let prot = abi::PAGE_READWRITE.cast_signed();
        let per_mille = self.options.thief_per_mille;
        state.kernel.steal(range, PAGE, per_mille, prot);
        if self.is_free(state, range) {
            Ok(range)
        } else {
            Err(Win32Error::INVALID_ADDRESS)
        }
    }

    fn is_free(&self, state: &State, range: AddrRange) -> bool {
        let refused = self.options.refused.iter();
        state.kernel.space.is_free(range) && !refused.copied().any(|bad| bad.overlaps(range))
    }

    /// The lowest multiple of 64 KiB with `len` free bytes from it.
    fn lowest(&self, state: &State, lowest: u64, last: u64, len: u64) -> SysResult<AddrRange> {
        let mut from = lowest;
        loop {
            let range = AddrRange::at(from, len).filter(|range| range.end() - 1 <= last);
            let range = range.ok_or(Win32Error::NOT_ENOUGH_MEMORY)?;
            if self.is_free(state, range) {
                return Ok(range);
            }
            let refused = self.options.refused.iter();
            let bad = refused.filter(|bad| bad.overlaps(range));
            let held = state.kernel.space.overlapping(range);
            let ends = held.map(|held| held.range.end());
            let next = ends.chain(bad.map(|bad| bad.end())).max();
            from = next
                .and_then(|next| align_up(next, GRANULARITY))
                .expect("small");
        }
    }

    fn charge(&self, state: &mut State, bytes: u64) -> SysResult<()> {
        let total = state.committed.saturating_add(bytes);
        if total > self.options.memory {
            return Err(Win32Error::COMMITMENT_LIMIT);
        }
        state.committed = total;
        Ok(())
    }

    /// A new reservation.
    fn reserve(
        &self,
        state: &mut State,
        range: AddrRange,
        kind: u32,
        protect: u32,
    ) -> SysResult<u64> {
        let prot = if kind & abi::MEM_COMMIT != 0 {
            self.charge(state, range.len())?;
            protect.cast_signed()
        } else {
            RESERVED
        };
        insert(state, range, prot, abi::MEM_PRIVATE, protect, None);
        Ok(range.start())
    }

    /// Asserts that a write to the range would not be an exception.
    fn expect_writable(&self, addr: u64, len: u64) {
        let range = AddrRange::at(addr, len).expect("small");
        let state = self.state.lock();
        let space = &state.kernel.space;
        let write = abi::PAGE_READWRITE.cast_signed();
        assert!(
            space.is_mapped(range) && space.overlapping(range).all(|held| held.prot == write),
            "a write to {range} would be an access violation"
        );
    }
}

fn insert(
    state: &mut State,
    range: AddrRange,
    prot: i32,
    kind: u32,
    access: u32,
    shared: Option<(u64, u64)>,
) {
    let mapping = SimMapping::private(range, prot, Owner::Backend);
    state.kernel.space.insert(SimMapping { shared, ..mapping });
    let end = range.end();
    let allocation = Allocation { end, kind, access };
    state.allocations.insert(range.start(), allocation);
}

/// The allocation of the backend's that holds all of the range, of this kind.
fn own(state: &State, addr: u64, len: u64) -> SysResult<(AddrRange, Allocation)> {
    let range = AddrRange::at(addr, len).expect("small");
    assert!(
        addr.is_multiple_of(PAGE) && len.is_multiple_of(PAGE) && len > 0,
        "{addr:#x}, {len:#x}: no whole pages"
    );
    let found = state.allocations.range(..=addr).next_back();
    let found = found.filter(|(_, allocation)| range.end() <= allocation.end);
    let (_, &allocation) = found.ok_or(Win32Error::INVALID_ADDRESS)?;
    let held = state.kernel.space.overlapping(range);
    let foreign = held.filter(|held| held.owner != Owner::Backend).count();
    assert_eq!(foreign, 0, "{range} is not the backend's");
    Ok((range, allocation))
}

/// Committed bytes of private pages of `range`.
fn committed(state: &State, range: AddrRange) -> u64 {
    let held = state.kernel.space.overlapping(range);
    let held = held.filter(|held| held.prot != RESERVED && held.shared.is_none());
    held.filter_map(|held| held.range.intersection(range))
        .map(AddrRange::len)
        .sum()
}

/// Whether a view of access `most` may get `protect`.
fn compatible(most: u32, protect: u32) -> bool {
    protect == abi::PAGE_NOACCESS || protect == abi::PAGE_READONLY || protect == most
}

/// Gives the memory of sections back that nobody refers to.
fn sweep(state: &mut State) {
    let dead = |section: &Section| !section.open && section.views == 0;
    let freed: u64 = state
        .sections
        .values()
        .filter(|section| dead(section))
        .map(|section| section.len)
        .sum();
    state.sections.retain(|_, section| !dead(section));
    state.committed -= freed;
}

impl Syscalls for SimWindows {
    fn is_simulated(&self) -> bool {
        true
    }

    fn get_system_info(&self) -> SystemInfo {
        SystemInfo {
            page_size: PAGE,
            granularity: GRANULARITY,
            first: GRANULARITY,
            last: LAST,
        }
    }

    fn virtual_query(&self, addr: u64) -> SysResult<MemoryInfo> {
        let state = self.enter("VirtualQuery")?;
        if addr > LAST {
            return Err(Win32Error::INVALID_PARAMETER);
        }
        let base = align_down(addr, PAGE);
        let held = state.kernel.space.at_or_above(base);
        let Some(held) = held.filter(|held| held.range.contains(base)) else {
            let end = held.map_or(LAST + 1, |held| held.range.start());
            return Ok(MemoryInfo {
                base,
                len: end - base,
                allocation: 0,
                state: abi::MEM_FREE,
                protect: abi::PAGE_NOACCESS,
                kind: 0,
            });
        };
        // What another thread holds is listed as mappings only.
        let below = state.allocations.range(..=base).next_back();
        let within = below.filter(|(_, allocation)| base < allocation.end);
        let (start, kind) = match within {
            Some((&start, allocation)) => (start, allocation.kind),
            None => (held.range.start(), abi::MEM_PRIVATE),
        };
        let above = state.allocations.range(base + 1..).next();
        let end = within.map_or(u64::MAX, |(_, allocation)| allocation.end);
        let end = end.min(above.map_or(u64::MAX, |(&next, _)| next));
        let reserved = held.prot == RESERVED;
        Ok(MemoryInfo {
            base,
            len: held.range.end().min(end) - base,
            allocation: start,
            state: if reserved {
                abi::MEM_RESERVE
            } else {
                abi::MEM_COMMIT
            },
            protect: held.prot.cast_unsigned(),
            kind,
        })
    }

    fn virtual_alloc(&self, addr: u64, len: u64, kind: u32, protect: u32) -> SysResult<u64> {
        let mut state = self.enter("VirtualAlloc")?;
        self.may_have(protect)?;
        if kind & abi::MEM_RESERVE != 0 {
            let range = self.place(&mut state, addr, len)?;
            return self.reserve(&mut state, range, kind, protect);
        }
        let (range, allocation) = own(&state, addr, len)?;
        assert_eq!(allocation.kind, abi::MEM_PRIVATE, "a commit of a view");
        let fresh = range.len() - committed(&state, range);
        self.charge(&mut state, fresh)?;
        let prot = protect.cast_signed();
        state.kernel.space.update(range, |held| held.prot = prot);
        Ok(addr)
    }

    fn virtual_alloc2(
        &self,
        lowest: u64,
        highest: u64,
        len: u64,
        kind: u32,
        protect: u32,
    ) -> SysResult<u64> {
        let mut state = self.enter("VirtualAlloc2")?;
        self.may_have(protect)?;
        let lowest = match self.options.bounded {
            BoundedAlloc::Works => lowest,
            BoundedAlloc::IgnoresLowest => GRANULARITY,
            BoundedAlloc::Missing => return Err(Win32Error::CALL_NOT_IMPLEMENTED),
        };
        let aligned =
            lowest.is_multiple_of(GRANULARITY) && (highest + 1).is_multiple_of(GRANULARITY);
        if !aligned || lowest < GRANULARITY || highest > LAST {
            return Err(Win32Error::INVALID_PARAMETER);
        }
        let range = self.lowest(&state, lowest, highest, len)?;
        self.reserve(&mut state, range, kind, protect)
    }

    fn has_virtual_alloc2(&self) -> bool {
        self.options.bounded != BoundedAlloc::Missing
    }

    fn virtual_free(&self, addr: u64, len: u64, kind: u32) -> SysResult<()> {
        let mut state = self.enter("VirtualFree")?;
        if kind == abi::MEM_RELEASE {
            assert_eq!(len, 0, "MEM_RELEASE takes no length");
            let found = state.allocations.get(&addr).copied();
            let found = found.ok_or(Win32Error::INVALID_ADDRESS)?;
            let (range, _) = own(&state, addr, found.end - addr)?;
            if found.kind != abi::MEM_PRIVATE {
                return Err(Win32Error::INVALID_PARAMETER);
            }
            state.committed -= committed(&state, range);
            state.kernel.space.remove(range);
            state.allocations.remove(&addr);
            return Ok(());
        }
        let (range, allocation) = own(&state, addr, len)?;
        if allocation.kind != abi::MEM_PRIVATE {
            return Err(Win32Error::INVALID_PARAMETER);
        }
        state.committed -= committed(&state, range);
        state
            .kernel
            .space
            .update(range, |held| held.prot = RESERVED);
        Ok(())
    }

    fn virtual_protect(&self, addr: u64, len: u64, protect: u32) -> SysResult<()> {
        let mut state = self.enter("VirtualProtect")?;
        self.may_have(protect)?;
        let (range, allocation) = own(&state, addr, len)?;
        let reserved = |held: &SimMapping| held.prot == RESERVED;
        if state.kernel.space.overlapping(range).any(reserved) {
            return Err(Win32Error::INVALID_ADDRESS);
        }
        if allocation.kind == abi::MEM_MAPPED && !compatible(allocation.access, protect) {
            return Err(Win32Error::INVALID_PARAMETER);
        }
        let prot = protect.cast_signed();
        state.kernel.space.update(range, |held| held.prot = prot);
        Ok(())
    }

    fn create_file_mapping(&self, len: u64, protect: u32) -> SysResult<usize> {
        let mut state = self.enter("CreateFileMapping")?;
        assert_eq!(protect, abi::PAGE_EXECUTE_READWRITE);
        if self.options.dynamic_code_blocked {
            return Err(Win32Error::DYNAMIC_CODE_BLOCKED);
        }
        self.charge(&mut state, len)?;
        let handle = state.next_handle;
        state.next_handle += 4;
        let section = Section {
            len,
            open: true,
            views: 0,
        };
        state.sections.insert(handle, section);
        Ok(handle)
    }

    fn close_handle(&self, handle: usize) {
        let mut state = self.state.lock();
        let section = state.sections.get_mut(&handle).expect("an open handle");
        assert!(section.open, "closed twice");
        section.open = false;
        sweep(&mut state);
    }

    fn map_view_of_file_ex(
        &self,
        handle: usize,
        access: u32,
        offset: u64,
        len: u64,
        addr: u64,
    ) -> SysResult<u64> {
        let mut state = self.enter("MapViewOfFileEx")?;
        let protect = match access {
            abi::FILE_MAP_READ => abi::PAGE_READONLY,
            bits if bits & abi::FILE_MAP_EXECUTE != 0 => abi::PAGE_EXECUTE_READ,
            _ => abi::PAGE_READWRITE,
        };
        self.may_have(protect)?;
        let section = state.sections.get(&handle).expect("an open handle");
        assert!(section.open && offset + len <= section.len);
        if !offset.is_multiple_of(GRANULARITY) {
            return Err(Win32Error::INVALID_PARAMETER);
        }
        let range = self.place(&mut state, addr, len)?;
        let object = u64::try_from(handle).expect("small");
        let (prot, mapped) = (protect.cast_signed(), abi::MEM_MAPPED);
        insert(
            &mut state,
            range,
            prot,
            mapped,
            protect,
            Some((object, offset)),
        );
        state.sections.entry(handle).and_modify(|it| it.views += 1);
        Ok(range.start())
    }

    fn unmap_view_of_file(&self, addr: u64) -> SysResult<()> {
        let mut state = self.enter("UnmapViewOfFile")?;
        let found = state.allocations.get(&addr).copied();
        let found = found.filter(|found| found.kind == abi::MEM_MAPPED);
        let found = found.ok_or(Win32Error::INVALID_ADDRESS)?;
        let (range, _) = own(&state, addr, found.end - addr)?;
        for held in state.kernel.space.remove(range).iter().take(1) {
            let (object, _) = held.shared.expect("a view");
            let handle = usize::try_from(object).expect("small");
            state.sections.entry(handle).and_modify(|it| it.views -= 1);
        }
        state.allocations.remove(&addr);
        sweep(&mut state);
        Ok(())
    }

    fn program(&self) -> u64 {
        self.state.lock().program
    }

    fn get_module_file_name(&self, base: u64) -> String {
        let state = self.state.lock();
        let held = state.kernel.space.at_or_above(base);
        let held = held.filter(|held| held.range.start() == base);
        held.map(|held| held.name.to_owned()).unwrap_or_default()
    }

    fn get_mapped_file_name(&self, _addr: u64) -> String {
        String::new()
    }

    fn bcrypt_gen_random(&self, buffer: &mut [u8]) -> SysResult<()> {
        let mut state = self.enter("BCryptGenRandom")?;
        state.kernel.fill(buffer);
        Ok(())
    }

    fn get_current_process_id(&self) -> u32 {
        1
    }

    fn touch(&self, addr: u64) {
        self.expect_writable(addr, 1);
    }

    fn zero(&self, addr: u64, len: u64) {
        self.expect_writable(addr, len);
    }

    fn flush_instruction_cache(&self, _addr: u64, _len: u64) {}
}
