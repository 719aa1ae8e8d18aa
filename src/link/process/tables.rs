//! The dynamic symbol tables of the loaded libraries, read where the dynamic linker put them.
//!
//! Lookup is by the GNU hash table (`DT_GNU_HASH`): a Bloom filter word, a bucket, a chain.
//! Source: glibc elf/dl-lookup.c `do_lookup_x`; binutils bfd/elflink.c for the layout.
//!
//! Invariant: addresses in a [`Library`] were given by the dynamic linker, and are read only in
//! [`Tables::search`]: while the dynamic linker holds its list of libraries, which is the list
//! they were read from. So a library that is closed, by whomever, is never looked into.

use std::ops::ControlFlow;

use crate::link::host::{self, LoadedObject, SegmentKind};
use crate::link::resolve::ExternalKind;

const SHN_ABS: u16 = 0xfff1;
const STT_OBJECT: u8 = 1;
const STT_FUNC: u8 = 2;
const STT_COMMON: u8 = 5;
const STT_TLS: u8 = 6;
const STT_GNU_IFUNC: u8 = 10;

/// Type and size of a symbol.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) kind: ExternalKind,
    pub(super) size: u64,
}

/// One loaded library's tables, by address.
#[derive(Debug, Default)]
struct Library {
    base: u64,
    symbols: u64,
    strings: u64,
    hash: u64,
    /// Executable segments: start and end.
    code: Vec<(u64, u64)>,
}

/// All of the process's.
#[derive(Debug, Default)]
pub(super) struct Tables {
    libraries: Vec<Library>,
    /// How many libraries had been loaded and unloaded when this was read.
    generation: (u64, u64),
}

/// A symbol as it stands in a dynamic symbol table.
#[derive(Clone, Copy)]
#[repr(C)]
struct RawSymbol {
    name: u32,
    info: u8,
    other: u8,
    section: u16,
    value: u64,
    size: u64,
}

impl Tables {
    fn of_process() -> Self {
        let mut tables = Self::default();
        host::each_object(&mut |object: &LoadedObject<'_>| {
            tables.generation = object.generation();
            tables.libraries.push(Library::of(object));
            ControlFlow::Continue(())
        });
        tables
    }

    /// What `search` finds in the tables as they are now: read again if libraries came or went
    /// since, and held until it is done.
    pub(super) fn search<R>(&mut self, search: impl Fn(&Self) -> R) -> R {
        let mut answer = None;
        host::each_object(&mut |first: &LoadedObject<'_>| {
            if first.generation() != self.generation {
                *self = Self::of_process();
            }
            answer = Some(search(self));
            ControlFlow::Break(())
        });
        // A dynamic linker that lists nothing has nothing to search.
        answer.unwrap_or_else(|| search(&Self::default()))
    }

    /// The definition of `name` that has the address `addr`, or is an ifunc (whose address is
    /// what its resolver answered) or thread-local (whose address is this thread's).
    pub(super) fn find(&self, name: &[u8], addr: u64) -> Option<Found> {
        let hash = gnu_hash(name);
        let mut with_hash = self.libraries.iter().filter(|library| library.hash != 0);
        with_hash.find_map(|library| {
            library.each(name, hash, &mut |symbol| {
                let here =
                    library.base.wrapping_add(symbol.value) == addr || symbol.section == SHN_ABS;
                let (kind, matches) = match symbol.info & 15 {
                    STT_GNU_IFUNC => (ExternalKind::Function, true),
                    STT_TLS => (ExternalKind::Tls, true),
                    STT_FUNC => (ExternalKind::Function, here),
                    STT_OBJECT | STT_COMMON => (ExternalKind::Data, here),
                    _ => (ExternalKind::Unknown, here),
                };
                let size = symbol.size;
                matches.then_some(Found { kind, size })
            })
        })
    }

    /// Offset in its definer's block, and size, of the thread-local variable `name`.
    pub(super) fn find_thread_local(&self, name: &[u8]) -> Option<(u64, u64)> {
        let hash = gnu_hash(name);
        let mut with_hash = self.libraries.iter().filter(|library| library.hash != 0);
        with_hash.find_map(|library| {
            let mut offset = 0;
            let found = library.each(name, hash, &mut |symbol| {
                offset = symbol.value;
                (symbol.info & 15 == STT_TLS).then_some(Found {
                    kind: ExternalKind::Tls,
                    size: symbol.size,
                })
            })?;
            Some((offset, found.size))
        })
    }

    /// For an address that no table names: code is a function.
    pub(super) fn guess(&self, addr: u64) -> Found {
        let mut code = self.libraries.iter().flat_map(|library| &library.code);
        let kind = if code.any(|&(start, end)| start <= addr && addr < end) {
            ExternalKind::Function
        } else {
            ExternalKind::Unknown
        };
        Found { kind, size: 0 }
    }
}

