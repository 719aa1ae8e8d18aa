//! Constructors and destructors: which functions run, in which order.
//!
//! Order as GNU ld lays them out and glibc runs them: `.preinit_array`; then
//! `.init_array.N` and `.ctors.M` (N = 65535 - M) by ascending N; then `.init_array` and
//! `.ctors`, in input order, each `.ctors` from its end; destructors in the reverse order.

use low2g_platform::AddrRange;
use object::elf;

use super::linked::Linked;
use super::symbols::to_index;

/// Addresses of functions in the order in which they are to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct InitLists {
    pub(crate) init: Vec<u64>,
    pub(crate) fini: Vec<u64>,
}

/// Priority of arrays without a number: after all that have one.
const LAST: u32 = 65_536;

impl InitLists {
    pub(crate) fn collect(linked: &Linked<'_>) -> Self {
        let mut init: Vec<(u32, Vec<u64>)> = Vec::new();
        let mut fini: Vec<(u32, Vec<u64>)> = Vec::new();
        let mut preinit = Vec::new();
        for (loaded, &addr) in linked.layout.loaded.iter().zip(&linked.addrs) {
            let object = &linked.tables.objects[to_index(loaded.object)];
            let section = &object.sections[to_index(loaded.section)];
            let name = section.name;
            let words = || words(linked, addr, loaded.size);
            let array = |kind: elf::SectionType| section.sh_type == kind.0;
            if array(elf::SHT_PREINIT_ARRAY) {
                preinit.extend(words());
            } else if array(elf::SHT_INIT_ARRAY) || name.starts_with(b".init_array") {
                init.push((number(name, b".init_array."), words()));
            } else if array(elf::SHT_FINI_ARRAY) || name.starts_with(b".fini_array") {
                fini.push((number(name, b".fini_array."), words()));
            } else if name == b".ctors" || name.starts_with(b".ctors.") {
                let mut list = words();
                list.reverse();
                init.push((reversed(number(name, b".ctors.")), list));
            } else if name == b".dtors" || name.starts_with(b".dtors.") {
                let mut list = words();
                list.reverse();
                fini.push((reversed(number(name, b".dtors.")), list));
            }
        }
        init.sort_by_key(|(priority, _)| *priority);
        fini.sort_by_key(|(priority, _)| *priority);
        let flat = |list: Vec<(u32, Vec<u64>)>| list.into_iter().flat_map(|(_, words)| words);
        let mut fini: Vec<u64> = flat(fini).collect();
        fini.reverse();
        Self {
            init: preinit.into_iter().chain(flat(init)).collect(),
            fini,
        }
    }
}

/// The priority in a section's name.
fn number(name: &[u8], prefix: &[u8]) -> u32 {
    name.strip_prefix(prefix)
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| digits.parse().ok())
        .map_or(LAST, |number: u32| number.min(LAST))
}

/// `.ctors.M` counts the other way round.
const fn reversed(number: u32) -> u32 {
    if number >= LAST {
        LAST
    } else {
        65_535 - number
    }
}

/// The array's entries; 0 and -1 mark ends in `.ctors` and stand for nothing elsewhere.
fn words(linked: &Linked<'_>, addr: u64, size: u64) -> Vec<u64> {
    let bytes = AddrRange::at(addr, size).and_then(|range| linked.memory.read(range));
    bytes
        .unwrap_or_default()
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().expect("chunks of 8")))
        .filter(|&word| word != 0 && word != u64::MAX)
        .collect()
}
