//! What the allocator's tests on simulated kernels share: systems, an oracle, and a random walk.

#![allow(dead_code, reason = "each test program uses a part")]
#![allow(
    unreachable_pub,
    reason = "a module of test programs is nobody's interface"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use low2g::alloc::{CodeBlock, LowAllocator, LowBlock, MapRequest, Mapping, Placement, Reach};
use low2g::platform::linux::LinuxPlatform;
use low2g::platform::sim::{
    self, FreeBsdOptions, LowMemory, MacOsOptions, SimLinux, SimOptions, Simulated, WindowsOptions,
};
use low2g::platform::{AddrRange, Platform};

pub const PAGE: u64 = 4096;
pub const MIB: u64 = 1 << 20;
pub const BRK: u64 = 0x1234_5000;
/// Where the simulated heap ends, and the room that must stay clear above it.
pub const BRK_ROOM: (u64, u64) = (BRK + 0x2_1000, 128 * MIB);

pub type Sim = Arc<LinuxPlatform<SimLinux>>;

pub fn simulated(options: SimOptions) -> Sim {
    Arc::new(sim::linux(options))
}

pub fn allocator(sim: &Sim, placement: Placement) -> LowAllocator {
    LowAllocator::builder()
        .bare()
        .keep_hole(0)
        .platform(Arc::clone(sim) as _)
        .placement(placement)
        .build()
        .expect("the simulated system has a low window")
}

pub fn range(start: u64, len: u64) -> AddrRange {
    AddrRange::at(start, len).expect("small numbers")
}

/// What the backend left mapped, but for its anchor page.
pub fn leaked(sim: &Sim) -> Vec<AddrRange> {
    let anchor = sim.anchor();
    let leaked = sim
        .kernel()
        .leaked()
        .into_iter()
        .map(|mapping| mapping.range);
    leaked.filter(|range| Some(*range) != anchor).collect()
}

/// SplitMix64: the tests' own numbers, apart from the allocator's.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Something allocated, kept for its drop.
#[derive(Debug)]
pub enum Held {
    Mapping(Mapping),
    Block(LowBlock),
    Code(CodeBlock),
}

/// The live ranges, and the check that a new one is apart from all of them.
#[derive(Default)]
pub struct Oracle {
    live: BTreeMap<u64, (u64, Held)>,
}

impl Oracle {
    pub fn admit(
        &mut self,
        what: AddrRange,
        align: u64,
        window: AddrRange,
        held: Held,
        context: &str,
    ) {
        assert!(window.encloses(what), "{what} leaves {window}: {context}");
        assert!(
            what.start().is_multiple_of(align),
            "{what} not aligned to {align:#x}: {context}"
        );
        let before = self.live.range(..what.end()).next_back();
        if let Some((start, (end, _))) = before {
            assert!(
                *end <= what.start(),
                "{what} overlaps {start:#x}..{end:#x}: {context}"
            );
        }
        self.live.insert(what.start(), (what.end(), held));
    }

    /// Makes a block, if a random one of what lives is a block, as long as `size` says where it lies, if that
    /// can be done; gives what it has then.
    pub fn resize_one(
        &mut self,
        dice: &mut Dice,
        size: u64,
        window: AddrRange,
        context: &str,
    ) -> Option<AddrRange> {
        let index = usize::try_from(dice.below(self.live.len() as u64)).expect("64-bit");
        let start = *self.live.keys().nth(index).expect("below the count");
        let above = self.live.range(start + 1..).next();
        let limit = above.map_or(window.end(), |(above, _)| *above);
        let (end, Held::Block(block)) = self.live.get_mut(&start)? else {
            return None;
        };
        if !block.resize_in_place(size) {
            assert!(size > *end - start, "it cannot be made smaller: {context}");
            return None;
        }
        assert_eq!(block.range(), range(start, size), "{context}");
        assert!(
            size <= block.usable_size() && start + block.usable_size() <= limit,
            "{:?} grew over {limit:#x}: {context}",
            block.range()
        );
        *end = start + size;
        Some(range(start, block.usable_size()))
    }

    pub fn drop_one(&mut self, dice: &mut Dice) {
        let index = usize::try_from(dice.below(self.live.len() as u64)).expect("64-bit");
        let start = *self.live.keys().nth(index).expect("below the count");
        self.live.remove(&start);
    }
}

/// A backend on its simulated system.
pub struct World {
    pub platform: Arc<dyn Platform>,
    pub kernel: Arc<dyn Simulated>,
    /// What must stay clear.
    pub kept: Option<AddrRange>,
    /// What the backend itself keeps mapped.
    pub own: Box<dyn Fn() -> Option<AddrRange>>,
    pub seed: u64,
    pub name: String,
}

impl World {
    pub fn linux(options: SimOptions) -> Self {
        let kept = matches!(options.low, LowMemory::NonPie { .. });
        let (seed, name) = (options.seed, format!("Linux {:?}", options.low));
        let platform = simulated(options);
        let asked = Arc::clone(&platform);
        Self {
            kernel: Arc::new(platform.kernel().clone()),
            kept: kept.then(|| range(BRK_ROOM.0, BRK_ROOM.1)),
            own: Box::new(move || asked.anchor()),
            platform,
            seed,
            name,
        }
    }

