//! Imports point down only: cli, capi -> jit -> link -> place -> alloc -> platform.

use std::path::{Path, PathBuf};

/// Layers from the bottom up: folder, and the names by which others import it.
const LAYERS: [(&str, &[&str]); 7] = [
    (
        "platform/src",
        &["low2g_platform", "low2g::platform", "crate::platform"],
    ),
    ("src/alloc", &["crate::alloc", "low2g::alloc"]),
    ("src/place", &["crate::place", "low2g::place"]),
    ("src/link", &["crate::link", "low2g::link"]),
    ("src/jit", &["crate::jit", "low2g::jit"]),
    ("src/capi", &["crate::capi", "low2g::capi"]),
    ("src/cli", &["crate::cli"]),
];

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a source folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push(path);
        }
    }
}

/// The lines of `text` that name something of `layer`, comments aside.
fn mentions<'t>(text: &'t str, layer: &[&str]) -> Vec<&'t str> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .filter(|line| layer.iter().any(|name| line.contains(&format!("{name}::"))))
        .collect()
}

#[test]
fn imports_point_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for (level, (folder, own)) in LAYERS.iter().enumerate() {
        let mut files = Vec::new();
        sources(&root.join(folder), &mut files);
        assert!(!files.is_empty(), "{folder} has no sources");
        for file in files {
            let text = std::fs::read_to_string(&file).expect("a source file");
            for (above, names) in &LAYERS[level + 1..] {
                // Inside platform/, `crate::` is another crate: its own names only.
                let names: Vec<&str> = names
                    .iter()
                    .copied()
                    .filter(|name| level > 0 || !name.starts_with("crate::"))
                    .collect();
                let found = mentions(&text, &names);
                assert!(
                    found.is_empty(),
                    "{} uses {above}: {found:?}",
                    file.display()
                );
            }
            seen += usize::from(!mentions(&text, own).is_empty());
        }
    }
    assert!(
        seen > 10,
        "the scan found {seen} files that use their own layer's names: it is blind"
    );
}
