//! What can go wrong in a link: values first, one line of text each.
//!
//! The text is `OBJECT(SECTION+0xOFF): KIND: what, with values; what to do`.

use std::fmt;

use crate::place::PlaceError;

use super::tls::PoolRefusal;

/// A place in an input: object, section and byte offset in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Base name of the file, `lib.a(member.o)` for a member.
    pub object: String,
    /// Section name; empty if the place is the whole object.
    pub section: String,
    /// Offset in bytes from the section's start.
    pub offset: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.section.is_empty() {
            f.write_str(&self.object)
        } else {
            write!(f, "{}({}+{:#x})", self.object, self.section, self.offset)
        }
    }
}

/// A relocation that an error is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelocationSite {
    /// Where the field is.
    pub at: Place,
    /// Name of the type (`R_X86_64_32`), or its number if it has none.
    pub r_type: String,
    /// Symbol's name; `section NAME` for a section symbol.
    pub symbol: String,
    /// The addend.
    pub addend: i64,
}

/// One error of a link.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The bytes are not what they should be.
    #[error("{at}: input: {reason}")]
    Input {
        /// Which object, and where in it.
        at: Place,
        /// What is wrong, with values, and what to do.
        reason: String,
    },
    /// A strong reference that nothing defines.
    #[error("{first_use}: undefined_symbol: {symbol} ({uses} {}){}; {}",
        if *.uses == 1 { "use" } else { "uses" }, nearest_text(.nearest.as_deref()),
        if *.hidden { "it is hidden, so only an object or archive of the same link can define it" }
        else { "define it, add the object, archive or -l library that does" })]
    UndefinedSymbol {
        /// Its name.
        symbol: String,
        /// The first reference in input order.
        first_use: Place,
        /// How many relocations refer to it.
        uses: u64,
        /// Its visibility keeps the search inside the link.
        hidden: bool,
        /// A defined symbol whose name is close.
        nearest: Option<String>,
    },
    /// Two strong definitions of one name.
    #[error(
        "{second}: duplicate_symbol: {symbol} is also defined in {first}; make one of them weak, static or remove it"
    )]
    DuplicateSymbol {
        /// Its name.
        symbol: String,
        /// The definition that came first.
        first: Box<Place>,
        /// The one that clashes.
        second: Place,
    },
    /// A value does not fit its field.
    #[error("{}: overflow: {} against {} (S {symbol_addr:#x}, addend {}) gives {value:#x} at place {place:#x}, allowed {}; {advice}",
        site.at, site.r_type, site.symbol, site.addend, range_text(*.range))]
    Overflow {
        /// The relocation.
        site: Box<RelocationSite>,
        /// S: the symbol's address.
        symbol_addr: u64,
        /// The value that does not fit, 64-bit two's complement.
        value: u64,
        /// P: the field's address.
        place: u64,
        /// Least and greatest value that fit.
        range: (i128, i128),
        /// What to do.
        advice: String,
    },
    /// A relocation type that has no meaning here.
    #[error("{}: unsupported_reloc: {} against {} (addend {}): {reason}", site.at, site.r_type, site.symbol, site.addend)]
    UnsupportedRelocation {
        /// The relocation.
        site: Box<RelocationSite>,
        /// Why, and what to do.
        reason: String,
    },
    /// Thread-local storage that cannot be served.
    #[error("{}: tls: {} against {} (addend {}): {reason}", site.at, site.r_type, site.symbol, site.addend)]
    Tls {
        /// The relocation.
        site: Box<RelocationSite>,
        /// Why, and what to do.
        reason: String,
    },
    /// The link's thread-local block needs a constant offset, and there is no room for it.
    #[error("{}: tls: {} against {} needs static thread-local storage: the link's block is {needed} bytes aligned to {align}, of which libraries loaded late can have {available} bytes{}, {waiting} bytes of unloaded modules wait for later ones to go, and {pool}; start the process with GLIBC_TUNABLES=glibc.rtld.optional_static_tls={}, or compile with -ftls-model=global-dynamic",
        site.at, site.r_type, site.symbol, if *.align > 64 { " aligned to 64 at most" } else { "" }, 512u64.saturating_add(*.needed))]
    StaticTls {
        /// The first relocation that needs it.
        site: Box<RelocationSite>,
        /// Bytes of the block.
        needed: u64,
        /// Its alignment, bytes.
        align: u64,
        /// Bytes that a block loaded now could have.
        available: u64,
        /// Bytes of unloaded modules that cannot be taken back yet.
        waiting: u64,
        /// Why the pool did not serve.
        pool: PoolRefusal,
    },
    /// No memory for a section.
    #[error("{at}: memory: {source}")]
    Memory {
        /// The section.
        at: Place,
        /// Why.
        source: Box<PlaceError>,
    },
}

fn nearest_text(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!(", did you mean {name}?"))
}

fn range_text((low, high): (i128, i128)) -> String {
    if low < 0 {
        format!("-{:#x} to {high:#x}", -low)
    } else {
        format!("{low:#x} to {high:#x}")
    }
}

impl LinkError {
    /// The error's kind, in the words of the dump format.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Input { .. } => "input",
            Self::UndefinedSymbol { .. } => "undefined_symbol",
            Self::DuplicateSymbol { .. } => "duplicate_symbol",
            Self::Overflow { .. } => "overflow",
            Self::UnsupportedRelocation { .. } => "unsupported_reloc",
            Self::Tls { .. } | Self::StaticTls { .. } => "tls",
            Self::Memory { .. } => "memory",
        }
    }

    /// Where it is.
    #[must_use]
    pub const fn at(&self) -> &Place {
        match self {
            Self::Input { at, .. } | Self::Memory { at, .. } => at,
            Self::UndefinedSymbol { first_use, .. } => first_use,
            Self::DuplicateSymbol { second, .. } => second,
            Self::Overflow { site, .. }
            | Self::UnsupportedRelocation { site, .. }
            | Self::Tls { site, .. }
            | Self::StaticTls { site, .. } => &site.at,
        }
    }

    /// A file that could not be read.
    #[must_use]
    pub fn from_io(name: &str, error: &std::io::Error) -> Self {
        Self::object(name, format!("cannot read it: {error}"))
    }

    /// An input error about a whole object.
    pub(crate) fn object(object: &str, reason: impl Into<String>) -> Self {
        Self::Input {
            at: Place {
                object: object.to_owned(),
                section: String::new(),
                offset: 0,
            },
            reason: reason.into(),
        }
    }
}

/// All errors that a link ran into before it gave up: at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkFailure {
    errors: Vec<LinkError>,
}

impl LinkFailure {
    /// The errors in the order found; never empty.
    #[must_use]
    pub fn errors(&self) -> &[LinkError] {
        &self.errors
    }

    pub(crate) fn new(errors: Vec<LinkError>) -> Self {
        assert!(!errors.is_empty(), "a failure without an error");
        Self { errors }
    }

    /// Whether the reason is that low memory could not be had.
    #[must_use]
    pub fn is_memory(&self) -> bool {
        self.errors
            .iter()
            .any(|error| matches!(error, LinkError::Memory { .. }))
    }
}

impl From<LinkError> for LinkFailure {
    fn from(error: LinkError) -> Self {
        Self::new(vec![error])
    }
}

impl fmt::Display for LinkFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for LinkFailure {}
