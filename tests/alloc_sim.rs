//! The allocator on simulated kernels: whatever the kernel is like, no claim
//! overlaps, leaves its reach, or stays behind.

use std::collections::BTreeMap;
use std::sync::Arc;

use low2g::alloc::{
    AllocError, CodeBlock, Kind, LowAllocator, LowBlock, MapRequest, Mapping, Placement, Reach,
    Step, Use,
};
use low2g::platform::linux::LinuxPlatform;
use low2g::platform::linux::abi::Errno;
use low2g::platform::sim::{self, LowMemory, Map32Bit, SimLinux, SimOptions};
use low2g::platform::{AddrRange, Protection};

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
const BRK: u64 = 0x1234_5000;
/// Where the simulated heap ends, and the room that must stay clear above it.
const BRK_ROOM: (u64, u64) = (BRK + 0x2_1000, 128 * MIB);

type Sim = Arc<LinuxPlatform<SimLinux>>;

fn simulated(options: SimOptions) -> Sim {
    Arc::new(sim::linux(options))
}

fn allocator(sim: &Sim, placement: Placement) -> LowAllocator {
    LowAllocator::builder()
        .platform(Arc::clone(sim) as _)
        .placement(placement)
        .build()
        .expect("the simulated system has a low window")
}

fn range(start: u64, len: u64) -> AddrRange {
    AddrRange::at(start, len).expect("small numbers")
}

/// What the backend left mapped, but for its anchor page.
fn leaked(sim: &Sim) -> Vec<AddrRange> {
    let anchor = sim.anchor();
    let leaked = sim
        .kernel()
        .leaked()
        .into_iter()
        .map(|mapping| mapping.range);
    leaked.filter(|range| Some(*range) != anchor).collect()
}

/// SplitMix64: the tests' own numbers, apart from the allocator's.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Something allocated, kept for its drop.
#[expect(dead_code, reason = "held only to be dropped")]
#[derive(Debug)]
enum Held {
    Mapping(Mapping),
    Block(LowBlock),
    Code(CodeBlock),
}

/// The live ranges, and the check that a new one is apart from all of them.
#[derive(Default)]
struct Oracle {
    live: BTreeMap<u64, (u64, Held)>,
}

impl Oracle {
    fn admit(&mut self, what: AddrRange, align: u64, window: AddrRange, held: Held, context: &str) {
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

    fn drop_one(&mut self, dice: &mut Dice) {
        let index = usize::try_from(dice.below(self.live.len() as u64)).expect("64-bit");
        let start = *self.live.keys().nth(index).expect("below the count");
        self.live.remove(&start);
    }
}

/// Random maps, blocks, code and drops, `operations` of them, against the oracle.
fn exercise(options: SimOptions, placement: Placement, operations: u64, most_live: usize) {
    let context = format!("seed {} {placement} {:?}", options.seed, options.low);
    let has_brk = matches!(options.low, LowMemory::NonPie { .. });
    let mut dice = Dice(options.seed);
    let sim = simulated(options);
    let low = allocator(&sim, placement);
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
        if has_brk {
            assert!(
                !what.overlaps(range(BRK_ROOM.0, BRK_ROOM.1)),
                "{what} in brk's room: {context}"
            );
        }
        oracle.admit(what, align, window, held, &context);
    }
    let mapped: u64 = leaked(&sim).iter().map(|range| range.len()).sum();
    assert_eq!(
        mapped,
        low.statistics().live_bytes,
        "the count of bytes drifted: {context}"
    );
    drop(oracle);
    let rest = leaked(&sim);
    assert!(rest.is_empty(), "still mapped {rest:?}: {context}");
    assert_eq!(low.statistics().live_mappings, 0);
    assert_eq!(sim.kernel().open_files(), 0, "{context}");
}

