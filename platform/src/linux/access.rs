//! What is done to pages that are already claimed: access, population, guards, release.

use super::abi::{self, Errno};
use super::files::retry;
use super::{LinuxPlatform, Syscalls, os_error, prot_bits};
use crate::contract::Protection;
use crate::error::PlatformError;
use crate::pages;
use crate::range::AddrRange;

impl<S: Syscalls> LinuxPlatform<S> {
    pub(super) fn populate_range(&self, range: AddrRange) -> Result<(), PlatformError> {
        self.check(range);
        let (start, len) = (range.start(), range.len());
        if self.populate {
            const CALL: &str = "madvise(MADV_POPULATE_WRITE)";
            return retry(|| self.sys.madvise(start, len, abi::MADV_POPULATE_WRITE)).map_err(
                |errno| match errno {
                    // Touching the page would be SIGBUS (madvise(2)): only a file can be that full.
                    Errno::EFAULT => PlatformError {
                        reason: format!(
                            "{errno}: the file in memory behind these pages is full, or \
                             vm.overcommit_memory=2 allows no more: release memory or raise the limit"
                        ),
                        ..os_error(CALL, range, errno)
                    },
                    _ => self.limit_error(CALL, range, errno),
                },
            );
        }
        // Before 5.14. A view's pages exist already (`new_memfd` allocated them); private pages
        // that cannot be had call the out-of-memory killer, whoever touches them first.
        pages::each(range, self.config.page_size, |page| self.sys.touch(page));
        Ok(())
    }

    pub(super) fn change_access(
        &self,
        range: AddrRange,
        protection: Protection,
    ) -> Result<(), PlatformError> {
        self.check(range);
        self.sys
            .mprotect(range.start(), range.len(), prot_bits(protection))
            .map_err(|errno| self.limit_error("mprotect", range, errno))
    }

    pub(super) fn seal_range(&self, range: AddrRange) -> Result<(), PlatformError> {
        self.check(range);
        self.sys
            .mseal(range.start(), range.len())
            .map_err(|errno| os_error("mseal", range, errno))
    }

    pub(super) fn guard_range(&self, range: AddrRange) -> Result<(), PlatformError> {
        self.check(range);
        let (start, len) = (range.start(), range.len());
        if self.config.capabilities.guard_in_place {
            match retry(|| self.sys.madvise(start, len, abi::MADV_GUARD_INSTALL)) {
                // Locked memory (mlockall) takes no guard markers.
                Err(Errno::EINVAL) => {}
                done => {
                    return done.map_err(|errno| {
                        self.limit_error("madvise(MADV_GUARD_INSTALL)", range, errno)
                    });
                }
            }
        }
        self.change_access(range, Protection::None)?;
        self.discard_range(range)
    }

    /// A shared view's pages are freed in the file (`MADV_REMOVE`), which private memory answers
    /// with EINVAL, and a view that may not write or a sealed memfd with EACCES or EPERM: then the
    /// pages leave this mapping only.
    pub(super) fn discard_range(&self, range: AddrRange) -> Result<(), PlatformError> {
        self.check(range);
        let advise = |advice| retry(|| self.sys.madvise(range.start(), range.len(), advice));
        match advise(abi::MADV_REMOVE) {
            Err(Errno::EINVAL | Errno::EACCES | Errno::EPERM) => {}
            done => return done.map_err(|errno| os_error("madvise(MADV_REMOVE)", range, errno)),
        }
        match advise(abi::MADV_DONTNEED) {
            // Locked memory (mlockall); the advice exists from 5.18 on.
            Err(Errno::EINVAL) => advise(abi::MADV_DONTNEED_LOCKED),
            done => done,
        }
        .map_err(|errno| os_error("madvise(MADV_DONTNEED)", range, errno))
    }

    pub(super) fn release_range(&self, range: AddrRange) -> Result<(), PlatformError> {
        self.check(range);
        self.sys
            .munmap(range.start(), range.len())
            .map_err(|errno| match errno {
                // The one cause that munmap(2) names. Mappings are not counted: blocks must be
                // freed quickly also where this happens each time.
                Errno::ENOMEM => PlatformError {
                    reason: format!(
                        "{errno}: it would split a mapping and vm.max_map_count is reached: \
                         raise it or merge blocks"
                    ),
                    ..os_error("munmap", range, errno)
                },
                _ => os_error("munmap", range, errno),
            })
    }

    /// `membarrier`, for which a process registers once (again in a child, if it has to).
    pub(super) fn serialize_all_cores(&self) -> bool {
        let barrier = || {
            self.sys
                .membarrier(abi::MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE)
        };
        match barrier() {
            Err(Errno::EPERM) => {}
            done => return done.is_ok(),
        }
        let register = abi::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE;
        self.sys
            .membarrier(register)
            .and_then(|()| barrier())
            .is_ok()
    }

    /// Fills `buffer`, however often a signal interrupts.
    pub(super) fn fill_random(&self, buffer: &mut [u8]) {
        let mut rest = buffer;
        while !rest.is_empty() {
            let filled = retry(|| self.sys.getrandom(rest))
                .expect("getrandom: no randomness on this system, placement would be guessable");
            rest = rest.split_at_mut(filled).1;
        }
    }
}
