//! Which code slots are used, which may be picked, and which wait.
//!
//! ```text
//!   used -> late (quarantine) -> drained (their batch is not serialized yet) -> free -> used
//!      \__ what a fork found used: to none of these; goes with its arena
//! ```
//!
//! Invariants:
//! - a slot in `late`, `drained` or `free` is filled with `int3`, unused, and in one of them once;
//! - between a slot's free and its next use every core has serialized, where the system can do that;
//! - an arena without a used slot is taken out at once, and all its slots from the lists; a sealed
//!   one stays, because its address space cannot be had back.

use std::collections::BTreeMap;

use low2g_platform::{Platform, to_u64, to_usize};

use crate::alloc::certificate::Certificate;
use crate::alloc::error::Misuse;
use crate::alloc::heap::Quarantine;
use crate::alloc::random::Random;
use crate::alloc::slots::{CLASSES, class_size};

use super::arena::CodeArena;

/// Bits of an entry that say which slot of its arena is meant.
const SLOT_BITS: u32 = 14;

/// Free slots below which a random pick first gets a new arena: 8 bits.
const CANDIDATES: usize = 256;

/// Slots of a new arena for random picks.
const RANDOM_SLOTS: u64 = 512;

/// Smallest arena in bytes.
const ARENA: u64 = 256 << 10;

/// Freed slots for which all cores are serialized at once.
const BATCH: usize = 64;

/// Where a block of code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A slot of a pool.
    Slot { class: usize, entry: u32 },
    /// An arena to itself, at this base.
    Alone { base: u64 },
}

/// A place that was taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) place: Place,
    pub(super) exec: u64,
    pub(super) write: u64,
    pub(super) certificate: Certificate,
    /// Whether code was executed there before.
    pub(super) reused: bool,
}

/// Slots of one size.
#[derive(Debug)]
struct Pool {
    arenas: Vec<Option<CodeArena>>,
    vacant: Vec<u32>,
    free: Vec<u32>,
    late: Option<Quarantine>,
    drained: Vec<u32>,
    arena_bits: f64,
    seeded: bool,
}

/// All code of an allocator.
#[derive(Debug)]
pub(crate) struct CodeTier {
    pools: Vec<Pool>,
    alone: BTreeMap<u64, CodeArena>,
    /// Sealed arenas for one block each that are free again.
    spare: Vec<CodeArena>,
    random: Option<Random>,
    /// Process whose arenas these are.
    process: u64,
    pub(crate) arena_bytes: u64,
    pub(crate) slot_bytes: u64,
    pub(crate) serialized: u64,
    pub(crate) unserialized: u64,
}

impl CodeTier {
    /// `random` picks at random; `late` freed slots of each size wait before they are used again.
    pub(crate) fn new(platform: &dyn Platform, random: Option<Random>, late: usize) -> Self {
        let pool = |_| Pool {
            arenas: Vec::new(),
            vacant: Vec::new(),
            free: Vec::new(),
            late: (late > 0).then(|| Quarantine::new(late)),
            drained: Vec::new(),
            arena_bits: f64::INFINITY,
            seeded: false,
        };
        Self {
            pools: (0..CLASSES).map(pool).collect(),
            alone: BTreeMap::new(),
            spare: Vec::new(),
            random,
            process: platform.process(),
            arena_bytes: 0,
            slot_bytes: 0,
            serialized: 0,
            unserialized: 0,
        }
    }

    /// Bytes of a new arena of slots of `class`.
    pub(super) fn arena_size(&self, class: usize, page: u64) -> u64 {
        let slots = if self.random.is_some() {
            RANDOM_SLOTS
        } else {
            8
        };
        let slot = class_size(class);
        let slots = (slots * slot).max(ARENA) / slot;
        (slots.min(1 << SLOT_BITS) * slot).next_multiple_of(page)
    }

    /// Whether an arena should be added before a slot of `class` is picked.
    pub(super) fn wants_arena(&mut self, class: usize, platform: &dyn Platform) -> bool {
        let enough = if self.random.is_some() { CANDIDATES } else { 1 };
        if self.pools[class].free.len() < enough && !self.pools[class].drained.is_empty() {
            self.serialize(class, platform);
        }
        self.pools[class].free.len() < enough
    }

    /// Whether there is nothing to pick.
    pub(super) fn is_full(&self, class: usize) -> bool {
        self.pools[class].free.is_empty()
    }

    /// Lets the slots of `class` out of quarantine early.
    pub(super) fn flush(&mut self, class: usize, platform: &dyn Platform) {
        let pool = &mut self.pools[class];
        let late = pool.late.as_mut().map(Quarantine::drain);
        pool.drained.extend(late.into_iter().flatten());
        if !pool.drained.is_empty() {
            self.serialize(class, platform);
        }
    }

