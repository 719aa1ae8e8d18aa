//! Every relocation type on both edges of its range. Values are computed here from the psABI's formulas, not by the library's table.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod battery;

use battery::elf::{self, Form, Obj, Of, Sec, Sym, Where};
use battery::link::{Externals, bytes_at, dry, link, options, own_pin, pin, word_at};
use battery::rng::{Rng, seed};
use low2g::link::{ExternalKind, Input, LinkError, LinkFailure, LinkOptions, Relax};

const DATA: u64 = 0x1000_0000;
const GOT: u64 = 0x2000_0000;
/// Not a multiple of any field's width.
const OFFSET: u64 = 3;
const OLD: u8 = 0xa5;

/// What a formula counts from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum From {
    /// S + A
    Symbol,
    /// S + A - P
    Place,
    /// G + A, in the first slot
    Slot,
    /// G + GOT + A - P
    SlotFromPlace,
    /// GOT + A - P
    GotFromPlace,
    /// S + A - GOT
    SymbolFromGot,
    /// Z + A
    Size,
}

const I32: (i128, i128) = (-(1 << 31), (1 << 31) - 1);
const U32: (i128, i128) = (0, (1 << 32) - 1);

/// Type, width in bytes, formula, least and greatest value (None: all).
type TypeRow = (u32, usize, From, Option<(i128, i128)>);

const TYPES: [TypeRow; 27] = [
    (1, 8, From::Symbol, None),
    (2, 4, From::Place, Some(I32)),
    (3, 4, From::Slot, Some(I32)),
    (9, 4, From::SlotFromPlace, Some(I32)),
    (10, 4, From::Symbol, Some(U32)),
    (11, 4, From::Symbol, Some(I32)),
    (12, 2, From::Symbol, Some((-0x8000, 0xffff))),
    (13, 2, From::Place, Some((-0x8000, 0x7fff))),
    (14, 1, From::Symbol, Some((-0x80, 0xff))),
    (15, 1, From::Place, Some((-0x80, 0x7f))),
    (24, 8, From::Place, None),
    (25, 8, From::SymbolFromGot, None),
    (26, 4, From::GotFromPlace, Some(I32)),
    (27, 8, From::Slot, None),
    (28, 8, From::SlotFromPlace, None),
    (29, 8, From::GotFromPlace, None),
    (30, 8, From::Slot, None),
    (31, 8, From::SymbolFromGot, None),
    (32, 4, From::Size, Some(U32)),
    (33, 8, From::Size, None),
    (39, 4, From::Place, Some(I32)),
    (41, 4, From::SlotFromPlace, Some(I32)),
    (42, 4, From::SlotFromPlace, Some(I32)),
    (43, 4, From::SlotFromPlace, Some(I32)),
    (46, 4, From::SlotFromPlace, Some(I32)),
    (49, 4, From::SlotFromPlace, Some(I32)),
    (4, 4, From::Place, Some(I32)),
];

/// The value without its addend.
fn base(from: From, s: u64, size: u64) -> u64 {
    let place = DATA + OFFSET;
    match from {
        From::Symbol => s,
        From::Place => s.wrapping_sub(place),
        From::Slot => 0,
        From::SlotFromPlace | From::GotFromPlace => GOT.wrapping_sub(place),
        From::SymbolFromGot => s.wrapping_sub(GOT),
        From::Size => size,
    }
}

/// Links an object of one relocation in `.data` against the absolute symbol `s`; gives `.data`.
fn one(kind: u32, s: u64, size: u64, addend: i64) -> Result<Vec<u8>, LinkFailure> {
    let mut object = Obj::default();
    let symbol = Sym::new("s", elf::GLOBAL, elf::NOTYPE, Where::Absolute, s).sized(size);
    let symbol = object.symbol(symbol);
    object.section(Sec::data(vec![OLD; 16]).rel(OFFSET, kind, Of::Sym(symbol), addend));
    let options = LinkOptions {
        pins: vec![
            pin("one.o", 1, DATA),
            own_pin(".got", GOT),
            own_pin(".stubs", GOT + 0x1000),
        ],
        ..options()
    };
    let inputs = [Input::from_bytes("one.o", object.build())];
    let linked = link(&inputs, &options, &Externals::default(), &dry(1))?;
    Ok(bytes_at(&linked, DATA, 16))
}

