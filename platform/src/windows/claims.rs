//! Which reservations and views this backend holds: `MEM_RELEASE` and `UnmapViewOfFile` take
//! whole ones only, and `VirtualProtect` none that spans two.
//!
//! Invariant: a claim is listed from just after it is made until just before others may get its
//! addresses: whoever gets those next is listed after it is gone.

use crate::range::AddrRange;
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// What a claim is to the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A reservation of `VirtualAlloc`.
    Private,
    /// A view of a section.
    View,
}

#[derive(Debug)]
struct Claim {
    end: u64,
    kind: Kind,
    /// Parts that were released already, start to end, not overlapping.
    gone: BTreeMap<u64, u64>,
}

/// The claims of a backend by their start; they never overlap.
#[derive(Debug, Default)]
pub(super) struct Claims {
    claims: Mutex<BTreeMap<u64, Claim>>,
}

/// What a release must do to (part of) one claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Release {
    /// Its last part goes: the claim that begins here is given back.
    Whole(Kind, AddrRange),
    /// Others stay: the pages lose access and memory.
    Part(Kind, AddrRange),
}

impl Claims {
    /// `range` was just claimed.
    pub(super) fn add(&self, range: AddrRange, kind: Kind) {
        let claim = Claim {
            end: range.end(),
            kind,
            gone: BTreeMap::new(),
        };
        self.claims.lock().insert(range.start(), claim);
    }

    /// The parts of `range` by claim, ascending.
    pub(super) fn parts(&self, range: AddrRange) -> Vec<(AddrRange, Kind)> {
        let claims = self.claims.lock();
        let whole = overlapping(&claims, range);
        let part = |(claim, kind): (AddrRange, Kind)| Some((claim.intersection(range)?, kind));
        whole.into_iter().filter_map(part).collect()
    }

    /// Releases `range` claim by claim with `free`, and stops at what it refuses.
    pub(super) fn release<E>(
        &self,
        range: AddrRange,
        free: impl Fn(Release) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut claims = self.claims.lock();
        for (whole, kind) in overlapping(&claims, range) {
            let part = whole.intersection(range).expect("it overlaps");
            let claim = claims.get_mut(&whole.start()).expect("just listed");
            let gone: u64 = claim.gone.iter().map(|(start, end)| end - start).sum();
            if gone + part.len() >= whole.len() {
                free(Release::Whole(kind, whole))?;
                claims.remove(&whole.start());
            } else {
                free(Release::Part(kind, part))?;
                claim.gone.insert(part.start(), part.end());
            }
        }
        Ok(())
    }
}

fn overlapping(claims: &BTreeMap<u64, Claim>, range: AddrRange) -> Vec<(AddrRange, Kind)> {
    let mut found: Vec<_> = claims
        .range(..range.end())
        .rev()
        .take_while(|(_, claim)| claim.end > range.start())
        .filter_map(|(&start, claim)| Some((AddrRange::new(start, claim.end)?, claim.kind)))
        .collect();
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    fn range(start: u64, end: u64) -> AddrRange {
        AddrRange::new(start, end).expect("in order")
    }

    #[test]
    fn a_claim_goes_with_its_last_part() {
        let claims = Claims::default();
        claims.add(range(10, 20), Kind::Private);
        claims.add(range(20, 30), Kind::View);
        let asked = RefCell::new(Vec::new());
        let note = |release| {
            asked.borrow_mut().push(release);
            Ok::<(), ()>(())
        };
        claims.release(range(15, 25), note).expect("noted");
        claims
            .release(range(10, 15), |_| Err(()))
            .expect_err("refused");
        claims.release(range(10, 15), note).expect("noted");
        claims.release(range(25, 30), note).expect("noted");
        let expected = [
            Release::Part(Kind::Private, range(15, 20)),
            Release::Part(Kind::View, range(20, 25)),
            Release::Whole(Kind::Private, range(10, 20)),
            Release::Whole(Kind::View, range(20, 30)),
        ];
        assert_eq!(*asked.borrow(), expected);
        assert_eq!(claims.parts(range(0, 100)), []);
    }

    #[test]
    fn parts_are_by_claim() {
        let claims = Claims::default();
        claims.add(range(10, 20), Kind::Private);
        claims.add(range(20, 30), Kind::Private);
        let parts = claims.parts(range(12, 22));
        let expected = [
            (range(12, 20), Kind::Private),
            (range(20, 22), Kind::Private),
        ];
        assert_eq!(parts, expected);
    }
}
