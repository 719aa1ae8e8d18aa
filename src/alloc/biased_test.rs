//! The lock with an owner, on this system's own barrier. Models of it stand in `tests/loom.rs`.

use std::sync::atomic::{self, Ordering};
use std::thread::yield_now;

use crate::alloc::biased::BiasedLock;

/// An owner at full speed, and others who take it away from him again and again.
#[test]
#[cfg_attr(miri, ignore = "asks the running kernel for a barrier")]
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
                let mine = lock.lock_as_owner().is_some();
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
    assert!(lock.try_lock_for_all(platform).is_none());
    held.keep();
    // SAFETY: resume needs a guard that was given up: the one above.
    drop(unsafe { lock.resume() });
    assert!(lock.try_lock(platform).is_some());
}
