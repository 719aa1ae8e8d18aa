//! A small reader of 64-bit little-endian ELF, independent of the crate that low2g reads with.
//!
//! Offsets are those of the ELF-64 object file format. The inputs are files that a compiler or
//! linker just made: what is malformed panics.

/// Size of a section header, a symbol and a relocation with addend, in bytes.
pub(crate) const SECTION_SIZE: usize = 64;
pub(crate) const SYMBOL_SIZE: usize = 24;
const RELA_SIZE: usize = 24;

pub(crate) const SHT_PROGBITS: u32 = 1;
const SHT_SYMTAB: u32 = 2;
const SHT_RELA: u32 = 4;
pub(crate) const SHT_NOBITS: u32 = 8;
/// Types whose sections hold a program's contents: notes, arrays of functions, unwind tables.
const CONTENT_TYPES: [u32; 7] = [SHT_PROGBITS, 7, SHT_NOBITS, 14, 15, 16, 0x7000_0001];

pub(crate) const SHF_ALLOC: u64 = 2;
pub(crate) const SHF_EXECINSTR: u64 = 4;
pub(crate) const SHF_MERGE: u64 = 0x10;
pub(crate) const SHF_STRINGS: u64 = 0x20;
pub(crate) const SHF_COMPRESSED: u64 = 0x800;

pub(crate) const SHN_UNDEF: u16 = 0;
pub(crate) const SHN_LORESERVE: u16 = 0xff00;
pub(crate) const SHN_ABS: u16 = 0xfff1;
pub(crate) const SHN_COMMON: u16 = 0xfff2;

pub(crate) const STB_LOCAL: u8 = 0;
pub(crate) const STB_WEAK: u8 = 2;
pub(crate) const STT_FUNC: u8 = 2;
pub(crate) const STT_GNU_IFUNC: u8 = 10;

fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has N bytes")
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(take(bytes, at))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(take(bytes, at))
}

fn xword(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(take(bytes, at))
}

pub(crate) fn size(value: u64) -> usize {
    usize::try_from(value).expect("the tests run on 64 bits")
}

fn text(table: &[u8], at: u32) -> String {
    let rest = &table[size(u64::from(at))..];
    let end = rest
        .iter()
        .position(|&byte| byte == 0)
        .expect("a string table ends in a null");
    String::from_utf8_lossy(&rest[..end]).into_owned()
}

#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) kind: u32,
    pub(crate) flags: u64,
    pub(crate) addr: u64,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) align: u64,
    pub(crate) link: u32,
    pub(crate) info: u32,
    /// File offset of its header.
    pub(crate) header: usize,
}

impl Section {
    /// Whether it is part of the program or of its debugging data, not of the file's own tables.
    pub(crate) fn has_content(&self) -> bool {
        CONTENT_TYPES.contains(&self.kind)
    }