    /// Lets all slots out of quarantine.
    pub(super) fn flush_all(&mut self, platform: &dyn Platform) {
        (0..CLASSES).for_each(|class| self.flush(class, platform));
    }

    /// Makes the drained slots of `class` free: no core can run what they held before.
    fn serialize(&mut self, class: usize, platform: &dyn Platform) {
        if platform.serialize_cores() {
            self.serialized += 1;
        } else {
            self.unserialized += 1;
        }
        let pool = &mut self.pools[class];
        pool.free.append(&mut pool.drained);
    }

    pub(super) fn add(&mut self, class: usize, arena: CodeArena) {
        self.arena_bytes += arena.bytes();
        let pool = &mut self.pools[class];
        let number = pool.vacant.pop().unwrap_or_else(|| {
            pool.arenas.push(None);
            u32::try_from(pool.arenas.len() - 1).expect("arenas do not fill 32 bits")
        });
        let first = number << SLOT_BITS;
        // The last is picked first where picks are not random.
        pool.free.extend((first..first + arena.count()).rev());
        pool.arenas[to_usize(number.into())] = Some(arena);
        pool.recount();
    }

    pub(super) fn add_alone(&mut self, arena: CodeArena) -> u64 {
        let base = arena.base();
        self.arena_bytes += arena.bytes();
        self.alone.insert(base, arena);
        base
    }

    /// A sealed arena for one block of just that size and alignment that is free again.
    pub(super) fn take_spare(&mut self, size: u64, align: u64) -> Option<CodeArena> {
        let fits = |arena: &CodeArena| arena.slot() == size && arena.base().is_multiple_of(align);
        let index = self.spare.iter().position(fits)?;
        Some(self.spare.swap_remove(index))
    }

    /// Picks a slot of `class`; `None` if none is free.
    pub(super) fn take(
        &mut self,
        class: usize,
        platform: &dyn Platform,
    ) -> Option<Result<Taken, low2g_platform::PlatformError>> {
        let pool = &mut self.pools[class];
        let candidates = pool.free.len();
        if candidates == 0 {
            return None;
        }
        let entry = match &mut self.random {
            Some(random) => {
                random.check_fork(platform);
                let index = random.below_u32(u32::try_from(candidates).unwrap_or(u32::MAX));
                pool.free.swap_remove(to_usize(index.into()))
            }
            None => pool.free.pop()?,
        };
        let certificate = pool.certificate(self.random.is_some(), candidates);
        let (arena, index) = pool.arena(entry);
        if let Err(error) = arena.populate(index, true) {
            pool.free.push(entry);
            return Some(Err(error));
        }
        let reused = arena.take(index);
        self.slot_bytes += arena.slot();
        Some(Ok(Taken {
            place: Place::Slot { class, entry },
            exec: arena.exec_slot(index).start(),
            write: arena.write_slot(index).start(),
            certificate,
            reused,
        }))
    }

    /// Takes the one slot of the arena at `base`.
    pub(super) fn take_alone(&mut self, base: u64) -> Result<Taken, low2g_platform::PlatformError> {
        let arena = self.alone.get_mut(&base).expect("it was just added");
        arena.populate(0, false)?;
        let reused = arena.take(0);
        self.slot_bytes += arena.slot();
        Ok(Taken {
            place: Place::Alone { base },
            exec: base,
            write: arena.write_slot(0).start(),
            certificate: arena.certificate(),
            reused,
        })
    }

    /// Frees what was taken; an arena that is not needed any more is taken out, to be retired
    /// without the lock.
    pub(super) fn give(&mut self, place: Place, platform: &dyn Platform) -> Option<CodeArena> {
        let (class, entry) = match place {
            Place::Slot { class, entry } => (class, entry),
            Place::Alone { base } => return self.give_alone(base),
        };
        let pool = &mut self.pools[class];
        let (arena, index) = pool.arena(entry);
        self.slot_bytes -= arena.slot();
        let again = arena.give(index);
        if again {
            arena.fill(arena.write_slot(index));
        }
        if arena.used() == 0 && !arena.is_sealed() {
            let arena = pool.remove(entry >> SLOT_BITS);
            self.arena_bytes -= arena.bytes();
            return Some(arena);
        }
        if again {
            let random = self.random.as_mut();
            let below = |bound| random.map_or(0, |random| random.below_u32(bound));
            let out = match &mut pool.late {
                Some(late) => late.push(entry, below),
                None => Some(entry),
            };
            pool.drained.extend(out);
            if pool.drained.len() >= BATCH {
                self.serialize(class, platform);
            }
        }
        None
    }

