//! The random numbers that placement draws: a ChaCha stream seeded by the system.
//!
//! Invariant: after fork, parent and child never draw from the same stream. A
//! user's seed is the exception, because it asks for repetition.

use low2g_platform::{Platform, to_usize};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

/// A CSPRNG that knows the process it was seeded in.
#[derive(Debug)]
pub struct Random {
    stream: ChaCha12Rng,
    /// Process that seeded the stream (`Platform::process`); `None` if the user gave the seed.
    owner: Option<u64>,
}

impl Random {
    /// A stream from the system's randomness, or the one that `seed` names.
    pub(crate) fn new(platform: &dyn Platform, seed: Option<u64>) -> Self {
        match seed {
            Some(seed) => Self {
                stream: ChaCha12Rng::seed_from_u64(seed),
                owner: None,
            },
            None => Self {
                stream: fresh(platform),
                owner: Some(platform.process()),
            },
        }
    }

    /// Takes a new seed if this process is a fork of the one that seeded the stream.
    pub(crate) fn check_fork(&mut self, platform: &dyn Platform) {
        if let Some(owner) = self.owner {
            let process = platform.process();
            if owner != process {
                self.stream = fresh(platform);
                self.owner = Some(process);
            }
        }
    }

    /// The stream numbered `number` of the same seed: as unrelated to this one as another seed's
    /// (ChaCha's nonce), and drawing it costs no system call.
    pub(crate) fn derive(&self, number: u64) -> Self {
        let mut stream = ChaCha12Rng::from_seed(self.stream.get_seed());
        stream.set_stream(number + 1);
        Self {
            stream,
            owner: self.owner,
        }
    }

    /// A uniform number below `bound`; 0 if `bound` is 0 or 1.
    #[inline]
    pub(crate) fn below_u32(&mut self, bound: u32) -> u32 {
        if bound <= 1 {
            return 0;
        }
        self.stream.random_range(0..bound)
    }

    /// A uniform index below `len`, of this process's own stream; `None` if `len` is 0.
    #[inline(always)]
    pub(crate) fn index_below(&mut self, len: usize, platform: &dyn Platform) -> Option<usize> {
        self.check_fork(platform);
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        (len > 0).then(|| to_usize(self.below_u32(len).into()))
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

/// A stream seeded by the system.
fn fresh(platform: &dyn Platform) -> ChaCha12Rng {
    let mut seed = [0; 32];
    platform.random(&mut seed);
    ChaCha12Rng::from_seed(seed)
}