/// `.data` with `value` in a field of `width` bytes.
fn expected(width: usize, value: u64) -> Vec<u8> {
    let mut bytes = vec![OLD; 16];
    let at = usize::try_from(OFFSET).expect("small");
    bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
    bytes
}

#[test]
fn exact_fit_and_one_beyond() {
    for (kind, width, from, range) in TYPES {
        let (s, size) = (0x1234_5678, 0x77);
        let Some((low, high)) = range else {
            for addend in [0, 1, -1, i64::MIN, i64::MAX] {
                let value = base(from, s, size).wrapping_add_signed(addend);
                let bytes = one(kind, s, size, addend).expect("64-bit fields hold all");
                assert_eq!(
                    bytes,
                    expected(width, value),
                    "type {kind}, addend {addend}"
                );
            }
            continue;
        };
        for (value, fits) in [
            (low, true),
            (high, true),
            (low - 1, false),
            (high + 1, false),
        ] {
            let addend =
                i64::try_from(value - i128::from(base(from, s, size).cast_signed())).expect("near");
            let wrapped = i64::try_from(value).expect("near").cast_unsigned();
            let result = one(kind, s, size, addend);
            if fits {
                let bytes =
                    result.unwrap_or_else(|error| panic!("type {kind}, {value:#x}: {error}"));
                assert_eq!(
                    bytes,
                    expected(width, wrapped),
                    "type {kind}, value {value:#x}"
                );
                continue;
            }
            let failure = result.expect_err("one beyond the range");
            let [
                LinkError::Overflow {
                    site,
                    value: got,
                    place,
                    range,
                    symbol_addr,
                    ..
                },
            ] = failure.errors()
            else {
                panic!("type {kind}, value {value:#x}: {failure}");
            };
            assert_eq!(
                (*got, *place, *symbol_addr),
                (wrapped, DATA + OFFSET, s),
                "type {kind}"
            );
            assert_eq!(
                (*range, site.addend, site.symbol.as_str()),
                ((low, high), addend, "s")
            );
            assert_eq!(
                (
                    site.at.object.as_str(),
                    site.at.section.as_str(),
                    site.at.offset
                ),
                ("one.o", ".data", OFFSET)
            );
        }
    }
}

#[test]
fn extreme_addends_and_symbols_wrap_without_a_panic() {
    for (kind, width, from, range) in TYPES {
        for s in [0, 1, 1 << 31, u64::MAX, i64::MAX.cast_unsigned()] {
            for addend in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX] {
                let size = if from == From::Size { s } else { 0 };
                let value = base(from, s, size).wrapping_add_signed(addend);
                let fits = range.is_none_or(|(low, high)| {
                    let unsigned = low == 0 && i128::from(value) <= high;
                    let signed = low < 0 && (low..=high).contains(&i128::from(value.cast_signed()));
                    unsigned || signed
                });
                let result = one(kind, s, size, addend);
                assert_eq!(
                    result.is_ok(),
                    fits,
                    "type {kind}, s {s:#x}, addend {addend}"
                );
                if let Ok(bytes) = result {
                    assert_eq!(
                        bytes,
                        expected(width, value),
                        "type {kind}, s {s:#x}, addend {addend}"
                    );
                }
            }
        }
    }
}

#[test]
fn fields_at_the_end_of_the_section() {
    for (kind, width, _, _) in TYPES {
        let width = u64::try_from(width).expect("small");
        for (offset, inside) in [
            (16 - width, true),
            (17 - width, false),
            (16, false),
            (u64::MAX - 3, false),
            (u64::MAX, false),
            (1 << 32, false),
        ] {
            let mut object = Obj::default();
            let symbol = object.symbol(Sym::new(
                "s",
                elf::GLOBAL,
                elf::NOTYPE,
                Where::Absolute,
                DATA,
            ));
            // The addend brings any formula near 0.
            let from = TYPES
                .iter()
                .find(|row| row.0 == kind)
                .expect("it is of the table")
                .2;
            let near = match from {
                From::Place
                | From::SlotFromPlace
                | From::GotFromPlace
                | From::Slot
                | From::Size
                | From::SymbolFromGot => 0,
                From::Symbol => -i64::try_from(DATA).expect("small"),
            };
            object.section(Sec::data(vec![OLD; 16]).rel(offset, kind, Of::Sym(symbol), near));
            let options = LinkOptions {
                pins: vec![pin("end.o", 1, DATA), own_pin(".got", GOT)],
                ..options()
            };
            let inputs = [Input::from_bytes("end.o", object.build())];
            let result = link(&inputs, &options, &Externals::default(), &dry(1));
            match result {
                Ok(_) => assert!(inside, "type {kind} at {offset:#x}"),
                Err(failure) => {
                    let [LinkError::Input { at, .. }] = failure.errors() else {
                        panic!("type {kind} at {offset:#x}: {failure}");
                    };
                    assert!(
                        !inside && at.offset == offset,
                        "type {kind} at {offset:#x}: {failure}"
                    );
                }
            }
        }
    }
}

