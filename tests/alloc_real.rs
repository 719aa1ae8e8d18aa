//! The allocator on the system that runs the tests: memory that is really
//! written, executed and given back.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use low2g::alloc::{CodeViews, LowAllocator, LowBlock, MapRequest, Mapping, Placement};
use low2g::platform::{AddrRange, Protection};

const PAGE: u64 = 4096;

/// These tests read the process's whole map, so they take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn allocator(placement: Placement) -> LowAllocator {
    let builder = LowAllocator::builder().bare().keep_hole(0);
    let builder = builder.placement(placement);
    builder.build().expect("this system has low memory")
}

/// The lines of this process's map that start below 2 GiB.
fn low_lines() -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux has it");
    let start = |line: &str| {
        let start = line.split('-').next().expect("split gives one");
        u64::from_str_radix(start, 16).expect("an address")
    };
    maps.lines()
        .filter(|line| start(line) < 1 << 31)
        .map(str::to_owned)
        .collect()
}

fn assert_write_xor_execute() {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux has it");
    for line in maps.lines() {
        let access = line.split(' ').nth(1).expect("the access field");
        assert!(!(access.contains('w') && access.contains('x')), "{line}");
    }
}

#[test]
fn mapping_is_written_read_and_protected() {
    let _turn = turn();
    let low = allocator(Placement::Randomized);
    let mut mapping = low.map(&MapRequest::new(3 * PAGE)).expect("room");
    let range = mapping.range();
    assert!(range.end() <= 0x7f00_0000 && range.len() == 3 * PAGE);
    let bytes = mapping.working_mem().expect("writable");
    assert!(bytes.iter().all(|byte| *byte == 0));
    bytes[5] = 7;
    bytes[4095..4105].copy_from_slice(b"0123456789");
    let page = |index: u64| AddrRange::at(range.start() + index * PAGE, PAGE).expect("low");
    mapping.protect(page(1), Protection::Read).expect("allowed");
    assert!(
        mapping.working_mem().is_none(),
        "a page of it cannot be written"
    );
    let odd = AddrRange::at(range.start() + 4094, 13).expect("low");
    assert_eq!(mapping.read(odd).expect("readable"), b"\x000123456789\0\0");
    mapping.protect(page(2), Protection::None).expect("allowed");
    assert_eq!(
        mapping.protection_at(range.start() + 2 * PAGE),
        Some(Protection::None)
    );
    assert_eq!(
        mapping.protection_at(range.start() + 2 * PAGE - 1),
        Some(Protection::Read)
    );
    assert_eq!(mapping.protection_at(range.end()), None);
    assert!(mapping.read(range).is_none(), "a page of it cannot be read");
    for bad in [
        AddrRange::at(range.start() + 1, PAGE),
        AddrRange::at(range.start() - PAGE, PAGE),
        AddrRange::at(range.start(), 4 * PAGE),
        AddrRange::at(range.start(), 0),
    ] {
        let bad = bad.expect("low");
        assert!(mapping.protect(bad, Protection::Read).is_err(), "{bad}");
    }
    mapping
        .protect(range, Protection::ReadWrite)
        .expect("allowed");
    assert_eq!(mapping.working_mem().expect("writable again")[5], 7);
}

#[test]
fn blocks_are_zeroed_apart_and_given_back() {
    let _turn = turn();
    let before = low_lines().len();
    for placement in [
        Placement::Randomized,
        Placement::FirstFit,
        Placement::Kernel,
    ] {
        let low = allocator(placement);
        let mut live: BTreeMap<u64, (u8, LowBlock)> = BTreeMap::new();
        for step in 0..6_000_u64 {
            let size = 1 + low.random_below(if step % 50 == 0 { 100_000 } else { 700 });
            let align = 1 << low.random_below(7);
            let mut block = low.allocate(size, align).expect("room");
            assert!(block.addr().is_multiple_of(align));
            assert!(block.addr32().is_some());
            assert!(block.as_slice().iter().all(|byte| *byte == 0), "not zeroed");
            let tag = u8::try_from(step % 251).expect("below 251") + 1;
            block.as_mut_slice().fill(tag);
            live.insert(block.addr(), (tag, block));
            if live.len() > 300 {
                let victim = usize::try_from(low.random_below(300)).expect("small");
                let addr = *live.keys().nth(victim).expect("that many");
                let (tag, block) = live.remove(&addr).expect("just seen");
                assert!(
                    block.as_slice().iter().all(|byte| *byte == tag),
                    "overwritten"
                );
            }
        }
        for (tag, block) in live.values() {
            assert!(
                block.as_slice().iter().all(|byte| byte == tag),
                "overwritten"
            );
        }
        drop(live);
        low.trim();
        assert_eq!(low.statistics().live_bytes, 0, "arenas stay: {placement}");
    }
    // The platform's anchor page is the one mapping that stays.
    assert!(low_lines().len() <= before + 1, "{:?}", low_lines());
}

