//! The calls of `Syscalls` on the simulated task.

use super::super::space::{Owner, SimMapping};
use super::{JIT, SimMacOs, State, USER_END, bottom, page_size};
use crate::macos::abi::{self, KernReturn};
use crate::macos::{Machine, RegionInfo, SysResult, Syscalls, pagezero};
use crate::range::{AddrRange, align_up};
use parking_lot::MutexGuard;

impl SimMacOs {
    /// Takes the lock; fails if the call was planned to.
    fn enter(&self, call: &'static str) -> SysResult<MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        state.kernel.enter(call).map_err(KernReturn)?;
        Ok(state)
    }

    fn page(&self) -> u64 {
        page_size(self.options.machine)
    }

    /// A range of whole pages.
    fn pages(&self, addr: u64, len: u64) -> SysResult<AddrRange> {
        let page = self.page();
        assert!(
            addr.is_multiple_of(page) && len.is_multiple_of(page) && len > 0,
            "{addr:#x}, {len:#x}: no whole pages"
        );
        let range = AddrRange::at(addr, len).filter(|range| range.end() <= USER_END);
        range.ok_or(KernReturn::INVALID_ARGUMENT)
    }

    /// Where vm_map_enter puts `len` bytes.
    fn place(&self, state: &mut State, addr: u64, len: u64, flags: i32) -> SysResult<u64> {
        let held = state.kernel.space.iter();
        let own = held.filter(|held| held.owner == Owner::Backend);
        let total: u64 = own.map(|held| held.range.len()).sum();
        let overwrites = flags & abi::VM_FLAGS_OVERWRITE != 0;
        if !overwrites && total.saturating_add(len) > self.options.memory {
            return Err(KernReturn::RESOURCE_SHORTAGE);
        }
        if flags & abi::VM_FLAGS_ANYWHERE != 0 {
            return self.first_hole(state, addr, len);
        }
        let range = self.pages(addr, len)?;
        if addr < bottom(&self.options) {
            return Err(KernReturn::INVALID_ADDRESS);
        }
        if overwrites {
            let own = |held: &SimMapping| held.owner == Owner::Backend && held.shared.is_none();
            assert!(
                state.kernel.space.is_mapped(range)
                    && state.kernel.space.overlapping(range).all(own),
                "VM_FLAGS_OVERWRITE of {range} would replace what is not the backend's"
            );
            state.kernel.space.remove(range);
            return Ok(addr);
        }
        self.steal(state, range);
        if state.kernel.space.is_free(range) {
            Ok(addr)
        } else {
            Err(KernReturn::NO_SPACE)
        }
    }

    fn first_hole(&self, state: &mut State, addr: u64, len: u64) -> SysResult<u64> {
        let addr = if self.options.hints_honoured {
            addr
        } else {
            1 << 40
        };
        let from = align_up(addr, self.page()).ok_or(KernReturn::NO_SPACE)?;
        let from = from.max(bottom(&self.options));
        if let Some(range) = AddrRange::at(from, len) {
            self.steal(state, range);
        }
        let within = AddrRange::new(from, USER_END).ok_or(KernReturn::NO_SPACE)?;
        let hole = state.kernel.space.lowest_hole(within, len);
        hole.ok_or(KernReturn::NO_SPACE)
    }

    /// Another thread maps one page of a free range just before us.
    fn steal(&self, state: &mut State, range: AddrRange) {
        let prot = abi::VM_PROT_READ | abi::VM_PROT_WRITE;
        let per_mille = self.options.thief_per_mille;
        state.kernel.steal(range, self.page(), per_mille, prot);
    }

    /// Whether the runtime lets something become executable.
    fn may_execute(&self, held: &SimMapping) -> bool {
        !self.options.hardened || held.prot & abi::VM_PROT_EXECUTE != 0
    }

    /// Asserts that a write to the range would not be a signal.
    fn expect_writable(&self, addr: u64, len: u64) {
        let range = AddrRange::at(addr, len).expect("small");
        let state = self.state.lock();
        let space = &state.kernel.space;
        let writable = |held: &SimMapping| held.prot & abi::VM_PROT_WRITE != 0;
        assert!(
            space.is_mapped(range) && space.overlapping(range).all(writable),
            "a write to {range} would be SIGBUS"
        );
    }
}

fn refuse_both(prot: i32) {
    let both = abi::VM_PROT_WRITE | abi::VM_PROT_EXECUTE;
    assert_ne!(
        prot & both,
        both,
        "the backend asked for writable and executable memory"
    );
}

impl Syscalls for SimMacOs {
    fn is_simulated(&self) -> bool {
        true
    }

    fn machine(&self) -> Machine {
        self.options.machine
    }

    fn page_size(&self) -> u64 {
        self.page()
    }

    fn mach_vm_region(&self, addr: u64) -> SysResult<RegionInfo> {
        let state = self.enter("mach_vm_region")?;
        let held = state.kernel.space.at_or_above(addr);
        let held = held.ok_or(KernReturn::INVALID_ADDRESS)?;
        Ok(RegionInfo {
            start: held.range.start(),
            len: held.range.len(),
            protection: held.prot,
            max_protection: held.max_prot,
        })
    }

