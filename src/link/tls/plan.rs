//! What becomes of each thread-local relocation, decided before anything is asked.
//!
//! A variable has a constant offset if a local-exec or initial-exec reference needs one: the
//! dynamic linker then gives it or the link fails. Every other access to that variable may
//! rely on it. Descriptors relax all together or not at all, a variable at a time, since the
//! load and the call are two relocations.

use hashbrown::{HashMap, HashSet};

use crate::link::apply::{Deferred, Fields, Outcome, Target, fields};
use crate::link::engine::View;
use crate::link::error::LinkError;
use crate::link::far::{self, Key, SlotContent};
use crate::link::options::Relax;
use crate::link::resolve::ExternalKind;
use crate::link::symbols::{Definition, to_index};
use crate::link::value::{EXTERNAL, Value};

use super::sequence::{self, CallField, Form, Matched, Model};
use super::shared::{Ask, Of};

/// A thread-local relocation, and the call of its sequence if one follows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Use {
    pub(crate) item: Deferred,
    pub(crate) call: Option<Deferred>,
}

/// A thread-local variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Variable {
    /// At this offset of the link's block.
    Own(u64),
    /// Of others, by global.
    External(u32),
}

/// What a group of GOT slots holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SlotKind {
    /// The offset from the thread pointer.
    PointerOffset,
    /// Module number and offset: general dynamic.
    General,
    /// Module number and 0: local dynamic.
    Local,
    /// Resolver and argument.
    Descriptor,
}

impl SlotKind {
    /// The dump's word for it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::PointerOffset => "tpoff",
            Self::General => "tlsgd",
            Self::Local => "tlsld",
            Self::Descriptor => "tlsdesc",
        }
    }

    const fn count(self) -> u32 {
        match self {
            Self::PointerOffset => 1,
            _ => 2,
        }
    }
}

/// One or two GOT slots.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) kind: SlotKind,
    pub(crate) variable: Variable,
    /// Number of the first in the GOT.
    pub(crate) number: u32,
    /// Object and symbol number of those that use it, for reports.
    pub(crate) users: Vec<(u32, u32)>,
}

/// How a relocation is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The variable's offset from the thread pointer.
    PointerOffset(Variable),
    /// The variable's offset in its block.
    BlockOffset(Variable),
    /// The distance of another's variable from the own block, where both are static.
    FromOwnBlock(Variable),
    /// The module's number.
    Module(Variable),
    /// The distance of a slot.
    Slot(usize),
    /// The sequence becomes another, with the variable's offset in it.
    Exact(Matched, Variable),
    /// The sequence becomes another, with the distance of a slot in it.
    Load(Matched, usize),
    /// A call through a descriptor that stays.
    Nothing,
}

/// The decisions.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<(Use, Step)>,
    pub(crate) slots: Vec<Slot>,
    slot_index: HashMap<(SlotKind, Variable), usize>,
    users: HashSet<(usize, u32, u32)>,
    pub(crate) words: Vec<(Ask, Of)>,
    word_index: HashMap<(Ask, Of), usize>,
    /// Globals whose names the words are about.
    pub(crate) names: Vec<u32>,
    /// The own block must have a constant offset.
    pub(crate) fixed: bool,
    /// There must be an own block, if only as the base of local-dynamic code.
    pub(crate) based: bool,
    /// Others' variables that must have one.
    fixed_names: HashSet<u32>,
    /// Variables of other modules of ours, by global: no question.
    pub(crate) given: HashMap<u32, Given>,
    /// Variables of which some descriptor sequence does not match.
    odd_descriptors: HashSet<Variable>,
}

/// A variable of another module of ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Given {
    pub(crate) module: u64,
    /// In the block.
    pub(crate) offset: u64,
    /// From the thread pointer, if that is one for all threads.
    pub(crate) pointer_offset: Option<u64>,
}

