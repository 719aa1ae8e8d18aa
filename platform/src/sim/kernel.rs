//! What every simulated operating system has: an address space, randomness, planned failures.

use super::space::{Owner, SimMapping, Space};
use crate::range::AddrRange;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A failure to come.
#[derive(Clone, Debug)]
struct Fault {
    /// Only this call, or any.
    call: Option<&'static str>,
    /// Calls that still pass.
    after: u64,
    code: i32,
}

/// The part of a simulated kernel that no personality changes.
#[derive(Debug)]
pub struct SimKernel {
    pub(super) space: Space,
    rng: ChaCha8Rng,
    faults: Vec<Fault>,
    calls: u64,
}

impl SimKernel {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            space: Space::default(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            faults: Vec::new(),
            calls: 0,
        }
    }

    /// Counts a call; the code it must fail with, if one was planned.
    pub(super) fn enter(&mut self, call: &'static str) -> Result<(), i32> {
        self.calls += 1;
        let mut due = None;
        self.faults.retain_mut(|fault| {
            if fault.call.is_some_and(|only| only != call) {
                return true;
            }
            if due.is_none() && fault.after == 0 {
                due = Some(fault.code);
                return false;
            }
            fault.after = fault.after.saturating_sub(1);
            true
        });
        due.map_or(Ok(()), Err)
    }

    pub(super) fn plan(&mut self, call: Option<&'static str>, after: u64, code: i32) {
        self.faults.push(Fault { call, after, code });
    }

    pub(super) fn clear_faults(&mut self) {
        self.faults.clear();
    }

    pub(super) const fn calls(&self) -> u64 {
        self.calls
    }

    /// Uniform in `0..bound`; 0 if `bound` is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            0
        } else {
            self.rng.random_range(0..bound)
        }
    }

    pub(super) fn fill(&mut self, buffer: &mut [u8]) {
        self.rng.fill(buffer);
    }

    /// Somebody else in the process maps `range` if it is free; whether it was.
    pub(super) fn occupy(&mut self, range: AddrRange, prot: i32) -> bool {
        let free = self.space.is_free(range);
        if free {
            let mapping = SimMapping::private(range, prot, Owner::Process);
            self.space.insert(mapping);
        }
        free
    }

    /// In `per_mille` of 1,000 cases, another thread maps one of the units of a free `range`,
    /// `unit` bytes long, just before the backend does.
    pub(super) fn steal(&mut self, range: AddrRange, unit: u64, per_mille: u64, prot: i32) {
        let quicker = self.below(1000) < per_mille;
        if quicker && self.space.is_free(range) {
            let at = range.start() + self.below(range.len() / unit) * unit;
            let taken = AddrRange::at(at, unit).expect("within the range");
            self.occupy(taken, prot);
        }
    }
}
