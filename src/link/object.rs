//! One relocatable object, read once and borrowed from its bytes.
//!
//! Invariants after [`Object::read`]: every alloc section's bytes lie inside
//! the file, its alignment is a power of two, its relocations are a slice;
//! `globals` is parallel to the symbols from `first_global` on. Symbol and
//! section indices inside relocations and symbols are *not* checked here: that
//! would be a second pass over them; every use goes through a checked lookup.

use std::borrow::Cow;

use object::elf::{self, Rela64, Sym64};
use object::endian::{I64, LittleEndian as LE, U32, U64};
use object::read::elf::{FileHeader, SectionHeader, SectionTable, Sym as _, SymbolTable};
use object::read::{SectionIndex, SymbolIndex};

use super::error::LinkError;
use super::header::{Header, check_header};

pub(crate) type Rela = Rela64<LE>;
pub(crate) type Symbol = Sym64<LE>;

/// psABI, "Large sections": a common symbol of the medium model's large data.
const SHN_X86_64_LCOMMON: elf::SymbolSection = elf::SymbolSection(0xff02);

/// psABI, "Special Sections": the medium model's large data.
const SHF_X86_64_LARGE: u64 = 0x1000_0000;

/// An input section.
#[derive(Debug)]
pub(crate) struct Section<'d> {
    pub(crate) name: &'d [u8],
    pub(crate) sh_type: u32,
    pub(crate) flags: u64,
    pub(crate) align: u64,
    pub(crate) size: u64,
    /// Empty for `SHT_NOBITS`.
    pub(crate) data: &'d [u8],
    /// Only of alloc sections; others' are read when a dump asks (`relocations_of`).
    pub(crate) relas: Cow<'d, [Rela]>,
    /// A COMDAT group's member of which another object's copy was taken.
    pub(crate) discarded: bool,
    /// Index among the link's placed sections.
    pub(crate) placed: Option<u32>,
    /// Offset in the link's thread-local block, of a thread-local section.
    pub(crate) tls_offset: u64,
}

impl Section<'_> {
    pub(crate) fn is_alloc(&self) -> bool {
        self.flags & elf::SHF_ALLOC.0 != 0
    }
    pub(crate) fn is_exec(&self) -> bool {
        self.flags & elf::SHF_EXECINSTR.0 != 0
    }
    pub(crate) fn is_tls(&self) -> bool {
        self.flags & elf::SHF_TLS.0 != 0
    }
    /// Marked as beyond the reach of 32-bit fields (psABI, medium model).
    pub(crate) fn is_large(&self) -> bool {
        self.flags & SHF_X86_64_LARGE != 0
    }
    pub(crate) fn is_zero_fill(&self) -> bool {
        self.sh_type == elf::SHT_NOBITS.0
    }
    /// Whether the link gives it memory.
    pub(crate) fn is_loaded(&self) -> bool {
        self.is_alloc() && !self.discarded && !self.is_tls() && self.flags & elf::SHF_EXCLUDE.0 == 0
    }
    /// Whether it is part of the link's thread-local block.
    pub(crate) fn is_thread_local(&self) -> bool {
        self.is_tls() && self.is_alloc() && !self.discarded && self.flags & elf::SHF_EXCLUDE.0 == 0
    }
    /// The same section without contents, for passes over other bytes.
    pub(crate) fn shallow(&self) -> Self {
        Self {
            data: &[],
            relas: Cow::Borrowed(&[]),
            ..*self
        }
    }
    pub(crate) fn display_name(&self) -> String {
        String::from_utf8_lossy(self.name).into_owned()
    }
}

/// A COMDAT group: its signature and members' section indices.
#[derive(Debug)]
pub(crate) struct Group<'d> {
    pub(crate) signature: &'d [u8],
    pub(crate) members: &'d [U32<LE>],
}

/// A relocatable object.
#[derive(Debug)]
pub(crate) struct Object<'d> {
    /// As shown: base name, `lib.a(member.o)`, `#2` for repeated ones.
    pub(crate) name: String,
    data: &'d [u8],
    table: SectionTable<'d, Header>,
    pub(crate) sections: Vec<Section<'d>>,
    pub(crate) groups: Vec<Group<'d>>,
    /// Relocation sections and their targets, by target.
    relocation_sections: Vec<(SectionIndex, SectionIndex)>,
    symbols: SymbolTable<'d, Header>,
    pub(crate) first_global: usize,
    /// Index in the link's table of globals, for each symbol from `first_global` on.
    pub(crate) globals: Vec<u32>,
}

