//! The random numbers that placement draws: a ChaCha stream seeded by the system.
//!
//! Invariant: after fork, parent and child never draw from the same stream. A
//! user's seed is the exception, because it asks for repetition.

use std::sync::atomic::{AtomicU64, Ordering};

use low2g_platform::{Platform, to_usize};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

/// A word that holds what it held here in this process only; or never, if the system has none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessMark {
    word: &'static AtomicU64,
    here: u64,
}

impl ProcessMark {
    /// Of this process, as `Platform::process` gave it.
    fn of(process: u64, platform: &dyn Platform) -> Self {
        static NO_WORD: AtomicU64 = AtomicU64::new(0);
        match platform.process_word() {
            Some(word) => Self {
                word,
                here: process,
            },
            None => Self {
                word: &NO_WORD,
                here: 1,
            },
        }
    }

    /// Of all processes.
    pub(crate) fn of_all() -> Self {
        static SAME: AtomicU64 = AtomicU64::new(0);
        Self {
            word: &SAME,
            here: 0,
        }
    }

    /// Whether this may be a fork of the process that it was made in.
    #[inline(always)]
    pub(crate) fn may_be_inherited(&self) -> bool {
        self.word.load(Ordering::Relaxed) != self.here
    }
}

/// A CSPRNG that knows the process it was seeded in.
#[derive(Debug)]
pub struct Random {
    stream: ChaCha12Rng,
    /// Process that seeded the stream (`Platform::process`); `None` if the user gave the seed.
    owner: Option<u64>,
    mark: ProcessMark,
}

impl Random {
    /// A stream from the system's randomness, or the one that `seed` names.
    pub(crate) fn new(platform: &dyn Platform, seed: Option<u64>) -> Self {
        if let Some(seed) = seed {
            return Self {
                stream: ChaCha12Rng::seed_from_u64(seed),
                owner: None,
                mark: ProcessMark::of_all(),
            };
        }
        let mut seed = [0; 32];
        platform.random(&mut seed);
        let process = platform.process();
        Self {
            stream: ChaCha12Rng::from_seed(seed),
            owner: Some(process),
            mark: ProcessMark::of(process, platform),
        }
    }

    /// What tells that the stream may be that of the process that this one is a fork of.
    pub(crate) fn mark(&self) -> ProcessMark {
        self.mark
    }

    /// Whether the stream is that of the process that this one is a fork of.
    #[inline]
    pub(crate) fn is_inherited(&self, platform: &dyn Platform) -> bool {
        let Some(owner) = self.owner else {
            return false;
        };
        self.mark.may_be_inherited() && owner != platform.process()
    }

    /// Takes a new seed if this process is a fork of the one that seeded the stream.
    #[inline]
    pub(crate) fn check_fork(&mut self, platform: &dyn Platform) {
        if self.is_inherited(platform) {
            *self = Self::new(platform, None);
        }
    }

    /// The stream numbered `number` of the same seed: as unrelated to this one as another seed's
    /// (ChaCha's nonce), and drawing it costs no system call.
    pub(crate) fn derive(&self, number: u64) -> Self {
        let mut stream = ChaCha12Rng::from_seed(self.stream.get_seed());
        stream.set_stream(number + 1);
        Self { stream, ..*self }
    }

    /// A uniform number below `bound`; 0 if `bound` is 0 or 1.
    #[inline]
    pub(crate) fn below_u32(&mut self, bound: u32) -> u32 {
        if bound <= 1 {
            return 0;
        }
        self.stream.random_range(0..bound)
    }

    /// A uniform index below `len`; 0 if `len` is 0.
    #[inline(always)]
    pub(crate) fn index_below(&mut self, len: usize) -> usize {
        to_usize(
            self.below_u32(u32::try_from(len).unwrap_or(u32::MAX))
                .into(),
        )
    }

    /// Whether a user's seed decides what is drawn.
    #[must_use]
    pub fn is_seeded(&self) -> bool {
        self.owner.is_none()
    }

    /// A uniform number below `bound`; 0 if `bound` is 0 or 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound <= 1 {
            return 0;
        }
        self.stream.random_range(0..bound)
    }
}
