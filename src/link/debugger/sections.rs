//! The sections of a module's image.

use hashbrown::HashMap;
use low2g_platform::{AddrRange, to_u64};
use object::elf;
use object::endian::LittleEndian as LE;
use object::read::elf::Sym as _;

use crate::link::linked::Linked;
use crate::link::object::{Object, SymbolPlace};
use crate::link::symbols::to_index;
use crate::link::unwind::Frames;
use crate::place::SectionKind;

use super::image::{self, SYMBOL, Section};

/// Regions that have a section; beyond these, section numbers would need more than 16 bits.
const MAX_REGIONS: usize = 60_000;

/// Debug sections that are of no use side by side: indices of one file, and macros, whose parts
/// are spread over COMDAT groups.
const LEFT_OUT: [&[u8]; 8] = [
    b".debug_names",
    b".debug_pubnames",
    b".debug_pubtypes",
    b".debug_gnu_pubnames",
    b".debug_gnu_pubtypes",
    b".debug_macro",
    b".debug_macinfo",
    b".debug_gdb_scripts",
];

/// The image of a finished link.
pub(super) fn image(linked: &Linked<'_>, frames: &Frames) -> Vec<u8> {
    let mut regions: Vec<(AddrRange, SectionKind)> = linked
        .memory
        .regions()
        .take(MAX_REGIONS)
        .map(|region| (region.range, region.kind))
        .collect();
    regions.sort_unstable_by_key(|(range, _)| range.start());
    let mut sections: Vec<Section> = regions
        .iter()
        .enumerate()
        .map(|(number, &(range, kind))| region_section(number, range, kind))
        .collect();
    let symbols = Table::of(linked, &regions);
    let strings = u32::try_from(sections.len() + 2).expect("fewer than 65,279");
    sections.push(Section {
        name: ".symtab".to_owned(),
        sh_type: elf::SHT_SYMTAB.0,
        bytes: symbols.symbols,
        link: strings,
        info: symbols.first_global,
        align: 8,
        entry_size: to_u64(SYMBOL),
        ..Section::default()
    });
    sections.push(Section {
        name: ".strtab".to_owned(),
        sh_type: elf::SHT_STRTAB.0,
        bytes: symbols.names,
        align: 1,
        ..Section::default()
    });
    sections.push(plain(".eh_frame", frames.eh_frame(), 8));
    sections.extend(debug_sections(linked));
    image::write(sections)
}

fn plain(name: &str, bytes: Vec<u8>, align: u64) -> Section {
    Section {
        name: name.to_owned(),
        sh_type: elf::SHT_PROGBITS.0,
        bytes,
        align,
        ..Section::default()
    }
}

fn region_section(number: usize, range: AddrRange, kind: SectionKind) -> Section {
    let (name, flags) = match kind {
        SectionKind::Code => (".text", elf::SHF_EXECINSTR.0),
        SectionKind::ReadOnly => (".rodata", 0),
        SectionKind::Data => (".data", elf::SHF_WRITE.0),
    };
    Section {
        // Names are matched with addresses by debuggers: no two may be the same.
        name: format!("{name}.{number}"),
        sh_type: elf::SHT_NOBITS.0,
        flags: flags | elf::SHF_ALLOC.0,
        addr: range.start(),
        size: range.len(),
        align: 1,
        ..Section::default()
    }
}

/// A symbol table under construction: locals first, as the gABI wants it.
#[derive(Debug, Default)]
struct Table {
    symbols: Vec<u8>,
    names: Vec<u8>,
    first_global: u32,
}

impl Table {
    fn of(linked: &Linked<'_>, regions: &[(AddrRange, SectionKind)]) -> Self {
        let mut table = Self {
            symbols: vec![0; SYMBOL],
            names: vec![0],
            first_global: 0,
        };
        for global in [false, true] {
            if global {
                table.first_global = table.count();
            } else {
                table.add_own(linked, regions);
            }
            for object in &linked.tables.objects {
                table.add_object(linked, object, global, regions);
            }
        }
        table
    }

    fn count(&self) -> u32 {
        u32::try_from(self.symbols.len() / SYMBOL).expect("fewer than 2^32 symbols")
    }

    fn add_object(
        &mut self,
        linked: &Linked<'_>,
        object: &Object<'_>,
        global: bool,
        regions: &[(AddrRange, SectionKind)],
    ) {
        for (index, symbol) in object.symbols().iter().enumerate().skip(1) {
            let kind = symbol.st_type();
            let wanted = [
                elf::STT_FUNC,
                elf::STT_OBJECT,
                elf::STT_NOTYPE,
                elf::STT_GNU_IFUNC,
            ];
            if (symbol.st_bind() != elf::STB_LOCAL) != global || !wanted.contains(&kind) {
                continue;
            }
            let Ok(SymbolPlace::Section(section)) = object.place_of(index, symbol) else {
                continue;
            };
            let (Some(placed), Ok(name)) =
                (object.sections[section].placed, object.symbol_name(symbol))
            else {
                continue;
            };
            let addr = linked.addrs[to_index(placed)].wrapping_add(symbol.st_value(LE));
            // A resolver's address is no function of that name: gdb would call it.
            let kind = match kind {
                elf::STT_GNU_IFUNC => elf::STT_FUNC,
                other => other,
            };
            let info = symbol.st_bind().0 << 4 | kind.0;
            self.add(name, info, addr, symbol.st_size(LE), regions);
        }
    }