/// Where a symbol stands, by its section index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SymbolPlace {
    Undefined,
    Absolute,
    Common,
    Section(usize),
}

impl<'d> Object<'d> {
    /// Reads the tables of `data`.
    pub(crate) fn read(name: String, data: &'d [u8]) -> Result<Self, LinkError> {
        let fail = |reason: String| LinkError::object(&name, reason);
        let header = check_header(data).map_err(fail)?;
        let table = header.sections(LE, data).map_err(|error| {
            fail(format!(
                "section table of a {}-byte file: {error}",
                data.len()
            ))
        })?;
        let symbols = table
            .symbols(LE, data, elf::SHT_SYMTAB)
            .map_err(|error| fail(format!("symbol table: {error}")))?;
        let first_global = table
            .section(symbols.section())
            .map_or(0, |section| section.sh_info(LE));
        let mut object = Self {
            data,
            table,
            sections: Vec::with_capacity(table.len()),
            groups: Vec::new(),
            relocation_sections: Vec::new(),
            first_global: usize::try_from(first_global)
                .unwrap_or(usize::MAX)
                .min(symbols.len()),
            symbols,
            globals: Vec::new(),
            name,
        };
        object.read_sections()?;
        Ok(object)
    }

    fn read_sections(&mut self) -> Result<(), LinkError> {
        let mut relocation_sections = Vec::new();
        for (index, header) in self.table.enumerate() {
            let section = self.read_section(index, header)?;
            match header.sh_type(LE) {
                elf::SHT_RELA | elf::SHT_REL | elf::SHT_CREL => {
                    relocation_sections.push((index, header.info_link(LE)));
                }
                elf::SHT_GROUP => self.read_group(index, header)?,
                _ => {}
            }
            self.sections.push(section);
        }
        // In input order for each target.
        relocation_sections.sort_by_key(|(_, target): &(SectionIndex, SectionIndex)| target.0);
        let mut bytes = 0usize;
        for &(index, target) in &relocation_sections {
            let Some(section) = self.sections.get(target.0) else {
                return Err(self.fail(format!(
                    "relocation section #{} is for section #{}, of {}",
                    index.0,
                    target.0,
                    self.sections.len()
                )));
            };
            if section.is_alloc() {
                let relas = self.relocations_in(index)?;
                // Those of a file that lie over each other would take memory out of all proportion.
                let size = self.table.section(index).map(|header| header.sh_size(LE));
                let size = size.ok().and_then(|size| usize::try_from(size).ok());
                bytes = bytes.saturating_add(size.unwrap_or(usize::MAX));
                if bytes > self.data.len() {
                    return Err(self.fail(format!(
                        "relocation sections up to #{} have {bytes} bytes in a file of {}: they overlap; assemble the object anew",
                        index.0,
                        self.data.len()
                    )));
                }
                let old = &mut self.sections[target.0].relas;
                // The gABI allows several relocation sections for one section.
                if old.is_empty() {
                    *old = relas;
                } else {
                    old.to_mut().extend_from_slice(&relas);
                }
            }
        }
        self.relocation_sections = relocation_sections;
        Ok(())
    }

