//! Instructions as the system's assembler and compilers write them.

use std::process::Command;

use low2g::link::island::{FarField, FieldKind, instruction_at};
use object::{Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget};

/// A relocation of a text section.
pub struct Reference {
    pub offset: usize,
    pub kind: FieldKind,
    pub symbol: String,
    pub addend: i64,
}

pub struct Text {
    pub name: String,
    pub code: Vec<u8>,
    /// Starts of labels or functions, ascending.
    pub starts: Vec<usize>,
    pub references: Vec<Reference>,
}

impl Text {
    /// The label that `offset` belongs to.
    pub fn start_of(&self, offset: usize) -> usize {
        let before = self.starts.iter().rev().find(|&&s| s <= offset);
        *before.expect("code begins with a label")
    }

    /// The instruction that holds the field of `reference`: its offset, length and far field.
    pub fn locate(&self, reference: &Reference) -> Option<(usize, usize, FarField)> {
        let start = self.start_of(reference.offset);
        let found = instruction_at(&self.code, 0x1000, start, reference.offset)
            .unwrap_or_else(|e| panic!("{}: {e}", self.name));
        if found.role == low2g::link::island::FieldRole::Branch {
            return None;
        }
        let s_plus_a = 0x7f12_3456_7000_u64.wrapping_add_signed(reference.addend);
        let field = FarField::new(found.field, reference.kind, s_plus_a, found.len);
        Some((found.offset, found.len, field))
    }
}

/// Runs `compiler` on `source` and returns its text sections, or nothing where it is missing.
pub fn compile(
    compiler: &str,
    language: &str,
    options: &[&str],
    source: &str,
) -> Option<Vec<Text>> {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (input, output) = (dir.path().join("in"), dir.path().join("out.o"));
    std::fs::write(&input, source).expect("source written");
    let result = Command::new(compiler)
        .args(["-c", "-x", language])
        .args(options)
        .arg(&input)
        .arg("-o")
        .arg(&output)
        .output();
    let result = match result {
        Ok(result) => result,
        Err(error) => {
            println!("skipped: cannot run {compiler}: {error}");
            return None;
        }
    };
    let errors = String::from_utf8_lossy(&result.stderr).into_owned();
    assert!(result.status.success(), "{compiler} {options:?}: {errors}");
    let bytes = std::fs::read(&output).expect("object written");
    Some(texts(&bytes))
}

pub fn texts(bytes: &[u8]) -> Vec<Text> {
    let file = object::File::parse(bytes).expect("an ELF object");
    let sections = file
        .sections()
        .filter(|s| s.kind() == object::SectionKind::Text && s.size() > 0);
    sections
        .map(|section| {
            let mut starts: Vec<usize> = file
                .symbols()
                .filter(|s| s.section_index() == Some(section.index()))
                .map(|s| s.address() as usize)
                .collect();
            starts.sort_unstable();
            starts.dedup();
            let references = section.relocations().filter_map(|(offset, relocation)| {
                let RelocationFlags::Elf { r_type } = relocation.flags() else {
                    return None;
                };
                let kind = match r_type {
                    object::elf::R_X86_64_PC32 => FieldKind::PcRel,
                    object::elf::R_X86_64_32 => FieldKind::Abs32,
                    object::elf::R_X86_64_32S => FieldKind::Abs32S,
                    _ => return None,
                };
                let RelocationTarget::Symbol(symbol) = relocation.target() else {
                    return None;
                };
                let symbol = file.symbol_by_index(symbol).expect("symbol");
                Some(Reference {
                    offset: offset as usize,
                    kind,
                    symbol: symbol.name().expect("name").to_owned(),
                    addend: relocation.addend(),
                })
            });
            Text {
                name: section.name().expect("section name").to_owned(),
                code: section.data().expect("section data").to_vec(),
                starts,
                references: references.collect(),
            }
        })
        .collect()
}
