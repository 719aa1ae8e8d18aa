//! Every form of GOT relaxation, byte for byte: what is relaxed, to what, and what must not be
//! (psABI, "Optimize GOTPCRELX Relocations"), with GNU ld where it does the same.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod battery;

use std::process::Command;

use battery::elf::{self, Obj, Of, Sec, Sym, Where};
use battery::link::{Externals, bytes_at, dry, link, options, own_pin, pin, report, unhex};
use battery::tool::{Folder, succeed};
use low2g::link::report::Report;
use low2g::link::{Input, LinkOptions, Relax};

/// An address for sections that no instruction refers to.
const DATA: u64 = 0x1000_0000;
const GOT: u64 = 0x2000_0000;

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

/// Instructions that GNU ld relaxes to the same bytes; mov by GOTPCRELX it turns into an
/// immediate where low2g takes lea, and is left out.
const AS_LD: &str = "
.text
.globl here
here:
 call *there@GOTPCREL(%rip)
 jmp *there@GOTPCREL(%rip)
 test %eax, there@GOTPCREL(%rip)
 test %rcx, there@GOTPCREL(%rip)
 test %r15, there@GOTPCREL(%rip)
 add there@GOTPCREL(%rip), %eax
 or there@GOTPCREL(%rip), %rdx
 adc there@GOTPCREL(%rip), %r8
 sbb there@GOTPCREL(%rip), %r9d
 and there@GOTPCREL(%rip), %rsi
 sub there@GOTPCREL(%rip), %r12
 xor there@GOTPCREL(%rip), %ebp
 cmp there@GOTPCREL(%rip), %r13
 .byte 0x4c, 0x8b, 0x1d
 .reloc ., R_X86_64_GOTPCREL, there - 4
 .long 0
 ret
.data
.globl there
there: .quad 1
";

#[test]
fn gnu_ld_relaxes_to_the_same_bytes() {
    let folder = Folder::new();
    let object = folder.compile("x.s", AS_LD, &[]);
    let program = folder.path("program");
    succeed(
        Command::new("ld")
            .args([
                "-m",
                "elf_x86_64",
                "-static",
                "--no-warn-rwx-segments",
                "-e",
                "0",
            ])
            .args(["-Ttext=0x10000000", "-Tdata=0x30000000", "-o"])
            .args([&program, &object]),
    );
    let text = folder.path("text");
    succeed(
        Command::new("objcopy")
            .args(["-O", "binary", "-j", ".text"])
            .args([&program, &text]),
    );
    let wanted = std::fs::read(&text).expect("objcopy wrote it");
    let data = std::fs::read(&object).expect("the assembler wrote it");
    let inputs = [Input::from_bytes("x.o", data)];
    let options = LinkOptions {
        pins: vec![
            pin("x.o", 1, NEAR.text),
            pin_by_name("x.o", ".data", NEAR.symbol),
        ],
        ..options()
    };
    let linked = link(&inputs, &options, &Externals::default(), &dry(1)).expect("links");
    let len = u64::try_from(wanted.len()).expect("short");
    assert_eq!(bytes_at(&linked, NEAR.text, len), wanted);
    assert!(report(&linked).got.is_empty(), "no slot is left");
}

fn pin_by_name(file: &str, section: &str, addr: u64) -> low2g::link::Pin {
    format!("{file},{section}={addr:#x}")
        .parse()
        .expect("a pin")
}
