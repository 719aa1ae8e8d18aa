//! The dump's rows of what the link adds: slots, stubs, islands, thread-local storage.

use crate::link::linked::Linked;
use crate::link::symbols::to_index;
use crate::link::tls::Mode;
use crate::link::value::{self, IFUNC};

use super::hex;
use super::rows::{GotRow, StubRow, TlsRow};

pub(super) fn got(linked: &Linked<'_>) -> Vec<GotRow> {
    let mut rows = Vec::new();
    for entry in &linked.plan.entries {
        let Some(slot) = entry.slot else { continue };
        for &user in &entry.slot_users {
            rows.push(GotRow {
                object: linked.tables.objects[to_index(user)].name.clone(),
                symbol: linked.key_name(entry.key),
                addr: hex(linked.slot_addr(slot)),
                kind: "addr",
            });
        }
    }
    for slot in &linked.tls.slots {
        for &(user, symbol) in &slot.users {
            let object = &linked.tables.objects[to_index(user)];
            rows.push(GotRow {
                object: object.name.clone(),
                symbol: object.symbol_display(to_index(symbol)),
                addr: hex(linked.slot_addr(slot.number)),
                kind: slot.kind.name(),
            });
        }
    }
    rows
}

pub(super) fn stubs(linked: &Linked<'_>) -> Vec<StubRow> {
    let mut rows = Vec::new();
    for entry in &linked.plan.entries {
        if let Some(mirror) = entry.mirror {
            let mirror = to_index(mirror);
            let addr = match linked.mirrors.addrs.get(mirror) {
                Some(&addr) => addr,
                None => linked.own.mirrors.1 + linked.plan.mirrors[mirror].offset,
            };
            for &user in &entry.mirror_users {
                rows.push(StubRow {
                    object: linked.tables.objects[to_index(user)].name.clone(),
                    symbol: linked.key_name(entry.key),
                    addr: hex(addr),
                    section: ".mirrors".to_owned(),
                    kind: "mirror",
                    target: hex(entry.value.addr),
                    place: None,
                });
            }
        }
        let Some(stub) = entry.stub else { continue };
        for &user in &entry.stub_users {
            rows.push(StubRow {
                object: linked.tables.objects[to_index(user)].name.clone(),
                symbol: linked.key_name(entry.key),
                addr: hex(linked.stub_addr(stub)),
                section: ".stubs".to_owned(),
                kind: if entry.value.has(IFUNC) {
                    "ifunc"
                } else if entry.value.has(value::EXTERNAL) {
                    "plt"
                } else {
                    "veneer"
                },
                target: hex(entry.value.addr),
                place: None,
            });
        }
    }
    for island in &linked.plan.islands {
        let object = &linked.tables.objects[to_index(island.object)];
        let section = &object.sections[to_index(island.section)];
        let start = section
            .placed
            .map_or(0, |placed| linked.addrs[to_index(placed)]);
        for item in &island.relocations {
            let symbol = crate::link::apply::fields(&item.rela).symbol;
            rows.push(StubRow {
                object: object.name.clone(),
                symbol: object.symbol_display(to_index(symbol)),
                addr: hex(linked.own.islands.1 + island.offset),
                section: ".islands".to_owned(),
                kind: "island",
                target: hex(item.value.addr),
                place: Some(hex(start + low2g_platform::to_u64(island.insn))),
            });
        }
    }
    rows
}

pub(super) fn tls_row(linked: &Linked<'_>) -> TlsRow {
    let block = &linked.layout.tls;
    let (mode, offset) = match linked.tls.mode {
        Mode::None => return TlsRow::default(),
        Mode::Static { offset } => ("static", offset),
        Mode::Pool { offset } => ("pool", offset),
        Mode::Dynamic => ("dynamic", 0),
    };
    TlsRow {
        mode,
        modid: linked.tls.module,
        offset: offset.cast_signed(),
        size: block.size,
        align: block.align,
    }
}
