//! Links through the library, at addresses that are not mapped.

use low2g::link::report::Report;
use low2g::link::{
    Definitions, ExternalKind, ExternalSymbol, Input, Link, LinkFailure, LinkOptions, Linked, Pin,
    SectionName,
};
use low2g::place::Placer;
use low2g::platform::AddrRange;

/// The small model's window.
pub(crate) fn window() -> AddrRange {
    AddrRange::new(0x0100_0000, 0x7f00_0000).expect("ascending")
}

/// A placer that maps nothing.
pub(crate) fn dry(seed: u64) -> Placer {
    Placer::DryRun {
        window: window(),
        seed,
    }
}

/// Names and addresses of externals.
#[derive(Clone, Debug, Default)]
pub(crate) struct Externals(pub(crate) Vec<(String, ExternalSymbol)>);

impl Externals {
    pub(crate) fn with(mut self, name: &str, addr: u64, kind: ExternalKind) -> Self {
        let size = 0;
        self.0
            .push((name.to_owned(), ExternalSymbol { addr, size, kind }));
        self
    }

    pub(crate) fn definitions(&self) -> Definitions {
        let mut definitions = Definitions::default();
        for (name, symbol) in &self.0 {
            definitions.insert(name.clone(), *symbol);
        }
        definitions
    }
}

/// Reads, resolves, places, relocates, protects.
pub(crate) fn link<'d>(
    inputs: &'d [Input],
    options: &'d LinkOptions,
    externals: &Externals,
    placer: &Placer,
) -> Result<Linked<'d>, LinkFailure> {
    let mut link = Link::read(inputs, options)?;
    link.resolve(&externals.definitions());
    link.place(placer)?.relocate()?.protect()
}

/// Options that keep rows.
pub(crate) fn options() -> LinkOptions {
    LinkOptions {
        record: true,
        ..LinkOptions::default()
    }
}

/// Section `number` (as in the file) of `file` at `addr`.
pub(crate) fn pin(file: &str, number: usize, addr: u64) -> Pin {
    Pin {
        file: file.to_owned(),
        section: SectionName::Index(number),
        addr,
    }
}

/// One of the link's own sections at `addr`.
pub(crate) fn own_pin(section: &str, addr: u64) -> Pin {
    Pin {
        file: "low2g".to_owned(),
        section: SectionName::Name(section.to_owned()),
        addr,
    }
}

/// The `len` bytes at `addr`.
pub(crate) fn bytes_at(linked: &Linked<'_>, addr: u64, len: u64) -> Vec<u8> {
    let range = AddrRange::at(addr, len).expect("no wrap");
    linked
        .read(range)
        .unwrap_or_else(|| panic!("{range} is not memory of the link"))
}

/// The little-endian word at `addr`.
pub(crate) fn word_at(linked: &Linked<'_>, addr: u64) -> u64 {
    let bytes = bytes_at(linked, addr, 8);
    u64::from_le_bytes(bytes.try_into().expect("8 bytes"))
}

/// The dump of a link that worked.
pub(crate) fn report(linked: &Linked<'_>) -> Report {
    Report::of(linked).unwrap_or_else(|failure| panic!("the report: {failure}"))
}

/// A value as the dump writes it.
pub(crate) fn unhex(text: &str) -> u64 {
    let digits = text.strip_prefix("0x").expect("0x");
    u64::from_str_radix(digits, 16).expect("hexadecimal digits")
}
