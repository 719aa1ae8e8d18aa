//! A small generator of random numbers, so that a printed seed replays on every machine.

/// `splitmix64` (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(u64::try_from(len).expect("usize fits"))).expect("below len")
    }

    pub(crate) fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.index(list.len())]
    }

    /// True once in `n`.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.byte()).collect()
    }
}

/// The seed of this run: `LOW2G_SEED`, or one drawn from the clock; printed, so that a failure
/// shows how to repeat it.
pub(crate) fn seed() -> u64 {
    let seed = match std::env::var("LOW2G_SEED") {
        Ok(text) => text.parse().expect("LOW2G_SEED is a decimal number"),
        Err(_) => u64::from(
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .expect("the clock is past 1970")
                .subsec_nanos(),
        ),
    };
    eprintln!("seed {seed} (LOW2G_SEED={seed} replays)");
    seed
}

/// Changes a few bytes: bits, random bytes, numbers of special meaning.
pub(crate) fn mutate(rng: &mut Rng, bytes: &mut [u8]) -> String {
    const SPECIAL: [u64; 10] = [
        0,
        1,
        0xff,
        0xffff,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        1 << 40,
        i64::MAX.cast_unsigned(),
        u64::MAX,
    ];
    let mut log = String::new();
    for _ in 0..=rng.below(3) {
        let at = rng.index(bytes.len());
        match rng.below(4) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = rng.byte(),
            2 => {
                let value = rng.pick(&SPECIAL).to_le_bytes();
                let width = rng.pick(&[1usize, 2, 4, 8]).min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&value[..width]);
            }
            _ => {
                // Aligned fields of headers and tables are where the meaning is.
                let at = at & !7;
                let width = 8.min(bytes.len() - at);
                let value = rng.pick(&SPECIAL).to_le_bytes();
                bytes[at..at + width].copy_from_slice(&value[..width]);
            }
        }
        log.push_str(&format!(" {at:#x}"));
    }
    log
}
