//! Running a command to its end with a time limit: a hang fails instead of hanging the tests.

use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Far above what any input takes, on a slow machine and without optimisation.
const TIME_LIMIT: Duration = Duration::from_secs(240);

/// How a command ended, and all it wrote.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Finished {
    /// The exit code, or what ended it, for messages and for comparison.
    pub(crate) fn ending(&self) -> String {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "no status".to_owned(),
        }
    }
}

/// Runs `command` with `stdin` as its standard input.
///
/// # Panics
///
/// When it does not start, or does not end within the time limit.
pub(crate) fn run(command: &mut Command, stdin: &[u8]) -> Finished {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let mut sink = child.stdin.take().expect("standard input is a pipe");
    let text = stdin.to_vec();
    // A program may end without reading all: the broken pipe is not an error of ours.
    let writer = thread::spawn(move || drop(sink.write_all(&text)));
    let stdout = collect(child.stdout.take().expect("standard output is a pipe"));
    let stderr = collect(child.stderr.take().expect("standard error is a pipe"));
    let status = wait(&mut child, command);
    let finished = Finished {
        status,
        stdout: stdout.join().expect("the reader does not panic"),
        stderr: stderr.join().expect("the reader does not panic"),
    };
    writer.join().expect("the writer does not panic");
    finished
}

fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        pipe.read_to_end(&mut all).expect("a pipe reads to its end");
        all
    })
}

fn wait(child: &mut Child, command: &Command) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("the child can be waited for") {
            return status;
        }
        if start.elapsed() > TIME_LIMIT {
            let group = Pid::from_raw(i32::try_from(child.id()).expect("a process id fits pid_t"));
            // Its children hold the pipes: all of the group must go.
            killpg(group, Signal::SIGKILL).expect("the group is ours to end");
            panic!("{command:?} ran for more than {TIME_LIMIT:?}");
        }
        thread::sleep(Duration::from_millis(3));
    }
}

/// `low2g` with its subcommand.
pub(crate) fn low2g(subcommand: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_low2g"));
    command.arg(subcommand);
    command
}

/// Asserts that what ran in low2g did what the native program did: standard output, standard
/// error and ending. `context` says what ran, with the seed.
pub(crate) fn assert_same(context: &str, native: &Finished, loaded: &Finished) {
    let same = native.stdout == loaded.stdout
        && native.stderr == loaded.stderr
        && native.ending() == loaded.ending();
    assert!(
        same,
        "{context}: differs from the program linked natively\n{}",
        [("native", native), ("low2g", loaded)]
            .map(|(name, ran)| format!(
                "--- {name}: {}\n--- {name} standard output\n{}\n--- {name} standard error\n{}",
                ran.ending(),
                String::from_utf8_lossy(&ran.stdout),
                String::from_utf8_lossy(&ran.stderr)
            ))
            .join("\n")
    );
}

/// `low2g SUBCOMMAND` with what every run of a real program has: the seed, the libraries, the files.
pub(crate) fn low2g_on<'a>(
    subcommand: &str,
    seed: u64,
    libraries: &[&str],
    files: impl IntoIterator<Item = &'a Path>,
) -> Command {
    let mut command = low2g(subcommand);
    command.args(["--seed", &seed.to_string()]);
    for library in libraries {
        command.args(["--lib", library]);
    }
    command.args(files);
    command
}