#[test]
fn blocks_grow_and_shrink_where_they_lie() {
    let _turn = turn();
    for size in [100_u64, 5_000, 70_000] {
        let low = allocator(Placement::Randomized);
        let mut block = low.allocate(size, 8).expect("room");
        block.as_mut_slice().fill(7);
        let (addr, most) = (block.addr(), block.usable_size());
        // Pages of its own may grow.
        assert!(size > 32 << 10 || !block.resize_in_place(most + 1));
        assert!(!block.resize_in_place(0));
        assert!(block.resize_in_place(size / 2) && block.resize_in_place(most));
        assert_eq!((block.addr(), block.size()), (addr, most));
        let half = usize::try_from(size / 2).expect("small");
        let (old, new) = block.as_slice().split_at(half);
        assert!(old.iter().all(|byte| *byte == 7));
        assert!(new.iter().all(|byte| *byte == 0));
    }
}

/// Whether the page at `addr` is somebody's, and has memory.
fn page_state(addr: u64) -> Option<bool> {
    let mut resident = 0_u8;
    let at = std::ptr::with_exposed_provenance_mut(usize::try_from(addr).expect("64-bit"));
    // SAFETY: mincore looks at the map only, and writes the byte.
    let result = unsafe { libc::mincore(at, 4096, &raw mut resident) };
    (result == 0).then_some(resident & 1 == 1)
}

#[test]
fn pages_of_a_blocks_own_come_and_go_where_it_lies() {
    let _turn = turn();
    for placement in [Placement::Randomized, Placement::FirstFit] {
        let low = allocator(placement);
        let mut block = low.allocate(200_000, 8).expect("room");
        let (addr, before) = (block.addr(), low.statistics().live_bytes);
        block.as_mut_slice().fill(7);
        let kept = |block: &LowBlock, bytes: usize| {
            assert_eq!(block.addr(), addr);
            let (old, new) = block.as_slice().split_at(bytes);
            assert!(old.iter().all(|byte| *byte == 7));
            assert!(new.iter().all(|byte| *byte == 0));
        };
        // Half of it goes to whoever wants it; what comes back is zero.
        assert!(block.resize_in_place(100_000));
        assert_eq!(block.usable_size(), 25 * PAGE);
        assert_eq!(low.statistics().live_bytes, before - 24 * PAGE);
        assert_eq!(page_state(addr + 25 * PAGE), None, "still mapped");
        assert!(block.resize_in_place(180_000));
        assert_eq!(
            page_state(addr + 43 * PAGE),
            Some(false),
            "touched by growing"
        );
        kept(&block, 100_000);
        // Beyond what it ever was, in one piece for its end.
        assert!(block.resize_in_place(9 << 20));
        kept(&block, 100_000);
        let end = block.range().end();
        let neighbour = MapRequest {
            at: Some(end),
            ..MapRequest::new(PAGE)
        };
        let neighbour = low.map(&neighbour).expect("free");
        assert!(!block.resize_in_place((9 << 20) + 1), "the neighbour's");
        kept(&block, 100_000);
        drop(block);
        assert_eq!(low.statistics().live_bytes, PAGE);
        assert_eq!(page_state(addr), None, "left behind");
        assert_eq!(page_state(end - PAGE), None, "left behind");
        drop(neighbour);
    }
    // A guard stays where it is, in front of which there is less memory then.
    let low = LowAllocator::new().expect("this system has low memory");
    let mut block = low.allocate(200_000, 8).expect("room");
    block.as_mut_slice().fill(7);
    let (addr, usable) = (block.addr(), block.usable_size());
    assert!(!block.resize_in_place(usable + 1), "the guard's");
    assert!(block.resize_in_place(10_000));
    assert_eq!(page_state(addr + 2 * PAGE), Some(true));
    assert_eq!(page_state(addr + 3 * PAGE), Some(false), "memory is kept");
    assert!(block.resize_in_place(usable) && block.addr() == addr);
    assert!(block.as_slice()[10_000..].iter().all(|byte| *byte == 0));
}

#[test]
fn uniform_on_this_system_too() {
    const DRAWS: u32 = 100_000;
    const BINS: u64 = 4096;
    let _turn = turn();
    let low = allocator(Placement::Randomized);
    let window = low.window();
    let request = MapRequest::new(16 * PAGE);
    let first = window.start();
    let slots = (window.end() - first - request.size) / PAGE + 1;
    let mut counts = vec![0_u32; usize::try_from(BINS).expect("small")];
    for _ in 0..DRAWS {
        let mapping = low.map(&request).expect("room");
        let index = (mapping.range().start() - first) / PAGE;
        counts[usize::try_from(index * BINS / slots).expect("below the bins")] += 1;
    }
    let all = f64::from(u32::try_from(slots).expect("below 2^19"));
    let chi_square: f64 = (0..BINS)
        .zip(&counts)
        .map(|(bin, count)| {
            let first = |bin: u64| (bin * slots).div_ceil(BINS);
            let in_bin = u32::try_from(first(bin + 1) - first(bin)).expect("small");
            let expected = f64::from(DRAWS) * f64::from(in_bin) / all;
            (f64::from(*count) - expected).powi(2) / expected
        })
        .sum();
    // 4,095 degrees of freedom: p = 1e-6 lies at 4,546. A low mapping of the test program's own
    // would show.
    assert!(chi_square < 4_546.0, "chi-square {chi_square}");
}

