//! [`Mapping`]: whole pages with an owner; dropping it gives them back.
//!
//! Invariants:
//! - the pages stay mapped and nobody else's for as long as the value lives;
//! - the access recorded for each page is the one the system has, or `None`
//!   after a change that the system refused half-way;
//! - bytes are lent for writing only while no page of the mapping executes, so
//!   that no loaded code can run on bytes that are borrowed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use low2g_platform::{AddrRange, Platform, Protection, to_usize};

use crate::alloc::certificate::Certificate;
use crate::alloc::error::AllocError;
use crate::alloc::pages::Pages;

/// Pages claimed by [`LowAllocator::map`](crate::alloc::LowAllocator::map).
#[derive(Debug)]
pub struct Mapping {
    pages: Arc<Pages>,
    range: AddrRange,
    certificate: Certificate,
    /// Access at the range's start.
    first: Protection,
    /// Further runs of equal access: where each starts, ascending.
    later: Vec<(u64, Protection)>,
}

impl Mapping {
    /// Owns a claim that `pages` just made.
    pub(crate) fn new(
        pages: Arc<Pages>,
        range: AddrRange,
        certificate: Certificate,
        protection: Protection,
    ) -> Self {
        Self {
            pages,
            range,
            certificate,
            first: protection,
            later: Vec::new(),
        }
    }

    /// Takes note that what lies outside `inside`, a part, is inaccessible.
    pub(crate) fn with_guards_around(mut self, inside: AddrRange) -> Self {
        let whole = self.range;
        let guards = [(whole.start(), inside.start()), (inside.end(), whole.end())];
        for guard in guards.map(|(start, end)| AddrRange::new(start, end)) {
            if let Some(guard) = guard.filter(|guard| !guard.is_empty()) {
                self.record(guard, Protection::None);
            }
        }
        self
    }

    /// Takes note that a claim of one access ends elsewhere now.
    pub(crate) fn set_range(&mut self, range: AddrRange) {
        debug_assert!(self.later.is_empty() || range == self.range);
        self.range = range;
    }

    /// Where it lies: whole pages.
    #[must_use]
    pub fn range(&self) -> AddrRange {
        self.range
    }

    /// The system it was claimed from.
    pub(crate) fn platform(&self) -> &Arc<dyn Platform> {
        &self.pages.platform
    }

    /// How its address was chosen.
    #[must_use]
    pub fn certificate(&self) -> Certificate {
        self.certificate
    }

    /// Access to the page that holds `addr`; `None` if it lies outside.
    #[must_use]
    pub fn protection_at(&self, addr: u64) -> Option<Protection> {
        if !self.range.contains(addr) {
            return None;
        }
        let after = self.later.partition_point(|(start, _)| *start <= addr);
        let run = after.checked_sub(1).map(|index| self.later[index].1);
        Some(run.unwrap_or(self.first))
    }

    /// Changes access to the whole pages `part`.
    ///
    /// # Errors
    /// [`AllocError::OutOfBounds`] if they are not whole pages inside;
    /// [`AllocError::Platform`] if the system refuses: what access the pages then have is
    /// not known, and they count as inaccessible.
    pub fn protect(&mut self, part: AddrRange, protection: Protection) -> Result<(), AllocError> {
        self.check(part)?;
        // SAFETY: protect needs a claim of ours (`part` was just checked to lie in this mapping),
        // and that nothing uses it otherwise: bytes are lent only by borrows of `self`, which
        // `&mut self` excludes, and only while all is writable.
        let result = unsafe { self.pages.platform.protect(part, protection) };
        let known = if result.is_ok() {
            protection
        } else {
            Protection::None
        };
        self.record(part, known);
        Ok(result?)
    }

    /// Makes the whole pages `part` inaccessible and gives their memory back, without splitting
    /// the system's mapping where it can.
    ///
    /// # Errors
    /// As [`Mapping::protect`].
    pub fn guard(&mut self, part: AddrRange) -> Result<(), AllocError> {
        self.check(part)?;
        self.record(part, Protection::None);
        // SAFETY: guard needs a claim of ours, as just checked, to whose bytes nothing refers: they
        // are lent only by borrows of `self`, which `&mut self` excludes.
        Ok(unsafe { self.pages.platform.guard(part) }?)
    }

    /// Whether `part` is whole pages inside.
    fn check(&self, part: AddrRange) -> Result<(), AllocError> {
        let page = self.pages.platform.config().page_size;
        let whole = part.start().is_multiple_of(page) && part.end().is_multiple_of(page);
        if part.is_empty() || !whole || !self.range.encloses(part) {
            return Err(AllocError::OutOfBounds {
                part,
                mapping: self.range,
            });
        }
        Ok(())
    }

