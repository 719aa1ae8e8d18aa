//! A lock for what one thread uses nearly always: a pool of its own shard.
//!
//! ```text
//!   the owner     active = 1;  is the lock mine?  ...use...  active = 0     no atomic operation
//!   another       locked = 1;  owner = none;  BARRIER on every core;  wait until active = 0
//! ```
//!
//! A locked instruction waits for all stores before it, and holds up all loads after it; two of
//! them are half the time of a small block's life. So a thread that took the lock often enough, and
//! nobody else meanwhile, owns it. Whoever comes then pays for both: the barrier
//! ([`Barrier`]) makes the owner's mark visible if it was set before the owner
//! could see that it lost the lock. From then on it is an ordinary lock, until somebody owns it again.
//!
//! The mark is the thread's, not the lock's: it may be set before it is known whose the lock is, and
//! one look is enough. So a thread is inside one lock at a time in this way: nothing that is done
//! there may come to another, as an allocation may if the program's global allocator is ours. What
//! does takes the lock as everybody can, by `locked`, and its owner loses nothing.
//!
//! Where the system has no such barrier, nobody ever owns it.
//!
//! Invariants:
//! - `owner` changes only under `locked`, and is set only by the thread it names;
//! - the value is reached under `locked` with no owner (or before one was named), or by the owner
//!   under its `active`.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr;

use super::sync::{
    AtomicBool, AtomicPtr, AtomicU32, Barrier, Ordering, Record, SPINS, STREAK, UnsafeCell,
    order_for_compiler, outwait_stores, register_thread, rest, spin_loop, thread_record, yield_now,
};

/// Yields before sleeping: as `SpinLock`.
const YIELDS: u32 = 100;

/// A value behind a lock that can have an owner. Both begin on one cache line.
#[repr(C, align(64))]
pub(crate) struct BiasedLock<T> {
    /// Who needs not take `locked`; null for nobody.
    owner: AtomicPtr<Record>,
    locked: AtomicBool,
    /// How often in a row the last one took `locked`; written under it.
    streak: AtomicU32,
    value: UnsafeCell<T>,
    /// Who took `locked` last; null for nobody, or nobody that can own.
    last: AtomicPtr<Record>,
}

// SAFETY: Sync needs that shared references from many threads are sound: the value is reached
// through a guard only, of which there is one at a time, and moves to other threads (T: Send).
unsafe impl<T: Send> Sync for BiasedLock<T> {}

