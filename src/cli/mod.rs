//! Commands, and how they fail: one line on standard error, and an exit code
//! (1 link error, 2 usage, 3 no low memory).

mod advice;
mod args;
mod compile;
mod demo;
mod doctor;
mod entropy;
mod link;
mod map;
mod pool;
mod run;
mod setup;
mod svg;
mod table;
mod time;

use std::process::ExitCode;

use clap::Parser as _;
use low2g::alloc::AllocError;
use low2g::link::{LibraryError, LinkError, LinkFailure};
use low2g::place::PlaceError;

use args::{Cli, Command};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Link(#[from] LinkFailure),
    #[error(
        "memory: {0}; use --reach 4g or near:ADDR, or run `low2g map` to see what holds the space"
    )]
    NoLowMemory(#[from] AllocError),
    #[error("input: {0}")]
    Library(#[from] LibraryError),
    #[error("{0}")]
    Other(String),
    #[error("cannot write: {0}")]
    Write(std::io::Error),
    /// Already said elsewhere (the dump).
    #[error("")]
    Silent(u8),
}

impl From<LinkError> for Failure {
    fn from(error: LinkError) -> Self {
        Self::Link(error.into())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Write(error)
    }
}

impl Failure {
    /// Whether a dump can tell it: not if the command line itself is wrong, or the dump unwritten.
    fn has_row(&self) -> bool {
        matches!(
            self,
            Self::NoLowMemory(_) | Self::Library(_) | Self::Other(_)
        )
    }

    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Link(failure) => link_code(failure),
            Self::NoLowMemory(_) => 3,
            Self::Library(_) | Self::Other(_) | Self::Write(_) => 1,
            Self::Silent(code) => *code,
        }
    }
}

/// 3 if addresses or memory could not be had, else 1.
pub(crate) fn link_code(failure: &LinkFailure) -> u8 {
    let memory = |error: &LinkError| {
        let LinkError::Memory { source, .. } = error else {
            return false;
        };
        matches!(
            **source,
            PlaceError::Section { .. } | PlaceError::WindowFull { .. }
        )
    };
    if failure.errors().iter().any(memory) {
        3
    } else {
        1
    }
}

/// Prints errors as the contract says, a line each.
fn complain(failure: &Failure) {
    if !matches!(failure, Failure::Silent(_)) {
        for line in failure.to_string().lines() {
            eprintln!("low2g: error: {line}");
        }
    }
}

pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = pool::reserve() {
        eprintln!("low2g: note: {error}");
    }
    let seed = match &cli.command {
        Command::Run(args) => args.common.seed,
        Command::Link(args) => args.common.seed,
        Command::Demo(args) => args.seed,
        Command::Map(_) | Command::Doctor(_) => None,
        Command::Entropy(args) => args.seed.filter(|_| !args.child),
    };
    let result = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Link(args) => link::link(&args),
        Command::Map(args) => map::map(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Demo(args) => demo::demo(&args),
        Command::Entropy(args) => entropy::entropy(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure);
            if let Some(seed) = seed {
                eprintln!("low2g: note: with --seed {seed}");
            }
            ExitCode::from(failure.code())
        }
    }
}
