//! The lock of everything in this layer: one atomic operation to take it, a store to leave it.
//!
//! A global allocator needs one that never allocates, and `fork` one that the child can leave
//! although the threads that waited for it are gone. parking_lot's parks in a table that allocates
//! and has locks of its own, which a fork may catch taken. What this one guards is short but for
//! the mapping of an arena (some microseconds), during which those who wait yield, then sleep.
//!
//! Invariant: the value is reached by the one who took the lock, until he leaves it.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use super::sync::{AtomicBool, Ordering, SPINS, UnsafeCell, rest, spin_loop, yield_now};

/// Yields before sleeping: a thread of higher priority would otherwise keep the holder from running.
const YIELDS: u32 = 100;

/// A value behind a spinning lock.
pub(crate) struct SpinLock<T> {
    locked: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: Sync needs that shared references from many threads are sound: the value is reached
// through a guard only, of which there is one at a time, and moves to other threads (T: Send).
unsafe impl<T: Send> Sync for SpinLock<T> {}

impl<T> SpinLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            locked: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// The value, if nobody has it.
    #[inline]
    pub(crate) fn try_lock(&self) -> Option<SpinGuard<'_, T>> {
        // Not a swap: loom lets one that fails be the last store of all.
        self.locked
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
            .then(|| self.guard())
    }

    /// The value, once nobody else has it.
    #[inline]
    pub(crate) fn lock(&self) -> SpinGuard<'_, T> {
        match self.try_lock() {
            Some(guard) => guard,
            None => self.wait(),
        }
    }

    #[cold]
    fn wait(&self) -> SpinGuard<'_, T> {
        let mut yields = 0;
        loop {
            for _ in 0..SPINS {
                if !self.locked.load(Ordering::Relaxed)
                    && let Some(guard) = self.try_lock()
                {
                    return guard;
                }
                spin_loop();
            }
            if yields < YIELDS {
                yields += 1;
                yield_now();
            } else {
                rest();
            }
        }
    }

    /// The guard that was given up by [`SpinGuard::keep`].
    ///
    /// # Safety
    /// The caller (a child counts as its parent) gave it up and has not taken it back.
    pub(crate) unsafe fn resume(&self) -> SpinGuard<'_, T> {
        self.guard()
    }

    /// Whoever calls it holds the lock and has no other guard.
    #[inline]
    fn guard(&self) -> SpinGuard<'_, T> {
        SpinGuard {
            lock: self,
            unique: PhantomData,
        }
    }
}

impl<T: Default> Default for SpinLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> fmt::Debug for SpinLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpinLock")
            .field("locked", &self.locked)
            .finish_non_exhaustive()
    }
}

/// The right to the value.
#[derive(Debug)]
pub(crate) struct SpinGuard<'a, T> {
    lock: &'a SpinLock<T>,
    /// Sent and shared as a unique reference to the value would be.
    unique: PhantomData<&'a mut T>,
}

impl<T> SpinGuard<'_, T> {
    /// Stays locked until [`SpinLock::resume`]: over a fork.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl<T> Deref for SpinGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        let value = self.lock.value.get();
        // SAFETY: `as_ref` needs that nobody writes the value: this guard is the only one.
        unsafe { value.as_ref() }
    }
}

impl<T> DerefMut for SpinGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        let value = self.lock.value.get_mut();
        // SAFETY: `as_mut` needs that nobody else reaches the value: this guard is the only one,
        // and it is borrowed exclusively.
        unsafe { value.as_mut() }
    }
}

impl<T> Drop for SpinGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.locked.store(false, Ordering::Release);
    }
}