#[test]
fn types_without_meaning_are_refused_by_name_or_number() {
    let dynamic = [
        (5, "COPY"),
        (6, "GLOB_DAT"),
        (7, "JUMP_SLOT"),
        (8, "RELATIVE"),
        (36, "TLSDESC"),
        (37, "IRELATIVE"),
        (38, "RELATIVE64"),
    ];
    let named = dynamic.map(|(kind, name)| (kind, format!("R_X86_64_{name}")));
    let numbered = [52, 53, 100, 255, 256, 0x1000, u32::MAX]
        .map(|kind| (kind, format!("relocation type {kind}")));
    for (kind, name) in named.into_iter().chain(numbered) {
        let failure = one(kind, 0, 0, 0).expect_err("refused");
        let [LinkError::UnsupportedRelocation { site, .. }] = failure.errors() else {
            panic!("type {kind}: {failure}");
        };
        assert_eq!(site.r_type, name);
    }
}

#[test]
fn none_does_nothing_whatever_it_names() {
    let mut object = Obj::default();
    let data =
        Sec::data(vec![OLD; 16])
            .rel(0, 0, Of::Nothing, 5)
            .rel(1 << 40, 0, Of::Raw(12_345), 5);
    object.section(data);
    let options = options();
    let inputs = [Input::from_bytes("none.o", object.build())];
    let linked = link(&inputs, &options, &Externals::default(), &dry(1)).expect("nothing to do");
    let addr = linked.sections()[0].addr;
    assert_eq!(bytes_at(&linked, addr, 16), vec![OLD; 16]);
    // Any other type needs its symbol.
    let failure = {
        let mut object = Obj::default();
        object.section(Sec::data(vec![OLD; 16]).rel(0, 1, Of::Raw(12_345), 5));
        let inputs = [Input::from_bytes("raw.o", object.build())];
        link(&inputs, &options, &Externals::default(), &dry(1)).expect_err("no such symbol")
    };
    assert!(failure.to_string().contains("symbol #12345"), "{failure}");
}

#[test]
fn symbol_0_is_the_number_0() {
    let mut object = Obj::default();
    object.section(Sec::data(vec![OLD; 16]).rel(0, 1, Of::Nothing, 0x55).rel(
        8,
        10,
        Of::Nothing,
        0x66,
    ));
    let options = options();
    let inputs = [Input::from_bytes("zero.o", object.build())];
    let linked = link(&inputs, &options, &Externals::default(), &dry(1)).expect("links");
    let addr = linked.sections()[0].addr;
    assert_eq!(
        bytes_at(&linked, addr, 12),
        [0x55, 0, 0, 0, 0, 0, 0, 0, 0x66, 0, 0, 0]
    );
}

