//! Thread-local objects with changed bytes, and thread-local sections and symbols that make no
//! sense: an error or a link, never a panic, and nothing stays.

#![cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod battery;
#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;
#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod tls_support;

use std::panic::{AssertUnwindSafe, catch_unwind};

use battery::elf::{self, Obj, Of, Sec, Sym, Where};
use battery::link::{Externals, dry, link};
use battery::rng::{Rng, mutate, seed};
use low2g::alloc::LowAllocator;
use low2g::link::report::Report;
use low2g::link::{ExternalKind, Input, Link, LinkFailure, LinkOptions, ProcessSymbols, Relax};
use low2g::place::Placer;
use tls_support::{MODELS, alone, compile};

const SHF_TLS: u64 = 0x400;
const STT_TLS: u8 = 6;
const RELAX: [Relax; 3] = [Relax::None, Relax::PcRelative, Relax::All];

/// Links without the process, as `--dry-run --no-process-symbols` does, and dumps.
fn attempt(bytes: &[u8], relax: Relax) -> Result<(), LinkFailure> {
    let externals =
        Externals::default().with("__tls_get_addr", 0x7f00_0000_0000, ExternalKind::Function);
    let options = LinkOptions {
        record: true,
        synthetic_tls: true,
        relax,
        ..LinkOptions::default()
    };
    let inputs = [Input::from_bytes("changed.o", bytes)];
    let linked = link(&inputs, &options, &externals, &dry(1))?;
    let size: u64 = linked.regions().map(|region| region.range.len()).sum();
    if size < 1 << 20 {
        Report::of(&linked)?;
    }
    Ok(())
}

/// As `attempt`; a panic fails with what replays it.
fn survive(context: &str, bytes: &[u8], relax: Relax) -> Result<(), LinkFailure> {
    let result = catch_unwind(AssertUnwindSafe(|| attempt(bytes, relax)));
    result.unwrap_or_else(|_| panic!("{context}: panicked"))
}

/// The objects of all models, and what they are called.
fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let compiled = MODELS.iter().map(|model| {
        let flags = ["-DALIGN=16".to_owned(), "-DSIZE=40".to_owned()];
        let object = compile("define.c", model.flags, &flags);
        (
            model.name,
            std::fs::read(object).expect("it was just compiled"),
        )
    });
    compiled.collect()
}

#[test]
fn changed_objects_without_the_process() {
    let seed = seed();
    for (name, original) in seeds() {
        let (mut linked, count) = (0, 1_500_u32);
        for round in 0..count {
            let mut rng = Rng::new(seed ^ u64::from(round).wrapping_mul(0x9e37_79b9));
            let mut bytes = original.clone();
            let changed = mutate(&mut rng, &mut bytes);
            let context = format!("{name}, seed {seed}, round {round}, changed at{changed}");
            let relax = rng.pick(&RELAX);
            linked += u32::from(survive(&context, &bytes, relax).is_ok());
        }
        assert!(
            linked > 0 && linked < count,
            "{name}: {linked} of {count} linked"
        );
    }
}

/// With carriers, which the dynamic linker must take whatever the objects say.
#[test]
fn changed_objects_in_the_process() {
    let _alone = alone();
    let seed = seed();
    let before = low2g::link::tls::static_space(1 << 16);
    let placer = Placer::Mapped {
        allocator: LowAllocator::new().expect("this process has low memory"),
        reach: None,
        min_entropy: None,
    };
    for (name, original) in seeds() {
        let mut linked = 0;
        for round in 0..150_u64 {
            let mut rng = Rng::new(seed ^ round.wrapping_mul(0x9e37_79b9));
            let mut bytes = original.clone();
            let changed = mutate(&mut rng, &mut bytes);
            let context = format!("{name}, seed {seed}, round {round}, changed at{changed}");
            let options = LinkOptions {
                relax: rng.pick(&RELAX),
                ..LinkOptions::default()
            };
            let inputs = [Input::from_bytes("changed.o", bytes)];
            // To the end, but for constructors: the file may name anything as one.
            let attempt = || {
                let mut link = Link::read(&inputs, &options)?;
                link.resolve(&ProcessSymbols::new());
                link.place(&placer)?.relocate()?.protect().map(drop)
            };
            let result = catch_unwind(AssertUnwindSafe(attempt)).map(|result| result.is_ok());
            linked += i32::from(result.unwrap_or_else(|_| panic!("{context}: panicked")));
        }
        assert!(linked > 0, "{name}: some changes do no harm");
    }
    assert_eq!(low2g::link::tls::static_space(1 << 16), before);
}