#[test]
fn code_executes_and_is_never_writable() {
    let _turn = turn();
    for placement in [Placement::Randomized, Placement::FirstFit] {
        let low = allocator(placement);
        let mut published = Vec::new();
        for value in 0..600_u32 {
            // mov eax, imm32; ret
            let mut text = vec![0xb8];
            text.extend(value.to_le_bytes());
            text.push(0xc3);
            let size = if value % 100 == 0 {
                70_000
            } else {
                16 + u64::from(value % 90)
            };
            let mut code = low.allocate_code(size, 16).expect("room");
            assert_eq!(code.views(), CodeViews::Two);
            let exec = code.exec_addr();
            let written = code.working_mem();
            assert_ne!(low2g::platform::to_u64(written.as_ptr().addr()), exec);
            written[..text.len()].copy_from_slice(&text);
            if value % 100 == 0 {
                assert_write_xor_execute();
            }
            published.push((value, code.publish().expect("two views need no call")));
            if published.len() > 100 {
                let victim = usize::try_from(low.random_below(100)).expect("small");
                published.swap_remove(victim);
            }
            for (value, code) in published.iter().rev().take(3) {
                let addr = usize::try_from(code.exec_addr()).expect("64-bit");
                let entry = std::ptr::with_exposed_provenance::<()>(addr);
                // SAFETY: transmute needs a function of that type there: mov eax, imm32; ret was
                // published at the address, and its block is alive.
                let function =
                    unsafe { std::mem::transmute::<*const (), extern "C" fn() -> u32>(entry) };
                assert_eq!(function(), *value);
            }
        }
        assert_write_xor_execute();
        drop(published);
        assert_eq!(low.statistics().live_bytes, 0);
    }
}

#[test]
fn hostile_threads() {
    let _turn = turn();
    static STOP: AtomicBool = AtomicBool::new(false);
    let low = allocator(Placement::Randomized);
    let window = low.window();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            // Others that map below 2 GiB by themselves, and would notice a byte of theirs changed.
            let foreign = allocator(Placement::Kernel);
            scope.spawn(move || {
                let mut held: Vec<(u8, Mapping)> = Vec::new();
                let mut tag = 0_u8;
                while !STOP.load(Ordering::Relaxed) {
                    tag = tag.wrapping_add(1);
                    let size = (1 + foreign.random_below(64)) * PAGE;
                    let mut mapping = foreign.map(&MapRequest::new(size)).expect("room");
                    mapping.working_mem().expect("writable")[0] = tag;
                    held.push((tag, mapping));
                    if held.len() > 40 {
                        let victim = usize::try_from(foreign.random_below(40)).expect("small");
                        let (tag, mut mapping) = held.swap_remove(victim);
                        assert_eq!(
                            mapping.working_mem().expect("writable")[0],
                            tag,
                            "clobbered"
                        );
                    }
                    std::thread::yield_now();
                }
            });
        }
        let mut ours: Vec<(u64, Mapping)> = Vec::new();
        for round in 0..3_000_u64 {
            let size = (1 + low.random_below(64)) * PAGE;
            let mut mapping = low.map(&MapRequest::new(size)).expect("room");
            assert!(window.encloses(mapping.range()));
            mapping.working_mem().expect("writable")[..8].copy_from_slice(&round.to_le_bytes());
            ours.push((round, mapping));
            if ours.len() > 200 {
                let victim = usize::try_from(low.random_below(200)).expect("small");
                let (round, mut mapping) = ours.swap_remove(victim);
                let bytes = mapping.working_mem().expect("writable");
                assert_eq!(bytes[..8], round.to_le_bytes(), "clobbered");
            }
        }
        STOP.store(true, Ordering::Relaxed);
    });
    assert_eq!(low.statistics().live_bytes, 0);
}

#[test]
fn a_fork_draws_other_numbers() {
    let _turn = turn();
    let low = allocator(Placement::Randomized);
    let bound = 1 << 60;
    // The stream exists before the fork, so the child inherits its state.
    let _ = low.random_below(bound);
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    // SAFETY: fork needs that the child, of which only this thread lives on, takes no lock that
    // another held: it draws a number (a lock only this test uses), writes and exits.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork failed");
    if child == 0 {
        let drawn = low.random_below(bound).to_le_bytes();
        let written = std::io::Write::write_all(&mut &writer, &drawn);
        // SAFETY: _exit has no precondition; it runs nothing of the parent's.
        unsafe { libc::_exit(i32::from(written.is_err())) };
    }
    drop(writer);
    let mine = low.random_below(bound);
    let mut theirs = [0; 8];
    std::io::Read::read_exact(&mut reader, &mut theirs).expect("the child wrote");
    // SAFETY: waitpid accepts a null status, and the child is ours to wait for.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    assert_ne!(mine, u64::from_le_bytes(theirs));
}
