//! The second pass: what needs a GOT slot, a stub or an island.
//!
//! ```text
//! .got      [ &puts | &stdout | ... ]           8 bytes a slot, one a symbol
//! .stubs    jmp *slot(%rip) ; int3 padding      16 bytes a stub, one a function
//! .islands  moved instructions                  see `island`
//! .mirrors  copies of far constant data         for 32-bit words, one a symbol
//! ```
//!
//! First every deferred relocation is decided (`plan`), which counts what is needed; then,
//! when `.got`, `.stubs` and `.islands` have addresses, the fields are written (`finish`).

use hashbrown::HashMap;
use low2g_platform::AddrRange;

use super::apply::{Deferred, ERROR_LIMIT, Fields, fields};
use super::error::LinkError;
use super::howto::{Formula, Howto, howto};
use super::island::{FarField, FieldKind, FieldRole, IslandRow, instruction_at, size_bound};
use super::locate::{Starts, is_branch_field};
use super::options::FarData;
use super::process::constant_bytes;
use super::symbols::{NO_GLOBAL, to_index};
use super::value::{DATA, EXTERNAL, FUNCTION, GOT_SYMBOL, IFUNC, Value};

/// Bytes of a stub.
pub(crate) const STUB_SIZE: u64 = 16;
/// Bytes of a GOT slot.
pub(crate) const SLOT_SIZE: u64 = 8;
/// Islands start at multiples of this.
const ISLAND_ALIGN: u64 = 16;
/// The greatest alignment that a mirror keeps of its original, and that of `.mirrors`.
pub(crate) const MIRROR_ALIGN: u64 = 64;

/// A symbol across objects: a global's number, or an object's local symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Global(u32),
    Local { object: u32, symbol: u32 },
}

/// A symbol that has a slot, a stub or both.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) value: Value,
    /// Slot that holds the symbol's address (an ifunc's: its stub's).
    pub(crate) slot: Option<u32>,
    /// Slot that holds what an ifunc's resolver answers.
    pub(crate) ifunc_slot: Option<u32>,
    pub(crate) stub: Option<u32>,
    /// Objects whose relocations use the slot, and the stub: for reports.
    pub(crate) slot_users: Vec<u32>,
    pub(crate) stub_users: Vec<u32>,
    /// Low copy of far constant data.
    pub(crate) mirror: Option<u32>,
    pub(crate) mirror_users: Vec<u32>,
}

/// A low copy of constant data, for 32-bit words that must hold its address.
#[derive(Debug)]
pub(crate) struct Mirror {
    /// Offset from the start of `.mirrors`, bytes.
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
    /// Address of what it is a copy of.
    pub(crate) original: u64,
}

impl Mirror {
    /// The original's alignment, as far as its address shows it.
    pub(crate) fn align(&self) -> u64 {
        1 << self
            .original
            .trailing_zeros()
            .min(MIRROR_ALIGN.trailing_zeros())
    }
}

/// What a GOT slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotContent {
    /// The address of entry's symbol.
    Address(usize),
    /// What the resolver of entry's ifunc answers.
    Ifunc(usize),
    /// What `tls` writes.
    ThreadLocal,
}

/// An instruction to move.
#[derive(Debug)]
pub(crate) struct IslandPlan {
    pub(crate) object: u32,
    pub(crate) section: u32,
    /// Offset of the instruction in its section, bytes.
    pub(crate) insn: usize,
    pub(crate) len: usize,
    pub(crate) fields: Vec<FarField>,
    /// The relocations, for errors and reports.
    pub(crate) relocations: Vec<Deferred>,
    /// Offset from the start of `.islands`, and bytes kept for it.
    pub(crate) offset: u64,
    pub(crate) size: usize,
    /// States of the stack in it, once it is built.
    pub(crate) rows: Vec<IslandRow>,
}

