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
//! ([`Platform::serialize_cores`]) makes the owner's mark visible if it was set before the owner
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
use std::time::Duration;

use low2g_platform::Platform;

use super::sync::{
    AtomicBool, AtomicU32, AtomicUsize, Ordering, UnsafeCell, order_for_compiler, rest, spin_loop,
    thread_token, yield_now,
};

/// Times in a row that a thread takes the lock before it owns it: a thousand locked instructions
/// cost as much as a barrier.
const STREAK: u32 = 1024;
/// Rounds of waiting before the processor is yielded, and yields before sleeping: as `SpinLock`.
const SPINS: u32 = 60;
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
    pub(crate) fn try_lock(&self, platform: &dyn Platform) -> Option<BiasedGuard<'_, T>> {
        match self.lock_as_owner() {
            Some(guard) => Some(guard),
            None if self.locked.swap(true, Ordering::Acquire) => None,
            None => Some(self.entered(platform)),
        }
    }

    /// The value, once nobody else has it.
    #[inline]
    pub(crate) fn lock(&self, platform: &dyn Platform) -> BiasedGuard<'_, T> {
        match self.try_lock(platform) {
            Some(guard) => guard,
            None => self.wait(platform),
        }
    }

    #[cold]
    fn wait(&self, platform: &dyn Platform) -> BiasedGuard<'_, T> {
        wait_until(|| {
            !self.locked.load(Ordering::Relaxed) && !self.locked.swap(true, Ordering::Acquire)
        });
        self.entered(platform)
    }

    /// Whoever calls it has just taken `locked`.
    #[inline]
    fn entered(&self, platform: &dyn Platform) -> BiasedGuard<'_, T> {
        let token = thread_token();
        if self.owner.load(Ordering::Relaxed) != NOBODY {
            self.disown(platform);
        }
        if self.last.load(Ordering::Relaxed) == token {
            let streak = self.streak.load(Ordering::Relaxed).saturating_add(1);
            self.streak.store(streak, Ordering::Relaxed);
            if streak == STREAK {
                self.own(token, platform);
            }
        } else {
            self.last.store(token, Ordering::Relaxed);
            self.streak.store(0, Ordering::Relaxed);
        }
        self.guard(&self.locked)
    }

    /// Makes this thread, which has `locked`, the owner, if ownership could be taken away again.
    #[cold]
    fn own(&self, token: usize, platform: &dyn Platform) {
        if platform.serialize_cores() {
            self.owner.store(token, Ordering::Relaxed);
        }
    }

    /// Takes the ownership away and waits until the owner has left. The caller has `locked`.
    #[cold]
    fn disown(&self, platform: &dyn Platform) {
        self.owner.store(NOBODY, Ordering::SeqCst);
        if !platform.serialize_cores() {
            // It worked when the owner was named; a sandbox may have closed since. No core keeps a
            // store to itself for so long.
            std::thread::sleep(Duration::from_millis(10));
        }
        wait_until(|| !self.active.load(Ordering::Acquire));
        self.last.store(NOBODY, Ordering::Relaxed);
    }

    /// The value, and nobody owns the lock: what can be kept over a fork.
    pub(crate) fn lock_for_all(&self, platform: &dyn Platform) -> BiasedGuard<'_, T> {
        wait_until(|| !self.locked.swap(true, Ordering::Acquire));
        if self.owner.load(Ordering::Relaxed) != NOBODY {
            self.disown(platform);
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::sync::atomic;

    use super::*;

    /// An owner at full speed, and others who take it away from him again and again.
    #[test]
    fn one_at_a_time_with_and_without_an_owner() {
        let platform = low2g_platform::native().expect("this system's own");
        let platform = &*platform;
        let lock = BiasedLock::new((0_u64, 0_u64));
        let stop = atomic::AtomicBool::new(false);
        let owned = atomic::AtomicU64::new(0);
        let take = || {
            let mut both = lock.lock(platform);
            both.0 += 1;
            assert_eq!(both.0, both.1 + 1);
            both.1 += 1;
        };
        let total = std::thread::scope(|scope| {
            let owner = scope.spawn(|| {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    take();
                    count += 1;
                    let mine = lock.owner.load(Ordering::Relaxed) == thread_token();
                    owned.fetch_add(mine.into(), Ordering::Relaxed);
                }
                count
            });
            let mut count = 0;
            for round in 0..300_u64 {
                let waited = owned.load(Ordering::Relaxed);
                while owned.load(Ordering::Relaxed) < waited + 100 && platform.serialize_cores() {
                    yield_now();
                }
                for _ in 0..round % 3 {
                    take();
                    count += 1;
                }
                if round % 50 == 0 {
                    drop(lock.lock_for_all(platform));
                }
            }
            stop.store(true, Ordering::Relaxed);
            count + owner.join().expect("no assertion failed")
        });
        assert_eq!(*lock.lock(platform), (total, total));
        let held = lock.lock_for_all(platform);
        assert!(lock.try_lock(platform).is_none());
        held.keep();
        // SAFETY: resume needs a guard that was given up: the one above.
        drop(unsafe { lock.resume() });
        assert!(lock.try_lock(platform).is_some());
    }
}
