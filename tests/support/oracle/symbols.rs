//! Where symbols are: those outside the objects for ld, and S for the formulas.

use std::collections::{BTreeMap, HashSet};

use super::super::dump::Dump;
use super::super::elf::{self, Symbol};
use super::super::gnu_ld::Linked;
use super::Faults;
use super::objects::Object;

pub(super) const GOT_SYMBOL: &str = "_GLOBAL_OFFSET_TABLE_";

pub(super) fn ifunc_names(objects: &[Object<'_>]) -> HashSet<String> {
    let symbols = objects.iter().flat_map(|object| &object.elf.symbols);
    let ifuncs = symbols.filter(|symbol| {
        symbol.kind == elf::STT_GNU_IFUNC
            && symbol.section != elf::SHN_UNDEF
            && symbol.binding != elf::STB_LOCAL
    });
    ifuncs.map(|symbol| symbol.name.clone()).collect()
}

/// Symbols that no object defines by a section, at the addresses that low2g found for them.
pub(super) fn outside(
    objects: &[Object<'_>],
    dump: &Dump,
    faults: &mut Faults,
) -> BTreeMap<String, u64> {
    let globals = || {
        let all = objects.iter().flat_map(|object| &object.elf.symbols);
        all.filter(|symbol| symbol.binding != elf::STB_LOCAL)
    };
    let is_inside =
        |symbol: &&Symbol| symbol.section != elf::SHN_UNDEF && symbol.section != elf::SHN_COMMON;
    let inside: HashSet<&str> = globals()
        .filter(is_inside)
        .map(|symbol| symbol.name.as_str())
        .collect();
    let outside = globals()
        .map(|symbol| symbol.name.as_str())
        .filter(|name| !inside.contains(name));
    let outside: HashSet<&str> = outside.filter(|&name| name != GOT_SYMBOL).collect();
    let mut found = BTreeMap::new();
    for row in &dump.symbols {
        let (true, Some(addr)) = (outside.contains(row.name.as_str()), row.addr) else {
            continue;
        };
        if row.binding == "local" || row.kind == "undef-weak" || row.kind == "tls" {
            continue;
        }
        if let Some(other) = found.insert(row.name.clone(), addr.0)
            && other != addr.0
        {
            faults.add(format!(
                "symbol {} is at {other:#x} and at {addr:?}",
                row.name
            ));
        }
    }
    found
}

/// The dump's global symbols are where ld has them.
pub(super) fn check(dump: &Dump, linked: &Linked, faults: &mut Faults) {
    for row in dump
        .symbols
        .iter()
        .filter(|row| row.binding != "local" && row.kind != "tls")
    {
        if row.name == GOT_SYMBOL {
            continue;
        }
        if let (Some(addr), Some(&wanted)) = (row.addr, linked.globals.get(&row.name))
            && addr.0 != wanted
        {
            faults.add(format!(
                "symbol {} ({}) is at {addr:?}, ld has it at {wanted:#x}",
                row.name, row.kind
            ));
        }
    }
}

pub(super) fn value(object: &Object<'_>, symbol: &Symbol, linked: &Linked, dump: &Dump) -> u64 {
    if symbol.name == GOT_SYMBOL {
        return dump.got_base.map_or(0, |base| base.0);
    }
    match symbol.section {
        elf::SHN_ABS => symbol.value,
        section if symbol.binding == elf::STB_LOCAL && section < elf::SHN_LORESERVE => object
            .addr(usize::from(section))
            .unwrap_or(0)
            .wrapping_add(symbol.value),
        // Weak and undefined: 0, as ld has it.
        _ => linked.globals.get(&symbol.name).copied().unwrap_or(0),
    }
}
