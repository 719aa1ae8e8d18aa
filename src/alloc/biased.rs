//! A lock for what one thread uses nearly always: a pool of its own shard.
//!
//! ```text
//!   the owner     active = 1;  is it mine still?  ...use...  active = 0     no atomic operation
//!   another       locked = 1;  owner = none;  BARRIER on every core;  wait until active = 0
//! ```
//!
//! A locked instruction waits for all stores before it, and holds up all loads after it; two of
//! them are half the time of a small block's life. So a thread that took the lock often enough, and
//! nobody else meanwhile, owns it. Whoever comes then pays for both: the barrier
//! ([`Barrier`]) makes the owner's mark visible if it was set before the owner
//! could see that it lost the lock. From then on it is an ordinary lock, until somebody owns it again.
//!
//! Where the system has no such barrier, nobody ever owns it.
//!
//! Invariants:
//! - `owner` changes only under `locked`, and is set only by the thread it names;
//! - the value is reached under `locked` with no owner (or before one was named), or by the owner
//!   under `active`.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use super::sync::{
    AtomicBool, AtomicU32, AtomicUsize, Barrier, Ordering, SPINS, STREAK, UnsafeCell,
    order_for_compiler, outwait_stores, rest, spin_loop, thread_token, yield_now,
};

/// Yields before sleeping: as `SpinLock`.
const YIELDS: u32 = 100;

/// No thread.
const NOBODY: usize = 0;

/// A value behind a lock that can have an owner. Both begin on one cache line.
#[repr(C, align(64))]
pub(crate) struct BiasedLock<T> {
    /// Who needs not take `locked`.
    owner: AtomicUsize,
    /// Whether the owner is at the value.
    active: AtomicBool,
    locked: AtomicBool,
    /// How often in a row the last one took `locked`; written under it.
    streak: AtomicU32,
    value: UnsafeCell<T>,
    /// Who took `locked` last.
    last: AtomicUsize,
}

// SAFETY: Sync needs that shared references from many threads are sound: the value is reached
// through a guard only, of which there is one at a time, and moves to other threads (T: Send).
unsafe impl<T: Send> Sync for BiasedLock<T> {}

