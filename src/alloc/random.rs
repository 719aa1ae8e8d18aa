//! The random numbers that placement draws: a ChaCha stream seeded by the system.
//!
//! Invariant: after fork, parent and child never draw from the same stream. A
//! user's seed is the exception, because it asks for repetition.

use std::sync::atomic::{AtomicU64, Ordering};

use low2g_platform::{Platform, to_usize};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

/// A CSPRNG that knows the process it was seeded in.
#[derive(Debug)]
#[repr(C)]
pub struct Random {
    /// Process that seeded the stream (`Platform::process`); `None` if the user gave the seed.
    owner: Option<u64>,
    /// A word that holds `here` in that process only; or never, if the system has none.
    word: &'static AtomicU64,
    here: u64,
    stream: ChaCha12Rng,
}

impl Random {
    /// A stream from the system's randomness, or the one that `seed` names.
    pub(crate) fn new(platform: &dyn Platform, seed: Option<u64>) -> Self {
        static NO_WORD: AtomicU64 = AtomicU64::new(0);
        if let Some(seed) = seed {
            return Self {
                stream: ChaCha12Rng::seed_from_u64(seed),
                owner: None,
                word: &NO_WORD,
                here: 0,
            };
        }
        let mut seed = [0; 32];
        platform.random(&mut seed);
        let process = platform.process();
        let (word, here) = match platform.process_word() {
            Some(word) => (word, process),
            None => (&NO_WORD, 1),
        };
        Self {
            stream: ChaCha12Rng::from_seed(seed),
            owner: Some(process),
            word,
            here,
        }
    }

    /// Whether the stream may be that of the process that this one is a fork of: where the system has
    /// no word for it, always.
    #[inline(always)]
    pub(crate) fn may_be_inherited(&self) -> bool {
        self.word.load(Ordering::Relaxed) != self.here
    }

    /// Whether the stream is that of the process that this one is a fork of.
    #[inline]
    pub(crate) fn is_inherited(&self, platform: &dyn Platform) -> bool {
        let Some(owner) = self.owner else {
            return false;
        };
        self.may_be_inherited() && owner != platform.process()
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
