//! Bytes of a shared object that has nothing but absolute dynamic symbols.
//!
//! ```text
//! page 0, R:    ELF header, program headers, .gnu.hash, .dynsym, .dynstr
//! page n, RW:   .dynamic (the dynamic linker relocates its addresses in place)
//! ```
//!
//! glibc does not add the load address to SHN_ABS symbols (since 2.28). Source: gABI, "Dynamic
//! Linking"; binutils bfd/elflink.c for the layout of `DT_GNU_HASH`.

use low2g_platform::to_u64;

use crate::link::module::Export;

const PAGE: usize = 4096;
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const SYMBOL: usize = 24;
/// Symbols a hash bucket, on average.
const PER_BUCKET: usize = 4;
/// `DT_GNU_HASH` bloom filter: the second bit's shift, as GNU ld chooses it for 64 bits.
const BLOOM_SHIFT: u32 = 26;

/// A little-endian image under construction.
#[derive(Default)]
struct Image {
    bytes: Vec<u8>,
}

impl Image {
    fn at(&self) -> u64 {
        to_u64(self.bytes.len())
    }
    fn half(&mut self, value: u16) {
        self.bytes.extend(value.to_le_bytes());
    }
    fn word(&mut self, value: u32) {
        self.bytes.extend(value.to_le_bytes());
    }
    fn xword(&mut self, value: u64) {
        self.bytes.extend(value.to_le_bytes());
    }
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }
}

fn gnu_hash(name: &str) -> u32 {
    name.bytes().fold(5381, |hash: u32, byte| {
        hash.wrapping_mul(33).wrapping_add(u32::from(byte))
    })
}

fn to_u32(value: usize) -> u32 {
    u32::try_from(value).expect("a module's dynamic symbols take less than 4 GiB")
}

/// The shared object that makes `symbols` visible, of the name `soname`.
pub(super) fn image(soname: &str, symbols: &[(&str, Export)]) -> Vec<u8> {
    let buckets = symbols.len() / PER_BUCKET + 1;
    let bucket = |hash: u32| hash % to_u32(buckets);
    let mut hashed: Vec<(u32, &str, Export)> = symbols
        .iter()
        .map(|&(name, export)| (gnu_hash(name), name, export))
        .collect();
    // Symbols of a bucket stand together; names make the order the same every time.
    hashed.sort_unstable_by_key(|&(hash, name, _)| (bucket(hash), name));

    let mut out = Image::default();
    out.bytes.resize(HEADER + 3 * PROGRAM_HEADER, 0);
    let hash_at = out.at();
    put_hash(&mut out, &hashed, buckets);
    out.align(8);
    let symbols_at = out.at();
    let mut strings = vec![0];
    out.bytes.resize(out.bytes.len() + SYMBOL, 0);
    for &(_, name, export) in &hashed {
        out.word(to_u32(strings.len()));
        strings.extend(name.as_bytes());
        strings.push(0);
        // STB_GLOBAL; STT_FUNC or STT_OBJECT; default visibility; SHN_ABS.
        let kind = if export.function { 2 } else { 1 };
        out.bytes.extend([1 << 4 | kind, 0]);
        out.half(0xfff1);
        out.xword(export.addr);
        out.xword(export.size);
    }
    let strings_at = out.at();
    let soname_at = to_u64(strings.len());
    strings.extend(soname.as_bytes());
    strings.push(0);
    out.bytes.extend(&strings);
    let end = out.at();
    out.align(PAGE);
    let dynamic_at = out.at();
    for (tag, value) in [
        (14, soname_at),             // DT_SONAME
        (0x6fff_fef5, hash_at),      // DT_GNU_HASH
        (5, strings_at),             // DT_STRTAB
        (6, symbols_at),             // DT_SYMTAB
        (10, to_u64(strings.len())), // DT_STRSZ
        (11, to_u64(SYMBOL)),        // DT_SYMENT
        (0, 0),                      // DT_NULL
    ] {
        out.xword(tag);
        out.xword(value);
    }
    put_headers(&mut out, end, dynamic_at);
    out.bytes
}

/// `DT_GNU_HASH`: header, bloom filter, buckets, chains.
fn put_hash(out: &mut Image, hashed: &[(u32, &str, Export)], buckets: usize) {
    let words = (hashed.len() / 4).next_power_of_two();
    let mut bloom = vec![0u64; words];
    let mut first = vec![0u32; buckets];
    for (index, &(hash, ..)) in hashed.iter().enumerate() {
        let word = usize::try_from(hash / 64).expect("32 bits fit") & (words - 1);
        bloom[word] |= 1 << (hash % 64) | 1 << ((hash >> BLOOM_SHIFT) % 64);
        let bucket = usize::try_from(hash).expect("32 bits fit") % buckets;
        if first[bucket] == 0 {
            // Symbol 0 is none; the first of ours is number 1.
            first[bucket] = to_u32(index + 1);
        }
    }
    out.word(to_u32(buckets));
    out.word(1);
    out.word(to_u32(words));
    out.word(BLOOM_SHIFT);
    bloom.iter().for_each(|&word| out.xword(word));
    first.iter().for_each(|&index| out.word(index));
    for (index, &(hash, ..)) in hashed.iter().enumerate() {
        let next = hashed
            .get(index + 1)
            .map(|&(next, ..)| next % to_u32(buckets));
        let last = next != Some(hash % to_u32(buckets));
        out.word(hash & !1 | u32::from(last));
    }
}

