//! The allocator against its peers in the same run: mimalloc, glibc malloc, `mmap(MAP_32BIT)`.
//!
//! `cargo bench --bench alloc`; each name says the preset and the placement.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};

use criterion::{BenchmarkId, Criterion, criterion_group};
use low2g::alloc::{Builder, LowAllocator, MapRequest, Placement};

/// Live blocks of the pairs.
const LIVE: usize = 10_000;

fn presets() -> Vec<(&'static str, Builder)> {
    let builder = LowAllocator::builder;
    vec![
        (
            "first-fit bare",
            builder().bare().placement(Placement::FirstFit),
        ),
        ("bare", builder().bare()),
        ("default", builder()),
        ("hardened", builder().hardened()),
    ]
}

fn build(builder: Builder) -> LowAllocator {
    builder.build().expect("this system has low memory")
}

/// What a pair is made of. It is known when the benchmark is compiled, as in a program.
trait Heap: Sync {
    fn allocate(&self, size: usize) -> usize;
    /// Frees what `allocate` gave, once.
    fn free(&self, addr: usize);
}

impl Heap for LowAllocator {
    #[inline]
    fn allocate(&self, size: usize) -> usize {
        let addr = self.allocate_raw(size as u64, 16).expect("room");
        usize::try_from(addr).expect("64-bit")
    }

    #[inline]
    fn free(&self, addr: usize) {
        // SAFETY: the trait's contract is this call's: allocated here, freed once, unused.
        unsafe { self.deallocate_raw(addr as u64) }.expect("in use");
    }
}

struct Mimalloc;

impl Heap for Mimalloc {
    fn allocate(&self, size: usize) -> usize {
        // SAFETY: mi_malloc has no precondition.
        unsafe { libmimalloc_sys::mi_malloc(size) }.expose_provenance()
    }

    fn free(&self, addr: usize) {
        // SAFETY: mi_free needs what mi_malloc gave, once: the trait's contract.
        unsafe { libmimalloc_sys::mi_free(std::ptr::with_exposed_provenance_mut(addr)) };
    }
}

struct Glibc;

impl Heap for Glibc {
    fn allocate(&self, size: usize) -> usize {
        // SAFETY: malloc has no precondition.
        unsafe { libc::malloc(size) }.expose_provenance()
    }

    fn free(&self, addr: usize) {
        // SAFETY: free needs what malloc gave, once: the trait's contract.
        unsafe { libc::free(std::ptr::with_exposed_provenance_mut(addr)) };
    }
}

/// Sizes and victims, drawn before the clock runs: 64 to 4,096 bytes, log-uniform.
struct Trace(Vec<(u32, u32)>);

impl Trace {
    fn new(seed: u64) -> Self {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        let mut steps = Vec::new();
        for _ in 0..1 << 16 {
            let exponent = 6.0 + 6.0 * ((next() >> 11) as f64 / (1_u64 << 53) as f64);
            let size = format!("{:.0}", exponent.exp2())
                .parse()
                .expect("below 4,097");
            let victim = u32::try_from(next() % LIVE as u64).expect("small");
            steps.push((size, victim));
        }
        Self(steps)
    }
}

/// Live blocks, and where in the trace.
struct Walk<'a, H: Heap> {
    heap: &'a H,
    trace: Trace,
    live: Vec<usize>,
    at: usize,
}

impl<'a, H: Heap> Walk<'a, H> {
    fn new(heap: &'a H, seed: u64) -> Self {
        let trace = Trace::new(seed);
        let live = (0..LIVE)
            .map(|index| heap.allocate(trace.0[index].0 as usize))
            .collect();
        Self {
            heap,
            trace,
            live,
            at: 0,
        }
    }

    #[inline]
    fn pair(&mut self) {
        let (size, victim) = self.trace.0[self.at];
        self.at += 1;
        if self.at == self.trace.0.len() {
            self.at = 0;
        }
        let slot = &mut self.live[victim as usize];
        self.heap.free(*slot);
        *slot = black_box(self.heap.allocate(size as usize));
    }
}

impl<H: Heap> Drop for Walk<'_, H> {
    fn drop(&mut self) {
        for addr in self.live.drain(..) {
            self.heap.free(addr);
        }
    }
}

