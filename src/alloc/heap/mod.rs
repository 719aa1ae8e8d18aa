//! Small blocks of data: pools of equal slots, sharded by thread, found again by address.
//!
//! ```text
//!   shard 0..8 --- pool a size class (40) --- arenas, free slots     behind a lock each (`biased`)
//!   index: granule -> arena -> its pool                                       without a lock
//! ```
//!
//! A thread stays with its shard until it meets another one there. A free goes to the pool that
//! the index names, whichever thread it comes from. Lock order: a pool's lock is taken before the
//! pages', never after, and never two pools' at once. Mapping, unmapping and whatever else allocates is
//! done by who took the lock as everybody can, since the owner of a lock may be inside one only.

mod arena;
mod index;
mod pool;
mod quarantine;
mod ready;
mod stack;
mod taken;

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use low2g_platform::{AddrRange, Platform};

use crate::alloc::biased::{BiasedGuard, BiasedLock, LockGuard, OwnerGuard};
use crate::alloc::error::{AllocError, Misuse};
use crate::alloc::lock::SpinLock;
use crate::alloc::own::Own;
use crate::alloc::random::Random;
use crate::alloc::slots::{CLASSES, class_size};

pub(crate) use arena::Arena;
pub(crate) use index::GRANULE;
use index::GranuleIndex;
use pool::Pool;
pub(crate) use quarantine::Quarantine;
pub(crate) use taken::Taken;

/// Threads that can allocate at once without meeting.
const SHARDS: usize = 8;

/// A pool that its owner is at.
pub(crate) type OwnPool<'a> = OwnerGuard<'a, Pool>;

thread_local! {
    /// The shard in which this thread allocates.
    static SHARD: Cell<usize> = const { Cell::new(SHARDS) };
    /// Where this thread allocated last.
    static LAST: Cell<Last> = const {
        Cell::new(Last {
            heap: NO_HEAP,
            pools: std::ptr::null(),
        })
    };
}

/// A heap's number (each has another one) and a shard of its.
#[derive(Clone, Copy)]
struct Last {
    heap: u64,
    pools: *const Shard,
}

/// The number of no heap.
const NO_HEAP: u64 = 0;

/// Of a heap whose picks are random: no heap's number either.
const NOT_IN_ORDER: u64 = u64::MAX;

/// The shard of this thread; at first they take turns.
#[inline]
fn own_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let shard = SHARD.get();
    if shard < SHARDS {
        return shard;
    }
    let shard = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
    SHARD.set(shard);
    shard
}

/// What a heap is made for.
#[derive(Debug)]
pub(crate) struct HeapSettings {
    pub(crate) random: bool,
    /// Freed slots of a pool that wait before they are picked again.
    pub(crate) late: usize,
    /// Whether freed slots are cleared, and checked to be clear still when they are picked.
    pub(crate) clear_on_free: bool,
    /// Whether a slot that was picked is to be looked at: a minimum of entropy, or `clear_on_free`.
    pub(crate) checked: bool,
}

type Shard = [BiasedLock<Pool>; CLASSES];

/// All small blocks of an allocator. What the fast paths read is one cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Heap {
    /// Its number; and the same if picks are in order.
    number: u64,
    in_order: u64,
    index: GranuleIndex<Arena>,
    shards: [OnceLock<Box<Shard>>; SHARDS],
    /// Taken while a shard is made, so that a fork finds it whole or not at all.
    making: SpinLock<()>,
    platform: Arc<dyn Platform>,
    /// What the pools' streams are derived from.
    seed: Random,
    pub(crate) settings: HeapSettings,
}

