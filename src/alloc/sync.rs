//! What the locks are built from: the standard library's atomics and cell, under the names that
//! loom's have, so that `tests/loom.rs` can compile `lock.rs` and `biased.rs` against loom's and try
//! every interleaving.

pub(crate) use std::hint::spin_loop;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
pub(crate) use std::thread::yield_now;

pub(crate) use super::threads::{Record, register_thread, thread_record};

use std::time::Duration;

use low2g_platform::Platform;

/// Rounds of waiting before the processor is yielded.
pub(crate) const SPINS: u32 = 60;

/// Times in a row that a thread takes a lock before it owns it: a thousand locked instructions
/// cost as much as a barrier.
pub(crate) const STREAK: u32 = 1024;

/// What makes stores of other threads visible that they have made.
pub(crate) trait Barrier {
    /// Has every core that runs a thread of this process finish its stores; says whether it did.
    fn on_every_core(&self) -> bool;
}

impl Barrier for dyn Platform + '_ {
    fn on_every_core(&self) -> bool {
        self.serialize_cores()
    }
}

/// A value that is reached through pointers.
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

/// The address of a cell's value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pointer<T>(*mut T);

impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    /// To read the value.
    #[inline]
    pub(crate) fn get(&self) -> Pointer<T> {
        Pointer(self.0.get())
    }

    /// To read and write the value.
    #[inline]
    pub(crate) fn get_mut(&self) -> Pointer<T> {
        Pointer(self.0.get())
    }
}

impl<T> Pointer<T> {
    /// # Safety
    /// The cell outlives the reference, and nobody writes the value meanwhile.
    #[inline]
    pub(crate) unsafe fn as_ref<'a>(&self) -> &'a T {
        // SAFETY: a reference needs a value that lives and is not written: the caller's promise.
        unsafe { &*self.0 }
    }

    /// # Safety
    /// The cell outlives the reference, and nobody else reaches the value meanwhile.
    #[inline]
    pub(crate) unsafe fn as_mut<'a>(&self) -> &'a mut T {
        // SAFETY: a unique reference needs that nobody else reaches the value: the caller's promise.
        unsafe { &mut *self.0 }
    }
}

/// Keeps the compiler from moving memory accesses across; the processor may.
#[inline(always)]
pub(crate) fn order_for_compiler() {
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
}

/// Gives the processor up for a moment, also to threads of lower priority.
pub(crate) fn rest() {
    std::thread::sleep(Duration::from_micros(50));
}

/// Waits for longer than any core keeps a store to itself.
pub(crate) fn outwait_stores() {
    std::thread::sleep(Duration::from_millis(10));
}

#[cfg(test)]
mod tests {
    use crate::alloc::lock::SpinLock;
    use crate::dice::rounds;

    #[test]
    fn one_at_a_time() {
        let lock = SpinLock::new((0_u64, 0_u64));
        let each = rounds(5_000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..each {
                        let mut both = lock.lock();
                        both.0 += 1;
                        assert_eq!(both.0, both.1 + 1);
                        both.1 += 1;
                    }
                });
            }
        });
        assert_eq!(*lock.lock(), (4 * each, 4 * each));
        let held = lock.lock();
        assert!(lock.try_lock().is_none());
        drop(held);
        assert!(lock.try_lock().is_some());
    }
}
