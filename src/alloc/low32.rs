//! [`Low32`]: a pointer in four bytes, for what lies below 4 GiB.
//!
//! Invariant: all of the value it points at lies below 4 GiB and not at 0, so `Option<Low32<T>>`
//! has four bytes too. Like a `NonNull`, it owns nothing and proves nothing about lifetimes.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::ptr::NonNull;

/// A four-byte pointer to low memory.
#[repr(transparent)]
pub struct Low32<T> {
    addr: NonZeroU32,
    target: PhantomData<*mut T>,
}

impl<T> Low32<T> {
    /// The same pointer in four bytes; `None` if the value does not end below 4 GiB.
    ///
    /// Its provenance is exposed: [`Low32::as_ptr`] takes it up again.
    #[must_use]
    pub fn new(pointer: NonNull<T>) -> Option<Self> {
        let start = pointer.as_ptr().expose_provenance();
        let last = start.checked_add(size_of::<T>().max(1) - 1)?;
        u32::try_from(last).ok()?;
        Some(Self {
            addr: NonZeroU32::new(u32::try_from(start).ok()?)?,
            target: PhantomData,
        })
    }

    /// The address.
    #[must_use]
    pub const fn addr(self) -> NonZeroU32 {
        self.addr
    }

    /// The pointer, as wide as others.
    #[inline]
    #[must_use]
    pub fn as_ptr(self) -> *mut T {
        std::ptr::with_exposed_provenance_mut(low2g_platform::to_usize(self.addr.get().into()))
    }

    /// The value it points at.
    ///
    /// # Safety
    /// As [`NonNull::as_ref`]: it points at a valid value that nobody writes for as long as `'a`.
    #[inline]
    #[must_use]
    pub unsafe fn as_ref<'a>(self) -> &'a T {
        // SAFETY: this function's contract is that of the dereference.
        unsafe { &*self.as_ptr() }
    }

    /// The value it points at, to write.
    ///
    /// # Safety
    /// As [`NonNull::as_mut`]: it points at a valid value that nobody else reaches for as long as `'a`.
    #[inline]
    #[must_use]
    pub unsafe fn as_mut<'a>(self) -> &'a mut T {
        // SAFETY: this function's contract is that of the dereference.
        unsafe { &mut *self.as_ptr() }
    }
}

impl<T> Clone for Low32<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Low32<T> {}

impl<T> PartialEq for Low32<T> {
    fn eq(&self, other: &Self) -> bool {
        self.addr == other.addr
    }
}

impl<T> Eq for Low32<T> {}

impl<T> Hash for Low32<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.addr.hash(state);
    }
}

impl<T> fmt::Debug for Low32<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Low32({:#x})", self.addr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ends_below_4_gib() {
        let at = |addr: usize| NonNull::new(std::ptr::without_provenance_mut::<u64>(addr));
        let low = |addr| at(addr).and_then(Low32::new);
        assert_eq!(size_of::<Option<Low32<u64>>>(), 4);
        assert_eq!(
            low(0xffff_fff8).map(|low| low.addr().get()),
            Some(0xffff_fff8)
        );
        assert_eq!(low(0xffff_fffc), None);
        assert_eq!(low(1 << 32), None);
        assert_eq!(low(usize::MAX - 3), None);
        let mut value = low(8).expect("low");
        assert_eq!(value.as_ptr().addr(), 8);
        value = low(16).expect("low");
        assert_eq!(Some(value), low(16));
    }
}