#[test]
fn no_overlap_over_many_operations() {
    for (seed, placement) in [
        (1, Placement::Randomized),
        (2, Placement::FirstFit),
        (3, Placement::Kernel),
    ] {
        exercise(
            SimOptions {
                seed,
                ..SimOptions::default()
            },
            placement,
            30_000,
            400,
        );
        let low = LowMemory::NonPie { brk: BRK };
        exercise(
            SimOptions {
                seed: seed + 10,
                low,
                ..SimOptions::default()
            },
            placement,
            30_000,
            400,
        );
    }
}

#[test]
fn other_kernels() {
    let base = SimOptions::default;
    let kernels = [
        SimOptions {
            kernel: (4, 16),
            seed: 20,
            ..base()
        },
        SimOptions {
            kernel: (4, 16),
            map_32bit: Map32Bit::Ignored,
            seed: 21,
            ..base()
        },
        SimOptions {
            kernel: (4, 17),
            map_32bit: Map32Bit::Fails,
            seed: 22,
            ..base()
        },
        SimOptions {
            kernel: (5, 10),
            map_32bit: Map32Bit::Fails,
            seed: 23,
            ..base()
        },
        SimOptions {
            mdwe: true,
            seed: 24,
            ..base()
        },
        SimOptions {
            memfd_noexec: 2,
            seed: 25,
            ..base()
        },
        SimOptions {
            thief_per_mille: 300,
            seed: 26,
            ..base()
        },
        SimOptions {
            thief_per_mille: 700,
            seed: 27,
            ..base()
        },
    ];
    for options in kernels {
        let low = LowMemory::NonPie { brk: BRK };
        exercise(options.clone(), Placement::Randomized, 1_000, 60);
        exercise(
            SimOptions { low, ..options },
            Placement::FirstFit,
            1_000,
            60,
        );
    }
}

#[test]
fn kernel_without_exact_claims_uses_hints() {
    let sim = simulated(SimOptions {
        kernel: (4, 16),
        ..SimOptions::default()
    });
    let low = allocator(&sim, Placement::Randomized);
    let mapping = low.map(&MapRequest::new(PAGE)).expect("hints work");
    assert_eq!(mapping.certificate().step, Step::Hint);
    assert!(mapping.certificate().entropy_bits > 18.9);
}

#[test]
fn kernel_that_ignores_hints_gives_the_weaker_grade() {
    let options = SimOptions {
        kernel: (4, 16),
        hints_honoured: false,
        ..SimOptions::default()
    };
    let sim = simulated(options);
    let low = allocator(&sim, Placement::Randomized);
    match low.map(&MapRequest::new(PAGE)) {
        Ok(mapping) => {
            assert_eq!(mapping.certificate().step, Step::Map32bit);
            assert!(mapping.certificate().entropy_bits < 0.1);
            assert!(low.window().encloses(mapping.range()));
        }
        // An emulator may give nothing low at all; then saying so is right.
        Err(error) => assert!(matches!(error, AllocError::Contended { .. }), "{error}"),
    }
    assert!(leaked(&sim).is_empty());
    let request = MapRequest {
        min_entropy: Some(8.0),
        ..MapRequest::new(PAGE)
    };
    assert!(
        low.map(&request).is_err(),
        "the weaker grade must not pass for 8 bits"
    );
    assert!(leaked(&sim).is_empty());
}

#[test]
fn one_hole_is_found_wherever_it_is() {
    for placement in [
        Placement::Randomized,
        Placement::FirstFit,
        Placement::Kernel,
    ] {
        for pages in [1, 16, 5_000] {
            for position in 0..24_u64 {
                let len = pages * PAGE;
                let window = (0x7f00_0000 - (16 * MIB) - len) / PAGE;
                let start = 16 * MIB + window * position / 23 * PAGE;
                let hole = range(start, len);
                let low = LowMemory::Holes(vec![hole]);
                let sim = simulated(SimOptions {
                    low,
                    seed: position,
                    ..SimOptions::default()
                });
                let low = allocator(&sim, placement);
                let found = low.map(&MapRequest::new(len)).expect("the hole fits");
                assert_eq!(found.range(), hole, "{placement}");
                assert_eq!(found.certificate().free_slots, 1);
                drop(found);
                let error = low
                    .map(&MapRequest::new(len + 1))
                    .expect_err("too large for the hole");
                let AllocError::Exhausted {
                    largest_hole,
                    free,
                    size,
                    ref holders,
                    ..
                } = error
                else {
                    panic!("{error}");
                };
                assert_eq!((largest_hole, free, size), (len, len, len + PAGE));
                assert!(!holders.is_empty(), "{error}");
            }
        }
    }
}

