//! Blocks without size classes: chunks are cut into runs of any length, good fit first, and what is
//! freed joins its free neighbours at once.
//!
//! ```text
//!   chunk    | used | free      | used  | used | free |      a list in order of addresses
//!   bins     [ 1 ] [ 2 ] .. [ 512-513 ] .. [ 4096 ]     a list of free runs of about one length
//!   used     address -> run
//! ```
//!
//! All of it is out of line. A search looks at the bins in which every run fits (two-level
//! segregated fit), so it takes what fits to half a percent, at a price that does not grow.
//!
//! Invariants:
//! - the runs of a chunk tile it, and no two free ones are neighbours;
//! - a free run is in the list of its bin, a used one in `used`, and neither in anything else;
//! - a chunk's first run keeps its number as long as the chunk is there.

use hashbrown::HashMap;
use low2g_platform::{AddrRange, to_usize};

/// What run lengths and addresses are multiples of, in bytes.
pub(crate) const GRANULE: u64 = 64;

/// Bytes of a chunk: the last one is used in part.
pub(crate) const CHUNK: u64 = 256 << 10;

/// log2 of the bins for one doubling of length.
const FINE: u32 = 8;

/// Enough for a run of `CHUNK`.
const BINS: usize = 1472;

const NONE: u32 = u32::MAX;

/// A part of a chunk.
#[derive(Debug)]
struct Run {
    start: u64,
    /// In granules.
    len: u32,
    used: bool,
    /// Whether it may hold bytes of a former block.
    dirty: bool,
    /// Neighbours in the chunk.
    below: u32,
    above: u32,
    /// Neighbours in the bin; of a free run only.
    previous: u32,
    next: u32,
}

impl Run {
    fn bytes(&self) -> u64 {
        u64::from(self.len) * GRANULE
    }

    fn range(&self) -> AddrRange {
        AddrRange::at(self.start, self.bytes()).expect("part of a chunk")
    }
}

/// What was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TakenRun {
    pub(crate) range: AddrRange,
    /// Whether it may hold bytes of a former block.
    pub(crate) dirty: bool,
}

/// Chunks, cut into runs.
#[derive(Debug)]
pub(crate) struct Runs {
    runs: Vec<Run>,
    /// Numbers that stand for no run.
    vacant: Vec<u32>,
    used: HashMap<u64, u32>,
    /// First free run of each bin.
    bins: [u32; BINS],
    /// A bit a bin: whether it has one.
    filled: [u64; BINS / 64],
    used_bytes: u64,
}

impl Runs {
    pub(crate) fn new() -> Self {
        Self {
            runs: Vec::new(),
            vacant: Vec::new(),
            used: HashMap::new(),
            bins: [NONE; BINS],
            filled: [0; BINS / 64],
            used_bytes: 0,
        }
    }

    /// Bytes of used runs.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// Adds a chunk of at most `CHUNK` bytes of zeroed memory, both ends multiples of a granule;
    /// gives the number of its first run.
    pub(crate) fn add(&mut self, chunk: AddrRange) -> u32 {
        let run = self.number(Run {
            start: chunk.start(),
            len: granules(chunk.len()),
            used: false,
            dirty: false,
            below: NONE,
            above: NONE,
            previous: NONE,
            next: NONE,
        });
        self.link(run);
        run
    }

    /// Takes out the chunk that starts with run `first`, if nothing of it is used; says whether it
    /// did.
    pub(crate) fn remove(&mut self, first: u32) -> bool {
        if !self.is_empty(first) {
            return false;
        }
        self.unlink(first);
        self.vacant.push(first);
        true
    }

    /// Whether nothing is used of the chunk that starts with run `first`.
    pub(crate) fn is_empty(&self, first: u32) -> bool {
        let run = self.run(first);
        !run.used && run.above == NONE
    }

