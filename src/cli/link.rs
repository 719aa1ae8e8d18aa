//! `low2g link`: load, run nothing, tell what came out.

use std::io::Write as _;

use low2g::link::report::Report;

use super::args::LinkArgs;
use super::setup::Setup;
use super::{Failure, link_code, table, time};

pub(crate) fn link(args: &LinkArgs) -> Result<(), Failure> {
    match link_once(args) {
        Err(Failure::Link(failure)) if args.json => {
            print_json(&Report::of_failure(&failure))?;
            Err(Failure::Silent(link_code(&failure)))
        }
        Err(failure) if args.json && failure.has_row() => {
            let kind = if matches!(failure, Failure::NoLowMemory(_)) {
                "memory"
            } else {
                "input"
            };
            print_json(&Report::of_message(kind, &failure.to_string()))?;
            Err(Failure::Silent(failure.code()))
        }
        result => result,
    }
}

fn link_once(args: &LinkArgs) -> Result<(), Failure> {
    let mut setup = Setup::for_link(args)?;
    let inputs = setup.read(&args.common.files)?;
    let timing = match args.common.time {
        true => Some(time::measure(&setup, &inputs, args.common.repeat)?),
        false => None,
    };
    let linked = setup.link(&inputs)?;
    if args.json {
        let mut report = Report::of(&linked)?;
        report.time = timing.as_ref().map(time::Timing::json);
        return print_json(&report);
    }
    let mut out = std::io::stdout().lock();
    write!(out, "{}", table::sections(&linked))?;
    if let Some(timing) = timing {
        write!(out, "\n{timing}")?;
    }
    Ok(())
}

fn print_json(report: &Report) -> Result<(), Failure> {
    let mut out = std::io::BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
    serde_json::to_writer(&mut out, report).map_err(std::io::Error::from)?;
    writeln!(out)?;
    out.flush()?;
    Ok(())
}
