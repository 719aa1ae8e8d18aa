//! Which limit an `ENOMEM` most likely means: the kernel uses one number for
//! address space, mappings, `RLIMIT_AS`, `RLIMIT_DATA` and memory.
//!
//! Runs on the error path only; counting the mappings of a process at
//! `vm.max_map_count` takes about 15 ms.

use super::abi::{self, Errno};
use super::files::OpenFile;
use super::{LinuxPlatform, Syscalls};

impl<S: Syscalls> LinuxPlatform<S> {
    /// The limit that a mapping of `len` more bytes would break, in words; `None` if none is known.
    pub(super) fn broken_limit(&self, len: u64) -> Option<String> {
        self.broken_address_space(len)
            .or_else(|| self.broken_map_count())
            .or_else(|| self.broken_data(len))
            .or_else(|| self.broken_commitment())
    }

    fn broken_address_space(&self, len: u64) -> Option<String> {
        let limit = self.finite_limit(abi::RLIMIT_AS)?;
        let pages = self.number(c"/proc/self/statm")?;
        let used = pages.checked_mul(self.config.page_size)?;
        (used.saturating_add(len) > limit)
            .then(|| format!("RLIMIT_AS is {limit} bytes, {used} are in use: raise it (ulimit -v)"))
    }

    fn broken_map_count(&self) -> Option<String> {
        let limit = self.number(c"/proc/sys/vm/max_map_count")?;
        let file = OpenFile::open(&*self.sys, c"/proc/self/maps").ok()?;
        let count = file.count_lines()?;
        // A split needs two more, and [vsyscall] is listed but not counted.
        (count.saturating_add(2) >= limit).then(|| {
            format!("{count} mappings, vm.max_map_count is {limit}: raise it or merge blocks")
        })
    }

    fn broken_data(&self, len: u64) -> Option<String> {
        // What counts towards RLIMIT_DATA is only in /proc/self/status; the limit itself tells enough.
        let limit = self.finite_limit(abi::RLIMIT_DATA)?;
        Some(format!(
            "RLIMIT_DATA is {limit} bytes and {len} more were asked for: raise it (ulimit -d)"
        ))
    }

    fn broken_commitment(&self) -> Option<String> {
        let mode = self.number(c"/proc/sys/vm/overcommit_memory")?;
        (mode == 2).then(|| {
            "vm.overcommit_memory is 2: every private writable page counts against CommitLimit \
             of /proc/meminfo"
                .to_owned()
        })
    }

    fn finite_limit(&self, resource: u32) -> Option<u64> {
        let limit = self.sys.getrlimit(resource).ok()?;
        (limit != abi::RLIM_INFINITY).then_some(limit)
    }

    /// The number that a file of /proc starts with.
    pub(super) fn number(&self, path: &std::ffi::CStr) -> Option<u64> {
        OpenFile::open(&*self.sys, path).ok()?.read_number()
    }

    /// `errno` in words, with the limit named if it is one.
    pub(super) fn reason(&self, errno: Errno, len: u64) -> String {
        let limit = (errno == Errno::ENOMEM)
            .then(|| self.broken_limit(len))
            .flatten();
        match limit {
            Some(limit) => format!("{errno}: {limit}"),
            None => errno.to_string(),
        }
    }
}
