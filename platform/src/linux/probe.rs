//! What this kernel and process allow, found once by asking harmlessly.
//!
//! Unknown advice and absent calls show without a mapping (length 0);
//! placement and access are tried on one page that is given back.

use super::abi::{self, Errno};
use super::views;
use super::{Options, Syscalls, os_error};
use crate::contract::{Capabilities, Config};
use crate::error::PlatformError;
use crate::range::{AddrRange, align_up};

/// What the kernel makes of `MAP_FIXED_NOREPLACE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exactness {
    /// 4.17 and later: exactly there, or `EEXIST`.
    Enforced,
    /// Older: the address is a hint, honoured if free. Verified, it serves as an exact claim.
    HintsHonoured,
    /// An emulator that places mappings by itself.
    HintsIgnored,
}

/// Lowest address that any kernel lets an unprivileged process map at a hint.
const FLOOR: u64 = 0x1_0000;

/// End of the low window.
const CEILING: u64 = 1 << 32;

/// Probing mappings: pages of no access.
const PROBE: i32 = abi::MAP_PRIVATE | abi::MAP_ANONYMOUS | abi::MAP_NORESERVE;

/// Everything that is found out once.
#[derive(Debug)]
pub(super) struct Probed {
    pub(super) config: Config,
    pub(super) exactness: Exactness,
    pub(super) procmap_query: bool,
    pub(super) populate: bool,
}

/// Asks the kernel.
pub(super) fn probe<S: Syscalls>(sys: &S, options: &Options) -> Result<Probed, PlatformError> {
    let page_size = sys.page_size();
    let exactness = exactness(sys, page_size)?;
    let capabilities = Capabilities {
        exact_claims: exactness == Exactness::Enforced,
        low_claims: low_claims(sys, page_size),
        second_views: views::create(sys).map(|fd| sys.close(fd)).is_ok(),
        protect_to_execute: protect_to_execute(sys, page_size),
        partial_release: true,
        guard_in_place: sys.madvise(0, 0, abi::MADV_GUARD_INSTALL).is_ok(),
        seal: sys.mseal(0, 0).is_ok(),
        jit_pages: false,
    };
    let config = Config {
        page_size,
        granularity: page_size,
        low_window: Ok(low_window(sys, page_size)),
        user_end: user_end(sys, page_size),
        capabilities,
    };
    Ok(Probed {
        config,
        exactness,
        procmap_query: options.procmap_query && procmap_query(sys),
        populate: sys.madvise(0, 0, abi::MADV_POPULATE_WRITE).is_ok(),
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

fn exactness<S: Syscalls>(sys: &S, page_size: u64) -> Result<Exactness, PlatformError> {
    let none = AddrRange::at(0, page_size).expect("starts at 0");
    let taken = try_page(sys, 0, page_size, 0)
        .map_err(|errno| os_error("mmap of a probing page", none, errno))?;
    let over = try_page(sys, taken, page_size, abi::MAP_FIXED_NOREPLACE);
    give_back(sys, taken, page_size);
    let elsewhere = match over {
        Ok(at) => at,
        Err(Errno::EEXIST) => return Ok(Exactness::Enforced),
        Err(errno) => return Err(os_error("mmap of a probing page", none, errno)),
    };
    give_back(sys, elsewhere, page_size);
    if honours_hints(sys, page_size) {
        return Ok(Exactness::HintsHonoured);
    }
    Ok(Exactness::HintsIgnored)
}

/// Asks for the middle page of a free stretch, which no search from either end would choose.
/// Another thread may take it in between: hints are ignored after three misses.
fn honours_hints<S: Syscalls>(sys: &S, page_size: u64) -> bool {
    let stretch = 64 * page_size;
    (0..3).any(|_| {
        let Ok(at) = sys.mmap(0, stretch, abi::PROT_NONE, PROBE, -1, 0) else {
            return false;
        };
        give_back(sys, at, stretch);
        let middle = at + stretch / 2;
        let Ok(given) = try_page(sys, middle, page_size, 0) else {
            return false;
        };
        give_back(sys, given, page_size);
        given == middle
    })
}

/// Only x86-64 knows `MAP_32BIT`; elsewhere, and under some emulators, the page comes back high.
/// `ENOMEM` (a full window, the regression of 2023) may pass: claims are verified one by one.
fn low_claims<S: Syscalls>(sys: &S, page_size: u64) -> bool {
    match try_page(sys, 0, page_size, abi::MAP_32BIT) {
        Ok(at) => {
            give_back(sys, at, page_size);
            at < 1 << 31
        }
        Err(errno) => errno == Errno::ENOMEM,
    }
}

/// `PR_SET_MDWE` tells; SELinux and others show only when tried.
fn protect_to_execute<S: Syscalls>(sys: &S, page_size: u64) -> bool {
    let mdwe = sys.prctl_get_mdwe().unwrap_or(0);
    if mdwe & abi::PR_MDWE_REFUSE_EXEC_GAIN != 0 {
        return false;
    }
    let writable = abi::PROT_READ | abi::PROT_WRITE;
    let Ok(at) = sys.mmap(0, page_size, writable, PROBE, -1, 0) else {
        return false;
    };
    let changed = sys.mprotect(at, page_size, abi::PROT_READ | abi::PROT_EXEC);
    give_back(sys, at, page_size);
    changed.is_ok()
}

/// From the highest of 64 KiB and `vm.mmap_min_addr` (root may map below: the floor is ours).
fn low_window<S: Syscalls>(sys: &S, page_size: u64) -> AddrRange {
    let minimum = super::files::OpenFile::open(sys, c"/proc/sys/vm/mmap_min_addr");
    let minimum = minimum
        .ok()
        .and_then(super::files::OpenFile::read_number)
        .unwrap_or(0);
    let start = align_up(minimum.max(FLOOR), page_size).filter(|&start| start < CEILING);
    AddrRange::new(start.unwrap_or(FLOOR), CEILING).expect("the floor lies below the ceiling")
}

/// User space ends at the power of two above the main stack, less the page that x86-64 keeps
/// free there (`TASK_SIZE`): right for 39, 47 and 48 bits of address.
fn user_end<S: Syscalls>(sys: &S, page_size: u64) -> u64 {
    let stack = sys.stack_address().max(CEILING);
    stack.checked_next_power_of_two().unwrap_or(1 << 63) - page_size
}

fn procmap_query<S: Syscalls>(sys: &S) -> bool {
    let Ok(fd) = sys.open(c"/proc/self/maps", abi::O_RDONLY_CLOEXEC) else {
        return false;
    };
    let mut query = abi::ProcmapQuery {
        query_flags: abi::PROCMAP_QUERY_COVERING_OR_NEXT_VMA,
        ..abi::ProcmapQuery::default()
    };
    let known = sys.procmap_query(fd, &mut query).is_ok();
    sys.close(fd);
    known
}
