//! Faults that a review found in the engine: each test failed before its fix.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod battery;

use std::time::{Duration, Instant};

use battery::elf::{
    ALLOC, DEFAULT, EXEC, FUNC, GLOBAL, IFUNC, NOTYPE, Obj, Of, Sec, Sym, WEAK, Where,
};
use battery::link::{Externals, bytes_at, dry, link, options, report, unhex};
use low2g::link::{ExternalKind, Input, LinkError, LinkFailure, LinkOptions};

fn fails(inputs: &[Input], externals: &Externals) -> LinkFailure {
    let options = LinkOptions::default();
    link(inputs, &options, externals, &dry(1)).expect_err("does not link")
}

/// 12,000 missing names beside 12,000 defined ones were compared pair by pair: a minute.
#[test]
fn many_undefined_symbols_are_told_at_once() {
    const COUNT: usize = 12_000;
    let mut obj = Obj::default();
    let mut text = Sec::text(vec![0; 8 * COUNT]);
    for number in 0..COUNT {
        let missing = format!("some_function_that_is_missing_{number}");
        let missing = obj.symbol(Sym::new(&missing, GLOBAL, NOTYPE, Where::Undefined, 0));
        let defined = format!("some_function_that_is_defined_{number}");
        obj.symbol(Sym::new(&defined, GLOBAL, FUNC, Where::In(0), 0));
        let offset = u64::try_from(8 * number).expect("small");
        text = text.rel(offset, 1, Of::Sym(missing), 0);
    }
    let near = obj.symbol(Sym::new("prinft", GLOBAL, NOTYPE, Where::Undefined, 0));
    obj.symbol(Sym::new("printf", GLOBAL, FUNC, Where::In(0), 0));
    text.rels.insert(0, {
        let mut first = text.rels[0];
        first.of = Of::Sym(near);
        first
    });
    obj.section(text);
    let input = [Input::from_bytes("many.o", obj.build())];
    let start = Instant::now();
    let failure = fails(&input, &Externals::default());
    let elapsed = start.elapsed();
    assert_eq!(failure.errors().len(), COUNT + 1, "all are listed");
    let LinkError::UndefinedSymbol { nearest, .. } = &failure.errors()[0] else {
        panic!("{failure}");
    };
    assert_eq!(nearest.as_deref(), Some("printf"));
    assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
}

/// Fields that are no instruction's were each looked for from the function's start, for every
/// relocation of the link, long after there were errors enough to give up.
#[test]
fn fields_outside_of_instructions_are_told_at_once() {
    const COUNT: u64 = 20_000;
    let mut obj = Obj::default();
    let far = obj.symbol(Sym::new("far", GLOBAL, NOTYPE, Where::Undefined, 0));
    let mut text = Sec::text(vec![0x90; 160_000]);
    for number in 0..COUNT {
        text = text.rel(8 * number + 1, 2, Of::Sym(far), -4);
    }
    obj.section(text);
    obj.symbol(Sym::new("f", GLOBAL, FUNC, Where::In(0), 0));
    let input = [Input::from_bytes("nops.o", obj.build())];
    let externals = Externals::default().with("far", 0x7fff_0000_0000, ExternalKind::Data);
    let start = Instant::now();
    let failure = fails(&input, &externals);
    let elapsed = start.elapsed();
    assert!(
        (1..=100).contains(&failure.errors().len()),
        "a bounded list"
    );
    assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
}

/// The gaps of code regions hold int3, so a code region is not all zero even if its sections are.
#[test]
fn a_code_region_without_contents_is_read_back() {
    let mut obj = Obj::default();
    obj.section(Sec::zeros(".pool", ALLOC | EXEC, 100));
    let start = obj.symbol(Sym::new("pool", GLOBAL, NOTYPE, Where::In(0), 0));
    assert_eq!(start, 0);
    let input = [Input::from_bytes("pool.o", obj.build())];
    let options = options();
    let mapped = low2g::place::Placer::Mapped {
        allocator: low2g::alloc::LowAllocator::new().expect("low memory"),
        reach: None,
        min_entropy: None,
    };
    for placer in [dry(2), mapped] {
        let linked = link(&input, &options, &Externals::default(), &placer).expect("links");
        let pool = linked.symbol("pool").expect("defined");
        let page = pool & !4095;
        let report = report(&linked);
        let row = report.memory.iter().find(|row| unhex(&row.addr) == page);
        let row = row.expect("its page is listed");
        assert!(!row.zero, "the gap is filled: {placer:?}");
        let text = row.bytes.as_deref().expect("with bytes");
        assert!(text.ends_with("cccc"), "int3 behind the section");
        assert_eq!(bytes_at(&linked, pool, 100), [0; 100]);
    }
}

