//! The claim: makes the moves that a policy proposes until one succeeds.
//!
//! Invariants:
//! - a claim is either in the map as ours when this returns, or nothing of it is mapped;
//! - no claim lies outside the window, over anything else, or in the room kept
//!   clear for brk and stacks (unless the caller named that very address);
//! - the number of moves is bounded (see `policy`).

use low2g_platform::{AddrRange, ClaimError, Protection};

use crate::alloc::certificate::{Certificate, Step};
use crate::alloc::error::AllocError;
use crate::alloc::exact::{Exactness, Source, claim_at, trim};
use crate::alloc::pages::{Pages, State, hard_error};
use crate::alloc::policy::{FreeSpace, Placement, Progress, Proposal};
use crate::alloc::snapshot;
use crate::alloc::space::{Kind, Owned, Owner, Shape};

/// What is to be mapped.
#[derive(Debug)]
pub(crate) struct Want<'a> {
    /// Bytes, not 0, a multiple of the page size.
    pub(crate) size: u64,
    /// A power of two.
    pub(crate) align: u64,
    pub(crate) window: AddrRange,
    pub(crate) placement: Placement,
    /// Bits below which the claim is refused.
    pub(crate) min_entropy: f64,
    pub(crate) source: Source<'a>,
    pub(crate) kind: Kind,
    pub(crate) label: &'a str,
}

/// One request on its way.
struct Claim<'a> {
    pages: &'a Pages,
    want: &'a Want<'a>,
    shape: Shape,
    progress: Progress,
    /// Whether the map was surveyed for this request.
    fresh: bool,
    /// The last refusal that might have been a collision in disguise.
    refusal: Option<AllocError>,
}

impl Pages {
    /// Claims what is wanted wherever its placement says.
    pub(crate) fn claim(&self, want: &Want<'_>) -> Result<(AddrRange, Certificate), AllocError> {
        let granularity = self.platform.config().granularity;
        let shape = Shape {
            size: want.size,
            step: want.align.max(granularity),
            window: want.window,
        };
        let mut state = self.state.lock();
        state.random.check_fork(&*self.platform);
        self.check_limit(&state, want.size)?;
        let fresh = self.ensure_surveyed(&mut state, want.window)?;
        state.hole_barred = !self.avoids_hole(&mut state, shape) && state.drop_hole();
        let mut result = Claim::new(self, want, shape, fresh).run(&mut state);
        // What is kept for a large block is better than nothing for a small one.
        if let Err(AllocError::Exhausted { .. } | AllocError::EntropyTooLow { .. }) = result
            && state.drop_hole()
        {
            state.hole_barred = true;
            result = Claim::new(self, want, shape, false).run(&mut state);
        }
        state.hole_barred = false;
        if self.outgrows_hole(want.size) {
            self.draw_hole(&mut state);
        }
        match result {
            Err(AllocError::Exhausted { .. }) => {
                // Naming the holders is slow and needs nothing of the state.
                drop(state);
                result.map_err(|error| snapshot::name_holders(self, error))
            }
            _ => result,
        }
    }

    /// Claims exactly `range`, which the caller named.
    pub(crate) fn claim_fixed(
        &self,
        range: AddrRange,
        protection: Protection,
        (kind, label): (Kind, &str),
    ) -> Result<Certificate, AllocError> {
        let mut state = self.state.lock();
        self.check_limit(&state, range.len())?;
        let occupied = |holder: String| AllocError::Occupied { range, holder };
        if let Some((_, Owner::Ours(ours))) = state
            .space
            .taken_in(range)
            .find(|(_, owner)| matches!(owner, Owner::Ours(_)))
        {
            return Err(occupied(snapshot::name_of_ours(ours)));
        }
        match claim_at(self, &mut state, range, range, Source::Private(protection)) {
            Ok(_) => {}
            Err(ClaimError::Occupied { .. } | ClaimError::Unsupported { .. }) => {
                drop(state);
                return Err(occupied(snapshot::name_of_holder(self, range)));
            }
            Err(error) => return Err(hard_error(error).expect("collisions are handled above")),
        }
        let seeded = state.random.is_seeded();
        record(&mut state, range, ours(kind, label), Step::Fixed);
        Ok(Certificate::of_pick(
            Step::Fixed,
            1,
            &mut state.bits,
            true,
            seeded,
        ))
    }
}

