//! Files of /proc: opened, read and closed, whatever signals interrupt.

use super::Syscalls;
use super::abi::{self, Errno};
use crate::range::to_u64;

/// Bytes read at once: the kernel gives at most about a page of a file of /proc a call.
const READ_SIZE: usize = 4096;

/// A file that is closed when dropped.
#[derive(Debug)]
pub(super) struct OpenFile<'a, S: Syscalls> {
    sys: &'a S,
    /// The descriptor, open as long as this lives.
    pub(super) fd: i32,
}

impl<'a, S: Syscalls> OpenFile<'a, S> {
    /// Opens `path` for reading.
    pub(super) fn open(sys: &'a S, path: &std::ffi::CStr) -> Result<Self, Errno> {
        let fd = retry(|| sys.open(path, abi::O_RDONLY_CLOEXEC))?;
        Ok(Self { sys, fd })
    }

    /// Reads the next bytes; 0 at the end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        retry(|| self.sys.read(self.fd, buffer))
    }

    /// The first number in the file, which must start with decimal digits.
    pub(super) fn read_number(mut self) -> Option<u64> {
        let mut buffer = [0_u8; 32];
        let count = self.read(&mut buffer).ok()?;
        let text = std::str::from_utf8(buffer.get(..count)?).ok()?;
        text.split_ascii_whitespace().next()?.parse().ok()
    }

    /// Lines of the file.
    pub(super) fn count_lines(mut self) -> Option<u64> {
        let mut buffer = [0_u8; READ_SIZE];
        let mut lines = 0;
        loop {
            let count = self.read(&mut buffer).ok()?;
            let text = buffer.get(..count).filter(|text| !text.is_empty());
            let Some(text) = text else { return Some(lines) };
            lines += to_u64(text.iter().filter(|&&byte| byte == b'\n').count());
        }
    }
}

impl<S: Syscalls> Drop for OpenFile<'_, S> {
    fn drop(&mut self) {
        self.sys.close(self.fd);
    }
}

/// Repeats a call that a signal interrupted.
pub(super) fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}
