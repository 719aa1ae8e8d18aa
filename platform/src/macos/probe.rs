//! What this system and process allow, found once by asking harmlessly.

use super::abi;
use super::os_error;
use super::pagezero;
use super::syscalls::{Machine, Syscalls};
use super::views::{self, Object};
use crate::contract::{Capabilities, Config};
use crate::error::{NoLowWindow, PlatformError};
use crate::range::{AddrRange, align_up};
use std::sync::Arc;

/// Lowest address that this crate maps, however small `__PAGEZERO` is.
const FLOOR: u64 = 0x1_0000;

/// End of the low window.
const CEILING: u64 = 1 << 32;

/// What can never be mapped at the bottom of the address space. Without load commands to read,
/// all that lies below the first mapping counts.
pub(super) fn pagezero<S: Syscalls>(sys: &S) -> Result<AddrRange, PlatformError> {
    let (_, header) = sys.main_header();
    let end = match (sys.machine(), pagezero::end(&header)) {
        (Machine::Arm64, end) => end.unwrap_or(0).max(CEILING),
        (Machine::X86_64, Some(end)) => end,
        (Machine::X86_64, None) => {
            let none = AddrRange::at(0, 0).expect("starts at 0");
            let first = sys.mach_vm_region(0);
            first
                .map_err(|code| os_error("mach_vm_region of the first mapping", none, code))?
                .start
        }
    };
    Ok(AddrRange::at(0, end).expect("starts at 0"))
}

/// Configuration of a process whose bottom is `pagezero`.
pub(super) fn config<S: Syscalls>(sys: &Arc<S>, pagezero: AddrRange) -> Config {
    let page_size = sys.page_size();
    let low_window = low_window(sys.machine(), pagezero.end(), page_size);
    let capabilities = Capabilities {
        exact_claims: true,
        low_claims: low_window.is_ok(),
        second_views: second_views(sys, page_size),
        protect_to_execute: protect_to_execute(&**sys, page_size),
        partial_release: true,
        guard_in_place: false,
        seal: false,
        jit_pages: sys.jit_supported(),
    };
    Config {
        page_size,
        granularity: page_size,
        low_window,
        user_end: user_end(sys.machine()),
        capabilities,
    }
}

fn low_window(machine: Machine, pagezero: u64, page_size: u64) -> Result<AddrRange, NoLowWindow> {
    match machine {
        Machine::Arm64 => Err(NoLowWindow::System),
        Machine::X86_64 => {
            let start = align_up(pagezero.max(FLOOR), page_size).unwrap_or(CEILING);
            let window = AddrRange::new(start, CEILING).filter(|window| !window.is_empty());
            window.ok_or(NoLowWindow::PageZero { end: pagezero })
        }
    }
}

/// `MACH_VM_MAX_ADDRESS` (osfmk/mach/i386/vm_param.h, osfmk/mach/arm/vm_param.h).
const fn user_end(machine: Machine) -> u64 {
    match machine {
        Machine::X86_64 => 0x7fff_ffe0_0000,
        Machine::Arm64 => 0x7fff_fe00_0000,
    }
}

/// Whether written memory may become executable: not under the hardened runtime.
fn protect_to_execute<S: Syscalls>(sys: &S, page_size: u64) -> bool {
    let writable = abi::VM_PROT_READ | abi::VM_PROT_WRITE;
    let Ok(at) = sys.mach_vm_map(
        CEILING,
        page_size,
        abi::VM_FLAGS_ANYWHERE,
        writable,
        abi::VM_PROT_ALL,
        abi::VM_INHERIT_COPY,
    ) else {
        return false;
    };
    let executable = abi::VM_PROT_READ | abi::VM_PROT_EXECUTE;
    let changed = sys.mach_vm_protect(at, page_size, false, executable);
    views::give_back(sys, at, page_size);
    changed.is_ok()
}

/// Whether a second view may be executable; tried, because the hardened runtime forbids it.
fn second_views<S: Syscalls>(sys: &Arc<S>, page_size: u64) -> bool {
    let Ok(object) = Object::new(sys, page_size) else {
        return false;
    };
    let flags = abi::VM_FLAGS_ANYWHERE;
    let view = sys.mach_vm_remap(
        CEILING,
        page_size,
        flags,
        object.base(),
        abi::VM_INHERIT_NONE,
    );
    let Ok(at) = view else {
        return false;
    };
    let executable = abi::VM_PROT_READ | abi::VM_PROT_EXECUTE;
    let changed = sys.mach_vm_protect(at, page_size, false, executable);
    views::give_back(&**sys, at, page_size);
    changed.is_ok()
}
