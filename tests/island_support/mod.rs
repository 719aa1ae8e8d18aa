//! What the island tests share: a machine that runs single instructions, the comparison of
//! an instruction with its island, and the assembler's output.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of this module"
)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "addresses are split into 32-bit fields on purpose"
)]

pub mod assembled;
pub mod case;
pub mod machine;

/// SplitMix64: small, and the same on every run of one seed.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// From -`bound` up to and without `bound`.
    pub fn around(&mut self, bound: u64) -> i64 {
        self.below(2 * bound) as i64 - bound as i64
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let words = (0..len.div_ceil(8)).flat_map(|_| self.next().to_le_bytes());
        words.take(len).collect()
    }
}

/// The seed of a test: `LOW2G_SEED`, or one that is fixed; printed either way.
pub fn seed() -> u64 {
    let seed = std::env::var("LOW2G_SEED").map_or(0x10_2620, |s| s.parse().expect("LOW2G_SEED"));
    println!("LOW2G_SEED={seed}");
    seed
}