    fn read_section(
        &self,
        index: SectionIndex,
        header: &'d elf::SectionHeader64<LE>,
    ) -> Result<Section<'d>, LinkError> {
        let name = self
            .table
            .section_name(LE, header)
            .map_err(|error| self.fail(format!("name of section #{}: {error}", index.0)))?;
        let alloc = header.sh_flags(LE).0 & elf::SHF_ALLOC.0 != 0;
        let (offset, size) = (header.sh_offset(LE), header.sh_size(LE));
        let mut align = header.sh_addralign(LE).max(1);
        let mut data: &'d [u8] = &[];
        if alloc {
            if !align.is_power_of_two() {
                return Err(self.fail(format!(
                    "section {} is aligned to {align}, which is not a power of two",
                    String::from_utf8_lossy(name)
                )));
            }
            if header.sh_flags(LE).0 & elf::SHF_COMPRESSED.0 != 0 {
                return Err(self.fail(format!(
                    "section {} is both SHF_ALLOC and SHF_COMPRESSED, which the gABI forbids",
                    String::from_utf8_lossy(name)
                )));
            }
            data = header.data(LE, self.data).map_err(|_| {
                self.fail(format!(
                    "section {} ({size} bytes at offset {offset:#x}) runs past the end of the {}-byte file; is it truncated?",
                    String::from_utf8_lossy(name),
                    self.data.len()
                ))
            })?;
        } else {
            align = 1;
        }
        Ok(Section {
            name,
            sh_type: header.sh_type(LE).0,
            flags: header.sh_flags(LE).0,
            align,
            size,
            data,
            relas: Cow::Borrowed(&[]),
            discarded: false,
            placed: None,
            tls_offset: 0,
        })
    }

    fn read_group(
        &mut self,
        index: SectionIndex,
        header: &'d elf::SectionHeader64<LE>,
    ) -> Result<(), LinkError> {
        let fail = |what: String| self.fail(format!("section group #{}: {what}", index.0));
        let (flags, members) = header
            .group(LE, self.data)
            .map_err(|error| fail(error.to_string()))?
            .ok_or_else(|| fail("is not one".to_owned()))?;
        if flags.0 & elf::GRP_COMDAT.0 == 0 {
            return Ok(());
        }
        let symbol_index = SymbolIndex(usize::try_from(header.sh_info(LE)).unwrap_or(usize::MAX));
        let symbol = self.symbols.symbol(symbol_index).map_err(|_| {
            fail(format!(
                "signature is symbol #{}, of {}",
                symbol_index.0,
                self.symbols.len()
            ))
        })?;
        let mut signature = self
            .symbols
            .symbol_name(LE, symbol)
            .map_err(|error| fail(error.to_string()))?;
        // A section symbol as signature stands for that section's name (as GNU ld and lld read it).
        if signature.is_empty()
            && let Ok(SymbolPlace::Section(section)) = self.place_of(symbol_index.0, symbol)
            && let Ok(header) = self.table.section(SectionIndex(section))
        {
            signature = self
                .table
                .section_name(LE, header)
                .map_err(|error| fail(error.to_string()))?;
        }
        self.groups.push(Group { signature, members });
        Ok(())
    }

    /// The relocations of the relocation section `index`, `RELA` or `CREL`.
    pub(crate) fn relocations_in(&self, index: SectionIndex) -> Result<Cow<'d, [Rela]>, LinkError> {
        let fail = |what: String| self.fail(format!("relocation section #{}: {what}", index.0));
        let header = self
            .table
            .section(index)
            .map_err(|error| fail(error.to_string()))?;
        if let Some((relas, _)) = header
            .rela(LE, self.data)
            .map_err(|error| fail(format!("{error}; is the file truncated?")))?
        {
            return Ok(Cow::Borrowed(relas));
        }
        let Some((crels, _)) = header
            .crel(LE, self.data)
            .map_err(|error| fail(error.to_string()))?
        else {
            return Err(fail(
                "is of type SHT_REL; x86-64 uses SHT_RELA, assemble the object anew".to_owned(),
            ));
        };
        if !crels.is_rela() {
            return Err(fail(
                "is SHT_CREL without addends; x86-64 needs them".to_owned(),
            ));
        }
        let mut relas = Vec::new();
        for crel in crels {
            let crel = crel.map_err(|error| fail(error.to_string()))?;
            relas.push(Rela {
                r_offset: U64::new(LE, crel.r_offset),
                r_info: U64::new(LE, u64::from(crel.r_sym) << 32 | u64::from(crel.r_type.0)),
                r_addend: I64::new(LE, crel.r_addend),
            });
        }
        Ok(Cow::Owned(relas))
    }

    /// Relocations of a section that is not loaded, for dumps.
    pub(crate) fn relocations_of(&self, section: usize) -> Result<Vec<Rela>, LinkError> {
        let mut all = Vec::new();
        let list = &self.relocation_sections;
        let first = list.partition_point(|(_, target)| target.0 < section);
        for (index, _) in list[first..]
            .iter()
            .take_while(|(_, target)| target.0 == section)
        {
            all.extend_from_slice(&self.relocations_in(*index)?);
        }
        Ok(all)
    }

    /// Bytes of a section that is not loaded, decompressed, for dumps.
    pub(crate) fn contents_of(&self, section: usize) -> Result<Vec<u8>, LinkError> {
        use object::read::{Object as _, ObjectSection as _};
        let fail = |error: object::read::Error| {
            self.fail(format!("contents of section #{section}: {error}"))
        };
        let header = self.table.section(SectionIndex(section)).map_err(fail)?;
        let compressed = header.sh_flags(LE).0 & elf::SHF_COMPRESSED.0 != 0
            || self.sections[section].name.starts_with(b".zdebug_");
        if !compressed {
            return header.data(LE, self.data).map(<[u8]>::to_vec).map_err(fail);
        }
        let file = object::read::elf::ElfFile64::<LE>::parse(self.data).map_err(fail)?;
        let section = file.section_by_index(SectionIndex(section)).map_err(fail)?;
        section
            .uncompressed_data()
            .map(Cow::into_owned)
            .map_err(fail)
    }

    /// `sh_addralign` as the file says.
    pub(crate) fn section_align(&self, section: usize) -> u64 {
        let header = self.table.section(SectionIndex(section));
        header.map_or(1, |header| header.sh_addralign(LE).max(1))
    }

    pub(crate) fn symbols(&self) -> &'d [Symbol] {
        self.symbols.symbols()
    }

    pub(crate) fn symbol(&self, index: usize) -> Result<&'d Symbol, LinkError> {
        self.symbols().get(index).ok_or_else(|| {
            self.fail(format!(
                "a relocation refers to symbol #{index}, of {}",
                self.symbols.len()
            ))
        })
    }

    /// The symbol's name; a section symbol's is its section's.
    pub(crate) fn symbol_name(&self, symbol: &'d Symbol) -> Result<&'d [u8], LinkError> {
        self.symbols
            .symbol_name(LE, symbol)
            .map_err(|error| self.fail(format!("name of a symbol: {error}")))
    }

    /// Whether a global `name` is defined here, and not as a common.
    pub(crate) fn defines(&self, name: &[u8]) -> Result<bool, LinkError> {
        for (index, symbol) in self.symbols().iter().enumerate().skip(self.first_global) {
            let place = self.place_of(index, symbol)?;
            let defined = matches!(place, SymbolPlace::Absolute | SymbolPlace::Section(_));
            if defined && self.symbol_name(symbol)? == name {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The name to show: a section symbol shows its section.
    pub(crate) fn symbol_display(&self, index: usize) -> String {
        let Some(symbol) = self.symbols().get(index) else {
            return format!("symbol #{index}");
        };
        let name = self.symbol_name(symbol).unwrap_or_default();
        if name.is_empty() {
            if index == 0 {
                return String::new();
            }
            if let Ok(SymbolPlace::Section(section)) = self.place_of(index, symbol)
                && let Some(section) = self.sections.get(section)
            {
                return section.display_name();
            }
        }
        String::from_utf8_lossy(name).into_owned()
    }

    /// Where the symbol stands.
    pub(crate) fn place_of(&self, index: usize, symbol: &Symbol) -> Result<SymbolPlace, LinkError> {
        match symbol.st_shndx(LE) {
            elf::SHN_UNDEF => Ok(SymbolPlace::Undefined),
            elf::SHN_ABS => Ok(SymbolPlace::Absolute),
            elf::SHN_COMMON | SHN_X86_64_LCOMMON => Ok(SymbolPlace::Common),
            other => {
                let section = self
                    .symbols
                    .symbol_section(LE, symbol, SymbolIndex(index))
                    .ok()
                    .flatten()
                    .map(|section| section.0)
                    .filter(|&section| section < self.table.len());
                section.map(SymbolPlace::Section).ok_or_else(|| {
                    self.fail(format!(
                        "symbol #{index} is in section {:#x}, of {}",
                        other.0,
                        self.table.len()
                    ))
                })
            }
        }
    }

    /// Whether the symbol stands in an executable section.
    pub(crate) fn is_code(&self, index: usize, symbol: &Symbol) -> bool {
        matches!(self.place_of(index, symbol), Ok(SymbolPlace::Section(section))
            if self.sections[section].is_exec())
    }

    /// Refuses objects that hold a compiler's intermediate code and no machine code.
    pub(crate) fn refuse_lto(&self) -> Result<(), LinkError> {
        let slim = self
            .sections
            .iter()
            .any(|section| section.name.starts_with(b".gnu.lto_"))
            && self.symbols().iter().any(|symbol| {
                self.symbol_name(symbol)
                    .is_ok_and(|name| name == b"__gnu_lto_slim")
            });
        if slim {
            return Err(self.fail(
                "holds GCC's intermediate code only (-flto); compile without -flto or with -ffat-lto-objects".to_owned(),
            ));
        }
        Ok(())
    }

    /// An object says so in its `.note.GNU-stack` (GCC's nested functions write trampolines there).
    pub(crate) fn refuse_executable_stack(&self) -> Result<(), LinkError> {
        let asks = |section: &Section| section.is_exec() && section.name == b".note.GNU-stack";
        if self.sections.iter().any(asks) {
            return Err(self.fail(
                "needs an executable stack (.note.GNU-stack), which no thread gets: compile without nested functions whose address is taken, or say that it needs none (-Wa,--noexecstack)".to_owned(),
            ));
        }
        Ok(())
    }

    fn fail(&self, reason: String) -> LinkError {
        LinkError::object(&self.name, reason)
    }
}
