//! The pool: thread-local storage that a program reserves in its own static block.
//!
//! ```text
//! program's block:  ... | head | parts of modules ... | untouched | ...   thread pointer
//! ```
//!
//! Constant offsets of any size, also where there is no dynamic linker; each thread of the
//! program pays for it. New threads copy it from the program's initial image, so that is
//! rewritten; the head is not zero, which keeps all of the pool in that image.
//!
//! Invariant: parts do not overlap; bytes from `touched` on are zero in the image and in every
//! thread's copy.

use std::cell::UnsafeCell;
use std::sync::OnceLock;

use low2g_platform::{align_up, to_u64, to_usize};
use parking_lot::Mutex;

use super::room::PoolRefusal;
use super::system::{ProgramBlock, protect, thread_pointer};

/// The program's module number (psABI).
pub(super) const PROGRAM: u64 = 1;
/// What a pool starts with, so that it is found in the image, and found to be in the image.
const HEAD: [u8; 16] = *b"low2g tls pool\0\x01";
/// Alignment of a pool.
const ALIGN: u64 = 128;

/// Storage of a pool of `N` bytes. Made by [`tls_pool!`](crate::tls_pool).
#[doc(hidden)]
#[derive(Debug)]
#[repr(C, align(128))]
pub struct PoolBytes<const N: usize> {
    head: UnsafeCell<[u8; HEAD.len()]>,
    gap: UnsafeCell<[u8; 112]>,
    bytes: UnsafeCell<[u8; N]>,
}

impl<const N: usize> PoolBytes<N> {
    /// Unused storage.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "only a constant initialises thread-local storage without code"
    )]
    pub const fn new() -> Self {
        assert!(N > 0 && N < 1 << 30, "a pool has 1 byte to 1 GiB");
        Self {
            head: UnsafeCell::new(HEAD),
            gap: UnsafeCell::new([0; 112]),
            bytes: UnsafeCell::new([0; N]),
        }
    }
}

/// Why a pool cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The process has another pool already.
    #[error("the process has a pool of {size} bytes already; reserve one, as big as needed")]
    Second {
        /// Bytes of the first.
        size: u64,
    },
    /// It is not in the program's static block.
    #[error(
        "the pool is not in the program's own thread-local block; invoke low2g::tls_pool! in the program, not in a shared library"
    )]
    Elsewhere,
}

/// Reserves a pool of this many bytes of thread-local storage in every thread of the program,
/// from which modules that need constant offsets (local-exec, initial-exec) have their blocks
/// once the C library's surplus is used up. Gives `Result<(), PoolError>`.
///
/// Invoke it once, in the program itself (not in a shared library), before modules are loaded,
/// best while it has one thread. Threads get their thread-local storage from their stacks with
/// glibc: their stack sizes must allow for the pool.
///
/// ```
/// low2g::tls_pool!(16 << 10).expect("this is a program");
/// ```
#[macro_export]
macro_rules! tls_pool {
    ($bytes:expr) => {{
        ::std::thread_local! {
            static POOL: $crate::link::tls::PoolBytes<{ $bytes }> =
                const { $crate::link::tls::PoolBytes::new() };
        }
        POOL.with($crate::link::tls::install_pool)
    }};
}

/// The process's pool.
#[derive(Debug)]
pub(super) struct Pool {
    /// From the thread pointer, two's complement.
    pub(super) offset: u64,
    /// In the program's block.
    pub(super) base: u64,
    size: u64,
    /// Address of the initial values.
    image: usize,
    /// They are write-protected.
    protected: bool,
    parts: Mutex<Parts>,
}

#[derive(Debug, Default)]
struct Parts {
    /// Start and end, sorted.
    used: Vec<(u64, u64)>,
    touched: u64,
}

static POOL: OnceLock<Pool> = OnceLock::new();

pub(super) fn installed() -> Option<&'static Pool> {
    POOL.get()
}

