//! `low2g map`: a picture of the low 2 GiB.

use std::fmt::Write as _;
use std::io::Write as _;

use low2g::alloc::{LowAllocator, SnapshotRegion, Use};
use low2g::link::PlacedSection;
use low2g::platform::{AddrRange, Holder};

use super::args::{Common, MapArgs};
use super::setup::Setup;
use super::{Failure, svg, table};

/// What the picture shows: all that a signed 32-bit address reaches.
pub(crate) const LOW: u64 = 1 << 31;
/// Cells of the picture, 16 MiB each.
const CELLS: usize = 128;
const CELL: u64 = LOW / 128;
/// Below this no user mapping can lie (`vm.mmap_min_addr`, and the floor of hints).
const FIRST: u64 = 64 << 10;

/// A region to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) range: AddrRange,
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    pub(crate) prot: String,
}

const fn kind_of(usage: Use) -> &'static str {
    use low2g::alloc::Kind;
    match usage {
        Use::Free => "free",
        Use::Ours(Kind::Section | Kind::Block) => "section",
        Use::Ours(Kind::Reservation) => "reserved",
        Use::Ours(Kind::Arena | Kind::CodeArena | Kind::WriteView) => "arena",
        Use::Held(Holder::Executable) => "exe",
        Use::Held(Holder::Brk) => "brk",
        Use::Held(Holder::Stack) => "stack",
        Use::Held(Holder::Library) => "library",
        Use::Held(Holder::System) => "reserved",
        Use::Held(Holder::Mapping | Holder::Unknown) => "mapping",
    }
}

fn row(region: SnapshotRegion) -> Row {
    Row {
        range: region.range,
        kind: kind_of(region.usage),
        name: region.label,
        prot: region.access,
    }
}

/// Regions that tile [0, 2 GiB), from a snapshot of the same range.
fn tile(snapshot: Vec<SnapshotRegion>) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for mut row in snapshot.into_iter().map(row) {
        if row.kind == "free" && row.range.start() < FIRST {
            let split = FIRST.min(row.range.end());
            if let (Some(low), Some(high)) = (
                AddrRange::new(row.range.start(), split),
                AddrRange::new(split, row.range.end()),
            ) {
                rows.push(Row {
                    range: low,
                    kind: "reserved",
                    name: "never mapped".to_owned(),
                    prot: String::new(),
                });
                row.range = high;
            }
        }
        if !row.range.is_empty() {
            rows.push(row);
        }
    }
    rows
}

/// The low 2 GiB of this process.
pub(crate) fn own(allocator: &LowAllocator) -> Result<Vec<Row>, Failure> {
    let range = AddrRange::new(0, LOW).expect("0 is below 2 GiB");
    let snapshot = allocator
        .snapshot_of(range)
        .map_err(|error| Failure::Other(error.to_string()))?;
    Ok(tile(snapshot))
}

/// Puts the names of sections on the regions that hold them.
pub(crate) fn name_sections(rows: &mut [Row], sections: &[PlacedSection]) {
    for row in rows {
        let inside: Vec<&PlacedSection> = sections
            .iter()
            .filter(|section| section.size > 0 && row.range.contains(section.addr))
            .collect();
        if let Some(first) = inside.first() {
            row.name = format!("{}({})", first.object, first.section);
            if inside.len() > 1 {
                let _ = write!(row.name, " and {} more", inside.len() - 1);
            }
        }
    }
}

/// The picture: a cell for every 16 MiB, then a line for every region that is not free.
pub(crate) fn picture(rows: &[Row]) -> String {
    let mut cells = [' '; CELLS];
    for (index, cell) in cells.iter_mut().enumerate() {
        let start = CELL * low2g::platform::to_u64(index);
        let Some(range) = AddrRange::at(start, CELL) else {
            continue;
        };
        *cell = rows
            .iter()
            .filter(|row| row.range.overlaps(range))
            .map(|row| symbol(row.kind))
            .max_by_key(|symbol| rank(*symbol))
            .unwrap_or(' ');
    }
    let mut text = String::new();
    for (line, chunk) in cells.chunks(CELLS / 2).enumerate() {
        let start = LOW / 2 * low2g::platform::to_u64(line);
        let _ = writeln!(text, "{start:#012x} |{}|", chunk.iter().collect::<String>());
    }
    text.push_str("  one cell 16 MiB: . free, S section, A arena, x executable, b brk, m mapping, l library, s stack, - reserved\n");
    for row in rows.iter().filter(|row| row.kind != "free") {
        let _ = writeln!(
            text,
            "  {:#010x}-{:#010x} {:>10} {:<8} {:<4} {}",
            row.range.start(),
            row.range.end(),
            table::bytes(row.range.len()),
            row.kind,
            row.prot,
            row.name
        );
    }
    let free: u64 = rows
        .iter()
        .filter(|row| row.kind == "free")
        .map(|row| row.range.len())
        .sum();
    let largest = rows
        .iter()
        .filter(|row| row.kind == "free")
        .map(|row| row.range.len())
        .max();
    let _ = writeln!(
        text,
        "  free {}, largest hole {}",
        table::bytes(free),
        table::bytes(largest.unwrap_or(0))
    );
    text
}

