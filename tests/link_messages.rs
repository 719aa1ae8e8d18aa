//! What is said of files whose parts contradict each other, and of options that do: where, what,
//! with the values, and what to do. (Other messages are tested where what they are about is.)

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod battery;

use battery::ar;
use battery::elf::{self, Form, Group, Obj, Of, Sec, Sym, Where};
use battery::link::{Externals, dry, link, options, pin};
use low2g::link::{FarData, Input, LinkOptions, Pin, Relax, SectionName};

/// Offsets in a section header (gABI): name, type, offset, size, link to another, entry size.
const NAME: usize = 0;
const TYPE: usize = 4;
const AT: usize = 24;
const SIZE: usize = 32;
const INFO: usize = 44;

fn word(bytes: &[u8], at: usize, width: usize) -> usize {
    let word = bytes[at..at + width].iter().rev();
    word.fold(0, |value, &byte| value << 8 | usize::from(byte))
}

/// The file with `value` in 4 bytes of the header of its first section of type `kind`.
fn patched(mut bytes: Vec<u8>, kind: u32, field: usize, value: u32) -> Vec<u8> {
    let (table, count) = (word(&bytes, 40, 8), word(&bytes, 60, 2));
    let kind = usize::try_from(kind).expect("small");
    let header = (0..count)
        .map(|index| table + 64 * index)
        .find(|&header| word(&bytes, header + TYPE, 4) == kind);
    let at = header.expect("there is a section of this type") + field;
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    bytes
}

/// Code, data with a relocation, a group, symbols.
fn good() -> Obj {
    let mut object = Obj::default();
    let text = object.section(Sec::text(vec![0xc3; 16]));
    let once = object.section(Sec::new(".text.once", elf::ALLOC | elf::EXEC, vec![0xc3]));
    let main = object.symbol(Sym::new("main", elf::GLOBAL, elf::FUNC, Where::In(text), 0));
    let signature = Sym::new("once", elf::WEAK, elf::FUNC, Where::In(once), 0);
    let signature = object.symbol(signature);
    object.section(Sec::data(vec![0; 16]).rel(8, 1, Of::Sym(main), 0));
    object.groups.push(Group {
        signature,
        members: vec![once],
    });
    object
}

fn attempt(name: &str, bytes: &[u8], options: &LinkOptions) -> Option<String> {
    let inputs = [Input::from_bytes(name, bytes)];
    let result = link(&inputs, options, &Externals::default(), &dry(1));
    result.err().map(|failure| failure.to_string())
}

/// The link fails, and says all of `words`.
fn says(bytes: &[u8], options: &LinkOptions, words: &[&str]) {
    let text = attempt("bad.o", bytes, options);
    let text = text.unwrap_or_else(|| panic!("linked, but: {words:?}"));
    for word in words {
        assert!(text.contains(word), "'{word}' is not in: {text}");
    }
}

const RELA: u32 = elf::SHT_RELA;
const SYMTAB: u32 = 2;
const GROUP: u32 = 17;

#[test]
fn the_good_object_links() {
    assert_eq!(attempt("good.o", &good().build(), &options()), None);
}

#[test]
fn headers_of_sections() {
    let bytes = || good().build();
    let cases: [(Vec<u8>, &[&str]); 9] = [
        (
            patched(bytes(), elf::SHT_PROGBITS, NAME, 0x00ff_ffff),
            &["bad.o: input: ", "name of section #1"],
        ),
        (
            patched(bytes(), elf::SHT_PROGBITS, AT, 0x00ff_0000),
            &[
                "bad.o: input: section .text (16 bytes at offset 0xff0000) runs past the end of the",
                "is it truncated?",
            ],
        ),
        (
            patched(bytes(), elf::SHT_PROGBITS, SIZE, 0x00ff_0000),
            &["section .text (16711680 bytes at offset"],
        ),
        (
            patched(bytes(), RELA, AT, 0x00ff_0000),
            &["relocation section #", "is the file truncated?"],
        ),
        (
            patched(bytes(), RELA, SIZE, 25),
            &["relocation section #", "is the file truncated?"],
        ),
        (
            patched(bytes(), RELA, INFO, 99),
            &["relocation section #", "is for section #99, of"],
        ),
        (
            patched(bytes(), GROUP, AT, 0x00ff_0000),
            &["section group #"],
        ),
        (
            patched(bytes(), GROUP, INFO, 77),
            &["section group #", "signature is symbol #77, of 3"],
        ),
        (
            patched(bytes(), SYMTAB, AT, 0x00ff_0000),
            &["bad.o: input: "],
        ),
    ];
    for (bytes, words) in cases {
        says(&bytes, &options(), words);
    }
}

