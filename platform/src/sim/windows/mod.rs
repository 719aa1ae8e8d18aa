//! The Windows personality. What it models, and from where (Microsoft's pages on the functions
//! named, unless said otherwise):
//!
//! - reservations begin at multiples of 64 KiB and end at any page; `VirtualAlloc` with an address
//!   takes exactly that or fails with `ERROR_INVALID_ADDRESS`, and never replaces; without one the
//!   lowest hole is taken;
//! - reserved pages have no memory until they are committed; committing counts against a limit
//!   (`ERROR_COMMITMENT_LIMIT`), decommitting gives it back;
//! - `MEM_RELEASE` takes the base of a whole reservation and length 0; no call spans two
//!   reservations;
//! - `VirtualQuery` gives runs of pages of one reservation and one state, from the page asked for
//!   upwards, and `ERROR_INVALID_PARAMETER` above the last address;
//! - `VirtualAlloc2` with bounds takes the lowest hole between them, or `ERROR_NOT_ENOUGH_MEMORY`;
//!   missing before Windows 10 1803; a variant ignores the lower bound (Wine 8, measured);
//! - sections of the paging file, committed as a whole when they are made; offsets of views are
//!   multiples of 64 KiB; a view's access never grows beyond what it was mapped with;
//! - Arbitrary Code Guard: whatever would be executable is `ERROR_DYNAMIC_CODE_BLOCKED`
//!   (`ProcessDynamicCodePolicy`);
//! - `KUSER_SHARED_DATA` at 0x7ffe0000 (ntddk.h), a program and a DLL up high;
//! - slots that `VirtualQuery` calls free and that are refused all the same (Wine 8, measured).
//!
//! Not modelled: memory itself, placeholders, guard pages of stacks that grow, large pages.

mod calls;

use super::controls::controls;
use super::kernel::SimKernel;
use super::space::{Owner, SimMapping};
use crate::range::AddrRange;
use crate::windows::abi::{self, Win32Error};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a system makes of `VirtualAlloc2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoundedAlloc {
    /// Windows 10 1803 and later.
    Works,
    /// Wine 8.
    IgnoresLowest,
    /// Before that: `kernelbase.dll` does not export it.
    Missing,
}

/// A simulated Windows system. Build on [`WindowsOptions::default`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowsOptions {
    /// All randomness comes from here.
    pub seed: u64,
    /// Holes of the low 4 GiB, by page, ascending: all else there is taken. `None`: nothing is.
    pub holes: Option<Vec<AddrRange>>,
    /// `VirtualAlloc2`.
    pub bounded: BoundedAlloc,
    /// Arbitrary Code Guard is on.
    pub dynamic_code_blocked: bool,
    /// Ranges that `VirtualQuery` calls free and that are refused.
    pub refused: Vec<AddrRange>,
    /// Of 1,000 claims with an address, how many find that another thread was quicker.
    pub thief_per_mille: u64,
    /// Bytes that the backend may have committed.
    pub memory: u64,
}

impl Default for WindowsOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            holes: None,
            bounded: BoundedAlloc::Works,
            dynamic_code_blocked: false,
            refused: Vec::new(),
            thief_per_mille: 0,
            memory: u64::MAX,
        }
    }
}

/// A simulated Windows process; clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct SimWindows {
    options: Arc<WindowsOptions>,
    state: Arc<Mutex<State>>,
}

/// A reservation, a view or an image: what `AllocationBase` tells apart.
#[derive(Clone, Copy, Debug)]
struct Allocation {
    end: u64,
    /// `MEM_PRIVATE`, `MEM_MAPPED` or `MEM_IMAGE`.
    kind: u32,
    /// The most access that a view may get.
    access: u32,
}

#[derive(Debug)]
struct Section {
    len: u64,
    /// Whether its handle is open.
    open: bool,
    views: u64,
}

/// Pages, by access: a run's access bits are those of its mapping, 0 where it is only reserved.
#[derive(Debug)]
struct State {
    kernel: SimKernel,
    /// What is mapped, by start.
    allocations: BTreeMap<u64, Allocation>,
    sections: BTreeMap<usize, Section>,
    next_handle: usize,
    program: u64,
    /// Bytes that the backend's private pages and sections have committed.
    committed: u64,
}

const PAGE: u64 = 0x1000;
const GRANULARITY: u64 = 0x1_0000;

/// Last byte that a process may have.
const LAST: u64 = 0x7fff_fffe_ffff;

/// Access of a page that is reserved only.
const RESERVED: i32 = 0;

const PROGRAM: &str = r"C:\Program Files\program.exe";
const LIBRARY: &str = r"C:\Windows\System32\kernel32.dll";

impl SimWindows {
    /// A process as the options say.
    #[must_use]
    pub fn new(options: WindowsOptions) -> Self {
        let mut kernel = SimKernel::new(options.seed);
        let program = 0x7ff6_0000_0000 + kernel.below(0x1000) * GRANULARITY;
        let mut state = State {
            kernel,
            allocations: BTreeMap::new(),
            sections: BTreeMap::new(),
            next_handle: 4,
            program,
            committed: 0,
        };
        let (code, data) = (abi::PAGE_EXECUTE_READ, abi::PAGE_READWRITE);
        let mut hold = |start: u64, end: u64, protect: u32, kind: u32, name: &'static str| {
            let range = AddrRange::new(start, end).filter(|range| !range.is_empty());
            if let Some(range) = range.filter(|&range| state.kernel.space.is_free(range)) {
                let prot = protect.cast_signed();
                let mapping = SimMapping::private(range, prot, Owner::Process);
                let mapping = SimMapping { name, ..mapping };
                state.kernel.space.insert(mapping);
                let end = range.end();
                let allocation = Allocation {
                    end,
                    kind,
                    access: protect,
                };
                state.allocations.insert(range.start(), allocation);
            }
        };
        let clocks = 0x7ffe_0000;
        let private = abi::MEM_PRIVATE;
        hold(clocks, clocks + PAGE, abi::PAGE_READONLY, private, "");
        if let Some(holes) = &options.holes {
            let mut from = GRANULARITY;
            for hole in holes.iter().copied().chain(AddrRange::at(1 << 32, 0)) {
                for (start, end) in [(from, clocks), (clocks + PAGE, u64::MAX)] {
                    let (start, end) = (start.max(from), end.min(hole.start()));
                    hold(start, end, abi::PAGE_NOACCESS, private, "");
                }
                from = hole.end();
            }
        }
        hold(program, program + 0x8_0000, code, abi::MEM_IMAGE, PROGRAM);
        let library = 0x7ffc_0000_0000;
        hold(library, library + 0xc_0000, code, abi::MEM_IMAGE, LIBRARY);
        hold(0x10_0000_0000, 0x10_0010_0000, data, private, "");
        Self {
            options: Arc::new(options),
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Bytes that the backend has committed.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.state.lock().committed
    }
}

controls!(
    SimWindows,
    Win32Error,
    abi::PAGE_READWRITE.cast_signed(),
    |state| state
        .sections
        .values()
        .filter(|section| section.open)
        .count()
);
