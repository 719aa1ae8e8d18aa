//! Every relocation type on both edges of its range, and every form of GOT relaxation, byte for
//! byte. Values are computed here from the psABI's formulas, not by the library's table.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod battery;

use battery::elf::{self, Form, Obj, Of, Sec, Sym, Where};
use battery::link::{
    Externals, bytes_at, dry, link, options, own_pin, pin, report, unhex, word_at,
};
use battery::rng::{Rng, seed};
use low2g::link::report::Report;
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

/// One instruction with a GOT relocation.
struct Case {
    kind: u32,
    code: Vec<u8>,
    /// Offset of the field.
    field: u64,
    addend: i64,
}

fn case(kind: u32, code: &[u8]) -> Case {
    let field = u64::try_from(code.len()).expect("short");
    Case {
        kind,
        code: [code, &[0xd1, 0xd2, 0xd3, 0xd4]].concat(),
        field,
        addend: -4,
    }
}

/// Where things lie.
#[derive(Clone, Copy, Debug)]
struct At {
    text: u64,
    symbol: u64,
    got: u64,
}

const NEAR: At = At {
    text: 0x1000_0000,
    symbol: 0x3000_0000,
    got: 0x2000_0000,
};

/// Links the case: the bytes of `.text`, whether the GOT is read, and the report.
fn relaxed(case: &Case, at: At, relax: Relax, kind: u8) -> (Vec<u8>, bool, Report) {
    let mut object = Obj::default();
    let symbol = object.symbol(Sym::new("s", elf::GLOBAL, kind, Where::In(1), 0));
    let text =
        Sec::text(case.code.clone()).rel(case.field, case.kind, Of::Sym(symbol), case.addend);
    object.section(text);
    object.section(if kind == elf::IFUNC {
        Sec::new(".text.s", elf::ALLOC | elf::EXEC, vec![0xc3; 8])
    } else {
        Sec::data([1u8; 8])
    });
    let options = LinkOptions {
        pins: vec![
            pin("x.o", 1, at.text),
            pin("x.o", 2, at.symbol),
            own_pin(".got", at.got),
            own_pin(".stubs", at.got + 0x1000),
        ],
        relax,
        ..options()
    };
    let inputs = [Input::from_bytes("x.o", object.build())];
    let linked = link(&inputs, &options, &Externals::default(), &dry(1))
        .unwrap_or_else(|error| panic!("{:02x?} at {at:x?}: {error}", case.code));
    let report = report(&linked);
    let bytes = bytes_at(
        &linked,
        at.text,
        u64::try_from(case.code.len()).expect("short"),
    );
    (bytes, !report.got.is_empty(), report)
}

fn put(code: &[u8], value: u64) -> Vec<u8> {
    [code, &value.to_le_bytes()[..4]].concat()
}

/// The instruction must read the GOT's first slot, which holds S; only its field has changed.
fn assert_kept(case: &Case, at: At, relax: Relax) {
    let (bytes, got, report) = relaxed(case, at, relax, elf::OBJECT);
    let field = usize::try_from(case.field).expect("small");
    let value = at
        .got
        .wrapping_add_signed(case.addend)
        .wrapping_sub(at.text + case.field);
    let mut wanted = case.code.clone();
    wanted[field..field + 4].copy_from_slice(&value.to_le_bytes()[..4]);
    assert_eq!(bytes, wanted, "{:02x?} {at:x?} {relax:?}", case.code);
    assert!(
        got && unhex(&report.got[0].addr) == at.got,
        "{:02x?} reads its slot",
        case.code
    );
}

fn assert_relaxed(case: &Case, at: At, relax: Relax, wanted: &[u8]) {
    let (bytes, got, _) = relaxed(case, at, relax, elf::OBJECT);
    assert_eq!(bytes, wanted, "{:02x?} {at:x?} {relax:?}", case.code);
    assert!(!got, "{:02x?} needs no slot", case.code);
}

