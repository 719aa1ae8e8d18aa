//! Objects made files: ELF header, contents of sections, groups, relocations, symbol table,
//! extended section numbers where there are more than 65,280 sections, names, section headers.

use super::elf::{Form, LOCAL, Obj, Of, Rel, SHT_CREL, SHT_REL, SHT_RELA, Sec, Where};

fn to_u64(value: usize) -> u64 {
    u64::try_from(value).expect("usize fits")
}

fn to_u32(value: usize) -> u32 {
    u32::try_from(value).expect("a small number")
}

/// A table of names that grows.
struct Names(Vec<u8>);

impl Names {
    fn add(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = to_u32(self.0.len());
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(0);
        at
    }
}

/// A section header to be, with its contents.
struct Raw {
    name: u32,
    kind: u32,
    flags: u64,
    contents: Vec<u8>,
    size: u64,
    link: u32,
    info: u32,
    align: u64,
    entry: u64,
}

fn header(raw: &Raw, offset: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    bytes.extend(raw.name.to_le_bytes());
    bytes.extend(raw.kind.to_le_bytes());
    bytes.extend(raw.flags.to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes.extend(raw.size.to_le_bytes());
    bytes.extend(raw.link.to_le_bytes());
    bytes.extend(raw.info.to_le_bytes());
    bytes.extend(raw.align.to_le_bytes());
    bytes.extend(raw.entry.to_le_bytes());
    bytes
}

impl Obj {
    /// Position of each symbol in the file: locals first, as the gABI wants.
    fn symbol_numbers(&self) -> (Vec<u32>, u32) {
        let mut numbers = vec![0; self.symbols.len()];
        let mut next = 1;
        let mut first_global = 1;
        for local in [true, false] {
            for (index, symbol) in self.symbols.iter().enumerate() {
                if (symbol.bind == LOCAL) == local {
                    numbers[index] = next;
                    next += 1;
                }
            }
            if local {
                first_global = next;
            }
        }
        (numbers, first_global)
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let (numbers, first_global) = self.symbol_numbers();
        let mut names = Names(vec![0]);
        let mut raws = vec![Raw {
            name: 0,
            kind: 0,
            flags: 0,
            contents: Vec::new(),
            size: 0,
            link: 0,
            info: 0,
            align: 0,
            entry: 0,
        }];
        let in_group = |index: usize| {
            self.groups
                .iter()
                .any(|group| group.members.contains(&index))
        };
        for (index, section) in self.sections.iter().enumerate() {
            let group_flag = if in_group(index) { 0x200 } else { 0 };
            raws.push(Raw {
                name: names.add(&section.name),
                kind: section.kind,
                flags: section.flags | group_flag,
                contents: section.data.clone(),
                size: section.size(),
                link: 0,
                info: 0,
                align: section.align,
                entry: 0,
            });
        }
        let with_rels = self.sections.iter().filter(|s| !s.rels.is_empty()).count();
        let symtab = to_u32(raws.len() + self.groups.len() + with_rels);
        for group in &self.groups {
            let mut contents = 1u32.to_le_bytes().to_vec();
            for member in &group.members {
                contents.extend(to_u32(Self::number(*member)).to_le_bytes());
            }
            raws.push(Raw {
                name: names.add(".group"),
                kind: 17,
                flags: 0,
                size: to_u64(contents.len()),
                contents,
                link: symtab,
                info: numbers[group.signature],
                align: 4,
                entry: 4,
            });
        }
        for (index, section) in self.sections.iter().enumerate() {
            if section.rels.is_empty() {
                continue;
            }
            let (kind, contents, entry) = relocations(section, &numbers);
            raws.push(Raw {
                name: names.add(&format!(".rela{}", section.name)),
                kind,
                flags: 0x40,
                size: to_u64(contents.len()),
                contents,
                link: symtab,
                info: to_u32(Self::number(index)),
                align: 8,
                entry,
            });
        }
        self.push_symbols(&mut raws, &mut names, &numbers, first_global);
        finish(raws, names)
    }

    fn push_symbols(
        &self,
        raws: &mut Vec<Raw>,
        names: &mut Names,
        numbers: &[u32],
        first_global: u32,
    ) {
        let mut strings = Names(vec![0]);
        let mut entries = vec![vec![0u8; 24]; self.symbols.len() + 1];
        let mut extended = vec![0u32; self.symbols.len() + 1];
        for (index, symbol) in self.symbols.iter().enumerate() {
            let number = usize::try_from(numbers[index]).expect("a small number");
            let section = match symbol.at {
                Where::Undefined => 0u16,
                Where::Absolute => 0xfff1,
                Where::Common => 0xfff2,
                Where::In(section) => match u16::try_from(Self::number(section)) {
                    Ok(small) if small < 0xff00 => small,
                    _ => {
                        extended[number] = to_u32(Self::number(section));
                        0xffff
                    }
                },
            };
            let mut entry = strings.add(&symbol.name).to_le_bytes().to_vec();
            entry.push(symbol.bind << 4 | symbol.kind);
            entry.push(symbol.visibility);
            entry.extend(section.to_le_bytes());
            entry.extend(symbol.value.to_le_bytes());
            entry.extend(symbol.size.to_le_bytes());
            entries[number] = entry;
        }
        let symtab = to_u32(raws.len());
        let needs_extended = extended.iter().any(|&section| section != 0);
        let contents = entries.concat();
        raws.push(Raw {
            name: names.add(".symtab"),
            kind: 2,
            flags: 0,
            size: to_u64(contents.len()),
            contents,
            link: symtab + 1,
            info: first_global,
            align: 8,
            entry: 24,
        });
        raws.push(Raw {
            name: names.add(".strtab"),
            kind: 3,
            flags: 0,
            size: to_u64(strings.0.len()),
            contents: strings.0,
            link: 0,
            info: 0,
            align: 1,
            entry: 0,
        });
        if needs_extended {
            let contents: Vec<u8> = extended.iter().flat_map(|e| e.to_le_bytes()).collect();
            raws.push(Raw {
                name: names.add(".symtab_shndx"),
                kind: 18,
                flags: 0,
                size: to_u64(contents.len()),
                contents,
                link: symtab,
                info: 0,
                align: 4,
                entry: 4,
            });
        }
    }
}

/// Type, contents and entry size of a section's relocations.
fn relocations(section: &Sec, numbers: &[u32]) -> (u32, Vec<u8>, u64) {
    let symbol = |rel: &Rel| match rel.of {
        Of::Nothing => 0,
        Of::Sym(index) => numbers[index],
        Of::Raw(number) => number,
    };
    let mut bytes = Vec::new();
    match section.form {
        Form::Crel => return (SHT_CREL, crel(&section.rels, &symbol), 1),
        Form::Rela | Form::Rel => {
            for rel in &section.rels {
                bytes.extend(rel.offset.to_le_bytes());
                bytes.extend((u64::from(symbol(rel)) << 32 | u64::from(rel.kind)).to_le_bytes());
                if section.form == Form::Rela {
                    bytes.extend(rel.addend.to_le_bytes());
                }
            }
        }
    }
    if section.form == Form::Rela {
        (SHT_RELA, bytes, 24)
    } else {
        (SHT_REL, bytes, 16)
    }
}

/// CREL: a header, then for each relocation a byte of flags and the offset's difference, and
/// the differences of symbol, type and addend as the flags say (generic ABI proposal; LLVM).
fn crel(rels: &[Rel], symbol: &dyn Fn(&Rel) -> u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    uleb(&mut bytes, u128::from(to_u64(rels.len())) << 3 | 4);
    let (mut offset, mut number, mut kind, mut addend) = (0u64, 0u32, 0u32, 0i64);
    for rel in rels {
        let step = rel.offset.wrapping_sub(offset);
        let flags = u8::from(symbol(rel) != number)
            | u8::from(rel.kind != kind) << 1
            | u8::from(rel.addend != addend) << 2;
        let low = (step & 15).to_le_bytes()[0];
        if step < 16 {
            bytes.push(flags | low << 3);
        } else {
            bytes.push(0x80 | flags | low << 3);
            uleb(&mut bytes, u128::from(step >> 4));
        }
        if flags & 1 != 0 {
            sleb(&mut bytes, i128::from(symbol(rel)) - i128::from(number));
        }
        if flags & 2 != 0 {
            sleb(&mut bytes, i128::from(rel.kind) - i128::from(kind));
        }
        if flags & 4 != 0 {
            sleb(&mut bytes, i128::from(rel.addend.wrapping_sub(addend)));
        }
        (offset, number, kind, addend) = (rel.offset, symbol(rel), rel.kind, rel.addend);
    }
    bytes
}

fn uleb(bytes: &mut Vec<u8>, mut value: u128) {
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

fn sleb(bytes: &mut Vec<u8>, mut value: i128) {
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        let sign = low & 0x40 != 0;
        if (value == 0 && !sign) || (value == -1 && sign) {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

fn finish(mut raws: Vec<Raw>, mut names: Names) -> Vec<u8> {
    let name = names.add(".shstrtab");
    raws.push(Raw {
        name,
        kind: 3,
        flags: 0,
        size: to_u64(names.0.len()),
        contents: names.0,
        link: 0,
        info: 0,
        align: 1,
        entry: 0,
    });
    let (count, strings) = (raws.len(), raws.len() - 1);
    // gABI: numbers from 0xff00 on stand in section 0's header.
    let (small_count, small_strings) = if count >= 0xff00 {
        raws[0].size = to_u64(count);
        raws[0].link = to_u32(strings);
        (0u16, 0xffff)
    } else {
        let small = |n: usize| u16::try_from(n).expect("below 0xff00");
        (small(count), small(strings))
    };
    let mut bytes = vec![0; 64];
    let mut headers = Vec::new();
    for raw in &raws {
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        headers.extend(header(
            raw,
            if raw.kind == 0 {
                0
            } else {
                to_u64(bytes.len())
            },
        ));
        bytes.extend_from_slice(&raw.contents);
    }
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let table = to_u64(bytes.len());
    bytes.extend(headers);
    bytes[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    bytes[16..20].copy_from_slice(&[1, 0, 62, 0]);
    bytes[20] = 1;
    bytes[40..48].copy_from_slice(&table.to_le_bytes());
    bytes[52] = 64;
    bytes[58] = 64;
    bytes[60..62].copy_from_slice(&small_count.to_le_bytes());
    bytes[62..64].copy_from_slice(&small_strings.to_le_bytes());
    bytes
}