impl Given {
    fn of(definition: Definition) -> Option<Self> {
        let Definition::External(symbol) = definition else {
            return None;
        };
        let ExternalKind::ModuleTls { module, block } = symbol.kind else {
            return None;
        };
        Some(Self {
            module,
            offset: symbol.addr,
            pointer_offset: block.map(|block| block.wrapping_add(symbol.addr)),
        })
    }
}

/// Whether the field is added to the address of the own block: local-dynamic code. In data
/// `DTPOFF64` goes with a module number.
fn is_from_block(target: &Target<'_, '_>, r_type: u32) -> bool {
    r_type == 21 || r_type == 17 && target.section.is_exec()
}

/// Whether the type needs the offset from the thread pointer.
const fn needs_offset(r_type: u32) -> bool {
    matches!(r_type, 18 | 22 | 23 | 44 | 47 | 50)
}

fn variable(key: Key, value: Value) -> Variable {
    match key {
        Key::Global(id) if value.has(EXTERNAL) => Variable::External(id),
        _ => Variable::Own(value.addr),
    }
}

impl Plan {
    /// Decides `out.thread_local`; slots go to `got`, calls that stay to `out.deferred`.
    /// `process` tells whether the dynamic linker is to be asked.
    pub(crate) fn decide(
        view: &View<'_, '_>,
        out: &mut Outcome,
        got: &mut far::Plan,
        process: bool,
    ) -> Self {
        let mut plan = Self {
            fixed: !process,
            ..Self::default()
        };
        let uses = std::mem::take(&mut out.thread_local);
        for used in &uses {
            plan.survey(view, used);
        }
        for used in uses {
            let step = plan.step(view, &used, got);
            let step = step.and_then(|step| plan.ask(view, &used, step, process).map(|()| step));
            match step {
                Ok(step) => {
                    if !matches!(step, Step::Exact(..) | Step::Load(..)) {
                        out.deferred.extend(used.call);
                    }
                    plan.steps.push((used, step));
                }
                Err(error) => out.errors.push(*error),
            }
        }
        plan
    }

    /// Notes what needs constant offsets, and which descriptors cannot be relaxed.
    fn survey(&mut self, view: &View<'_, '_>, used: &Use) {
        let f = fields(&used.item.rela);
        let variable = variable(view.key(used.item.object, f.symbol), used.item.value);
        if needs_offset(f.r_type) {
            match variable {
                Variable::Own(_) => self.fixed = true,
                Variable::External(id) => drop(self.fixed_names.insert(id)),
            }
        }
        let target = view.target(used.item.object, used.item.section);
        if let Variable::External(id) = variable
            && is_from_block(&target, f.r_type)
        {
            self.fixed = true;
            self.fixed_names.insert(id);
        }
        self.based |= f.r_type == 20 || matches!(variable, Variable::Own(_));
        if let Variable::External(id) = variable
            && let Some(given) = Given::of(view.tables.symbols.list[to_index(id)].definition)
        {
            self.given.insert(id, given);
        }
        let matches = match f.r_type {
            34 | 35 => matched(&target, f, None).is_some(),
            45 | 48 | 51 => false,
            _ => true,
        };
        if !matches {
            self.odd_descriptors.insert(variable);
        }
    }

    fn is_constant(&self, variable: Variable) -> bool {
        match variable {
            Variable::Own(_) => self.fixed,
            Variable::External(id) => match self.given.get(&id) {
                Some(given) => given.pointer_offset.is_some(),
                None => self.fixed_names.contains(&id),
            },
        }
    }