#[test]
fn pc_relative_relaxations() {
    let relative = |field: u64| NEAR.symbol.wrapping_sub(NEAR.text + field + 4);
    for relax in [Relax::PcRelative, Relax::All] {
        assert_relaxed(
            &case(41, &[0xff, 0x15]),
            NEAR,
            relax,
            &put(&[0x67, 0xe8], relative(2)),
        );
        let jump = [put(&[0xe9], relative(1)), vec![0x90]].concat();
        assert_relaxed(&case(41, &[0xff, 0x25]), NEAR, relax, &jump);
        for register in 0..8u8 {
            let modrm = 5 | register << 3;
            assert_relaxed(
                &case(41, &[0x8b, modrm]),
                NEAR,
                relax,
                &put(&[0x8d, modrm], relative(2)),
            );
            for rex in [0x40u8, 0x44, 0x48, 0x4c] {
                let wanted = put(&[rex, 0x8d, modrm], relative(3));
                assert_relaxed(&case(42, &[rex, 0x8b, modrm]), NEAR, relax, &wanted);
                if rex & 8 != 0 {
                    // The psABI does not promise the opcode for GOTPCREL: mov with REX.W alone.
                    assert_relaxed(&case(9, &[rex, 0x8b, modrm]), NEAR, relax, &wanted);
                }
            }
        }
    }
}

#[test]
fn immediate_relaxations() {
    for register in 0..8u8 {
        let modrm = 5 | register << 3;
        for (opcode, new, digit) in [
            (0x85u8, 0xf7u8, 0u8),
            (0x03, 0x81, 0),
            (0x0b, 0x81, 1),
            (0x13, 0x81, 2),
            (0x1b, 0x81, 3),
            (0x23, 0x81, 4),
            (0x2b, 0x81, 5),
            (0x33, 0x81, 6),
            (0x3b, 0x81, 7),
        ] {
            let new_modrm = 0xc0 | digit << 3 | register;
            let plain = case(41, &[opcode, modrm]);
            assert_relaxed(
                &plain,
                NEAR,
                Relax::All,
                &put(&[new, new_modrm], NEAR.symbol),
            );
            assert_kept(&plain, NEAR, Relax::PcRelative);
            for (rex, new_rex) in [(0x40u8, 0x40u8), (0x44, 0x41), (0x48, 0x48), (0x4c, 0x49)] {
                let one = case(42, &[rex, opcode, modrm]);
                assert_relaxed(
                    &one,
                    NEAR,
                    Relax::All,
                    &put(&[new_rex, new, new_modrm], NEAR.symbol),
                );
                assert_kept(&one, NEAR, Relax::PcRelative);
                assert_kept(&one, NEAR, Relax::None);
            }
        }
        // mov takes the immediate where only that reaches.
        let far_text = At {
            text: 0x7000_0000_0000,
            symbol: 0x3000_0000,
            got: 0x7000_1000_0000,
        };
        for (rex, new_rex) in [(0x48u8, 0x48u8), (0x4c, 0x49)] {
            let one = case(42, &[rex, 0x8b, modrm]);
            assert_relaxed(
                &one,
                far_text,
                Relax::All,
                &put(&[new_rex, 0xc7, 0xc0 | register], far_text.symbol),
            );
            assert_kept(&one, far_text, Relax::PcRelative);
        }
    }
}

#[test]
fn what_must_not_be_relaxed() {
    let instructions: [(u32, &[u8]); 6] = [
        (41, &[0xff, 0x15]),
        (41, &[0xff, 0x25]),
        (41, &[0x8b, 0x05]),
        (42, &[0x48, 0x8b, 0x05]),
        (42, &[0x48, 0x03, 0x05]),
        (9, &[0x48, 0x8b, 0x05]),
    ];
    for (kind, code) in instructions {
        assert_kept(&case(kind, code), NEAR, Relax::None);
        for addend in [0, -8, 4, -5, 1 << 20] {
            // JITLink once dropped the addend.
            assert_kept(
                &Case {
                    addend,
                    ..case(kind, code)
                },
                NEAR,
                Relax::All,
            );
        }
    }
    let wrong: [(u32, &[u8]); 15] = [
        (42, &[0x48, 0x89, 0x05]),
        (42, &[0x48, 0x63, 0x05]),
        (42, &[0x48, 0x8b, 0x04]),
        (42, &[0x48, 0x8b, 0x45]),
        (42, &[0x90, 0x8b, 0x05]),
        (42, &[0x48, 0xff, 0x35]),
        (41, &[0xff, 0x35]),
        (41, &[0x8a, 0x05]),
        (41, &[0xff, 0x55]),
        (9, &[0xff, 0x15]),
        (9, &[0x90, 0x8b, 0x05]),
        (9, &[0x48, 0x03, 0x05]),
        (43, &[0xd5, 0x48, 0x8b, 0x05]),
        (46, &[0x62, 0x48, 0x8b, 0x05]),
        (49, &[0x62, 0x48, 0x8b, 0x05]),
    ];
    for (kind, code) in wrong {
        assert_kept(&case(kind, code), NEAR, Relax::All);
    }
    // No room for an opcode before the field.
    for kind in [9, 41, 42, 43] {
        assert_kept(&case(kind, &[]), NEAR, Relax::All);
        assert_kept(&case(kind, &[0x8b]), NEAR, Relax::All);
    }
    assert_kept(&case(42, &[0x8b, 0x05]), NEAR, Relax::All);
}

