//! What a list of addresses says about the randomness behind it.

use std::collections::BTreeMap;

/// Pairs of equal addresses below which their number says too little.
const PAIRS_NEEDED: u64 = 10;

/// Draws for each possible start that the likeliest address needs to stand out.
const DRAWS_PER_SLOT: u64 = 100;

/// Figures of one list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figures {
    pub(super) draws: u64,
    pub(super) distinct: u64,
    /// Pairs of draws with the same address.
    pub(super) colliding_pairs: u64,
    /// -log2 of the odds that two draws are equal; `None` under ten pairs.
    pub(super) renyi2_bits: Option<f64>,
    /// -log2 of the most frequent address's share; `None` under 100 draws for each start.
    pub(super) min_entropy_bits: Option<f64>,
    pub(super) free_slots: u64,
    /// log2 of the possible starts: what a uniform choice has; `None` if there are none.
    pub(super) limit_bits: Option<f64>,
}

/// The figures of `addresses`, drawn among `free_slots` starts.
pub(super) fn figures(addresses: &[u64], free_slots: u64) -> Figures {
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    for addr in addresses {
        *counts.entry(*addr).or_default() += 1;
    }
    let draws = addresses.len() as u64;
    let colliding_pairs = counts.values().map(|count| count * (count - 1) / 2).sum();
    let most = counts.values().copied().max();
    let enough = draws >= free_slots.saturating_mul(DRAWS_PER_SLOT);
    Figures {
        draws,
        distinct: counts.len() as u64,
        colliding_pairs,
        renyi2_bits: (colliding_pairs >= PAIRS_NEEDED).then(|| pair_bits(draws, colliding_pairs)),
        min_entropy_bits: most
            .filter(|_| enough)
            .map(|most| positive((draws as f64 / most as f64).log2())),
        free_slots,
        limit_bits: (free_slots > 0).then(|| (free_slots as f64).log2()),
    }
}

impl Figures {
    /// Bits below which ten pairs would have shown, if they did not.
    pub(super) fn least_renyi2_bits(&self) -> Option<f64> {
        let enough = self.draws > PAIRS_NEEDED && self.renyi2_bits.is_none();
        enough.then(|| pair_bits(self.draws, PAIRS_NEEDED))
    }

    /// Draws that a uniform choice needs for ten pairs, with some to spare.
    pub(super) fn draws_to_resolve(&self) -> u64 {
        // n^2 / (2 slots) = 30 pairs: under ten come less than once in 10^5 times.
        let draws = self.free_slots.saturating_mul(60).isqrt();
        draws.max(1).next_multiple_of(100)
    }
}

/// -log2(2 pairs / (n (n - 1)))
fn pair_bits(draws: u64, pairs: u64) -> f64 {
    let all = draws as f64 * (draws - 1) as f64 / 2.0;
    positive((all / pairs as f64).log2())
}

/// Without the sign of a zero.
fn positive(bits: f64) -> f64 {
    bits.max(0.0) + 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_no_bits() {
        let figures = figures(&[0x1000; 6], 1);
        assert_eq!((figures.distinct, figures.colliding_pairs), (1, 15));
        assert_eq!(figures.renyi2_bits, Some(0.0));
        assert_eq!(figures.min_entropy_bits, None, "6 draws are not 100 a slot");
        assert_eq!(figures.limit_bits, Some(0.0));
    }

    #[test]
    fn uniform_over_eight_has_three_bits() {
        let addresses: Vec<u64> = (0..8_000).map(|draw| draw % 8 * 0x1000).collect();
        let figures = figures(&addresses, 8);
        assert_eq!(figures.colliding_pairs, 8 * 1_000 * 999 / 2);
        let renyi = figures.renyi2_bits.expect("many pairs");
        assert!((renyi - 3.0).abs() < 0.01, "{renyi}");
        assert_eq!(figures.min_entropy_bits, Some(3.0));
        assert_eq!(figures.limit_bits, Some(3.0));
    }

    #[test]
    fn few_pairs_are_no_figure() {
        let mut addresses: Vec<u64> = (0..1_000).collect();
        addresses.extend(0..9);
        let nine = figures(&addresses, 1 << 19);
        assert_eq!((nine.colliding_pairs, nine.renyi2_bits), (9, None));
        assert!(nine.least_renyi2_bits().is_some_and(|bits| bits > 15.0));
        addresses.push(9);
        let ten = figures(&addresses, 1 << 19);
        // -log2(2 * 10 / (1010 * 1009))
        let bits = ten.renyi2_bits.expect("ten pairs");
        assert!((bits - 15.637).abs() < 0.001, "{bits}");
        assert_eq!(figures(&[], 0).limit_bits, None);
        assert_eq!(figures(&[], 0).least_renyi2_bits(), None);
    }
}