fn symbol(kind: &str) -> char {
    match kind {
        "free" => '.',
        "section" => 'S',
        "arena" => 'A',
        "exe" => 'x',
        "brk" => 'b',
        "library" => 'l',
        "stack" => 's',
        "reserved" => '-',
        _ => 'm',
    }
}

/// What a cell shows if several kinds share it.
const fn rank(symbol: char) -> u8 {
    match symbol {
        'S' => 9,
        'A' => 8,
        'x' => 7,
        'l' => 6,
        'm' => 5,
        's' => 4,
        'b' => 3,
        '.' => 2,
        '-' => 1,
        _ => 0,
    }
}

pub(crate) fn map(args: &MapArgs) -> Result<(), Failure> {
    let rows = if let Some(pid) = args.pid {
        of_process(pid)?
    } else if args.files.is_empty() {
        own(&LowAllocator::new()?)?
    } else {
        with_files(args)?
    };
    if let Some(path) = &args.svg {
        std::fs::write(path, svg::picture(&rows))
            .map_err(|error| Failure::Other(format!("cannot write {}: {error}", path.display())))?;
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        let regions: Vec<serde_json::Value> = rows
            .iter()
            .map(|row| {
                serde_json::json!({
                    "start": format!("{:#x}", row.range.start()),
                    "end": format!("{:#x}", row.range.end()),
                    "kind": row.kind,
                    "name": row.name,
                    "prot": row.prot,
                })
            })
            .collect();
        let document = serde_json::json!({"format": "low2g-map/1", "regions": regions});
        writeln!(out, "{document}")?;
    } else {
        write!(out, "{}", picture(&rows))?;
    }
    Ok(())
}

/// Places objects, and shows them in place.
fn with_files(args: &MapArgs) -> Result<Vec<Row>, Failure> {
    use clap::Parser as _;
    #[derive(clap::Parser)]
    struct Only {
        #[command(flatten)]
        common: Common,
    }
    let words = std::iter::once("map".into())
        .chain(args.files.iter().map(|path| path.as_os_str().to_owned()));
    let common = Only::try_parse_from(words)
        .map_err(|error| Failure::Usage(error.to_string()))?
        .common;
    let mut setup = Setup::for_run(&common)?;
    let inputs = setup.read(&args.files)?;
    let linked = setup.link(&inputs)?;
    let Some(allocator) = setup.allocator() else {
        return Err(Failure::Other(
            "a map of a dry run has nothing to show".to_owned(),
        ));
    };
    let mut rows = own(allocator)?;
    name_sections(&mut rows, &linked.sections());
    Ok(rows)
}

/// The low 2 GiB of another process, from the system's map of it.
fn of_process(pid: u32) -> Result<Vec<Row>, Failure> {
    let path = format!("/proc/{pid}/maps");
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Failure::Other(format!("process {pid}: cannot read {path}: {error}")))?;
    let executable = std::fs::read_link(format!("/proc/{pid}/exe"))
        .map(|path| path.to_string_lossy().into_owned())
        .unwrap_or_default();
    let mut snapshot = Vec::new();
    let mut end = 0;
    for line in text.lines() {
        let Some(region) = parse_line(line, &executable) else {
            continue;
        };
        if region.range.start() >= LOW {
            break;
        }
        let range = AddrRange::new(region.range.start(), region.range.end().min(LOW));
        let (Some(range), Some(gap)) = (range, AddrRange::new(end, region.range.start())) else {
            continue;
        };
        if !gap.is_empty() {
            snapshot.push(free(gap));
        }
        end = range.end();
        snapshot.push(SnapshotRegion { range, ..region });
    }
    if let Some(rest) = AddrRange::new(end, LOW).filter(|rest| !rest.is_empty()) {
        snapshot.push(free(rest));
    }
    Ok(tile(snapshot))
}

const fn free(range: AddrRange) -> SnapshotRegion {
    SnapshotRegion {
        range,
        usage: Use::Free,
        label: String::new(),
        access: String::new(),
    }
}

/// `START-END rwxp OFFSET DEV INODE  PATH`
fn parse_line(line: &str, executable: &str) -> Option<SnapshotRegion> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let access = fields.next()?.to_owned();
    let name = fields.skip(3).collect::<Vec<_>>().join(" ");
    let holder = match name.as_str() {
        "[heap]" => Holder::Brk,
        "[stack]" => Holder::Stack,
        "" => Holder::Mapping,
        path if path == executable => Holder::Executable,
        path if path.starts_with('/') => Holder::Library,
        _ => Holder::Mapping,
    };
    Some(SnapshotRegion {
        range: AddrRange::new(
            u64::from_str_radix(start, 16).ok()?,
            u64::from_str_radix(end, 16).ok()?,
        )?,
        usage: Use::Held(holder),
        label: name,
        access,
    })
}