impl Library {
    /// Calls `visit` for every defined symbol of that name, until it answers.
    fn each(
        &self,
        name: &[u8],
        hash: u32,
        visit: &mut dyn FnMut(RawSymbol) -> Option<Found>,
    ) -> Option<Found> {
        let word = |index: u64| -> u32 { read(self.hash + 4 * index) };
        let (buckets, first, bloom_words, shift) = (
            u64::from(word(0)),
            u64::from(word(1)),
            u64::from(word(2)),
            word(3),
        );
        if buckets == 0 || bloom_words == 0 {
            return None;
        }
        let bloom = self.hash + 16;
        let filter: u64 = read(bloom + 8 * ((u64::from(hash) / 64) % bloom_words));
        let bits = (1u64 << (hash % 64)) | (1u64 << ((hash >> (shift & 31)) % 64));
        if filter & bits != bits {
            return None;
        }
        let bucket_table = bloom + 8 * bloom_words;
        let chain_table = bucket_table + 4 * buckets;
        let mut index = u64::from(read::<u32>(bucket_table + 4 * (u64::from(hash) % buckets)));
        if index < first {
            return None;
        }
        loop {
            let chained: u32 = read(chain_table + 4 * (index - first));
            if (chained ^ hash) >> 1 == 0 {
                let symbol: RawSymbol = read(self.symbols + 24 * index);
                if symbol.section != 0
                    && self.name_is(symbol.name, name)
                    && let Some(found) = visit(symbol)
                {
                    return Some(found);
                }
            }
            if chained & 1 == 1 {
                return None;
            }
            index += 1;
        }
    }

    /// Whether the string at `offset` of the string table is `name`.
    fn name_is(&self, offset: u32, name: &[u8]) -> bool {
        let start = self.strings + u64::from(offset);
        (start..)
            .zip(name)
            .all(|(at, &byte)| read::<u8>(at) == byte)
            && read::<u8>(start + low2g_platform::to_u64(name.len())) == 0
    }
}

/// Reads a value of the dynamic linker's tables.
fn read<T: Copy>(addr: u64) -> T {
    let pointer = std::ptr::with_exposed_provenance::<T>(low2g_platform::to_usize(addr));
    // SAFETY: `addr` lies in the tables of a library that stays loaded meanwhile: it comes from its
    // dynamic section (module invariant) by the format's own arithmetic; every bit pattern is a valid T here.
    unsafe { pointer.read_unaligned() }
}

/// The hash of `DT_GNU_HASH`: Bernstein's, from 5381.
fn gnu_hash(name: &[u8]) -> u32 {
    name.iter().fold(5381, |hash: u32, &byte| {
        hash.wrapping_mul(33).wrapping_add(u32::from(byte))
    })
}

impl Library {
    fn of(object: &LoadedObject<'_>) -> Self {
        let mut library = Self {
            base: object.base(),
            ..Self::default()
        };
        for segment in object.segments() {
            let end = segment.start + segment.len;
            match segment.kind {
                SegmentKind::Load if segment.executable => {
                    library.code.push((segment.start, end));
                }
                SegmentKind::Dynamic => library.read_dynamic(segment.start, end),
                SegmentKind::Load | SegmentKind::Relro => {}
            }
        }
        library
    }

    fn read_dynamic(&mut self, start: u64, end: u64) {
        let mut at = start;
        while at + 16 <= end {
            let (tag, value): (u64, u64) = (read(at), read(at + 8));
            // glibc has relocated these addresses; others (the vDSO, musl) leave them relative.
            let addr = if value < self.base {
                value + self.base
            } else {
                value
            };
            match tag {
                0 => break,
                5 => self.strings = addr,
                6 => self.symbols = addr,
                0x6fff_fef5 => self.hash = addr,
                _ => {}
            }
            at += 16;
        }
        if self.strings == 0 || self.symbols == 0 {
            self.hash = 0;
        }
    }
}
