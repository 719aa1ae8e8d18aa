//! Malformed input: an error or a link, never a panic, a hang or memory that stays mapped.
//!
//! Real objects and objects of every kind of section are cut at each byte, and their bytes are
//! changed at random from a printed seed. What still links is linked to the end and dumped.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod battery;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use battery::ar;
use battery::elf::{self, Form, Group, Obj, Of, Sec, Sym, Where};
use battery::link::{Externals, dry, link};
use battery::rng::{Rng, mutate, seed};
use battery::tool::Folder;
use low2g::alloc::LowAllocator;
use low2g::link::report::Report;
use low2g::link::{ExternalKind, Input, LinkFailure, LinkOptions};
use low2g::place::Placer;
use nix::time::ClockId;

/// No input of a few kilobytes takes longer, on a slow machine and without optimisation.
const HANG: Duration = Duration::from_secs(20);

/// How long this thread has run: a machine that pauses or has other work is no hang.
fn busy() -> Duration {
    let clock = ClockId::CLOCK_THREAD_CPUTIME_ID;
    clock.now().expect("Linux has this clock").into()
}

fn demo() -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/demo/demo.o");
    std::fs::read(path).expect("demo.o is part of the repository")
}

/// What a compiler makes: unwind tables, thread-locals, debug information, constructors.
fn compiled() -> Vec<u8> {
    let source = "
        static __thread int counter = 5; __thread long zeros[9]; extern int printf(const char *, ...);
        static int even(void) { return 2; } static int (*choose(void))(void) { return even; }
        int chosen(void) __attribute__((ifunc(\"choose\")));
        __attribute__((constructor)) static void begin(void) { counter++; }
        __attribute__((weak)) int weak(int x) { switch (x) { case 1: return 7; case 2: return 9; case 3: return 1; case 4: return 8; case 5: return 3; } return x; }
        int main(int c, char **v) { zeros[c]++; return printf(\"%d\", counter + chosen() + weak(c)); }";
    let folder = Folder::new();
    let object = folder.compile(
        "real.c",
        source,
        &["-g", "-fexceptions", "-ffunction-sections"],
    );
    std::fs::read(object).expect("it was just compiled")
}

/// An object with every kind of section: groups, CREL, commons, ifuncs, init arrays, notes.
fn rich() -> Obj {
    let mut object = Obj::default();
    let mut text = vec![
        0x48, 0x8b, 0x05, 0, 0, 0, 0, 0xe8, 0, 0, 0, 0, 0xbf, 0, 0, 0, 0,
    ];
    text.extend([0x48, 0x8b, 0x3d, 0, 0, 0, 0, 0xff, 0x15, 0, 0, 0, 0, 0xc3]);
    let text = object.section(Sec::text(text).aligned(16));
    let data = object.section(Sec::data(vec![0xaa; 64]).aligned(8));
    object.section(Sec::zeros(".bss", elf::ALLOC | elf::WRITE, 4096).aligned(64));
    let linkonce = object.section(Sec::new(
        ".text.once",
        elf::ALLOC | elf::EXEC,
        vec![0xc3; 16],
    ));
    let mut debug = Sec::new(".debug_info", 0, vec![0; 32]);
    let mut init = Sec::new(".init_array", elf::ALLOC | elf::WRITE, vec![0; 8]);
    init.kind = 14;
    let cluster = object.section(Sec::new("cluster", elf::ALLOC, vec![1; 24]));
    let main =
        object.symbol(Sym::new("main", elf::GLOBAL, elf::FUNC, Where::In(text), 0).sized(31));
    let local = object.symbol(Sym::new("", elf::LOCAL, elf::SECTION, Where::In(data), 0));
    let once = object.symbol(Sym::new(
        "once",
        elf::WEAK,
        elf::FUNC,
        Where::In(linkonce),
        0,
    ));
    let far = object.symbol(Sym::new(
        "far",
        elf::GLOBAL,
        elf::NOTYPE,
        Where::Undefined,
        0,
    ));
    let common =
        object.symbol(Sym::new("common", elf::GLOBAL, elf::OBJECT, Where::Common, 32).sized(100));
    let ifunc = object.symbol(Sym::new(
        "chosen",
        elf::GLOBAL,
        elf::IFUNC,
        Where::In(text),
        30,
    ));
    let start = object.symbol(Sym::new(
        "__start_cluster",
        elf::GLOBAL,
        elf::NOTYPE,
        Where::Undefined,
        0,
    ));
    let number = object.symbol(Sym::new(
        "number",
        elf::GLOBAL,
        elf::NOTYPE,
        Where::Absolute,
        0x1234,
    ));
    object.sections[text] = object.sections[text]
        .clone()
        .rel(3, 42, Of::Sym(common), -4)
        .rel(8, 4, Of::Sym(far), -4)
        .rel(13, 10, Of::Sym(far), 0)
        .rel(20, 2, Of::Sym(far), -4)
        .rel(26, 41, Of::Sym(main), -4);
    object.sections[data] = object.sections[data]
        .clone()
        .rel(0, 1, Of::Sym(local), 8)
        .rel(8, 10, Of::Sym(once), 0)
        .rel(12, 2, Of::Sym(ifunc), 0)
        .rel(16, 24, Of::Sym(start), 0)
        .rel(24, 27, Of::Sym(far), 0)
        .rel(32, 12, Of::Sym(number), 0)
        .rel(40, 33, Of::Sym(common), 0);
    object.sections[data].form = Form::Crel;
    object.sections[cluster] = object.sections[cluster].clone().rel(8, 1, Of::Sym(main), 0);
    init = init.rel(0, 1, Of::Sym(main), 0);
    object.section(init);
    debug = debug
        .rel(0, 1, Of::Sym(once), 0)
        .rel(8, 10, Of::Sym(main), 4);
    object.section(debug);
    object.groups.push(Group {
        signature: once,
        members: vec![linkonce],
    });
    object
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let members = vec![("one.o", rich().build()), ("two.o", demo())];
    let index = [("main", 0), ("demo_sum", 1)];
    vec![
        ("real.o", compiled()),
        ("demo.o", demo()),
        ("rich.o", rich().build()),
        ("lib.a", ar::archive(&members, Some(&index))),
        ("bare.a", ar::archive(&members, None)),
    ]
}

/// Links to the end, and dumps; what came out does not matter but to good inputs.
fn attempt(name: &str, bytes: &[u8], placer: &Placer) -> Result<(), LinkFailure> {
    let externals = Externals::default()
        .with("far", 0x7fff_1234_5678, ExternalKind::Function)
        .with("printf", 0x7fff_1234_0000, ExternalKind::Function)
        .with("fflush", 0x7fff_1234_0800, ExternalKind::Function)
        .with("fprintf", 0x7fff_1234_1000, ExternalKind::Function)
        .with("stdout", 0x7fff_1234_2000, ExternalKind::Data);
    let options = LinkOptions {
        record: true,
        entry: Some("main".to_owned()),
        ..LinkOptions::default()
    };
    let inputs = [Input::from_bytes(name, bytes)];
    let linked = link(&inputs, &options, &externals, placer)?;
    if linked
        .regions()
        .map(|region| region.range.len())
        .sum::<u64>()
        < 1 << 20
    {
        Report::of(&linked)?;
    }
    Ok(())
}

/// As `attempt`; a panic or a hang fails with what replays it.
fn survive(context: &str, name: &str, bytes: &[u8], placer: &Placer) -> bool {
    let start = busy();
    let result = catch_unwind(AssertUnwindSafe(|| attempt(name, bytes, placer)));
    let took = busy() - start;
    assert!(took < HANG, "{context}: took {took:?}");
    result
        .unwrap_or_else(|_| panic!("{context}: panicked"))
        .is_ok()
}

/// What is mapped below 2 GiB.
fn low_mappings() -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("this is Linux");
    let low = maps.lines().filter(|line| {
        let start = line.split('-').next().expect("a line has an address");
        u64::from_str_radix(start, 16).expect("hexadecimal") < 1 << 31
    });
    low.map(str::to_owned).collect()
}

fn mapped() -> Placer {
    Placer::Mapped {
        allocator: LowAllocator::new().expect("this process has low memory"),
        reach: None,
        min_entropy: None,
    }
}

#[test]
fn the_seeds_themselves_link() {
    for (name, bytes) in seeds() {
        if let Err(failure) = attempt(name, &bytes, &dry(1)) {
            panic!("{name} is a good input: {failure}");
        }
    }
}

#[test]
fn cut_at_every_byte() {
    for (name, bytes) in seeds() {
        let mut linked = 0;
        for len in 0..bytes.len() {
            let context = format!("{name} cut to {len} bytes");
            linked += usize::from(survive(&context, name, &bytes[..len], &dry(1)));
        }
        // An object's section headers stand last, so each cut loses some.
        assert!(
            linked == 0 || name.ends_with(".a"),
            "{linked} cuts of {name} linked"
        );
    }
}

fn mutations(count: u64, placer: impl Fn(u64) -> Placer) {
    let seed = seed();
    for (name, original) in seeds() {
        let mut linked = 0u64;
        for round in 0..count {
            let mut rng = Rng::new(seed ^ round.wrapping_mul(0x9e37_79b9));
            let mut bytes = original.clone();
            let changed = mutate(&mut rng, &mut bytes);
            let context = format!("{name}, seed {seed}, round {round}, changed at{changed}");
            linked += u64::from(survive(&context, name, &bytes, &placer(round)));
        }
        assert!(linked > 0, "{name}: some changes do no harm");
        assert!(linked < count, "{name}: some changes do harm");
    }
}

#[test]
fn random_changes_in_a_dry_run() {
    mutations(
        if cfg!(debug_assertions) {
            3_000
        } else {
            50_000
        },
        dry,
    );
}

#[test]
fn random_changes_with_memory() {
    // Its anchor page stays as long as the allocator.
    let placer = mapped();
    attempt("rich.o", &rich().build(), &placer).expect("a good input");
    let before = low_mappings();
    mutations(if cfg!(debug_assertions) { 500 } else { 4_000 }, |_| {
        placer.clone()
    });
    assert_eq!(
        before,
        low_mappings(),
        "a link that failed or was dropped leaves nothing mapped"
    );
}

/// Offsets in an ELF header and in a section header of 64 bytes.
#[test]
fn absurd_numbers_in_every_header_field() {
    let original = rich().build();
    let table = usize::try_from(u64::from_le_bytes(
        original[40..48].try_into().expect("8 bytes"),
    ))
    .expect("a small offset");
    let headers = (16..64).chain(table..original.len());
    for at in headers.step_by(2) {
        for value in [
            0u64,
            1,
            0x7fff,
            0xffff,
            1 << 31,
            1 << 32,
            1 << 62,
            u64::MAX - 7,
            u64::MAX,
        ] {
            for width in [2usize, 4, 8] {
                if at + width > original.len() || at % width != 0 {
                    continue;
                }
                let mut bytes = original.clone();
                bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
                survive(
                    &format!("{width} bytes at {at:#x} = {value:#x}"),
                    "rich.o",
                    &bytes,
                    &dry(1),
                );
            }
        }
    }
}

#[test]
fn a_long_function_of_far_references_is_linear() {
    let count = 20_000u64;
    let mut object = Obj::default();
    let text = object.section(Sec::text(
        [0x48, 0x8b, 0x05, 0, 0, 0, 0].repeat(index(count)),
    ));
    object.symbol(Sym::new("f", elf::GLOBAL, elf::FUNC, Where::In(text), 0));
    let far = object.symbol(Sym::new(
        "stdout",
        elf::GLOBAL,
        elf::NOTYPE,
        Where::Undefined,
        0,
    ));
    for number in 0..count {
        object.sections[text].rels.push(elf::Rel {
            offset: 7 * number + 3,
            kind: 2,
            of: Of::Sym(far),
            addend: -4,
        });
    }
    let bytes = object.build();
    let start = busy();
    let options = LinkOptions::default();
    let externals = Externals::default().with("stdout", 0x7fff_1234_2000, ExternalKind::Data);
    let inputs = [Input::from_bytes("long.o", bytes)];
    link(&inputs, &options, &externals, &dry(1)).expect("every reference takes an island");
    // Decoding from the function's start for each takes minutes without optimisation.
    let took = busy() - start;
    assert!(took < HANG, "took {took:?}");
}

fn index(value: u64) -> usize {
    usize::try_from(value).expect("64-bit tests")
}

#[test]
fn zeros_beyond_any_memory_are_refused_not_allocated() {
    let mut zeros = Obj::default();
    zeros.section(Sec::zeros("zone", elf::ALLOC | elf::WRITE, 1 << 40));
    let start = zeros.symbol(Sym::new(
        "__start_zone",
        elf::GLOBAL,
        elf::NOTYPE,
        Where::Undefined,
        0,
    ));
    zeros.section(Sec::data([0u8; 8]).rel(0, 1, Of::Sym(start), 0));
    let mut contents = Obj::default();
    contents.section(Sec::new("zone", elf::ALLOC | elf::WRITE, vec![1; 8]));
    let inputs = [
        Input::from_bytes("zeros.o", zeros.build()),
        Input::from_bytes("contents.o", contents.build()),
    ];
    for base in [None, Some(1 << 32)] {
        let options = LinkOptions {
            base,
            ..LinkOptions::default()
        };
        let failure = link(&inputs, &options, &Externals::default(), &dry(1))
            .expect_err("contents behind a TiB of zeros");
        assert!(failure.is_memory(), "{failure}");
    }
}
