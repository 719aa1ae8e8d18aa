//! Programs of a few C or assembly sources, run by low2g and natively.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::tool::{Folder, output, run, stdout, succeed};

/// A main that prints `expression` as a number.
pub(crate) fn printing(declarations: &str, expression: &str) -> String {
    format!(
        "extern int printf(const char *, ...);\n{declarations}\nint main(void) {{ printf(\"%d\", (int)({expression})); return 0; }}"
    )
}

/// Compiles `sources` in order and gives what the program prints, by low2g; the natively linked
/// program must print the same.
pub(crate) fn prints(sources: &[&str], flags: &[&str]) -> String {
    let folder = Folder::new();
    let objects = compiled(&folder, sources, flags);
    let files: Vec<&Path> = objects.iter().map(PathBuf::as_path).collect();
    let loaded = run(&files);
    assert_eq!(
        loaded,
        native(&folder, &files),
        "as linked natively: {sources:?}"
    );
    loaded
}

pub(crate) fn compiled(folder: &Folder, sources: &[&str], flags: &[&str]) -> Vec<PathBuf> {
    let named = sources.iter().enumerate();
    let ending = |source: &str| if source.starts_with('.') { "s" } else { "c" };
    named
        .map(|(number, source)| {
            folder.compile(&format!("f{number}.{}", ending(source)), source, flags)
        })
        .collect()
}

pub(crate) fn native(folder: &Folder, files: &[&Path]) -> String {
    let program = folder.path("native");
    let mut command = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    succeed(command.arg("-no-pie").args(files).arg("-o").arg(&program));
    stdout(&output(&mut Command::new(program)))
}
