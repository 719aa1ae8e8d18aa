//! Errors of a platform: the call, the range and the system's code, the same variants on every system.

use crate::range::AddrRange;

/// A system call that the operating system refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call} of {range} failed: {reason} (code {code})")]
pub struct PlatformError {
    /// Name of the call, as the system names it (`mprotect`).
    pub call: &'static str,
    /// The range it was for; empty at 0 if it has none.
    pub range: AddrRange,
    /// The system's error code (errno, `kern_return_t`, `GetLastError`).
    pub code: i32,
    /// The code in words.
    pub reason: String,
}

/// Why a claim did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// Somebody holds (part of) the range: a collision, try another address.
    #[error("{range} is occupied")]
    Occupied {
        /// The range asked for.
        range: AddrRange,
    },
    /// This way of claiming does not exist here (old kernel, other system): take the next step.
    #[error("{call} is not supported here")]
    Unsupported {
        /// Name of the call.
        call: &'static str,
    },
    /// A limit is reached (`RLIMIT_AS`, `max_map_count`, memory): other addresses will not help.
    #[error("out of address space or mappings: {0}")]
    Exhausted(#[source] PlatformError),
    /// Policy forbids it (SELinux, seccomp, ACG): other addresses will not help.
    #[error("refused by policy: {0}")]
    Refused(#[source] PlatformError),
}

/// Why a process has no usable memory below 4 GiB.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoLowWindow {
    /// Mach-O's `__PAGEZERO` covers it.
    #[error(
        "__PAGEZERO ends at {end:#x}: nothing below can be mapped; link the program with \
         -Wl,-pagezero_size,0x10000 (deprecated from macOS 13 on, and not always obeyed), or place \
         near an address"
    )]
    PageZero {
        /// Where `__PAGEZERO` ends.
        end: u64,
    },
    /// The system never maps there (macOS on arm64).
    #[error("this system never maps the first 4 GiB: place near an address instead")]
    System,
}
