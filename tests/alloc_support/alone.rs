//! Tests that are alone in their process, because what they do to it is for good.

use std::process::Command;

const CASE: &str = "LOW2G_TEST_CASE";

/// Runs the test `name` of this program again, as the one that may ruin its process.
pub(crate) fn alone(name: &str, case: impl FnOnce()) {
    if std::env::var_os(CASE).is_some_and(|set| set == name) {
        return case();
    }
    let program = std::env::current_exe().expect("a program has a path");
    let output = Command::new(program)
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CASE, name)
        .output()
        .expect("it runs again");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{name}: {}\n{said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}
