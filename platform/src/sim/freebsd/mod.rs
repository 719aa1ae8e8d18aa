//! The FreeBSD personality. What it models, and from where (sys/ of the source tree):
//!
//! - `MAP_FIXED|MAP_EXCL` maps exactly there or fails with `ENOMEM`; `MAP_EXCL` alone is `EINVAL`;
//!   `MAP_FIXED` alone replaces (vm/vm_mmap.c, kern_mmap; vm/vm_map.c, vm_map_fixed);
//! - hints: searched upwards from there, with up to 0x1000 random pages added (0x100 with
//!   `MAP_32BIT`) where randomization finds room for them, first fit otherwise; a hint between
//!   text and data + `RLIMIT_DATA`, or none, is moved to data + `RLIMIT_DATA`, and that is where a
//!   failed search starts again (vm/vm_map.c, vm_map_find, vm_map_find_min, aslr_pages_rnd_64);
//! - `MAP_32BIT`: below 2 GiB; a hint beyond that is dropped (vm/vm_mmap.c);
//! - `PROT_MAX` from 13.0, `vm.imply_prot_max`; `mprotect` passes over holes (vm/vm_map.c);
//! - `RLIMIT_VMEM`; swap reserved for writable private memory against a limit, as
//!   `vm.overcommit` makes it (vm/swap_pager.c);
//! - the map as `KERN_PROC_VMMAP` gives it, with the room of the stack as a guard entry
//!   (kern/kern_proc.c); the map may grow between two calls;
//! - a hardened variant that refuses to make written memory executable (PaX MPROTECT).
//!
//! Not modelled: memory itself, superpage alignment, clustering of anonymous memory
//! (`vm.cluster_anon`), capability mode.

mod calls;
mod placing;

use super::controls::controls;
use super::kernel::SimKernel;
use super::linux::LowMemory;
use super::space::{Owner, SimMapping};
use crate::freebsd::abi::{self, Errno};
use crate::range::AddrRange;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a kernel makes of `MAP_EXCL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapExcl {
    /// FreeBSD 10 and later.
    Works,
    /// Unknown flags are refused.
    Unknown,
    /// An emulator that lets `MAP_FIXED` replace all the same.
    Ignored,
}

/// A simulated FreeBSD system. Build on [`FreeBsdOptions::default`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreeBsdOptions {
    /// All randomness comes from here.
    pub seed: u64,
    /// Bytes of a page.
    pub page_size: u64,
    /// What is taken below 4 GiB.
    pub low: LowMemory,
    /// `kern.elf64.aslr.enable`.
    pub aslr: bool,
    /// `MAP_EXCL`.
    pub excl: MapExcl,
    /// Whether `MAP_32BIT` means anything.
    pub map_32bit: bool,
    /// False: an emulator places by itself and ignores hints.
    pub hints_honoured: bool,
    /// Whether `PROT_MAX` is known (13.0).
    pub prot_max: bool,
    /// `vm.imply_prot_max`: what is not said with `PROT_MAX` can never be had.
    pub imply_prot_max: bool,
    /// Whether what was not executable can become so.
    pub exec_gain: bool,
    /// Of 1,000 calls of mmap with an address, how many find that another thread was quicker.
    pub thief_per_mille: u64,
    /// `RLIMIT_VMEM`, bytes.
    pub rlimit_vmem: u64,
    /// `RLIMIT_DATA`, bytes: decides which hints are moved.
    pub rlimit_data: u64,
    /// Bytes of swap that may be reserved.
    pub swap: u64,
}

impl Default for FreeBsdOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            page_size: 4096,
            low: LowMemory::Pie,
            aslr: true,
            excl: MapExcl::Works,
            map_32bit: true,
            hints_honoured: true,
            prot_max: true,
            imply_prot_max: false,
            exec_gain: true,
            thief_per_mille: 0,
            rlimit_vmem: abi::RLIM_INFINITY,
            rlimit_data: 32 << 30,
            swap: u64::MAX,
        }
    }
}

/// A simulated FreeBSD process; clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct SimFreeBsd {
    options: Arc<FreeBsdOptions>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    kernel: SimKernel,
    /// End of the brk heap.
    brk: u64,
    /// Start of the program's text, and of its data.
    text: u64,
    data: u64,
    /// Descriptors of shared-memory objects, and what they stand for.
    files: BTreeMap<i32, u64>,
    /// Lengths of the objects.
    objects: BTreeMap<u64, u64>,
    next_fd: i32,
}

/// Path of the simulated program.
const PROGRAM: &str = "/usr/local/bin/program";

/// Name by which entries of guards are known here.
const GUARD: &str = "[guard]";

/// Name by which the stack is known here.
const STACK: &str = "[stack]";

/// User space ends here (`VM_MAXUSER_ADDRESS`, less the shared page).
const USER_END: u64 = 0x7fff_ffff_f000;

/// The stack, and what it may grow to (`maxssiz`).
const STACK_LEN: u64 = 0x2_0000;
const STACK_MAX: u64 = 512 << 20;

impl SimFreeBsd {
    /// A process as the options say.
    #[must_use]
    pub fn new(options: FreeBsdOptions) -> Self {
        let mut kernel = SimKernel::new(options.seed);
        let mut hold = |start: u64, end: u64, prot: i32, name: &'static str| {
            let range = AddrRange::new(start, end).expect("bounds in order");
            if !range.is_empty() {
                let mapping = SimMapping::private(range, prot, Owner::Process);
                kernel.space.insert(SimMapping { name, ..mapping });
            }
        };
        let (code, data) = (
            abi::PROT_READ | abi::PROT_EXEC,
            abi::PROT_READ | abi::PROT_WRITE,
        );
        let mut program = 0x0391_4a60_0000;
        let mut brk = program + 0x10_0000;
        match &options.low {
            LowMemory::Pie => {}
            LowMemory::NonPie { brk: low } => (program, brk) = (0x20_0000, *low),
            LowMemory::Holes(holes) => {
                let mut from = MIN_ADDRESS;
                for hole in holes {
                    hold(from, hole.start(), abi::PROT_NONE, "");
                    from = hole.end();
                }
                hold(from, 1 << 32, abi::PROT_NONE, "");
            }
        }
        hold(program, program + 0x8_0000, code, PROGRAM);
        hold(program + 0x8_0000, program + 0x9_0000, data, PROGRAM);
        hold(brk, brk + 0x2_1000, data, "");
        let libraries = 0x0399_8000_0000;
        hold(libraries, libraries + 0x40_0000, code, "/lib/libc.so.7");
        let stack = USER_END - STACK_LEN;
        hold(USER_END - STACK_MAX, stack, abi::PROT_NONE, GUARD);
        hold(stack, USER_END, data, STACK);
        let state = State {
            kernel,
            brk: brk + 0x2_1000,
            text: program,
            data: program + 0x8_0000,
            files: BTreeMap::new(),
            objects: BTreeMap::new(),
            next_fd: 3,
        };
        Self {
            options: Arc::new(options),
            state: Arc::new(Mutex::new(state)),
        }
    }
}

/// The lowest address that a process may map (`security.bsd.map_at_zero` is 0).
const MIN_ADDRESS: u64 = 0x1000;

controls!(
    SimFreeBsd,
    Errno,
    abi::PROT_READ | abi::PROT_WRITE,
    |state| state.files.len()
);
