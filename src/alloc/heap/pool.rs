//! A pool: arenas of equal slots, which of them are used, and the free ones to pick from.
//!
//! ```text
//!   ready    [ addr, mark ] ...                       see `ready`; handed out next
//!   free     [ arena|slot, arena|slot, ... ]          drawn at random, or the last one first
//!   late     [ arena|slot, ... ]                      freed, not yet to be drawn (quarantine)
//!   arenas   [ base, marks ] [ base, marks ] ...      see `arena`; numbered; a number is used again
//! ```
//!
//! Random draws are made ahead, some at once: each is uniform over what was free when it was made,
//! and nobody sees it before it is handed out. What a fork's parent drew is drawn again in the child.
//!
//! All of it is out of line. Picks and frees allocate nothing, so that an owner of the pool's lock can
//! do them; adding and removing arenas is for those who took it as everybody can. Invariants:
//! - `empty` counts the arenas of which no slot is held: used, ready or in quarantine; such an arena
//!   goes at once, but one may stay until a trim, so that a lone block's life is no system call;
//! - every free slot of every arena is in `ready` or in `free`, once; but where picks are in order,
//!   the slots from `fresh` on of the last arena are in neither.

use std::sync::Arc;

use low2g_platform::{to_u64, to_usize};

use crate::alloc::own::Own;
use crate::alloc::random::{ProcessMark, Random};

use super::arena::Arena;
use super::quarantine::Quarantine;
use super::ready::{HALF, READY, Ready, Slot};
use super::stack::Stack;
use super::taken::{Taken, bits_within};
use super::{Heap, HeapSettings};

/// Bits of an entry that say which slot of its arena is meant.
pub(super) const SLOT_BITS: u32 = 14;

/// Arenas that a pool can number.
pub(super) const MOST_ARENAS: usize = 1 << 17;

/// Most slots of an arena.
pub(super) const MOST_SLOTS: u64 = 1 << SLOT_BITS;

/// Free slots below which a random pick first gets a new arena: 8 bits.
const CANDIDATES: usize = 256;

/// Slots of a new arena for random picks, so that it serves as many as it has candidates at first.
const SLOTS_PER_ARENA: u64 = 512;

/// Smallest arena in bytes.
const ARENA: u64 = 256 << 10;

/// Slots of one size. What the fast paths touch stands first, on the cache line of the lock and the
/// one after it.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Pool {
    /// Whether a free is more than a push: there is a quarantine, or slots are cleared.
    frees_late: bool,
    /// Whether picks are random.
    is_random: bool,
    /// Whether what a pick gave is to be checked; then none is made ahead.
    checked: bool,
    seeded: bool,
    free: Stack,
    /// Of the process that drew what is ready.
    drawn_in: ProcessMark,
    ready: Ready,
    arenas: Vec<Arc<Arena>>,
    empty: usize,
    /// First never used slot of the arena added last; for picks that are not random.
    fresh: u32,
    fresh_end: u32,
    random: Option<Random>,
    late: Option<Quarantine>,
    slot: u64,
    /// The memory of each arena.
    owned: Vec<Option<Own>>,
    vacant: Vec<u32>,
    arena_bits: f64,
    pub(super) arena_bytes: u64,
}

impl Pool {
    /// No arenas yet. `random` picks at random.
    pub(super) fn new(slot: u64, random: Option<Random>, settings: &HeapSettings) -> Self {
        let frees_late = settings.late > 0 || settings.clear_on_free;
        Self {
            slot,
            arenas: Vec::new(),
            owned: Vec::new(),
            vacant: Vec::new(),
            empty: 0,
            frees_late,
            checked: settings.checked,
            is_random: random.is_some(),
            drawn_in: random.as_ref().map_or(ProcessMark::of_all(), Random::mark),
            ready: Ready::new(!frees_late && random.is_none()),
            free: Stack::default(),
            fresh: 0,
            fresh_end: 0,
            random,
            late: (settings.late > 0).then(|| Quarantine::new(settings.late)),
            arena_bits: f64::INFINITY,
            seeded: false,
            arena_bytes: 0,
        }
    }

    pub(super) fn slot(&self) -> u64 {
        self.slot
    }

    /// Bytes of a new arena.
    pub(super) fn arena_size(&self, page: u64) -> u64 {
        let slots = if self.random.is_some() {
            SLOTS_PER_ARENA
        } else {
            8
        };
        let slots = (slots * self.slot).max(ARENA) / self.slot;
        (slots.min(MOST_SLOTS) * self.slot).next_multiple_of(page)
    }

