//! `fork`: no lock of an allocator is caught half-way, and what the child inherits is its own.
//!
//! ```text
//!   prepare   takes every lock of every allocator     (no arena is half made, no list half changed),
//!             and marks the code slots in use: the parent will not write them again
//!   parent    leaves them
//!   child     leaves them; code arenas are closed, addresses are drawn from another stream
//! ```
//!
//! Lock order: making, the list, allocators, the one behind the program's global allocator (which
//! serves the others' bookkeeping while they hold their locks); in an allocator as its fields say.
//!
//! Invariant: every allocator of a real system is in the list before it is handed out.

use std::sync::{Arc, OnceLock, Weak};

use crate::alloc::allocator::Inner;
use crate::alloc::error::AllocError;
use crate::alloc::global::Entered;
use crate::alloc::lock::SpinLock;

/// What the handlers work on.
#[derive(Default)]
struct Forks {
    /// Taken while something is made once for all (an allocator, the one behind a global one).
    making: SpinLock<()>,
    allocators: SpinLock<Vec<Weak<Inner>>>,
    /// Those whose locks a fork holds now.
    held: SpinLock<Vec<Arc<Inner>>>,
}

fn forks() -> &'static Forks {
    static FORKS: OnceLock<Forks> = OnceLock::new();
    static WATCHED: OnceLock<bool> = OnceLock::new();
    let forks = FORKS.get_or_init(Forks::default);
    WATCHED.get_or_init(|| low2g_platform::at_fork(prepare, parent, child));
    forks
}

/// Runs `make`, which makes something once for all: no fork catches it half-way.
pub(crate) fn uninterrupted<T>(make: impl FnOnce() -> T) -> T {
    let _making = forks().making.lock();
    make()
}

/// Builds an allocator of which every fork knows.
pub(crate) fn admit(
    build: impl FnOnce() -> Result<Inner, AllocError>,
) -> Result<Arc<Inner>, AllocError> {
    // The first allocation of a program with a global allocator of ours builds that one, here.
    let _inside = Entered::new();
    let mut allocators = forks().allocators.lock();
    let inner = Arc::new(build()?);
    if !inner.simulated {
        allocators.retain(|known| known.strong_count() > 0);
        allocators.push(Arc::downgrade(&inner));
    }
    Ok(inner)
}

extern "C" fn prepare() {
    // The list below must not come from an allocator that is being locked.
    let _inside = Entered::new();
    let forks = forks();
    let making = forks.making.lock();
    let allocators = forks.allocators.lock();
    let mut held = forks.held.lock();
    *held = allocators.iter().filter_map(Weak::upgrade).collect();
    held.sort_by_key(|inner| inner.global);
    for inner in held.iter() {
        inner.lock_for_fork();
    }
    held.keep();
    allocators.keep();
    making.keep();
}

/// Leaves all locks; gives the allocators whose they were.
fn leave() -> Vec<Arc<Inner>> {
    let forks = forks();
    // SAFETY: resume needs a guard that `prepare` kept: it did, in this thread or its parent.
    let mut held = unsafe { forks.held.resume() };
    let inners = std::mem::take(&mut *held);
    for inner in &inners {
        // SAFETY: unlock_after_fork needs that lock_for_fork was called: by `prepare`, for each.
        unsafe { inner.unlock_after_fork() };
    }
    drop(held);
    // SAFETY: as above.
    drop(unsafe { forks.allocators.resume() });
    // SAFETY: as above.
    drop(unsafe { forks.making.resume() });
    inners
}

extern "C" fn parent() {
    // The last reference to an allocator may be among them; what it allocated is freed as it was.
    drop(leave());
}

extern "C" fn child() {
    for inner in leave() {
        inner.begin_as_child();
    }
}

impl Inner {
    /// Takes every lock, to keep it over a fork.
    fn lock_for_fork(&self) {
        self.heap.lock_for_fork();
        if let Some(extents) = &self.extents {
            extents.lock_for_fork();
        }
        self.raw_owned.lock().keep();
        self.raw_code.lock().keep();
        let mut code = self.code.lock();
        code.share();
        code.keep();
        self.retired.lock_for_fork();
        self.pages.state.lock().keep();
    }

    /// Leaves every lock.
    ///
    /// # Safety
    /// `lock_for_fork` was called, and this not since.
    unsafe fn unlock_after_fork(&self) {
        // SAFETY: resume needs a guard that was kept: by lock_for_fork, the caller says.
        drop(unsafe { self.pages.state.resume() });
        // SAFETY: as above.
        unsafe { self.retired.unlock_after_fork() };
        // SAFETY: as above.
        drop(unsafe { self.code.resume() });
        // SAFETY: as above.
        drop(unsafe { self.raw_code.resume() });
        // SAFETY: as above.
        drop(unsafe { self.raw_owned.resume() });
        if let Some(extents) = &self.extents {
            // SAFETY: as above.
            unsafe { extents.unlock_after_fork() };
        }
        // SAFETY: as above.
        unsafe { self.heap.unlock_after_fork() };
    }

    /// What changes for a child, whose only thread this is.
    fn begin_as_child(&self) {
        self.close_inherited_code();
    }
}
