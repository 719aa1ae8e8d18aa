//! A slow, plain model of the psABI, and links of random objects compared with it byte for byte
//! and error for error.
//!
//! The model shares nothing with the library: it knows the objects as they were generated, each
//! section's address because it pinned it, and applies one relocation at a time to a copy of the
//! contents. Where a GOT slot or a stub has its place it reads from the dump, and checks what
//! the slot holds and where the stub goes.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod battery;

use std::collections::{BTreeSet, HashMap};

use battery::elf::{self, Group, Obj, Of, Rel, Sec, Sym, Where};
use battery::link::{
    Externals, bytes_at, dry, link, options, own_pin, pin, report, unhex, word_at,
};
use battery::rng::{Rng, seed};
use low2g::link::{
    ExternalKind, FarData, Input, LinkError, LinkFailure, LinkOptions, Linked, Relax,
};

/// A generated link.
struct World {
    /// In link order once archives are resolved: name as shown, and the object.
    objects: Vec<(String, Obj)>,
    inputs: Vec<Input>,
    externals: Externals,
    relax: Relax,
    /// Address of each section, by object and section.
    addrs: HashMap<(usize, usize), u64>,
    got: u64,
    stubs: u64,
}

/// What a symbol came to, in the model.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    Section(u64),
    Number(u64),
    External(u64),
    WeakZero,
    Common,
}

const TYPES: [u32; 26] = [
    1, 2, 3, 4, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 39, 40, 41, 42,
    43,
];

/// Bytes of the field, and whether values are unsigned (u), signed (s), either (e) or all (a).
fn field(kind: u32) -> (usize, char) {
    match kind {
        1 | 24 | 25 | 27..=31 | 33 => (8, 'a'),
        10 | 32 => (4, 'u'),
        12 => (2, 'e'),
        13 => (2, 's'),
        14 => (1, 'e'),
        15 => (1, 's'),
        _ => (4, 's'),
    }
}

fn fits(kind: u32, value: u64) -> bool {
    let (width, rule) = field(kind);
    let bits = 8 * u32::try_from(width).expect("small");
    let unsigned = bits == 64 || value < 1 << bits;
    let signed = bits == 64 || {
        let (signed, half) = (i128::from(value.cast_signed()), 1i128 << (bits - 1));
        (-half..half).contains(&signed)
    };
    match rule {
        'u' => unsigned,
        's' => signed,
        'e' => unsigned || signed,
        _ => true,
    }
}

/// An error as both sides can tell it.
type Fault = (String, String, u64, u32, u64);

fn index(value: u64) -> usize {
    usize::try_from(value).expect("64-bit tests")
}

