//! Asking: the carrier is loaded, or the own block has its place elsewhere.
//!
//! The own block's place is, in this order: a carrier's that waits to be unloaded; a new
//! carrier's; a part of the pool. Without its own block a carrier still answers for others'
//! variables.

use crate::link::apply::fields;
use crate::link::error::{LinkError, LinkFailure};
use crate::link::far::Key;
use crate::link::relocate::Placed;
use crate::link::symbols::to_index;

use super::carrier::{Answer, Carrier, stackable, static_space};
use super::plan::{Plan, Step, Use, Variable};
use super::pool::PROGRAM;
use super::room::{PoolRefusal, Room, Wanted, static_use};
use super::shared::{Ask, Contents, Of};
use super::state::Mode;
use super::system::resolver_of_static;

/// Blocks above this are looked for no further when an error tells what there is, bytes.
const SPACE_LIMIT: u64 = 1 << 20;
/// The block of a link that has none but local-dynamic code, whose base it is: bytes.
const BASE_SIZE: u64 = 16;

/// The descriptor of a variable at `offset` from the thread pointer.
pub(super) fn static_descriptor(offset: u64) -> Answer {
    [resolver_of_static(), offset]
}

impl Placed<'_> {
    /// Finds out what the plan asks, and where the own block is.
    pub(super) fn ask_process(&mut self, plan: &mut Plan) -> Result<Vec<Answer>, LinkFailure> {
        let given = plan.given.iter();
        self.tls
            .external
            .extend(given.filter_map(|(&id, given)| Some((id, given.pointer_offset?))));
        let (mut size, mut align) = (self.layout.tls.size, self.layout.tls.align);
        if !self.process {
            if size > 0 {
                self.tls.module = PROGRAM;
                self.tls.mode = Mode::Static {
                    offset: self.layout.tls.only_offset(),
                };
            }
            return Ok(Vec::new());
        }
        if size == 0 && plan.based {
            (size, align) = (BASE_SIZE, BASE_SIZE);
        }
        if size > 0 {
            plan.ask_for_block();
        }
        if plan.words.is_empty() {
            return Ok(Vec::new());
        }
        let image = std::mem::take(&mut self.tls.image);
        let wanted = Wanted {
            image: &image,
            size,
            align,
        };
        let answers = self.settle_block(plan, wanted);
        self.tls.image = image;
        let answers = answers?;
        let answer = |ask, variable| Some(answers[plan.word_of(ask, variable)?][0]);
        if size > 0 {
            self.tls.module = answer(Ask::Module, Variable::Own(0)).unwrap_or(0);
            self.tls.base = self.tls.room.as_ref().map_or(0, |room| room.base);
            let offset = answer(Ask::PointerOffset, Variable::Own(0));
            self.tls.mode = match (offset, &self.tls.room) {
                (_, Some(room)) if room.is_pool() => Mode::Pool {
                    offset: room.offset,
                },
                (None, _) => Mode::Dynamic,
                (Some(offset), _) => Mode::Static { offset },
            };
        }
        for &id in &plan.names {
            let offset = answer(Ask::PointerOffset, Variable::External(id));
            self.tls.external.extend(offset.map(|offset| (id, offset)));
        }
        Ok(answers)
    }

    /// Finds the own block's place and the answers.
    fn settle_block(
        &mut self,
        plan: &Plan,
        wanted: Wanted<'_>,
    ) -> Result<Vec<Answer>, LinkFailure> {
        let fixed = plan.fixed && wanted.size > 0;
        if fixed && let Some(room) = Room::of_waiting(wanted) {
            return self.ask_beside(plan, room);
        }
        let described = |word: &(Ask, Of)| matches!(word, (Ask::Descriptor, Of::Own(_)));
        let (size, align) = if fixed || plan.words.iter().any(described) {
            stackable(wanted.size, wanted.align)
        } else {
            (wanted.size, wanted.align)
        };
        let names = self.names(plan);
        let contents = Contents {
            image: wanted.image,
            size,
            align,
            full: fixed,
            names: &names.iter().map(String::as_str).collect::<Vec<_>>(),
            words: &plan.words,
        };
        let said = match Carrier::load(&contents) {
            Ok((carrier, answers)) => {
                self.tls.carrier = Some(carrier);
                return Ok(answers);
            }
            Err(said) => said,
        };
        // Where there is no dynamic linker the pool has all blocks.
        let refusal = if fixed || wanted.size > 0 && plan.names.is_empty() {
            match Room::of_pool(wanted) {
                Ok(room) => return self.ask_beside(plan, room),
                Err(refusal) => refusal,
            }
        } else {
            PoolRefusal::Absent
        };
        Err(self.refused(plan, wanted, &said, refusal).into())
    }

    /// Answers where the own block is in `room`.
    fn ask_beside(&mut self, plan: &Plan, room: Room) -> Result<Vec<Answer>, LinkFailure> {
        let of_others = |word: &&(Ask, Of)| matches!(word.1, Of::Name(_));
        let words: Vec<(Ask, Of)> = plan.words.iter().filter(of_others).copied().collect();
        let mut others = Vec::new();
        if !words.is_empty() {
            let names = self.names(plan);
            let contents = Contents {
                image: &[],
                size: 0,
                align: 1,
                full: false,
                names: &names.iter().map(String::as_str).collect::<Vec<_>>(),
                words: &words,
            };
            let none = Wanted {
                image: &[],
                size: 0,
                align: 1,
            };
            let (carrier, answers) = Carrier::load(&contents)
                .map_err(|said| self.refused(plan, none, &said, PoolRefusal::Absent))?;
            self.tls.carrier = Some(carrier);
            others = answers;
        }
        let mut others = others.into_iter();
        let answer = |&(ask, of): &(Ask, Of)| match (ask, of) {
            (_, Of::Name(_)) => others.next().unwrap_or_default(),
            (Ask::Module, Of::Own(_)) => [room.module, 0],
            (Ask::BlockOffset, Of::Own(at)) => [room.base.wrapping_add(at), 0],
            (Ask::PointerOffset, Of::Own(at)) => [room.offset.wrapping_add(at), 0],
            (Ask::Descriptor, Of::Own(at)) => static_descriptor(room.offset.wrapping_add(at)),
        };
        let answers = plan.words.iter().map(answer).collect();
        self.tls.room = Some(room);
        Ok(answers)
    }

    /// The names that the words are about, as the dynamic linker knows them.
    fn names(&self, plan: &Plan) -> Vec<String> {
        let name = |&id: &u32| {
            let name = String::from_utf8_lossy(self.tables.symbols.list[to_index(id)].name);
            // The object's symbols carry no versions: the default one is found.
            name.split('@').next().unwrap_or_default().to_owned()
        };
        plan.names.iter().map(name).collect()
    }

    /// The error for a carrier that was refused.
    fn refused(&self, plan: &Plan, wanted: Wanted<'_>, said: &str, pool: PoolRefusal) -> LinkError {
        let own = said.starts_with("the link's thread-local block");
        let concerns = |(used, step): &&(Use, Step)| {
            let key = self
                .view()
                .key(used.item.object, fields(&used.item.rela).symbol);
            let external = matches!(key, Key::Global(id) if plan.names.contains(&id));
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
            return LinkError::StaticTls {
                site: Box::new(target.site(f)),
                needed: wanted.size,
                align: wanted.align,
                available: static_space(SPACE_LIMIT.min(wanted.size)),
                waiting: static_use().waiting,
                pool,
            };
        }
        let advice = if said.contains("static TLS") {
            "compile with -ftls-model=global-dynamic, or have the variable's library loaded when the process starts".to_owned()
        } else if plan.names.is_empty() {
            format!(
                "a program linked statically has no dynamic linker that could make the link's block, and {pool}"
            )
        } else {
            "the variable must be one that the dynamic linker sees: of a shared library, or of a program linked dynamically with --export-dynamic".to_owned()
        };
        *target.thread_local_error(f, &format!("the dynamic linker says: {said}; {advice}"))
    }
}
