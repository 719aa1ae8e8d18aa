//! Sources made into objects by the system's tools, and the command-line tool run on them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::elf::Obj;

/// A folder of files to link, gone when it is dropped.
#[derive(Debug)]
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).expect("the temporary folder can be written");
        path
    }

    pub(crate) fn object(&self, name: &str, object: &Obj) -> PathBuf {
        self.write(name, object.build())
    }

    /// Compiles C or assembly (by the ending of `name`) with `flags` beside small and non-PIC.
    pub(crate) fn compile(&self, name: &str, source: &str, flags: &[&str]) -> PathBuf {
        let path = self.write(name, source);
        let object = path.with_extension("o");
        let mut command = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
        command.args(["-O1", "-fno-pic", "-fno-pie", "-mcmodel=small", "-w"]);
        succeed(
            command
                .args(flags)
                .arg("-c")
                .arg(&path)
                .arg("-o")
                .arg(&object),
        );
        object
    }

    /// `ar FLAGS NAME MEMBERS`.
    pub(crate) fn archive(&self, name: &str, flags: &str, members: &[&Path]) -> PathBuf {
        let path = self.path(name);
        succeed(Command::new("ar").arg(flags).arg(&path).args(members));
        path
    }
}

pub(crate) fn succeed(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// `low2g SUBCOMMAND`.
pub(crate) fn low2g(subcommand: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_low2g"));
    command.arg(subcommand);
    command
}

/// Runs `command` to its end.
pub(crate) fn output(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"))
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs `low2g run FILES` and gives standard output; the program must end with 0.
pub(crate) fn run(files: &[&Path]) -> String {
    let output = output(low2g("run").args(files));
    assert_eq!(
        output.status.code(),
        Some(0),
        "low2g run {files:?}: {}{}",
        stdout(&output),
        stderr(&output)
    );
    stdout(&output)
}

/// Runs `low2g link --json` with `arguments`: the dump and the exit code.
pub(crate) fn dump(arguments: &[&std::ffi::OsStr]) -> (serde_json::Value, Option<i32>) {
    let output = output(low2g("link").arg("--json").args(arguments));
    let value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", stderr(&output)));
    (value, output.status.code())
}

/// Fails with `code`, one line of error that names all of `words`, and nothing on standard output.
pub(crate) fn refused(command: &mut Command, code: i32, words: &[&str]) -> Output {
    let ended = output(command);
    let text = stderr(&ended);
    assert_eq!(ended.status.code(), Some(code), "{command:?}: {text}");
    assert_eq!(stdout(&ended), "", "{command:?}");
    let lines: Vec<&str> = text.lines().collect();
    let errors = lines
        .iter()
        .filter(|line| line.starts_with("low2g: error: "));
    assert_eq!(errors.count(), 1, "{command:?}: {text}");
    for word in words {
        assert!(text.contains(word), "{command:?} says {word}: {text}");
    }
    ended
}
