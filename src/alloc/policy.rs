//! Which addresses to try, in which order: the one place where placements differ.
//!
//! A [`PlacementPolicy`] sees the free space and what was tried so far, and
//! proposes the next move; the allocator makes it and asks again. So a policy
//! is a pure function but for its random numbers, and cannot claim anything.
//!
//! Invariant: every policy proposes [`Proposal::GiveUp`] after a bounded number
//! of moves, whatever other threads do to the address space meanwhile.

use std::fmt;
use std::str::FromStr;

use low2g_platform::AddrRange;

use crate::alloc::certificate::Step;
use crate::alloc::error::AllocError;
use crate::alloc::random::Random;
use crate::alloc::space::{Shape, Space};

/// How addresses are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Placement {
    /// Uniformly at random among all possible starts.
    #[default]
    Randomized,
    /// The lowest address that fits.
    FirstFit,
    /// The kernel's own choice (`MAP_32BIT`), then as randomized.
    Kernel,
}

impl Placement {
    /// The policy of this name.
    #[must_use]
    pub fn policy(self) -> &'static dyn PlacementPolicy {
        match self {
            Self::Randomized => &Randomized,
            Self::FirstFit => &FirstFit,
            Self::Kernel => &KernelFirst,
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Randomized => "randomized",
            Self::FirstFit => "first-fit",
            Self::Kernel => "kernel",
        })
    }
}

impl FromStr for Placement {
    type Err = AllocError;

    fn from_str(text: &str) -> Result<Self, AllocError> {
        match text {
            "randomized" => Ok(Self::Randomized),
            "first-fit" => Ok(Self::FirstFit),
            "kernel" => Ok(Self::Kernel),
            _ => Err(AllocError::BadWord {
                what: "placement",
                word: text.to_owned(),
                expected: "randomized, first-fit or kernel",
            }),
        }
    }
}

/// The free space as one request sees it.
#[derive(Debug)]
pub struct FreeSpace<'a> {
    space: &'a mut Space,
    shape: Shape,
}

impl<'a> FreeSpace<'a> {
    pub(crate) fn new(space: &'a mut Space, shape: Shape) -> Self {
        Self { space, shape }
    }

    /// Start addresses of the window, free or not.
    #[must_use]
    pub fn all_slots(&self) -> u64 {
        self.shape.starts_in(self.shape.window)
    }

    /// Start addresses at which nothing known is in the way.
    #[must_use]
    pub fn free_slots(&mut self) -> u64 {
        self.space.free_starts(self.shape)
    }

    /// The `index`-th start address of the window, which has more than `index`.
    #[must_use]
    pub fn slot(&self, index: u64) -> u64 {
        self.shape.start_at(self.shape.window, index)
    }

    /// Whether nothing known is in the way of a block at `start`.
    #[must_use]
    pub fn is_free(&self, start: u64) -> bool {
        AddrRange::at(start, self.shape.size).is_some_and(|range| self.space.is_free(range))
    }

    /// The `index`-th free start address, ascending.
    #[must_use]
    pub fn nth_free(&self, index: u64) -> Option<u64> {
        self.space.nth_free(self.shape, index)
    }

    /// Start addresses from the first byte of a block to its last.
    fn starts_of_one(&self) -> u64 {
        self.shape.size.div_ceil(self.shape.step)
    }

    /// The lowest free start address.
    #[must_use]
    pub fn first_free(&mut self) -> Option<u64> {
        self.space.first_free(self.shape)
    }
}

/// What one request has tried so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Claims tried in all.
    pub attempts: u32,
    /// Claims tried since the last survey that this request asked for.
    pub attempts_since_survey: u32,
    /// Surveys that this request asked for.
    pub surveys: u32,
    /// Whether the kernel was asked for its own choice.
    pub kernel_tried: bool,
}

