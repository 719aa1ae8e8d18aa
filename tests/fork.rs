//! `fork` while other threads allocate, free, write and run code: the child works on, by itself.

#![cfg(target_os = "linux")]

mod fork_support;

use std::sync::atomic::{AtomicBool, Ordering};

use fork_support::{Child, fork};
use low2g::alloc::{Builder, LowAllocator, LowGlobal, Placement};

/// All that this program allocates is low, so what a child does between its fork and its end is too.
#[global_allocator]
static LOW: LowGlobal = LowGlobal::new();

fn build(builder: Builder) -> LowAllocator {
    builder.build().expect("this system has low memory")
}

fn presets() -> [Builder; 4] {
    let builder = LowAllocator::builder;
    [
        builder().bare(),
        builder(),
        builder().hardened(),
        builder().bare().placement(Placement::FirstFit),
    ]
}

/// Allocates, fills, checks and frees blocks of many sizes.
fn exercise(low: &LowAllocator, rounds: u64) {
    let mut blocks = Vec::new();
    for round in 0..rounds {
        let size = 1 + round * 7919 % if round % 30 == 0 { 90_000 } else { 3_000 };
        let mut block = low.allocate(size, 16).expect("room");
        let tag = u8::try_from(round % 251).expect("small");
        block.as_mut_slice().fill(tag);
        blocks.push((tag, block));
        if blocks.len() > 40 {
            let (tag, block) = blocks.swap_remove(usize::try_from(round % 40).expect("small"));
            assert!(block.as_slice().iter().all(|byte| *byte == tag));
        }
    }
}

/// Runs `main` while two threads exercise `low` and this program's global allocator.
fn beside_threads(low: &LowAllocator, main: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    exercise(low, 60);
                    low.trim();
                }
            });
        }
        main();
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_child_allocates_whatever_its_parents_threads_were_doing() {
    for low in presets().map(build) {
        beside_threads(&low, || {
            for _ in 0..60 {
                let child = fork(|_| {
                    exercise(&low, 150);
                    low.trim();
                    // One made in the child, with everything that is made once.
                    exercise(&build(LowAllocator::builder()), 20);
                    true
                });
                exercise(&low, 20);
                child.succeeds();
            }
        });
        low.trim();
    }
}

/// Addresses of 64-byte and of 64 KiB blocks.
fn addresses(low: &LowAllocator) -> Vec<u64> {
    let sizes = [64, 64 << 10].into_iter().cycle().take(60);
    let blocks: Vec<_> = sizes
        .map(|size| low.allocate(size, 16).expect("room"))
        .collect();
    blocks.iter().map(low2g::alloc::LowBlock::addr).collect()
}

#[test]
fn parent_and_children_draw_other_addresses() {
    for low in [LowAllocator::builder().bare(), LowAllocator::builder()].map(build) {
        let _live = low.allocate(64, 16).expect("room");
        let children: Vec<Child> = (0..3)
            .map(|_| {
                fork(|pipe| {
                    pipe.send(&addresses(&low));
                    true
                })
            })
            .collect();
        let mut all = vec![addresses(&low)];
        for child in children {
            all.push(child.receive());
            child.succeeds();
        }
        for (index, mine) in all.iter().enumerate() {
            assert_eq!(mine.len(), 60);
            for theirs in &all[index + 1..] {
                let same = mine.iter().filter(|addr| theirs.contains(addr)).count();
                // Two of 30 blocks of 64 bytes in each other's one arena of 4,096 slots: rarely.
                assert!(same <= 4, "{same} of 60 addresses are equal");
            }
        }
    }
}
