//! What this kernel and process allow, found once by asking harmlessly: on single pages that
//! are given back.

use super::abi::{self, Errno};
use super::{Syscalls, os_error, survey};
use crate::contract::{Capabilities, Config};
use crate::error::PlatformError;
use crate::range::{AddrRange, align_up};

/// Lowest address that this crate maps, whatever `security.bsd.map_at_zero` allows.
const FLOOR: u64 = 0x1_0000;

/// End of the low window.
const CEILING: u64 = 1 << 32;

/// Probing mappings: private pages.
const PROBE: i32 = abi::MAP_PRIVATE | abi::MAP_ANON;

/// Everything that is found out once.
#[derive(Debug)]
pub(super) struct Probed {
    pub(super) config: Config,
    pub(super) exclusive: bool,
    pub(super) prot_max: bool,
}

/// Asks the kernel.
pub(super) fn probe<S: Syscalls>(sys: &S) -> Result<Probed, PlatformError> {
    let page_size = sys.page_size();
    let prot_max = takes_prot_max(sys, page_size);
    let exclusive = is_exclusive(sys, page_size)?;
    let capabilities = Capabilities {
        exact_claims: exclusive,
        low_claims: low_claims(sys, page_size),
        second_views: sys.shm_open_anon().map(|fd| sys.close(fd)).is_ok(),
        protect_to_execute: protect_to_execute(sys, page_size, prot_max),
        partial_release: true,
        guard_in_place: false,
        seal: false,
        jit_pages: false,
    };
    let floor = align_up(FLOOR, page_size).expect("small");
    let config = Config {
        page_size,
        granularity: page_size,
        low_window: Ok(AddrRange::new(floor, CEILING).expect("the floor lies below the ceiling")),
        user_end: user_end(sys, page_size),
        capabilities,
    };
    Ok(Probed {
        config,
        exclusive,
        prot_max,
    })
}

/// A page of no access somewhere; `flags` beside the usual ones.
fn try_page<S: Syscalls>(sys: &S, hint: u64, page_size: u64, flags: i32) -> Result<u64, Errno> {
    sys.mmap(hint, page_size, abi::PROT_NONE, PROBE | flags, -1, 0)
}

/// Unmaps what was mapped to probe; tried twice, because nobody could free it later.
fn give_back<S: Syscalls>(sys: &S, at: u64, len: u64) {
    if sys.munmap(at, len).is_err() {
        let _ = sys.munmap(at, len);
    }
}

/// Asks for a page that the probe itself holds: `MAP_EXCL` (10.0) refuses it. What ignores the
/// flag (an emulator) replaces that page, which is the probe's own, and is never asked again.
fn is_exclusive<S: Syscalls>(sys: &S, page_size: u64) -> Result<bool, PlatformError> {
    let none = AddrRange::at(0, page_size).expect("starts at 0");
    let failed = |errno| os_error("mmap of a probing page", none, errno);
    let taken = try_page(sys, 0, page_size, 0).map_err(failed)?;
    let over = try_page(sys, taken, page_size, abi::MAP_FIXED | abi::MAP_EXCL);
    give_back(sys, taken, page_size);
    match over {
        Err(Errno::ENOMEM | Errno::EEXIST) => Ok(true),
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(false),
        Err(errno) => Err(failed(errno)),
        Ok(at) => {
            if at != taken {
                give_back(sys, at, page_size);
            }
            Ok(false)
        }
    }
}

/// `PROT_MAX` came with 13.0; before, unknown protection bits are refused.
fn takes_prot_max<S: Syscalls>(sys: &S, page_size: u64) -> bool {
    let prot = abi::PROT_NONE | abi::prot_max(abi::PROT_READ);
    let Ok(at) = sys.mmap(0, page_size, prot, PROBE, -1, 0) else {
        return false;
    };
    let raised = sys.mprotect(at, page_size, abi::PROT_READ | abi::PROT_WRITE);
    give_back(sys, at, page_size);
    raised.is_err()
}

/// `ENOMEM` (a full low half) may pass: claims are verified one by one.
fn low_claims<S: Syscalls>(sys: &S, page_size: u64) -> bool {
    match try_page(sys, 0, page_size, abi::MAP_32BIT) {
        Ok(at) => {
            give_back(sys, at, page_size);
            at < 1 << 31
        }
        Err(errno) => errno == Errno::ENOMEM,
    }
}

/// `kern.elf64.allow_wx=0` forbids both at once only; hardened kernels forbid the change, and that
/// shows only when tried.
fn protect_to_execute<S: Syscalls>(sys: &S, page_size: u64, prot_max: bool) -> bool {
    let mut prot = abi::PROT_READ | abi::PROT_WRITE;
    if prot_max {
        prot |= abi::prot_max(abi::PROT_ALL);
    }
    let Ok(at) = sys.mmap(0, page_size, prot, PROBE, -1, 0) else {
        return false;
    };
    let changed = sys.mprotect(at, page_size, abi::PROT_READ | abi::PROT_EXEC);
    give_back(sys, at, page_size);
    changed.is_ok()
}

/// User space ends at the power of two above the main stack, less the page that the kernel shares
/// with every process.
fn user_end<S: Syscalls>(sys: &S, page_size: u64) -> u64 {
    let mut top = [0; 8];
    let told = sys.sysctl(&[abi::CTL_KERN, abi::KERN_USRSTACK], Some(&mut top));
    let top = match told {
        Ok(8) => u64::from_ne_bytes(top),
        _ => survey::USUAL_STACK,
    };
    let top = top.max(CEILING);
    top.checked_next_power_of_two().unwrap_or(1 << 63) - page_size
}
