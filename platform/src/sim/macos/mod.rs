//! The macOS personality. What it models, and from where (osfmk/ and bsd/ of XNU):
//!
//! - `VM_FLAGS_FIXED` maps exactly there or fails with `KERN_NO_SPACE`; with `VM_FLAGS_OVERWRITE`
//!   it replaces; `VM_FLAGS_ANYWHERE` takes the first hole at or above the address
//!   (vm/vm_map.c, vm_map_enter);
//! - the bottom: below the end of `__PAGEZERO` nothing is mapped, nothing can be
//!   (`KERN_INVALID_ADDRESS`), and `mach_vm_region` lists nothing (bsd/kern/mach_loader.c,
//!   vm_map_raise_min_offset); on arm64 that is at least 4 GiB;
//! - pages of 4 KiB on x86-64, of 16 KiB on arm64;
//! - maximum access, which `mach_vm_protect` only lowers (vm/vm_map.c, vm_map_protect);
//! - `mach_vm_remap` shares the source's pages and has its access (vm/vm_map.c, vm_map_remap);
//! - `MAP_JIT` at no fixed address, writable or executable a thread; the hardened runtime, which
//!   lets nothing else become executable (bsd/kern/kern_mman.c);
//! - memory short at a number of bytes (`KERN_RESOURCE_SHORTAGE`).
//!
//! Not modelled: memory itself, submaps and the shared region's own rules, memory tags, copies in
//! children.

mod calls;

use super::controls::controls;
use super::kernel::SimKernel;
use super::space::{Owner, SimMapping};
use crate::macos::Machine;
use crate::macos::abi::{self, KernReturn};
use crate::range::AddrRange;
use parking_lot::Mutex;
use std::sync::Arc;

/// A simulated macOS system. Build on [`MacOsOptions::default`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MacOsOptions {
    /// All randomness comes from here.
    pub seed: u64,
    /// The machine.
    pub machine: Machine,
    /// Where `__PAGEZERO` ends as the program was linked; 4 GiB unless `-pagezero_size` was given.
    pub pagezero: u64,
    /// Whether the load commands of the program can be read.
    pub header_readable: bool,
    /// Page-aligned holes, ascending: all else below 4 GiB is taken. `None`: nothing is.
    pub holes: Option<Vec<AddrRange>>,
    /// The hardened runtime: only `MAP_JIT` memory may become executable.
    pub hardened: bool,
    /// False: an interposer places by itself, whatever address `VM_FLAGS_ANYWHERE` starts from.
    pub hints_honoured: bool,
    /// Of 1,000 claims with an address, how many find that another thread was quicker.
    pub thief_per_mille: u64,
    /// Bytes that the backend may hold.
    pub memory: u64,
}

impl Default for MacOsOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            machine: Machine::X86_64,
            pagezero: 1 << 32,
            header_readable: true,
            holes: None,
            hardened: false,
            hints_honoured: true,
            thief_per_mille: 0,
            memory: u64::MAX,
        }
    }
}

/// A simulated macOS process; clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct SimMacOs {
    options: Arc<MacOsOptions>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    kernel: SimKernel,
    /// Where the program lies.
    program: u64,
    /// Number of the next shared object.
    next_object: u64,
    /// Whether the thread may execute `MAP_JIT` memory rather than write it.
    jit_protected: bool,
}

/// Path of the simulated program.
const PROGRAM: &str = "/Applications/program";

/// Name of `MAP_JIT` memory here, which no other joins.
const JIT: &str = "[jit]";

/// The shared region of the system's libraries, and the end of user space.
const SHARED_REGION: u64 = 0x7ff8_0000_0000;
const SHARED_REGION_ARM: u64 = 0x1_8000_0000;
const USER_END: u64 = 0x7fff_fe00_0000;

impl SimMacOs {
    /// A process as the options say.
    #[must_use]
    pub fn new(options: MacOsOptions) -> Self {
        let mut kernel = SimKernel::new(options.seed);
        let page = page_size(options.machine);
        let bottom = bottom(&options);
        // The program follows __PAGEZERO, slid by a random number of pages.
        let program = bottom + (1 + kernel.below(0x1000)) * page;
        let mut hold = |start: u64, end: u64, prot: i32, name: &'static str| {
            let range = AddrRange::new(start, end).filter(|range| !range.is_empty());
            if let Some(range) = range.filter(|&range| kernel.space.is_free(range)) {
                let mapping = SimMapping::private(range, prot, Owner::Process);
                kernel.space.insert(SimMapping { name, ..mapping });
            }
        };
        let (code, data) = (
            abi::VM_PROT_READ | abi::VM_PROT_EXECUTE,
            abi::VM_PROT_READ | abi::VM_PROT_WRITE,
        );
        if let Some(holes) = &options.holes {
            let mut from = bottom;
            for hole in holes {
                hold(from, hole.start(), abi::VM_PROT_NONE, "");
                from = hole.end();
            }
            hold(from, 1 << 32, abi::VM_PROT_NONE, "");
        }
        hold(program, program + 0x8_0000, code, PROGRAM);
        hold(program + 0x8_0000, program + 0x9_0000, data, PROGRAM);
        let shared = match options.machine {
            Machine::X86_64 => SHARED_REGION,
            Machine::Arm64 => SHARED_REGION_ARM,
        };
        hold(
            shared,
            shared + (1 << 30),
            code,
            "/usr/lib/libSystem.B.dylib",
        );
        hold(0x7ff7_b000_0000, 0x7ff7_b080_0000, data, "");
        let state = State {
            kernel,
            program,
            next_object: 1,
            jit_protected: true,
        };
        Self {
            options: Arc::new(options),
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Whether the calling thread would execute `MAP_JIT` memory rather than write it.
    #[must_use]
    pub fn jit_protected(&self) -> bool {
        self.state.lock().jit_protected
    }
}

const fn page_size(machine: Machine) -> u64 {
    match machine {
        Machine::X86_64 => 4096,
        Machine::Arm64 => 16384,
    }
}

/// The lowest address that can be mapped.
fn bottom(options: &MacOsOptions) -> u64 {
    match options.machine {
        Machine::X86_64 => options.pagezero,
        Machine::Arm64 => options.pagezero.max(1 << 32),
    }
}

controls!(
    SimMacOs,
    KernReturn,
    abi::VM_PROT_READ | abi::VM_PROT_WRITE,
    // Mach has no descriptors here; a backing is memory, and shows as a leak.
    |_state| 0
);
