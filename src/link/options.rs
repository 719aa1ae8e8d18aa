//! What a link is asked to do.

use crate::place::CodeModel;

use super::symbols::Global;

/// Which relaxations rewrite instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Relax {
    /// None: every GOT relocation reads its slot.
    None,
    /// To pc-relative forms only (`lea`, direct `call` and `jmp`).
    PcRelative,
    /// Also to immediate forms.
    #[default]
    All,
}

impl std::str::FromStr for Relax {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "pcrel" => Ok(Self::PcRelative),
            "all" => Ok(Self::All),
            other => Err(format!("relaxation {other} is none of none, pcrel, all")),
        }
    }
}

/// What happens to 32-bit references to external data that is too far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FarData {
    /// Instructions move to islands, address words of functions take stubs.
    #[default]
    Island,
    /// An error. Calls still take stubs.
    Error,
}

impl std::str::FromStr for FarData {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "island" => Ok(Self::Island),
            "error" => Ok(Self::Error),
            other => Err(format!(
                "far data handling {other} is none of island, error"
            )),
        }
    }
}

/// When debuggers are told of loaded code: its symbols, lines and frames (gdb's JIT interface).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Debugger {
    /// Where one is attached when the process loads its first module. Costs nothing otherwise.
    #[default]
    Traced,
    /// Always, for one that attaches later.
    Always,
    /// Never.
    Never,
}

impl std::str::FromStr for Debugger {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "traced" => Ok(Self::Traced),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            other => Err(format!("{other} is none of traced, always, never")),
        }
    }
}

/// How a pinned section is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SectionName {
    /// By name, which must be the file's only one.
    Name(String),
    /// By its number in the section table.
    Index(usize),
}

/// A section put at a given address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Name of the object as dumps show it; `low2g` for `.got`, `.stubs` and `.islands`.
    pub file: String,
    /// Which section of it.
    pub section: SectionName,
    /// Where to.
    pub addr: u64,
}

impl std::str::FromStr for Pin {
    type Err = String;

    /// `FILE,SECTION=ADDR`, SECTION a name or `#index`. The last comma before the last `=` separates.
    fn from_str(text: &str) -> Result<Self, String> {
        let fail = || format!("{text}: not of the form FILE,SECTION=ADDR");
        let (left, addr) = text.rsplit_once('=').ok_or_else(fail)?;
        let (file, section) = left.rsplit_once(',').ok_or_else(fail)?;
        let addr = parse_addr(addr)?;
        let section = match section.strip_prefix('#') {
            Some(index) => SectionName::Index(
                index
                    .parse()
                    .map_err(|_| format!("{text}: #{index} is not a section number"))?,
            ),
            None => SectionName::Name(section.to_owned()),
        };
        if file.is_empty() || section == SectionName::Name(String::new()) {
            return Err(fail());
        }
        Ok(Self {
            file: file.to_owned(),
            section,
            addr,
        })
    }
}

/// A 64-bit address: hexadecimal with `0x`, else decimal.
///
/// # Errors
/// It is neither.
pub fn parse_addr(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text} is not an address (0x and hexadecimal digits, or decimal)"))
}

/// Options of a link.
#[derive(Clone, Debug, Default)]
pub struct LinkOptions {
    /// Code model of the objects.
    pub model: CodeModel,
    /// Relaxations.
    pub relax: Relax,
    /// Far data.
    pub far_data: FarData,
    /// A symbol that must be defined; archives are searched for it.
    pub entry: Option<String>,
    /// Take every member of archives.
    pub whole_archive: bool,
    /// Lay out what is not pinned upward from here, in input order.
    pub base: Option<u64>,
    /// Sections at given addresses.
    pub pins: Vec<Pin>,
    /// Lay thread-local storage out as a static program's instead of asking this process's
    /// dynamic linker. What is linked so is to be looked at, not run. Dry runs always do.
    pub synthetic_tls: bool,
    /// Every code section at an address drawn for it alone, instead of small ones side by side:
    /// with `-ffunction-sections`, every function. A page of memory and a mapping each.
    pub scatter: bool,
    /// Whether debuggers are told.
    pub debugger: Debugger,
    /// Hidden symbols are seen by other links and may come from them: for one that makes a shared
    /// object of many links (LLVM ORC), to which alone they are hidden.
    pub share_hidden: bool,
    /// Keep a row a relocation for the report.
    pub record: bool,
}

impl LinkOptions {
    /// Whether addresses are given rather than drawn.
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        self.base.is_some() || !self.pins.is_empty()
    }

    /// Whether the module has `global` for others: hidden and internal symbols are its own
    /// (gABI, visibility), but a program starts at its entry whatever that is.
    pub(crate) fn offers(&self, global: &Global<'_>) -> bool {
        let is_entry = |entry: &str| entry.as_bytes() == global.name;
        !global.is_local() || self.share_hidden || self.entry.as_deref().is_some_and(is_entry)
    }
}
