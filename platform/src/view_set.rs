//! Which ranges are views of shared pages, for systems whose map does not tell.

use crate::range::AddrRange;
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// The views of a backend, start to end; they never overlap.
#[derive(Debug, Default)]
pub(crate) struct ViewSet {
    views: Mutex<BTreeMap<u64, u64>>,
}

impl ViewSet {
    /// `range` was just mapped as a view.
    pub(crate) fn add(&self, range: AddrRange) {
        self.views.lock().insert(range.start(), range.end());
    }

    /// Whether (part of) `range` is a view.
    pub(crate) fn touches(&self, range: AddrRange) -> bool {
        let views = self.views.lock();
        let before = views.range(..range.end()).next_back();
        before.is_some_and(|(_, &end)| end > range.start())
    }

    /// Forgets the views in `range` if `unmap` succeeds. Others wait meanwhile: whoever gets the
    /// addresses next adds its views after these are forgotten.
    pub(crate) fn release<E>(
        &self,
        range: AddrRange,
        unmap: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let mut views = self.views.lock();
        unmap()?;
        forget(&mut views, range);
        Ok(())
    }
}

fn forget(views: &mut BTreeMap<u64, u64>, range: AddrRange) {
    let overlapping: Vec<(u64, u64)> = views
        .range(..range.end())
        .rev()
        .take_while(|&(_, &end)| end > range.start())
        .map(|(&start, &end)| (start, end))
        .collect();
    for (start, end) in overlapping {
        views.remove(&start);
        if start < range.start() {
            views.insert(start, range.start());
        }
        if end > range.end() {
            views.insert(range.end(), end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> AddrRange {
        AddrRange::new(start, end).expect("in order")
    }

    #[test]
    fn parts_go_and_the_rest_stays() {
        let set = ViewSet::default();
        set.add(range(10, 20));
        set.add(range(20, 30));
        assert!(set.touches(range(0, 11)) && !set.touches(range(0, 10)));
        set.release(range(15, 25), || Err(())).expect_err("refused");
        assert!(set.touches(range(15, 25)));
        set.release(range(12, 25), || Ok::<(), ()>(()))
            .expect("gone");
        assert!(!set.touches(range(12, 25)));
        assert!(set.touches(range(11, 12)) && set.touches(range(25, 26)));
        assert!(!set.touches(range(30, 40)));
    }
}
