//! Blocks between a page and 64 KiB where addresses need not be random and nothing is guarded: cut
//! from chunks to their size, because slots of fixed sizes would waste a tenth of them.
//!
//! Lock order: as a pool's, before the pages'.
//!
//! Invariants: `runs` has the chunks of `chunks` and no others; at most one chunk has no used run.

use std::collections::BTreeMap;

use low2g_platform::AddrRange;

use crate::alloc::allocator::LowAllocator;
use crate::alloc::error::Misuse;
use crate::alloc::heap::Taken;
use crate::alloc::lock::SpinLock;
use crate::alloc::own::Own;
use crate::alloc::runs::{CHUNK, Runs, TakenRun};
use crate::alloc::slots::TABLED;
use crate::alloc::space::Kind;

/// Largest block here in bytes: larger ones lose little to whole pages.
const MOST: u64 = (64 << 10) - 1;

/// All of them.
#[derive(Debug)]
pub(crate) struct Extents {
    state: SpinLock<State>,
}

#[derive(Debug)]
struct State {
    runs: Runs,
    /// By their starts.
    chunks: BTreeMap<u64, Chunk>,
    chunk_bytes: u64,
    /// Whether a seed decides where chunks lie.
    seeded: bool,
    /// The start of the chunk that has no used run, if there is one.
    spare: Option<u64>,
}

#[derive(Debug)]
struct Chunk {
    own: Own,
    /// Its first run.
    first: u32,
}

impl Extents {
    pub(crate) fn new() -> Self {
        Self {
            state: SpinLock::new(State {
                runs: Runs::new(),
                chunks: BTreeMap::new(),
                chunk_bytes: 0,
                seeded: false,
                spare: None,
            }),
        }
    }

    /// Frees the block at `addr`; `None` if no chunk is there.
    pub(crate) fn give(&self, addr: u64) -> Option<Result<(), Misuse>> {
        let mut state = self.state.lock();
        let Some(emptied) = state.runs.give(addr) else {
            let (range, used) = state.around(addr)?;
            let start = range.start();
            return Some(Err(if used {
                Misuse::Inside { addr, start }
            } else {
                Misuse::NotInUse { addr }
            }));
        };
        let gone = emptied.and_then(|chunk| match state.spare {
            None => {
                state.spare = Some(chunk);
                None
            }
            Some(_) => state.remove(chunk),
        });
        // Unmapping needs no lock of ours.
        drop(state);
        drop(gone);
        Some(Ok(()))
    }

    /// Makes the block at `addr` as long as `bytes`, not 0, need, where it lies; gives how many it has
    /// then, if it did.
    pub(crate) fn resize(&self, addr: u64, bytes: u64) -> Option<u64> {
        let runs = &mut self.state.lock().runs;
        let run = runs.resize(addr, bytes)?.then(|| runs.used_at(addr))?;
        run.map(|run| run.len())
    }

    /// The block in use at `addr`.
    pub(crate) fn used_at(&self, addr: u64) -> Option<AddrRange> {
        self.state.lock().runs.used_at(addr)
    }

    /// The block or free run around `addr`, and whether it is in use.
    pub(crate) fn around(&self, addr: u64) -> Option<(AddrRange, bool)> {
        self.state.lock().around(addr)
    }

    /// Gives back the chunk of which nothing is used.
    pub(crate) fn flush(&self) {
        let gone = {
            let mut state = self.state.lock();
            state.spare.take().and_then(|chunk| state.remove(chunk))
        };
        drop(gone);
    }

    /// Bytes of chunks, and of blocks in use.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.chunk_bytes, state.runs.used_bytes())
    }

    /// Takes the lock, to keep it over a fork.
    pub(crate) fn lock_for_fork(&self) {
        self.state.lock().keep();
    }

    /// # Safety
    /// `lock_for_fork` was called, and this not since.
    pub(crate) unsafe fn unlock_after_fork(&self) {
        // SAFETY: resume needs a guard that was kept: by lock_for_fork, the caller says.
        drop(unsafe { self.state.resume() });
    }
}

impl State {
    fn take(&mut self, size: u64, align: u64) -> Option<TakenRun> {
        let taken = self.runs.take(size, align)?;
        if let Some(spare) = self.spare
            && !self.runs.is_empty(self.chunks[&spare].first)
        {
            self.spare = None;
        }
        Some(taken)
    }

    fn add(&mut self, own: Own) {
        let range = own.range();
        self.chunk_bytes += range.len();
        self.seeded |= own.certificate().seeded;
        let first = self.runs.add(range);
        self.chunks.insert(range.start(), Chunk { own, first });
    }

    /// Takes out a chunk of which nothing is used.
    fn remove(&mut self, start: u64) -> Option<Own> {
        let first = self.chunks.get(&start)?.first;
        if !self.runs.remove(first) {
            return None;
        }
        let chunk = self.chunks.remove(&start)?;
        self.chunk_bytes -= chunk.own.range().len();
        Some(chunk.own)
    }

    fn around(&self, addr: u64) -> Option<(AddrRange, bool)> {
        let (_, chunk) = self.chunks.range(..=addr).next_back()?;
        self.runs.around(chunk.first, addr)
    }
}

impl LowAllocator {
    /// `size` bytes cut to size, if this allocator and this size are served so and there is room.
    pub(crate) fn take_extent(&self, size: u64, align: u64) -> Option<Taken> {
        let extents = self.inner.extents.as_ref()?;
        let fits = (TABLED + 1..=MOST).contains(&size)
            && align.is_power_of_two()
            && align <= self.inner.page_size;
        if !fits {
            return None;
        }
        let mut state = extents.state.lock();
        let taken = match state.take(size, align) {
            Some(taken) => taken,
            None => {
                let chunk = self.map_own(CHUNK, 1, Kind::Arena).ok()?;
                state.add(chunk);
                state.take(size, align)?
            }
        };
        Some(Taken::in_order(taken.range, taken.dirty, state.seeded))
    }
}
