//! A shared object in memory, of data alone, for the dynamic linker to read.
//!
//! ```text
//! header | program headers | .dynsym | .hash | .rela | .dynamic | words | .dynstr | TLS image
//! ```
//!
//! One writable segment holds all of it; file offsets are virtual addresses. Each word is
//! 16 bytes with a dynamic relocation on it. No code, so nothing of it can run.
//! Source: gABI chapters 4 and 5; x86-64 psABI for the relocations.

use low2g_platform::{align_up, to_u64, to_usize};
use object::elf;

/// The one symbol that the object exports: its words.
pub(crate) const WORDS_SYMBOL: &str = "low2g_tls_words";
/// Bytes of a word: a descriptor is two machine words, all others use the first.
pub(crate) const WORD_SIZE: u64 = 16;

const PAGE: u64 = 4096;
const HEADER_SIZE: u64 = 64;
const SEGMENT_SIZE: u64 = 56;
const SYMBOL_SIZE: u64 = 24;
const RELA_SIZE: u64 = 24;
const DYNAMIC_ENTRIES: u64 = 10;

/// What a word asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ask {
    /// Offset from the thread pointer: asking makes the block static.
    PointerOffset,
    /// The block's module number.
    Module,
    /// Offset in the module's block.
    BlockOffset,
    /// Resolver function and its argument.
    Descriptor,
}

/// Whose variable a word is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Of {
    /// At this offset of the object's own block.
    Own(u64),
    /// The name of this number.
    Name(usize),
}

/// What the object is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contents<'a> {
    /// Initial values of the block.
    pub(crate) image: &'a [u8],
    /// Bytes of the block, 0 for no block.
    pub(crate) size: u64,
    /// The block's alignment, a power of two.
    pub(crate) align: u64,
    /// The file has all of the block, so that another can follow in it.
    pub(crate) full: bool,
    /// Thread-local variables of others.
    pub(crate) names: &'a [&'a str],
    pub(crate) words: &'a [(Ask, Of)],
}

/// Offsets of the parts.
#[derive(Debug)]
struct Parts {
    symbols: u64,
    hash: u64,
    relas: u64,
    dynamic: u64,
    words: u64,
    strings: u64,
    strings_size: u64,
    image: u64,
    end: u64,
}

