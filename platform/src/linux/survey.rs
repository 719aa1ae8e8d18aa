//! Which addresses are taken: the fast survey and the named description.
//!
//! Two ways to read the map, the cheaper one chosen by what the last survey
//! saw: the PROCMAP_QUERY ioctl (one call a mapping) for few mappings, the text
//! of /proc/self/maps for many. Both stop at the end of the range asked for,
//! so tens of thousands of mappings above it cost nothing. Measured on 6.18:
//! ioctl 4 us + 0.56 us a mapping, text 22 us + 0.22 us a mapping.
//!
//! The file is opened for every survey: a descriptor kept would show the
//! parent's map after fork, and a program that closes all descriptors to
//! become a daemon would put another file behind its number.
//!
//! Invariant: what is written to `out` is ascending and does not overlap.

use super::abi::{self, Errno, ProcmapQuery};
use super::maps_text::MapsParser;
use super::{LinuxPlatform, Syscalls, os_error};
use crate::contract::{Holder, Region};
use crate::error::PlatformError;
use crate::range::{AddrRange, align_up, to_u64};
use std::sync::atomic::Ordering;

/// Mappings up to which the ioctl is the cheaper way.
const QUERY_LIMIT: usize = 50;

/// Bytes read from the map at once: the kernel gives at most about a page a call.
const READ_SIZE: usize = 4096;

/// Bytes the kernel keeps free below a stack that grows (`stack_guard_gap`, 256 pages of 4 KiB).
const STACK_GUARD_GAP: u64 = 1 << 20;

/// Room kept below a stack without a limit: what the kernel's own layout keeps (`MIN_GAP`, arch/x86/mm/mmap.c).
const UNLIMITED_STACK: u64 = 128 << 20;

/// How the ioctl way ended.
enum Queried {
    Complete,
    TooMany,
}

impl<S: Syscalls> LinuxPlatform<S> {
    /// Replaces `out` by the occupied regions that overlap `within`, and the room kept clear.
    pub(super) fn survey_into(
        &self,
        within: AddrRange,
        out: &mut Vec<Region>,
    ) -> Result<(), PlatformError> {
        out.clear();
        let mut file = self.open_maps(within)?;
        let few = self.last_survey.load(Ordering::Relaxed) <= QUERY_LIMIT;
        let complete = self.procmap_query && few && {
            let queried = self.read_by_query(&file, within, out);
            matches!(queried, Ok(Queried::Complete))
        };
        if !complete {
            // The ioctl reads nothing from the file's position, so the text starts at its beginning.
            out.clear();
            self.read_by_text(&mut file, within, out)?;
        }
        drop(file);
        self.last_survey.store(out.len(), Ordering::Relaxed);
        self.add_kept_room(within, out);
        Ok(())
    }

    fn open_maps(&self, within: AddrRange) -> Result<OpenFile<'_, S>, PlatformError> {
        OpenFile::open(&*self.sys, c"/proc/self/maps")
            .map_err(|errno| os_error("open of /proc/self/maps for a survey", within, errno))
    }

    fn read_by_query(
        &self,
        file: &OpenFile<'_, S>,
        within: AddrRange,
        out: &mut Vec<Region>,
    ) -> Result<Queried, Errno> {
        let mut from = within.start();
        for _ in 0..=QUERY_LIMIT {
            let mut query = ProcmapQuery {
                query_flags: abi::PROCMAP_QUERY_COVERING_OR_NEXT_VMA,
                query_addr: from,
                ..ProcmapQuery::default()
            };
            match self.sys.procmap_query(file.fd, &mut query) {
                Ok(()) => {}
                Err(Errno::ENOENT) => return Ok(Queried::Complete),
                Err(errno) => return Err(errno),
            }
            if query.vma_start >= within.end() {
                return Ok(Queried::Complete);
            }
            push_merged(within, query.vma_start, query.vma_end, out);
            from = query.vma_end;
            if from >= within.end() {
                return Ok(Queried::Complete);
            }
        }
        Ok(Queried::TooMany)
    }

    fn read_by_text(
        &self,
        file: &mut OpenFile<'_, S>,
        within: AddrRange,
        out: &mut Vec<Region>,
    ) -> Result<(), PlatformError> {
        let failed = |errno| os_error("read of /proc/self/maps for a survey", within, errno);
        let mut buffer = [0_u8; READ_SIZE];
        let mut parser = MapsParser::new();
        loop {
            let count = file.read(&mut buffer).map_err(failed)?;
            let text = buffer.get(..count).unwrap_or_default();
            if text.is_empty() {
                return Ok(());
            }
            let more = parser.feed(text, &mut |start, end| {
                if start < within.end() {
                    push_merged(within, start, end, out);
                }
                end < within.end()
            });
            match more {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(_) => return Err(failed(Errno::EINVAL)),
            }
        }
    }

    /// Adds the free room in which brk and the main stack grow.
    fn add_kept_room(&self, within: AddrRange, out: &mut Vec<Region>) {
        if let Some(room) = self.brk_room() {
            add_room_above(room, within, out);
        }
        if let Some(room) = self.stack_room(within) {
            add_room_below(room, within, out);
        }
    }

    /// `[brk, brk + room)`, brk rounded up to a page.
    fn brk_room(&self) -> Option<AddrRange> {
        let start = align_up(self.sys.brk(), self.config.page_size)?;
        let room = AddrRange::at(start, self.options.brk_room)?;
        (start != 0).then_some(room)
    }

    /// From the lowest address that the main stack may reach, less the guard gap, to its top;
    /// `None` if that is all above `within`. Other stacks do not grow: threads map theirs whole.
    fn stack_room(&self, within: AddrRange) -> Option<AddrRange> {
        let top = self.sys.stack_address();
        let limit = match self.sys.getrlimit(abi::RLIMIT_STACK) {
            Ok(limit) if limit <= UNLIMITED_STACK => limit,
            _ => UNLIMITED_STACK,
        };
        let bottom = crate::range::align_down(
            top.saturating_sub(limit).saturating_sub(STACK_GUARD_GAP),
            self.config.page_size,
        );
        let room = AddrRange::new(bottom, top)?;
        (top != 0 && room.overlaps(within)).then_some(room)
    }

    /// The regions with names, kinds and access.
    pub(super) fn describe_within(&self, within: AddrRange) -> Result<Vec<Region>, PlatformError> {
        let lines = self.sys.process_maps().map_err(|errno| {
            os_error("reading /proc/self/maps for a description", within, errno)
        })?;
        // Without /proc/self/exe (a chroot) the program counts as one more file.
        let executable = self.sys.executable().unwrap_or_default();
        let anchor = self.anchor.get().copied().flatten();
        let mut out: Vec<Region> = Vec::new();
        for line in lines {
            let Some(whole) = AddrRange::new(line.start, line.end) else {
                continue;
            };
            let Some(range) = whole.intersection(within) else {
                continue;
            };
            let (holder, name) = if anchor == Some(whole) {
                (Holder::Mapping, ANCHOR_NAME.to_owned())
            } else {
                (holder_of(&line.name, &executable), line.name)
            };
            out.push(Region {
                range,
                holder,
                name,
                access: line.access,
            });
        }
        self.add_kept_room(within, &mut out);
        Ok(out)
    }
}

