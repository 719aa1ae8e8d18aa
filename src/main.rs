//! The command-line tool.
//!
//! May use: everything of the library; nothing uses it.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