/// How a deferred relocation is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// By its formula, now that the GOT has an address.
    Direct,
    /// Through the GOT slot of an entry.
    Slot(usize),
    /// Through the stub of an entry.
    Stub(usize),
    /// With the island of that number.
    Island,
    /// By the low copy of an entry's data.
    Mirror(usize),
}

/// The decisions.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    index: HashMap<Key, usize>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) slots: Vec<SlotContent>,
    /// Entry of each stub.
    pub(crate) stubs: Vec<usize>,
    pub(crate) islands: Vec<IslandPlan>,
    island_index: HashMap<(u32, u32, usize), usize>,
    islands_size: u64,
    pub(crate) mirrors: Vec<Mirror>,
    mirrors_size: u64,
    /// Parallel to the deferred relocations.
    pub(crate) actions: Vec<Action>,
}

impl Plan {
    pub(crate) fn got_size(&self) -> u64 {
        SLOT_SIZE * u64::try_from(self.slots.len()).expect("usize fits")
    }
    pub(crate) fn stubs_size(&self) -> u64 {
        STUB_SIZE * u64::try_from(self.stubs.len()).expect("usize fits")
    }
    pub(crate) const fn islands_size(&self) -> u64 {
        self.islands_size
    }
    pub(crate) const fn mirrors_size(&self) -> u64 {
        self.mirrors_size
    }

    fn entry(&mut self, key: Key, value: Value) -> usize {
        *self.index.entry(key).or_insert_with(|| {
            self.entries.push(Entry {
                key,
                value,
                slot: None,
                ifunc_slot: None,
                stub: None,
                slot_users: Vec::new(),
                stub_users: Vec::new(),
                mirror: None,
                mirror_users: Vec::new(),
            });
            self.entries.len() - 1
        })
    }

    pub(crate) fn new_slot(&mut self, content: SlotContent) -> u32 {
        self.slots.push(content);
        u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 slots")
    }

    fn need_slot(&mut self, key: Key, value: Value, object: u32) -> usize {
        let entry = self.entry(key, value);
        if value.has(IFUNC) {
            // The slot holds the stub's address: one address for the function everywhere.
            self.need_stub(key, value, object);
        }
        if self.entries[entry].slot.is_none() {
            self.entries[entry].slot = Some(self.new_slot(SlotContent::Address(entry)));
        }
        note_user(&mut self.entries[entry].slot_users, object);
        entry
    }

    fn need_stub(&mut self, key: Key, value: Value, object: u32) -> usize {
        let entry = self.entry(key, value);
        if self.entries[entry].stub.is_none() {
            self.stubs.push(entry);
            let number = u32::try_from(self.stubs.len() - 1).expect("fewer than 2^32 stubs");
            self.entries[entry].stub = Some(number);
            if value.has(IFUNC) {
                self.entries[entry].ifunc_slot = Some(self.new_slot(SlotContent::Ifunc(entry)));
            } else if self.entries[entry].slot.is_none() {
                self.entries[entry].slot = Some(self.new_slot(SlotContent::Address(entry)));
            }
        }
        note_user(&mut self.entries[entry].stub_users, object);
        entry
    }

    /// Copies constant data of the process low, once a symbol. `None` if it is not constant,
    /// its size is not known, or the word points outside of it.
    fn need_mirror(
        &mut self,
        key: Key,
        value: Value,
        size: u64,
        addend: i64,
        object: u32,
    ) -> Option<Action> {
        u64::try_from(addend)
            .ok()
            .filter(|&offset| offset <= size)?;
        let entry = self.entry(key, value);
        if self.entries[entry].mirror.is_none() {
            let bytes = constant_bytes(AddrRange::at(value.addr, size)?)?;
            let mut mirror = Mirror {
                offset: 0,
                bytes,
                original: value.addr,
            };
            mirror.offset = self.mirrors_size.next_multiple_of(mirror.align());
            self.mirrors_size = mirror.offset + size;
            self.mirrors.push(mirror);
            self.entries[entry].mirror = u32::try_from(self.mirrors.len() - 1).ok();
        }
        note_user(&mut self.entries[entry].mirror_users, object);
        Some(Action::Mirror(entry))
    }