/// Sections of all kinds, symbols of all kinds; `number` makes names unique.
fn object(rng: &mut Rng, number: usize, pool: &[String]) -> Obj {
    let mut object = Obj::default();
    for section in 0..1 + rng.index(6) {
        let len = if rng.one_in(6) { 0 } else { 1 + rng.index(200) };
        let align = 1u64 << rng.below(14);
        let data = rng.bytes(len);
        let made = match rng.below(6) {
            0 | 1 => Sec::new(&format!(".text.{section}"), elf::ALLOC | elf::EXEC, data),
            2 => Sec::new(".rodata", elf::ALLOC, data),
            3 => Sec::zeros(".bss", elf::ALLOC | elf::WRITE, rng.below(9000)),
            4 => Sec::new(".data.rel.ro", elf::ALLOC | elf::WRITE, data),
            _ => Sec::new(".data", elf::ALLOC | elf::WRITE, data),
        };
        object.section(made.aligned(align));
    }
    for local in 0..rng.index(4) {
        let section = rng.index(object.sections.len());
        let value = rng.below(object.sections[section].size() + 1);
        let symbol = if rng.one_in(2) {
            Sym::new("", elf::LOCAL, elf::SECTION, Where::In(section), 0)
        } else if rng.one_in(4) {
            Sym::new(
                &format!("n{local}"),
                elf::LOCAL,
                elf::NOTYPE,
                Where::Absolute,
                rng.next() >> rng.below(64),
            )
        } else {
            Sym::new(
                &format!("l{local}"),
                elf::LOCAL,
                elf::FUNC,
                Where::In(section),
                value,
            )
            .sized(rng.below(100))
        };
        object.symbol(symbol);
    }
    for own in 0..1 + rng.index(3) {
        let section = rng.index(object.sections.len());
        let value = rng.below(object.sections[section].size() + 1);
        let visibility = rng.pick(&[elf::DEFAULT, elf::DEFAULT, elf::HIDDEN, elf::PROTECTED]);
        let (bind, at, value) = match rng.below(6) {
            0 => (elf::GLOBAL, Where::Absolute, rng.next() >> rng.below(64)),
            1 => (elf::UNIQUE, Where::In(section), value),
            _ => (elf::GLOBAL, Where::In(section), value),
        };
        let kind = rng.pick(&[elf::NOTYPE, elf::OBJECT, elf::FUNC]);
        let symbol = Sym::new(&format!("g{number}_{own}"), bind, kind, at, value);
        object.symbol(symbol.sized(rng.below(1000)).visible(visibility));
    }
    // Weak definitions and commons of shared names: the first weak one, the greatest common.
    for shared in 0..rng.index(3) {
        let section = rng.index(object.sections.len());
        object.symbol(
            Sym::new(
                &format!("w{shared}"),
                elf::WEAK,
                elf::FUNC,
                Where::In(section),
                0,
            )
            .sized(rng.below(50)),
        );
    }
    if rng.one_in(2) {
        let align = 1 << rng.below(8);
        object.symbol(
            Sym::new(
                &format!("c{}", rng.below(2)),
                elf::GLOBAL,
                elf::OBJECT,
                Where::Common,
                align,
            )
            .sized(rng.below(500)),
        );
    }
    for name in pool {
        let known = object.symbols.iter().any(|symbol| symbol.name == *name);
        if !known && rng.one_in(3) {
            let weak = name.starts_with('m');
            object.symbol(Sym::new(
                name,
                if weak { elf::WEAK } else { elf::GLOBAL },
                elf::NOTYPE,
                Where::Undefined,
                0,
            ));
        }
    }
    if rng.one_in(2) {
        add_group(rng, &mut object);
    }
    object
}

/// A COMDAT group: a section of its own, with a global that only the kept copy defines.
fn add_group(rng: &mut Rng, object: &mut Obj) {
    let which = rng.below(2);
    let data = rng.bytes(24);
    let section = object
        .section(Sec::new(&format!(".text.k{which}"), elf::ALLOC | elf::EXEC, data).aligned(16));
    let bind = rng.pick(&[elf::WEAK, elf::GLOBAL]);
    let symbol = Sym::new(
        &format!("k{which}"),
        bind,
        elf::FUNC,
        Where::In(section),
        rng.below(24),
    )
    .sized(rng.below(24));
    let signature = object.symbol(symbol);
    object.groups.push(Group {
        signature,
        members: vec![section],
    });
}

impl World {
    fn generate(rng: &mut Rng, far: bool) -> Self {
        let count = 1 + rng.index(4);
        let mut externals = Externals::default();
        for number in 0..4u64 {
            let addr = if far || rng.one_in(2) {
                rng.next() >> 16
            } else {
                0x1000_0000 + rng.below(0x4000_0000)
            };
            let kind = rng.pick(&[
                ExternalKind::Function,
                ExternalKind::Data,
                ExternalKind::Unknown,
            ]);
            externals = externals.with(&format!("e{number}"), addr, kind);
        }
        let archived: Vec<String> = (0..3).map(|n| format!("a{n}")).collect();
        let mut pool: Vec<String> = ["e0", "e1", "e2", "e3", "m0", "m1"]
            .map(str::to_owned)
            .to_vec();
        pool.extend(archived.clone());
        let mut objects: Vec<(String, Obj)> = (0..count)
            .map(|n| (format!("o{n}.o"), object(rng, n, &pool)))
            .collect();
        let members: Vec<(String, Obj)> = archived
            .iter()
            .enumerate()
            .map(|(n, name)| {
                let mut member = object(rng, 100 + n, &pool);
                member.symbols.retain(|symbol| symbol.name != *name);
                member.groups.clear();
                member
                    .symbols
                    .retain(|symbol| !symbol.name.starts_with(['w', 'c', 'k']));
                member.symbol(Sym::new(name, elf::GLOBAL, elf::FUNC, Where::In(0), 0));
                (format!("m{n}.o"), member)
            })
            .collect();
        let pulled = pulled(&objects, &members);
        objects.extend(
            pulled
                .iter()
                .map(|&n| (format!("lib.a({})", members[n].0), members[n].1.clone())),
        );
        let mut world = Self {
            objects,
            inputs: Vec::new(),
            externals,
            relax: rng.pick(&[Relax::None, Relax::PcRelative, Relax::All]),
            addrs: HashMap::new(),
            got: 0,
            stubs: 0,
        };
        world.place(rng, far);
        world.relocate(rng);
        // Members that were not pulled are in the archive all the same.
        let built: Vec<(String, Vec<u8>)> = members
            .iter()
            .enumerate()
            .map(|(n, (name, member))| {
                let shown = format!("lib.a({name})");
                let used = world
                    .objects
                    .iter()
                    .find(|(known, _)| *known == shown && pulled.contains(&n));
                (
                    name.clone(),
                    used.map_or(member, |(_, object)| object).build(),
                )
            })
            .collect();
        let refs: Vec<(&str, Vec<u8>)> = built
            .iter()
            .map(|(name, data)| (name.as_str(), data.clone()))
            .collect();
        let names: Vec<(&str, usize)> = archived
            .iter()
            .enumerate()
            .map(|(n, name)| (name.as_str(), n))
            .collect();
        let with_index = rng.one_in(2);
        let archive = elf::archive(&refs, with_index.then_some(&names[..]));
        let plain = world.objects.iter().take(count);
        world.inputs = plain
            .map(|(name, object)| Input::from_bytes(name.clone(), object.build()))
            .collect();
        world
            .inputs
            .insert(rng.index(count + 1), Input::from_bytes("lib.a", archive));
        world
    }