impl<T> BiasedLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            owner: AtomicUsize::new(NOBODY),
            active: AtomicBool::new(false),
            locked: AtomicBool::new(false),
            last: AtomicUsize::new(NOBODY),
            streak: AtomicU32::new(0),
            value: UnsafeCell::new(value),
        }
    }

    /// The value, if this thread owns the lock.
    #[inline(always)]
    pub(crate) fn lock_as_owner(&self) -> Option<BiasedGuard<'_, T>> {
        let token = thread_token();
        if self.owner.load(Ordering::Relaxed) != token {
            return None;
        }
        self.active.store(true, Ordering::Relaxed);
        // The processor may still do the load before the store: whoever takes the ownership away
        // has every core catch up before he looks at `active`.
        order_for_compiler();
        if self.owner.load(Ordering::Relaxed) != token {
            self.active.store(false, Ordering::Release);
            return None;
        }
        Some(self.guard(&self.active))
    }

    /// The value, if nobody has it.
    #[inline]
    pub(crate) fn try_lock<B: Barrier + ?Sized>(&self, cores: &B) -> Option<BiasedGuard<'_, T>> {
        match self.lock_as_owner() {
            Some(guard) => Some(guard),
            None if self.locked.swap(true, Ordering::Acquire) => None,
            None => Some(self.entered(cores)),
        }
    }

    /// The value, once nobody else has it.
    #[inline]
    pub(crate) fn lock<B: Barrier + ?Sized>(&self, cores: &B) -> BiasedGuard<'_, T> {
        match self.try_lock(cores) {
            Some(guard) => guard,
            None => self.wait(cores),
        }
    }

    #[cold]
    fn wait<B: Barrier + ?Sized>(&self, cores: &B) -> BiasedGuard<'_, T> {
        wait_until(|| {
            !self.locked.load(Ordering::Relaxed) && !self.locked.swap(true, Ordering::Acquire)
        });
        self.entered(cores)
    }

    /// Whoever calls it has just taken `locked`.
    #[inline]
    fn entered<B: Barrier + ?Sized>(&self, cores: &B) -> BiasedGuard<'_, T> {
        let token = thread_token();
        if self.owner.load(Ordering::Relaxed) != NOBODY {
            self.disown(cores);
        }
        if self.last.load(Ordering::Relaxed) == token {
            let streak = self.streak.load(Ordering::Relaxed).saturating_add(1);
            self.streak.store(streak, Ordering::Relaxed);
            if streak == STREAK {
                self.own(token, cores);
            }
        } else {
            self.last.store(token, Ordering::Relaxed);
            self.streak.store(0, Ordering::Relaxed);
        }
        self.guard(&self.locked)
    }

    /// Makes this thread, which has `locked`, the owner, if ownership could be taken away again.
    #[cold]
    fn own<B: Barrier + ?Sized>(&self, token: usize, cores: &B) {
        if cores.on_every_core() {
            self.owner.store(token, Ordering::Relaxed);
        }
    }

    /// Takes the ownership away and waits until the owner has left. The caller has `locked`.
    #[cold]
    fn disown<B: Barrier + ?Sized>(&self, cores: &B) {
        self.revoke(cores);
        wait_until(|| !self.active.load(Ordering::Acquire));
        self.last.store(NOBODY, Ordering::Relaxed);
    }

    /// Takes the ownership away: from here on the owner is inside only if `active` says so. The
    /// caller has `locked`.
    fn revoke<B: Barrier + ?Sized>(&self, cores: &B) {
        self.owner.store(NOBODY, Ordering::SeqCst);
        if !cores.on_every_core() {
            // It worked when the owner was named; a sandbox may have closed since. No core keeps a
            // store to itself for so long.
            outwait_stores();
        }
    }

    /// As `lock_for_all`, but gives up instead of waiting: for models, in which a thread may look
    /// for ever without seeing what another has done.
    #[cfg(test)]
    #[cfg_attr(
        not(target_os = "linux"),
        allow(dead_code, reason = "the models run on Linux")
    )]
    pub(crate) fn try_lock_for_all<B: Barrier + ?Sized>(
        &self,
        cores: &B,
    ) -> Option<BiasedGuard<'_, T>> {
        if self.locked.swap(true, Ordering::Acquire) {
            return None;
        }
        let owner = self.owner.load(Ordering::Relaxed);
        if owner != NOBODY {
            self.revoke(cores);
            if self.active.load(Ordering::Acquire) {
                self.owner.store(owner, Ordering::Relaxed);
                self.locked.store(false, Ordering::Release);
                return None;
            }
        }
        Some(self.guard(&self.locked))
    }

    /// The value, and nobody owns the lock: what can be kept over a fork.
    pub(crate) fn lock_for_all<B: Barrier + ?Sized>(&self, cores: &B) -> BiasedGuard<'_, T> {
        wait_until(|| !self.locked.swap(true, Ordering::Acquire));
        if self.owner.load(Ordering::Relaxed) != NOBODY {
            self.disown(cores);
        }
        self.guard(&self.locked)
    }

    /// The guard of `lock_for_all` that was given up by [`BiasedGuard::keep`].
    ///
    /// # Safety
    /// The caller (a child counts as its parent) gave it up and has not taken it back.
    pub(crate) unsafe fn resume(&self) -> BiasedGuard<'_, T> {
        self.guard(&self.locked)
    }

    /// Whoever calls it has set `held`, as the invariants ask, and has no other guard.
    #[inline(always)]
    fn guard<'a>(&'a self, held: &'a AtomicBool) -> BiasedGuard<'a, T> {
        BiasedGuard {
            lock: self,
            held,
            unique: PhantomData,
        }
    }
}

/// Waits, at last asleep, until `done` says so.
fn wait_until(done: impl Fn() -> bool) {
    let mut yields = 0;
    loop {
        for _ in 0..SPINS {
            if done() {
                return;
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

impl<T> fmt::Debug for BiasedLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BiasedLock")
            .field("owner", &self.owner)
            .field("locked", &self.locked)
            .finish_non_exhaustive()
    }
}

/// The right to the value.
#[derive(Debug)]
pub(crate) struct BiasedGuard<'a, T> {
    lock: &'a BiasedLock<T>,
    /// What to clear when leaving.
    held: &'a AtomicBool,
    /// Sent and shared as a unique reference to the value would be.
    unique: PhantomData<&'a mut T>,
}

impl<T> BiasedGuard<'_, T> {
    /// Stays locked until [`BiasedLock::resume`]: over a fork.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl<T> Deref for BiasedGuard<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        let value = self.lock.value.get();
        // SAFETY: `as_ref` needs that nobody writes the value: this guard is the only one.
        unsafe { value.as_ref() }
    }
}

impl<T> DerefMut for BiasedGuard<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        let value = self.lock.value.get_mut();
        // SAFETY: `as_mut` needs that nobody else reaches the value: this guard is the only one,
        // and it is borrowed exclusively.
        unsafe { value.as_mut() }
    }
}

impl<T> Drop for BiasedGuard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.held.store(false, Ordering::Release);
    }
}
