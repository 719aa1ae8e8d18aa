//! The command line: a contract with other programs (`docs/architecture.md`).

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use low2g::alloc::{Placement, Reach};
use low2g::link::{Debugger, FarData, Pin, Relax, parse_addr};
use low2g::place::CodeModel;

/// Memory below 2 GiB at random addresses, and small-model objects loaded there.
#[derive(Debug, Parser)]
#[command(name = "low2g", version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Load .o, .a and .c files, call the entry, exit with its result
    Run(RunArgs),
    /// Load without running anything; a table for people, --json for programs
    Link(LinkArgs),
    /// Show the low 2 GiB: what is free, what holds the rest
    Map(MapArgs),
    /// Tell what this system allows, and why low memory or W^X would fail here
    Doctor(DoctorArgs),
    /// Measure the randomness of addresses beside the limit and beside MAP_32BIT
    Entropy(EntropyArgs),
    /// The whole in one: an embedded object is placed, shown, relocated, run
    Demo(DemoArgs),
}

/// Options of run and link.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// Objects (.o), archives (.a), C sources (.c, compiled by cc)
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Function to call; archives are searched for it
    #[arg(long, value_name = "SYM", default_value = "main")]
    pub(crate) entry: String,
    /// Shared library to take symbols from, by path or soname (repeatable)
    #[arg(short = 'l', long = "lib", value_name = "NAME")]
    pub(crate) libraries: Vec<String>,
    /// Make the objects' symbols visible to dlsym and to libraries opened later
    #[arg(long)]
    pub(crate) export: bool,
    /// Take every member of archives
    #[arg(long)]
    pub(crate) whole_archive: bool,
    /// How addresses are chosen: randomized, first-fit or kernel
    #[arg(long, default_value = "randomized")]
    pub(crate) placement: Placement,
    /// Draw the same addresses again (0 bits of entropy)
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Draw an address for every code section alone (with -ffunction-sections: every function)
    #[arg(long)]
    pub(crate) scatter: bool,
    /// Where memory may lie: 2g, 2g-full, 4g, near:ADDR
    #[arg(long, default_value = "2g")]
    pub(crate) reach: Reach,
    /// Code model of the objects: small, medium or large
    #[arg(long, default_value = "small")]
    pub(crate) model: CodeModel,
    /// Relaxations of GOT loads: none, pcrel or all
    #[arg(long, default_value = "all")]
    pub(crate) relax: Relax,
    /// 32-bit references to far data: island or error
    #[arg(long, default_value = "island")]
    pub(crate) far_data: FarData,
    /// Tell debuggers of loaded code: traced (where one is attached), always or never
    #[arg(long, value_name = "WHEN", default_value = "traced")]
    pub(crate) debugger: Debugger,
    /// Refuse a placement with fewer bits of entropy
    #[arg(long, value_name = "BITS")]
    pub(crate) min_entropy: Option<f64>,
    /// Print the median time of each phase in nanoseconds
    #[arg(long)]
    pub(crate) time: bool,
    /// Link this many times for --time
    #[arg(long, value_name = "N", default_value_t = 1, requires = "time",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) repeat: u32,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Arguments for main, after the first FILE as argv[0]
    #[arg(last = true, value_name = "ARG")]
    pub(crate) arguments: Vec<std::ffi::OsString>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct LinkArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Print the dump (format low2g-dump/1)
    #[arg(long)]
    pub(crate) json: bool,
    /// Define an external symbol of unknown type (repeatable)
    #[arg(long, value_name = "NAME=ADDR", value_parser = parse_definition)]
    pub(crate) abs: Vec<(String, u64)>,
    /// Lay out what is not mapped elsewhere upward from here, in input order
    #[arg(long, value_name = "ADDR", value_parser = parse_addr)]
    pub(crate) base: Option<u64>,
    /// Put a section at an address (repeatable); FILE low2g has .got, .stubs, .islands, .mirrors
    #[arg(long, value_name = "FILE,SECTION=ADDR")]
    pub(crate) map_section: Vec<Pin>,
    /// Do not look symbols up in this process
    #[arg(long)]
    pub(crate) no_process_symbols: bool,
    /// Lay out at addresses that are not mapped, bytes kept in a buffer
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct MapArgs {
    /// Objects to place and show
    #[arg(value_name = "FILE", conflicts_with = "pid")]
    pub(crate) files: Vec<PathBuf>,
    /// Another process
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Print regions (format low2g-map/1)
    #[arg(long)]
    pub(crate) json: bool,
    /// Write the picture as SVG, besides what is printed
    #[arg(long, value_name = "OUT")]
    pub(crate) svg: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print checks (format low2g-doctor/1)
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct EntropyArgs {
    /// Bytes of a block
    #[arg(long, value_name = "N", default_value_t = 64 << 10,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) size: u64,
    /// Blocks drawn for each measurement
    #[arg(long, value_name = "N", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// Blocks of the same size that are held meanwhile
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) live: u32,
    /// How addresses are chosen: randomized, first-fit or kernel
    #[arg(long, value_name = "P", default_value = "randomized")]
    pub(crate) placement: Placement,
    /// Measure only this: fresh executions, or one process that allocates and frees
    #[arg(long)]
    pub(crate) over: Option<Over>,
    /// Draw the same addresses again (0 bits over processes)
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// With --json, list all addresses; without, print low2g's one a line and nothing else
    #[arg(long)]
    pub(crate) addresses: bool,
    /// Print the figures (format low2g-entropy/1)
    #[arg(long)]
    pub(crate) json: bool,
    /// Write a picture of where the addresses fell
    #[arg(long, value_name = "OUT")]
    pub(crate) svg: Option<PathBuf>,
    /// One of the fresh executions: draw once for each source and say so
    #[arg(long, hide = true)]
    pub(crate) child: bool,
}

/// What the draws of a measurement differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Over {
    /// Fresh executions
    Processes,
    /// One process that allocates and frees
    Live,
}

impl Over {
    pub(crate) const ALL: [Self; 2] = [Self::Processes, Self::Live];

    /// The name in the document.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Processes => "processes",
            Self::Live => "live",
        }
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DemoArgs {
    /// Draw the same addresses again
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

fn parse_definition(text: &str) -> Result<(String, u64), String> {
    let (name, addr) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| format!("{text}: not of the form NAME=ADDR"))?;
    Ok((name.to_owned(), parse_addr(addr)?))
}