    /// Takes `bytes`, not 0, at a multiple of `align`, a power of two; `None` if they fit nowhere.
    pub(crate) fn take(&mut self, bytes: u64, align: u64) -> Option<TakenRun> {
        let len = bytes.div_ceil(GRANULE);
        // Wherever a run of so many starts, an aligned one lies in it.
        let enough = len + align.max(GRANULE) / GRANULE - 1;
        if enough > CHUNK / GRANULE {
            return None;
        }
        let (len, enough) = (granules(len * GRANULE), granules(enough * GRANULE));
        let mut run = self.find(enough)?;
        self.unlink(run);
        let start = self.run(run).start;
        let head = granules(start.next_multiple_of(align) - start);
        if head > 0 {
            let tail = self.split(run, head);
            self.link(run);
            run = tail;
        }
        if self.run(run).len > len {
            let rest = self.split(run, len);
            self.link(rest);
        }
        let taken = self.run_mut(run);
        taken.used = true;
        let taken = TakenRun {
            range: taken.range(),
            dirty: std::mem::replace(&mut taken.dirty, true),
        };
        self.used.insert(taken.range.start(), run);
        self.used_bytes += taken.range.len();
        Some(taken)
    }

    /// Frees the used run at `addr`; gives the start of its chunk if nothing of that is used any
    /// more. `None` if no used run starts there.
    pub(crate) fn give(&mut self, addr: u64) -> Option<Option<u64>> {
        let run = self.used.remove(&addr)?;
        self.used_bytes -= self.run(run).bytes();
        self.run_mut(run).used = false;
        let run = self.join(run);
        self.link(run);
        let alone = self.run(run);
        let alone = (alone.below, alone.above) == (NONE, NONE);
        Some(alone.then(|| self.run(run).start))
    }

    /// Makes the used run at `addr` long enough for `bytes`, not 0, and no longer, where it lies.
    /// `None` if no used run starts there; else whether it did.
    pub(crate) fn resize(&mut self, addr: u64, bytes: u64) -> Option<bool> {
        let run = *self.used.get(&addr)?;
        let (before, above) = (self.run(run).len, self.run(run).above);
        let room = match above {
            NONE => 0,
            _ if self.run(above).used => 0,
            _ => self.run(above).len,
        };
        let len = bytes.div_ceil(GRANULE);
        if len > u64::from(before + room) {
            return Some(false);
        }
        let len = granules(len * GRANULE);
        if len == before {
            return Some(true);
        }
        self.used_bytes -= self.run(run).bytes();
        if room > 0 {
            self.unlink(above);
            self.absorb(run, above);
        }
        if self.run(run).len > len {
            let rest = self.split(run, len);
            self.link(rest);
        }
        self.used_bytes += self.run(run).bytes();
        Some(true)
    }

    /// The used run at `addr`.
    pub(crate) fn used_at(&self, addr: u64) -> Option<AddrRange> {
        self.used.get(&addr).map(|run| self.run(*run).range())
    }

    /// The run around `addr` in the chunk that starts with run `first`, and whether it is used.
    pub(crate) fn around(&self, first: u32, addr: u64) -> Option<(AddrRange, bool)> {
        let mut at = first;
        while at != NONE {
            let run = self.run(at);
            if run.range().contains(addr) {
                return Some((run.range(), run.used));
            }
            at = run.above;
        }
        None
    }

    /// A free run of at least `len` granules.
    fn find(&self, len: u32) -> Option<u32> {
        let fits_all = bin_of(len + (spacing(len) - 1));
        if let Some(bin) = self.first_filled(fits_all) {
            return Some(self.bins[bin]);
        }
        // Some of the bin before may do, if there is nothing better: a chunk costs more than a look.
        let mut run = self.bins[bin_of(len)];
        while run != NONE && self.run(run).len < len {
            run = self.run(run).next;
        }
        (run != NONE).then_some(run)
    }

    /// The first bin from `from` on that has a run.
    fn first_filled(&self, from: usize) -> Option<usize> {
        let mut word = from / 64;
        let mut bits = self.filled.get(word)? & (u64::MAX << (from % 64));
        while bits == 0 {
            word += 1;
            bits = *self.filled.get(word)?;
        }
        Some(word * 64 + to_usize(bits.trailing_zeros().into()))
    }