    /// Decides `deferred`, in order; errors go to `errors`, their action is `Direct`. Gives up
    /// at [`ERROR_LIMIT`]: looking for an instruction that is not there is slow.
    pub(crate) fn decide(
        &mut self,
        view: &super::engine::View<'_, '_>,
        deferred: &[Deferred],
        errors: &mut Vec<LinkError>,
    ) {
        let mut starts = Starts::default();
        for item in deferred {
            if errors.len() >= ERROR_LIMIT {
                return;
            }
            let action = self.decide_one(view, item, &mut starts);
            self.actions.push(action.unwrap_or_else(|error| {
                errors.push(*error);
                Action::Direct
            }));
        }
        self.size_islands(view, errors);
    }

    fn decide_one(
        &mut self,
        view: &super::engine::View<'_, '_>,
        item: &Deferred,
        starts: &mut Starts,
    ) -> Result<Action, Box<LinkError>> {
        let f = fields(&item.rela);
        let (key, value) = (view.key(item.object, f.symbol), item.value);
        let target = view.target(item.object, item.section);
        let Some(howto) = howto(f.r_type) else {
            return Err(target.unsupported(f, "the psABI defines types 0 to 51"));
        };
        match howto.formula {
            Formula::GotRelative | Formula::GotOffset => {
                return Ok(Action::Slot(self.need_slot(key, value, item.object)));
            }
            _ if value.has(IFUNC) => {
                return Ok(Action::Stub(self.need_stub(key, value, item.object)));
            }
            Formula::GotBaseRelative | Formula::OffsetFromGot | Formula::StubOffsetFromGot => {
                return Ok(Action::Direct);
            }
            _ if value.has(GOT_SYMBOL) => return Ok(Action::Direct),
            _ => {}
        }
        let offset = usize::try_from(f.offset).unwrap_or(usize::MAX);
        let branch = target.section.is_exec()
            && howto.formula != Formula::Absolute
            && is_branch_field(target.section.data, offset);
        if branch || howto.formula == Formula::Stub {
            // A stub stands for the function's start: only a branch to exactly there may take it.
            if branch && f.addend != -4 {
                return Err(far_error(
                    &target,
                    howto,
                    f,
                    value,
                    "only a branch to the symbol itself can take a stub",
                ));
            }
            return Ok(Action::Stub(self.need_stub(key, value, item.object)));
        }
        if !value.has(EXTERNAL) {
            return Err(far_error(
                &target,
                howto,
                f,
                value,
                "place the two sections nearer to each other, or compile with -mcmodel=large",
            ));
        }
        if view.options.far_data == FarData::Error {
            return Err(far_error(&target, howto, f, value, FAR_ADVICE));
        }
        if target.section.is_exec() {
            return self.plan_island(view, item, f, howto, starts);
        }
        if value.has(FUNCTION) && (howto.formula != Formula::Absolute || f.addend == 0) {
            return Ok(Action::Stub(self.need_stub(key, value, item.object)));
        }
        if value.has(DATA)
            && let Some(action) =
                self.need_mirror(key, value, target.symbol_size(f), f.addend, item.object)
        {
            return Ok(action);
        }
        let advice = if value.has(DATA) {
            "a 32-bit word cannot hold the address of this far variable; compile with -fPIC, with -mno-direct-extern-access (gcc) or with -fno-direct-access-external-data (clang)"
        } else {
            FAR_ADVICE
        };
        Err(far_error(&target, howto, f, value, advice))
    }