    /// Gives every section an address: within 1 GiB, or anywhere.
    fn place(&mut self, rng: &mut Rng, far: bool) {
        let mut taken: Vec<(u64, u64)> = Vec::new();
        let mut take = |rng: &mut Rng, size: u64, align: u64| loop {
            let base = if far {
                rng.next() >> rng.pick(&[1, 16, 17, 33])
            } else {
                0x1000_0000 + rng.below(0x3000_0000)
            };
            let start = base & !(align - 1);
            let (low, high) = (start.saturating_sub(64), start + size + 64);
            if taken.iter().all(|&(from, to)| high <= from || to <= low) {
                taken.push((low, high));
                return start;
            }
        };
        for (number, (_, object)) in self.objects.iter().enumerate() {
            for (section, data) in object.sections.iter().enumerate() {
                let addr = take(rng, data.size(), data.align);
                self.addrs.insert((number, section), addr);
            }
        }
        self.got = take(rng, 8 * 4000, 16);
        // Stubs reach their slots.
        self.stubs = self.got + 8 * 4000 + 16 - self.got % 16;
        taken.push((self.stubs, self.stubs + 16 * 4000));
        if taken[..taken.len() - 2]
            .iter()
            .any(|&(from, to)| from < self.stubs + 16 * 4000 && self.stubs < to)
        {
            self.addrs.clear();
        }
    }

    /// Which copy of each COMDAT group counts: sections dropped, by object and section.
    fn dropped(&self) -> BTreeSet<(usize, usize)> {
        let mut seen = BTreeSet::new();
        let mut dropped = BTreeSet::new();
        for (number, (_, object)) in self.objects.iter().enumerate() {
            for group in &object.groups {
                if !seen.insert(object.symbols[group.signature].name.clone()) {
                    dropped.extend(group.members.iter().map(|&member| (number, member)));
                }
            }
        }
        dropped
    }

    /// The definition of symbol `symbol` of object `number`: its object, and it.
    fn definition(&self, number: usize, symbol: usize) -> Option<(usize, &Sym)> {
        let wanted = &self.objects[number].1.symbols[symbol];
        if wanted.bind == elf::LOCAL {
            return Some((number, wanted));
        }
        let dropped = self.dropped();
        let mut best: Option<(u8, usize, &Sym)> = None;
        for (owner, (_, object)) in self.objects.iter().enumerate() {
            for candidate in object
                .symbols
                .iter()
                .filter(|s| s.bind != elf::LOCAL && s.name == wanted.name)
            {
                let rank = match candidate.at {
                    Where::Undefined => continue,
                    Where::In(section) if dropped.contains(&(owner, section)) => continue,
                    Where::Common => 2,
                    _ if candidate.bind == elf::WEAK => 1,
                    _ => 3,
                };
                let better = best.is_none_or(|(other, _, old)| {
                    rank > other || (rank == 2 && other == 2 && candidate.size > old.size)
                });
                if better {
                    best = Some((rank, owner, candidate));
                }
            }
        }
        best.map(|(_, owner, symbol)| (owner, symbol))
    }

