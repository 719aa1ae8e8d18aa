//! The psABI in plain words: what a symbol comes to, and what a relocation does to its field.
//! One relocation at a time, nothing kept; it shares no code with the library.

use std::collections::BTreeSet;

use low2g::link::Relax;

use crate::battery::elf::{self, Of, Rel, Sym, Where};
use crate::world::World;

/// What a symbol came to, in the model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    Section(u64),
    Number(u64),
    External(u64),
    WeakZero,
    Common,
}

/// Bytes of the field, and whether values are unsigned (u), signed (s), either (e) or all (a).
pub(crate) fn field(kind: u32) -> (usize, char) {
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

pub(crate) fn fits(kind: u32, value: u64) -> bool {
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
pub(crate) type Fault = (String, String, u64, u32, u64);

pub(crate) fn index(value: u64) -> usize {
    usize::try_from(value).expect("64-bit tests")
}

/// What the model says of a relocation.
pub(crate) enum Said {
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
    /// Which copy of each COMDAT group counts: sections dropped, by object and section.
    pub(crate) fn dropped(&self) -> BTreeSet<(usize, usize)> {
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
    pub(crate) fn definition(&self, number: usize, symbol: usize) -> Option<(usize, &Sym)> {
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

    pub(crate) fn value(&self, number: usize, of: Of) -> Value {
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

    pub(crate) fn size(&self, number: usize, of: Of) -> u64 {
        let Of::Sym(symbol) = of else { return 0 };
        self.definition(number, symbol)
            .map_or(0, |(_, definition)| definition.size)
    }
}

impl World {
    pub(crate) fn judge(
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
    pub(crate) fn relaxed(
        &self,
        code: &[u8],
        rel: &Rel,
        s: u64,
        place: u64,
    ) -> Option<(usize, Vec<u8>)> {
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
}
