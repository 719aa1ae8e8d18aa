//! Writes the ELF image: headers around sections that are given.
//!
//! Source: gABI, "ELF Header", "Sections", "Symbol Table".

use low2g_platform::to_u64;
use object::elf;

/// A section: its bytes, or for one without bytes its size.
#[derive(Debug, Default)]
pub(super) struct Section {
    pub(super) name: String,
    pub(super) sh_type: u32,
    pub(super) flags: u64,
    pub(super) addr: u64,
    pub(super) bytes: Vec<u8>,
    /// Of a section without bytes.
    pub(super) size: u64,
    pub(super) link: u32,
    pub(super) info: u32,
    pub(super) align: u64,
    pub(super) entry_size: u64,
}

/// Bytes of an ELF header, a section header and a symbol.
const HEADER: usize = 64;
const SECTION_HEADER: usize = 64;
pub(super) const SYMBOL: usize = 24;

/// The image of `sections`, to which a null section and the table of names are added. Section
/// numbers begin at 1; there must be fewer than 65,279.
pub(super) fn write(mut sections: Vec<Section>) -> Vec<u8> {
    let mut names = vec![0];
    sections.push(Section {
        name: ".shstrtab".to_owned(),
        sh_type: elf::SHT_STRTAB.0,
        align: 1,
        ..Section::default()
    });
    let name_at: Vec<usize> = sections
        .iter()
        .map(|section| {
            let at = names.len();
            names.extend(section.name.as_bytes());
            names.push(0);
            at
        })
        .collect();
    if let Some(last) = sections.last_mut() {
        last.bytes = names;
    }
    let mut out = vec![0; HEADER];
    let mut headers = vec![0; SECTION_HEADER];
    for (section, name) in sections.iter().zip(name_at) {
        let align = usize::try_from(section.align.max(1)).expect("aligned to less than 2^64");
        if section.sh_type != elf::SHT_NOBITS.0 {
            out.resize(out.len().next_multiple_of(align), 0);
        }
        let offset = to_u64(out.len());
        let size = match section.sh_type == elf::SHT_NOBITS.0 {
            true => section.size,
            false => to_u64(section.bytes.len()),
        };
        out.extend(&section.bytes);
        headers.extend(u32::try_from(name).expect("names are short").to_le_bytes());
        headers.extend(section.sh_type.to_le_bytes());
        for field in [section.flags, section.addr, offset, size] {
            headers.extend(field.to_le_bytes());
        }
        headers.extend(section.link.to_le_bytes());
        headers.extend(section.info.to_le_bytes());
        headers.extend(section.align.to_le_bytes());
        headers.extend(section.entry_size.to_le_bytes());
    }
    out.resize(out.len().next_multiple_of(8), 0);
    let table = to_u64(out.len());
    out.extend(headers);
    let count = u16::try_from(sections.len() + 1).expect("the caller keeps them few");
    out[..HEADER].copy_from_slice(&header(table, count));
    out
}

fn header(table: u64, count: u16) -> [u8; HEADER] {
    let mut bytes = Vec::with_capacity(HEADER);
    bytes.extend(b"\x7fELF\x02\x01\x01");
    bytes.resize(16, 0);
    // Executable: symbols' values are addresses.
    bytes.extend(elf::ET_EXEC.0.to_le_bytes());
    bytes.extend(elf::EM_X86_64.0.to_le_bytes());
    bytes.extend(1u32.to_le_bytes());
    // No entry, no program headers.
    bytes.extend([0; 16]);
    bytes.extend(table.to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    for half in [
        u16::try_from(HEADER).expect("64"),
        0,
        0,
        u16::try_from(SECTION_HEADER).expect("64"),
        count,
        count - 1,
    ] {
        bytes.extend(half.to_le_bytes());
    }
    bytes.try_into().expect("64 bytes were written")
}