fn put_headers(out: &mut Image, read_only: u64, dynamic_at: u64) {
    let size = out.at() - dynamic_at;
    let mut head = Image::default();
    head.bytes.extend(b"\x7fELF\x02\x01\x01");
    head.align(16);
    head.half(3); // ET_DYN
    head.half(62); // EM_X86_64
    head.word(1);
    head.xword(0); // entry
    head.xword(to_u64(HEADER)); // program headers
    head.xword(0); // no section headers
    head.word(0);
    for value in [to_u64(HEADER), to_u64(PROGRAM_HEADER), 3, 64, 0, 0] {
        head.half(u16::try_from(value).expect("constants below 65536"));
    }
    // PT_LOAD R, PT_LOAD RW, PT_DYNAMIC RW.
    for (kind, flags, at, len, align) in [
        (1, 4, 0, read_only, to_u64(PAGE)),
        (1, 6, dynamic_at, size, to_u64(PAGE)),
        (2, 6, dynamic_at, size, 8),
    ] {
        head.word(kind);
        head.word(flags);
        for value in [at, at, at, len, len, align] {
            head.xword(value);
        }
    }
    out.bytes[..head.bytes.len()].copy_from_slice(&head.bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::endian::LittleEndian as LE;
    use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};

    fn export(addr: u64) -> Export {
        Export {
            addr,
            size: 8,
            function: addr & 1 == 1,
        }
    }

    /// A lookup by the hash table alone, as the gABI's GNU extension describes it.
    fn find(
        image: &[u8],
        hash_at: usize,
        symbols_at: usize,
        strings_at: usize,
        name: &str,
    ) -> Option<u64> {
        let word = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().expect("4"));
        let xword = |at: usize| u64::from_le_bytes(image[at..at + 8].try_into().expect("8"));
        let index = |at: usize| usize::try_from(word(at)).expect("small");
        let (buckets, words) = (index(hash_at), index(hash_at + 8));
        let hash = gnu_hash(name);
        let bloom = xword(hash_at + 16 + 8 * (usize::try_from(hash / 64).expect("small") % words));
        if bloom >> (hash % 64) & bloom >> ((hash >> 26) % 64) & 1 == 0 {
            return None;
        }
        let first = hash_at + 16 + 8 * words;
        let mut number = index(first + 4 * (usize::try_from(hash).expect("small") % buckets));
        while number != 0 {
            let chain = word(first + 4 * buckets + 4 * (number - 1));
            let symbol = symbols_at + SYMBOL * number;
            let text = &image[strings_at + index(symbol)..];
            if chain | 1 == hash | 1 && text.starts_with(format!("{name}\0").as_bytes()) {
                return Some(xword(symbol + 8));
            }
            number = if chain & 1 == 1 { 0 } else { number + 1 };
        }
        None
    }

    #[test]
    fn every_symbol_is_found_by_hash_and_no_other() {
        for count in [0, 1, 2, 5, 100, 3000] {
            let names: Vec<String> = (0..count).map(|n| format!("symbol_{n}")).collect();
            let symbols: Vec<(&str, Export)> = names
                .iter()
                .zip(0x1000_0000..)
                .map(|(name, addr)| (name.as_str(), export(addr)))
                .collect();
            let bytes = image("libtest.so", &symbols);
            let header = object::elf::FileHeader64::<LE>::parse(&*bytes).expect("ELF");
            let segments = header.program_headers(LE, &*bytes).expect("segments");
            let dynamic = segments[2].dynamic(LE, &*bytes).expect("in the file");
            let dynamic = dynamic.expect("PT_DYNAMIC");
            let at = |tag: i64| {
                let found = dynamic.iter().find(|entry| entry.d_tag.get(LE).0 == tag);
                usize::try_from(found.expect("present").d_val(LE)).expect("small")
            };
            let (hash, symtab, strings) = (at(0x6fff_fef5), at(6), at(5));
            for &(name, export) in &symbols {
                assert_eq!(find(&bytes, hash, symtab, strings, name), Some(export.addr));
            }
            for name in ["", "symbol_", "symbol_3000", "other"] {
                assert_eq!(find(&bytes, hash, symtab, strings, name), None, "{name}");
            }
        }
    }
}
