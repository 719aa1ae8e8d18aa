//! Static storage for a block of which we write the copies ourselves: a carrier's that waits to
//! be unloaded, or a part of the pool.
//!
//! A block is in three places: its initial values, which new threads copy, and the copy of
//! each thread that exists. All are written before anybody uses the block. Where some thread's
//! copy cannot be written, only untouched parts of the pool do, for blocks of zeros.

use low2g_platform::{to_u64, to_usize};

use super::threads::{self, AllThreads, Range};
use super::{carrier, order, pool};

/// Thread pointers are aligned to this at least (glibc, sysdeps/x86_64/nptl/tls.h).
const POINTER_ALIGN: u64 = 64;

/// A block that needs a constant offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// Initial values; zeros follow.
    pub(super) image: &'a [u8],
    pub(super) size: u64,
    /// A power of two.
    pub(super) align: u64,
}

impl Wanted<'_> {
    pub(super) fn is_zero(&self) -> bool {
        self.image.iter().all(|&byte| byte == 0)
    }
}

/// The place of a block. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Room {
    /// Module number.
    pub(super) module: u64,
    /// Offset of the block in the module's.
    pub(super) base: u64,
    /// Offset from the thread pointer, two's complement.
    pub(super) offset: u64,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// The handle of a carrier.
    Carrier(usize),
    /// Offset in the pool.
    Pool(u64),
}

/// Why the pool did not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolRefusal {
    /// The process has none.
    Absent,
    /// It has no part of that size and alignment.
    Full {
        /// Bytes of the pool.
        size: u64,
        /// Bytes of its greatest part that could be had.
        available: u64,
        /// The strictest alignment that it can give, bytes.
        align: u64,
    },
    /// It has initial values to write, or a part used before, and a thread that is not known.
    UnknownThreads,
    /// Its initial values cannot be made writable.
    Protected {
        /// The system's error code.
        code: i32,
    },
}

impl std::fmt::Display for PoolRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent => f.write_str("the program reserves no pool (low2g::tls_pool!)"),
            Self::Full {
                size,
                available,
                align,
            } => write!(
                f,
                "the pool of {size} bytes has {available} left, aligned to {align} at most"
            ),
            Self::UnknownThreads => f.write_str(
                "the pool gives blocks with initial values, and parts used before, only while the process has one thread or all have called low2g::link::tls::register_thread",
            ),
            Self::Protected { code } => write!(
                f,
                "the pool's initial values cannot be written (mprotect: error {code})"
            ),
        }
    }
}

impl Room {
    /// The block of a carrier that waits, if one fits and all threads are known.
    pub(super) fn of_waiting(wanted: Wanted<'_>) -> Option<Self> {
        if wanted.align > POINTER_ALIGN || !order::has(wanted.size, wanted.align) {
            return None;
        }
        let mut threads = AllThreads::hold()?;
        let fixed = order::take(wanted.size, wanted.align)?;
        let room = Self {
            module: fixed.module,
            base: 0,
            offset: fixed.depth.wrapping_neg(),
            source: Source::Carrier(fixed.handle),
        };
        let size = to_usize(wanted.size);
        let image = std::ptr::with_exposed_provenance_mut::<u8>(fixed.image);
        // SAFETY: the carrier is loaded, its image has at least `size` bytes, is writable, and
        // threads that start now copy bytes of a block that nobody uses yet.
        let image = unsafe { std::slice::from_raw_parts_mut(image, size) };
        fill(image, wanted.image);
        let range = Range {
            offset: room.offset,
            image: fixed.image,
            size,
        };
        // SAFETY: the block is static, nobody's since it waited, and held until `forget`.
        unsafe { threads.write(range) };
        Some(room)
    }

    /// A part of the pool.
    pub(super) fn of_pool(wanted: Wanted<'_>) -> Result<Self, PoolRefusal> {
        let pool = pool::installed().ok_or(PoolRefusal::Absent)?;
        let threads = AllThreads::hold();
        // Untouched parts are zero in every thread.
        let untouched = threads.is_none();
        if untouched && !wanted.is_zero() {
            return Err(PoolRefusal::UnknownThreads);
        }
        let at = pool.take(wanted.size, wanted.align, untouched)?;
        let room = Self {
            module: pool::PROGRAM,
            base: pool.base.wrapping_add(at),
            offset: pool.offset.wrapping_add(at),
            source: Source::Pool(at),
        };
        if let Some(mut threads) = threads {
            let size = to_usize(wanted.size);
            let mut bytes = vec![0; size];
            fill(&mut bytes, wanted.image);
            let image = pool
                .write_image(at, &bytes)
                .map_err(|code| PoolRefusal::Protected { code })?;
            let range = Range {
                offset: room.offset,
                image,
                size,
            };
            // SAFETY: the pool is static in every thread; the part is ours alone until `forget`.
            unsafe { threads.write(range) };
        }
        Ok(room)
    }

    pub(super) const fn is_pool(&self) -> bool {
        matches!(self.source, Source::Pool(_))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        threads::forget(self.offset);
        match self.source {
            Source::Carrier(handle) => carrier::close(&order::leave(handle)),
            Source::Pool(at) => {
                if let Some(pool) = pool::installed() {
                    pool.release(at);
                }
            }
        }
    }
}

/// Fills `to` with `values` and zeros after them.
fn fill(to: &mut [u8], values: &[u8]) {
    let (start, rest) = to.split_at_mut(values.len().min(to.len()));
    start.copy_from_slice(&values[..start.len()]);
    rest.fill(0);
}

/// What becomes of static thread-local storage in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StaticUse {
    /// Bytes of blocks whose modules are gone but that the C library cannot take back yet,
    /// since blocks above them are in use. A new block may have them where all threads are
    /// known (see [`register_thread`](super::register_thread)).
    pub waiting: u64,
    /// Bytes of the pool, 0 if there is none.
    pub pool: u64,
    /// Bytes of it in use.
    pub pool_used: u64,
    /// Bytes of it once used and free: for new blocks where all threads are known.
    pub pool_waiting: u64,
}

/// How much of static thread-local storage is in use or waits.
#[must_use]
pub fn static_use() -> StaticUse {
    let mut total = StaticUse {
        waiting: order::waiting(),
        ..StaticUse::default()
    };
    if let Some(pool) = pool::installed() {
        (total.pool, total.pool_used, total.pool_waiting) = pool.usage();
    }
    debug_assert!(total.pool_used <= to_u64(usize::MAX));
    total
}
