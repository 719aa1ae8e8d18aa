//! [`Certificate`]: how hard an address that was handed out is to guess.
//!
//! Bits are lower bounds. A pick that is uniform over N start addresses has
//! log2(N) of each kind; what the kernel chose is counted as nothing, because
//! after a few hundred live blocks its next address is certain; what a
//! seed of the user's decided is counted as nothing too.

use std::fmt;

use crate::alloc::error::AllocError;

/// The step of placement that found an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// A uniform draw over the window, claimed exactly.
    Draw,
    /// A uniform pick among all starts that a survey showed free, claimed exactly.
    Survey,
    /// A draw or pick given to the kernel as a hint, because exact claims do not exist here.
    Hint,
    /// The kernel's own choice (`MAP_32BIT`, `VirtualAlloc2`): a weaker grade.
    Map32bit,
    /// A random slot of an arena at a random base.
    Arena,
    /// The lowest address that fits.
    FirstFit,
    /// The address that the caller named.
    Fixed,
}

impl Step {
    /// All steps, in the order of [`Statistics::steps`](crate::alloc::Statistics).
    pub const ALL: [Self; 7] = [
        Self::Draw,
        Self::Survey,
        Self::Hint,
        Self::Map32bit,
        Self::Arena,
        Self::FirstFit,
        Self::Fixed,
    ];

    /// Whether the address was drawn uniformly from all that were possible.
    #[must_use]
    pub const fn is_uniform(self) -> bool {
        matches!(self, Self::Draw | Self::Survey | Self::Hint)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Draw => "draw",
            Self::Survey => "survey",
            Self::Hint => "hint",
            Self::Map32bit => "map_32bit",
            Self::Arena => "arena",
            Self::FirstFit => "first_fit",
            Self::Fixed => "fixed",
        })
    }
}

/// How an address was chosen, and how likely the likeliest one was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Certificate {
    /// At least this many bits for one who knows none of our live addresses: -log2 of the likeliest address.
    pub entropy_bits: f64,
    /// At least this many bits for one who knows all our other live addresses.
    pub conditional_bits: f64,
    /// The step that found the address.
    pub step: Step,
    /// Start addresses that were possible at that size and alignment, without our
    /// mappings and what the last survey showed taken.
    pub free_slots: u64,
    /// Whether `free_slots` was counted on a survey made for this very request.
    pub free_slots_exact: bool,
    /// Whether a seed given by the user decided: then both bit counts are 0.
    pub seeded: bool,
}

impl Certificate {
    /// The certificate of one of `candidates` slots of arenas, an address in the weakest of which has
    /// `arena_bits` for one who knows none of ours.
    pub(crate) fn of_slot(candidates: u64, arena_bits: f64, random: bool, seeded: bool) -> Self {
        let (conditional_bits, entropy_bits) = if random && !seeded {
            let conditional_bits = log2(candidates);
            (conditional_bits, arena_bits.max(conditional_bits))
        } else {
            (0.0, 0.0)
        };
        Self {
            entropy_bits,
            conditional_bits,
            step: Step::Arena,
            free_slots: candidates,
            free_slots_exact: true,
            seeded,
        }
    }

    /// The certificate of an address that `step` picked out of `free_slots`.
    pub(crate) fn of_pick(
        step: Step,
        free_slots: u64,
        log2: &mut Bits,
        exact: bool,
        seeded: bool,
    ) -> Self {
        let uniform = step.is_uniform() && !seeded;
        let bits = if uniform { log2.of(free_slots) } else { 0.0 };
        Self {
            entropy_bits: bits,
            conditional_bits: bits,
            step,
            free_slots,
            free_slots_exact: exact,
            seeded,
        }
    }
}

impl Certificate {
    /// Refuses an address that is easier to guess than by `minimum` bits.
    pub(crate) fn check(&self, minimum: f64) -> Result<(), AllocError> {
        if self.entropy_bits >= minimum {
            return Ok(());
        }
        Err(AllocError::EntropyTooLow {
            bits: self.entropy_bits,
            minimum,
            free_slots: self.free_slots,
            advice: "use randomized placement without a seed, or lower the minimum",
        })
    }
}

/// The logarithm of the count that was asked for last: as blocks come and go, it often is the next one too.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bits {
    count: u64,
    log2: f64,
}

impl Bits {
    pub(crate) fn of(&mut self, count: u64) -> f64 {
        if count != self.count {
            *self = Self {
                count,
                log2: log2(count),
            };
        }
        self.log2
    }
}

/// log2 of a count; 0 for none.
pub(crate) fn log2(count: u64) -> f64 {
    #[allow(
        clippy::cast_precision_loss,
        reason = "a count of slots is below 2^52; beyond, the error is under 2^-52 bits"
    )]
    let count = count.max(1) as f64;
    count.log2()
}
