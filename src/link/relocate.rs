//! Steps of a link with memory: copy, apply, second pass, protect.

use std::time::Instant;

use hashbrown::HashMap;
use low2g_platform::to_usize;

use crate::place::{InFlight, PlaceError, Placer, SectionKind, SectionRequest};

use super::apply::{Deferred, Fields, Outcome, Row, apply, fields, input_error};
use super::engine::{Link, Phases, Tables, View};
use super::error::{LinkError, LinkFailure, Place};
use super::far::{Action, MIRROR_ALIGN, Plan, SLOT_SIZE, STUB_SIZE, SlotContent};
use super::howto::{Formula, howto};
use super::island;
use super::layout::{Layout, advance, own_pin};
use super::linked::Linked;
use super::options::LinkOptions;
use super::symbols::to_index;
use super::tls;
use super::value::{self, Addresses, IFUNC, Value};

/// Addresses and requests of what the link adds itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Own {
    pub(crate) got: (usize, u64),
    pub(crate) stubs: (usize, u64),
    pub(crate) islands: (usize, u64),
    pub(crate) mirrors: (usize, u64),
}

/// A link whose sections have memory.
#[derive(Debug)]
pub struct Placed<'d> {
    pub(crate) tables: Tables<'d>,
    pub(crate) options: &'d LinkOptions,
    pub(crate) phases: Phases,
    pub(crate) layout: Layout,
    pub(crate) memory: InFlight,
    /// Address of each loaded section.
    pub(crate) addrs: Vec<u64>,
    pub(crate) globals: Vec<Value>,
    pub(crate) plan: Plan,
    pub(crate) own: Own,
    pub(crate) rows: Vec<Row>,
    pub(crate) tls: tls::State,
    /// Whether this process's dynamic linker is asked for thread-local storage.
    pub(crate) process: bool,
}

impl<'d> Link<'d> {
    /// Places all sections, all or nothing.
    ///
    /// # Errors
    /// Undefined symbols, sections that cannot be placed.
    pub fn place(mut self, placer: &Placer) -> Result<Placed<'d>, LinkFailure> {
        self.settle()?;
        let start = Instant::now();
        let dry_run = matches!(placer, Placer::DryRun { .. });
        let layout = Layout::new(&mut self.tables, &self.clusters, self.options, dry_run)?;
        let memory = placer
            .place(&layout.requests)
            .map_err(|error| memory_error(&self.tables, &layout, error))?;
        let addrs: Vec<u64> = layout
            .loaded
            .iter()
            .map(|loaded| memory.slot(loaded.request).addr + loaded.offset)
            .collect();
        let process = !dry_run && !self.options.synthetic_tls;
        self.phases.place = start.elapsed();
        Ok(Placed {
            tables: self.tables,
            options: self.options,
            phases: self.phases,
            layout,
            memory,
            addrs,
            globals: Vec::new(),
            plan: Plan::default(),
            own: Own::default(),
            rows: Vec::new(),
            tls: tls::State::default(),
            process,
        })
    }
}

/// Names the section that a placer's error is about.
fn memory_error(tables: &Tables<'_>, layout: &Layout, error: PlaceError) -> LinkFailure {
    let mut at = Place {
        object: "low2g".to_owned(),
        section: String::new(),
        offset: 0,
    };
    if let Some(index) = error.index() {
        let loaded = layout.loaded.iter().find(|loaded| loaded.request == index);
        let common = layout.commons.iter().find(|(_, request)| *request == index);
        if let Some(loaded) = loaded {
            let object = &tables.objects[to_index(loaded.object)];
            at.object.clone_from(&object.name);
            at.section = object.sections[to_index(loaded.section)].display_name();
        } else if let Some((id, _)) = common {
            let name = String::from_utf8_lossy(tables.symbols.list[to_index(*id)].name);
            at.section = format!("COMMON {name}");
        }
    }
    LinkError::Memory {
        at,
        source: Box::new(error),
    }
    .into()
}

impl<'d> Placed<'d> {
    /// Copies contents and applies every relocation, or says which do not fit.
    ///
    /// # Errors
    /// Relocations that do not fit or have no meaning here.
    pub fn relocate(mut self) -> Result<Self, LinkFailure> {
        let start = Instant::now();
        self.copy();
        let copied = Instant::now();
        self.phases.copy = copied - start;
        let mut out = Outcome::default();
        self.apply_direct(&mut out)?;
        let mut plan = Plan::default();
        let view = View {
            tables: &self.tables,
            options: self.options,
            loaded: &self.layout.loaded,
            addrs: &self.addrs,
        };
        let thread_local = tls::Plan::decide(&view, &mut out, &mut plan, self.process);
        plan.decide(&view, &out.deferred, &mut out.errors);
        if !out.errors.is_empty() {
            return Err(LinkFailure::new(out.errors));
        }
        self.plan = plan;
        self.place_own()?;
        self.fill_own()?;
        self.apply_deferred(&mut out);
        if !out.errors.is_empty() {
            return Err(LinkFailure::new(out.errors));
        }
        self.finish_thread_local(thread_local, &mut out)?;
        self.build_islands(&mut out);
        if !out.errors.is_empty() {
            return Err(LinkFailure::new(out.errors));
        }
        self.rows = out.rows;
        self.phases.relocate = copied.elapsed();
        Ok(self)
    }

