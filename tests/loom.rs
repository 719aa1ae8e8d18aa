//! The allocator's locks under loom, which tries every interleaving that the memory model allows:
//! `src/alloc/lock.rs` and `src/alloc/biased.rs` themselves, compiled against loom's atomics and cell.

#[path = "../src/alloc/lock.rs"]
#[allow(
    dead_code,
    reason = "the allocator uses all of it; a model uses what it is about"
)]
mod lock;

#[path = "../src/alloc/biased.rs"]
#[allow(
    dead_code,
    reason = "the allocator uses all of it; a model uses what it is about"
)]
mod biased;

/// What they are built from (`src/alloc/sync.rs`), as loom has it.
mod sync {
    pub(crate) use loom::hint::spin_loop;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering, fence};
    pub(crate) use loom::thread::yield_now;

    /// One look is as good as sixty.
    pub(crate) const SPINS: u32 = 1;

    /// The second time in a row.
    pub(crate) const STREAK: u32 = 1;

    pub(crate) trait Barrier {
        fn on_every_core(&self) -> bool;
    }

    /// A barrier that one thread has on all cores is, for the two sides that it orders, a fence of
    /// each: where this thread's is made, and where the other's code has `order_for_compiler`.
    pub(crate) struct Fence;

    impl Barrier for Fence {
        fn on_every_core(&self) -> bool {
            fence(Ordering::SeqCst);
            true
        }
    }

    pub(crate) fn order_for_compiler() {
        fence(Ordering::SeqCst);
    }

    pub(crate) fn outwait_stores() {}

    /// What each of the model's threads shows the others of itself.
    #[derive(Debug)]
    pub(crate) struct Record {
        pub(crate) active: AtomicBool,
    }

    impl Record {
        pub(crate) fn can_own(&self) -> bool {
            true
        }
    }

    pub(crate) fn thread_record() -> &'static Record {
        loom::thread_local! {
            static RECORD: &'static Record = Box::leak(Box::new(Record {
                active: AtomicBool::new(false),
            }));
        }
        RECORD.with(|record| *record)
    }

    pub(crate) fn register_thread() -> &'static Record {
        thread_record()
    }

    /// A value whose accesses loom watches.
    #[derive(Debug)]
    pub(crate) struct UnsafeCell<T>(loom::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::cell::UnsafeCell::new(value))
        }
        pub(crate) fn get(&self) -> Reading<T> {
            Reading(self.0.get())
        }
        pub(crate) fn get_mut(&self) -> Writing<T> {
            Writing(self.0.get_mut())
        }
    }

    /// A read in progress: loom fails if somebody writes meanwhile.
    pub(crate) struct Reading<T>(loom::cell::ConstPtr<T>);

    impl<T> Reading<T> {
        /// # Safety
        /// As `sync::Pointer::as_ref`.
        pub(crate) unsafe fn as_ref<'a>(&self) -> &'a T {
            let value: *const T = self.0.with(|value| value);
            // SAFETY: a reference needs a value that lives and is not written: the caller's promise.
            unsafe { &*value }
        }
    }

    /// A write in progress: loom fails if anybody else is there meanwhile.
    pub(crate) struct Writing<T>(loom::cell::MutPtr<T>);

    impl<T> Writing<T> {
        /// # Safety
        /// As `sync::Pointer::as_mut`.
        pub(crate) unsafe fn as_mut<'a>(&self) -> &'a mut T {
            let value: *mut T = self.0.with(|value| value);
            // SAFETY: a unique reference needs that nobody else reaches it: the caller's promise.
            unsafe { &mut *value }
        }
    }

    /// Sleeping is a kind of yielding, for loom.
    pub(crate) fn rest() {
        yield_now();
    }
}

use biased::{BiasedGuard, BiasedLock};
use lock::SpinLock;
use loom::sync::Arc;
use loom::thread;
use sync::Fence;

/// Every interleaving with at most that many involuntary switches; more finds nothing in a lock
/// of one word, and takes minutes.
fn model(body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(body);
}