/// Makes the pool known.
///
/// # Errors
/// It is not the program's, or not the first.
#[doc(hidden)]
pub fn install_pool<const N: usize>(pool: &PoolBytes<N>) -> Result<(), PoolError> {
    let addr = (&raw const *pool).expose_provenance();
    let head = pool.bytes.get().expose_provenance() - addr;
    let found = ProgramBlock::find().and_then(|program| program.pool(addr, head, N));
    let found = found.ok_or(PoolError::Elsewhere)?;
    let (offset, size) = (found.offset, found.size);
    let first = POOL.get_or_init(|| found);
    if (first.offset, first.size) == (offset, size) {
        Ok(())
    } else {
        Err(PoolError::Second { size: first.size })
    }
}

impl Pool {
    /// Takes `size` bytes aligned to `align`; `untouched` ones if told to.
    pub(super) fn take(&self, size: u64, align: u64, untouched: bool) -> Result<u64, PoolRefusal> {
        let mut parts = self.parts.lock();
        let mut from = if untouched { parts.touched } else { 0 };
        let (mut index, mut available) = (0, 0);
        loop {
            // From `from` to the next part in use, or the end.
            index += parts.used[index..].partition_point(|part| part.1 <= from);
            let next = parts.used.get(index);
            let end = next.map_or(self.size, |part| part.0);
            let at = align_up(from, align).filter(|_| align <= ALIGN);
            if let Some(at) = at
                && at.saturating_add(size) <= end
            {
                parts.used.insert(index, (at, at + size));
                parts.touched = parts.touched.max(at + size);
                return Ok(at);
            }
            available = available.max(end.saturating_sub(from));
            match next {
                Some(part) => from = part.1,
                None => {
                    return Err(PoolRefusal::Full {
                        size: self.size,
                        available,
                        align: ALIGN,
                    });
                }
            }
        }
    }

    pub(super) fn release(&self, at: u64) {
        self.parts.lock().used.retain(|part| part.0 != at);
    }

    /// Bytes in all, in use, and once used and free.
    pub(super) fn usage(&self) -> (u64, u64, u64) {
        let parts = self.parts.lock();
        let used: u64 = parts.used.iter().map(|part| part.1 - part.0).sum();
        (self.size, used, parts.touched - used)
    }

    /// Writes initial values at `at`; gives their address, or the system's error code.
    pub(super) fn write_image(&self, at: u64, bytes: &[u8]) -> Result<usize, i32> {
        let addr = self.image + to_usize(at);
        // Parts share pages: nobody protects one while another is written.
        let _alone = self.parts.lock();
        if self.protected {
            protect(addr, bytes.len(), true)?;
        }
        let to = std::ptr::with_exposed_provenance_mut::<u8>(addr);
        // SAFETY: the part lies in the program's image, which is mapped and writable now.
        // Threads that start meanwhile copy bytes that nobody uses yet.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        if self.protected {
            protect(addr, bytes.len(), false)?;
        }
        Ok(addr)
    }
}

impl ProgramBlock {
    /// The pool at `addr` in this thread, if it is in the block and in the image.
    fn pool(&self, addr: usize, head: usize, size: usize) -> Option<Pool> {
        let pointer = to_u64(thread_pointer()?);
        let start = pointer.checked_sub(self.depth()?)?;
        let base = to_u64(addr).checked_sub(start)?;
        let end = base.checked_add(to_u64(head + size))?;
        if end > self.image_size {
            return None;
        }
        let image = to_usize(self.image + base);
        let there = std::ptr::with_exposed_provenance::<[u8; HEAD.len()]>(image);
        // SAFETY: the image is mapped, and holds these bytes as just seen.
        let there = unsafe { there.read_unaligned() };
        (there == HEAD).then(|| Pool {
            offset: to_u64(addr + head).wrapping_sub(pointer),
            base: base + to_u64(head),
            size: to_u64(size),
            image: image + head,
            protected: self.protected,
            parts: Mutex::default(),
        })
    }
}
