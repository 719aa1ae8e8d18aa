//! The allocator in a process that is at its limits: RLIMIT_AS, vm.max_map_count. Each case runs
//! in a process of its own, this program started again, because limits are for good.

#![cfg(target_os = "linux")]

#[path = "alloc_support/alone.rs"]
mod alone;

use alone::alone;
use low2g::alloc::{AllocError, Builder, LowAllocator, LowBlock, Placement, Reach};

const MIB: u64 = 1 << 20;

fn presets() -> [Builder; 5] {
    let new = LowAllocator::builder;
    [
        new().bare(),
        new().bare().placement(Placement::FirstFit),
        new().bare().placement(Placement::Kernel),
        new(),
        new().hardened(),
    ]
}

/// Blocks until the system gives no more, and what it said then.
fn until_refused(low: &LowAllocator, size: u64) -> (Vec<LowBlock>, AllocError) {
    let mut blocks = Vec::new();
    loop {
        match low.allocate(size, 16) {
            Ok(mut block) => {
                block.as_mut_slice()[0] = 1;
                blocks.push(block);
            }
            Err(error) => return (blocks, error),
        }
        assert!(blocks.len() < 1 << 16, "nothing limits this process");
    }
}

/// Bytes of address space of this process.
fn address_space() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").expect("there is a /proc");
    let pages = status.split(' ').next().expect("its first number");
    pages.parse::<u64>().expect("a number") * 4096
}

fn limit_address_space(bytes: u64) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: setrlimit reads the structure that the pointer names.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn a_limit_of_address_space_is_named_and_nothing_is_lost() {
    alone(
        "a_limit_of_address_space_is_named_and_nothing_is_lost",
        || {
            for builder in presets() {
                let low = builder.build().expect("this system has low memory");
                // Bookkeeping of its own is there before the limit is.
                drop(low.allocate(MIB, 16).expect("room"));
                limit_address_space(address_space() + 64 * MIB);
                let (blocks, error) = until_refused(&low, MIB);
                let text = error.to_string();
                assert!(matches!(error, AllocError::Limit { .. }), "{text}");
                assert!(text.contains("RLIMIT_AS"), "{text}");
                assert!((8..=64).contains(&blocks.len()), "{} blocks", blocks.len());
                assert!(blocks.iter().all(|block| block.as_slice()[0] == 1));
                // What is freed can be had again, at once or after the quarantine gives way.
                drop(blocks);
                let (again, _) = until_refused(&low, MIB);
                assert!(again.len() >= 8, "{} blocks", again.len());
                drop(again);
                limit_address_space(libc::RLIM_INFINITY);
                drop(low.allocate(MIB, 16).expect("the limit is gone"));
            }
        },
    );
}

/// Mappings that are not there for anybody else.
struct Filler {
    base: *mut libc::c_void,
    len: usize,
    /// What splitting leaves room for: the kernel asks for one more mapping there than for a new one.
    last: Vec<*mut libc::c_void>,
}

impl Filler {
    /// Makes mappings until the system allows no more; `spare` are left.
    fn new(spare: usize) -> Self {
        let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").expect("there is a /proc");
        let count: usize = text.trim().parse().expect("a number");
        let len = (count + 2) * 4096;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let map = |len, access| {
            // SAFETY: an anonymous mapping at an address of the kernel's choice replaces nothing.
            unsafe { libc::mmap(std::ptr::null_mut(), len, access, flags, -1, 0) }
        };
        let base = map(len, libc::PROT_NONE);
        assert_ne!(base, libc::MAP_FAILED, "inaccessible address space");
        let last = Vec::with_capacity(8);
        let mut filler = Self { base, len, last };
        let mut page = 0;
        while filler.protect(page, libc::PROT_READ) {
            page += 2;
            assert!(page < count + 2, "the system has no limit of mappings");
        }
        loop {
            // Unlike its neighbours, so that it stays one of its own.
            let access = [libc::PROT_WRITE, libc::PROT_EXEC][filler.last.len() % 2];
            let one = map(4096, access);
            if one == libc::MAP_FAILED {
                break;
            }
            filler.last.push(one);
            assert!(
                filler.last.len() < 8,
                "new mappings are limited as splits are"
            );
        }
        for spare in 0..spare.div_ceil(2) {
            assert!(filler.protect(page - 2 - 2 * spare, libc::PROT_NONE));
        }
        filler
    }

