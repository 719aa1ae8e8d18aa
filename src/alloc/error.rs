//! What can go wrong when low memory is asked for, with the values that say why.
//!
//! Invariant: an error means that nothing of the failed request is left mapped,
//! unless the system refused to take it back (counted in
//! [`Statistics::stuck_bytes`](crate::alloc::Statistics)).

use std::fmt;

use low2g_platform::{AddrRange, NoLowWindow, PlatformError};

use crate::alloc::reach::Reach;

/// Why low memory was not had.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AllocError {
    /// The system never gives this process memory below 4 GiB.
    #[error("no low memory for reach {reach}: {reason}")]
    NoLowWindow {
        /// The reach asked for.
        reach: Reach,
        /// Why there is none.
        #[source]
        reason: NoLowWindow,
    },
    /// The reach holds no address that a mapping may have.
    #[error(
        "reach {reach} holds no usable address: lower the floor ({floor:#x}) or widen the reach"
    )]
    EmptyReach {
        /// The reach asked for.
        reach: Reach,
        /// The lowest address that was allowed.
        floor: u64,
    },
    /// A request that no system could satisfy.
    #[error("{what} {value:#x} is not possible: expected {expected}")]
    BadRequest {
        /// Which value.
        what: &'static str,
        /// The value.
        value: u64,
        /// What it should have been.
        expected: &'static str,
    },
    /// A word that does not name a reach or a placement.
    #[error("'{word}' is not a {what}: expected {expected}")]
    BadWord {
        /// What was to be read.
        what: &'static str,
        /// What stood there.
        word: String,
        /// The words there are.
        expected: &'static str,
    },
    /// The part named lies outside the mapping, or does not consist of whole pages.
    #[error("{part} is not made of whole pages inside the mapping {mapping}")]
    OutOfBounds {
        /// The part asked for.
        part: AddrRange,
        /// The mapping it was asked of.
        mapping: AddrRange,
    },
    /// Pages of the mapping cannot be written.
    #[error("not every page of {mapping} can be written: make it ReadWrite first")]
    NotWritable {
        /// The mapping.
        mapping: AddrRange,
    },
    /// The exact place asked for is taken.
    #[error("{range} is already taken by {holder}: choose another address")]
    Occupied {
        /// The place asked for.
        range: AddrRange,
        /// Who holds (part of) it, as far as the system tells.
        holder: String,
    },
    /// No hole of the window is large enough.
    #[error(
        "no low memory left: {size} bytes aligned to {align:#x} do not fit in {window}; \
         the largest hole has {largest_hole} bytes, {free} bytes are free in all, {held}; \
         release low memory, ask for less or widen the reach",
        held = HolderList(holders)
    )]
    Exhausted {
        /// Bytes asked for, in whole pages.
        size: u64,
        /// Alignment in bytes.
        align: u64,
        /// Where it was to lie.
        window: AddrRange,
        /// Bytes of the largest hole of the window.
        largest_hole: u64,
        /// Free bytes of the window.
        free: u64,
        /// What holds the rest, largest first, at most [`HELD_BY_LISTED`].
        holders: Vec<HeldBy>,
    },
    /// Holes were there, but every attempt to take one was beaten or refused.
    #[error(
        "no hole of {window} could be taken for {size} bytes in {attempts} attempts although \
         {free_slots} start addresses looked free: other threads map and unmap there, or this \
         system ignores address hints; try again, or use --placement kernel"
    )]
    Contended {
        /// Bytes asked for, in whole pages.
        size: u64,
        /// Where it was to lie.
        window: AddrRange,
        /// Claims that were tried.
        attempts: u32,
        /// Start addresses that the last survey showed free.
        free_slots: u64,
    },
    /// The address would have been easier to guess than the caller accepts.
    #[error(
        "placement would have {bits:.2} bits of entropy, the minimum is {minimum:.2} \
         ({free_slots} start addresses possible): {advice}"
    )]
    EntropyTooLow {
        /// Bits that could be had.
        bits: f64,
        /// Bits that were asked for.
        minimum: f64,
        /// Start addresses possible at that size and alignment.
        free_slots: u64,
        /// What to change.
        advice: &'static str,
    },
    /// A limit of the process is reached; other addresses do not help.
    #[error(
        "a limit is reached ({source}): raise RLIMIT_AS or vm.max_map_count, or release memory"
    )]
    Limit {
        /// What the system said.
        source: PlatformError,
    },
    /// The process's own allocator has no memory for bookkeeping.
    #[error("no memory for {what} of {bytes} bytes: raise RLIMIT_AS, or release memory")]
    NoBookkeeping {
        /// What was to be kept there.
        what: &'static str,
        /// Bytes asked of the process's allocator.
        bytes: u64,
    },
    /// Policy forbids the mapping; other addresses do not help.
    #[error("refused by this system's policy ({source}): see `low2g doctor`")]
    Refused {
        /// What the system said.
        source: PlatformError,
    },
    /// This system has no call for it.
    #[error("{call} is not supported here: see `low2g doctor`")]
    Unsupported {
        /// Name of the call.
        call: &'static str,
    },
    /// More than the allocator may hold.
    #[error(
        "{size} more bytes would exceed the allocator's limit of {limit}, of which {live} are held: \
         release low memory, or raise Builder::byte_limit"
    )]
    ByteLimit {
        /// Bytes asked for, in whole pages.
        size: u64,
        /// Bytes held in mappings now.
        live: u64,
        /// The limit.
        limit: u64,
    },
    /// Code that a parent process was writing is published in a child, which cannot write it.
    #[error("the code at {addr:#x} belongs to the parent process: allocate it again after fork")]
    Inherited {
        /// Where it would execute.
        addr: u64,
    },
    /// A freed block was found changed.
    #[error(transparent)]
    Misuse(#[from] Misuse),
    /// Another call of the system failed.
    #[error(transparent)]
    Platform(#[from] PlatformError),
}

/// Why an address cannot be freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// The block that starts there is free already.
    #[error("{addr:#x} is freed, but is not in use: a second free of it")]
    NotInUse {
        /// The address.
        addr: u64,
    },
    /// It is not where a block starts.
    #[error("{addr:#x} is freed, but lies inside the block at {start:#x}")]
    Inside {
        /// The address.
        addr: u64,
        /// Where the block (or the slot for one) starts.
        start: u64,
    },
    /// No block of this allocator is there.
    #[error("{addr:#x} is freed, but is no block of this allocator: foreign, or freed before")]
    NotOurs {
        /// The address.
        addr: u64,
    },
    /// A freed block was written to before it was used again.
    #[error("the freed block at {addr:#x} of {size} bytes was written to after its free")]
    WrittenAfterFree {
        /// Where the block starts.
        addr: u64,
        /// Bytes of its slot.
        size: u64,
    },
}

/// Most holders that [`AllocError::Exhausted`] lists.
pub const HELD_BY_LISTED: usize = 5;

/// Who holds how much of a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBy {
    /// The system's name for it, or what kind of thing it is.
    pub name: String,
    /// Bytes of the window.
    pub bytes: u64,
}

/// The holders as one phrase of an error message.
struct HolderList<'a>(&'a [HeldBy]);

impl fmt::Display for HolderList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("what holds the rest is not known");
        }
        f.write_str("held by")?;
        for (index, held) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(f, "{separator} {} ({} bytes)", held.name, held.bytes)?;
        }
        Ok(())
    }
}
