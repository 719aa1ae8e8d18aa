//! Opaque pointers for C: a value behind a tag that tells its kind and whether it was freed.
//!
//! Unsafe code, because C gives pointers back.
//! Invariants: memory of a handle is never given back, so that its tag can always be read; a freed
//! handle's memory serves another of the same kind only after many others were freed.

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::status::{Failure, low2g_status};

/// Freed handles of a kind that are not used again yet.
const WAITING: usize = 256;

/// What a pointer of C points to.
#[derive(Debug)]
#[repr(C)]
pub struct Handle<T> {
    /// The kind's tag while in use.
    tag: AtomicU64,
    value: UnsafeCell<Option<T>>,
}

/// A kind of handle.
pub(super) trait Kind: Send + Sync + Sized + 'static {
    /// Its name in texts.
    const NAME: &'static str;
    /// No other kind's, and unlikely as data.
    const TAG: u64;

    /// Freed handles of this kind.
    fn freed() -> &'static Freed<Self>;
}

/// Freed handles, oldest first.
#[derive(Debug)]
pub(super) struct Freed<T: 'static>(Mutex<VecDeque<Place<T>>>);

#[derive(Debug)]
struct Place<T: 'static>(&'static Handle<T>);

// SAFETY: a freed handle's value is `None`, and its tag is atomic.
unsafe impl<T> Send for Place<T> {}

impl<T> Freed<T> {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(VecDeque::new()))
    }
}

/// A new handle for `value`.
pub(super) fn give<T: Kind>(value: T) -> *mut Handle<T> {
    let old = {
        let mut freed = T::freed().0.lock();
        if freed.len() > WAITING {
            freed.pop_front()
        } else {
            None
        }
    };
    let handle = old.map_or_else(
        || {
            let new = Handle {
                tag: AtomicU64::new(0),
                value: UnsafeCell::new(None),
            };
            &*Box::leak(Box::new(new))
        },
        |place| place.0,
    );
    // SAFETY: the cell needs that nobody else has a reference to the value: the tag says that it
    // is not in use, and it is not in the list any more.
    unsafe { handle.value.get().write(Some(value)) };
    handle.tag.store(T::TAG, Ordering::Release);
    std::ptr::from_ref(handle).cast_mut()
}

/// The value of a handle.
///
/// # Safety
/// `pointer` is NULL or was returned by [`give`] of any kind, and is not freed during `'h`.
pub(super) unsafe fn get<'h, T: Kind>(pointer: *const Handle<T>) -> Result<&'h T, Failure> {
    // SAFETY: the caller says so.
    let handle = unsafe { checked(pointer) }?;
    if handle.tag.load(Ordering::Acquire) != T::TAG {
        return Err(freed::<T>());
    }
    // SAFETY: the cell needs that nobody writes meanwhile: only `give` and `take` do, and the caller
    // does not free it.
    let value = unsafe { &*handle.value.get() };
    value.as_ref().ok_or_else(freed::<T>)
}

/// Ends a handle and gives its value back.
///
/// # Safety
/// As [`get`], and nobody uses the value.
pub(super) unsafe fn take<T: Kind>(pointer: *const Handle<T>) -> Result<T, Failure> {
    // SAFETY: the caller says so.
    let handle = unsafe { checked(pointer) }?;
    let swapped = handle
        .tag
        .compare_exchange(T::TAG, 0, Ordering::AcqRel, Ordering::Relaxed);
    if swapped.is_err() {
        return Err(freed::<T>());
    }
    // SAFETY: the cell needs that nobody else has a reference: the caller says so, and the exchange
    // lets one call through.
    let value = unsafe { (*handle.value.get()).take() };
    T::freed().0.lock().push_back(Place(handle));
    value.ok_or_else(freed::<T>)
}

/// # Safety
/// As [`get`].
unsafe fn checked<T: Kind>(pointer: *const Handle<T>) -> Result<&'static Handle<T>, Failure> {
    if pointer.is_null() {
        return Err(Failure::null(T::NAME));
    }
    if !pointer.is_aligned() {
        return Err(Failure::new(
            low2g_status::InvalidHandle,
            format!("{pointer:p} is no {}: it is not aligned", T::NAME),
        ));
    }
    // SAFETY: dereferencing needs a handle that lives: the caller says that `give` made it, which
    // leaks it. Of one of another kind only the tag is read, which stands first in all.
    Ok(unsafe { &*pointer })
}

fn freed<T: Kind>() -> Failure {
    Failure::new(
        low2g_status::InvalidHandle,
        format!("the {} was freed before, or is of another kind", T::NAME),
    )
}

/// States what a type needs to be a handle.
macro_rules! kind {
    ($type:ty, $name:literal, $tag:literal) => {
        impl $crate::capi::handle::Kind for $type {
            const NAME: &'static str = $name;
            const TAG: u64 = u64::from_le_bytes(*$tag);

            fn freed() -> &'static $crate::capi::handle::Freed<Self> {
                static FREED: $crate::capi::handle::Freed<$type> =
                    $crate::capi::handle::Freed::new();
                &FREED
            }
        }
    };
}
pub(super) use kind;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[derive(Debug)]
    struct Thing(u32);
    kind!(Thing, "thing", b"testThng");

    #[derive(Debug)]
    struct Other;
    kind!(Other, "other", b"testOthr");

    fn status<T: std::fmt::Debug>(result: Result<T, Failure>) -> low2g_status {
        result.expect_err("a bad handle").status
    }

    #[test]
    fn freed_and_foreign_handles_are_told_and_memory_is_bounded() {
        let mut places = HashSet::new();
        let mut freed = Vec::new();
        for number in 0..2000 {
            let handle = give(Thing(number));
            places.insert(handle);
            // SAFETY: `give` made it, and it is in use.
            assert_eq!(unsafe { get(handle) }.expect("in use").0, number);
            // SAFETY: a handle of another kind.
            let other = unsafe { get(handle.cast_const().cast::<Handle<Other>>()) };
            assert_eq!(status(other), low2g_status::InvalidHandle);
            // SAFETY: nobody uses it.
            assert_eq!(unsafe { take(handle) }.expect("in use").0, number);
            freed.push(handle);
            // The latest ones are known to be freed.
            for &handle in freed.iter().rev().take(WAITING) {
                // SAFETY: `give` made it.
                let result = unsafe { get(handle) };
                assert_eq!(status(result), low2g_status::InvalidHandle);
            }
        }
        assert!(places.len() <= WAITING + 2, "{} places", places.len());
        // SAFETY: NULL.
        let null = unsafe { get::<Thing>(std::ptr::null()) };
        assert_eq!(status(null), low2g_status::InvalidArgument);
    }

    #[test]
    fn of_several_frees_one_succeeds() {
        for _ in 0..200 {
            let place = give(Other).expose_provenance();
            let free = || {
                let handle = std::ptr::with_exposed_provenance::<Handle<Other>>(place);
                // SAFETY: `give` made it, and nobody uses the value.
                unsafe { take(handle) }.is_ok()
            };
            let freed = std::thread::scope(|scope| {
                let threads = [(); 3].map(|()| scope.spawn(free));
                threads.map(|thread| thread.join().expect("no panic"))
            });
            assert_eq!(freed.iter().filter(|freed| **freed).count(), 1);
        }
    }
}
