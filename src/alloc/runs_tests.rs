//! Runs against what an oracle knows of them.

use std::collections::BTreeMap;

use super::*;
use crate::dice::{dice, rounds};

#[test]
#[cfg_attr(miri, ignore = "arithmetic only, and much of it")]
fn bins_ascend_and_what_is_searched_fits() {
    let most = granules(CHUNK);
    let mut last = 0;
    for len in 1..=most {
        let bin = bin_of(len);
        assert!(bin == last || bin == last + 1, "{len}");
        last = bin;
        let searched = bin_of(len + (spacing(len) - 1));
        let shortest = (1..=most).find(|other| bin_of(*other) == searched);
        assert!(shortest.is_none_or(|shortest| shortest >= len), "{len}");
    }
    assert!(last < BINS);
}

/// Tiles, bins and marks agree, and what is used is what `live` says.
fn check(runs: &Runs, chunks: &BTreeMap<u64, (AddrRange, u32)>, live: &BTreeMap<u64, u64>) {
    let mut free = Vec::new();
    let mut used = 0;
    for (chunk, first) in chunks.values() {
        let (mut at, mut below, mut cursor) = (*first, NONE, chunk.start());
        let mut free_before = false;
        while at != NONE {
            let run = runs.run(at);
            assert_eq!((run.start, run.below), (cursor, below));
            assert!(!free_before || run.used, "two free neighbours");
            free_before = !run.used;
            if run.used {
                assert_eq!(live.get(&run.start), Some(&run.bytes()));
                used += run.bytes();
            } else {
                free.push(at);
            }
            cursor += run.bytes();
            (below, at) = (at, run.above);
        }
        assert_eq!(cursor, chunk.end());
    }
    assert_eq!(used, live.values().sum::<u64>());
    assert_eq!(used, runs.used_bytes());
    let mut listed = Vec::new();
    for (bin, first) in runs.bins.iter().enumerate() {
        let mut at = *first;
        assert_eq!(at != NONE, runs.filled[bin / 64] >> (bin % 64) & 1 == 1);
        while at != NONE {
            assert_eq!(bin_of(runs.run(at).len), bin);
            listed.push(at);
            at = runs.run(at).next;
        }
    }
    free.sort_unstable();
    listed.sort_unstable();
    assert_eq!(free, listed);
    assert_eq!(runs.runs.len() - runs.vacant.len(), free.len() + live.len());
}

#[test]
fn runs_tile_their_chunks_whatever_is_done() {
    let mut dice = dice(7);
    let mut runs = Runs::new();
    let mut chunks = BTreeMap::new();
    let mut live = BTreeMap::new();
    let mut next_chunk = 0x10_0000;
    for step in 0..rounds(30_000) {
        let victim = live.keys().nth(to_usize(dice(300))).copied();
        match (dice(8), victim) {
            (0..4, _) => {
                let (bytes, align) = (1 + dice(50_000), 1 << dice(13));
                let Some(taken) = runs.take(bytes, align) else {
                    let len = (64 << 10) << dice(3);
                    let chunk = AddrRange::at(next_chunk, len).expect("low");
                    // Some touch, some do not.
                    next_chunk = chunk.end() + dice(2) * 4096;
                    chunks.insert(chunk.start(), (chunk, runs.add(chunk)));
                    continue;
                };
                let range = taken.range;
                assert!(range.len() >= bytes && range.len() < bytes + GRANULE);
                assert!(range.start().is_multiple_of(align));
                live.insert(range.start(), range.len());
            }
            (4..7, Some(addr)) => {
                let emptied = runs.give(addr).expect("used");
                live.remove(&addr);
                assert_eq!(runs.give(addr), None, "freed twice");
                if let Some(start) = emptied {
                    let (chunk, first) = chunks[&start];
                    assert!(live.range(start..chunk.end()).next().is_none());
                    if dice(2) == 0 {
                        assert!(runs.remove(first));
                        chunks.remove(&start);
                    }
                }
            }
            (_, Some(addr)) => {
                let bytes = 1 + dice(90_000);
                let len = bytes.next_multiple_of(GRANULE);
                let (chunk, first) = chunks.range(..=addr).next_back().expect("its chunk").1;
                let limit = live
                    .range(addr + 1..)
                    .next()
                    .map_or(u64::MAX, |next| *next.0);
                let fits = addr + len <= limit.min(chunk.end());
                assert_eq!(runs.resize(addr, bytes), Some(fits), "step {step}");
                if fits {
                    live.insert(addr, len);
                }
                let range = AddrRange::at(addr, live[&addr]).expect("low");
                let last = range.end() - 1;
                assert_eq!(runs.around(*first, last), Some((range, true)));
                assert_eq!(runs.used_at(addr), Some(range));
            }
            _ => {}
        }
        if step % 16 == 0 {
            check(&runs, &chunks, &live);
        }
    }
    assert!(chunks.len() > 3 && live.len() > 20, "{}", live.len());
}

#[test]
fn memory_that_nobody_had_is_clean() {
    let mut runs = Runs::new();
    let chunk = AddrRange::at(0x10_0000, 256 << 10).expect("low");
    runs.add(chunk);
    let first = runs.take(5_000, 16).expect("room");
    let second = runs.take(5_000, 16).expect("room");
    assert!(!first.dirty && !second.dirty);
    assert_eq!(runs.give(first.range.start()), Some(None));
    assert!(runs.take(5_000, 16).expect("room").dirty);
    assert_eq!(runs.take(CHUNK, 4096), None);
    assert_eq!(runs.take(u64::MAX, 1), None);
}