    fn step(
        &mut self,
        view: &View<'_, '_>,
        used: &Use,
        got: &mut far::Plan,
    ) -> Result<Step, Box<LinkError>> {
        let (item, f) = (&used.item, fields(&used.item.rela));
        let target = view.target(item.object, item.section);
        let variable = variable(view.key(item.object, f.symbol), item.value);
        let kind = match f.r_type {
            18 | 23 => return Ok(Step::PointerOffset(variable)),
            16 => return Ok(Step::Module(variable)),
            r_type
                if matches!(variable, Variable::External(_)) && is_from_block(&target, r_type) =>
            {
                return Ok(Step::FromOwnBlock(variable));
            }
            17 | 21 => return Ok(Step::BlockOffset(variable)),
            19 => SlotKind::General,
            20 => SlotKind::Local,
            34 | 35 | 45 | 48 | 51 => SlotKind::Descriptor,
            _ => SlotKind::PointerOffset,
        };
        let variable = if kind == SlotKind::Local {
            Variable::Own(0)
        } else {
            variable
        };
        let relaxed = self.relaxed(&target, used, f, kind, variable);
        let user = view.options.record.then_some((item.object, f.symbol));
        Ok(match relaxed {
            Some((sequence, model))
                if model == Model::LocalExec || sequence.form == Form::DescriptorCall =>
            {
                Step::Exact(sequence, variable)
            }
            Some((sequence, _)) => Step::Load(
                sequence,
                self.slot(SlotKind::PointerOffset, variable, user, got),
            ),
            None if f.r_type == 35 => Step::Nothing,
            None => Step::Slot(self.slot(kind, variable, user, got)),
        })
    }

    /// The sequence of the relocation and what it becomes, if it is to become another.
    fn relaxed(
        &self,
        target: &Target<'_, '_>,
        used: &Use,
        f: Fields,
        kind: SlotKind,
        variable: Variable,
    ) -> Option<(Matched, Model)> {
        if !self.is_constant(variable) || target.relax == Relax::None {
            return None;
        }
        if kind == SlotKind::Descriptor && self.odd_descriptors.contains(&variable) {
            return None;
        }
        let sequence = matched(target, f, used.call.as_ref())?;
        let model = match (target.relax, kind) {
            (Relax::All, _) => Model::LocalExec,
            // To initial-exec only: a load that is one already and the block's own address stay.
            (_, SlotKind::PointerOffset | SlotKind::Local) => return None,
            _ => Model::InitialExec,
        };
        Some((sequence, model))
    }

    fn slot(
        &mut self,
        kind: SlotKind,
        variable: Variable,
        user: Option<(u32, u32)>,
        got: &mut far::Plan,
    ) -> usize {
        let index = *self.slot_index.entry((kind, variable)).or_insert_with(|| {
            let number = got.new_slot(SlotContent::ThreadLocal);
            for _ in 1..kind.count() {
                got.new_slot(SlotContent::ThreadLocal);
            }
            self.slots.push(Slot {
                kind,
                variable,
                number,
                users: Vec::new(),
            });
            self.slots.len() - 1
        });
        if let Some((object, symbol)) = user
            && self.users.insert((index, object, symbol))
        {
            self.slots[index].users.push((object, symbol));
        }
        index
    }

