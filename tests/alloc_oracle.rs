//! Random lives of blocks by address against an oracle that knows where each lies and what it holds:
//! on the running kernel, where the bytes are looked at, and on simulated ones.
//!
//! `LOW2G_OPERATIONS=12000000 cargo test --test alloc_oracle` does more of them;
//! `LOW2G_SEED` replays what a failure names.

#![cfg(target_os = "linux")]

mod alloc_support;

use std::collections::BTreeMap;
use std::sync::Arc;

use alloc_support::{Dice, simulated};
use low2g::alloc::{Builder, LowAllocator, Misuse, Placement};
use low2g::platform::sim::SimOptions;

/// Operations of each test, unless told otherwise: one takes a second under Miri.
const OPERATIONS: u64 = if cfg!(miri) { 48 } else { 1_200_000 };

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

fn settings() -> Vec<(&'static str, Builder)> {
    let new = LowAllocator::builder;
    vec![
        ("bare", new().bare()),
        (
            "bare, first fit",
            new().bare().placement(Placement::FirstFit),
        ),
        ("bare, kernel", new().bare().placement(Placement::Kernel)),
        ("default", new()),
        ("default, first fit", new().placement(Placement::FirstFit)),
        ("hardened", new().hardened()),
    ]
}

/// A live block: bytes asked for, and what its first and last one hold.
struct Live {
    size: u64,
    tag: u8,
}

struct Oracle<'a> {
    low: &'a LowAllocator,
    /// Whether there is memory behind the addresses.
    real: bool,
    live: BTreeMap<u64, Live>,
    addrs: Vec<u64>,
    context: String,
}

impl Oracle<'_> {
    fn byte(addr: u64) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(usize::try_from(addr).expect("64-bit"))
    }

    fn write(&self, addr: u64, live: &Live) {
        for at in [addr, addr + live.size - 1] {
            if self.real {
                // SAFETY: write needs a writable byte of ours: the block is live, and so long.
                unsafe { Self::byte(at).write(live.tag) };
            }
        }
    }

    fn read(&self, addr: u64) -> u8 {
        // SAFETY: read needs a readable byte that nobody writes meanwhile: a live block's.
        unsafe { Self::byte(addr).read() }
    }

    /// Enters a new block, which must lie apart from all others, in the window, and aligned.
    fn admit(&mut self, addr: u64, size: u64, align: u64, tag: u8) {
        let context = &self.context;
        let window = self.low.window();
        assert!(
            addr.is_multiple_of(align),
            "{addr:#x} to {align}: {context}"
        );
        let inside = window.start() <= addr && addr + size <= window.end();
        assert!(inside, "{addr:#x} + {size} outside {window}: {context}");
        if let Some((below, live)) = self.live.range(..=addr).next_back() {
            assert!(
                below + live.size <= addr,
                "{below:#x} and {addr:#x}: {context}"
            );
        }
        if let Some((above, _)) = self.live.range(addr..).next() {
            assert!(addr + size <= *above, "{addr:#x} and {above:#x}: {context}");
        }
        let usable = self.low.usable_size(addr);
        assert!(
            usable.is_some_and(|usable| usable >= size),
            "{usable:?}: {context}"
        );
        let live = Live { size, tag };
        self.write(addr, &live);
        self.live.insert(addr, live);
        self.addrs.push(addr);
    }

    /// Frees the `index`-th block, which must hold what was written to it.
    fn release(&mut self, index: usize) -> u64 {
        let addr = self.addrs.swap_remove(index);
        let live = self.live.remove(&addr).expect("it is live");
        for at in [addr, addr + live.size - 1] {
            assert!(
                !self.real || self.read(at) == live.tag,
                "{at:#x}: {}",
                self.context
            );
        }
        self.free(addr).expect("in use");
        addr
    }

    /// Makes the `index`-th block as long as `size` says, if it can be where it lies.
    fn resize(&mut self, index: usize, size: u64) {
        let addr = self.addrs[index];
        let context = &self.context;
        let live = self.live.get(&addr).expect("it is live");
        let kept = size.min(live.size);
        let at = addr + kept - 1;
        if self.real {
            // SAFETY: write needs a writable byte of ours: of a live block, which keeps this one.
            unsafe { Self::byte(at).write(live.tag) };
        }
        // SAFETY: resize_raw needs a block of ours, of which nobody refers to what it loses.
        let Some(usable) = (unsafe { self.low.resize_raw(addr, size) }) else {
            assert!(size > live.size, "it cannot be made smaller: {context}");
            return;
        };
        assert_eq!(self.low.usable_size(addr), Some(usable), "{context}");
        assert!(usable >= size, "{usable} for {size}: {context}");
        let end = addr + size;
        assert!(end <= self.low.window().end(), "{end:#x}: {context}");
        if let Some((above, _)) = self.live.range(addr + 1..).next() {
            assert!(end <= *above, "{addr:#x} and {above:#x}: {context}");
        }
        for at in [addr, at] {
            assert!(
                !self.real || self.read(at) == live.tag,
                "{at:#x}: {context}"
            );
        }
        let tag = live.tag;
        let live = Live { size, tag };
        self.write(addr, &live);
        self.live.insert(addr, live);
    }

    fn free(&self, addr: u64) -> Result<(), Misuse> {
        // SAFETY: deallocate_raw needs that a block in use there is given up: the oracle's, which
        // has just forgotten it, or there is none.
        unsafe { self.low.deallocate_raw(addr) }
    }
}