    /// Puts a free run into the list of its bin.
    fn link(&mut self, run: u32) {
        let bin = bin_of(self.run(run).len);
        let next = std::mem::replace(&mut self.bins[bin], run);
        self.filled[bin / 64] |= 1 << (bin % 64);
        if next != NONE {
            self.run_mut(next).previous = run;
        }
        let run = self.run_mut(run);
        (run.previous, run.next) = (NONE, next);
    }

    /// Takes a free run out of the list of its bin.
    fn unlink(&mut self, run: u32) {
        let Run {
            len,
            previous,
            next,
            ..
        } = *self.run(run);
        if next != NONE {
            self.run_mut(next).previous = previous;
        }
        if previous != NONE {
            self.run_mut(previous).next = next;
            return;
        }
        let bin = bin_of(len);
        self.bins[bin] = next;
        if next == NONE {
            self.filled[bin / 64] &= !(1 << (bin % 64));
        }
    }

    /// Cuts a run that is in no list after `len` granules; gives the free rest, in no list either.
    fn split(&mut self, run: u32, len: u32) -> u32 {
        let whole = self.run(run);
        let rest = Run {
            start: whole.start + u64::from(len) * GRANULE,
            len: whole.len - len,
            used: false,
            dirty: whole.dirty,
            below: run,
            above: whole.above,
            previous: NONE,
            next: NONE,
        };
        let above = rest.above;
        let rest = self.number(rest);
        if above != NONE {
            self.run_mut(above).below = rest;
        }
        let run = self.run_mut(run);
        (run.len, run.above) = (len, rest);
        rest
    }

    /// Joins a free run that is in no list with its free neighbours; gives the result, in no list.
    fn join(&mut self, run: u32) -> u32 {
        let above = self.run(run).above;
        if above != NONE && !self.run(above).used {
            self.unlink(above);
            self.absorb(run, above);
        }
        let below = self.run(run).below;
        if below != NONE && !self.run(below).used {
            self.unlink(below);
            self.absorb(below, run);
            return below;
        }
        run
    }

    /// Makes `above`, the upper neighbour, part of `run`; both are in no list.
    fn absorb(&mut self, run: u32, above: u32) {
        let Run {
            len,
            dirty,
            above: beyond,
            ..
        } = *self.run(above);
        if beyond != NONE {
            self.run_mut(beyond).below = run;
        }
        let run = self.run_mut(run);
        run.len += len;
        run.dirty |= dirty;
        run.above = beyond;
        self.vacant.push(above);
    }

    fn number(&mut self, run: Run) -> u32 {
        if let Some(number) = self.vacant.pop() {
            *self.run_mut(number) = run;
            return number;
        }
        self.runs.push(run);
        u32::try_from(self.runs.len() - 1).expect("2^32 granules are more than any window has")
    }

    fn run(&self, run: u32) -> &Run {
        &self.runs[to_usize(run.into())]
    }

    fn run_mut(&mut self, run: u32) -> &mut Run {
        &mut self.runs[to_usize(run.into())]
    }
}

/// Whole granules of a length that a chunk may have.
fn granules(bytes: u64) -> u32 {
    u32::try_from(bytes / GRANULE).expect("chunks are small")
}

/// How many lengths share the bin of `len` granules.
fn spacing(len: u32) -> u32 {
    1 << len.ilog2().saturating_sub(FINE)
}

/// The bin of free runs of `len` granules, not 0.
fn bin_of(len: u32) -> usize {
    let Some(coarse) = len.ilog2().checked_sub(FINE) else {
        return to_usize(len.into());
    };
    let fine = (len >> coarse) - (1 << FINE);
    to_usize((u64::from(1 + coarse) << FINE) + u64::from(fine))
}

#[cfg(test)]
#[path = "runs_tests.rs"]
mod tests;