/// The name that [`Platform::describe`](crate::Platform::describe) gives the anchor page.
const ANCHOR_NAME: &str = "[low2g anchor]";

/// What kind of thing the kernel's name tells.
fn holder_of(name: &str, executable: &str) -> Holder {
    match name {
        "" => Holder::Mapping,
        "[heap]" => Holder::Brk,
        "[vdso]" | "[vsyscall]" => Holder::System,
        _ if name == executable => Holder::Executable,
        _ if name.starts_with("[vvar") => Holder::System,
        _ if name.starts_with("[stack") => Holder::Stack,
        _ if name.starts_with("/memfd:") || name.starts_with("/dev/zero") => Holder::Mapping,
        _ if name.starts_with('/') => Holder::Library,
        _ => Holder::Mapping,
    }
}

fn region(range: AddrRange, holder: Holder) -> Region {
    Region {
        range,
        holder,
        name: String::new(),
        access: String::new(),
    }
}

/// Appends `[start, end)` clipped to `within`, joined to the last region if they touch.
/// The map may change between two reads; a region that starts too early is clipped as well.
fn push_merged(within: AddrRange, start: u64, end: u64, out: &mut Vec<Region>) {
    let last = out.last().map_or(within.start(), |last| last.range.end());
    let start = start.max(last);
    let end = end.min(within.end());
    let Some(range) = AddrRange::new(start, end).filter(|range| !range.is_empty()) else {
        return;
    };
    match out.last_mut() {
        Some(previous) if previous.range.end() == start => {
            previous.range = AddrRange::new(previous.range.start(), end).unwrap_or(range);
        }
        _ => out.push(region(range, Holder::Unknown)),
    }
}

/// Adds `room` from its start up to the next region, where growth would end anyway.
fn add_room_above(room: AddrRange, within: AddrRange, out: &mut Vec<Region>) {
    let Some(room) = room.intersection(within) else {
        return;
    };
    let next = out.partition_point(|held| held.range.end() <= room.start());
    let end = out.get(next).map_or(room.end(), |held| held.range.start());
    if let Some(free) = AddrRange::new(room.start(), end.min(room.end())) {
        insert(next, free, Holder::Brk, out);
    }
}

/// Adds `room` from the region that holds its end (a stack) down to the region below that.
fn add_room_below(room: AddrRange, within: AddrRange, out: &mut Vec<Region>) {
    let stack = out.partition_point(|held| held.range.end() < room.end());
    let top = out
        .get(stack)
        .map_or(within.end(), |held| held.range.start());
    let below = stack.checked_sub(1).and_then(|below| out.get(below));
    let bottom = below.map_or(within.start(), |held| held.range.end());
    if let Some(free) = AddrRange::new(bottom.max(room.start()), top.min(within.end())) {
        insert(stack, free, Holder::Stack, out);
    }
}

fn insert(at: usize, free: AddrRange, holder: Holder, out: &mut Vec<Region>) {
    if !free.is_empty() {
        out.insert(at, region(free, holder));
    }
}

/// A file that is closed when dropped.
#[derive(Debug)]
pub(super) struct OpenFile<'a, S: Syscalls> {
    sys: &'a S,
    fd: i32,
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
