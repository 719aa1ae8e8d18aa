//! `low2g demo`: needs no compiler and no file.

use std::collections::HashSet;
use std::io::Write as _;
use std::path::PathBuf;

use low2g::alloc::LowAllocator;
use low2g::link::report::{RelocationRow, Report};
use low2g::link::{Arguments, Input, Link, LinkOptions, Linked, ProcessSymbols};
use low2g::place::Placer;

use super::args::DemoArgs;
use super::{Failure, map, table};

/// The embedded object; its source and the command that made it stand beside it.
const OBJECT: &[u8] = include_bytes!("demo/demo.o");

/// How many relocations of each type are shown.
const SHOWN: usize = 2;

pub(crate) fn demo(args: &DemoArgs) -> Result<(), Failure> {
    let allocator = LowAllocator::builder().seed(args.seed).build()?;
    let inputs = [Input::from_bytes("demo.o", OBJECT)];
    let options = LinkOptions {
        record: true,
        ..LinkOptions::default()
    };
    let process = ProcessSymbols::new();
    let mut out = std::io::stdout().lock();

    writeln!(out, "The low 2 GiB of this process before:")?;
    write!(out, "{}", map::picture(&map::own(&allocator)?))?;

    let linked = link(&inputs, &options, &process, &allocator)?;
    writeln!(
        out,
        "\ndemo.o ({} bytes, small code model, not PIC) placed and relocated:",
        OBJECT.len()
    )?;
    write!(out, "{}", table::sections(&linked))?;
    let report = Report::of(&linked)?;
    writeln!(
        out,
        "\nSome of its {} relocations, read back from memory:",
        report.relocations.len()
    )?;
    for row in pick(&report.relocations) {
        writeln!(out, "{}", describe(row))?;
    }
    writeln!(out, "\nThe low 2 GiB after:")?;
    let mut rows = map::own(&allocator)?;
    map::name_sections(&mut rows, &linked.sections());
    write!(out, "{}", map::picture(&rows))?;

    let second = link(&inputs, &options, &process, &allocator)?;
    writeln!(out, "\nThe same object placed once more lands elsewhere:")?;
    let moved = compare(&mut out, &linked, &second)?;
    drop(second);

    writeln!(out, "\nNow its main() runs:")?;
    out.flush()?;
    let module = linked.into_module();
    let arguments = Arguments::new([PathBuf::from("demo.o")
        .into_os_string()
        .into_encoded_bytes()])
    .map_err(|_| Failure::Other("the demo's own name holds a NUL byte".to_owned()))?;
    // SAFETY: demo.o (demo.c beside this file) has a C main and no constructors.
    let result = unsafe { module.call_main("main", &arguments) };
    match (result, moved) {
        (Some(0), true) => {
            writeln!(
                out,
                "main returned 0: every 32-bit address in it was right."
            )?;
            Ok(())
        }
        (Some(0), false) if args.seed.is_some() => Ok(()),
        (Some(0), false) => Err(Failure::Other(
            "the second placement took the addresses of the first".to_owned(),
        )),
        (code, _) => Err(Failure::Other(format!(
            "demo.o's main returned {code:?}, not 0"
        ))),
    }
}

fn link<'d>(
    inputs: &'d [Input],
    options: &'d LinkOptions,
    process: &ProcessSymbols,
    allocator: &LowAllocator,
) -> Result<Linked<'d>, Failure> {
    let placer = Placer::Mapped {
        allocator: allocator.clone(),
        reach: None,
        min_entropy: None,
    };
    let mut link = Link::read(inputs, options)?;
    link.resolve(process);
    Ok(link.place(&placer)?.relocate()?.protect()?)
}

/// A few of each kind: absolute ones first, then what is far.
fn pick(rows: &[RelocationRow]) -> Vec<&RelocationRow> {
    let mut seen = HashSet::new();
    let mut picked = Vec::new();
    let wanted: [fn(&RelocationRow) -> bool; 4] = [
        |row| row.r_type == "R_X86_64_32",
        |row| row.r_type == "R_X86_64_32S",
        |row| row.action == "stub",
        |row| row.action == "island",
    ];
    for wants in wanted {
        let fresh = |row: &&RelocationRow| wants(row) && seen.insert(row.symbol.clone());
        picked.extend(rows.iter().filter(fresh).take(SHOWN));
        seen.clear();
    }
    picked
}

fn describe(row: &RelocationRow) -> String {
    let fits = match (row.r_type.as_str(), row.action) {
        (_, "stub") => "far function: through a stub in reach",
        (_, "island") => "far data: the instruction moved to an island that has the 64-bit address",
        ("R_X86_64_32", _) => "fits 32 bits, zero-extended",
        _ => "fits 32 bits, sign-extended",
    };
    let addend = match row.addend {
        0 => String::new(),
        addend if addend < 0 => format!(" - {}", -addend),
        addend => format!(" + {addend}"),
    };
    format!(
        "  {:<14} {:<22} S = {:<14} at {:<11} value {:<11} {fits}",
        row.r_type,
        format!("{}{addend}", row.symbol),
        row.s,
        row.place,
        row.value
    )
}

/// Shows both placements; whether any section moved.
fn compare(
    out: &mut impl std::io::Write,
    first: &Linked<'_>,
    second: &Linked<'_>,
) -> Result<bool, Failure> {
    let mut moved = false;
    for (old, new) in first.sections().iter().zip(second.sections()) {
        if old.size > 0 && old.region.is_some() {
            moved |= old.addr != new.addr;
            writeln!(
                out,
                "  {:<22} {:#010x} -> {:#010x}",
                old.section, old.addr, new.addr
            )?;
        }
    }
    Ok(moved)
}
