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
#[path = "battery/model.rs"]
mod model;
#[path = "battery/world.rs"]
mod world;

use std::collections::{BTreeSet, HashMap};

use battery::elf::{self, Of, Where};
use battery::link::{bytes_at, dry, link, report, unhex, word_at};
use battery::rng::{Rng, seed};
use low2g::link::{LinkError, LinkFailure, Linked};
use model::{Fault, Said, Value, field, fits, index};
use world::World;

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