/// `Linked::symbol` gave an ifunc's resolver, and 0 for what is nowhere defined.
#[test]
fn symbols_are_what_other_modules_would_see() {
    let mut obj = Obj::default();
    let chosen = obj.symbol(Sym::new("chosen", GLOBAL, IFUNC, Where::In(0), 0));
    obj.symbol(Sym::new("unused", GLOBAL, IFUNC, Where::In(0), 0));
    let nowhere = obj.symbol(Sym::new("nowhere", WEAK, NOTYPE, Where::Undefined, 0));
    obj.symbol(Sym::new("plain", GLOBAL, FUNC, Where::In(0), 3).visible(DEFAULT));
    let got = obj.symbol(Sym::new(
        "_GLOBAL_OFFSET_TABLE_",
        GLOBAL,
        NOTYPE,
        Where::Undefined,
        0,
    ));
    let text = Sec::text([0xc3; 32]).rel(8, 1, Of::Sym(chosen), 0);
    let text = text
        .rel(16, 1, Of::Sym(nowhere), 0)
        .rel(24, 1, Of::Sym(got), 0);
    obj.section(text);
    let input = [Input::from_bytes("ifunc.o", obj.build())];
    let options = options();
    let linked = link(&input, &options, &Externals::default(), &dry(3)).expect("links");
    let report = report(&linked);
    assert_eq!(report.stubs.len(), 1);
    assert_eq!(
        linked.symbol("chosen"),
        Some(unhex(&report.stubs[0].addr)),
        "its one address is its stub's"
    );
    assert_eq!(linked.symbol("unused"), None, "as exports have it");
    assert_eq!(linked.symbol("nowhere"), None);
    assert_eq!(
        linked.symbol("_GLOBAL_OFFSET_TABLE_"),
        report.got_base.as_deref().map(unhex)
    );
    let plain = linked.symbol("plain").expect("defined");
    assert_eq!(bytes_at(&linked, plain, 1), [0xc3]);
}

/// A file that is itself called `a.o#2` made two objects of one name.
#[test]
fn names_are_unique_whatever_files_are_called() {
    let empty = Obj::default().build();
    let names = ["a.o#2", "a.o", "a.o", "a.o", "a.o#2"];
    let inputs: Vec<Input> = names
        .iter()
        .map(|name| Input::from_bytes(*name, empty.clone()))
        .collect();
    let options = options();
    let linked = link(&inputs, &options, &Externals::default(), &dry(4)).expect("links");
    let shown: Vec<String> = report(&linked)
        .objects
        .iter()
        .map(|object| object.name.clone())
        .collect();
    assert_eq!(shown, ["a.o#2", "a.o", "a.o#3", "a.o#4", "a.o#2#2"]);
}

/// Relocation sections over the same bytes of the file: 400 KB asked for gigabytes.
#[test]
fn relocation_sections_that_overlap_are_refused() {
    let mut obj = Obj::default();
    let mut text = Sec::text([0xc3; 16]);
    for _ in 0..8_000 {
        text = text.rel(0, 0, Of::Nothing, 0);
    }
    obj.section(text);
    let mut file = obj.build();
    let input = [Input::from_bytes("plain.o", file.clone())];
    let options = LinkOptions::default();
    link(&input, &options, &Externals::default(), &dry(5)).expect("links as it is");

    // The section table goes to the end of the file, with the header of .rela.text 3,000 times more.
    let word = |file: &[u8], at: usize| {
        let bytes = file[at..at + 8].try_into().expect("8 bytes");
        usize::try_from(u64::from_le_bytes(bytes)).expect("64-bit")
    };
    let count = usize::from(u16::from_le_bytes([file[60], file[61]]));
    let (start, end) = (word(&file, 40), file.len());
    let mut table = file[start..start + 64 * count].to_vec();
    let is_rela = |header: &&[u8]| header[4..8] == 4u32.to_le_bytes();
    let rela = table.chunks_exact(64).find(is_rela).expect("one").to_vec();
    table.extend(rela.repeat(3_000));
    file.extend(&table);
    file[40..48].copy_from_slice(&u64::try_from(end).expect("small").to_le_bytes());
    let count = u16::try_from(count + 3_000).expect("below 65,280");
    file[60..62].copy_from_slice(&count.to_le_bytes());

    let start = Instant::now();
    let failure = fails(
        &[Input::from_bytes("overlap.o", file)],
        &Externals::default(),
    );
    assert!(failure.to_string().contains("overlap;"), "{failure}");
    assert!(start.elapsed() < Duration::from_secs(10));
}
