//! Relocatable objects as values: sections, symbols, relocations, groups (ELF-64 object file
//! format; psABI). `write` makes them files.

pub(crate) const SHT_PROGBITS: u32 = 1;
pub(crate) const SHT_RELA: u32 = 4;
pub(crate) const SHT_NOBITS: u32 = 8;
pub(crate) const SHT_REL: u32 = 9;
pub(crate) const SHT_CREL: u32 = 0x4000_0014;

pub(crate) const WRITE: u64 = 1;
pub(crate) const ALLOC: u64 = 2;
pub(crate) const EXEC: u64 = 4;

pub(crate) const LOCAL: u8 = 0;
pub(crate) const GLOBAL: u8 = 1;
pub(crate) const WEAK: u8 = 2;
pub(crate) const UNIQUE: u8 = 10;

pub(crate) const NOTYPE: u8 = 0;
pub(crate) const OBJECT: u8 = 1;
pub(crate) const FUNC: u8 = 2;
pub(crate) const SECTION: u8 = 3;
pub(crate) const IFUNC: u8 = 10;

pub(crate) const DEFAULT: u8 = 0;
pub(crate) const HIDDEN: u8 = 2;
pub(crate) const PROTECTED: u8 = 3;

/// Where a symbol stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Where {
    Undefined,
    Absolute,
    Common,
    /// Position in [`Obj::sections`].
    In(usize),
}

#[derive(Clone, Debug)]
pub(crate) struct Sym {
    pub(crate) name: String,
    pub(crate) bind: u8,
    pub(crate) kind: u8,
    pub(crate) visibility: u8,
    pub(crate) at: Where,
    pub(crate) value: u64,
    pub(crate) size: u64,
}

impl Sym {
    pub(crate) fn new(name: &str, bind: u8, kind: u8, at: Where, value: u64) -> Self {
        Self {
            name: name.to_owned(),
            bind,
            kind,
            visibility: DEFAULT,
            at,
            value,
            size: 0,
        }
    }
    pub(crate) fn sized(mut self, size: u64) -> Self {
        self.size = size;
        self
    }
    pub(crate) fn visible(mut self, visibility: u8) -> Self {
        self.visibility = visibility;
        self
    }
}

/// What a relocation refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// Symbol 0.
    Nothing,
    /// Position in [`Obj::symbols`].
    Sym(usize),
    /// An index as it stands in the file, whether there is such a symbol or not.
    Raw(u32),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Rel {
    pub(crate) offset: u64,
    pub(crate) kind: u32,
    pub(crate) of: Of,
    pub(crate) addend: i64,
}

/// In which form a section's relocations are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    #[default]
    Rela,
    Rel,
    Crel,
}

#[derive(Clone, Debug)]
pub(crate) struct Sec {
    pub(crate) name: String,
    pub(crate) kind: u32,
    pub(crate) flags: u64,
    pub(crate) align: u64,
    pub(crate) data: Vec<u8>,
    /// Bytes of an `SHT_NOBITS` section; of others, those of `data` count.
    pub(crate) zeros: u64,
    pub(crate) rels: Vec<Rel>,
    pub(crate) form: Form,
}

impl Sec {
    pub(crate) fn new(name: &str, flags: u64, data: Vec<u8>) -> Self {
        Self {
            name: name.to_owned(),
            kind: SHT_PROGBITS,
            flags,
            align: 1,
            data,
            zeros: 0,
            rels: Vec::new(),
            form: Form::Rela,
        }
    }
    pub(crate) fn text(data: impl Into<Vec<u8>>) -> Self {
        Self::new(".text", ALLOC | EXEC, data.into())
    }
    pub(crate) fn data(data: impl Into<Vec<u8>>) -> Self {
        Self::new(".data", ALLOC | WRITE, data.into())
    }
    pub(crate) fn zeros(name: &str, flags: u64, zeros: u64) -> Self {
        Self {
            kind: SHT_NOBITS,
            zeros,
            ..Self::new(name, flags, Vec::new())
        }
    }
    pub(crate) fn aligned(mut self, align: u64) -> Self {
        self.align = align;
        self
    }
    pub(crate) fn rel(mut self, offset: u64, kind: u32, of: Of, addend: i64) -> Self {
        self.rels.push(Rel {
            offset,
            kind,
            of,
            addend,
        });
        self
    }
    pub(crate) fn size(&self) -> u64 {
        if self.kind == SHT_NOBITS {
            self.zeros
        } else {
            to_u64(self.data.len())
        }
    }
}

/// A COMDAT group.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// Position in [`Obj::symbols`].
    pub(crate) signature: usize,
    /// Positions in [`Obj::sections`].
    pub(crate) members: Vec<usize>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Obj {
    pub(crate) sections: Vec<Sec>,
    pub(crate) symbols: Vec<Sym>,
    pub(crate) groups: Vec<Group>,
}

fn to_u64(value: usize) -> u64 {
    u64::try_from(value).expect("usize fits")
}

impl Obj {
    pub(crate) fn section(&mut self, section: Sec) -> usize {
        self.sections.push(section);
        self.sections.len() - 1
    }

    pub(crate) fn symbol(&mut self, symbol: Sym) -> usize {
        self.symbols.push(symbol);
        self.symbols.len() - 1
    }

    /// The section's number in the file.
    pub(crate) fn number(section: usize) -> usize {
        section + 1
    }
}