    pub(crate) fn is_alloc(&self) -> bool {
        self.flags & SHF_ALLOC != 0
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Symbol {
    pub(crate) name: String,
    pub(crate) binding: u8,
    pub(crate) kind: u8,
    pub(crate) section: u16,
    pub(crate) value: u64,
    pub(crate) size: u64,
    /// File offset of its entry.
    pub(crate) entry: usize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Rela {
    pub(crate) offset: u64,
    pub(crate) kind: u32,
    pub(crate) symbol: usize,
    pub(crate) addend: i64,
    /// File offset of its entry.
    pub(crate) entry: usize,
}

/// A file, with its sections and symbols.
#[derive(Clone, Debug)]
pub(crate) struct Elf {
    pub(crate) bytes: Vec<u8>,
    pub(crate) sections: Vec<Section>,
    pub(crate) symbols: Vec<Symbol>,
    /// Index of the section that holds section names.
    pub(crate) names: usize,
}

impl Elf {
    pub(crate) fn parse(bytes: Vec<u8>) -> Self {
        assert!(
            bytes.starts_with(b"\x7fELF\x02\x01"),
            "a 64-bit little-endian ELF file"
        );
        let table = size(xword(&bytes, 0x28));
        let count = usize::from(half(&bytes, 0x3c));
        let names = usize::from(half(&bytes, 0x3e));
        assert!(
            count > 0 && names > 0,
            "sections are counted in the file's header"
        );
        let mut sections: Vec<Section> = (0..count)
            .map(|index| {
                let header = table + index * SECTION_SIZE;
                Section {
                    name: String::new(),
                    kind: word(&bytes, header + 4),
                    flags: xword(&bytes, header + 8),
                    addr: xword(&bytes, header + 16),
                    offset: xword(&bytes, header + 24),
                    size: xword(&bytes, header + 32),
                    link: word(&bytes, header + 40),
                    info: word(&bytes, header + 44),
                    align: xword(&bytes, header + 48),
                    header,
                }
            })
            .collect();
        let name_table = &bytes[size(sections[names].offset)..];
        for section in &mut sections {
            section.name = text(name_table, word(&bytes, section.header));
        }
        let mut elf = Self {
            bytes,
            sections,
            symbols: Vec::new(),
            names,
        };
        elf.symbols = elf.read_symbols();
        elf
    }

    fn read_symbols(&self) -> Vec<Symbol> {
        let Some(table) = self
            .sections
            .iter()
            .find(|section| section.kind == SHT_SYMTAB)
        else {
            return Vec::new();
        };
        let strings = self.contents(size(u64::from(table.link)));
        let start = size(table.offset);
        let entries = (start..start + size(table.size)).step_by(SYMBOL_SIZE);
        entries
            .map(|entry| {
                let info = self.bytes[entry + 4];
                Symbol {
                    name: text(strings, word(&self.bytes, entry)),
                    binding: info >> 4,
                    kind: info & 15,
                    section: half(&self.bytes, entry + 6),
                    value: xword(&self.bytes, entry + 8),
                    size: xword(&self.bytes, entry + 16),
                    entry,
                }
            })
            .collect()
    }

    /// The bytes of section `index`; none where it has no bytes in the file.
    pub(crate) fn contents(&self, index: usize) -> &[u8] {
        let section = &self.sections[index];
        if section.kind == SHT_NOBITS {
            return &[];
        }
        &self.bytes[size(section.offset)..size(section.offset + section.size)]
    }

    /// The relocations that apply to section `index`.
    pub(crate) fn relocations(&self, index: usize) -> Vec<Rela> {
        let applies =
            |section: &&Section| section.kind == SHT_RELA && size(u64::from(section.info)) == index;
        let tables = self.sections.iter().filter(applies);
        tables
            .flat_map(|table| {
                (size(table.offset)..size(table.offset + table.size)).step_by(RELA_SIZE)
            })
            .map(|entry| Rela {
                offset: xword(&self.bytes, entry),
                kind: word(&self.bytes, entry + 8),
                symbol: size(u64::from(word(&self.bytes, entry + 12))),
                addend: xword(&self.bytes, entry + 16).cast_signed(),
                entry,
            })
            .collect()
    }

    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// The members of an archive, or the file itself: names as the dump gives them, and contents.
pub(crate) fn members(path: &std::path::Path) -> Vec<(String, Vec<u8>)> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let base = path
        .file_name()
        .expect("an input has a name")
        .to_string_lossy()
        .into_owned();
    if !bytes.starts_with(b"!<arch>\n") {
        return vec![(base, bytes)];
    }
    let archive = object::read::archive::ArchiveFile::parse(&*bytes).expect("an archive");
    let found = archive.members().map(|member| {
        let member = member.expect("an archive's member");
        let name = String::from_utf8_lossy(member.name()).into_owned();
        let data = member.data(&*bytes).expect("a member's contents").to_vec();
        (format!("{base}({name})"), data)
    });
    found.collect()
}