    /// Notes what must be known for `step`, or why that cannot be.
    fn ask(
        &mut self,
        view: &View<'_, '_>,
        used: &Use,
        step: Step,
        process: bool,
    ) -> Result<(), Box<LinkError>> {
        let (variable, asks): (Variable, &[Ask]) = match step {
            Step::PointerOffset(v) | Step::FromOwnBlock(v) | Step::Exact(_, v) => {
                (v, &[Ask::PointerOffset])
            }
            Step::BlockOffset(v) => (v, &[Ask::BlockOffset]),
            Step::Module(v) => (v, &[Ask::Module]),
            Step::Slot(slot) | Step::Load(_, slot) => (
                self.slots[slot].variable,
                match self.slots[slot].kind {
                    SlotKind::PointerOffset => &[Ask::PointerOffset],
                    SlotKind::General => &[Ask::Module, Ask::BlockOffset],
                    SlotKind::Local => &[Ask::Module],
                    SlotKind::Descriptor => &[Ask::Descriptor],
                },
            ),
            Step::Nothing => return Ok(()),
        };
        if let Variable::External(id) = variable
            && let Some(given) = self.given.get(&id)
        {
            let problem = match asks {
                [Ask::PointerOffset] if given.pointer_offset.is_none() => {
                    "another module defines the variable, in a block that each thread has elsewhere; compile this reference with -ftls-model=global-dynamic, or the definition with -ftls-model=initial-exec"
                }
                [Ask::Descriptor] if given.pointer_offset.is_none() => {
                    "another module defines the variable, in a block that each thread has elsewhere, and this reference needs a descriptor, which only the dynamic linker makes; compile it without -mtls-dialect=gnu2"
                }
                _ => return Ok(()),
            };
            let target = view.target(used.item.object, used.item.section);
            return Err(target.thread_local_error(fields(&used.item.rela), problem));
        }
        if !process {
            let problem = match (variable, asks) {
                (Variable::External(_), _) => {
                    "the variable is the process's, and a layout without the process does not know where its threads have it; link without --dry-run and --no-process-symbols"
                }
                (_, [Ask::Descriptor]) => {
                    "a descriptor's resolver is the dynamic linker's, which a layout without the process does not ask; allow relaxation, or link without --dry-run and --no-process-symbols"
                }
                _ => return Ok(()),
            };
            let target = view.target(used.item.object, used.item.section);
            return Err(target.thread_local_error(fields(&used.item.rela), problem));
        }
        for &ask in asks {
            match (variable, ask) {
                // Known from the layout.
                (Variable::Own(_), Ask::BlockOffset) => {}
                (Variable::Own(offset), Ask::Descriptor) => self.word(ask, Of::Own(offset)),
                (Variable::Own(_), _) => self.word(ask, Of::Own(0)),
                (Variable::External(id), _) => {
                    let known = self.names.iter().position(|&name| name == id);
                    let number = known.unwrap_or_else(|| {
                        self.names.push(id);
                        self.names.len() - 1
                    });
                    self.word(ask, Of::Name(number));
                }
            }
        }
        Ok(())
    }

    fn word(&mut self, ask: Ask, of: Of) {
        self.word_index.entry((ask, of)).or_insert_with(|| {
            self.words.push((ask, of));
            self.words.len() - 1
        });
    }

    /// Index of the word that was asked.
    pub(crate) fn word_of(&self, ask: Ask, variable: Variable) -> Option<usize> {
        let of = match variable {
            Variable::Own(offset) if ask == Ask::Descriptor => Of::Own(offset),
            Variable::Own(_) => Of::Own(0),
            Variable::External(id) => Of::Name(self.names.iter().position(|&name| name == id)?),
        };
        self.word_index.get(&(ask, of)).copied()
    }

    /// Asks for the own block's module number, and its offset if that must be constant.
    pub(crate) fn ask_for_block(&mut self) {
        self.word(Ask::Module, Of::Own(0));
        if self.fixed {
            self.word(Ask::PointerOffset, Of::Own(0));
        }
    }
}

/// The sequence that the relocation stands in.
fn matched(target: &Target<'_, '_>, f: Fields, call: Option<&Deferred>) -> Option<Matched> {
    if !target.section.is_exec() {
        return None;
    }
    let (code, field) = (target.section.data, usize::try_from(f.offset).ok()?);
    if f.r_type == 35 {
        return sequence::descriptor_call(code, field);
    }
    if f.addend != -4 {
        return None;
    }
    let call = call.and_then(|call| {
        let f = fields(&call.rela);
        Some(CallField {
            r_type: f.r_type,
            offset: usize::try_from(f.offset).ok()?,
            addend: f.addend,
        })
    });
    match f.r_type {
        19 => sequence::general(code, field, call?),
        20 => sequence::local(code, field, call?),
        22 => sequence::initial(code, field),
        34 => sequence::descriptor(code, field),
        _ => None,
    }
}
