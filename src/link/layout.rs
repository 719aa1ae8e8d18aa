//! Which sections are placed, how they are grouped into requests, and at which
//! addresses if the user gave some.

use hashbrown::HashMap;

use crate::place::{CodeModel, SectionKind, SectionRequest};
use low2g_platform::align_up;
use object::elf;

use super::engine::Tables;
use super::error::{LinkError, LinkFailure};
use super::far::{SLOT_SIZE, STUB_SIZE};
use super::object::Section;
use super::options::{LinkOptions, Pin, SectionName};
use super::resolve::ExternalKind;
use super::symbols::{Definition, to_index};
use super::tls::Block;

/// An input section that has memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loaded {
    pub(crate) object: u32,
    pub(crate) section: u32,
    /// Index of its request, and its offset in it (not 0 only in clusters).
    pub(crate) request: usize,
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

/// What to ask the placer for.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    pub(crate) requests: Vec<SectionRequest>,
    pub(crate) loaded: Vec<Loaded>,
    /// Request of each common symbol, by global.
    pub(crate) commons: Vec<(u32, usize)>,
    /// Request of each cluster.
    pub(crate) clusters: Vec<usize>,
    /// The objects' own thread-local variables.
    pub(crate) tls: Block,
    /// Requests kept for `.got` and `.stubs`, if addresses are drawn.
    pub(crate) reserved: Option<(usize, usize)>,
    /// Where `--base` goes on after the sections.
    pub(crate) cursor: Option<u64>,
}

/// Pins by object and section number, and those of the link's own sections.
type Pins = HashMap<(usize, usize), u64>;

impl Layout {
    pub(crate) fn new(
        tables: &mut Tables<'_>,
        clusters: &[&[u8]],
        options: &LinkOptions,
        dry_run: bool,
    ) -> Result<Self, LinkFailure> {
        let pins = resolve_pins(tables, options)
            .map_err(|(pin, reason)| LinkFailure::from(LinkError::object(&pin.file, reason)))?;
        let mut layout = Self::default();
        if !options.is_fixed() {
            layout.reserve(tables);
        }
        let mut errors = Vec::new();
        let mut cluster_members: Vec<Vec<usize>> = vec![Vec::new(); clusters.len()];
        for (number, object) in tables.objects.iter_mut().enumerate() {
            for (index, section) in object.sections.iter_mut().enumerate() {
                if !section.is_loaded() {
                    if section.is_thread_local() {
                        layout.tls.add_section(number, index);
                    }
                    continue;
                }
                let kind = match kind_of(section) {
                    Ok(kind) => kind,
                    Err(reason) => {
                        errors.push(LinkError::object(&object.name, reason));
                        continue;
                    }
                };
                section.placed = u32::try_from(layout.loaded.len()).ok();
                let cluster = clusters.iter().position(|name| *name == section.name);
                if let Some(cluster) = cluster {
                    cluster_members[cluster].push(layout.loaded.len());
                }
                layout.loaded.push(Loaded {
                    object: u32::try_from(number).expect("fewer than 2^32 objects"),
                    section: u32::try_from(index).expect("fewer than 2^32 sections"),
                    request: layout.requests.len(),
                    offset: 0,
                    size: section.size,
                });
                if cluster.is_none() {
                    layout.requests.push(SectionRequest {
                        kind,
                        size: section.size,
                        align: section.align,
                        zero_fill: section.is_zero_fill(),
                        anywhere: options.model != CodeModel::Small && section.is_large(),
                        at: pins.get(&(number, index)).copied(),
                    });
                }
            }
        }
        for members in cluster_members {
            if let Err(error) = layout.add_cluster(tables, &members, &pins) {
                errors.push(error);
            }
        }
        layout.add_commons(tables);
        if let Err(error) = layout.tls.lay_out(tables) {
            errors.push(error);
        }
        if !errors.is_empty() {
            return Err(LinkFailure::new(errors));
        }
        if let Some(base) = options.base {
            layout.lay_out_from(base, dry_run);
        }
        Ok(layout)
    }

