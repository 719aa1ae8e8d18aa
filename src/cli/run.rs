//! `low2g run`: load, call the entry, exit with its result.

use low2g::link::{Arguments, ExportedSymbols};

use super::args::RunArgs;
use super::setup::Setup;
use super::{Failure, time};

pub(crate) fn run(args: &RunArgs) -> Result<(), Failure> {
    let mut setup = Setup::for_run(&args.common)?;
    let inputs = setup.read(&args.common.files)?;
    if args.common.time {
        eprint!("{}", time::measure(&setup, &inputs, args.common.repeat)?);
    }
    let argv0 = args.common.files[0].clone().into_os_string();
    let arguments = std::iter::once(&argv0)
        .chain(&args.arguments)
        .map(|argument| argument.as_encoded_bytes().to_vec());
    let arguments = Arguments::new(arguments).map_err(|index| {
        Failure::Usage(format!(
            "argument {index} holds a NUL byte, which C strings cannot"
        ))
    })?;
    let linked = setup.link(&inputs)?;
    let entry = args.common.entry.as_str();
    let module = linked.into_module();
    if !module.symbol(entry).is_some_and(|export| export.function) {
        return Err(Failure::Other(format!(
            "low2g: undefined_symbol: entry {entry} is not a function that the objects define; add the object that does, or name another with --entry"
        )));
    }
    if args.common.export {
        let exported = ExportedSymbols::publish(module.symbols())
            .map_err(|error| Failure::Other(format!("low2g: input: --export: {error}")))?;
        // The program stays for the life of the process, and its symbols with it.
        std::mem::forget(exported);
    }
    // SAFETY: running the program is what the user asked for; `--entry` names a function of
    // main's signature. The module is never unmapped: it belongs to the process now.
    let result = unsafe { module.run_main(entry, &arguments) };
    match result {
        // Runs atexit handlers and flushes stdio, as a return from main does.
        Ok(code) => std::process::exit(code),
        Err(error) => Err(Failure::Other(error.to_string())),
    }
}
