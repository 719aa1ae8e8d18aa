//! What a thread shows the others of itself, for the locks that it owns (`biased`).
//!
//! Records are found by where a thread's own storage lies, and never go away: whoever takes a lock
//! from its owner may look at the record of a thread that ended long ago. A thread gets that of an
//! ended one whose storage lay at the same place, as the C library's stacks mostly do. Those for whom
//! none is left share some, and own nothing.
//!
//! Invariant: of the threads that live, at most one has a given record of [`RECORDS`].

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What one thread shows.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Record {
    /// Whether the thread is at a value that it owns. Others read it.
    pub(crate) active: AtomicBool,
    /// Where the thread's storage lies; 0 for a record that nobody got yet, or that is shared.
    thread: AtomicUsize,
}

impl Record {
    const fn new() -> Self {
        Self {
            active: AtomicBool::new(false),
            thread: AtomicUsize::new(0),
        }
    }

    /// Whether it is one thread's alone, which may own locks.
    #[inline]
    pub(crate) fn can_own(&self) -> bool {
        self.thread.load(Ordering::Relaxed) != 0
    }
}

/// Each a thread's. A process whose threads' storage lay at more places goes on without owners.
static RECORDS: [Record; 1024] = [const { Record::new() }; 1024];

/// Of the threads that came too late. They write to them for nothing, so there are several.
static SHARED: [Record; 64] = [const { Record::new() }; 64];

thread_local! {
    static RECORD: Cell<&'static Record> = const { Cell::new(&SHARED[0]) };
}

/// The calling thread's record; a shared one before it called [`register_thread`].
#[inline(always)]
pub(crate) fn thread_record() -> &'static Record {
    RECORD.get()
}

/// The calling thread's record, if there is one left for it.
#[inline]
pub(crate) fn register_thread() -> &'static Record {
    let record = thread_record();
    if record.can_own() {
        return record;
    }
    register()
}

#[cold]
fn register() -> &'static Record {
    let thread = RECORD.with(|storage| std::ptr::from_ref(storage).addr());
    let record = take(&RECORDS, thread).unwrap_or(&SHARED[thread / 4096 % SHARED.len()]);
    RECORD.set(record);
    record
}

/// The record of `records` that is `thread`'s from now on; `None` if all are others'.
fn take(records: &'static [Record], thread: usize) -> Option<&'static Record> {
    let record = records.iter().find(|record| {
        let before =
            record
                .thread
                .compare_exchange(0, thread, Ordering::Relaxed, Ordering::Relaxed);
        // Those behind the first that nobody has are nobody's either.
        before.is_ok() || before == Err(thread)
    })?;
    // Who had it may have ended inside, in the process that this one is a fork of.
    record.active.store(false, Ordering::Relaxed);
    Some(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_a_record_of_its_own() {
        let mine: *const Record = register_thread();
        assert!(std::ptr::eq(mine, thread_record()));
        assert!(std::ptr::eq(mine, register_thread()));
        std::thread::scope(|scope| {
            let other = scope.spawn(|| std::ptr::from_ref(register_thread()).addr());
            assert_ne!(other.join().expect("no assertion failed"), mine.addr());
        });
    }

    #[test]
    fn records_are_used_again_and_run_out() {
        static FEW: [Record; 2] = [const { Record::new() }; 2];
        let at = |thread| take(&FEW, thread).map(|record| std::ptr::from_ref(record).addr());
        assert!(FEW.iter().all(|record| !record.can_own()));
        let first = at(0x1000).expect("two are free");
        assert!(FEW[0].can_own());
        FEW[0].active.store(true, Ordering::Relaxed);
        let second = at(0x2000).expect("one is free");
        assert_ne!(first, second);
        assert_eq!(at(0x1000), Some(first));
        assert!(!FEW[0].active.load(Ordering::Relaxed));
        assert_eq!(at(0x3000), None);
    }
}
