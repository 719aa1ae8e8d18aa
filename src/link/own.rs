//! What the link adds itself: addresses and contents of `.got`, `.stubs`, `.islands`, mirrors.

use low2g_platform::to_usize;

use crate::place::{SectionKind, SectionRequest};

use super::error::{LinkError, LinkFailure};
use super::far::{MIRROR_ALIGN, SLOT_SIZE, STUB_SIZE, SlotContent};
use super::layout::{Layout, advance, own_pin};
use super::relocate::{Own, Placed, memory_error};
use super::symbols::to_index;
use super::value::IFUNC;

impl Placed<'_> {
    /// Gives `.got`, `.stubs` and `.islands` addresses: in the room kept for them if it suffices.
    pub(super) fn place_own(&mut self) -> Result<(), LinkFailure> {
        let ifuncs = self
            .plan
            .entries
            .iter()
            .any(|entry| entry.ifunc_slot.is_some());
        let mut requests = Vec::new();
        let mut numbers = [None; 4];
        // The GOT has an address even if it has no slots: code may compute offsets from it.
        let sizes = [
            self.plan.got_size().max(SLOT_SIZE),
            self.plan.stubs_size(),
            self.plan.islands_size(),
            match self.mirrors {
                Some(_) => 0,
                None => self.plan.mirrors_size(),
            },
        ];
        let reserved = self
            .layout
            .reserved
            .map(|(got, stubs)| [Some(got), Some(stubs), None, None]);
        for (index, name) in [".got", ".stubs", ".islands", ".mirrors"]
            .into_iter()
            .enumerate()
        {
            let kept = reserved.and_then(|kept| kept[index]).filter(|&request| {
                sizes[index] <= self.memory.slot(request).size && !(index == 0 && ifuncs)
            });
            if kept.is_some() || sizes[index] == 0 {
                numbers[index] = kept;
                continue;
            }
            let mut request = SectionRequest {
                kind: match index {
                    0 if ifuncs => SectionKind::Data,
                    0 | 3 => SectionKind::ReadOnly,
                    _ => SectionKind::Code,
                },
                size: sizes[index],
                align: if index == 3 { MIRROR_ALIGN } else { STUB_SIZE },
                zero_fill: false,
                anywhere: false,
                at: own_pin(self.options, name),
            };
            if request.at.is_none() {
                request.at =
                    advance(&mut self.layout.cursor, &request, true).or(self.layout.cursor);
            }
            numbers[index] = Some(self.layout.requests.len() + requests.len());
            requests.push(request);
        }
        if let Some(mirrors) = &self.mirrors {
            let placer = self.memory.placer();
            self.shared = mirrors
                .obtain(&self.plan.mirrors, placer)
                .map_err(|error| memory_error(&self.tables, &Layout::default(), error))?;
        }
        self.memory
            .extend(&requests)
            .map_err(|error| memory_error(&self.tables, &Layout::default(), error))?;
        self.layout.requests.extend(requests);
        let find = |number: Option<usize>| {
            number.map_or((usize::MAX, 0), |request| {
                (request, self.memory.slot(request).addr)
            })
        };
        self.own = Own {
            got: find(numbers[0]),
            stubs: find(numbers[1]),
            islands: find(numbers[2]),
            mirrors: find(numbers[3]),
        };
        Ok(())
    }

    pub(crate) fn slot_addr(&self, slot: u32) -> u64 {
        self.own.got.1 + SLOT_SIZE * u64::from(slot)
    }

    pub(crate) fn stub_addr(&self, stub: u32) -> u64 {
        self.own.stubs.1 + STUB_SIZE * u64::from(stub)
    }

    /// Where the low copy of an entry's data is.
    pub(super) fn mirror_addr(&self, entry: usize) -> u64 {
        let mirror = to_index(self.plan.entries[entry].mirror.unwrap_or(0));
        match self.shared.addrs.get(mirror) {
            Some(&addr) => addr,
            None => self.own.mirrors.1 + self.plan.mirrors[mirror].offset,
        }
    }

    /// The address that everything but the resolver itself uses for an entry's symbol.
    fn canonical(&self, entry: usize) -> u64 {
        let entry = &self.plan.entries[entry];
        match entry.stub {
            Some(stub) if entry.value.has(IFUNC) => self.stub_addr(stub),
            _ => entry.value.addr,
        }
    }

    /// Writes slots and stubs. Slots of ifuncs stay 0 until their resolvers have run.
    pub(super) fn fill_own(&mut self) -> Result<(), LinkFailure> {
        let contents: Vec<u64> = self
            .plan
            .slots
            .iter()
            .map(|slot| match *slot {
                SlotContent::Address(entry) => self.canonical(entry),
                SlotContent::Ifunc(_) | SlotContent::ThreadLocal => 0,
            })
            .collect();
        if !contents.is_empty() {
            let got = self.memory.working_mem(self.own.got.0);
            for (field, value) in got.chunks_exact_mut(8).zip(&contents) {
                field.copy_from_slice(&value.to_le_bytes());
            }
        }
        let mirrors: &[_] = match self.mirrors {
            Some(_) => &[],
            None => &self.plan.mirrors,
        };
        for mirror in mirrors {
            let start = to_usize(mirror.offset);
            let memory = self.memory.working_mem(self.own.mirrors.0);
            memory[start..start + mirror.bytes.len()].copy_from_slice(&mirror.bytes);
        }
        let mut code = Vec::with_capacity(self.plan.stubs.len() * 16);
        for (number, &entry) in self.plan.stubs.iter().enumerate() {
            let entry = &self.plan.entries[entry];
            let stub = self.stub_addr(u32::try_from(number).expect("counted in u32"));
            let slot = entry
                .ifunc_slot
                .or(entry.slot)
                .map_or(0, |slot| self.slot_addr(slot));
            let bytes = stub_code(
                stub,
                slot,
                (!entry.value.has(IFUNC)).then_some(entry.value.addr),
            );
            code.extend_from_slice(&bytes.ok_or_else(|| {
                LinkError::object("low2g", format!(
                    "the stub at {stub:#x} does not reach its GOT slot at {slot:#x}; put .got and .stubs within 2 GiB of each other"
                ))
            })?);
        }
        if !code.is_empty() {
            self.memory.working_mem(self.own.stubs.0)[..code.len()].copy_from_slice(&code);
        }
        Ok(())
    }
}

/// `jmp *slot(%rip)`; where the slot is out of reach, the address itself through r11,
/// which the psABI leaves to linkers at calls.
fn stub_code(stub: u64, slot: u64, target: Option<u64>) -> Option<[u8; 16]> {
    let mut code = [0xcc; 16];
    let distance = slot.wrapping_sub(stub.wrapping_add(6)).cast_signed();
    if let Ok(distance) = i32::try_from(distance) {
        code[..2].copy_from_slice(&[0xff, 0x25]);
        code[2..6].copy_from_slice(&distance.to_le_bytes());
    } else {
        code[..2].copy_from_slice(&[0x49, 0xbb]);
        code[2..10].copy_from_slice(&target?.to_le_bytes());
        code[10..13].copy_from_slice(&[0x41, 0xff, 0xe3]);
    }
    Some(code)
}
