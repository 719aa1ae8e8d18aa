//! Inputs of a command: files as they are, `.c` through the system's compiler.

use std::path::Path;
use std::process::Command;

use low2g::link::{Input, LinkError};

use super::Failure;

/// What `.c` files are compiled with: the small code model, position-dependent.
pub(crate) const C_FLAGS: [&str; 4] = ["-O2", "-fno-pic", "-fno-pie", "-mcmodel=small"];

/// Reads `path`; a `.c` file is compiled first and keeps its own name.
pub(crate) fn input(path: &Path) -> Result<Input, Failure> {
    if path.extension().is_none_or(|extension| extension != "c") {
        return Ok(Input::from_file(path)?);
    }
    let name = path
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    if !path.exists() {
        // The same words as for any other missing file.
        return Ok(Input::from_file(path)?);
    }
    let directory = tempfile::tempdir().map_err(|error| {
        Failure::Other(format!(
            "{name}: input: cannot make a temporary directory: {error}"
        ))
    })?;
    let object = directory.path().join("object.o");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let output = Command::new(&compiler)
        .args(C_FLAGS)
        .arg("-c")
        .arg(path)
        .arg("-o")
        .arg(&object)
        .output()
        .map_err(|error| {
            Failure::Other(format!(
                "{name}: input: cannot run the C compiler {}: {error}; install one, set CC, or give a .o file",
                compiler.display()
            ))
        })?;
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Err(Failure::Other(format!(
            "{name}: input: {} {} failed ({})",
            compiler.display(),
            C_FLAGS.join(" "),
            output.status
        )));
    }
    let data =
        std::fs::read(&object).map_err(|error| Failure::from(LinkError::from_io(&name, &error)))?;
    Ok(Input::from_bytes(name, data))
}

/// Reads all inputs of a command.
pub(crate) fn inputs(paths: &[std::path::PathBuf]) -> Result<Vec<Input>, Failure> {
    paths.iter().map(|path| input(path)).collect()
}