impl<'a> Claim<'a> {
    fn new(pages: &'a Pages, want: &'a Want<'a>, shape: Shape, fresh: bool) -> Self {
        Self {
            pages,
            want,
            shape,
            progress: Progress::default(),
            fresh,
            refusal: None,
        }
    }

    fn run(&mut self, state: &mut State) -> Result<(AddrRange, Certificate), AllocError> {
        let policy = self.want.placement.policy();
        loop {
            let mut free = FreeSpace::new(&mut state.space, self.shape);
            match policy.next(&mut free, &self.progress, &mut state.random) {
                Proposal::At { start, step } => {
                    if let Some(done) = self.try_at(state, start, step)? {
                        return Ok(done);
                    }
                }
                Proposal::Survey => self.survey(state)?,
                Proposal::Kernel => {
                    self.progress.kernel_tried = true;
                    if let Some(done) = self.try_kernel(state)? {
                        return Ok(done);
                    }
                }
                Proposal::GiveUp => return Err(self.give_up(state)),
            }
        }
    }

    fn survey(&mut self, state: &mut State) -> Result<(), AllocError> {
        self.pages.survey(state, self.shape.window)?;
        self.fresh = true;
        self.progress.surveys += 1;
        self.progress.attempts_since_survey = 0;
        Ok(())
    }

    fn count_attempt(&mut self, state: &mut State) {
        self.progress.attempts += 1;
        self.progress.attempts_since_survey += 1;
        state.statistics.attempts += 1;
    }

    fn try_at(
        &mut self,
        state: &mut State,
        start: u64,
        step: Step,
    ) -> Result<Option<(AddrRange, Certificate)>, AllocError> {
        let free_slots = state.space.free_starts(self.shape);
        let certificate = self.certificate(state, step, free_slots);
        if let Err(error) = self.check_entropy(&certificate) {
            // Others may have gone since the last survey.
            return if self.fresh {
                Err(error)
            } else {
                self.survey(state).map(|()| None)
            };
        }
        self.count_attempt(state);
        let range = AddrRange::at(start, self.shape.size).expect("starts are counted in a window");
        // Before the call, which leaves the caches cold.
        state.space.insert(range, self.owner());
        let claimed = claim_at(
            self.pages,
            state,
            range,
            self.shape.window,
            self.want.source,
        );
        match claimed {
            Ok(exactness) => {
                let step = match exactness {
                    Exactness::Hinted if step.is_uniform() => Step::Hint,
                    Exactness::Hinted | Exactness::Claimed => step,
                };
                state.statistics.count_mapping(range.len(), step);
                let certificate = Certificate {
                    step,
                    ..certificate
                };
                Ok(Some((range, certificate)))
            }
            Err(error) => {
                state.space.remove(start);
                // Without exact claims, a full MAP_32BIT window says "out of memory"
                // when only the hinted place was taken.
                let disguised = !state.exact;
                self.refused(state, error, disguised)
            }
        }
    }

    /// After a refusal: whether other addresses may help. "Out of memory" may be a collision in
    /// disguise.
    fn refused<T>(
        &mut self,
        state: &mut State,
        error: ClaimError,
        disguised: bool,
    ) -> Result<Option<T>, AllocError> {
        match error {
            ClaimError::Exhausted(_) if disguised => {
                self.refusal = hard_error(error);
                self.collided(state)
            }
            ClaimError::Unsupported { call } if self.want.source.is_view() => {
                Err(AllocError::Unsupported { call })
            }
            _ => match hard_error(error) {
                Some(error) => Err(error),
                None => self.collided(state),
            },
        }
    }

    fn collided<T>(&self, state: &mut State) -> Result<Option<T>, AllocError> {
        state.statistics.collisions += 1;
        Ok(None)
    }

