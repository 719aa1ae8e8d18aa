//! With the carrier's answers: GOT words, offsets in fields, rewritten sequences.

use low2g_platform::to_u64;

use crate::link::apply::{Fields, Outcome, Target, fields};
use crate::link::engine::View;
use crate::link::error::{LinkError, LinkFailure};
use crate::link::howto::{Check, Width, howto};
use crate::link::relocate::{Placed, section_bytes};
use crate::link::symbols::to_index;

use super::carrier::Answer;
use super::plan::{Plan, SlotKind, Step, Use, Variable};
use super::question::static_descriptor;
use super::sequence::{Form, Matched, Model};
use super::shared::Ask;

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
        let answers = self.ask_process(&mut plan)?;
        self.tls.slots = std::mem::take(&mut plan.slots);
        self.fill_slots(&plan, &answers);
        for &(used, step) in &plan.steps {
            if let Err(error) = self.finish_one(&plan, &answers, &used, step, out) {
                out.errors.push(*error);
            }
        }
        Ok(())
    }

    /// Module number and offset in its block, as far as they were asked for.
    fn place_of(&self, plan: &Plan, answers: &[Answer], variable: Variable) -> [u64; 2] {
        let answer = |ask| {
            let index = plan.word_of(ask, variable);
            let words = index.and_then(|index| answers.get(index));
            words.map_or(0, |words| words[0])
        };
        match variable {
            Variable::Own(offset) => [self.tls.module, self.tls.base.wrapping_add(offset)],
            Variable::External(id) => match plan.given.get(&id) {
                Some(given) => [given.module, given.offset],
                None => [answer(Ask::Module), answer(Ask::BlockOffset)],
            },
        }
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
            let place = self.place_of(plan, answers, slot.variable);
            let words = match slot.kind {
                SlotKind::PointerOffset => [self.tls.offset_of(slot.variable).unwrap_or(0), 0],
                SlotKind::General => place,
                SlotKind::Local => [place[0], 0],
                SlotKind::Descriptor => answer(Ask::Descriptor)
                    .or_else(|| Some(static_descriptor(self.tls.offset_of(slot.variable)?)))
                    .unwrap_or_default(),
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
        let place_of = |variable| self.place_of(plan, answers, variable);
        let offset = |variable| self.tls.offset_of(variable).unwrap_or(0);
        let number = match step {
            Step::PointerOffset(variable) => offset(variable).wrapping_add_signed(f.addend),
            Step::FromOwnBlock(variable) => offset(variable)
                .wrapping_sub(offset(Variable::Own(0)).wrapping_sub(self.tls.base))
                .wrapping_add_signed(f.addend),
            Step::BlockOffset(variable) => place_of(variable)[1].wrapping_add_signed(f.addend),
            Step::Module(variable) => place_of(variable)[0],
            Step::Slot(slot) | Step::Load(_, slot) => self.slot_addr(self.tls.slots[slot].number),
            // The address that `__tls_get_addr` would give: of the module's whole block.
            Step::Exact(sequence, variable) if matches!(sequence.form, Form::Local(_)) => {
                offset(variable).wrapping_sub(self.tls.base)
            }
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
