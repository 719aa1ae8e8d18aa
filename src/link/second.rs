//! The second pass: fields that go through a slot, a stub or a mirror, and islands.

use super::apply::{Deferred, Fields, Outcome, fields};
use super::engine::View;
use super::error::LinkError;
use super::far::Action;
use super::howto::{Formula, howto};
use super::island;
use super::relocate::{Placed, section_bytes};
use super::site::input_error;
use super::value;

impl Placed<'_> {
    pub(super) fn apply_deferred(&mut self, out: &mut Outcome) {
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
    pub(super) fn build_islands(&mut self, out: &mut Outcome) {
        let mut islands = std::mem::take(&mut self.plan.islands);
        for plan in &mut islands {
            let view = View {
                tables: &self.tables,
                options: self.options,
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
            assert!(
                built.code.len() <= plan.size,
                "an island of {} bytes was promised, one of {} built",
                plan.size,
                built.code.len()
            );
            let start = usize::try_from(plan.offset).unwrap_or(usize::MAX);
            let islands = self.memory.working_mem(self.own.islands.0);
            islands[start..start + built.code.len()].copy_from_slice(&built.code);
            plan.rows = built.rows;
        }
        self.plan.islands = islands;
    }
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