    fn plan_island(
        &mut self,
        view: &super::engine::View<'_, '_>,
        item: &Deferred,
        f: Fields,
        howto: &Howto,
        starts: &mut Starts,
    ) -> Result<Action, Box<LinkError>> {
        let target = view.target(item.object, item.section);
        let refuse = |why: String| {
            far_error(
                &target,
                howto,
                f,
                item.value,
                &format!("{why}; {FAR_ADVICE}"),
            )
        };
        let code = target.section.data;
        let offset = usize::try_from(f.offset).unwrap_or(usize::MAX);
        let mut found = Err(String::new());
        for start in starts.candidates(target.object, item.object, item.section, offset) {
            found = instruction_at(code, target.addr, start, offset).map_err(|e| e.to_string());
            if found.is_ok() {
                break;
            }
        }
        let located = found.map_err(&refuse)?;
        starts.found(item.object, item.section, located.offset);
        if located.role == FieldRole::Branch {
            return Err(refuse(
                "a branch beyond the symbol's start cannot take a stub".to_owned(),
            ));
        }
        let kind = match howto.number {
            10 => FieldKind::Abs32,
            11 => FieldKind::Abs32S,
            _ => FieldKind::PcRel,
        };
        let s_plus_a = item.value.addr.wrapping_add_signed(f.addend);
        let field = FarField::new(located.field, kind, s_plus_a, located.len);
        let key = (item.object, item.section, located.offset);
        let number = *self.island_index.entry(key).or_insert_with(|| {
            self.islands.push(IslandPlan {
                object: item.object,
                section: item.section,
                insn: located.offset,
                len: located.len,
                fields: Vec::new(),
                relocations: Vec::new(),
                offset: 0,
                size: 0,
                rows: Vec::new(),
            });
            self.islands.len() - 1
        });
        let island = &mut self.islands[number];
        island.fields.push(field);
        island.relocations.push(*item);
        Ok(Action::Island)
    }

    /// Gives every island its offset; needs all fields of an instruction, so it comes last.
    fn size_islands(&mut self, view: &super::engine::View<'_, '_>, errors: &mut Vec<LinkError>) {
        for island in &mut self.islands {
            let target = view.target(island.object, island.section);
            let insn = target
                .section
                .data
                .get(island.insn..island.insn + island.len);
            let ip = target
                .addr
                .wrapping_add(u64::try_from(island.insn).unwrap_or(0));
            match size_bound(insn.unwrap_or_default(), ip, &island.fields) {
                Ok(size) => {
                    island.offset = self.islands_size;
                    island.size = size;
                    let bytes = u64::try_from(size).expect("usize fits");
                    self.islands_size += bytes.next_multiple_of(ISLAND_ALIGN);
                }
                Err(error) => {
                    let item = island.relocations[0];
                    let f = fields(&item.rela);
                    if let Some(howto) = howto(f.r_type) {
                        let advice = format!("{error}; {FAR_ADVICE}");
                        errors.push(*far_error(&target, howto, f, item.value, &advice));
                    }
                }
            }
        }
    }
}

const FAR_ADVICE: &str = "compile with -fPIC, -mno-direct-extern-access (gcc) or -fno-direct-access-external-data (clang)";

fn far_error(
    target: &super::apply::Target<'_, '_>,
    howto: &Howto,
    f: Fields,
    value: Value,
    advice: &str,
) -> Box<LinkError> {
    let place = target.addr.wrapping_add(f.offset);
    let mut number = value.addr.wrapping_add_signed(f.addend);
    if howto.formula != Formula::Absolute {
        number = number.wrapping_sub(place);
    }
    target.overflow(howto, f, value.addr, number, place, advice)
}

fn note_user(users: &mut Vec<u32>, object: u32) {
    // Relocations come in the order of objects, so the last user is the only one to compare with.
    if users.last() != Some(&object) {
        users.push(object);
    }
}

impl Key {
    /// The key of symbol `symbol` of object number `object`.
    pub(crate) fn of(object_number: u32, object: &super::object::Object<'_>, symbol: u32) -> Self {
        let local = Self::Local {
            object: object_number,
            symbol,
        };
        let Some(global) = to_index(symbol).checked_sub(object.first_global) else {
            return local;
        };
        match object.globals.get(global) {
            Some(&id) if id != NO_GLOBAL => Self::Global(id),
            _ => local,
        }
    }
}
