//! With the carrier's answers: GOT words, offsets in fields, rewritten sequences.

use low2g_platform::to_u64;

use crate::link::apply::{Fields, Outcome, Target, fields};
use crate::link::engine::View;
use crate::link::error::{LinkError, LinkFailure};
use crate::link::howto::{Check, Width, howto};
use crate::link::relocate::{Placed, section_bytes};
use crate::link::symbols::to_index;

use super::carrier::{Answer, Carrier, stackable, static_space};
use super::plan::{Plan, SlotKind, Step, Use, Variable};
use super::sequence::{Form, Matched, Model};
use super::shared::{Ask, Contents};
use super::state::Mode;

/// Module number of a program's own block (psABI); stands for ours without the process.
const PROGRAM: u64 = 1;
/// Blocks above this are looked for no further when an error tells what there is, bytes.
const SPACE_LIMIT: u64 = 1 << 20;

/// A field to write.
struct Written {
    value: u64,
    action: &'static str,
}

impl Placed<'_> {
    /// Loads the carrier and writes all that waited for it. The image must be final.
    pub(crate) fn finish_thread_local(
        &mut self,
        mut plan: Plan,
        out: &mut Outcome,
    ) -> Result<(), LinkFailure> {
        let answers = self.ask(&mut plan)?;
        self.tls.slots = std::mem::take(&mut plan.slots);
        self.fill_slots(&plan, &answers);
        for &(used, step) in &plan.steps {
            if let Err(error) = self.finish_one(&plan, &answers, &used, step, out) {
                out.errors.push(*error);
            }
        }
        Ok(())
    }

    /// Loads the carrier if there is anything to ask, and notes where the own block is.
    fn ask(&mut self, plan: &mut Plan) -> Result<Vec<Answer>, LinkFailure> {
        let given = plan.given.iter();
        self.tls
            .external
            .extend(given.filter_map(|(&id, given)| Some((id, given.pointer_offset?))));
        let block = &self.layout.tls;
        if !self.process {
            if block.size > 0 {
                self.tls.module = PROGRAM;
                self.tls.mode = Mode::Static {
                    offset: block.only_offset(),
                };
            }
            return Ok(Vec::new());
        }
        if block.size > 0 {
            plan.ask_for_block();
        }
        if plan.words.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<String> = plan
            .names
            .iter()
            .map(|&id| {
                let name = String::from_utf8_lossy(self.tables.symbols.list[to_index(id)].name);
                // The object's symbols carry no versions: the default one is found.
                name.split('@').next().unwrap_or_default().to_owned()
            })
            .collect();
        let (size, align) = if plan.fixed {
            stackable(block.size, block.align)
        } else {
            (block.size, block.align)
        };
        let contents = Contents {
            image: &self.tls.image,
            size,
            align,
            names: &names.iter().map(String::as_str).collect::<Vec<_>>(),
            words: &plan.words,
        };
        let (carrier, answers) =
            Carrier::load(&contents).map_err(|said| self.refused(plan, &said))?;
        let answer = |ask, variable| Some(answers[plan.word_of(ask, variable)?][0]);
        if block.size > 0 {
            self.tls.module = answer(Ask::Module, Variable::Own(0)).unwrap_or(0);
            self.tls.mode = answer(Ask::PointerOffset, Variable::Own(0))
                .map_or(Mode::Dynamic, |offset| Mode::Static { offset });
        }
        for &id in &plan.names {
            let offset = answer(Ask::PointerOffset, Variable::External(id));
            self.tls.external.extend(offset.map(|offset| (id, offset)));
        }
        self.tls.carrier = Some(carrier);
        Ok(answers)
    }

    /// The error for a carrier that was refused.
    fn refused(&self, plan: &Plan, said: &str) -> LinkError {
        let own = said.starts_with("the link's thread-local block");
        let concerns = |(used, step): &&(Use, Step)| {
            let key = self
                .view()
                .key(used.item.object, fields(&used.item.rela).symbol);
            let external =
                matches!(key, super::super::far::Key::Global(id) if plan.names.contains(&id));
            *step != Step::Nothing && external != own
        };
        let found = plan.steps.iter().find(concerns).or(plan.steps.first());
        let Some((used, _)) = found else {
            return LinkError::object(
                "low2g",
                format!("thread-local storage cannot be had: {said}"),
            );
        };
        let view = self.view();
        let target = view.target(used.item.object, used.item.section);
        let f = fields(&used.item.rela);
        if own && plan.fixed && said.contains("static TLS") {
            let block = &self.layout.tls;
            return LinkError::StaticTls {
                site: Box::new(target.site(f)),
                needed: block.size,
                align: block.align,
                available: static_space(SPACE_LIMIT.min(block.size)),
            };
        }
        *target.thread_local_error(
            f,
            &format!(
                "the dynamic linker says: {said}; where it speaks of static TLS, compile with -ftls-model=global-dynamic or have the variable's library loaded when the process starts"
            ),
        )
    }

    pub(crate) fn view(&self) -> View<'_, '_> {
        View {
            tables: &self.tables,
            options: self.options,
            addrs: &self.addrs,
        }
    }

    fn fill_slots(&mut self, plan: &Plan, answers: &[Answer]) {
        for slot in &self.tls.slots {
            let answer = |ask| {
                plan.word_of(ask, slot.variable)
                    .and_then(|index| answers.get(index).copied())
            };
            let place = place_of(plan, answers, self.tls.module, slot.variable);
            let words = match slot.kind {
                SlotKind::PointerOffset => [self.tls.offset_of(slot.variable).unwrap_or(0), 0],
                SlotKind::General => place,
                SlotKind::Local => [place[0], 0],
                SlotKind::Descriptor => answer(Ask::Descriptor).unwrap_or_default(),
            };
            let start = to_index(slot.number) * 8;
            let got = self.memory.working_mem(self.own.got.0);
            got[start..start + 8].copy_from_slice(&words[0].to_le_bytes());
            if slot.kind != SlotKind::PointerOffset {
                got[start + 8..start + 16].copy_from_slice(&words[1].to_le_bytes());
            }
        }
    }

    fn finish_one(
        &mut self,
        plan: &Plan,
        answers: &[Answer],
        used: &Use,
        step: Step,
        out: &mut Outcome,
    ) -> Result<(), Box<LinkError>> {
        let f = fields(&used.item.rela);
        let place_of = |variable| place_of(plan, answers, self.tls.module, variable);
        let offset = |variable| self.tls.offset_of(variable).unwrap_or(0);
        let number = match step {
            Step::PointerOffset(variable) => offset(variable).wrapping_add_signed(f.addend),
            Step::BlockOffset(variable) => place_of(variable)[1].wrapping_add_signed(f.addend),
            Step::Module(variable) => place_of(variable)[0],
            Step::Slot(slot) | Step::Load(_, slot) => self.slot_addr(self.tls.slots[slot].number),
            Step::Exact(_, variable) => offset(variable),
            Step::Nothing => 0,
        };
        let view = View {
            tables: &self.tables,
            options: self.options,
            addrs: &self.addrs,
        };
        let target = view.target(used.item.object, used.item.section);
        let place = target.addr.wrapping_add(f.offset);
        let bytes = section_bytes(
            &mut self.memory,
            &self.layout,
            &mut self.tls,
            target.section,
        );
        let written = match step {
            Step::Exact(sequence, _) => {
                rewrite(&target, f, bytes, sequence, Model::LocalExec, number)?
            }
            Step::Load(sequence, _) => {
                rewrite(&target, f, bytes, sequence, Model::InitialExec, number)?
            }
            _ => write(&target, f, bytes, step, number)?,
        };
        if self.options.record {
            let s = used.item.value.addr;
            out.rows
                .push(target.row(f, s, place, written.value, written.action));
        }
        Ok(())
    }
}