    pub fn freebsd(options: FreeBsdOptions) -> Self {
        let kept = matches!(options.low, LowMemory::NonPie { .. });
        let (seed, name) = (options.seed, format!("FreeBSD {options:?}"));
        let platform = sim::freebsd(options);
        Self {
            kernel: Arc::new(platform.kernel().clone()),
            kept: kept.then(|| range(BRK_ROOM.0, BRK_ROOM.1)),
            own: Box::new(|| None),
            platform: Arc::new(platform),
            seed,
            name,
        }
    }

    pub fn macos(options: MacOsOptions) -> Self {
        let (seed, name) = (options.seed, format!("macOS {options:?}"));
        let platform = sim::macos(options);
        let kernel = Arc::new(platform.kernel().clone());
        Self::without_program(Arc::new(platform), kernel, seed, name)
    }

    pub fn windows(options: WindowsOptions) -> Self {
        let (seed, name) = (options.seed, format!("Windows {options:?}"));
        let platform = sim::windows(options);
        let kernel = Arc::new(platform.kernel().clone());
        Self::without_program(Arc::new(platform), kernel, seed, name)
    }

    /// One in which no low program's heap is to grow.
    fn without_program(
        platform: Arc<dyn Platform>,
        kernel: Arc<dyn Simulated>,
        seed: u64,
        name: String,
    ) -> Self {
        Self {
            platform,
            kernel,
            kept: None,
            own: Box::new(|| None),
            seed,
            name,
        }
    }

    pub fn allocator(&self, placement: Placement, reach: Reach) -> LowAllocator {
        LowAllocator::builder()
            .bare()
            .platform(Arc::clone(&self.platform))
            .placement(placement)
            .reach(reach)
            .build()
            .expect("the simulated system has such a window")
    }

    /// What is mapped and not the backend's own.
    pub fn leaked(&self) -> Vec<AddrRange> {
        let own = (self.own)();
        let leaked = self.kernel.leaked();
        let leaked = leaked.iter().map(|mapping| mapping.range);
        leaked.filter(|range| Some(*range) != own).collect()
    }
}

/// Random maps, blocks, code and drops, `operations` of them, against the oracle.
pub fn exercise(options: SimOptions, placement: Placement, operations: u64, most_live: usize) {
    let world = World::linux(options);
    exercise_in(&world, placement, Reach::TwoGib, operations, most_live);
}

/// As [`exercise`], on any system.
pub fn exercise_in(
    world: &World,
    placement: Placement,
    reach: Reach,
    operations: u64,
    most_live: usize,
) {
    let context = format!("seed {} {placement} {}", world.seed, world.name);
    let mut dice = Dice(world.seed);
    let low = world.allocator(placement, reach);
    let mut oracle = Oracle::default();
    for operation in 0..operations {
        let context = format!("{context} operation {operation}");
        if oracle.live.len() >= most_live || (!oracle.live.is_empty() && dice.below(3) == 0) {
            oracle.drop_one(&mut dice);
            continue;
        }
        let largest = if dice.below(50) == 0 { 25 } else { 14 };
        let align = 1 << dice.below(largest);
        let magnitude = 3 + dice.below(16);
        let size = 1 + dice.below(1 << magnitude);
        let window = low.window();
        if !oracle.live.is_empty() && dice.below(8) == 0 {
            let resized = oracle.resize_one(&mut dice, size, window, &context);
            if let (Some(what), Some(kept)) = (resized, world.kept) {
                assert!(!what.overlaps(kept), "{what} in brk's room: {context}");
            }
            continue;
        }
        let (what, held) = match dice.below(3) {
            0 => {
                let request = MapRequest {
                    align,
                    ..MapRequest::new(size)
                };
                let mapping = low
                    .map(&request)
                    .unwrap_or_else(|error| panic!("{error}: {context}"));
                (mapping.range(), Held::Mapping(mapping))
            }
            1 => {
                let block = low
                    .allocate(size, align)
                    .unwrap_or_else(|error| panic!("{error}: {context}"));
                (block.range(), Held::Block(block))
            }
            _ => {
                let code = low
                    .allocate_code(size, align)
                    .unwrap_or_else(|error| panic!("{error}: {context}"));
                (range(code.exec_addr(), code.size()), Held::Code(code))
            }
        };
        if let Some(kept) = world.kept {
            assert!(!what.overlaps(kept), "{what} in brk's room: {context}");
        }
        oracle.admit(what, align, window, held, &context);
    }
    let mapped: u64 = world.leaked().iter().map(|range| range.len()).sum();
    assert_eq!(
        mapped,
        low.statistics().live_bytes,
        "the count of bytes drifted: {context}"
    );
    drop(oracle);
    low.trim();
    let rest = world.leaked();
    assert!(rest.is_empty(), "still mapped {rest:?}: {context}");
    assert_eq!(low.statistics().live_mappings, 0);
    assert_eq!(world.kernel.open_files(), 0, "{context}");
}