    fn protect(&self, page: usize, access: i32) -> bool {
        let at = self.base.wrapping_byte_add(page * 4096);
        // SAFETY: mprotect changes a page of this mapping, which nobody reads or writes.
        unsafe { libc::mprotect(at, 4096, access) == 0 }
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        for one in self.last.drain(..) {
            // SAFETY: the mapping is this value's own, and nobody uses it.
            unsafe { libc::munmap(one, 4096) };
        }
        // SAFETY: as above.
        unsafe { libc::munmap(self.base, self.len) };
    }
}

#[test]
fn without_another_mapping_allocation_is_refused_and_freeing_is_not() {
    let name = "without_another_mapping_allocation_is_refused_and_freeing_is_not";
    alone(name, || {
        // What the first allocator of a process leaves for the next ones.
        drop(until_refused(
            &LowAllocator::new().expect("low memory"),
            1 << 28,
        ));
        let before = anonymous_low_bytes();
        for builder in presets() {
            let low = builder.build().expect("this system has low memory");
            let (mut kept, mut gone) = (Vec::new(), Vec::new());
            for turn in 0..64_u8 {
                let mut block = low.allocate(65_536, 16).expect("room");
                block.as_mut_slice().fill(turn + 1);
                if turn % 2 == 0 {
                    kept.push((turn, block));
                } else {
                    gone.push(block);
                }
            }
            let held = low.statistics().live_bytes;
            let filler = Filler::new(0);
            // Neighbours of first fit are one mapping for the kernel, which cannot be split here.
            drop(gone);
            if low.placement() == Placement::FirstFit {
                assert!(low.statistics().stuck_bytes > 0, "{:?}", low.statistics());
            }
            for (turn, block) in &kept {
                assert!(block.as_slice().iter().all(|&byte| byte == turn + 1));
            }
            let (more, error) = until_refused(&low, 65_536);
            let text = error.to_string();
            assert!(matches!(error, AllocError::Limit { .. }), "{text}");
            assert!(text.contains("max_map_count"), "{text}");
            drop(more);
            drop(filler);
            // All works again; what could not be given back is.
            let again: Vec<_> = (0..64)
                .map(|_| low.allocate(65_536, 16).expect("room again"))
                .collect();
            drop(again);
            drop(kept);
            low.trim();
            let statistics = low.statistics();
            assert_eq!(statistics.stuck_bytes, 0, "tried again: {statistics:?}");
            assert!(
                statistics.live_bytes <= held + 64 * 65_536,
                "{statistics:?}"
            );
            drop(low);
            assert_eq!(anonymous_low_bytes(), before, "left behind");
        }
    });
}

/// Blocks of 64 KiB at first fit, from 64 KiB on: all of it but a sliver.
#[test]
fn first_fit_fills_a_real_window() {
    alone("first_fit_fills_a_real_window", || {
        let builder = LowAllocator::builder().bare().floor(64 << 10);
        let builder = builder.placement(Placement::FirstFit);
        let low = builder
            .reach(Reach::TwoGibFull)
            .build()
            .expect("low memory");
        let maps = std::fs::read_to_string("/proc/self/maps").expect("there is a /proc");
        let first = maps.split('-').next().expect("a mapping");
        let first = u64::from_str_radix(first, 16).expect("hexadecimal");
        if first < 1 << 31 {
            eprintln!("SKIP: this program is not position-independent, and lies in the window");
            return;
        }
        let mut blocks = Vec::new();
        let error = loop {
            match low.allocate(64 << 10, 1) {
                Ok(block) => blocks.push(block),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, AllocError::Exhausted { .. }), "{error}");
        // 2,047.8 MiB, the figure that was set; 2,047.9375 lie above the floor.
        let had = blocks.len() << 16;
        assert!(
            had * 10 >= 20_478 << 20,
            "{had} bytes in {} blocks",
            blocks.len()
        );
        assert!(blocks.iter().all(|block| block.range().end() <= 1 << 31));
        drop(blocks);
        low.trim();
        assert_eq!(low.statistics().live_bytes, 0);
    });
}

/// Bytes below 2 GiB that no file backs, the heap and other named stretches apart.
fn anonymous_low_bytes() -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("there is a /proc");
    let mut bytes = 0;
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let range = fields.next().expect("a range");
        let (from, to) = range.split_once('-').expect("of two addresses");
        let number = |text| u64::from_str_radix(text, 16).expect("hexadecimal");
        if number(to) <= 1 << 31 && fields.nth(4).is_none() {
            bytes += number(to) - number(from);
        }
    }
    bytes
}