    fn value(&self, number: usize, of: Of) -> Value {
        let Of::Sym(symbol) = of else {
            return Value::Number(0);
        };
        let Some((owner, definition)) = self.definition(number, symbol) else {
            let name = &self.objects[number].1.symbols[symbol].name;
            let external = self.externals.0.iter().find(|(known, _)| known == name);
            return external.map_or(Value::WeakZero, |(_, external)| {
                Value::External(external.addr)
            });
        };
        match definition.at {
            Where::In(section) => {
                Value::Section(self.addrs[&(owner, section)].wrapping_add(definition.value))
            }
            Where::Absolute => Value::Number(definition.value),
            Where::Common => Value::Common,
            Where::Undefined => unreachable!("no definition"),
        }
    }

    fn size(&self, number: usize, of: Of) -> u64 {
        let Of::Sym(symbol) = of else { return 0 };
        self.definition(number, symbol)
            .map_or(0, |(_, definition)| definition.size)
    }

    /// Adds relocations: most with a value near an edge of the range, some with any addend.
    fn relocate(&mut self, rng: &mut Rng) {
        if self.addrs.is_empty() {
            return;
        }
        let dropped = self.dropped();
        for number in 0..self.objects.len() {
            let usable: Vec<Of> = (0..self.objects[number].1.symbols.len())
                .filter(|&symbol| {
                    let symbol = &self.objects[number].1.symbols[symbol];
                    let gone = matches!(symbol.at, Where::In(section) if dropped.contains(&(number, section)));
                    !(gone && symbol.bind == elf::LOCAL)
                })
                .map(Of::Sym)
                .chain([Of::Nothing])
                .collect();
            for section in 0..self.objects[number].1.sections.len() {
                let data = &self.objects[number].1.sections[section];
                if data.kind == elf::SHT_NOBITS || data.data.len() < 24 {
                    continue;
                }
                let (mut at, len, exec) = (8, data.data.len(), data.flags & elf::EXEC != 0);
                while at + 12 < len {
                    let (kind, of) = (rng.pick(&TYPES), rng.pick(&usable));
                    let mut code = rng.bytes(4);
                    if exec && rng.one_in(2) {
                        code = rng
                            .pick(&[
                                [0x90, 0x48, 0x8b, 0x05],
                                [0x4c, 0x2b, 0x3d, 0],
                                [0x90, 0x90, 0xff, 0x15],
                                [0, 0, 0xff, 0x25],
                                [0, 0, 0x8b, 0x0d],
                                [0, 0x44, 0x85, 0x05],
                                [0, 0, 0x3b, 0x35],
                                [0, 0, 0, 0xe8],
                                [0, 0, 0x0f, 0x84],
                                [0, 0, 0, 0xe9],
                            ])
                            .to_vec();
                        if code[0] == 0x4c {
                            code.rotate_right(1);
                        }
                    }
                    let place = self.addrs[&(number, section)] + u64::try_from(at).expect("small");
                    let addend = if !(12..=15).contains(&kind) && rng.one_in(3) {
                        -4
                    } else {
                        self.addend(rng, number, kind, of, place)
                    };
                    let data = &mut self.objects[number].1.sections[section];
                    data.data[at - 4..at].copy_from_slice(&code);
                    let offset = u64::try_from(at).expect("small");
                    data.rels.push(Rel {
                        offset,
                        kind,
                        of,
                        addend,
                    });
                    at += 12 + rng.index(24);
                }
            }
        }
    }

    /// An addend that brings the value into the range, or just out of it.
    fn addend(&self, rng: &mut Rng, number: usize, kind: u32, of: Of, place: u64) -> i64 {
        let s = match self.value(number, of) {
            Value::Section(s) | Value::Number(s) | Value::External(s) => s,
            Value::WeakZero => 0,
            Value::Common => return rng.below(64).cast_signed(),
        };
        let base = match kind {
            1 | 10 | 11 | 12 | 14 => s,
            2 | 4 | 13 | 15 | 39 | 40 => s.wrapping_sub(place),
            32 => self.size(number, of),
            26 | 9 | 41..=43 => self.got.wrapping_sub(place),
            3 => 0,
            _ => return rng.next().cast_signed() >> rng.below(64),
        };
        let (width, rule) = field(kind);
        let bits = 8 * u32::try_from(width).expect("small");
        let spread = u64::MAX >> (64 - bits);
        let low = if rule == 's' {
            0u64.wrapping_sub(1 << (bits - 1))
        } else {
            0
        };
        let beyond = if rng.one_in(200) { 300 } else { 0 };
        let value = low
            .wrapping_add(rng.below(spread) & !7)
            .wrapping_add(beyond);
        value.wrapping_sub(base).cast_signed()
    }
}