    fn copy(&mut self) {
        self.tls.copy(&self.tables, &self.layout.tls);
        for loaded in &self.layout.loaded {
            let object = &self.tables.objects[to_index(loaded.object)];
            let section = &object.sections[to_index(loaded.section)];
            if !section.data.is_empty() {
                let memory = self.memory.working_mem(loaded.request);
                let offset = usize::try_from(loaded.offset).unwrap_or(usize::MAX);
                memory[offset..offset + section.data.len()].copy_from_slice(section.data);
            }
        }
    }

    fn apply_direct(&mut self, out: &mut Outcome) -> Result<(), LinkFailure> {
        let commons: HashMap<u32, u64> = self
            .layout
            .commons
            .iter()
            .map(|&(id, request)| (id, self.memory.slot(request).addr))
            .collect();
        let clusters: Vec<(u64, u64)> = self
            .layout
            .clusters
            .iter()
            .map(|&request| {
                let slot = self.memory.slot(request);
                (slot.addr, slot.addr + slot.size)
            })
            .collect();
        self.tls.dso_handle = self
            .layout
            .reserved
            .map(|(got, _)| self.memory.slot(got).addr)
            .or(self.addrs.first().copied())
            .unwrap_or(0);
        let addresses = Addresses {
            loaded: &self.addrs,
            commons: &commons,
            clusters: &clusters,
            tls_commons: &self.layout.tls.commons,
            dso_handle: self.tls.dso_handle,
        };
        self.globals = value::globals(&self.tables.symbols, &self.tables.objects, &addresses)?;
        let mut values = Vec::new();
        let mut values_of = None;
        let view = View {
            tables: &self.tables,
            options: self.options,
            loaded: &self.layout.loaded,
            addrs: &self.addrs,
        };
        let placed = view
            .loaded
            .iter()
            .map(|loaded| (loaded.object, loaded.section));
        for (object, section) in placed.chain(self.layout.tls.numbers()) {
            let target = view.target(object, section);
            if target.section.relas.is_empty() {
                continue;
            }
            if target.section.is_zero_fill() {
                let reason = "relocations in a section without contents (SHT_NOBITS)".to_owned();
                out.errors.push(input_error(&target, 0, reason));
                continue;
            }
            if values_of != Some(object) {
                value::of_object(target.object, &self.globals, &addresses, &mut values)?;
                values_of = Some(object);
            }
            let bytes = section_bytes(
                &mut self.memory,
                &self.layout,
                &mut self.tls,
                target.section,
            );
            // Initial values have no one place that a row could give.
            if target.section.is_thread_local() {
                target.check_image(&mut out.errors);
            }
            if self.options.record && !target.section.is_thread_local() {
                apply::<true>(&target, bytes, &values, out);
            } else {
                apply::<false>(&target, bytes, &values, out);
            }
        }
        Ok(())
    }