    /// Has the system back every page now, so that first touches cost no faults and a lack of
    /// memory is an error rather than a signal.
    ///
    /// # Errors
    /// [`AllocError::NotWritable`] if not every page can be written; [`AllocError::Platform`] if
    /// there is no memory for it.
    pub fn populate(&mut self) -> Result<(), AllocError> {
        if !self.is_writable() {
            return Err(AllocError::NotWritable {
                mapping: self.range,
            });
        }
        // SAFETY: populate needs a claim of ours whose pages are all writable: just checked.
        Ok(unsafe { self.pages.platform.populate(self.range) }?)
    }

    /// Whether every page can be read and written.
    fn is_writable(&self) -> bool {
        let writable = |protection: Protection| protection == Protection::ReadWrite;
        writable(self.first)
            && self
                .later
                .iter()
                .all(|(_, protection)| writable(*protection))
    }

    /// Replaces the runs that `part` covers by one of `protection`.
    fn record(&mut self, part: AddrRange, protection: Protection) {
        let after = self.protection_at(part.end());
        let mut runs = vec![(self.range.start(), self.first)];
        runs.append(&mut self.later);
        runs.retain(|(start, _)| !part.contains(*start) && *start != part.end());
        let at = runs.partition_point(|(start, _)| *start < part.start());
        let rest = after.map(|after| (part.end(), after));
        let new = std::iter::once((part.start(), protection)).chain(rest);
        runs.splice(at..at, new);
        runs.dedup_by_key(|(_, protection)| *protection);
        self.first = runs.remove(0).1;
        self.later = runs;
    }

    /// All bytes, while every page can be read and written; never on a simulated system.
    #[must_use]
    pub fn working_mem(&mut self) -> Option<&mut [u8]> {
        if !self.is_writable() || self.pages.platform.is_simulated() {
            return None;
        }
        let start = std::ptr::with_exposed_provenance_mut(to_usize(self.range.start()));
        let len = to_usize(self.range.len());
        // SAFETY: from_raw_parts_mut needs len bytes that are mapped, readable, writable,
        // initialised and not reachable otherwise: the pages are this value's own, zero-filled
        // by the system, all of them ReadWrite, and borrowed through `&mut self`.
        Some(unsafe { std::slice::from_raw_parts_mut(start, len) })
    }

    /// A copy of the bytes at `part`; `None` if it is not all inside and readable, or on a
    /// simulated system. Loaded code may be changing them: each aligned 8 bytes are read at
    /// once, the whole is not.
    #[must_use]
    pub fn read(&self, part: AddrRange) -> Option<Vec<u8>> {
        if self.pages.platform.is_simulated() || !self.range.encloses(part) {
            return None;
        }
        let readable = self.runs(part).all(|access| access != Protection::None);
        readable.then(|| copy(part))
    }

    /// Access to the pages of `part`, run by run.
    fn runs(&self, part: AddrRange) -> impl Iterator<Item = Protection> {
        let starts = std::iter::once((self.range.start(), self.first)).chain(self.later.clone());
        let ends = self.later.iter().map(|(start, _)| *start);
        starts
            .zip(ends.chain([self.range.end()]))
            .filter_map(move |((start, access), end)| {
                (start < part.end() && part.start() < end).then_some(access)
            })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.pages.release(self.range);
    }
}

/// Copies mapped, readable bytes that running code may be writing.
fn copy(part: AddrRange) -> Vec<u8> {
    const WORD: u64 = 8;
    let mut bytes = Vec::with_capacity(to_usize(part.len()));
    let mut addr = part.start();
    while addr < part.end() {
        if addr.is_multiple_of(WORD) && part.end() - addr >= WORD {
            let word = std::ptr::with_exposed_provenance_mut(to_usize(addr));
            // SAFETY: AtomicU64::from_ptr needs 8 aligned bytes that are only accessed atomically
            // meanwhile: the address is a multiple of 8, the bytes are readable pages of a live
            // mapping, and only loaded code, which the language does not see, may write them.
            let word = unsafe { AtomicU64::from_ptr(word) };
            bytes.extend_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
            addr += WORD;
        } else {
            let byte = std::ptr::with_exposed_provenance_mut(to_usize(addr));
            // SAFETY: AtomicU8::from_ptr needs a byte as above; any address is aligned for it.
            let byte = unsafe { AtomicU8::from_ptr(byte) };
            bytes.push(byte.load(Ordering::Relaxed));
            addr += 1;
        }
    }
    bytes
}