    /// Most slots of an arena that may be added.
    fn most_slots(&self, page: u64) -> u64 {
        (self.arena_size(page) / self.slot).min(MOST_SLOTS)
    }

    /// Whether an arena should be added before a pick.
    #[inline]
    pub(super) fn wants_arena(&self) -> bool {
        if self.is_random {
            self.free.len() < CANDIDATES
        } else {
            self.is_full()
        }
    }

    /// Whether there is nothing to pick.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.ready.is_empty() && self.free.is_empty() && self.fresh == self.fresh_end
    }

    /// Adds an arena, if `is_numbered` said that it can be numbered; gives what stands for it.
    pub(super) fn add(&mut self, own: Own, page: u64) -> &Arc<Arena> {
        let range = own.range();
        let most = self.most_slots(page);
        let count = u32::try_from((range.len() / self.slot).min(most)).expect("2^14");
        let certificate = own.certificate();
        self.arena_bits = self.arena_bits.min(bits_within(&own, count));
        self.seeded |= certificate.seeded;
        self.arena_bytes += range.len();
        let number = self.vacant.pop().unwrap_or_else(|| {
            let number = u32::try_from(self.arenas.len()).expect("below 2^17");
            let arena = Arena::new(number << SLOT_BITS, self.slot, most);
            self.arenas.push(Arc::new(arena));
            self.owned.push(None);
            number
        });
        self.owned[to_usize(number.into())] = Some(own);
        self.empty += 1;
        self.free.add_room(to_usize(count.into()));
        if let Some(late) = &mut self.late {
            late.make_room(self.free.room());
        }
        let arena = &self.arenas[to_usize(number.into())];
        let (first, end) = (arena.first(), arena.first() + count);
        let ready = if self.is_random {
            first..end
        } else {
            // What was left of the arena before stays to be picked.
            let rest = self.fresh..self.fresh_end;
            (self.fresh, self.fresh_end) = (first, end);
            rest
        };
        for entry in ready {
            self.free.push(entry).expect("room was made");
        }
        arena.open(range.start(), count);
        arena
    }

    /// Whether one more arena can be numbered.
    pub(super) fn is_numbered(&self) -> bool {
        !self.vacant.is_empty() || self.arenas.len() < MOST_ARENAS
    }

    /// Whether `give_ready` is all there is to a free, and can be done now.
    #[inline(always)]
    pub(crate) fn has_room_for_freed(&self) -> bool {
        self.ready.has_room_for_freed()
    }

    /// Whether `give_free` is all there is to a free.
    #[inline(always)]
    pub(crate) fn frees_at_once(&self) -> bool {
        !self.frees_late && !self.ready.takes_freed()
    }

    /// Whether what is ready may have been drawn by the process that this one is a fork of.
    #[inline(always)]
    pub(super) fn may_be_inherited(&self) -> bool {
        self.drawn_in.may_be_inherited()
    }

    /// Whether what is ready was drawn by the process that this one is a fork of.
    #[inline]
    fn is_inherited(&self, heap: &Heap) -> bool {
        let random = self.random.as_ref();
        random.is_some_and(|random| random.is_inherited(&*heap.platform))
    }

    /// Picks the slot on top of those that are ready, if there is one; gives its address. Where picks
    /// are random, `pick_own` is to be asked.
    #[inline(always)]
    pub(crate) fn pick(&mut self) -> Option<u64> {
        let slot = self.ready.pop()?;
        slot.mark.set();
        Some(slot.addr)
    }

    /// Picks a slot, if one is ready or can be made so, and is not to be checked.
    #[inline]
    pub(super) fn pick_own(&mut self, heap: &Heap) -> Option<u64> {
        if !self.is_inherited(heap)
            && let Some(addr) = self.pick()
        {
            return Some(addr);
        }
        self.pick_more(heap)
    }

    #[inline(never)]
    fn pick_more(&mut self, heap: &Heap) -> Option<u64> {
        if self.checked {
            return None;
        }
        if self.is_random {
            self.check_fork(heap);
            self.draw_ahead();
        } else {
            self.line_up();
        }
        self.pick()
    }

    /// Picks a slot; gives what a certificate needs too. `None` if the pool is full.
    pub(super) fn take(&mut self, heap: &Heap) -> Option<Taken> {
        let (slot, candidates) = if self.is_random {
            // Drawn now, because how many candidates there were is asked.
            self.check_fork(heap);
            if self.free.is_empty() {
                self.unready(heap);
            }
            (self.draw_at_random()?, self.free.len() + 1)
        } else {
            self.line_up();
            (self.ready.pop()?, 1)
        };
        let dirty = slot.mark.is_dirty();
        slot.mark.set();
        Some(Taken {
            addr: slot.addr,
            bytes: self.slot,
            dirty,
            candidates: u32::try_from(candidates).unwrap_or(u32::MAX),
            arena_bits: self.arena_bits,
            seeded: self.seeded,
        })
    }

    /// Forgets what a parent drew, and its stream.
    fn check_fork(&mut self, heap: &Heap) {
        if !self.is_inherited(heap) {
            return;
        }
        self.unready(heap);
        if let Some(random) = &mut self.random {
            random.check_fork(&*heap.platform);
            self.drawn_in = random.mark();
        }
    }

    /// Makes random slots ready, as long as there are candidates enough.
    fn draw_ahead(&mut self) {
        let spare = (self.free.len() + 1).saturating_sub(CANDIDATES);
        for _ in self.ready.len()..READY.min(self.ready.len() + spare) {
            let Some(slot) = self.draw_at_random() else {
                return;
            };
            self.ready.push(slot).expect("there is room");
        }
    }

    /// Makes slots ready, if none is: those freed last, then the lowest that were never used.
    fn line_up(&mut self) {
        if !self.ready.is_empty() {
            return;
        }
        while self.ready.len() < HALF {
            let entry = match self.free.pop() {
                Some(entry) => entry,
                None if self.fresh < self.fresh_end => {
                    self.fresh += 1;
                    self.fresh - 1
                }
                None => break,
            };
            let slot = hold(&self.arenas, &mut self.empty, entry);
            self.ready.push(slot).expect("there is room");
        }
        self.ready.reverse();
    }

    #[inline(always)]
    fn draw_at_random(&mut self) -> Option<Slot> {
        let index = self.random.as_mut()?.index_below(self.free.len());
        let entry = self.free.swap_remove(index)?;
        Some(hold(&self.arenas, &mut self.empty, entry))
    }

    /// Puts the slots that are ready back among the free ones.
    fn unready(&mut self, heap: &Heap) {
        while let Some(slot) = self.ready.pop() {
            self.release(heap.entry_of(slot.addr));
        }
    }

    /// Slots in use.
    pub(super) fn used_slots(&self) -> u64 {
        let arenas = self.arenas.iter();
        let held: u64 = arenas.map(|arena| u64::from(arena.held())).sum();
        let waiting = self.late.as_ref().map_or(0, Quarantine::len);
        held - to_u64(waiting + self.ready.len())
    }

    /// Frees the used slot of `arena` (one of this pool's) at `addr`, if there is one, and
    /// `has_room_for_freed`.
    #[inline(always)]
    pub(crate) fn give_ready(&mut self, arena: &Arena, addr: u64) -> Option<()> {
        let (_, mark) = arena.find(addr)?;
        self.ready.push_freed(Slot { addr, mark })?;
        mark.clear();
        Some(())
    }

    /// Frees the used slot of `arena` (one of this pool's) at `addr`, if there is one and
    /// `frees_at_once`; says whether the arena is empty then: `sweep` is to be called.
    #[inline(always)]
    pub(crate) fn give_free(&mut self, arena: &Arena, addr: u64) -> Option<bool> {
        let (slot, mark) = arena.find(addr)?;
        self.free.push(arena.first() | slot)?;
        mark.clear();
        if arena.let_go() > 0 {
            return Some(false);
        }
        self.empty += 1;
        Some(true)
    }

    /// Frees the used slot of `arena` (one of this pool's) at `addr`, if there is one, whatever that
    /// takes; gives the number of an arena that is empty then: `sweep` is to be called.
    #[inline]
    pub(super) fn give(&mut self, heap: &Heap, arena: &Arena, addr: u64) -> Option<Option<u32>> {
        if self.frees_late {
            return self.give_late(arena, addr);
        }
        if !self.ready.takes_freed() {
            let emptied = self.give_free(arena, addr)?;
            return Some(emptied.then(|| arena.number()));
        }
        arena.find(addr)?;
        let emptied = self.make_room(heap);
        self.give_ready(arena, addr)?;
        Some(emptied)
    }

    /// As `give`, through the quarantine if there is one.
    #[inline]
    fn give_late(&mut self, arena: &Arena, addr: u64) -> Option<Option<u32>> {
        let (slot, mark) = arena.find(addr)?;
        mark.clear();
        let entry = arena.first() | slot;
        let Some(late) = &mut self.late else {
            return Some(self.release(entry));
        };
        let random = self.random.as_mut();
        let out = late.push(entry, |bound| {
            random.map_or(0, |random| random.below_u32(bound))
        });
        Some(out.and_then(|out| self.release(out)))
    }

    /// Makes room for freed slots among those that are ready, if there is none; gives the number of
    /// an arena that is empty then.
    #[cold]
    fn make_room(&mut self, heap: &Heap) -> Option<u32> {
        if self.ready.has_room_for_freed() {
            return None;
        }
        let (mut emptied, mut count) = (None, 0);
        while count < HALF && emptied.is_none() {
            emptied = self.release(heap.entry_of(self.ready.addrs()[count]));
            count += 1;
        }
        self.ready.drop_first(count);
        emptied
    }

    /// Lets all slots out of quarantine, readies none; gives back the arenas that are empty then.
    pub(super) fn flush(&mut self, heap: &Heap) -> Vec<Own> {
        let waiting = self.late.as_mut().map(Quarantine::drain);
        for entry in waiting.into_iter().flatten() {
            self.release(entry);
        }
        self.unready(heap);
        self.remove_empty(|_| true)
    }

    /// Makes a held slot a free one; gives its arena's number if that is empty now.
    #[inline]
    fn release(&mut self, entry: u32) -> Option<u32> {
        self.free.push(entry).expect("a place for every slot");
        let arena = &self.arenas[arena_of(entry)];
        if arena.let_go() > 0 {
            return None;
        }
        self.empty += 1;
        Some(arena.number())
    }

    /// What goes now that arena `number` was seen empty: to be taken out of the index and dropped.
    pub(super) fn sweep(&mut self, number: u32) -> Vec<Own> {
        let arenas = self.arenas.len() - self.vacant.len();
        if self.empty <= 1 || !self.arenas[to_usize(number.into())].is_empty() {
            return Vec::new();
        }
        if self.empty == arenas {
            // Also those that were added and never picked from.
            return self.remove_empty(|other| other != number);
        }
        self.remove(number).into_iter().collect()
    }

    /// Takes out all arenas of which no slot is held and `goes` says so.
    fn remove_empty(&mut self, goes: impl Fn(u32) -> bool) -> Vec<Own> {
        let numbers = 0..u32::try_from(self.arenas.len()).expect("below 2^17");
        numbers
            .filter_map(|number| {
                let empty = self.arenas[to_usize(number.into())].is_empty();
                (empty && goes(number))
                    .then(|| self.remove(number))
                    .flatten()
            })
            .collect()
    }

    /// Takes out an arena of which no slot is held.
    #[cold]
    fn remove(&mut self, number: u32) -> Option<Own> {
        let own = self.owned[to_usize(number.into())].take()?;
        let arena = &self.arenas[to_usize(number.into())];
        let less = to_usize(arena.count().into());
        arena.close();
        self.free
            .retain(less, |entry| arena_of(entry) != to_usize(number.into()));
        if self.fresh >> SLOT_BITS == number {
            (self.fresh, self.fresh_end) = (0, 0);
        }
        self.vacant.push(number);
        self.empty -= 1;
        self.arena_bytes -= own.range().len();
        let rest = self.owned.iter().zip(&self.arenas);
        self.arena_bits = rest
            .filter_map(|(own, arena)| Some(bits_within(own.as_ref()?, arena.count())))
            .fold(f64::INFINITY, f64::min);
        Some(own)
    }
}

/// The free slot that `entry` stands for; it is held from here on. `empty` counts the arenas of which
/// none is.
#[inline(always)]
fn hold(arenas: &[Arc<Arena>], empty: &mut usize, entry: u32) -> Slot {
    let slot = entry & ((1 << SLOT_BITS) - 1);
    let held = arenas[arena_of(entry)].hold(slot);
    let (addr, mark, before) = held.expect("one of its slots");
    if before == 0 {
        *empty -= 1;
    }
    Slot { addr, mark }
}

/// The number of the arena that an entry's slot lies in.
#[inline]
fn arena_of(entry: u32) -> usize {
    to_usize((entry >> SLOT_BITS).into())
}