/// The members that strong references pull, in the order in which they are pulled.
fn pulled(objects: &[(String, Obj)], members: &[(String, Obj)]) -> Vec<usize> {
    let mut needed: Vec<String> = Vec::new();
    let needs = |object: &Obj, needed: &mut Vec<String>| {
        for symbol in &object.symbols {
            if symbol.at == Where::Undefined
                && symbol.bind == elf::GLOBAL
                && !needed.contains(&symbol.name)
            {
                needed.push(symbol.name.clone());
            }
        }
    };
    // The table of a file has its locals first; globals keep their order.
    for (_, object) in objects {
        needs(object, &mut needed);
    }
    let (mut next, mut order) = (0, Vec::new());
    while next < needed.len() {
        let member = needed[next]
            .strip_prefix('a')
            .and_then(|number| number.parse::<usize>().ok());
        if let Some(member) = member
            && !order.contains(&member)
        {
            order.push(member);
            needs(&members[member].1, &mut needed);
        }
        next += 1;
    }
    order
}

/// What the model says of a relocation.
enum Said {
    /// These bytes at this offset, in place of what is there.
    Bytes(usize, Vec<u8>),
    /// Through the GOT slot of the symbol: relative to P, or to the GOT.
    Slot {
        relative: bool,
    },
    /// Through the stub of the symbol.
    Stub,
    Overflow(u64),
}

impl World {
    fn judge(
        &self,
        code: &[u8],
        exec: bool,
        rel: &Rel,
        value: Value,
        size: u64,
        place: u64,
    ) -> Said {
        let s = match value {
            Value::Section(s) | Value::Number(s) | Value::External(s) => s,
            Value::WeakZero | Value::Common => 0,
        };
        let plain = |number: u64| {
            let (width, _) = field(rel.kind);
            if fits(rel.kind, number) {
                Said::Bytes(index(rel.offset), number.to_le_bytes()[..width].to_vec())
            } else {
                Said::Overflow(number)
            }
        };
        let with = |base: u64| base.wrapping_add_signed(rel.addend);
        match rel.kind {
            1 | 10 | 11 | 12 | 14 => plain(with(s)),
            2 | 4 | 13 | 15 | 24 | 39 | 40 => {
                let number = with(s).wrapping_sub(place);
                let stub = matches!(rel.kind, 2 | 4 | 39 | 40)
                    && matches!(value, Value::Section(_) | Value::External(_));
                if fits(rel.kind, number) || !stub {
                    return plain(number);
                }
                let at = index(rel.offset);
                let branch = exec
                    && (matches!(code[at - 1], 0xe8 | 0xe9)
                        || (code[at - 2] == 0x0f && code[at - 1] & 0xf0 == 0x80));
                let takes = if branch {
                    rel.addend == -4
                } else {
                    matches!(rel.kind, 4 | 40)
                };
                if takes {
                    Said::Stub
                } else {
                    Said::Overflow(number)
                }
            }
            3 | 27 | 30 => Said::Slot { relative: false },
            28 | 43 => Said::Slot { relative: true },
            9 | 41 | 42 => {
                let relaxed = if exec && rel.addend == -4 {
                    self.relaxed(code, rel, s, place)
                } else {
                    None
                };
                relaxed.map_or(Said::Slot { relative: true }, |(at, bytes)| {
                    Said::Bytes(at, bytes)
                })
            }
            25 | 31 => plain(with(s).wrapping_sub(self.got)),
            26 | 29 => plain(with(self.got).wrapping_sub(place)),
            32 | 33 => plain(with(size)),
            other => unreachable!("type {other} is not generated"),
        }
    }

