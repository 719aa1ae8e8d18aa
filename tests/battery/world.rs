//! Random links: objects with sections and symbols of all kinds, COMDAT groups and an archive, an
//! address for every section, and relocations whose values are mostly near the edges.

use std::collections::HashMap;

use low2g::link::{ExternalKind, FarData, Input, LinkOptions, Relax};

use crate::battery::ar;
use crate::battery::elf::{self, Group, Obj, Of, Rel, Sec, Sym, Where};
use crate::battery::link::{Externals, options, own_pin, pin};
use crate::battery::rng::Rng;
use crate::model::{Value, field};

/// A generated link.
pub(crate) struct World {
    /// In link order once archives are resolved: name as shown, and the object.
    pub(crate) objects: Vec<(String, Obj)>,
    pub(crate) inputs: Vec<Input>,
    pub(crate) externals: Externals,
    pub(crate) relax: Relax,
    /// Address of each section, by object and section.
    pub(crate) addrs: HashMap<(usize, usize), u64>,
    pub(crate) got: u64,
    pub(crate) stubs: u64,
}

const TYPES: [u32; 26] = [
    1, 2, 3, 4, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 39, 40, 41, 42,
    43,
];

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
    pub(crate) fn generate(rng: &mut Rng, far: bool) -> Self {
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
        let archive = ar::archive(&refs, with_index.then_some(&names[..]));
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
    pub(crate) fn place(&mut self, rng: &mut Rng, far: bool) {
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

    /// Adds relocations: most with a value near an edge of the range, some with any addend.
    pub(crate) fn relocate(&mut self, rng: &mut Rng) {
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
    pub(crate) fn addend(
        &self,
        rng: &mut Rng,
        number: usize,
        kind: u32,
        of: Of,
        place: u64,
    ) -> i64 {
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

    pub(crate) fn options(&self) -> LinkOptions {
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
