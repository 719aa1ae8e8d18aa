//! `--time`: medians of each phase over repeated links, from object bytes in memory to
//! executable memory.

use std::fmt;
use std::time::{Duration, Instant};

use low2g::link::{Input, Phases};

use super::Failure;
use super::setup::Setup;

/// Measured links.
#[derive(Debug)]
pub(crate) struct Timing {
    totals: Vec<Duration>,
    phases: Vec<Phases>,
}

const NAMES: [&str; 6] = ["read", "resolve", "place", "copy", "relocate", "protect"];

const fn durations(phases: &Phases) -> [Duration; 6] {
    [
        phases.read,
        phases.resolve,
        phases.place,
        phases.copy,
        phases.relocate,
        phases.protect,
    ]
}

/// Links `inputs` `repeat` times and drops every result.
pub(crate) fn measure(setup: &Setup, inputs: &[Input], repeat: u32) -> Result<Timing, Failure> {
    let mut timing = Timing {
        totals: Vec::new(),
        phases: Vec::new(),
    };
    for _ in 0..repeat {
        let start = Instant::now();
        let linked = setup.link(inputs)?;
        timing.totals.push(start.elapsed());
        timing.phases.push(*linked.phases());
    }
    Ok(timing)
}

fn median(mut values: Vec<Duration>) -> u128 {
    values.sort_unstable();
    values.get(values.len() / 2).map_or(0, Duration::as_nanos)
}

impl Timing {
    fn phase_medians(&self) -> [u128; 6] {
        std::array::from_fn(|phase| {
            median(
                self.phases
                    .iter()
                    .map(|all| durations(all)[phase])
                    .collect(),
            )
        })
    }

    fn min_total(&self) -> u128 {
        self.totals.iter().min().map_or(0, Duration::as_nanos)
    }

    /// The dump's "time".
    pub(crate) fn json(&self) -> serde_json::Value {
        let number = |value: u128| u64::try_from(value).unwrap_or(u64::MAX);
        let phases: serde_json::Map<_, _> = NAMES
            .iter()
            .zip(self.phase_medians())
            .map(|(name, value)| ((*name).to_owned(), number(value).into()))
            .collect();
        serde_json::json!({
            "repeat": self.totals.len(),
            "total_ns": {"median": number(median(self.totals.clone())), "min": number(self.min_total())},
            "phases_ns": phases,
        })
    }
}

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "time in ns, median of {}:", self.totals.len())?;
        for (name, value) in NAMES.iter().zip(self.phase_medians()) {
            writeln!(f, "  {name:<9} {value:>12}")?;
        }
        writeln!(
            f,
            "  {:<9} {:>12}  (least {})",
            "total",
            median(self.totals.clone()),
            self.min_total()
        )
    }
}