#[test]
fn what_one_wrote_the_next_one_sees() {
    model(|| {
        let lock = Arc::new(SpinLock::new((0_u32, 0_u32)));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let lock = Arc::clone(&lock);
                thread::spawn(move || {
                    let mut both = lock.lock();
                    both.0 += 1;
                    assert_eq!(both.0, both.1 + 1, "another thread stands between");
                    both.1 += 1;
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("the model's thread ends");
        }
        assert_eq!(*lock.lock(), (2, 2));
    });
}

#[test]
fn a_lock_that_is_not_there_is_not_entered() {
    model(|| {
        let lock = Arc::new(SpinLock::new(0_u32));
        let other = Arc::clone(&lock);
        let thread = thread::spawn(move || match other.try_lock() {
            Some(mut value) => {
                *value += 1;
                true
            }
            None => false,
        });
        let mut expected = 0;
        if let Some(mut value) = lock.try_lock() {
            *value += 1;
            expected += 1;
        }
        expected += u32::from(thread.join().expect("the model's thread ends"));
        assert!(expected > 0, "one of two always enters");
        assert_eq!(*lock.lock(), expected);
    });
}

/// What the fork handlers do: a guard given up in one place is taken back in another, and those
/// who waited meanwhile see all that was written before.
#[test]
fn a_guard_kept_over_a_fork_is_taken_back() {
    model(|| {
        let lock = Arc::new(SpinLock::new(0_u32));
        let other = Arc::clone(&lock);
        let thread = thread::spawn(move || {
            let mut value = other.lock();
            assert_ne!(*value, 1, "entered between `prepare` and `parent`");
            *value += 2;
        });
        let mut value = lock.lock();
        let before = *value;
        *value = 1;
        value.keep();
        // SAFETY: resume needs the guard that was kept on the line above.
        let mut value = unsafe { lock.resume() };
        assert_eq!(*value, 1);
        *value = before;
        drop(value);
        thread.join().expect("the model's thread ends");
        assert_eq!(*lock.lock(), 2);
    });
}

/// A lock that the model's first thread owns.
fn owned() -> Arc<BiasedLock<(u32, u32)>> {
    let lock = Arc::new(BiasedLock::new((0, 0)));
    // The second time in a row does it.
    drop(lock.lock(&Fence));
    drop(lock.lock(&Fence));
    assert!(lock.lock_as_owner().is_some());
    lock
}

/// One who is inside; says whether he was.
fn change<const OWNER: bool>(guard: Option<BiasedGuard<'_, (u32, u32), OWNER>>) -> u32 {
    let Some(mut both) = guard else {
        return 0;
    };
    both.0 += 1;
    assert_eq!(both.0, both.1 + 1, "another thread stands between");
    both.1 += 1;
    1
}

/// The owner goes in and out while another takes the lock away: neither is ever inside with the
/// other, and each sees what the other wrote.
#[test]
fn an_owner_and_another_are_never_both_inside() {
    model(|| {
        let lock = owned();
        let other = Arc::clone(&lock);
        let thread = thread::spawn(move || change(other.try_lock_for_all(&Fence)));
        let mut changes = change(lock.lock_as_owner());
        changes += change(lock.lock_as_owner());
        changes += thread.join().expect("the model's thread ends");
        assert_eq!(*lock.lock(&Fence), (changes, changes));
    });
}

/// The owner of two locks has one mark: who takes one of them away waits for it, although the owner
/// may be inside the other.
#[test]
fn an_owner_of_two_locks_loses_one() {
    model(|| {
        let (one, two) = (owned(), owned());
        let other = Arc::clone(&one);
        let thread = thread::spawn(move || change(other.try_lock_for_all(&Fence)));
        let mut changes = change(one.lock_as_owner());
        assert_eq!(change(two.lock_as_owner()), 1, "nobody takes this one away");
        changes += change(one.lock_as_owner());
        changes += thread.join().expect("the model's thread ends");
        assert_eq!(*one.lock(&Fence), (changes, changes));
        assert_eq!(*two.lock(&Fence), (1, 1));
    });
}

/// Who owns a lock and takes it as everybody can is inside once, keeps others out, and owns it still
/// unless it was taken away meanwhile.
#[test]
fn an_owner_may_take_the_lock_as_everybody() {
    model(|| {
        let lock = owned();
        let other = Arc::clone(&lock);
        let thread = thread::spawn(move || change(other.try_lock_for_all(&Fence)));
        let mut changes = 0;
        if let Some(guard) = lock.try_lock(&Fence) {
            assert!(lock.lock_as_owner().is_none(), "inside twice");
            changes += change(Some(guard));
        }
        changes += change(lock.lock_as_owner());
        changes += thread.join().expect("the model's thread ends");
        assert_eq!(*lock.lock(&Fence), (changes, changes));
    });
    model(|| {
        let lock = owned();
        drop(lock.lock(&Fence));
        assert!(lock.lock_as_owner().is_some(), "not the owner any more");
    });
}

/// What the fork handlers do, while the owner is at it.
#[test]
fn a_lock_kept_over_a_fork_keeps_the_owner_out() {
    model(|| {
        let lock = owned();
        let other = Arc::clone(&lock);
        let thread = thread::spawn(move || {
            let Some(mut both) = other.try_lock_for_all(&Fence) else {
                return;
            };
            let before = *both;
            *both = (100, 99);
            both.keep();
            // SAFETY: resume needs the guard that was kept on the line above.
            let mut both = unsafe { other.resume() };
            assert_eq!(*both, (100, 99), "entered between `prepare` and `parent`");
            *both = before;
        });
        let changes = change(lock.lock_as_owner());
        thread.join().expect("the model's thread ends");
        assert_eq!(*lock.lock(&Fence), (changes, changes));
    });
}