    fn mach_vm_map(
        &self,
        addr: u64,
        len: u64,
        flags: i32,
        protection: i32,
        max_protection: i32,
        inheritance: u32,
    ) -> SysResult<u64> {
        let mut state = self.enter("mach_vm_map")?;
        refuse_both(protection);
        let executable = protection & abi::VM_PROT_EXECUTE != 0;
        if executable && self.options.hardened {
            return Err(KernReturn::PROTECTION_FAILURE);
        }
        let at = self.place(&mut state, addr, len, flags)?;
        let range = self.pages(at, len)?;
        let mapping = SimMapping::private(range, protection, Owner::Backend);
        state.kernel.space.insert(SimMapping {
            max_prot: max_protection,
            inherited: inheritance != abi::VM_INHERIT_NONE,
            ..mapping
        });
        Ok(at)
    }

    fn mach_vm_remap(
        &self,
        addr: u64,
        len: u64,
        flags: i32,
        source: u64,
        inheritance: u32,
    ) -> SysResult<u64> {
        let mut state = self.enter("mach_vm_remap")?;
        let from = self.pages(source, len)?;
        if !state.kernel.space.is_mapped(from) {
            return Err(KernReturn::INVALID_ADDRESS);
        }
        let object = state.next_object;
        let held = state.kernel.space.overlapping(from).next().cloned();
        let held = held.expect("mapped");
        // Its pages become an object with a number when they are first shared.
        let shared = match held.shared {
            Some((object, offset)) => (object, offset + source - held.range.start()),
            None => {
                state.next_object += 1;
                state.kernel.space.update(held.range, |part| {
                    part.shared = Some((object, part.range.start() - held.range.start()));
                });
                (object, source - held.range.start())
            }
        };
        let at = self.place(&mut state, addr, len, flags)?;
        let range = self.pages(at, len)?;
        state.kernel.space.insert(SimMapping {
            range,
            shared: Some(shared),
            inherited: inheritance != abi::VM_INHERIT_NONE,
            ..held
        });
        Ok(at)
    }

    fn mach_vm_protect(
        &self,
        addr: u64,
        len: u64,
        set_maximum: bool,
        protection: i32,
    ) -> SysResult<()> {
        let mut state = self.enter("mach_vm_protect")?;
        let range = self.pages(addr, len)?;
        if !state.kernel.space.is_mapped(range) {
            return Err(KernReturn::INVALID_ADDRESS);
        }
        let space = &mut state.kernel.space;
        let beyond = |held: &SimMapping| protection & !held.max_prot & abi::VM_PROT_ALL != 0;
        if space.overlapping(range).any(beyond) {
            return Err(KernReturn::PROTECTION_FAILURE);
        }
        if set_maximum {
            space.update(range, |held| {
                held.max_prot = protection;
                held.prot &= protection;
            });
            return Ok(());
        }
        refuse_both(protection);
        let executable = protection & abi::VM_PROT_EXECUTE != 0;
        if executable && !space.overlapping(range).all(|held| self.may_execute(held)) {
            return Err(KernReturn::PROTECTION_FAILURE);
        }
        space.update(range, |held| held.prot = protection);
        Ok(())
    }

    fn mach_vm_deallocate(&self, addr: u64, len: u64) -> SysResult<()> {
        let mut state = self.enter("mach_vm_deallocate")?;
        let range = self.pages(addr, len)?;
        state.kernel.space.remove(range);
        Ok(())
    }

    fn mmap_jit(&self, hint: u64, len: u64) -> SysResult<u64> {
        let mut state = self.enter("mmap")?;
        let at = self.place(&mut state, hint, len, abi::VM_FLAGS_ANYWHERE)?;
        let range = self.pages(at, len)?;
        // What a thread sees of it is writable or executable; the mapping's own bits are neither's.
        let prot = abi::VM_PROT_READ | abi::VM_PROT_EXECUTE;
        let mapping = SimMapping::private(range, prot, Owner::Backend);
        state.kernel.space.insert(SimMapping {
            name: JIT,
            ..mapping
        });
        Ok(at)
    }

    fn jit_supported(&self) -> bool {
        self.options.machine == Machine::Arm64
    }

    fn jit_write_protect(&self, protected: bool) {
        assert!(
            self.jit_supported(),
            "this machine has no MAP_JIT by thread"
        );
        self.state.lock().jit_protected = protected;
    }

    fn main_header(&self) -> (u64, Vec<u8>) {
        let program = self.state.lock().program;
        if !self.options.header_readable {
            return (program, Vec::new());
        }
        (program, pagezero::header(bottom(&self.options)))
    }

    fn region_filename(&self, addr: u64) -> String {
        let state = self.state.lock();
        let held = state.kernel.space.at_or_above(addr);
        let held = held.filter(|held| held.range.contains(addr) && held.name != JIT);
        held.map(|held| held.name.to_owned()).unwrap_or_default()
    }

    fn getentropy(&self, buffer: &mut [u8]) -> SysResult<()> {
        let mut state = self.enter("getentropy")?;
        assert!(buffer.len() <= 256, "getentropy gives 256 bytes at most");
        state.kernel.fill(buffer);
        Ok(())
    }

    fn process(&self) -> u64 {
        1
    }

    fn touch(&self, addr: u64) {
        self.expect_writable(addr, 1);
    }

    fn zero(&self, addr: u64, len: u64) {
        self.expect_writable(addr, len);
    }

    fn icache_invalidate(&self, _addr: u64, _len: u64) {}
}
