//! `low2g entropy`: the randomness of addresses, measured, beside the limit and beside
//! `MAP_32BIT`.
//!
//! Over `processes`, each draw is of a fresh execution of this program (it runs itself with the
//! hidden option `--child`, whose output is a line `SOURCE ADDRESS STEP FREE_SLOTS` for each
//! source); over `live`, one process draws and frees again and again.

mod draw;
mod figures;
mod svg;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use super::args::{EntropyArgs, Over};
use super::{Failure, table};
use draw::{Drawer, Source};
use figures::Figures;

/// Draws of one source.
#[derive(Debug)]
pub(super) struct Measurement {
    source: Source,
    over: Over,
    addresses: Vec<u64>,
    steps: BTreeMap<String, u64>,
    figures: Figures,
}

/// Draws as they come in.
#[derive(Debug, Default)]
struct Draws {
    addresses: Vec<u64>,
    steps: BTreeMap<String, u64>,
    /// The fewest of any draw.
    free_slots: Option<u64>,
}

impl Draws {
    fn add(&mut self, addr: u64, step: String, free_slots: u64) {
        self.addresses.push(addr);
        *self.steps.entry(step).or_default() += 1;
        self.free_slots = Some(self.free_slots.unwrap_or(u64::MAX).min(free_slots));
    }

    fn finish(self, source: Source, over: Over) -> Measurement {
        let figures = figures::figures(&self.addresses, self.free_slots.unwrap_or(0));
        Measurement {
            source,
            over,
            addresses: self.addresses,
            steps: self.steps,
            figures,
        }
    }
}

pub(crate) fn entropy(args: &EntropyArgs) -> Result<(), Failure> {
    if args.child {
        return child(args);
    }
    let drawer = Drawer::new(args.size, args.placement, args.seed)?;
    let align = drawer.align()?;
    // Without --json, --addresses means those of processes unless --over says otherwise.
    let only = if args.addresses && !args.json {
        Some(args.over.unwrap_or(Over::Processes))
    } else {
        args.over
    };
    let mut measurements = Vec::new();
    for over in Over::ALL {
        if only.is_none_or(|only| only == over) {
            measurements.extend(match over {
                Over::Processes => over_processes(args)?,
                Over::Live => over_live(args, align)?,
            });
        }
    }
    if let Some(path) = &args.svg {
        std::fs::write(path, svg::picture(&measurements))
            .map_err(|error| Failure::Other(format!("cannot write {}: {error}", path.display())))?;
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", document(args, &drawer, align, &measurements))?;
    } else if args.addresses {
        let own = measurements
            .iter()
            .filter(|measurement| measurement.source == Source::Low2g);
        for addr in own.flat_map(|measurement| &measurement.addresses) {
            writeln!(out, "{addr:#x}")?;
        }
    } else {
        write!(out, "{}", text(args, &drawer, &measurements))?;
    }
    Ok(())
}

/// One process holds LIVE blocks, and draws and frees one more again and again.
fn over_live(args: &EntropyArgs, align: u64) -> Result<Vec<Measurement>, Failure> {
    let mut measurements = Vec::new();
    for source in Source::ALL {
        let drawer = Drawer::new(args.size, args.placement, args.seed)?;
        let held = drawer.hold(source, args.live)?;
        let free_slots = drawer.free_slots(source, align)?;
        let mut draws = Draws::default();
        for _ in 0..args.runs {
            let Some(draw) = drawer.draw(source)? else {
                break;
            };
            draws.add(draw.addr, draw.step.to_string(), free_slots);
        }
        drop(held);
        measurements.push(draws.finish(source, Over::Live));
    }
    Ok(measurements)
}

/// Each draw is of a fresh execution that holds LIVE blocks.
fn over_processes(args: &EntropyArgs) -> Result<Vec<Measurement>, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::Other(format!("cannot find this program: {error}")))?;
    let mut draws = Source::ALL.map(|_| Draws::default());
    for _ in 0..args.runs {
        let mut command = Command::new(&program);
        command.args(["entropy", "--child"]);
        command.arg("--size").arg(args.size.to_string());
        command.arg("--live").arg(args.live.to_string());
        command.arg("--placement").arg(args.placement.to_string());
        if let Some(seed) = args.seed {
            command.arg("--seed").arg(seed.to_string());
        }
        let output = command
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| {
                Failure::Other(format!("cannot run {}: {error}", program.display()))
            })?;
        if !output.status.success() {
            // It said why itself, unless a signal ended it.
            return Err(
                match output
                    .status
                    .code()
                    .and_then(|code| u8::try_from(code).ok())
                {
                    Some(code) => Failure::Silent(code),
                    None => Failure::Other(format!("a run ended by {}", output.status)),
                },
            );
        }
        let text = String::from_utf8_lossy(&output.stdout);
        for line in text.lines() {
            let (source, addr, step, free_slots) =
                parse(line).ok_or_else(|| Failure::Other(format!("a run printed '{line}'")))?;
            let index = usize::from(source == Source::Map32bit);
            draws[index].add(addr, step, free_slots);
        }
    }
    let measurements = Source::ALL.into_iter().zip(draws);
    Ok(measurements
        .map(|(source, draws)| draws.finish(source, Over::Processes))
        .collect())
}

