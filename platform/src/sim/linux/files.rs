//! Descriptors: memfds, and the few files of /proc that the backend reads.

use super::{SimLinux, State};
use crate::linux::abi::{self, Errno};
use crate::linux::{MapLine, SysResult};
use crate::range::to_u64;
use std::ffi::CStr;
use std::fmt::Write as _;

/// What a descriptor stands for.
#[derive(Clone, Debug)]
pub(super) enum File {
    /// A memfd, or a reopening of it.
    Memfd { inode: u64, writable: bool },
    /// A file of text, taken when it was opened, and what is left to read of it.
    Text {
        text: Vec<u8>,
        read: usize,
        is_maps: bool,
    },
}

impl SimLinux {
    pub(super) fn install(state: &mut State, file: File) -> i32 {
        let fd = state.next_fd;
        state.next_fd += 1;
        state.files.insert(fd, file);
        fd
    }

    pub(super) fn open_path(&self, state: &mut State, path: &CStr) -> SysResult<i32> {
        let path = path.to_str().map_err(|_| Errno::ENOENT)?;
        if !self.options.proc_mounted {
            return Err(Errno::ENOENT);
        }
        if let Some(number) = path.strip_prefix("/proc/self/fd/") {
            let fd: i32 = number.parse().map_err(|_| Errno::ENOENT)?;
            let file = state.files.get(&fd).ok_or(Errno::ENOENT)?;
            let File::Memfd { inode, .. } = *file else {
                return Err(Errno::EACCES);
            };
            return Ok(Self::install(
                state,
                File::Memfd {
                    inode,
                    writable: false,
                },
            ));
        }
        let text = match path {
            "/proc/self/maps" => maps_text(&lines(state)),
            "/proc/self/statm" => self.statm(state),
            "/proc/sys/vm/max_map_count" => format!("{}\n", self.options.max_map_count),
            "/proc/sys/vm/mmap_min_addr" => format!("{}\n", self.options.mmap_min_addr),
            _ => return Err(Errno::ENOENT),
        };
        let is_maps = path == "/proc/self/maps";
        Ok(Self::install(
            state,
            File::Text {
                text: text.into_bytes(),
                read: 0,
                is_maps,
            },
        ))
    }

    fn statm(&self, state: &State) -> String {
        let total: u64 = state.kernel.space.iter().map(|held| held.range.len()).sum();
        format!("{} 0 0 0 0 0 0\n", total / self.options.page_size)
    }

    /// Gives a random part of what is left, as read may.
    pub(super) fn read_text(state: &mut State, fd: i32, buffer: &mut [u8]) -> SysResult<usize> {
        let few = 1 + state.kernel.below(to_u64(buffer.len()));
        let File::Text { text, read, .. } = state.files.get_mut(&fd).ok_or(Errno::EBADF)? else {
            return Err(Errno::EINVAL);
        };
        let rest = text.get(*read..).unwrap_or_default();
        let count = rest
            .len()
            .min(buffer.len())
            .min(crate::range::to_usize(few));
        buffer[..count].copy_from_slice(&rest[..count]);
        *read += count;
        Ok(count)
    }
}

/// The lines of /proc/self/maps.
pub(super) fn lines(state: &State) -> Vec<MapLine> {
    let line = |held: &super::SimMapping| {
        let bit = |bit: i32, letter: char| if held.prot & bit != 0 { letter } else { '-' };
        let access = [
            bit(abi::PROT_READ, 'r'),
            bit(abi::PROT_WRITE, 'w'),
            bit(abi::PROT_EXEC, 'x'),
            if held.shared.is_some() { 's' } else { 'p' },
        ];
        MapLine {
            start: held.range.start(),
            end: held.range.end(),
            access: access.iter().collect(),
            name: held.name.to_owned(),
        }
    };
    state.kernel.space.iter().map(line).collect()
}

fn maps_text(lines: &[MapLine]) -> String {
    let mut text = String::new();
    for line in lines {
        let MapLine {
            start,
            end,
            access,
            name,
        } = line;
        writeln!(
            text,
            "{start:08x}-{end:08x} {access} 00000000 00:00 0 {name}"
        )
        .expect("writing to a String does not fail");
    }
    text
}