/// Module number and offset in the block, as far as they were asked for.
fn place_of(plan: &Plan, answers: &[Answer], own: u64, variable: Variable) -> [u64; 2] {
    let answer = |ask| {
        let index = plan.word_of(ask, variable);
        index
            .and_then(|index| answers.get(index))
            .map_or(0, |words| words[0])
    };
    match variable {
        Variable::Own(offset) => [own, offset],
        Variable::External(id) => match plan.given.get(&id) {
            Some(given) => [given.module, given.offset],
            None => [answer(Ask::Module), answer(Ask::BlockOffset)],
        },
    }
}

/// Writes a field whose instruction stays.
fn write(
    target: &Target<'_, '_>,
    f: Fields,
    bytes: &mut [u8],
    step: Step,
    number: u64,
) -> Result<Written, Box<LinkError>> {
    let Some(howto) = howto(f.r_type) else {
        return Err(target.unsupported(f, "the psABI defines types 0 to 51"));
    };
    let place = target.addr.wrapping_add(f.offset);
    let (value, action) = match step {
        Step::Slot(_) => (
            number.wrapping_sub(place).wrapping_add_signed(f.addend),
            "got",
        ),
        _ => (number, "direct"),
    };
    target.check(howto, f, number, value, place)?;
    target.write(bytes, f, howto, value)?;
    Ok(Written { value, action })
}

/// Replaces a sequence.
fn rewrite(
    target: &Target<'_, '_>,
    f: Fields,
    bytes: &mut [u8],
    sequence: Matched,
    model: Model,
    number: u64,
) -> Result<Written, Box<LinkError>> {
    let rewritten = sequence.rewrite(model);
    let value = match (model, rewritten.field()) {
        (Model::InitialExec, Some(field)) => {
            let field = target.addr.wrapping_add(to_u64(field));
            number.wrapping_sub(field.wrapping_add(4))
        }
        (_, None) => 0,
        _ => number,
    };
    if !Check::Signed.fits(Width::Word, value) {
        return Err(target.thread_local_error(
            f,
            &format!("the value {value:#x} of the relaxed sequence does not fit 32 bits; link with --relax none"),
        ));
    }
    let field = u32::try_from(value & 0xffff_ffff).expect("masked");
    let code = rewritten.code(field);
    let range = rewritten.start..rewritten.start + code.len();
    // The sequence was matched in the same section's bytes.
    bytes[range].copy_from_slice(&code);
    Ok(Written {
        value,
        action: action(sequence.form, model),
    })
}

const fn action(form: Form, model: Model) -> &'static str {
    match (form, model) {
        (Form::General | Form::GeneralLarge, Model::LocalExec) => "relax:gd-le",
        (Form::General | Form::GeneralLarge, Model::InitialExec) => "relax:gd-ie",
        (Form::Local(_), _) => "relax:ld-le",
        (Form::Load(_) | Form::Add(_), _) => "relax:ie-le",
        (Form::Descriptor(_) | Form::DescriptorCall, Model::LocalExec) => "relax:tlsdesc-le",
        (Form::Descriptor(_) | Form::DescriptorCall, Model::InitialExec) => "relax:tlsdesc-ie",
    }
}