/// One thread-local relocation of each type in eight bytes of code, everywhere.
#[test]
fn relocations_at_the_edges_of_code() {
    let mut rng = Rng::new(seed());
    let types = [
        16, 17, 18, 19, 20, 21, 22, 23, 34, 35, 36, 44, 45, 47, 48, 50, 51,
    ];
    for kind in types {
        for len in 0..24_u64 {
            for offset in (0..=len).chain([u64::MAX, u64::MAX - 3, 1 << 63]) {
                let mut object = Obj::default();
                let code = rng.bytes(usize::try_from(len).expect("small"));
                let text = object.section(Sec::text(code));
                let data = object.section(Sec::new(
                    ".tdata",
                    elf::ALLOC | elf::WRITE | SHF_TLS,
                    vec![1; 16],
                ));
                let addend = rng.pick(&[0, -4, 1 << 31, i64::MAX, i64::MIN]);
                let own = Sym::new("own", elf::GLOBAL, STT_TLS, Where::In(data), 4).sized(4);
                let own = object.symbol(own);
                object.sections[text] =
                    object.sections[text]
                        .clone()
                        .rel(offset, kind, Of::Sym(own), addend);
                let bytes = object.build();
                for relax in RELAX {
                    let context = format!("type {kind} at {offset:#x} of {len} bytes, {relax:?}");
                    let result = survive(&context, &bytes, relax);
                    let width = if matches!(kind, 16 | 17 | 18 | 34) {
                        8
                    } else {
                        4
                    };
                    let inside = offset.checked_add(width).is_some_and(|end| end <= len);
                    // A descriptor's call has no field.
                    assert!(inside || kind == 35 || result.is_err(), "{context}: linked");
                }
            }
        }
    }
}

#[test]
fn senseless_sections_and_symbols() {
    let tls = elf::ALLOC | elf::WRITE | SHF_TLS;
    let object = |section: Sec, symbol: &dyn Fn(usize) -> Sym| {
        let mut object = Obj::default();
        let data = object.section(section);
        let symbol = object.symbol(symbol(data));
        // `mov %fs:x@tpoff, %eax; ret`
        let code = vec![0x64, 0x8b, 0x04, 0x25, 0, 0, 0, 0, 0xc3];
        object.section(Sec::text(code).rel(4, 23, Of::Sym(symbol), 0));
        object.build()
    };
    let variable = |at| Sym::new("x", elf::GLOBAL, STT_TLS, at, 0).sized(4);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "2 EiB of zeros",
            object(Sec::zeros(".tbss", tls, 1 << 61), &|data| {
                variable(Where::In(data))
            }),
            "can have 2 GiB",
        ),
        (
            "aligned to 2^62",
            object(Sec::zeros(".tbss", tls, 4).aligned(1 << 62), &|data| {
                variable(Where::In(data))
            }),
            "aligned to 1 MiB",
        ),
        (
            "a thread-local symbol in .data",
            object(Sec::data(vec![1; 4]), &|data| variable(Where::In(data))),
            "symbol x is thread-local (STT_TLS) and defined in",
        ),
        (
            "an absolute thread-local symbol",
            object(Sec::new(".tdata", tls, vec![1; 4]), &|_| {
                variable(Where::Absolute)
            }),
            "symbol x is thread-local (STT_TLS) and defined in",
        ),
    ];
    for (case, bytes, word) in cases {
        for relax in RELAX {
            match survive(case, &bytes, relax) {
                Ok(()) => panic!("{case}: linked"),
                Err(failure) => {
                    let text = failure.to_string();
                    assert!(text.contains(word), "{case}: {text}");
                }
            }
        }
    }
}
