//! What the documentation names is there.

use std::path::Path;

/// Words of `text` between backquotes that look like `file::test`.
fn named_tests(text: &str) -> Vec<(&str, &str)> {
    let is_name = |name: &str| {
        let of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        !name.is_empty() && name.chars().all(of_name)
    };
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter_map(|word| word.split_once("::"))
        .filter(|(file, test)| is_name(file) && is_name(test))
        .collect()
}

#[test]
fn tests_that_are_named_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/security.md")).expect("it is there");
    let (_, proof) = text.split_once("\n## Proof\n").expect("its last part");
    let named = named_tests(proof);
    assert!(named.len() > 30, "{named:?}");
    for (file, test) in named {
        if file == "file" {
            continue;
        }
        let path = root.join(format!("tests/{file}.rs"));
        let source = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            source.contains(&format!("#[test]\nfn {test}(")),
            "docs/security.md names {file}::{test}, which is not in {}",
            path.display()
        );
    }
}