    /// psABI, "Optimize GOTPCRELX Relocations": where the bytes begin, and the bytes.
    fn relaxed(&self, code: &[u8], rel: &Rel, s: u64, place: u64) -> Option<(usize, Vec<u8>)> {
        let at = index(rel.offset);
        let (rex, opcode, modrm) = (code[at - 3], code[at - 2], code[at - 1]);
        let short = |value: u64| i32::try_from(value.cast_signed()).ok();
        let relative = short(s.wrapping_sub(place).wrapping_sub(4));
        if self.relax == Relax::None || modrm & 0xc7 != 5 {
            return None;
        }
        let is_rex = rex & 0xf0 == 0x40;
        match (rel.kind, opcode, modrm) {
            (41, 0xff, 0x15) => {
                return Some((
                    at - 2,
                    [&[0x67, 0xe8][..], &relative?.to_le_bytes()].concat(),
                ));
            }
            (41, 0xff, 0x25) => {
                let distance = short(s.wrapping_sub(place).wrapping_sub(3))?;
                return Some((
                    at - 2,
                    [&[0xe9][..], &distance.to_le_bytes(), &[0x90]].concat(),
                ));
            }
            (42, ..) if !is_rex => return None,
            (9, ..) if !(is_rex && rex & 8 != 0 && opcode == 0x8b) => return None,
            _ => {}
        }
        if let (0x8b, Some(distance)) = (opcode, relative) {
            return Some((
                at - 2,
                [&[0x8d, modrm][..], &distance.to_le_bytes()].concat(),
            ));
        }
        if self.relax != Relax::All || rel.kind == 9 {
            return None;
        }
        let wide = rel.kind == 42 && rex & 8 != 0;
        let holds = if wide {
            short(s).is_some()
        } else {
            s < 1 << 32
        };
        let register = modrm >> 3 & 7;
        let (new, digit) = match opcode {
            0x8b => (0xc7, 0),
            0x85 => (0xf7, 0),
            0x03 | 0x0b | 0x13 | 0x1b | 0x23 | 0x2b | 0x33 | 0x3b => (0x81, opcode >> 3),
            _ => return None,
        };
        let tail = [
            &[new, 0xc0 | digit << 3 | register][..],
            &s.to_le_bytes()[..4],
        ]
        .concat();
        if !holds {
            None
        } else if rel.kind == 42 {
            let moved = rex & 0xfa | (rex >> 2 & 1);
            Some((at - 3, [&[moved][..], &tail].concat()))
        } else {
            Some((at - 2, tail))
        }
    }

    fn options(&self) -> LinkOptions {
        let mut pins = vec![own_pin(".got", self.got), own_pin(".stubs", self.stubs)];
        let dropped = self.dropped();
        for (&(object, section), &addr) in &self.addrs {
            if !dropped.contains(&(object, section)) {
                pins.push(pin(&self.objects[object].0, Obj::number(section), addr));
            }
        }
        LinkOptions {
            pins,
            relax: self.relax,
            far_data: FarData::Error,
            ..options()
        }
    }
}

/// The link's errors in the form of the model's.
fn faults_of(failure: &LinkFailure) -> BTreeSet<Fault> {
    let fault = |error: &LinkError| match error {
        LinkError::Overflow { site, value, .. } => {
            let kind = (0..52)
                .find(|&kind| low2g::link::howto(kind).is_some_and(|h| h.name == site.r_type));
            (
                site.at.object.clone(),
                site.at.section.clone(),
                site.at.offset,
                kind.expect("a known type"),
                *value,
            )
        }
        other => panic!("only overflows are expected: {other}"),
    };
    failure.errors().iter().map(fault).collect()
}

/// What a field, a slot and a stub must hold, against what is there.
struct Checker<'w, 'l> {
    world: &'w World,
    linked: &'l Linked<'l>,
    /// Object, symbol, address.
    slots: Vec<(String, String, u64)>,
    stubs: Vec<(String, String, u64)>,
    commons: HashMap<String, u64>,
}

impl<'w, 'l> Checker<'w, 'l> {
    fn new(world: &'w World, linked: &'l Linked<'l>) -> Self {
        let report = report(linked);
        Self {
            world,
            linked,
            slots: report
                .got
                .iter()
                .map(|row| (row.object.clone(), row.symbol.clone(), unhex(&row.addr)))
                .collect(),
            stubs: report
                .stubs
                .iter()
                .map(|row| (row.object.clone(), row.symbol.clone(), unhex(&row.addr)))
                .collect(),
            commons: report
                .symbols
                .iter()
                .filter(|row| row.kind == "common")
                .map(|row| (row.name.clone(), unhex(&row.addr)))
                .collect(),
        }
    }