#[test]
fn draws_are_uniform() {
    const BINS: u64 = 4096;
    const DRAWS: u64 = 200_000;
    let brk = LowMemory::NonPie { brk: BRK };
    for (seed, memory) in [(5, LowMemory::Pie), (6, brk)] {
        let sim = simulated(SimOptions {
            seed,
            low: memory,
            ..SimOptions::default()
        });
        let low = allocator(&sim, Placement::Randomized);
        let kept: Vec<Mapping> = (0..100)
            .map(|_| low.map(&MapRequest::new(MIB)).expect("room"))
            .collect();
        let request = MapRequest::new(16 * PAGE);
        // The starts that are free, counted from the outside.
        let snapshot = low.snapshot().expect("maps");
        let free = snapshot.iter().filter(|region| region.usage == Use::Free);
        let holes: Vec<(u64, u64)> = free
            .filter(|region| region.range.len() >= request.size)
            .map(|region| {
                (
                    region.range.start(),
                    (region.range.len() - request.size) / PAGE + 1,
                )
            })
            .collect();
        let slots: u64 = holes.iter().map(|(_, starts)| starts).sum();
        let mut counts = vec![0_u32; usize::try_from(BINS).expect("small")];
        for _ in 0..DRAWS {
            let mapping = low.map(&request).expect("room");
            assert_eq!(mapping.certificate().free_slots, slots);
            let start = mapping.range().start();
            let mut index = 0;
            for (hole, starts) in &holes {
                if start >= *hole && start < hole + starts * PAGE {
                    index += (start - hole) / PAGE;
                    break;
                }
                index += starts;
            }
            counts[usize::try_from(index * BINS / slots).expect("below the bins")] += 1;
        }
        let mut chi_square = 0.0;
        for (bin, count) in counts.iter().enumerate() {
            let first = |bin: u64| (bin * slots).div_ceil(BINS);
            let bin = u64::try_from(bin).expect("small");
            let in_bin = u32::try_from(first(bin + 1) - first(bin)).expect("small");
            let all = u32::try_from(slots).expect("small");
            let expected = 200_000.0 * f64::from(in_bin) / f64::from(all);
            chi_square += (f64::from(*count) - expected).powi(2) / expected;
        }
        // 4,095 degrees of freedom: p = 1e-6 lies at 4,546 (Wilson-Hilferty).
        assert!(
            chi_square < 4_546.0,
            "chi-square {chi_square} for seed {seed}"
        );
        drop(kept);
    }
}

/// A life in miniature: every tier, every kind of call.
fn scenario(low: &LowAllocator) -> Result<(), AllocError> {
    let mut mapping = low.map(&MapRequest::new(64 << 10))?;
    let first = range(mapping.range().start(), PAGE);
    mapping.protect(first, Protection::ReadExecute)?;
    let _aligned = low.map(&MapRequest {
        align: 1 << 30,
        ..MapRequest::new(PAGE)
    })?;
    let _block = low.allocate(100, 8)?;
    let _large = low.allocate(100_000, 8)?;
    let code = low.allocate_code(100, 16)?;
    let _published = code.publish()?;
    let _large_code = low.allocate_code(100_000, 16)?;
    Ok(())
}