fn pairs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("free + allocate, 10,000 live");
    pair(&mut group, "mimalloc", &Mimalloc);
    pair(&mut group, "glibc", &Glibc);
    for (name, builder) in presets() {
        pair(&mut group, name, &build(builder));
    }
    group.finish();
    let mut group = criterion.benchmark_group("free + allocate, a second thread does too");
    pair_of_two(&mut group, "mimalloc", &Mimalloc);
    pair_of_two(&mut group, "glibc", &Glibc);
    for (name, builder) in presets() {
        pair_of_two(&mut group, name, &build(builder));
    }
    group.finish();
}

type Group<'a> = criterion::BenchmarkGroup<'a, criterion::measurement::WallTime>;

fn pair<H: Heap>(group: &mut Group<'_>, name: &str, heap: &H) {
    let mut walk = Walk::new(heap, 1);
    group.bench_function(name, |bencher| bencher.iter(|| walk.pair()));
}

fn pair_of_two<H: Heap>(group: &mut Group<'_>, name: &str, heap: &H) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut walk = Walk::new(heap, 2);
            while !stop.load(Ordering::Relaxed) {
                walk.pair();
            }
        });
        pair(group, name, heap);
        stop.store(true, Ordering::Relaxed);
    });
}

/// `mmap(MAP_32BIT)`, as a low-memory JIT does without us.
fn map_32bit(size: usize) -> *mut libc::c_void {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_32BIT;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: without MAP_FIXED the kernel picks free address space only.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), size, prot, flags, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    at
}

fn unmap(at: *mut libc::c_void, size: usize) {
    // SAFETY: munmap needs a mapping to which nothing refers: the benchmark's own, untouched.
    let result = unsafe { libc::munmap(at, size) };
    assert_eq!(result, 0);
}

const BLOCK: usize = 64 << 10;

/// Pages of other people's: high, and of two kinds, so that they do not merge.
fn map_others(count: usize) -> Vec<*mut libc::c_void> {
    let map = |index: usize| {
        let prot = if index.is_multiple_of(2) {
            libc::PROT_READ
        } else {
            libc::PROT_NONE
        };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: without MAP_FIXED the kernel picks free address space only.
        unsafe { libc::mmap(std::ptr::null_mut(), 4096, prot, flags, -1, 0) }
    };
    (0..count).map(map).collect()
}

fn large_blocks(criterion: &mut Criterion) {
    for others in [0_usize, 10, 30_000] {
        let others = map_others(others);
        let mut group = criterion.benchmark_group("64 KiB, allocate + free");
        let id = |name: &str| BenchmarkId::new(name, format!("{} mappings", others.len()));
        group.bench_function(id("MAP_32BIT"), |bencher| {
            bencher.iter(|| unmap(black_box(map_32bit(BLOCK)), BLOCK));
        });
        for (name, builder) in presets() {
            let low = build(builder);
            group.bench_function(id(name), |bencher| {
                bencher.iter(|| low.allocate(BLOCK as u64, 1).expect("room").addr());
            });
        }
        group.finish();
        for at in others {
            unmap(at, 4096);
        }
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let mut group = criterion.benchmark_group("64 KiB, another thread running");
        group.bench_function("MAP_32BIT", |bencher| {
            bencher.iter(|| unmap(black_box(map_32bit(BLOCK)), BLOCK));
        });
        for (name, builder) in presets() {
            let low = build(builder);
            group.bench_function(name, |bencher| {
                bencher.iter(|| low.allocate(BLOCK as u64, 1).expect("room").addr());
            });
        }
        group.finish();
        // What has memory is taken away from the other core too, whoever gives it back.
        let mut group = criterion.benchmark_group("64 KiB written to, another thread running");
        group.bench_function("MAP_32BIT", |bencher| {
            bencher.iter(|| {
                let at = map_32bit(BLOCK);
                // SAFETY: write needs a writable byte that nobody else uses: the first of the mapping.
                unsafe { at.cast::<u8>().write(1) };
                unmap(black_box(at), BLOCK);
            });
        });
        for (name, builder) in presets() {
            let low = build(builder);
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    let mut block = low.allocate(BLOCK as u64, 1).expect("room");
                    block.as_mut_slice()[0] = 1;
                });
            });
        }
        group.finish();
        stop.store(true, Ordering::Relaxed);
    });
}

/// What a survey of the low window costs beside reading the text that the kernel has of all, with
/// nothing low but this program's own and the others high.
fn surveys(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("survey of the low window");
    let platform = low2g::platform::native().expect("this system's own");
    let window = platform.config().low_window.clone().expect("low memory");
    for count in [0_usize, 30_000] {
        let others = map_others(count);
        let mut found = Vec::new();
        group.bench_function(BenchmarkId::new("survey", count), |bencher| {
            bencher.iter(|| {
                found.clear();
                platform.survey(window, &mut found).expect("readable");
            });
        });
        group.bench_function(BenchmarkId::new("/proc/self/maps", count), |bencher| {
            bencher.iter(|| std::fs::read_to_string("/proc/self/maps").expect("Linux has it"));
        });
        for at in others {
            unmap(at, 4096);
        }
    }
    group.finish();
}