impl Heap {
    pub(crate) fn new(
        platform: Arc<dyn Platform>,
        window: AddrRange,
        seed: Random,
        settings: HeapSettings,
    ) -> Result<Self, AllocError> {
        static NEXT: AtomicU64 = AtomicU64::new(NO_HEAP + 1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            number,
            in_order: if settings.random {
                NOT_IN_ORDER
            } else {
                number
            },
            shards: std::array::from_fn(|_| OnceLock::new()),
            making: SpinLock::default(),
            index: GranuleIndex::new(window)?,
            platform,
            seed,
            settings,
        })
    }

    /// Picks a slot of `class`. `map` maps an arena of at least the bytes it is asked for.
    pub(crate) fn take(
        &self,
        class: usize,
        map: impl Fn(u64) -> Result<Own, AllocError>,
    ) -> Result<Taken, AllocError> {
        match self.take_own(class) {
            Some(taken) => Ok(taken),
            None => self.take_growing(class, map),
        }
    }

    /// A slot of `class`, if this thread owns the pool, and that needs no arena.
    fn take_own(&self, class: usize) -> Option<Taken> {
        let mut pool = self.own_pools()?.get(class)?.lock_as_owner()?;
        if pool.wants_arena() {
            return None;
        }
        pool.take(self)
    }

    /// The address of a slot of `class`, if this is the heap that this thread asked last, it owns the
    /// pool, and a slot is ready.
    #[inline(always)]
    pub(crate) fn pick_ready(&self, class: usize) -> Option<u64> {
        let last = LAST.get();
        if last.heap == self.in_order {
            // SAFETY: a reference needs a valid value: `LAST` names a shard of the heap of that
            // number, which is this one, and a heap keeps its shards until it is dropped.
            let pools = unsafe { &*last.pools };
            return pools.get(class)?.lock_as_owner()?.pick();
        }
        if last.heap != self.number {
            return None;
        }
        // SAFETY: as above.
        let pools = unsafe { &*last.pools };
        let mut pool = pools.get(class)?.lock_as_owner()?;
        if pool.may_be_inherited() {
            return None;
        }
        pool.pick()
    }

    /// The address of a slot of `class`, if this thread owns the pool, no arena is needed, and nothing
    /// of the slot is to be checked.
    #[inline]
    pub(crate) fn pick_own(&self, class: usize) -> Option<u64> {
        let mut pool = self.own_pools()?.get(class)?.lock_as_owner()?;
        pool.pick_own(self)
    }

    /// The shard of this thread, if there is one.
    #[inline]
    fn own_pools(&self) -> Option<&Shard> {
        let last = LAST.get();
        if last.heap == self.number {
            // SAFETY: as in `pick_ready`.
            return Some(unsafe { &*last.pools });
        }
        let pools = self.shards.get(SHARD.get())?.get()?;
        self.remember(pools);
        Some(pools)
    }

    /// Has this thread look at `pools` first.
    fn remember(&self, pools: &Shard) {
        LAST.set(Last {
            heap: self.number,
            pools,
        });
    }

    /// A slot of `class`; an arena is added if that is needed.
    fn take_growing(
        &self,
        class: usize,
        map: impl Fn(u64) -> Result<Own, AllocError>,
    ) -> Result<Taken, AllocError> {
        let (shard, mut pool) = self.lock(class);
        if pool.wants_arena() {
            self.grow(shard, class, &mut pool, map)?;
        }
        let taken = pool.take(self);
        Ok(taken.expect("there was a free slot, or an arena was added"))
    }

    /// The pool of `class` in this thread's shard, or in the next one if it is taken there.
    #[inline]
    fn lock(&self, class: usize) -> (usize, LockGuard<'_, Pool>) {
        // A seed means the same addresses, whichever thread asks.
        let shard = if self.seed.is_seeded() {
            0
        } else {
            own_shard()
        };
        if let Some(pool) = self.pool(shard, class).try_lock(&*self.platform) {
            return (shard, pool);
        }
        if self.seed.is_seeded() {
            return (shard, self.pool(shard, class).lock(&*self.platform));
        }
        let shard = (shard + 1) % SHARDS;
        SHARD.set(shard);
        (shard, self.pool(shard, class).lock(&*self.platform))
    }

    #[inline]
    fn pool(&self, shard: usize, class: usize) -> &BiasedLock<Pool> {
        let pools = match self.shards[shard].get() {
            Some(pools) => pools,
            None => self.make_shard(shard),
        };
        self.remember(pools);
        &pools[class]
    }

    #[cold]
    fn make_shard(&self, shard: usize) -> &Shard {
        let _making = self.making.lock();
        self.shards[shard].get_or_init(|| self.new_shard(shard))
    }

    fn new_shard(&self, shard: usize) -> Box<Shard> {
        let settings = &self.settings;
        Box::new(std::array::from_fn(|class| {
            let number = low2g_platform::to_u64(shard * CLASSES + class);
            let random = settings.random.then(|| self.seed.derive(number));
            BiasedLock::new(Pool::new(class_size(class), random, settings))
        }))
    }

    #[cold]
    fn grow(
        &self,
        shard: usize,
        class: usize,
        pool: &mut Pool,
        map: impl Fn(u64) -> Result<Own, AllocError>,
    ) -> Result<(), AllocError> {
        let page = self.platform.config().page_size;
        if !pool.is_numbered() {
            let full = AllocError::BadRequest {
                what: "block size",
                value: pool.slot(),
                expected: "one of which fewer than 2^18 arenas are in use",
            };
            return if pool.is_full() { Err(full) } else { Ok(()) };
        }
        let arena = match map(pool.arena_size(page)) {
            Ok(arena) => arena,
            // Fewer candidates than wished for are better than none; the certificate says so.
            Err(_) if !pool.is_full() => return Ok(()),
            // The largest hole may still do for a small one; and what waits in quarantine may go.
            Err(AllocError::Exhausted { .. }) => match map(pool.slot().next_multiple_of(page)) {
                Ok(arena) => arena,
                Err(error) => {
                    self.forget(&pool.flush(self));
                    return if pool.is_full() { Err(error) } else { Ok(()) };
                }
            },
            Err(error) => return Err(error),
        };
        let range = arena.range();
        if let Err(error) = self.index.prepare(range) {
            return if pool.is_full() { Err(error) } else { Ok(()) };
        }
        let arena = pool.add(arena, page);
        arena.belong_to(self.pool(shard, class));
        self.index.set(range, Arc::as_ptr(arena).cast_mut());
        Ok(())
    }

    /// The arena at `addr`, or just below it.
    fn arena_at(&self, addr: u64) -> Option<&Arena> {
        // SAFETY: as in `own_home`.
        unsafe { self.index.get(addr).as_ref() }
    }

    /// The arena at `addr`, and its pool, if this thread owns that.
    #[inline(always)]
    pub(crate) fn own_home(&self, addr: u64) -> Option<(OwnPool<'_>, &Arena)> {
        // SAFETY: as_ref needs null or a valid value: what the index holds is an arena of a pool
        // of this heap; pools keep theirs until the heap is dropped, which `self` excludes.
        let arena = unsafe { self.index.get_near(addr).as_ref() }?;
        Some((pool_of(arena).lock_as_owner()?, arena))
    }

    /// What stands for the slot at `addr` in its pool's lists.
    fn entry_of(&self, addr: u64) -> u32 {
        let arena = self.arena_at(addr);
        let arena = arena.expect("arenas of which a slot is held are not removed");
        arena.entry_of(addr)
    }

    /// Frees the used slot of `arena` at `addr`; false if there is none. The slot's bytes are the
    /// caller's to give up.
    #[inline]
    pub(crate) fn give_to<const OWNER: bool>(
        &self,
        mut pool: BiasedGuard<'_, Pool, OWNER>,
        arena: &Arena,
        addr: u64,
    ) -> bool {
        if self.settings.clear_on_free
            && let Some((slot, true)) = arena.around(addr)
            && slot.start() == addr
        {
            self.clear(addr, slot.len());
        }
        let given = pool.give(self, arena, addr);
        drop(pool);
        if let Some(Some(emptied)) = given {
            self.sweep(arena, emptied);
        }
        given.is_some()
    }

    /// Frees the slot at `addr`; `None` if no arena is there. The slot's bytes are the caller's to
    /// give up.
    pub(crate) fn give(&self, addr: u64) -> Option<Result<(), Misuse>> {
        let arena = self.arena_at(addr)?;
        let pool = pool_of(arena);
        let given = match pool.lock_as_owner() {
            Some(pool) => self.give_to(pool, arena, addr),
            None => self.give_to(pool.lock(&*self.platform), arena, addr),
        };
        if given {
            return Some(Ok(()));
        }
        pool.briefly(&*self.platform, |_| {
            // Behind the arena, its last granule may be anybody's.
            arena.around(addr)?;
            Some(Err(arena.misuse(addr)))
        })
    }

    /// What is to be done when arena `emptied` of the pool of `arena` was seen empty.
    #[cold]
    pub(crate) fn sweep(&self, arena: &Arena, emptied: u32) {
        let mut pool = pool_of(arena).lock(&*self.platform);
        let gone = pool.sweep(emptied);
        self.forget(&gone);
        drop(pool);
        // Unmapping needs no lock of the pool.
        drop(gone);
    }

    /// Bytes of the used slot at `addr`.
    pub(crate) fn usable_size(&self, addr: u64) -> Option<u64> {
        let (slot, used) = self.around(addr)?;
        (used && slot.start() == addr).then_some(slot.len())
    }

    /// The slot around `addr`, and whether it is in use.
    pub(crate) fn around(&self, addr: u64) -> Option<(AddrRange, bool)> {
        let arena = self.arena_at(addr)?;
        pool_of(arena).briefly(&*self.platform, |_| arena.around(addr))
    }

    /// Lets all slots out of quarantine, and gives back the arenas that are empty then.
    pub(crate) fn flush(&self) {
        for pool in self.pools() {
            let mut pool = pool.lock(&*self.platform);
            let emptied = pool.flush(self);
            self.forget(&emptied);
        }
    }

    /// Takes arenas that will be unmapped out of the index.
    fn forget(&self, emptied: &[Own]) {
        for arena in emptied {
            self.index.set(arena.range(), std::ptr::null_mut());
        }
    }

    fn pools(&self) -> impl Iterator<Item = &BiasedLock<Pool>> {
        let shards = self.shards.iter().filter_map(OnceLock::get);
        shards.flat_map(|shard| shard.iter())
    }

    /// Takes every lock, to keep it over a fork.
    pub(crate) fn lock_for_fork(&self) {
        self.making.lock().keep();
        let platform = &*self.platform;
        self.pools()
            .for_each(|pool| pool.lock_for_all(platform).keep());
    }

    /// # Safety
    /// `lock_for_fork` was called, and this not since.
    pub(crate) unsafe fn unlock_after_fork(&self) {
        for pool in self.pools() {
            // SAFETY: resume needs a guard that was kept: by lock_for_fork, the caller says, since
            // when no shard was made.
            drop(unsafe { pool.resume() });
        }
        // SAFETY: as above.
        drop(unsafe { self.making.resume() });
    }

    /// Bytes of arenas, and of used slots.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        self.pools().fold((0, 0), |(arenas, slots), pool| {
            pool.briefly(&*self.platform, |pool| {
                let used = pool.used_slots() * pool.slot();
                (arenas + pool.arena_bytes, slots + used)
            })
        })
    }

    /// Clears a slot that nobody uses any more, or not yet.
    pub(crate) fn clear(&self, addr: u64, len: u64) {
        if self.platform.is_simulated() {
            return;
        }
        let len = low2g_platform::to_usize(len);
        let start = std::ptr::with_exposed_provenance_mut::<u8>(low2g_platform::to_usize(addr));
        // SAFETY: write_bytes needs that many writable bytes that nobody else uses: they are a slot
        // of an arena, mapped to read and write, which its owner gives up or has just got.
        unsafe { start.write_bytes(0, len) };
    }

    /// Whether a slot that was just picked is still as `clear` left it.
    pub(crate) fn is_clear(&self, addr: u64, len: u64) -> bool {
        if self.platform.is_simulated() {
            return true;
        }
        let len = low2g_platform::to_usize(len / 8);
        let start = std::ptr::with_exposed_provenance::<u64>(low2g_platform::to_usize(addr));
        // SAFETY: from_raw_parts needs that many aligned words, mapped, initialised, not written
        // meanwhile: a slot (a multiple of 16 bytes at a multiple of 16) of an arena, just picked.
        let words = unsafe { std::slice::from_raw_parts(start, len) };
        words.iter().all(|word| *word == 0)
    }
}

/// The pool of an arena that the index knew.
#[inline(always)]
fn pool_of(arena: &Arena) -> &BiasedLock<Pool> {
    // SAFETY: a reference needs a valid value: the pool was set before the arena was entered in the
    // index, and shards stay where they are until the heap, and with it its arenas, is dropped.
    unsafe { &*arena.pool() }
}
