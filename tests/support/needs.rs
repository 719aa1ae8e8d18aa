//! What tests need beyond the project: compilers, debuggers, LLVMs.

use std::process::Command;

/// Gives what a test needs, or says that the test is skipped and why. Where everything must be
/// there (`LOW2G_REQUIRE_ALL` is set, as .ci/run does), what is missing fails the test.
pub(crate) fn require<T>(what: Result<T, String>) -> Option<T> {
    match what {
        Ok(value) => Some(value),
        Err(missing) if std::env::var_os("LOW2G_REQUIRE_ALL").is_some() => {
            panic!("{missing}, and LOW2G_REQUIRE_ALL is set")
        }
        Err(missing) => {
            eprintln!("SKIP: {missing}");
            None
        }
    }
}

/// Whether the program `name` can be started.
pub(crate) fn program(name: &str) -> Result<(), String> {
    let started = Command::new(name).arg("--version").output();
    let started = started.map_err(|error| format!("{name} does not start: {error}"))?;
    if started.status.success() {
        Ok(())
    } else {
        Err(format!("{name} --version fails"))
    }
}
