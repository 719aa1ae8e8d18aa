//! Where the C sources are: in the packages that carry them, found through cargo's own metadata.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder of the package `name`, one of the dev-dependencies.
pub(crate) fn package(name: &str) -> &'static Path {
    static FOLDERS: OnceLock<HashMap<String, PathBuf>> = OnceLock::new();
    FOLDERS
        .get_or_init(read_metadata)
        .get(name)
        .unwrap_or_else(|| panic!("package {name} is not a dependency"))
}

fn read_metadata() -> HashMap<String, PathBuf> {
    // Only this system's packages: others need not have been downloaded.
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--offline", "--locked", "--format-version", "1"])
        .args(["--filter-platform", &target])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo starts");
    assert!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"]
        .as_array()
        .expect("metadata lists packages");
    packages
        .iter()
        .filter_map(|package| {
            let manifest = Path::new(package["manifest_path"].as_str()?);
            Some((
                package["name"].as_str()?.to_owned(),
                manifest.parent()?.to_path_buf(),
            ))
        })
        .collect()
}