    fn give_alone(&mut self, base: u64) -> Option<CodeArena> {
        let mut arena = self.alone.remove(&base).expect("it is used");
        self.slot_bytes -= arena.slot();
        let again = arena.give(0);
        if !arena.is_sealed() {
            self.arena_bytes -= arena.bytes();
            return Some(arena);
        }
        if again {
            arena.fill(arena.write_slot(0));
            self.spare.push(arena);
        }
        None
    }

    /// Takes an arena for one block out again: its pages could not be had.
    pub(super) fn remove_alone(&mut self, base: u64) -> Option<CodeArena> {
        let arena = self.alone.remove(&base)?;
        self.arena_bytes -= arena.bytes();
        Some(arena)
    }

    /// Notes what a child that is about to be forked will have.
    pub(crate) fn share(&mut self) {
        self.arenas().for_each(CodeArena::share);
    }

    /// In a child: nothing is taken from arenas of the parent any more. Gives those that hold nothing.
    pub(super) fn check_process(&mut self, platform: &dyn Platform) -> Vec<CodeArena> {
        let process = platform.process();
        if process == self.process {
            return Vec::new();
        }
        self.process = process;
        self.arenas().for_each(CodeArena::inherit);
        let mut idle = std::mem::take(&mut self.spare);
        for pool in &mut self.pools {
            pool.free.clear();
            pool.drained.clear();
            drop(pool.late.as_mut().map(Quarantine::drain));
            let is_idle = |arena: &CodeArena| arena.used() == 0;
            for number in 0..pool.arenas.len() {
                if pool.arenas[number].as_ref().is_some_and(is_idle) {
                    let number = u32::try_from(number).expect("numbers have 32 bits");
                    idle.push(pool.remove(number));
                }
            }
        }
        self.arena_bytes -= idle.iter().map(CodeArena::bytes).sum::<u64>();
        idle
    }

    fn arenas(&mut self) -> impl Iterator<Item = &mut CodeArena> {
        let pools = self.pools.iter_mut();
        let slots = pools.flat_map(|pool| pool.arenas.iter_mut().flatten());
        slots.chain(self.alone.values_mut())
    }

    /// The slot around `addr`, if it lies in an arena.
    pub(super) fn find(&self, addr: u64) -> Option<Found> {
        if let Some((_, arena)) = self.alone.range(..=addr).next_back()
            && arena.exec_slot(0).contains(addr)
        {
            return Some(Found::new(arena, 0));
        }
        for arena in self
            .pools
            .iter()
            .flat_map(|pool| pool.arenas.iter().flatten())
        {
            let offset = addr.wrapping_sub(arena.base());
            if offset < arena.bytes() {
                let index = u32::try_from(offset / arena.slot()).expect("below the count");
                return Some(Found::new(arena, index));
            }
        }
        None
    }
}

/// What lies around an address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) slot: low2g_platform::AddrRange,
    pub(super) used: bool,
}

impl Found {
    fn new(arena: &CodeArena, index: u32) -> Self {
        Self {
            slot: arena.exec_slot(index),
            used: arena.is_used(index),
        }
    }

    /// Whether a block in use starts at `addr`.
    pub(super) fn check(&self, addr: u64) -> Result<(), Misuse> {
        if self.slot.start() != addr {
            let start = self.slot.start();
            return Err(Misuse::Inside { addr, start });
        }
        if self.used {
            Ok(())
        } else {
            Err(Misuse::NotInUse { addr })
        }
    }
}

impl Pool {
    fn arena(&mut self, entry: u32) -> (&mut CodeArena, u32) {
        let arena = self.arenas[to_usize((entry >> SLOT_BITS).into())].as_mut();
        let arena = arena.expect("an arena stays while a list names a slot of it");
        (arena, entry & ((1 << SLOT_BITS) - 1))
    }

    /// Takes an arena out, and its slots from all lists.
    fn remove(&mut self, number: u32) -> CodeArena {
        let others = |entry: &u32| entry >> SLOT_BITS != number;
        self.free.retain(others);
        self.drained.retain(others);
        if let Some(late) = &mut self.late {
            late.retain(others);
        }
        self.vacant.push(number);
        let arena = self.arenas[to_usize(number.into())].take();
        self.recount();
        arena.expect("it is in the pool")
    }

    /// Finds the weakest arena again.
    fn recount(&mut self) {
        let arenas = self.arenas.iter().flatten();
        let arenas = arenas.filter(|arena| !arena.is_inherited());
        (self.arena_bits, self.seeded) = (f64::INFINITY, false);
        for arena in arenas {
            self.arena_bits = self.arena_bits.min(arena.bits());
            self.seeded |= arena.certificate().seeded;
        }
    }

    fn certificate(&self, random: bool, candidates: usize) -> Certificate {
        Certificate::of_slot(to_u64(candidates), self.arena_bits, random, self.seeded)
    }
}