impl Contents<'_> {
    fn parts(&self) -> Parts {
        let count = to_u64(self.names.len()) + 2;
        let words = to_u64(self.words.len());
        let strings_size: u64 = 1
            + to_u64(WORDS_SYMBOL.len() + 1)
            + self
                .names
                .iter()
                .map(|name| to_u64(name.len() + 1))
                .sum::<u64>();
        let symbols = HEADER_SIZE + 4 * SEGMENT_SIZE;
        let hash = symbols + count * SYMBOL_SIZE;
        // Two header words, one bucket, a chain entry a symbol; then aligned to 8.
        let relas = (hash + 4 * (3 + count)).next_multiple_of(8);
        let dynamic = relas + words * RELA_SIZE;
        let words_at = (dynamic + DYNAMIC_ENTRIES * 16).next_multiple_of(WORD_SIZE);
        // A machine word more, so that the exported symbol has something to name.
        let strings = words_at + words * WORD_SIZE + 8;
        let image = align_up(strings + strings_size, self.align.max(8)).unwrap_or(u64::MAX >> 1);
        Parts {
            symbols,
            hash,
            relas,
            dynamic,
            words: words_at,
            strings,
            strings_size,
            image,
            end: image.saturating_add(self.image_size()),
        }
    }

    /// Bytes of the image in the file.
    fn image_size(&self) -> u64 {
        if self.full {
            self.size
        } else {
            to_u64(self.image.len())
        }
    }

    /// The address of the image in an object whose words are at `words`.
    pub(crate) fn image_addr(&self, words: u64) -> u64 {
        let parts = self.parts();
        words.wrapping_add(parts.image.wrapping_sub(parts.words))
    }

    /// The object's bytes.
    pub(crate) fn write(&self) -> Vec<u8> {
        let parts = self.parts();
        let mut out = vec![0; to_usize(parts.image)];
        out.extend_from_slice(self.image);
        out.resize(to_usize(parts.end), 0);
        self.header(&mut out);
        self.segments(&mut out, &parts);
        self.symbols(&mut out, &parts);
        self.relocations(&mut out, &parts);
        self.dynamic(&mut out, &parts);
        out
    }

    fn header(&self, out: &mut [u8]) {
        out[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        put(out, 16, 2, u64::from(elf::ET_DYN.0));
        put(out, 18, 2, u64::from(elf::EM_X86_64.0));
        put(out, 20, 4, 1);
        put(out, 32, 8, HEADER_SIZE);
        put(out, 52, 2, HEADER_SIZE);
        put(out, 54, 2, SEGMENT_SIZE);
        // Without a block the last segment is left out.
        put(out, 56, 2, if self.size == 0 { 3 } else { 4 });
        put(out, 58, 2, 64);
    }

    fn segments(&self, out: &mut [u8], parts: &Parts) {
        let read_write = u64::from(elf::PF_R.0 | elf::PF_W.0);
        let dynamic_size = DYNAMIC_ENTRIES * 16;
        let image_size = self.image_size();
        // Type, flags, offset and address, bytes in the file, bytes in memory, alignment.
        let rows = [
            (elf::PT_LOAD.0, read_write, 0, parts.end, parts.end, PAGE),
            (
                elf::PT_DYNAMIC.0,
                read_write,
                parts.dynamic,
                dynamic_size,
                dynamic_size,
                8,
            ),
            // Without this the dynamic linker would make every stack executable.
            (elf::PT_GNU_STACK.0, read_write, 0, 0, 0, 16),
            (
                elf::PT_TLS.0,
                u64::from(elf::PF_R.0),
                parts.image,
                image_size,
                self.size,
                self.align,
            ),
        ];
        let mut at = to_usize(HEADER_SIZE);
        for (kind, flags, offset, file_size, size, align) in rows {
            put(out, at, 4, u64::from(kind));
            put(out, at + 4, 4, flags);
            for (field, value) in [(8, offset), (16, offset), (24, offset)] {
                put(out, at + field, 8, value);
            }
            put(out, at + 32, 8, file_size);
            put(out, at + 40, 8, size);
            put(out, at + 48, 8, align);
            at += to_usize(SEGMENT_SIZE);
        }
    }

    /// Symbols: the null one, the exported words, then the names of others. A hash table of
    /// one bucket that holds the exported one only.
    fn symbols(&self, out: &mut [u8], parts: &Parts) {
        let mut string = parts.strings + 1;
        let mut at = to_usize(parts.symbols + SYMBOL_SIZE);
        let global = elf::STB_GLOBAL.0 << 4;
        let exported = std::iter::once((WORDS_SYMBOL, global | elf::STT_OBJECT.0, parts.words));
        let others = self
            .names
            .iter()
            .map(|&name| (name, global | elf::STT_TLS.0, 0));
        for (name, info, value) in exported.chain(others) {
            put(out, at, 4, string - parts.strings);
            put(out, at + 4, 1, u64::from(info));
            // Any section but "undefined" and the reserved ones; there is no section table.
            put(out, at + 6, 2, u64::from(value != 0));
            put(out, at + 8, 8, value);
            let start = to_usize(string);
            out[start..start + name.len()].copy_from_slice(name.as_bytes());
            string += to_u64(name.len() + 1);
            at += to_usize(SYMBOL_SIZE);
        }
        let hash = to_usize(parts.hash);
        put(out, hash, 4, 1);
        put(out, hash + 4, 4, to_u64(self.names.len()) + 2);
        put(out, hash + 8, 4, 1);
    }

    fn relocations(&self, out: &mut [u8], parts: &Parts) {
        let mut at = to_usize(parts.relas);
        for (index, &(ask, of)) in self.words.iter().enumerate() {
            let kind = match ask {
                Ask::PointerOffset => elf::R_X86_64_TPOFF64,
                Ask::Module => elf::R_X86_64_DTPMOD64,
                Ask::BlockOffset => elf::R_X86_64_DTPOFF64,
                Ask::Descriptor => elf::R_X86_64_TLSDESC,
            };
            // Symbol 0 is local: it stands for the start of the object's own block.
            let (symbol, addend) = match of {
                Of::Own(offset) => (0, offset),
                Of::Name(number) => (to_u64(number) + 2, 0),
            };
            put(out, at, 8, parts.words + to_u64(index) * WORD_SIZE);
            put(out, at + 8, 8, symbol << 32 | u64::from(kind.0));
            put(out, at + 16, 8, addend);
            at += to_usize(RELA_SIZE);
        }
    }

    fn dynamic(&self, out: &mut [u8], parts: &Parts) {
        let fixed = self.words.iter().any(|(ask, _)| *ask == Ask::PointerOffset);
        let fixed = if fixed { elf::DF_STATIC_TLS.0 } else { 0 };
        let flags = elf::DF_BIND_NOW.0 | fixed;
        let entries = [
            (elf::DT_HASH.0, parts.hash),
            (elf::DT_STRTAB.0, parts.strings),
            (elf::DT_SYMTAB.0, parts.symbols),
            (elf::DT_STRSZ.0, parts.strings_size),
            (elf::DT_SYMENT.0, SYMBOL_SIZE),
            (elf::DT_RELA.0, parts.relas),
            (elf::DT_RELASZ.0, to_u64(self.words.len()) * RELA_SIZE),
            (elf::DT_RELAENT.0, RELA_SIZE),
            (elf::DT_FLAGS.0, flags),
            (elf::DT_NULL.0, 0),
        ];
        let mut at = to_usize(parts.dynamic);
        for (tag, value) in entries {
            put(out, at, 8, tag.cast_unsigned());
            put(out, at + 8, 8, value);
            at += 16;
        }
    }
}

/// Writes the low `width` bytes of `value` at `at`.
fn put(out: &mut [u8], at: usize, width: usize, value: u64) {
    out[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
}
