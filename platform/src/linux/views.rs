//! Pages with two views: a memfd, mapped writable in one place and executable in another.
//!
//! Invariants:
//! - an executable view can never become writable: it is mapped from a
//!   read-only reopening of the memfd, or, without /proc, after the memfd was
//!   sealed against new writable mappings;
//! - a writable view is not inherited by fork: a child would write the
//!   parent's code;
//! - the memfd keeps its length, so a view's pages never raise SIGBUS by truncation.

use super::abi::{self, Errno};
use super::claim::Pages;
use super::files::retry;
use super::{LinuxPlatform, Syscalls, os_error, prot_bits};
use crate::contract::{Backing, Protection};
use crate::error::{ClaimError, PlatformError};
use crate::pages;
use crate::range::AddrRange;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Flags of memfd_create to try in order: with the right to execute said aloud (6.3), before
/// 6.3, and under `vm.memfd_noexec=2`, where the file is not executable but its mappings are.
const CREATE_FLAGS: [u32; 3] = [
    abi::MFD_CLOEXEC | abi::MFD_ALLOW_SEALING | abi::MFD_EXEC,
    abi::MFD_CLOEXEC | abi::MFD_ALLOW_SEALING,
    abi::MFD_CLOEXEC | abi::MFD_NOEXEC_SEAL,
];

/// A memfd of fixed length.
#[derive(Debug)]
pub(super) struct Memfd<S: Syscalls> {
    sys: Arc<S>,
    writable: i32,
    /// A read-only reopening; `None` where /proc does not give one.
    read_only: Option<i32>,
    /// Whether the whole of it has a writable view, so that no more will be needed.
    written: AtomicBool,
    len: u64,
}

impl<S: Syscalls> Backing for Memfd<S> {
    fn len(&self) -> u64 {
        self.len
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

impl<S: Syscalls> Drop for Memfd<S> {
    fn drop(&mut self) {
        self.sys.close(self.writable);
        if let Some(fd) = self.read_only {
            self.sys.close(fd);
        }
    }
}

/// A new empty memfd.
pub(super) fn create<S: Syscalls>(sys: &S) -> Result<i32, Errno> {
    let mut last = Errno::ENOSYS;
    for flags in CREATE_FLAGS {
        match sys.memfd_create(c"low2g", flags) {
            Err(errno @ (Errno::EINVAL | Errno::EACCES)) => last = errno,
            done => return done,
        }
    }
    Err(last)
}

impl<S: Syscalls> LinuxPlatform<S> {
    /// A memfd of `len` bytes, not populated.
    pub(super) fn new_memfd(&self, len: u64) -> Result<Memfd<S>, PlatformError> {
        let range = AddrRange::at(0, len).expect("starts at 0");
        self.check(range);
        let failed = |call: &'static str| move |errno| os_error(call, range, errno);
        // Growing a file beyond RLIMIT_FSIZE raises SIGXFSZ, which kills the process.
        let limit = self.sys.getrlimit(abi::RLIMIT_FSIZE);
        let limit = limit.map_err(failed("getrlimit(RLIMIT_FSIZE)"))?;
        if len > limit {
            let mut error = os_error("ftruncate of a memfd", range, Errno::EFBIG);
            error.reason = format!("RLIMIT_FSIZE is {limit} bytes: raise it (ulimit -f)");
            return Err(error);
        }
        let writable = create(&*self.sys).map_err(failed("memfd_create"))?;
        // From here on dropping it closes the descriptors.
        let mut memfd = Memfd {
            sys: Arc::clone(&self.sys),
            writable,
            read_only: None,
            written: AtomicBool::new(false),
            len,
        };
        retry(|| self.sys.ftruncate(writable, len)).map_err(failed("ftruncate of a memfd"))?;
        let seals = abi::F_SEAL_SHRINK | abi::F_SEAL_GROW;
        self.sys
            .add_seals(writable, seals)
            .map_err(failed("fcntl(F_ADD_SEALS)"))?;
        if !self.populate {
            // Before 5.14 a view cannot be populated without the risk of SIGBUS; the file can.
            retry(|| self.sys.fallocate(writable, len)).map_err(failed("fallocate of a memfd"))?;
        }
        memfd.read_only = self.reopen(writable);
        Ok(memfd)
    }

    /// A descriptor of the same file that cannot write; `None` without /proc, or if the process
    /// may not open its own descriptors (not dumpable).
    fn reopen(&self, fd: i32) -> Option<i32> {
        let path = std::ffi::CString::new(format!("/proc/self/fd/{fd}")).ok()?;
        retry(|| self.sys.open(&path, abi::O_RDONLY_CLOEXEC)).ok()
    }

    /// Maps a view of `backing` at exactly `range`.
    pub(super) fn claim_view(
        &self,
        backing: &dyn Backing,
        offset: u64,
        range: AddrRange,
        protection: Protection,
    ) -> Result<(), ClaimError> {
        self.check(range);
        let memfd: &Memfd<S> = pages::of_view(backing, offset, range, self.config.page_size);
        self.ensure_anchor(range);
        let fd = match protection {
            Protection::ReadExecute => self.executable_source(memfd, range)?,
            Protection::None | Protection::Read | Protection::ReadWrite => memfd.writable,
        };
        let pages = Pages {
            flags: abi::MAP_SHARED,
            fd,
            offset,
        };
        self.map_exact(range, prot_bits(protection), pages)?;
        if protection == Protection::ReadExecute {
            return Ok(());
        }
        let (start, len) = (range.start(), range.len());
        if let Err(errno) = self.sys.madvise(start, len, abi::MADV_DONTFORK) {
            self.unmap_fresh(start, len)?;
            return Err(self.refusal("madvise(MADV_DONTFORK)", range, errno));
        }
        if protection == Protection::ReadWrite && len == memfd.len {
            memfd.written.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// The descriptor to map an executable view from.
    fn executable_source(&self, memfd: &Memfd<S>, range: AddrRange) -> Result<i32, ClaimError> {
        if let Some(fd) = memfd.read_only {
            return Ok(fd);
        }
        // Sealing forbids later writable views, so it waits until there is one of everything;
        // an executable view mapped before that could be made writable again.
        if memfd.written.load(Ordering::Acquire) {
            self.sys
                .add_seals(memfd.writable, abi::F_SEAL_FUTURE_WRITE)
                .map_err(|errno| self.refusal("fcntl(F_SEAL_FUTURE_WRITE)", range, errno))?;
        }
        Ok(memfd.writable)
    }
}
