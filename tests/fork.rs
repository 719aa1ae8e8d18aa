//! `fork` while other threads allocate, free, write and run code: the child works on, by itself.

#![cfg(target_os = "linux")]

mod fork_support;

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use fork_support::{Child, Pipe, fork, fork_unnoticed};
use low2g::alloc::{Builder, LowAllocator, LowGlobal, Placement, PublishedCode};

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

/// The parent's and each child's addresses are `len`, and no two of them share more than `most`.
fn assert_apart(parents: Vec<u64>, children: Vec<Child>, len: usize, most: usize) {
    let mut all = vec![parents];
    for child in children {
        all.push(child.receive());
        child.succeeds();
    }
    for (index, mine) in all.iter().enumerate() {
        assert_eq!(mine.len(), len);
        for theirs in &all[index + 1..] {
            let same = mine.iter().filter(|addr| theirs.contains(addr)).count();
            assert!(same <= most, "{same} of {len} addresses are equal");
        }
    }
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
        // Two of 30 blocks of 64 bytes in each other's one arena of 4,096 slots: rarely.
        assert_apart(addresses(&low), children, 60, 4);
    }
}

/// Slots that a thread has drawn for itself are the parent's: a child draws others, even one that no
/// handler has told that it is one.
#[test]
fn slots_drawn_ahead_are_not_drawn_in_a_child() {
    const BLOCKS: usize = 60;
    let take = |low: &LowAllocator| -> Vec<u64> {
        let take = |_| low.allocate_raw(64, 16).expect("room");
        (0..BLOCKS).map(take).collect()
    };
    for low in [LowAllocator::builder().bare(), LowAllocator::builder()].map(build) {
        // So many that this thread owns its pool, and some slots more are ready.
        for addr in (0..5_000).flat_map(|_| low.allocate_raw(64, 16)) {
            // SAFETY: the block was just allocated, and nothing refers to it.
            unsafe { low.deallocate_raw(addr) }.expect("in use");
        }
        let main = |pipe: &Pipe| {
            pipe.send(&take(&low));
            true
        };
        let children = [fork(main), fork_unnoticed(main)];
        // Of one arena of 4,096 slots.
        assert_apart(take(&low), children.into(), BLOCKS, 8);
    }
}

/// Code that returns `number`: `mov eax, number; ret`.
fn function(low: &LowAllocator, number: u32) -> PublishedCode {
    let mut code = low.allocate_code(16, 16).expect("room");
    let bytes = code.working_mem();
    bytes[0] = 0xb8;
    bytes[1..5].copy_from_slice(&number.to_le_bytes());
    bytes[5] = 0xc3;
    code.publish().expect("code of this process")
}

/// Calls what [`function`] made.
fn call(addr: u64) -> u32 {
    let addr = usize::try_from(addr).expect("an address");
    let start = std::ptr::with_exposed_provenance::<()>(addr);
    // SAFETY: transmute needs a value of the type: a function that takes nothing and returns a
    // number in eax starts here.
    let run: extern "C" fn() -> u32 = unsafe { std::mem::transmute(start) };
    run()
}

#[test]
fn a_child_runs_what_its_parent_frees_and_allocates_again() {
    for low in [LowAllocator::builder().bare(), LowAllocator::builder()].map(build) {
        beside_threads(&low, || {
            let functions: Vec<_> = (0..200).map(|number| function(&low, number)).collect();
            let addrs: Vec<u64> = functions.iter().map(PublishedCode::exec_addr).collect();
            let (mut freed, mut tell) = std::io::pipe().expect("a pipe");
            let child = fork(|_| {
                freed.read_exact(&mut [0]).expect("the parent's word");
                let own = function(&low, 7_000);
                assert!(!addrs.contains(&own.exec_addr()));
                call(own.exec_addr()) == 7_000
                    && (0..200)
                        .zip(&addrs)
                        .all(|(number, &addr)| call(addr) == number)
            });
            drop(functions);
            let later: Vec<_> = (1_000..3_000)
                .map(|number| function(&low, number))
                .collect();
            for (number, code) in (1_000..).zip(&later) {
                assert!(!addrs.contains(&code.exec_addr()), "a slot of the child's");
                assert_eq!(call(code.exec_addr()), number);
            }
            tell.write_all(&[1]).expect("a pipe");
            child.succeeds();
        });
    }
}
