//! One access to a thread-local variable in each model, loaded by low2g, beside the same objects
//! linked natively: as a program, and with the access in a shared library.
//!
//! Each is a process of its own that times itself (tests/inputs/tls/access_main.c); the three
//! alternate, so that all see the same machine. Medians, and ratios of medians.
//!
//! `cargo bench --bench tls`

#[path = "../../tests/support/mod.rs"]
#[allow(
    dead_code,
    reason = "shared with the tests, which use other parts of it"
)]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

/// Measurements of each.
const ROUNDS: usize = 15;

/// A row: name, flags of the accessing object, whether a static block is asked for beside it.
struct Case {
    name: &'static str,
    flags: &'static [&'static str],
    fixed: bool,
}

const fn case(name: &'static str, flags: &'static [&'static str], fixed: bool) -> Case {
    Case { name, flags, fixed }
}

const CASES: [Case; 8] = [
    case("ordinary variable", &["-fno-pic", "-DORDINARY"], false),
    case("local-exec", &["-fno-pic", "-ftls-model=local-exec"], false),
    case(
        "initial-exec",
        &["-fPIC", "-ftls-model=initial-exec"],
        false,
    ),
    case("general-dynamic", &["-fPIC"], false),
    case("general-dynamic, static block", &["-fPIC"], true),
    case("local-dynamic", &["-fPIC", "-DKEPT"], false),
    case("descriptor", &["-fPIC", "-mtls-dialect=gnu2"], false),
    case(
        "descriptor, static block",
        &["-fPIC", "-mtls-dialect=gnu2"],
        true,
    ),
];

fn object(source: &str, flags: &[&str]) -> PathBuf {
    let flags: Vec<String> = ["-O2"].iter().chain(flags).map(|&f| f.to_owned()).collect();
    support::build::object(&support::input("tls").join(source), &flags)
}

/// Links natively.
fn native(out: &Path, arguments: &[&std::ffi::OsStr]) {
    let mut command = Command::new(support::build::cc());
    let done = command.arg("-o").arg(out).args(arguments).status();
    assert!(done.expect("the compiler starts").success(), "{command:?}");
}

/// Runs it once: picoseconds an access.
fn measure(command: &mut Command) -> u64 {
    let finished = support::command::run(command, b"");
    assert!(
        finished.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&finished.stderr)
    );
    let text = String::from_utf8_lossy(&finished.stdout).trim().to_owned();
    text.parse().expect("a number")
}

fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

pub(super) fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let main = object("access_main.c", &["-fno-pic"]);
    println!(
        "{:<32} {:>9} {:>9} {:>9}   to program   to library",
        "ns an access", "low2g", "program", "library"
    );
    for (number, case) in CASES.iter().enumerate() {
        let access = object("access.c", case.flags);
        let program = folder.path().join(format!("program{number}"));
        native(
            &program,
            &["-no-pie".as_ref(), main.as_ref(), access.as_ref()],
        );
        // Code that is not position-independent goes into no shared library.
        let library = case.flags.contains(&"-fPIC").then(|| {
            let library = folder.path().join(format!("libaccess{number}.so"));
            native(&library, &["-shared".as_ref(), access.as_ref()]);
            let program = folder.path().join(format!("user{number}"));
            native(
                &program,
                &["-no-pie".as_ref(), main.as_ref(), library.as_ref()],
            );
            program
        });
        let mut files = vec![main.clone(), access];
        if case.fixed {
            files.push(object("access_fixed.c", &["-fno-pic"]));
        }
        let mut times = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            times[0].push(measure(support::command::low2g("run").args(&files)));
            times[1].push(measure(&mut Command::new(&program)));
            if let Some(program) = &library {
                times[2].push(measure(&mut Command::new(program)));
            }
        }
        print(case.name, &mut times);
    }
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds for people")]
fn print(name: &str, times: &mut [Vec<u64>; 3]) {
    let ns = |picoseconds: u64| picoseconds as f64 / 1000.0;
    let (ours, program) = (median(&mut times[0]), median(&mut times[1]));
    print!("{name:<32} {:>9.2} {:>9.2}", ns(ours), ns(program));
    let ratio = |peer: u64| ours as f64 / peer as f64;
    if times[2].is_empty() {
        println!(" {:>9}   x{:<9.2}", "", ratio(program));
    } else {
        let library = median(&mut times[2]);
        println!(
            " {:>9.2}   x{:<9.2}   x{:.2}",
            ns(library),
            ratio(program),
            ratio(library)
        );
    }
}