#[test]
fn an_ifunc_keeps_its_slot_which_names_its_stub() {
    for (kind, code) in [
        (41u32, &[0xff, 0x15][..]),
        (42, &[0x48, 0x8b, 0x05]),
        (9, &[0x48, 0x8b, 0x05]),
    ] {
        let one = case(kind, code);
        let (bytes, got, report) = relaxed(&one, NEAR, Relax::All, elf::IFUNC);
        assert_eq!(bytes[..code.len()], *code);
        assert!(got);
        assert_eq!(
            report.stubs.iter().map(|row| row.kind).collect::<Vec<_>>(),
            ["ifunc"]
        );
    }
}

#[test]
fn data_is_never_taken_for_an_instruction() {
    let mut object = Obj::default();
    let symbol = object.symbol(Sym::new("s", elf::GLOBAL, elf::OBJECT, Where::In(0), 0));
    object.section(Sec::data(vec![0x48, 0x8b, 0x05, 0, 0, 0, 0]).rel(3, 42, Of::Sym(symbol), -4));
    let options = LinkOptions {
        pins: vec![pin("x.o", 1, DATA), own_pin(".got", GOT)],
        ..options()
    };
    let inputs = [Input::from_bytes("x.o", object.build())];
    let linked = link(&inputs, &options, &Externals::default(), &dry(1)).expect("links");
    assert_eq!(
        bytes_at(&linked, DATA, 7),
        put(&[0x48, 0x8b, 0x05], GOT.wrapping_sub(DATA + 7))
    );
}

#[test]
fn relaxed_only_where_the_final_value_fits() {
    // Relative forms, on both edges: up to eight bytes beyond, where JITLink's check was wrong.
    let text = 0x7000_0000_0000u64;
    for (kind, code, moved) in [
        (41u32, &[0xff, 0x15][..], 0u64),
        (41, &[0xff, 0x25], 1),
        (41, &[0x8b, 0x05], 0),
        (42, &[0x48, 0x8b, 0x05], 0),
        (9, &[0x48, 0x8b, 0x05], 0),
    ] {
        let one = case(kind, code);
        let end = text + one.field - moved + 4;
        for beyond in -1..=9i64 {
            for edge in [i64::from(i32::MAX) + beyond, i64::from(i32::MIN) - beyond] {
                let at = At {
                    text,
                    symbol: end.wrapping_add_signed(edge),
                    got: text + 0x1000,
                };
                if i32::try_from(edge).is_ok() {
                    let (_, got, _) = relaxed(&one, at, Relax::All, elf::OBJECT);
                    assert!(!got, "{code:02x?} reaches {edge:#x}");
                } else {
                    assert_kept(&one, at, Relax::All);
                }
            }
        }
    }
    // Immediate forms: 32-bit operations zero-extend, 64-bit ones sign-extend.
    for (kind, code, end) in [
        (42u32, &[0x48, 0x03, 0x05][..], 1u64 << 31),
        (42, &[0x48, 0x85, 0x05], 1 << 31),
        (42, &[0x48, 0x8b, 0x05], 1 << 31),
        (41, &[0x03, 0x05], 1 << 32),
        (41, &[0x85, 0x05], 1 << 32),
        (41, &[0x8b, 0x05], 1 << 32),
        (42, &[0x44, 0x3b, 0x05], 1 << 32),
    ] {
        for symbol in [end - 1, end, end + 1] {
            let at = At {
                text,
                symbol,
                got: text + 0x1000,
            };
            let one = case(kind, code);
            if symbol < end {
                let (bytes, got, _) = relaxed(&one, at, Relax::All, elf::OBJECT);
                assert!(
                    !got && bytes.ends_with(&symbol.to_le_bytes()[..4]),
                    "{code:02x?} holds {symbol:#x}"
                );
            } else {
                assert_kept(&one, at, Relax::All);
            }
        }
    }
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
