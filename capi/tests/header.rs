//! include/low2g.h is what src/capi says.

use std::path::Path;

#[test]
fn the_header_is_that_of_the_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("well-formed");
    // The modules that it names are read as well.
    let builder = cbindgen::Builder::new()
        .with_config(config)
        .with_src(root.join("src/capi/mod.rs"));
    let mut made = Vec::new();
    builder.generate().expect("a header").write(&mut made);
    let made = String::from_utf8(made).expect("UTF-8");
    let path = root.join("include/low2g.h");
    if std::env::var_os("LOW2G_BLESS").is_some() {
        std::fs::write(&path, &made).expect("the header can be written");
    }
    let committed = std::fs::read_to_string(&path).expect("the header");
    assert!(
        made == committed,
        "include/low2g.h is not what src/capi says: run with LOW2G_BLESS=1 to write it, and look at the difference"
    );
}