    /// The name that rows give a relocation's symbol.
    fn shown(&self, number: usize, of: Of) -> String {
        let object = &self.world.objects[number].1;
        match of {
            Of::Sym(symbol) => match object.symbols[symbol].at {
                Where::In(section) if object.symbols[symbol].name.is_empty() => {
                    object.sections[section].name.clone()
                }
                _ => object.symbols[symbol].name.clone(),
            },
            _ => String::new(),
        }
    }

    fn rows<'r>(
        &self,
        rows: &'r [(String, String, u64)],
        key: &'r (String, String),
    ) -> impl Iterator<Item = u64> + use<'r> {
        rows.iter()
            .filter(move |(object, symbol, _)| (object, symbol) == (&key.0, &key.1))
            .map(|row| row.2)
    }

    /// Where the code of a stub goes.
    fn stub_target(&self, stub: u64) -> u64 {
        let code = bytes_at(self.linked, stub, 6);
        assert_eq!(code[..2], [0xff, 0x25], "jmp *slot(%rip)");
        let distance = i32::from_le_bytes(code[2..].try_into().expect("4 bytes"));
        word_at(
            self.linked,
            (stub + 6).wrapping_add_signed(i64::from(distance)),
        )
    }

    fn section(&self, number: usize, section: usize) {
        let (name, object) = &self.world.objects[number];
        let data = &object.sections[section];
        let addr = self.world.addrs[&(number, section)];
        let mut wanted = data.data.clone();
        wanted.resize(index(data.size()), 0);
        for rel in &data.rels {
            let place = addr + rel.offset;
            let mut value = self.world.value(number, rel.of);
            let shown = self.shown(number, rel.of);
            if value == Value::Common {
                value = Value::Section(self.commons[&shown]);
            }
            let s = match value {
                Value::Section(s) | Value::Number(s) | Value::External(s) => s,
                _ => 0,
            };
            let size = self.world.size(number, rel.of);
            let key = (name.clone(), shown);
            let context = format!("{key:?} {rel:?} in {} at {place:#x}", data.name);
            let (width, _) = field(rel.kind);
            let mut put = |number: u64| {
                assert!(
                    fits(rel.kind, number),
                    "{context}: {number:#x} does not fit, the link said nothing"
                );
                wanted[index(rel.offset)..index(rel.offset) + width]
                    .copy_from_slice(&number.to_le_bytes()[..width]);
            };
            match self.world.judge(
                &data.data,
                data.flags & elf::EXEC != 0,
                rel,
                value,
                size,
                place,
            ) {
                Said::Bytes(at, bytes) => wanted[at..at + bytes.len()].copy_from_slice(&bytes),
                Said::Overflow(number) => {
                    panic!("{context}: {number:#x} overflows, the link said nothing")
                }
                Said::Slot { relative } => {
                    // Several local symbols may be shown by one name: one of their slots it is.
                    let from = if relative { place } else { self.world.got };
                    let held = bytes_at(self.linked, place, u64::try_from(width).expect("small"));
                    let mut slots = self
                        .rows(&self.slots, &key)
                        .filter(|&slot| word_at(self.linked, slot) == s);
                    let number = slots
                        .by_ref()
                        .map(|slot| slot.wrapping_sub(from).wrapping_add_signed(rel.addend))
                        .find(|number| number.to_le_bytes()[..width] == held);
                    put(number.unwrap_or_else(|| {
                        panic!("{context}: no slot of {s:#x} gives {held:02x?}")
                    }));
                }
                Said::Stub => {
                    let held = bytes_at(self.linked, place, 4);
                    let mut stubs = self
                        .rows(&self.stubs, &key)
                        .filter(|&stub| self.stub_target(stub) == s);
                    let number = stubs
                        .by_ref()
                        .map(|stub| stub.wrapping_sub(place).wrapping_add_signed(rel.addend))
                        .find(|number| number.to_le_bytes()[..4] == held);
                    put(number.unwrap_or_else(|| {
                        panic!("{context}: no stub of {s:#x} gives {held:02x?}")
                    }));
                }
            }
        }
        if data.size() > 0 {
            let held = bytes_at(self.linked, addr, data.size());
            let differs = held.iter().zip(&wanted).position(|(a, b)| a != b);
            if let Some(at) = differs {
                let near = data
                    .rels
                    .iter()
                    .filter(|rel| index(rel.offset).abs_diff(at) < 12);
                panic!(
                    "{name}({}) at {addr:#x} differs at {at}: {:02x?}, not {:02x?}; {:?}",
                    data.name,
                    &held[at..],
                    &wanted[at..],
                    near.collect::<Vec<_>>()
                );
            }
        }
    }
}

