//! Sections at given addresses: pages are claimed exactly, sections may share
//! pages only if their access is the same.

use low2g_platform::{AddrRange, align_down, align_up};

use super::error::PlaceError;
use super::request::{SectionKind, SectionRequest};

/// Whole pages that hold sections with given addresses.
#[derive(Debug)]
pub(super) struct FixedRun {
    pub(super) range: AddrRange,
    pub(super) kind: SectionKind,
    pub(super) zero_fill: bool,
    /// Request index and offset from the run's start in bytes.
    pub(super) members: Vec<(usize, u64)>,
}

/// The runs of pages that `requests` with addresses need, ascending.
/// With `page` 1 (a dry run) every section is a run of its own.
pub(super) fn runs(requests: &[SectionRequest], page: u64) -> Result<Vec<FixedRun>, PlaceError> {
    let mut placed: Vec<(usize, AddrRange)> = Vec::new();
    for (index, request) in requests.iter().enumerate() {
        let Some(at) = request.at else { continue };
        if !at.is_multiple_of(request.align) {
            return Err(PlaceError::Misaligned {
                index,
                at,
                align: request.align,
            });
        }
        let range = AddrRange::at(at, request.size).ok_or(PlaceError::TooBig {
            index,
            at,
            size: request.size,
        })?;
        if request.size > 0 {
            placed.push((index, range));
        }
    }
    placed.sort_by_key(|(_, range)| range.start());
    for pair in placed.windows(2) {
        if pair[0].1.overlaps(pair[1].1) {
            return Err(PlaceError::Overlap {
                index: pair[1].0,
                range: pair[1].1,
                other: pair[0].1,
            });
        }
    }
    let mut runs: Vec<FixedRun> = Vec::new();
    for (index, range) in placed {
        let request = &requests[index];
        let too_big = || PlaceError::TooBig {
            index,
            at: range.start(),
            size: request.size,
        };
        let start = align_down(range.start(), page);
        let end = align_up(range.end(), page).ok_or_else(too_big)?;
        let shares = runs.last().is_some_and(|run| start < run.range.end());
        if shares && let Some(run) = runs.last_mut() {
            if run.kind != request.kind {
                return Err(PlaceError::SharedPage {
                    index,
                    range,
                    first: run.kind.access(),
                    second: request.kind.access(),
                    page_size: page,
                });
            }
            let whole = AddrRange::new(run.range.start(), end.max(run.range.end()));
            run.range = whole.ok_or_else(too_big)?;
            run.zero_fill &= request.zero_fill;
            run.members.push((index, range.start() - run.range.start()));
        } else {
            runs.push(FixedRun {
                range: AddrRange::new(start, end).ok_or_else(too_big)?,
                kind: request.kind,
                zero_fill: request.zero_fill,
                members: vec![(index, range.start() - start)],
            });
        }
    }
    Ok(runs)
}
