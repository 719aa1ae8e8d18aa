//! The programs in docs/jit-integration.md are the files that tests build and run.

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;

/// `<!-- FILE -->` before a block of code says which file the block is.
#[test]
fn programs_in_the_documentation_are_files_that_run() {
    let path = support::root().join("docs/jit-integration.md");
    let text = std::fs::read_to_string(path).expect("the document");
    let mut shown = 0;
    for part in text.split("<!-- ").skip(1) {
        let (file, rest) = part.split_once(" -->\n").expect("the end of a comment");
        let (_, rest) = rest.split_once("```").expect("a block after the comment");
        let (_, block) = rest.split_once('\n').expect("a line with the language");
        let (block, _) = block.split_once("```").expect("the end of the block");
        let source = std::fs::read_to_string(support::root().join(file));
        let source = source.unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(
            block == source,
            "docs/jit-integration.md does not show {file} as it is"
        );
        shown += 1;
    }
    assert!(shown >= 5, "{shown} programs are shown");
}