/// What one fresh execution does: `MAP_32BIT` after all of ours is given back.
fn child(args: &EntropyArgs) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    for source in Source::ALL {
        let drawer = Drawer::new(args.size, args.placement, args.seed)?;
        let align = drawer.align()?;
        // The probe for the alignment must not use up a seed's first number.
        let drawer = Drawer::new(args.size, args.placement, args.seed)?;
        let held = drawer.hold(source, args.live)?;
        if let Some(draw) = drawer.draw(source)? {
            let (addr, step) = (draw.addr, draw.step);
            drop(draw);
            let free_slots = drawer.free_slots(source, align)?;
            writeln!(out, "{} {addr:#x} {step} {free_slots}", source.name())?;
        }
        drop(held);
    }
    Ok(())
}

/// A line of a child.
fn parse(line: &str) -> Option<(Source, u64, String, u64)> {
    let mut words = line.split(' ');
    let name = words.next()?;
    let source = Source::ALL
        .into_iter()
        .find(|source| source.name() == name)?;
    let addr = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
    let step = words.next()?.to_owned();
    let free_slots = words.next()?.parse().ok()?;
    Some((source, addr, step, free_slots))
}

fn document(
    args: &EntropyArgs,
    drawer: &Drawer,
    align: u64,
    measurements: &[Measurement],
) -> serde_json::Value {
    let one = |measurement: &Measurement| {
        let figures = &measurement.figures;
        let mut value = serde_json::json!({
            "source": measurement.source.name(),
            "over": measurement.over.name(),
            "draws": figures.draws,
            "distinct": figures.distinct,
            "colliding_pairs": figures.colliding_pairs,
            "renyi2_bits": figures.renyi2_bits,
            "min_entropy_bits": figures.min_entropy_bits,
            "free_slots": figures.free_slots,
            "limit_bits": figures.limit_bits,
            "steps": measurement.steps,
        });
        if args.addresses {
            let addresses = measurement.addresses.iter();
            value["addresses"] = addresses.map(|addr| format!("{addr:#x}")).collect();
        }
        value
    };
    let window = drawer.window();
    serde_json::json!({
        "format": "low2g-entropy/1",
        "window": {
            "start": format!("{:#x}", window.start()),
            "end": format!("{:#x}", window.end()),
        },
        "page_size": drawer.page_size(),
        "size": args.size,
        "align": align,
        "runs": args.runs,
        "live": args.live,
        "placement": args.placement.to_string(),
        "seed": args.seed,
        "measurements": measurements.iter().map(one).collect::<Vec<_>>(),
    })
}

fn text(args: &EntropyArgs, drawer: &Drawer, measurements: &[Measurement]) -> String {
    use std::fmt::Write as _;
    let mut text = format!(
        "{} blocks, {} live, placement {}, window {}\n",
        table::bytes(args.size),
        args.live,
        args.placement,
        drawer.window()
    );
    text.push_str(
        "source     over          draws  distinct     pairs  renyi-2  min-entropy    limit  steps\n",
    );
    for measurement in measurements {
        let figures = &measurement.figures;
        let bits = |bits: Option<f64>| bits.map_or("-".to_owned(), |bits| format!("{bits:.2}"));
        let renyi = match figures.least_renyi2_bits() {
            Some(least) => format!(">{least:.1}"),
            None => bits(figures.renyi2_bits),
        };
        let steps: Vec<String> = measurement
            .steps
            .iter()
            .map(|(step, count)| format!("{step} {count}"))
            .collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:<10} {:<10} {:>8}  {:>8}  {:>8}  {renyi:>7}  {:>11}  {:>7}  {}",
            measurement.source.name(),
            measurement.over.name(),
            figures.draws,
            figures.distinct,
            figures.colliding_pairs,
            bits(figures.min_entropy_bits),
            bits(figures.limit_bits),
            steps.join(", ")
        );
    }
    let unresolved = measurements.iter().filter(|measurement| {
        measurement.source == Source::Low2g && measurement.figures.renyi2_bits.is_none()
    });
    if let Some(runs) = unresolved
        .map(|measurement| measurement.figures.draws_to_resolve())
        .max()
    {
        let _ = writeln!(
            text,
            "> : fewer than 10 pairs of equal addresses came up; --runs {runs} would show them"
        );
    }
    text
}