    /// Keeps room for a slot and a stub for every external symbol, so that most links need
    /// no further mapping for them. Slots and stubs that turn out not to be needed cost 24 bytes.
    fn reserve(&mut self, tables: &Tables<'_>) {
        let (mut slots, mut stubs) = (1, 0);
        for global in &tables.symbols.list {
            let called = match global.definition {
                Definition::External(external) => matches!(
                    external.kind,
                    ExternalKind::Function | ExternalKind::Unknown
                ),
                // Yet to be resolved.
                Definition::Undefined => !global.thread_local,
                _ => continue,
            };
            slots += 1;
            stubs += u64::from(called);
        }
        self.reserved = Some((0, 1));
        self.requests.push(SectionRequest {
            kind: SectionKind::ReadOnly,
            size: slots * SLOT_SIZE,
            align: SLOT_SIZE,
            zero_fill: false,
            anywhere: false,
            at: None,
        });
        self.requests.push(SectionRequest {
            kind: SectionKind::Code,
            size: stubs * STUB_SIZE,
            align: STUB_SIZE,
            zero_fill: false,
            anywhere: false,
            at: None,
        });
    }

    /// Sections that `__start_NAME` and `__stop_NAME` bracket are one request, in input order.
    fn add_cluster(
        &mut self,
        tables: &Tables<'_>,
        members: &[usize],
        pins: &Pins,
    ) -> Result<(), LinkError> {
        let request = self.requests.len();
        let mut whole = SectionRequest {
            kind: SectionKind::ReadOnly,
            size: 0,
            align: 1,
            zero_fill: true,
            anywhere: false,
            at: None,
        };
        for &member in members {
            let loaded = &mut self.loaded[member];
            let object = &tables.objects[to_index(loaded.object)];
            let section = &object.sections[to_index(loaded.section)];
            let refuse = |what: &str| {
                let name = section.display_name();
                LinkError::object(
                    &object.name,
                    format!(
                        "section {name}, which __start_{name} or __stop_{name} bracket, {what}"
                    ),
                )
            };
            loaded.request = request;
            // Saturation leaves a size that no window has: the placer refuses it by its size.
            loaded.offset = align_up(whole.size, section.align).unwrap_or(u64::MAX >> 1);
            whole.size = loaded.offset.saturating_add(section.size);
            whole.align = whole.align.max(section.align);
            whole.zero_fill &= section.is_zero_fill();
            let kind = kind_of(section).unwrap_or(SectionKind::Data);
            whole.kind = match (whole.kind, kind) {
                (SectionKind::ReadOnly, other) => other,
                (first, SectionKind::ReadOnly) => first,
                (first, second) if first == second => first,
                _ => {
                    return Err(refuse(
                        "holds code here and data elsewhere; give the two different names",
                    ));
                }
            };
            let pin = pins.get(&(to_index(loaded.object), to_index(loaded.section)));
            if let Some(at) = pin.map(|pin| pin.wrapping_sub(loaded.offset)) {
                if whole.at.is_some_and(|other| other != at) {
                    return Err(refuse(
                        "is given an address apart from the others; give it to the first of them only",
                    ));
                }
                whole.at = Some(at);
            }
        }
        self.clusters.push(request);
        self.requests.push(whole);
        Ok(())
    }

    fn add_commons(&mut self, tables: &Tables<'_>) {
        for (id, global) in tables.symbols.list.iter().enumerate() {
            if let Definition::Common {
                size,
                align,
                object,
                symbol,
            } = global.definition
            {
                let id = u32::try_from(id).expect("fewer than 2^32 symbols");
                let raw = tables.objects[to_index(object)]
                    .symbols()
                    .get(to_index(symbol));
                if raw.is_some_and(|raw| raw.st_type() == elf::STT_TLS) {
                    self.tls.add_common(id, size, align);
                    continue;
                }
                self.commons.push((id, self.requests.len()));
                self.requests.push(SectionRequest {
                    kind: SectionKind::Data,
                    size,
                    align: align.checked_next_power_of_two().unwrap_or(1 << 63),
                    zero_fill: true,
                    anywhere: false,
                    at: None,
                });
            }
        }
    }