    /// Names for stubs, as disassemblers give them, and for islands: `function.island`.
    fn add_own(&mut self, linked: &Linked<'_>, regions: &[(AddrRange, SectionKind)]) {
        let function = elf::STT_FUNC.0;
        for (number, &entry) in linked.plan.stubs.iter().enumerate() {
            let name = linked.key_name(linked.plan.entries[entry].key) + "@plt";
            let addr = linked.stub_addr(u32::try_from(number).expect("counted in u32"));
            let size = crate::link::far::STUB_SIZE;
            self.add(name.as_bytes(), function, addr, size, regions);
        }
        let mut functions = HashMap::new();
        for island in &linked.plan.islands {
            let object = &linked.tables.objects[to_index(island.object)];
            let starts = functions
                .entry(island.object)
                .or_insert_with(|| function_starts(object));
            let at = (to_index(island.section), to_u64(island.insn));
            // The last function of the section that begins before the moved instruction.
            let after = starts.partition_point(|&(section, start, _)| (section, start) <= at);
            let owner = after.checked_sub(1).map(|index| starts[index]);
            let owner = owner.filter(|&(section, ..)| section == at.0);
            let mut name = owner.map_or_else(Vec::new, |(_, _, name)| name.to_vec());
            name.extend(b".island");
            let addr = linked.own.islands.1 + island.offset;
            let size = to_u64(island.size);
            self.add(&name, function, addr, size, regions);
        }
    }

    fn add(
        &mut self,
        name: &[u8],
        info: u8,
        addr: u64,
        size: u64,
        regions: &[(AddrRange, SectionKind)],
    ) {
        if name.is_empty() {
            return;
        }
        let after = regions.partition_point(|(range, _)| range.start() <= addr);
        let number = u16::try_from(after).unwrap_or(elf::SHN_ABS.0);
        let name_at = u32::try_from(self.names.len()).expect("names take less than 4 GiB");
        self.names.extend(name);
        self.names.push(0);
        self.symbols.extend(name_at.to_le_bytes());
        self.symbols.extend([info, 0]);
        self.symbols.extend(number.to_le_bytes());
        self.symbols.extend(addr.to_le_bytes());
        self.symbols.extend(size.to_le_bytes());
    }
}

/// Section, offset and name of an object's functions, ascending.
fn function_starts<'d>(object: &Object<'d>) -> Vec<(usize, u64, &'d [u8])> {
    let mut starts: Vec<(usize, u64, &[u8])> = Vec::new();
    for (index, symbol) in object.symbols().iter().enumerate() {
        if symbol.st_type() == elf::STT_FUNC
            && let Ok(SymbolPlace::Section(section)) = object.place_of(index, symbol)
            && let Ok(name) = object.symbol_name(symbol)
        {
            starts.push((section, symbol.st_value(LE), name));
        }
    }
    starts.sort_unstable();
    starts
}

/// All objects' debug sections of one name side by side, relocated.
fn debug_sections(linked: &Linked<'_>) -> Vec<Section> {
    let mut merged: Vec<Section> = Vec::new();
    let mut numbers: HashMap<String, usize> = HashMap::new();
    // First where each piece goes, since they refer to each other.
    let mut sizes: Vec<u64> = Vec::new();
    let mut starts: Vec<HashMap<usize, u64>> = Vec::new();
    let mut pieces = Vec::new();
    for (number, object) in linked.tables.objects.iter().enumerate() {
        let mut start = HashMap::new();
        for (index, section) in object.sections.iter().enumerate() {
            let debug =
                section.name.starts_with(b".debug_") || section.name.starts_with(b".zdebug_");
            if !debug || section.is_alloc() || section.discarded || LEFT_OUT.contains(&section.name)
            {
                continue;
            }
            let Ok(bytes) = object.contents_of(index) else {
                continue;
            };
            let name = section.display_name().replace(".zdebug_", ".debug_");
            let target = *numbers.entry(name).or_insert_with_key(|name| {
                merged.push(plain(name, Vec::new(), 1));
                sizes.push(0);
                merged.len() - 1
            });
            // A compressed section is aligned for its header, not for what it holds.
            let align = match section.flags & elf::SHF_COMPRESSED.0 {
                0 => object.section_align(index).clamp(1, 4096),
                _ => 1,
            };
            let at = sizes[target].next_multiple_of(align);
            sizes[target] = at + to_u64(bytes.len());
            merged[target].align = merged[target].align.max(align);
            start.insert(index, at);
            pieces.push((number, index, target, at, bytes));
        }
        starts.push(start);
    }
    let mut values = (usize::MAX, Vec::new());
    for (number, index, target, at, mut bytes) in pieces {
        if values.0 != number {
            let object = linked.debug_values(number, &starts[number]);
            values = (number, object.unwrap_or_default());
        }
        // What is malformed stays as it is: debuggers complain, programs run.
        let _malformed = linked.relocate_unloaded(number, index, &mut bytes, &values.1);
        let out = &mut merged[target].bytes;
        out.resize(usize::try_from(at).unwrap_or(out.len()), 0);
        out.extend(bytes);
    }
    merged
}