/// 256 bytes of code: `mov eax, imm32; ret` and breakpoints.
fn text(value: u32) -> [u8; 256] {
    let mut text = [0xcc; 256];
    text[0] = 0xb8;
    text[1..5].copy_from_slice(&value.to_le_bytes());
    text[5] = 0xc3;
    text
}

fn call(addr: u64) -> u32 {
    let entry = std::ptr::with_exposed_provenance::<()>(usize::try_from(addr).expect("64-bit"));
    // SAFETY: transmute needs a function of that type there: `text` was published at the address.
    let function = unsafe { std::mem::transmute::<*const (), extern "C" fn() -> u32>(entry) };
    function()
}

/// A memfd mapped twice, by hand: to write and to execute; until the program ends.
struct Views {
    write: *mut u8,
    execute: usize,
}

impl Views {
    const SLOTS: usize = 1024;
    const LEN: usize = Self::SLOTS * 256;

    fn new() -> Self {
        // SAFETY: memfd_create needs a string.
        let fd = unsafe { libc::memfd_create(c"benchmark".as_ptr(), 0) };
        let len = libc::off_t::try_from(Self::LEN).expect("small");
        // SAFETY: ftruncate needs no more than a number.
        assert_eq!(unsafe { libc::ftruncate(fd, len) }, 0);
        let view = |prot| {
            let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
            // SAFETY: without MAP_FIXED the kernel picks free address space only.
            let at = unsafe { libc::mmap(std::ptr::null_mut(), Self::LEN, prot, flags, fd, 0) };
            assert_ne!(at, libc::MAP_FAILED);
            at
        };
        Self {
            write: view(libc::PROT_READ | libc::PROT_WRITE).cast(),
            execute: view(libc::PROT_READ | libc::PROT_EXEC).expose_provenance(),
        }
    }

    fn write(&self, at: usize, code: &[u8]) {
        assert!(at + code.len() <= Self::LEN);
        // SAFETY: add needs to stay inside the view: just checked.
        let to = unsafe { self.write.add(at) };
        // SAFETY: copy_from_nonoverlapping needs as many bytes on both sides, apart: the view is ours.
        unsafe { to.copy_from_nonoverlapping(code.as_ptr(), code.len()) };
    }
}

fn publish(criterion: &mut Criterion) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let mut group = criterion.benchmark_group("256 bytes of code, another thread running");
        let low = build(LowAllocator::builder().bare());
        let code = text(7);
        group.bench_function("write, publish, call", |bencher| {
            bencher.iter_batched(
                || low.allocate_code(256, 16).expect("room"),
                |mut block| {
                    block.working_mem().copy_from_slice(&code);
                    let published = block.publish().expect("two views");
                    assert_eq!(call(published.exec_addr()), 7);
                    published
                },
                criterion::BatchSize::NumIterations(1024),
            );
        });
        // What no allocator can go below: the processor notices that what it is to run was just written.
        group.bench_function("write and call alone", |bencher| {
            let views = Views::new();
            let mut slots = (0..Views::SLOTS)
                .cycle()
                .map(|slot| slot * 7 % Views::SLOTS);
            bencher.iter(|| {
                let at = slots.next().expect("they come again") * code.len();
                views.write(at, &code);
                call(views.execute as u64 + at as u64)
            });
        });
        group.bench_function("mprotect pair around the write, call", |bencher| {
            let mut mapping = low.map(&MapRequest::new(1 << 20)).expect("room");
            mapping.populate().expect("memory");
            let first = low2g::platform::AddrRange::at(mapping.range().start(), 4096);
            let (first, all) = (first.expect("low"), mapping.range());
            bencher.iter(|| {
                let writable = low2g::platform::Protection::ReadWrite;
                mapping.protect(first, writable).expect("allowed");
                mapping.working_mem().expect("writable")[..256].copy_from_slice(&code);
                let executable = low2g::platform::Protection::ReadExecute;
                mapping.protect(first, executable).expect("allowed");
                call(all.start())
            });
        });
        group.finish();
        stop.store(true, Ordering::Relaxed);
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30);
    targets = pairs, large_blocks, surveys, publish
}