/// The next move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proposal {
    /// Claim exactly there.
    At {
        /// Start address.
        start: u64,
        /// What the certificate is to say.
        step: Step,
    },
    /// Look again at what is taken.
    Survey,
    /// Let the kernel choose.
    Kernel,
    /// Nothing more to try.
    GiveUp,
}

/// Given the free space and a request, which addresses to try.
pub trait PlacementPolicy: fmt::Debug + Send + Sync {
    /// The move to make after those in `progress`.
    fn next(&self, free: &mut FreeSpace<'_>, progress: &Progress, random: &mut Random) -> Proposal;

    /// Whether addresses are drawn uniformly, so that a minimum of entropy can be met.
    fn is_uniform(&self) -> bool {
        false
    }
}

/// Draws handed to the kernel before the first survey.
const DRAWS: u32 = 4;
/// Draws looked up in our own map for each of those: free of cost, and enough
/// unless less than one start in thirty is free.
const LOOK_UPS: u32 = 64;
/// Claims for each survey: the second one may still be right.
const PICKS_PER_SURVEY: u32 = 2;
/// Surveys before giving up against threads that keep taking what was picked.
const SURVEYS: u32 = 24;

#[derive(Debug)]
struct Randomized;

impl PlacementPolicy for Randomized {
    fn next(&self, free: &mut FreeSpace<'_>, progress: &Progress, random: &mut Random) -> Proposal {
        if progress.surveys == 0 {
            return draw(free, progress, random).unwrap_or(Proposal::Survey);
        }
        after_survey(progress, || {
            let index = random.below(free.free_slots());
            free.nth_free(index).map(|start| (start, Step::Survey))
        })
    }

    fn is_uniform(&self) -> bool {
        true
    }
}

/// A start drawn from the whole window and not known to be taken.
fn draw(free: &FreeSpace<'_>, progress: &Progress, random: &mut Random) -> Option<Proposal> {
    if progress.attempts >= DRAWS {
        return None;
    }
    let slots = free.all_slots();
    if slots == 0 {
        return None;
    }
    (0..LOOK_UPS)
        .map(|_| free.slot(random.below(slots)))
        .find(|start| free.is_free(*start))
        .map(|start| Proposal::At {
            start,
            step: Step::Draw,
        })
}

/// Picks among surveyed starts with a bound, then the kernel's choice, then the end.
fn after_survey(progress: &Progress, pick: impl FnOnce() -> Option<(u64, Step)>) -> Proposal {
    if progress.attempts_since_survey < PICKS_PER_SURVEY {
        if let Some((start, step)) = pick() {
            return Proposal::At { start, step };
        }
        // The survey shows no start, so the kernel would find none either but
        // in the room kept clear.
        return Proposal::GiveUp;
    }
    if progress.surveys < SURVEYS {
        Proposal::Survey
    } else if progress.kernel_tried {
        Proposal::GiveUp
    } else {
        Proposal::Kernel
    }
}

#[derive(Debug)]
struct FirstFit;

impl PlacementPolicy for FirstFit {
    fn next(&self, free: &mut FreeSpace<'_>, progress: &Progress, _: &mut Random) -> Proposal {
        let first = free.first_free().map(|start| (start, Step::FirstFit));
        if progress.surveys == 0 {
            return match first {
                Some((start, step)) if progress.attempts == 0 => Proposal::At { start, step },
                _ => Proposal::Survey,
            };
        }
        // Whoever took the lowest start since the survey leaves what begins after it.
        let beyond = u64::from(progress.attempts_since_survey) * free.starts_of_one();
        after_survey(progress, || match beyond {
            0 => first,
            _ => free
                .nth_free(beyond)
                .map_or(first, |start| Some((start, Step::FirstFit))),
        })
    }
}

#[derive(Debug)]
struct KernelFirst;

impl PlacementPolicy for KernelFirst {
    fn next(&self, free: &mut FreeSpace<'_>, progress: &Progress, random: &mut Random) -> Proposal {
        if progress.kernel_tried {
            Randomized.next(free, progress, random)
        } else {
            Proposal::Kernel
        }
    }
}
