//! Numbers for the tests inside of this crate.

/// Numbers below a bound, the same ones for the same `seed`.
pub(crate) fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut number = seed;
    move |bound| {
        number = number
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (number >> 33) % bound
    }
}

/// Rounds of a test: fewer under Miri, which takes a thousand times as long for each.
pub(crate) fn rounds(count: u64) -> u64 {
    if cfg!(miri) { count / 100 } else { count }
}