#[test]
fn every_call_failing_once_leaves_nothing_behind() {
    let with = |placement, kernel| {
        let sim = simulated(SimOptions {
            kernel,
            ..SimOptions::default()
        });
        let low = allocator(&sim, placement);
        (sim, low)
    };
    for placement in [
        Placement::Randomized,
        Placement::FirstFit,
        Placement::Kernel,
    ] {
        for kernel in [(6, 18), (4, 16)] {
            let (sim, low) = with(placement, kernel);
            let before = sim.kernel().calls();
            scenario(&low).expect("nothing fails");
            drop(low);
            let calls = sim.kernel().calls() - before;
            assert!(leaked(&sim).is_empty());
            let mut refused = 0;
            for errno in [Errno::ENOMEM, Errno::EPERM, Errno::EEXIST] {
                for call in 0..calls {
                    let (sim, low) = with(placement, kernel);
                    sim.kernel().fail_call(call, errno);
                    refused += u32::from(scenario(&low).is_err());
                    drop(low);
                    let rest = leaked(&sim);
                    let context = format!("{placement} {kernel:?} call {call} {errno:?}");
                    assert!(rest.is_empty(), "{rest:?} left: {context}");
                    assert_eq!(sim.kernel().open_files(), 0, "{context}");
                }
            }
            assert!(
                refused > 0,
                "no failure was noticed: {placement} {kernel:?}"
            );
        }
    }
}

#[test]
fn same_seed_same_addresses() {
    let addresses = |seed| -> Vec<u64> {
        let sim = simulated(SimOptions::default());
        let builder = LowAllocator::builder().platform(sim as _).seed(Some(seed));
        let low = builder.build().expect("a low window");
        let mappings: Vec<Mapping> = (1..50)
            .map(|pages| low.map(&MapRequest::new(pages * PAGE)).expect("room"))
            .collect();
        let block = low.allocate(40, 8).expect("room");
        assert!(mappings.iter().all(|mapping| {
            let certificate = mapping.certificate();
            certificate.seeded && certificate.entropy_bits < 0.1
        }));
        let starts = mappings.iter().map(|mapping| mapping.range().start());
        starts.chain([block.addr()]).collect()
    };
    assert_eq!(addresses(7), addresses(7));
    assert_ne!(addresses(7), addresses(8));
}

#[test]
fn certificates_reach_the_figures() {
    let sim = simulated(SimOptions::default());
    let low = allocator(&sim, Placement::Randomized);
    let live: Vec<Mapping> = (0..512)
        .map(|_| low.map(&MapRequest::new(64 << 10)).expect("room"))
        .collect();
    for mapping in &live {
        let certificate = mapping.certificate();
        assert!(certificate.entropy_bits >= 18.9, "{certificate:?}");
        assert_eq!(certificate.step, Step::Draw);
    }
    let blocks: Vec<LowBlock> = (0..5_000)
        .map(|_| low.allocate(64, 64).expect("room"))
        .collect();
    for block in &blocks {
        let certificate = block.certificate();
        assert!(certificate.entropy_bits >= 24.0, "{certificate:?}");
        assert!(certificate.conditional_bits >= 8.0, "{certificate:?}");
        assert_eq!(certificate.step, Step::Arena);
    }
    let request = MapRequest {
        min_entropy: Some(19.5),
        ..MapRequest::new(PAGE)
    };
    let error = low
        .map(&request)
        .expect_err("no window below 2 GiB has so many pages");
    assert!(matches!(error, AllocError::EntropyTooLow { .. }), "{error}");
}