#[test]
fn weak_undefined_symbols_are_0() {
    let mut object = Obj::default();
    let weak = object.symbol(Sym::new(
        "weak",
        elf::WEAK,
        elf::NOTYPE,
        Where::Undefined,
        0,
    ));
    let data = Sec::data(vec![OLD; 24])
        .rel(0, 1, Of::Sym(weak), 0)
        .rel(8, 10, Of::Sym(weak), 4);
    object.section(
        data.rel(12, 2, Of::Sym(weak), 0)
            .rel(16, 11, Of::Sym(weak), -1),
    );
    object.section(
        Sec::text([0xe8, 0, 0, 0, 0, 0x48, 0x8b, 0x05, 0, 0, 0, 0])
            .rel(1, 4, Of::Sym(weak), -4)
            .rel(8, 42, Of::Sym(weak), -4),
    );
    let options = LinkOptions {
        pins: vec![
            pin("weak.o", 1, DATA),
            pin("weak.o", 2, DATA + 0x1000),
            own_pin(".got", GOT),
        ],
        relax: Relax::None,
        ..options()
    };
    let inputs = [Input::from_bytes("weak.o", object.build())];
    let linked = link(&inputs, &options, &Externals::default(), &dry(1)).expect("links");
    let mut data = [0u8; 16].to_vec();
    data[8] = 4;
    data[12..].copy_from_slice(
        &u32::try_from(0u64.wrapping_sub(DATA + 12) & 0xffff_ffff)
            .expect("masked")
            .to_le_bytes(),
    );
    data.extend([0xff; 4]);
    assert_eq!(bytes_at(&linked, DATA, 20), data);
    let call = bytes_at(&linked, DATA + 0x1001, 4);
    let target = (DATA + 0x1005)
        .wrapping_add_signed(i64::from(i32::from_le_bytes(call.try_into().expect("4"))));
    assert_eq!(target, 0, "a call to it goes to 0");
    assert_eq!(word_at(&linked, GOT), 0, "its slot holds 0");
}

#[test]
fn crel_says_the_same_as_rela() {
    let mut rng = Rng::new(seed());
    for _ in 0..40 {
        let mut object = Obj::default();
        for name in ["a", "b", "c"] {
            object.symbol(Sym::new(
                name,
                elf::GLOBAL,
                elf::NOTYPE,
                Where::Absolute,
                rng.next(),
            ));
        }
        let len = 200 + rng.index(20_000);
        let mut data = Sec::data(rng.bytes(len));
        let mut offset = 0;
        while offset + 8 < len {
            let symbol = if rng.one_in(5) {
                Of::Nothing
            } else {
                Of::Sym(rng.index(3))
            };
            let at = u64::try_from(offset).expect("usize fits");
            data = data.rel(
                at,
                rng.pick(&[1, 24, 33, 0]),
                symbol,
                rng.next().cast_signed() >> rng.below(64),
            );
            offset += 8 + rng.index(300);
        }
        object.section(data);
        let size = object.sections[0].size();
        let options = LinkOptions {
            pins: vec![pin("x.o", 1, DATA)],
            ..options()
        };
        let bytes = |object: &Obj| {
            let inputs = [Input::from_bytes("x.o", object.build())];
            let linked = link(&inputs, &options, &Externals::default(), &dry(1)).expect("links");
            bytes_at(&linked, DATA, size)
        };
        let rela = bytes(&object);
        object.sections[0].form = Form::Crel;
        assert_eq!(rela, bytes(&object));
    }
}

fn put(code: &[u8], value: u64) -> Vec<u8> {
    [code, &value.to_le_bytes()[..4]].concat()
}

#[test]
fn a_branch_beyond_reach_takes_a_stub_and_data_does_not() {
    let far = 0x7fff_0000_0000u64;
    let branches: [&[u8]; 4] = [&[0xe8], &[0xe9], &[0x0f, 0x84], &[0x0f, 0x8f]];
    for (kind, code) in [2, 4]
        .into_iter()
        .flat_map(|kind| branches.map(|code| (kind, code)))
    {
        let mut object = Obj::default();
        let symbol = object.symbol(Sym::new(
            "far",
            elf::GLOBAL,
            elf::NOTYPE,
            Where::Undefined,
            0,
        ));
        let at = u64::try_from(code.len()).expect("short");
        object.section(Sec::text([code, &[0; 4]].concat()).rel(at, kind, Of::Sym(symbol), -4));
        let options = LinkOptions {
            pins: vec![
                pin("x.o", 1, DATA),
                own_pin(".got", GOT),
                own_pin(".stubs", GOT + 0x1000),
            ],
            ..options()
        };
        let inputs = [Input::from_bytes("x.o", object.build())];
        let externals = Externals::default().with("far", far, ExternalKind::Function);
        let linked = link(&inputs, &options, &externals, &dry(1)).expect("a stub");
        assert_eq!(
            bytes_at(&linked, DATA + at, 4),
            put(&[], (GOT + 0x1000).wrapping_sub(DATA + at + 4))
        );
        let stub = bytes_at(&linked, GOT + 0x1000, 6);
        assert_eq!(stub, put(&[0xff, 0x25], GOT.wrapping_sub(GOT + 0x1006)));
        assert_eq!(word_at(&linked, GOT), far);
    }
}