/// Sizes of all magnitudes, small ones most often.
fn size(dice: &mut Dice) -> u64 {
    let most = match dice.below(100) {
        0 => 21,
        1..10 => 17,
        _ => 12,
    };
    let magnitude = dice.below(most);
    1 + dice.below(2 << magnitude)
}

fn live_and_die(low: &LowAllocator, real: bool, operations: u64, seed: u64, name: &str) {
    let mut dice = Dice::new(seed);
    let mut oracle = Oracle {
        low,
        real,
        live: BTreeMap::new(),
        addrs: Vec::new(),
        context: String::new(),
    };
    // The number of live blocks rises and falls.
    let mut most = 500;
    for operation in 0..operations {
        oracle.context = format!("LOW2G_SEED={seed}, {name}, operation {operation}");
        if operation % 10_000 == 0 {
            most = 50 + usize::try_from(dice.below(1_500)).expect("small");
        }
        if oracle.addrs.len() > most || (dice.below(3) == 0 && !oracle.addrs.is_empty()) {
            let victim = usize::try_from(dice.below(oracle.addrs.len() as u64)).expect("small");
            let addr = oracle.release(victim);
            if dice.below(64) == 0 {
                // Nobody else was given it since.
                assert!(oracle.free(addr).is_err(), "{addr:#x}: {}", oracle.context);
            }
            continue;
        }
        let size = size(&mut dice);
        if dice.below(6) == 0 && !oracle.addrs.is_empty() {
            let one = usize::try_from(dice.below(oracle.addrs.len() as u64)).expect("small");
            // Large ones are rare among the sizes, and what grows and shrinks here.
            let factor = if dice.below(4) == 0 { 64 } else { 1 };
            oracle.resize(one, size * factor);
            continue;
        }
        let largest = if dice.below(50) == 0 { 22 } else { 9 };
        let align = 1 << dice.below(largest);
        let tag = u8::try_from(operation % 255).expect("a byte") + 1;
        let zeroed = dice.below(4) == 0;
        let addr = if zeroed {
            low.allocate_raw_zeroed(size, align)
        } else {
            low.allocate_raw(size, align)
        };
        let addr = addr.unwrap_or_else(|error| panic!("{error}: {}", oracle.context));
        if zeroed && real {
            for at in [addr, addr + size / 2, addr + size - 1] {
                assert_eq!(oracle.read(at), 0, "{at:#x}: {}", oracle.context);
            }
        }
        oracle.admit(addr, size, align, tag);
    }
    while !oracle.addrs.is_empty() {
        oracle.release(0);
    }
    low.trim();
    let statistics = low.statistics();
    assert_eq!(
        statistics.live_bytes, 0,
        "LOW2G_SEED={seed}, {name}: {statistics:?}"
    );
}

#[cfg_attr(miri, ignore = "asks the running kernel")]
#[test]
fn blocks_lie_apart_and_keep_what_they_hold() {
    let operations = number("LOW2G_OPERATIONS", OPERATIONS);
    let seed = number("LOW2G_SEED", 20_261_127);
    println!("LOW2G_OPERATIONS={operations} LOW2G_SEED={seed}");
    let settings = settings();
    let each = operations / settings.len() as u64;
    for (name, builder) in settings {
        let low = builder.build().expect("this system has low memory");
        live_and_die(&low, true, each, seed, name);
    }
}

#[test]
fn blocks_lie_apart_on_simulated_kernels() {
    let operations = number("LOW2G_OPERATIONS", OPERATIONS) / 2;
    let seed = number("LOW2G_SEED", 20_261_128);
    println!("LOW2G_OPERATIONS={operations} LOW2G_SEED={seed}");
    let settings = settings();
    let each = operations / settings.len() as u64;
    for (name, builder) in settings {
        for kernel in [(6, 18), (4, 16)] {
            let options = SimOptions {
                seed,
                kernel,
                ..SimOptions::default()
            };
            let sim = simulated(options);
            let low = builder.clone().platform(Arc::clone(&sim) as _).build();
            let name = format!("{name}, simulated Linux {kernel:?}");
            live_and_die(&low.expect("low memory"), false, each / 2, seed, &name);
        }
    }
}