impl<T> BiasedLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            owner: AtomicPtr::new(ptr::null_mut()),
            locked: AtomicBool::new(false),
            last: AtomicPtr::new(ptr::null_mut()),
            streak: AtomicU32::new(0),
            value: UnsafeCell::new(value),
        }
    }

    /// The value, if this thread owns the lock. Until it is left, nothing may be done that can come
    /// to a lock of this kind, as allocating and freeing can.
    #[inline(always)]
    pub(crate) fn lock_as_owner(&self) -> Option<OwnerGuard<'_, T>> {
        let mine = thread_record();
        debug_assert!(
            !(mine.can_own() && mine.active.load(Ordering::Relaxed)),
            "inside another lock"
        );
        mine.active.store(true, Ordering::Relaxed);
        // The processor may still do the load before the store: whoever takes the ownership away
        // has every core catch up before he looks at `active`.
        order_for_compiler();
        if !ptr::eq(self.owner.load(Ordering::Relaxed), mine) {
            mine.active.store(false, Ordering::Release);
            return None;
        }
        Some(self.guard(Some(mine)))
    }

    /// Does `what` with the value: as `lock_as_owner` if this thread owns the lock, else once nobody
    /// else has it. `what` may do nothing that can come to a lock of this kind.
    #[inline(always)]
    pub(crate) fn briefly<B: Barrier + ?Sized, R>(
        &self,
        cores: &B,
        what: impl FnOnce(&mut T) -> R,
    ) -> R {
        match self.lock_as_owner() {
            Some(mut guard) => what(&mut guard),
            None => what(&mut self.lock(cores)),
        }
    }

    /// The value, if nobody has it.
    #[inline]
    pub(crate) fn try_lock<B: Barrier + ?Sized>(&self, cores: &B) -> Option<LockGuard<'_, T>> {
        self.take_locked().then(|| self.entered(cores))
    }

    #[inline]
    fn take_locked(&self) -> bool {
        // Not a swap: loom lets one that fails be the last store of all.
        let taken = self
            .locked
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
        taken.is_ok()
    }

    /// The value, once nobody else has it.
    #[inline]
    pub(crate) fn lock<B: Barrier + ?Sized>(&self, cores: &B) -> LockGuard<'_, T> {
        match self.try_lock(cores) {
            Some(guard) => guard,
            None => self.wait(cores),
        }
    }

    #[cold]
    fn wait<B: Barrier + ?Sized>(&self, cores: &B) -> LockGuard<'_, T> {
        wait_until(|| !self.locked.load(Ordering::Relaxed) && self.take_locked());
        self.entered(cores)
    }

    /// Whoever calls it has just taken `locked`.
    #[inline]
    fn entered<B: Barrier + ?Sized>(&self, cores: &B) -> LockGuard<'_, T> {
        let mine = register_thread();
        if ptr::eq(self.owner.load(Ordering::Relaxed), mine) {
            // Not his while he is inside, so that he comes in only once.
            self.owner.store(ptr::null_mut(), Ordering::Relaxed);
            return self.guard(Some(mine));
        }
        self.disown(cores);
        let next_owner = self.is_won(mine, cores).then_some(mine);
        self.guard(next_owner)
    }

    /// Whether this thread, which has `locked`, is to own the lock when it leaves.
    #[inline]
    fn is_won<B: Barrier + ?Sized>(&self, mine: &'static Record, cores: &B) -> bool {
        if !ptr::eq(self.last.load(Ordering::Relaxed), mine) {
            let last = mine.can_own().then_some(mine);
            self.last.store(pointer(last), Ordering::Relaxed);
            self.streak.store(0, Ordering::Relaxed);
            return false;
        }
        let streak = self.streak.load(Ordering::Relaxed).saturating_add(1);
        self.streak.store(streak, Ordering::Relaxed);
        // Only if the ownership can be taken away again.
        streak == STREAK && cores.on_every_core()
    }

    /// Takes the ownership away, if anybody has it, and waits until the owner has left. The caller
    /// has `locked`.
    #[inline]
    fn disown<B: Barrier + ?Sized>(&self, cores: &B) {
        let owner = self.owner.load(Ordering::Relaxed);
        // SAFETY: as_ref needs null or a valid value: `owner` is set to records that never go away.
        if let Some(owner) = unsafe { owner.as_ref() } {
            self.revoke(cores);
            wait_until(|| !owner.active.load(Ordering::Acquire));
            self.last.store(ptr::null_mut(), Ordering::Relaxed);
        }
    }

    /// Takes the ownership away: from here on the owner is inside only if its `active` says so. The
    /// caller has `locked`.
    #[cold]
    fn revoke<B: Barrier + ?Sized>(&self, cores: &B) {
        self.owner.store(ptr::null_mut(), Ordering::SeqCst);
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
    ) -> Option<LockGuard<'_, T>> {
        if !self.take_locked() {
            return None;
        }
        let owner = self.owner.load(Ordering::Relaxed);
        // SAFETY: as in `disown`.
        if let Some(record) = unsafe { owner.as_ref() } {
            self.revoke(cores);
            if record.active.load(Ordering::Acquire) {
                self.owner.store(owner, Ordering::Relaxed);
                self.locked.store(false, Ordering::Release);
                return None;
            }
        }
        Some(self.guard(None))
    }

    /// The value, and nobody owns the lock: what can be kept over a fork.
    pub(crate) fn lock_for_all<B: Barrier + ?Sized>(&self, cores: &B) -> LockGuard<'_, T> {
        wait_until(|| self.take_locked());
        self.disown(cores);
        self.guard(None)
    }

    /// The guard of `lock_for_all` that was given up by [`LockGuard::keep`].
    ///
    /// # Safety
    /// The caller (a child counts as its parent) gave it up and has not taken it back.
    pub(crate) unsafe fn resume(&self) -> LockGuard<'_, T> {
        self.guard(None)
    }

    /// Whoever calls it came in as the type of the guard says, and has no other one.
    #[inline(always)]
    fn guard<const OWNER: bool>(
        &self,
        record: Option<&'static Record>,
    ) -> BiasedGuard<'_, T, OWNER> {
        BiasedGuard {
            lock: self,
            record,
            unique: PhantomData,
        }
    }
}

fn pointer(record: Option<&'static Record>) -> *mut Record {
    record.map_or(ptr::null_mut(), |record| ptr::from_ref(record).cast_mut())
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

/// The right to the value: under `active` of its owner, or under `locked`. It stays with its thread.
#[derive(Debug)]
pub(crate) struct BiasedGuard<'a, T, const OWNER: bool> {
    lock: &'a BiasedLock<T>,
    /// Whose `active` is set; or who owns the lock when `locked` is left.
    record: Option<&'static Record>,
    /// Shared as a unique reference to the value would be.
    unique: PhantomData<(&'a mut T, *mut ())>,
}

/// The owner's.
pub(crate) type OwnerGuard<'a, T> = BiasedGuard<'a, T, true>;

/// Anybody's.
pub(crate) type LockGuard<'a, T> = BiasedGuard<'a, T, false>;

impl<T> LockGuard<'_, T> {
    /// Stays locked until [`BiasedLock::resume`]: over a fork.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl<T, const OWNER: bool> Deref for BiasedGuard<'_, T, OWNER> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        let value = self.lock.value.get();
        // SAFETY: `as_ref` needs that nobody writes the value: this guard is the only one.
        unsafe { value.as_ref() }
    }
}

impl<T, const OWNER: bool> DerefMut for BiasedGuard<'_, T, OWNER> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        let value = self.lock.value.get_mut();
        // SAFETY: `as_mut` needs that nobody else reaches the value: this guard is the only one,
        // and it is borrowed exclusively.
        unsafe { value.as_mut() }
    }
}

impl<T, const OWNER: bool> Drop for BiasedGuard<'_, T, OWNER> {
    #[inline(always)]
    fn drop(&mut self) {
        match self.record {
            Some(mine) if OWNER => mine.active.store(false, Ordering::Release),
            next_owner => {
                if next_owner.is_some() {
                    self.lock
                        .owner
                        .store(pointer(next_owner), Ordering::Relaxed);
                }
                self.lock.locked.store(false, Ordering::Release);
            }
        }
    }
}