    fn lay_out_from(&mut self, base: u64, dry_run: bool) {
        self.cursor = Some(base);
        let mut last = None;
        for request in &mut self.requests {
            if request.at.is_none() {
                let turn = !dry_run && last.is_some_and(|kind| kind != request.kind);
                // What runs past the last address stays where it begins: the placer refuses it.
                request.at = advance(&mut self.cursor, request, turn).or(self.cursor);
                last = Some(request.kind);
            }
        }
    }
}

/// The next address for `request` from `cursor`, which moves behind it; on a new page if `turn`.
pub(crate) fn advance(
    cursor: &mut Option<u64>,
    request: &SectionRequest,
    turn: bool,
) -> Option<u64> {
    const PAGE: u64 = 4096;
    let at = (*cursor)?;
    let align = if turn {
        request.align.max(PAGE)
    } else {
        request.align
    };
    let at = align_up(at, align)?;
    *cursor = Some(at.checked_add(request.size)?);
    Some(at)
}

/// Final access of a section, or why it cannot be had.
fn kind_of(section: &Section<'_>) -> Result<SectionKind, String> {
    let write = section.flags & elf::SHF_WRITE.0 != 0;
    if section.is_exec() && write {
        return Err(format!(
            "section {} is writable and executable; low2g never maps such pages, give code and data sections of their own",
            section.display_name()
        ));
    }
    Ok(if section.is_exec() {
        SectionKind::Code
    } else if write && !section.name.starts_with(b".data.rel.ro") {
        SectionKind::Data
    } else {
        SectionKind::ReadOnly
    })
}

/// Finds every pin's section. `Err` is the pin and what is wrong with it.
pub(crate) fn resolve_pins<'o>(
    tables: &Tables<'_>,
    options: &'o LinkOptions,
) -> Result<Pins, (&'o Pin, String)> {
    let mut pins = Pins::new();
    for pin in &options.pins {
        if pin.file == OWN_FILE {
            let known = [".got", ".stubs", ".islands", ".mirrors"];
            match &pin.section {
                SectionName::Name(name) if known.contains(&name.as_str()) => continue,
                _ => {
                    return Err((
                        pin,
                        "its sections are .got, .stubs, .islands and .mirrors".to_owned(),
                    ));
                }
            }
        }
        let object = tables
            .objects
            .iter()
            .position(|object| object.name == pin.file);
        let Some(object) = object else {
            return Err((pin, "no object of that name is part of the link".to_owned()));
        };
        let sections = &tables.objects[object].sections;
        let section = match &pin.section {
            SectionName::Index(index) => match sections.get(*index) {
                Some(section) if section.is_loaded() => *index,
                Some(section) => {
                    let name = section.display_name();
                    return Err((pin, format!("section #{index} ({name}) is not loaded")));
                }
                None => return Err((pin, format!("has {} sections, no #{index}", sections.len()))),
            },
            SectionName::Name(name) => {
                let mut found = sections
                    .iter()
                    .enumerate()
                    .filter(|(_, section)| section.name == name.as_bytes() && section.is_loaded());
                let (index, _) = found
                    .next()
                    .ok_or_else(|| (pin, format!("has no loaded section {name}")))?;
                if let Some((second, _)) = found.next() {
                    return Err((
                        pin,
                        format!(
                            "section name {name} is ambiguous: #{index} and #{second}; name it by #index"
                        ),
                    ));
                }
                index
            }
        };
        if let Some(other) = pins.insert((object, section), pin.addr)
            && other != pin.addr
        {
            let text = format!(
                "section #{section} is put at {other:#x} and at {:#x}",
                pin.addr
            );
            return Err((pin, text));
        }
    }
    Ok(pins)
}

/// The file name under which the link's own sections are pinned.
const OWN_FILE: &str = "low2g";

/// The address pinned for one of the link's own sections.
pub(crate) fn own_pin(options: &LinkOptions, name: &str) -> Option<u64> {
    options
        .pins
        .iter()
        .find(|pin| pin.file == OWN_FILE && pin.section == SectionName::Name(name.to_owned()))
        .map(|pin| pin.addr)
}