/// The overflows that the model finds where neither slot nor stub is used.
fn direct_faults(world: &World) -> BTreeSet<Fault> {
    let dropped = world.dropped();
    let mut faults = BTreeSet::new();
    for (number, (name, object)) in world.objects.iter().enumerate() {
        for (section, data) in object.sections.iter().enumerate() {
            if dropped.contains(&(number, section)) {
                continue;
            }
            for rel in &data.rels {
                let value = world.value(number, rel.of);
                if value == Value::Common {
                    continue;
                }
                let place = world.addrs[&(number, section)] + rel.offset;
                let size = world.size(number, rel.of);
                if let Said::Overflow(number) = world.judge(
                    &data.data,
                    data.flags & elf::EXEC != 0,
                    rel,
                    value,
                    size,
                    place,
                ) {
                    faults.insert((
                        name.clone(),
                        data.name.clone(),
                        rel.offset,
                        rel.kind,
                        number,
                    ));
                }
            }
        }
    }
    faults
}

/// Whether a link error that the model cannot place must be one of slots, stubs or commons.
fn is_late(world: &World, fault: &Fault) -> bool {
    let (name, section, offset, kind, value) = fault;
    let Some(number) = world.objects.iter().position(|(known, _)| known == name) else {
        return false;
    };
    let object = &world.objects[number].1;
    object
        .sections
        .iter()
        .filter(|data| data.name == *section)
        .any(|data| {
            data.rels.iter().any(|rel| {
                let common = world.value(number, rel.of) == Value::Common;
                let through = matches!(rel.kind, 2..=4 | 9 | 39..=43);
                rel.offset == *offset
                    && rel.kind == *kind
                    && (common || through)
                    && !fits(*kind, *value)
            })
        })
}

fn compare(seed: u64, round: u64, far: bool) -> bool {
    let mut rng = Rng::new(seed.wrapping_add(round.wrapping_mul(0x1_0001)));
    let world = World::generate(&mut rng, far);
    if world.addrs.is_empty() {
        return false;
    }
    let context = format!("seed {seed}, round {round}, far {far}, {:?}", world.relax);
    let options = world.options();
    let faults = direct_faults(&world);
    match link(&world.inputs, &options, &world.externals, &dry(round)) {
        Ok(linked) => {
            assert!(
                faults.is_empty(),
                "{context}: the link did not say {faults:x?}"
            );
            let checker = Checker::new(&world, &linked);
            let dropped = world.dropped();
            for (number, (_, object)) in world.objects.iter().enumerate() {
                for section in (0..object.sections.len())
                    .filter(|&section| !dropped.contains(&(number, section)))
                {
                    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        checker.section(number, section)
                    }));
                    assert!(result.is_ok(), "{context}");
                }
            }
            true
        }
        Err(failure) => {
            let said = faults_of(&failure);
            // What needs the GOT's address is judged last, and not at all after other errors.
            let first: BTreeSet<Fault> = faults
                .iter()
                .filter(|fault| fault.3 != 26)
                .cloned()
                .collect();
            let others = said.difference(&faults).next().is_some();
            let required = if first.is_empty() && !others {
                &faults
            } else {
                &first
            };
            let missing: Vec<&Fault> = required.difference(&said).collect();
            assert!(
                missing.is_empty(),
                "{context}: the link did not say {missing:x?}"
            );
            for fault in said.difference(&faults) {
                assert!(
                    is_late(&world, fault),
                    "{context}: the model does not know {fault:x?}"
                );
            }
            false
        }
    }
}

#[test]
fn links_agree_with_the_model() {
    let seed = seed();
    let rounds = if cfg!(debug_assertions) {
        3_000
    } else {
        20_000
    };
    for far in [false, true] {
        let linked = (0..rounds)
            .filter(|&round| compare(seed, round, far))
            .count();
        eprintln!("far {far}: {linked} of {rounds} links came out, the others' errors agree");
        assert!(
            linked > 50,
            "some of the links come out: {linked} of {rounds}, seed {seed}"
        );
    }
}