    /// Gives `.got`, `.stubs` and `.islands` addresses: in the room kept for them if it suffices.
    fn place_own(&mut self) -> Result<(), LinkFailure> {
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
            self.plan.mirrors_size(),
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
    fn mirror_addr(&self, entry: usize) -> u64 {
        let mirror = self.plan.entries[entry].mirror.unwrap_or(0);
        self.own.mirrors.1 + self.plan.mirrors[to_index(mirror)].offset
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
    fn fill_own(&mut self) -> Result<(), LinkFailure> {
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
        for mirror in &self.plan.mirrors {
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

    fn apply_deferred(&mut self, out: &mut Outcome) {
        let deferred = std::mem::take(&mut out.deferred);
        let actions = std::mem::take(&mut self.plan.actions);
        for (item, action) in deferred.iter().zip(&actions) {
            if *action != Action::Island
                && let Err(error) = self.apply_one(item, *action, out)
            {
                out.errors.push(*error);
            }
        }
    }

    fn apply_one(
        &mut self,
        item: &Deferred,
        action: Action,
        out: &mut Outcome,
    ) -> Result<(), Box<LinkError>> {
        let view = View {
            tables: &self.tables,
            options: self.options,
            loaded: &self.layout.loaded,
            addrs: &self.addrs,
        };
        let (f, got) = (fields(&item.rela), self.own.got.1);
        let target = view.target(item.object, item.section);
        let Some(howto) = howto(f.r_type) else {
            return Err(target.unsupported(f, "the psABI defines types 0 to 51"));
        };
        let place = target.addr.wrapping_add(f.offset);
        let s = if item.value.has(value::GOT_SYMBOL) {
            got
        } else {
            item.value.addr
        };
        let (l, name) = match action {
            Action::Stub(entry) => {
                let stub = self.plan.entries[entry].stub.unwrap_or(0);
                (self.stub_addr(stub), "stub")
            }
            Action::Mirror(entry) => (self.mirror_addr(entry), "mirror"),
            Action::Slot(_) => (s, "got"),
            Action::Direct | Action::Island => (s, "direct"),
        };
        let slot = match action {
            Action::Slot(entry) => self.plan.entries[entry]
                .slot
                .map_or(0, |slot| self.slot_addr(slot)),
            _ => got,
        };
        let base = match howto.formula {
            Formula::GotRelative => slot.wrapping_sub(place),
            Formula::GotOffset => slot.wrapping_sub(got),
            Formula::GotBaseRelative => got.wrapping_sub(place),
            Formula::OffsetFromGot | Formula::StubOffsetFromGot => l.wrapping_sub(got),
            Formula::Absolute => l,
            _ => l.wrapping_sub(place),
        };
        let number = base.wrapping_add_signed(f.addend);
        target.check(howto, f, s, number, place)?;
        let memory = section_bytes(
            &mut self.memory,
            &self.layout,
            &mut self.tls,
            target.section,
        );
        target.write(memory, f, howto, number)?;
        if self.options.record {
            out.rows.push(target.row(f, s, place, number, name));
        }
        Ok(())
    }

    /// Moves instructions; all their near fields are relocated by now.
    fn build_islands(&mut self, out: &mut Outcome) {
        let mut islands = std::mem::take(&mut self.plan.islands);
        for plan in &mut islands {
            let view = View {
                tables: &self.tables,
                options: self.options,
                loaded: &self.layout.loaded,
                addrs: &self.addrs,
            };
            let target = view.target(plan.object, plan.section);
            let ip = target.addr + u64::try_from(plan.insn).expect("usize fits");
            let island_ip = self.own.islands.1 + plan.offset;
            let range = plan.insn..plan.insn + plan.len;
            let insn = section_bytes(
                &mut self.memory,
                &self.layout,
                &mut self.tls,
                target.section,
            )
            .get(range.clone())
            .unwrap_or_default()
            .to_vec();
            let built = island::build(&insn, ip, &plan.fields, island_ip)
                .and_then(|built| Ok((built, island::patch(plan.len, ip, island_ip)?)));
            let (built, patch) = match built {
                Ok(built) => built,
                Err(error) => {
                    let at = u64::try_from(plan.insn).expect("usize fits");
                    out.errors.push(input_error(
                        &target,
                        at,
                        format!("{error}; compile with -fPIC"),
                    ));
                    continue;
                }
            };
            let memory = section_bytes(
                &mut self.memory,
                &self.layout,
                &mut self.tls,
                target.section,
            );
            memory[range].copy_from_slice(&patch);
            if self.options.record {
                for item in &plan.relocations {
                    let f = fields(&item.rela);
                    let number = field_at(memory, f);
                    let place = target.addr.wrapping_add(f.offset);
                    out.rows
                        .push(target.row(f, item.value.addr, place, number, "island"));
                }
            }
            let start = usize::try_from(plan.offset).unwrap_or(usize::MAX);
            let islands = self.memory.working_mem(self.own.islands.0);
            islands[start..start + built.code.len()].copy_from_slice(&built.code);
            plan.rows = built.rows;
        }
        self.plan.islands = islands;
    }

    /// Gives pages their final access. Nothing of the objects has run yet.
    ///
    /// # Errors
    /// The system refuses; everything is then given back.
    pub fn protect(self) -> Result<Linked<'d>, LinkFailure> {
        let start = Instant::now();
        let Self {
            tables,
            options: _,
            mut phases,
            layout,
            memory,
            addrs,
            globals,
            plan,
            own,
            rows,
            tls,
            process: _,
        } = self;
        let memory = memory
            .finalize()
            .map_err(|error| memory_error(&tables, &layout, error))?;
        phases.protect = start.elapsed();
        Ok(Linked {
            tables,
            phases,
            layout,
            memory,
            addrs,
            globals,
            plan,
            own,
            rows,
            tls,
        })
    }
}

/// The memory of an input section.
pub(crate) fn section_bytes<'m>(
    memory: &'m mut InFlight,
    layout: &Layout,
    tls: &'m mut tls::State,
    section: &super::object::Section<'_>,
) -> &'m mut [u8] {
    let Some(placed) = section.placed else {
        return tls.section_bytes(section);
    };
    let loaded = &layout.loaded[to_index(placed)];
    let offset = usize::try_from(loaded.offset).unwrap_or(usize::MAX);
    &mut memory.working_mem(loaded.request)[offset..offset + section.data.len()]
}

/// The 32-bit field of `f` as it stands now, extended as its type says.
fn field_at(bytes: &[u8], f: Fields) -> u64 {
    let start = usize::try_from(f.offset).unwrap_or(usize::MAX);
    let Some(field) = start.checked_add(4).and_then(|end| bytes.get(start..end)) else {
        return 0;
    };
    let word = u32::from_le_bytes([field[0], field[1], field[2], field[3]]);
    if f.r_type == 10 {
        u64::from(word)
    } else {
        i64::from(word.cast_signed()).cast_unsigned()
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