    /// Lets the kernel choose; only private pages can be had that way.
    fn try_kernel(
        &mut self,
        state: &mut State,
    ) -> Result<Option<(AddrRange, Certificate)>, AllocError> {
        let free_slots = state.space.free_starts(self.shape);
        let certificate = self.certificate(state, Step::Map32bit, free_slots);
        let Source::Private(protection) = self.want.source else {
            return Ok(None);
        };
        if self.check_entropy(&certificate).is_err() {
            return Ok(None);
        }
        self.count_attempt(state);
        let platform = &*self.pages.platform;
        // The kernel aligns to the granularity only: ask for more, trim the ends.
        let slack = self.shape.step - platform.config().granularity;
        let Some(len) = self.shape.size.checked_add(slack) else {
            return Ok(None);
        };
        let got = match platform.claim_low(len, self.shape.window, protection) {
            Ok(got) => got,
            // Some kernels say "out of memory" here although memory is free.
            Err(error) => return self.refused(state, error, true),
        };
        let range = trim(self.pages, got, self.shape)?;
        if self.is_kept_clear(state, range) {
            // SAFETY: release needs a claim to which nothing refers: it was just made, and named nowhere.
            unsafe { platform.release(range) }?;
            return self.collided(state);
        }
        record(state, range, self.owner(), certificate.step);
        Ok(Some((range, certificate)))
    }

    /// Whether brk or a stack is to grow there.
    fn is_kept_clear(&self, state: &State, range: AddrRange) -> bool {
        state
            .space
            .taken_in(range)
            .any(|(_, owner)| matches!(owner, Owner::Room))
    }

    fn owner(&self) -> Owner {
        ours(self.want.kind, self.want.label)
    }

    fn certificate(&self, state: &mut State, step: Step, free_slots: u64) -> Certificate {
        let seeded = state.random.is_seeded();
        Certificate::of_pick(step, free_slots, &mut state.bits, self.fresh, seeded)
    }

    fn check_entropy(&self, certificate: &Certificate) -> Result<(), AllocError> {
        let minimum = self.want.min_entropy;
        if certificate.entropy_bits >= minimum {
            return Ok(());
        }
        let advice = if certificate.seeded {
            "a seed makes addresses known; leave it out, or the minimum"
        } else if !self.want.placement.policy().is_uniform() {
            "use randomized placement, or lower the minimum"
        } else {
            "lower the minimum, widen the reach, or release low memory"
        };
        Err(AllocError::EntropyTooLow {
            bits: certificate.entropy_bits,
            minimum,
            free_slots: certificate.free_slots,
            advice,
        })
    }

    /// The error when the policy has nothing more to try.
    fn give_up(&mut self, state: &mut State) -> AllocError {
        let window = self.shape.window;
        let free_slots = state.space.free_starts(self.shape);
        if free_slots > 0 {
            return self.refusal.take().unwrap_or(AllocError::Contended {
                size: self.shape.size,
                window,
                attempts: self.progress.attempts,
                free_slots,
            });
        }
        let (mut free, mut largest_hole) = (0, 0);
        for gap in state.space.gaps(window) {
            free += gap.len();
            largest_hole = largest_hole.max(gap.len());
        }
        AllocError::Exhausted {
            size: self.shape.size,
            align: self.shape.step,
            window,
            largest_hole,
            free,
            holders: Vec::new(),
        }
    }
}

/// An entry of the map that is ours.
fn ours(kind: Kind, label: &str) -> Owner {
    let label = if label.is_empty() {
        Box::default()
    } else {
        label.into()
    };
    Owner::Ours(Owned { kind, label })
}

/// Enters a claim into the map and the statistics.
fn record(state: &mut State, range: AddrRange, owner: Owner, step: Step) {
    if let Err(owner) = state.space.insert_if_free(range, owner) {
        // Whoever a survey saw here is gone: the system gave it to us.
        if state.hole.is_some_and(|hole| hole.overlaps(range)) {
            state.drop_hole();
        }
        state.space.forget_others(range);
        state.space.insert(range, owner);
    }
    state.statistics.count_mapping(range.len(), step);
}