#[test]
fn exact_address_and_reaches() {
    let sim = simulated(SimOptions {
        low: LowMemory::NonPie { brk: BRK },
        ..SimOptions::default()
    });
    let low = allocator(&sim, Placement::Randomized);
    let at = |at| MapRequest {
        at: Some(at),
        label: "mine".into(),
        kind: Kind::Section,
        ..MapRequest::new(PAGE)
    };
    let fixed = low.map(&at(0x2000_0000)).expect("free");
    assert_eq!(
        (fixed.range().start(), fixed.certificate().step),
        (0x2000_0000, Step::Fixed)
    );
    let error = low.map(&at(0x2000_0000)).expect_err("taken by us");
    assert!(error.to_string().contains("low2g: section mine"), "{error}");
    let error = low.map(&at(BRK)).expect_err("taken by the heap");
    assert!(error.to_string().contains("[heap]"), "{error}");
    for bad in [0x2000_0001, 0x1000, 0x7fff_0000] {
        let error = low.map(&at(bad)).expect_err("not in the reach");
        assert!(matches!(error, AllocError::BadRequest { .. }), "{error}");
    }
    for (reach, start, end) in [
        ("2g", 16 * MIB, 0x7f00_0000),
        ("2g-full", 16 * MIB, 1 << 31),
        ("4g", 16 * MIB, 1 << 32),
        ("near:0x7fbc00000000", 0x7fbb_8100_0000, 0x7fbc_7f00_0000),
        ("near:0x1000", 0x1_0000, 0x7f00_1000),
        ("0x30000-0x50000", 0x3_0000, 0x5_0000),
        ("2g+0x100000-0x2000000", 16 * MIB, 32 * MIB),
    ] {
        let parsed: Reach = reach.parse().expect("a reach");
        assert_eq!(parsed.to_string(), reach);
        let window = parsed.window(low.platform().config()).expect("addresses");
        assert_eq!((window.start(), window.end()), (start, end), "{reach}");
        let mapping = low.map(&MapRequest {
            reach: Some(parsed),
            ..MapRequest::new(PAGE)
        });
        assert!(window.encloses(mapping.expect("room").range()), "{reach}");
    }
    for bad in [
        "", "3g", "near:12", "near:0x", "0x2-0x1", "0x1", "2g+", "0x+1-0x2",
    ] {
        assert!(bad.parse::<Reach>().is_err(), "{bad}");
    }
}

#[test]
fn requests_that_cannot_be() {
    let sim = simulated(SimOptions::default());
    let low = allocator(&sim, Placement::Randomized);
    for (size, align) in [(0, 1), (u64::MAX, 1), (1, 0), (1, 3)] {
        assert!(
            matches!(
                low.allocate(size, align),
                Err(AllocError::BadRequest { .. })
            ),
            "{size} {align}"
        );
        assert!(matches!(
            low.allocate_code(size, align),
            Err(AllocError::BadRequest { .. })
        ));
    }
    for (size, align) in [(1 << 31, 1), (1 << 62, 1), (1, 1 << 40), (1, 1 << 63)] {
        assert!(
            matches!(low.allocate(size, align), Err(AllocError::Exhausted { .. })),
            "{size} {align}"
        );
    }
    assert!(LowAllocator::builder().floor(4096).build().is_err());
    assert!(leaked(&sim).is_empty());
}

#[test]
fn snapshot_tiles_and_marks_ours() {
    let sim = simulated(SimOptions {
        low: LowMemory::NonPie { brk: BRK },
        ..SimOptions::default()
    });
    let low = allocator(&sim, Placement::Randomized);
    let request = MapRequest {
        kind: Kind::Section,
        label: ".text".into(),
        ..MapRequest::new(8 * PAGE)
    };
    let mut mapping = low.map(&request).expect("room");
    let middle = range(mapping.range().start() + 2 * PAGE, PAGE);
    mapping
        .protect(middle, Protection::ReadExecute)
        .expect("allowed");
    let all = range(0, 1 << 31);
    let regions = low.snapshot_of(all).expect("maps");
    let mut cursor = 0;
    for region in &regions {
        assert_eq!(region.range.start(), cursor, "{regions:?}");
        cursor = region.range.end();
    }
    assert_eq!(cursor, all.end());
    let ours = regions
        .iter()
        .filter(|region| region.usage == Use::Ours(Kind::Section));
    let ours: Vec<_> = ours
        .map(|region| {
            (
                region.range.len() / PAGE,
                region.label.as_str(),
                region.access.as_str(),
            )
        })
        .collect();
    assert_eq!(
        ours,
        [
            (2, ".text", "rw-p"),
            (1, ".text", "r-xp"),
            (5, ".text", "rw-p")
        ]
    );
}