#[test]
fn symbols_and_relocations() {
    let mut object = good();
    // The symbol table's names are in a table of their own.
    let bytes = object.build();
    let table = {
        let file = object::File::parse(&*bytes).expect("an object");
        let section = object::Object::section_by_name(&file, ".symtab").expect("it has one");
        let range = object::ObjectSection::file_range(&section).expect("in the file");
        usize::try_from(range.0).expect("small")
    };
    let with = |at: usize, value: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[table + at..table + at + value.len()].copy_from_slice(value);
        bytes
    };
    // The second symbol: st_name at 0, st_shndx at 6.
    says(
        &with(24, &[0xff, 0xff, 0xff, 0]),
        &options(),
        &["bad.o: input: name of a symbol: "],
    );
    says(
        &with(24 + 6, &[0x77, 0]),
        &options(),
        &["bad.o: input: symbol #1 is in section 0x77, of"],
    );
    let relocations = &mut object.sections[2].rels;
    relocations[0].of = Of::Raw(55);
    says(
        &object.build(),
        &options(),
        &["bad.o(.data+0x8): input: relocation refers to symbol #55, of 3"],
    );
    object.sections[2].rels[0].of = Of::Sym(0);
    object.sections[2].rels[0].offset = 13;
    for form in [Form::Rela, Form::Crel] {
        object.sections[2].form = form;
        says(
            &object.build(),
            &options(),
            &[
                "bad.o(.data+0xd): input: R_X86_64_64 field of 8 bytes ends past the section's 16 bytes",
            ],
        );
    }
    for (kind, words) in [
        (52, "relocation type 52"),
        (255, "relocation type 255"),
        (5, "R_X86_64_COPY"),
        (6, "R_X86_64_GLOB_DAT"),
        (7, "R_X86_64_JUMP_SLOT"),
        (8, "R_X86_64_RELATIVE"),
        (37, "R_X86_64_IRELATIVE"),
        (38, "R_X86_64_RELATIVE64"),
    ] {
        object.sections[2].rels[0].offset = 0;
        object.sections[2].rels[0].kind = kind;
        says(
            &object.build(),
            &options(),
            &["bad.o(.data+0x0): unsupported_reloc: ", words],
        );
    }
}

#[test]
fn archives() {
    let member = good().build();
    let archive = ar::archive(&[("one.o", member.clone())], Some(&[("main", 0)]));
    let cut = &archive[..archive.len() - 100];
    let wanted = LinkOptions {
        entry: Some("main".to_owned()),
        ..options()
    };
    says(cut, &wanted, &["bad.o: input: member", "is it truncated?"]);
    let whole = LinkOptions {
        whole_archive: true,
        ..options()
    };
    says(
        cut,
        &whole,
        &["bad.o: input: members: ", "is it truncated?"],
    );
    let mut wrong_index = archive.clone();
    // The index: a 60-byte header after the magic, then a big-endian count.
    wrong_index[8 + 60..8 + 64].copy_from_slice(&u32::MAX.to_be_bytes());
    says(
        &wrong_index,
        &wanted,
        &["bad.o: input: symbol index: ", "run `ranlib` on it"],
    );
    says(
        b"!<arch>\n/ this is no member header",
        &options(),
        &["bad.o: input: ", "is it truncated?"],
    );
}

fn pinned(pins: &[(usize, u64)]) -> LinkOptions {
    LinkOptions {
        pins: pins
            .iter()
            .map(|&(section, at)| pin("bad.o", section, at))
            .collect(),
        ..options()
    }
}

#[test]
fn given_addresses() {
    let bytes = good().build();
    type Pins = [(usize, u64)];
    let cases: [(&Pins, &[&str]); 4] = [
        (&[(99, 0x1000_0000)], &["has ", " sections, no #99"]),
        (
            &[(1, 0x1000_0000), (1, 0x2000_0000)],
            &["section #1 is put at 0x10000000 and at 0x20000000"],
        ),
        (
            &[(1, 0x1000_0000), (2, 0x1000_0008)],
            &[
                "overlaps",
                "where another section was put; give them addresses apart",
            ],
        ),
        (&[(4, 0x1000_0000)], &["is not loaded"]),
    ];
    for (pins, words) in cases {
        says(&bytes, &pinned(pins), words);
    }
    let nobody = LinkOptions {
        pins: vec![pin("other.o", 1, 0x1000_0000)],
        ..options()
    };
    says(
        &bytes,
        &nobody,
        &["other.o", "no object of that name is part of the link"],
    );
    let unnamed = LinkOptions {
        pins: vec![Pin {
            file: "bad.o".to_owned(),
            section: SectionName::Name(".nowhere".to_owned()),
            addr: 0x1000_0000,
        }],
        ..options()
    };
    says(&bytes, &unnamed, &["has no loaded section .nowhere"]);
    let mut aligned = good();
    aligned.sections[0].align = 64;
    says(
        &aligned.build(),
        &pinned(&[(1, 0x1000_0008)]),
        &["0x10000008 is not a multiple of the section's alignment 64"],
    );
}

#[test]
fn words_of_options() {
    let error = "sideways".parse::<Relax>().expect_err("no such word");
    assert_eq!(
        error.to_string(),
        "relaxation sideways is none of none, pcrel, all"
    );
    let error = "bridge".parse::<FarData>().expect_err("no such word");
    assert_eq!(
        error.to_string(),
        "far data handling bridge is none of island, error"
    );
    let error = "a.o".parse::<Pin>().expect_err("no address");
    assert_eq!(error.to_string(), "a.o: not of the form FILE,SECTION=ADDR");
    let error = "a.o,.text=ten".parse::<Pin>().expect_err("no number");
    assert!(
        error
            .to_string()
            .contains("ten is not an address (0x and hexadecimal digits, or decimal)"),
        "{error}"
    );
}
