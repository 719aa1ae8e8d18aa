//! The Linux personality. What it models, and from where:
//!
//! - placement: `MAP_FIXED_NOREPLACE` exact or `EEXIST` from 4.17, a hint before; hints
//!   honoured if free, raised to the floor; otherwise top down from below the libraries
//!   (mm/mmap.c, get_unmapped_area);
//! - `MAP_32BIT`: a free hint that ends by 2 GiB is honoured, otherwise bottom up in
//!   [0x40000000, 0x80000000) from a start drawn on every call inside 32 MiB
//!   (arch/x86/kernel/sys_x86_64.c; measured on 6.18);
//! - limits: `vm.max_map_count` on mmap (may exceed by one), on a hole punched by munmap and on
//!   mprotect's splits; `RLIMIT_AS`, `RLIMIT_DATA`; `vm.mmap_min_addr` (mm/vma.c, security/min_addr.c);
//! - memfd: rights of the descriptor, `F_SEAL_FUTURE_WRITE`, `vm.memfd_noexec` (mm/memfd.c, mm/shmem.c);
//! - `mseal` (mm/mseal.c), `PR_SET_MDWE` (include/linux/mman.h), `PROCMAP_QUERY` and the text of
//!   /proc/self/maps (fs/proc/task_mmu.c);
//! - each from the version that brought it.
//!
//! Not modelled: memory itself, huge pages, locked memory, stacks that grow.

mod calls;
mod files;
mod placing;
mod rules;

use super::controls::controls;
use super::kernel::SimKernel;
use super::space::{Owner, SimMapping};
use crate::linux::abi::{self, Errno};
use crate::range::AddrRange;
use files::File;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the process holds below 4 GiB before the backend starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LowMemory {
    /// Nothing: a position-independent executable.
    Pie,
    /// An executable at 0x400000, and a heap that starts at `brk`.
    NonPie {
        /// Start of the heap.
        brk: u64,
    },
    /// Everything except these holes (page-aligned, ascending, below 4 GiB).
    Holes(Vec<AddrRange>),
}

/// How `MAP_32BIT` behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Map32Bit {
    /// As x86-64 does.
    Works,
    /// The regression of 2023: `ENOMEM` although memory is free.
    Fails,
    /// Other machines: the bit means nothing.
    Ignored,
}

/// A simulated Linux system. Build on [`SimOptions::default`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimOptions {
    /// All randomness comes from here.
    pub seed: u64,
    /// Kernel version: decides which calls exist.
    pub kernel: (u16, u16),
    /// Bytes of a page.
    pub page_size: u64,
    /// What is taken below 4 GiB.
    pub low: LowMemory,
    /// `MAP_32BIT`.
    pub map_32bit: Map32Bit,
    /// False: an emulator places by itself and ignores hints (qemu-user).
    pub hints_honoured: bool,
    /// Of 1,000 calls of mmap with an address, how many find that another thread was quicker.
    pub thief_per_mille: u64,
    /// `vm.max_map_count`.
    pub max_map_count: u64,
    /// `vm.mmap_min_addr`, bytes; the process has no right to map below.
    pub mmap_min_addr: u64,
    /// `RLIMIT_AS`, bytes.
    pub rlimit_as: u64,
    /// `RLIMIT_DATA`, bytes.
    pub rlimit_data: u64,
    /// `RLIMIT_FSIZE`, bytes.
    pub rlimit_fsize: u64,
    /// `vm.memfd_noexec` (0 to 2).
    pub memfd_noexec: u8,
    /// Whether /proc is mounted.
    pub proc_mounted: bool,
    /// `PR_SET_MDWE`: what is not executable can't become so.
    pub mdwe: bool,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            kernel: (6, 18),
            page_size: 4096,
            low: LowMemory::Pie,
            map_32bit: Map32Bit::Works,
            hints_honoured: true,
            thief_per_mille: 0,
            max_map_count: 65_530,
            mmap_min_addr: 0x1_0000,
            rlimit_as: abi::RLIM_INFINITY,
            rlimit_data: abi::RLIM_INFINITY,
            rlimit_fsize: abi::RLIM_INFINITY,
            memfd_noexec: 0,
            proc_mounted: true,
            mdwe: false,
        }
    }
}

/// A simulated Linux process; clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct SimLinux {
    options: Arc<SimOptions>,
    state: Arc<Mutex<State>>,
}

/// A memfd's contents are not modelled, its rights are.
#[derive(Debug, Default)]
struct Memfd {
    len: u64,
    seals: i32,
}

#[derive(Debug)]
struct State {
    kernel: SimKernel,
    brk: u64,
    files: BTreeMap<i32, File>,
    memfds: BTreeMap<u64, Memfd>,
    next_fd: i32,
    /// Whether the process registered for core-serializing barriers.
    registered: bool,
}

/// Path of the simulated program.
const PROGRAM: &str = "/usr/bin/program";

/// User space ends here on x86-64 (`TASK_SIZE`).
const TASK_SIZE: u64 = 0x7fff_ffff_f000;

/// Where the main stack ends, and its present size.
const STACK_END: u64 = 0x7ffd_1234_5000;
const STACK_LEN: u64 = 0x2_1000;

/// Below this the kernel places mappings top down.
const MMAP_BASE: u64 = 0x7fbc_dead_b000;

impl SimLinux {
    /// A process as the options say.
    #[must_use]
    pub fn new(options: SimOptions) -> Self {
        let mut kernel = SimKernel::new(options.seed);
        let mut hold = |start: u64, end: u64, prot: i32, name: &'static str| {
            let range = AddrRange::new(start, end).expect("bounds in order");
            if !range.is_empty() {
                let mapping = SimMapping::private(range, prot, Owner::Process);
                kernel.space.insert(SimMapping { name, ..mapping });
            }
        };
        let (text, data) = (
            abi::PROT_READ | abi::PROT_EXEC,
            abi::PROT_READ | abi::PROT_WRITE,
        );
        let mut brk = 0x5581_2345_6000;
        let mut program = 0x5581_0000_0000;
        match &options.low {
            LowMemory::Pie => {}
            LowMemory::NonPie { brk: low } => (brk, program) = (*low, 0x40_0000),
            LowMemory::Holes(holes) => {
                let mut from = options.mmap_min_addr;
                for hole in holes {
                    hold(from, hole.start(), abi::PROT_NONE, "");
                    from = hole.end();
                }
                hold(from, 1 << 32, abi::PROT_NONE, "");
            }
        }
        hold(program, program + 0x8_0000, text, PROGRAM);
        hold(program + 0x8_0000, program + 0x9_0000, data, PROGRAM);
        hold(brk, brk + 0x2_1000, data, "[heap]");
        hold(
            0x7fbc_dead_0000 + 0xb000,
            0x7fbc_df00_0000,
            text,
            "/usr/lib/libc.so.6",
        );
        hold(STACK_END - STACK_LEN, STACK_END, data, "[stack]");
        let state = State {
            kernel,
            brk: brk + 0x2_1000,
            files: BTreeMap::new(),
            memfds: BTreeMap::new(),
            next_fd: 3,
            registered: false,
        };
        Self {
            options: Arc::new(options),
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Whether the kernel is at least this version.
    fn since(&self, major: u16, minor: u16) -> bool {
        self.options.kernel >= (major, minor)
    }
}

controls!(SimLinux, Errno, abi::PROT_READ | abi::PROT_WRITE, |state| {
    state.files.len()
});
