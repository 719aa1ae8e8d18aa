//! Which limit an `ENOMEM` most likely means: the kernel uses one number for
//! address space, `RLIMIT_VMEM`, swap reservations and, with `MAP_EXCL`, for a range that is taken.
//!
//! Runs on the error path only.

use super::abi::{self, Errno};
use super::{FreeBsdPlatform, Syscalls, os_error};
use crate::error::{ClaimError, PlatformError};
use crate::range::AddrRange;

impl<S: Syscalls> FreeBsdPlatform<S> {
    /// The limit that a mapping of `len` more bytes would break, in words; `None` if none is known.
    pub(super) fn broken_limit(&self, len: u64) -> Option<String> {
        let limit = self.sys.getrlimit(abi::RLIMIT_VMEM).ok()?;
        if limit == abi::RLIM_INFINITY {
            return None;
        }
        let mut used: u64 = 0;
        let counted = self.each_entry(&mut |entry| {
            used = used.saturating_add(entry.end.saturating_sub(entry.start));
            true
        });
        let broken = counted.is_ok() && used.saturating_add(len) > limit;
        broken.then(|| {
            format!("RLIMIT_VMEM is {limit} bytes, {used} are in use: raise it (ulimit -v)")
        })
    }

    /// A failed call with the limit named that it most likely ran into.
    pub(super) fn limit_error(
        &self,
        call: &'static str,
        range: AddrRange,
        errno: Errno,
    ) -> PlatformError {
        let limit = (errno == Errno::ENOMEM)
            .then(|| self.broken_limit(range.len()))
            .flatten();
        let mut error = os_error(call, range, errno);
        if let Some(limit) = limit {
            error.reason = format!("{errno}: {limit}");
        }
        error
    }

    /// What an error number of a claim means for the caller.
    pub(super) fn refusal(&self, call: &'static str, range: AddrRange, errno: Errno) -> ClaimError {
        match errno {
            Errno::EEXIST => ClaimError::Occupied { range },
            Errno::ENOMEM | Errno::EAGAIN | Errno::ENFILE => {
                ClaimError::Exhausted(self.limit_error(call, range, errno))
            }
            Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOSYS => ClaimError::Unsupported { call },
            // EPERM, EACCES and ECAPMODE are policy; what is unknown will not go away elsewhere either.
            _ => ClaimError::Refused(os_error(call, range, errno)),
        }
    }
}
