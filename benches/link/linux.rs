//! Linking, from object bytes in memory to executable memory, against a floor in the same run.
//!
//! The floor does only what nobody can avoid: map the regions, copy their bytes (which touches
//! every page), store every relocation's value, computed beforehand, and protect. Runs
//! alternate, so that both see the same machine; medians and their ratio are printed.
//!
//! `cargo bench --bench link [-- NAME]`

#[path = "../../tests/support/mod.rs"]
#[allow(
    dead_code,
    reason = "shared with the tests, which use other parts of it"
)]
mod support;

use std::ffi::c_void;
use std::time::{Duration, Instant};

use low2g::alloc::LowAllocator;
use low2g::link::report::Report;
use low2g::link::{Input, Link, LinkOptions, Linked, ProcessSymbols};
use low2g::place::{Placer, SectionKind};
use low2g::platform::to_usize;

/// Pairs measured, after some that only warm up.
const PAIRS: usize = 60;
const WARM_UP: usize = 5;

/// A region of the floor: length, access, bytes, and stores by offset.
struct FloorRegion {
    len: usize,
    kind: SectionKind,
    bytes: Vec<u8>,
    words: Vec<(usize, u32)>,
    quads: Vec<(usize, u64)>,
}

fn link<'d>(
    inputs: &'d [Input],
    options: &'d LinkOptions,
    process: &ProcessSymbols,
    placer: &Placer,
) -> Linked<'d> {
    let mut link = Link::read(inputs, options).expect("the input reads");
    link.resolve(process);
    let placed = link.place(placer).expect("there is room");
    placed
        .relocate()
        .expect("it fits")
        .protect()
        .expect("allowed")
}

/// What the floor has to do, taken from a finished link.
fn floor_of(linked: &Linked<'_>) -> Vec<FloorRegion> {
    let report = Report::of(linked).expect("a finished link reports");
    let address = |text: &str| u64::from_str_radix(&text[2..], 16).expect("hexadecimal");
    let mut regions: Vec<(u64, FloorRegion)> = linked
        .regions()
        .map(|region| {
            let bytes = if region.zero_fill {
                Vec::new()
            } else {
                linked.read(region.range).expect("readable")
            };
            let floor = FloorRegion {
                len: to_usize(region.range.len()),
                kind: region.kind,
                bytes,
                words: Vec::new(),
                quads: Vec::new(),
            };
            (region.range.start(), floor)
        })
        .collect();
    regions.sort_by_key(|(start, _)| *start);
    for row in &report.relocations {
        let (place, value) = (address(&row.place), address(&row.value));
        let index = regions.partition_point(|(start, _)| *start <= place) - 1;
        let (start, region) = &mut regions[index];
        let offset = to_usize(place - *start);
        // R_X86_64_64, PC64, GOTOFF64 and their like have 8-byte fields.
        if row.r_type.ends_with("64") {
            region.quads.push((offset, value));
        } else {
            region
                .words
                .push((offset, u32::try_from(value & 0xffff_ffff).expect("masked")));
        }
    }
    regions.into_iter().map(|(_, region)| region).collect()
}

/// The floor itself; returns the time without the unmapping.
fn run_floor(regions: &[FloorRegion]) -> Duration {
    let start = Instant::now();
    let mut mapped: Vec<(*mut c_void, usize)> = Vec::with_capacity(regions.len());
    for region in regions {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: an anonymous mapping at an address of the kernel's choice replaces nothing.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), region.len, access, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED, "the floor's memory");
        // SAFETY: from_raw_parts_mut needs `len` writable bytes of our own: just mapped.
        let memory = unsafe { std::slice::from_raw_parts_mut(base.cast::<u8>(), region.len) };
        memory[..region.bytes.len()].copy_from_slice(&region.bytes);
        for &(offset, value) in &region.words {
            memory[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        }
        for &(offset, value) in &region.quads {
            memory[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
        }
        mapped.push((base, region.len));
    }
    for (region, &(base, len)) in regions.iter().zip(&mapped) {
        let access = match region.kind {
            SectionKind::Code => libc::PROT_READ | libc::PROT_EXEC,
            SectionKind::ReadOnly => libc::PROT_READ,
            SectionKind::Data => continue,
        };
        // SAFETY: the range was mapped above and no reference into it is alive.
        let result = unsafe { libc::mprotect(base, len, access) };
        assert_eq!(result, 0, "the floor's protection");
    }
    let elapsed = start.elapsed();
    for (base, len) in mapped {
        // SAFETY: the range was mapped above and is not used any more.
        unsafe { libc::munmap(base, len) };
    }
    elapsed
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn measure(name: &str, inputs: &[Input], process: &ProcessSymbols) {
    let placer = Placer::Mapped {
        allocator: LowAllocator::new().expect("low memory"),
        reach: None,
        min_entropy: None,
    };
    let recorded = LinkOptions {
        entry: Some("main".to_owned()),
        record: true,
        ..LinkOptions::default()
    };
    let options = LinkOptions {
        record: false,
        ..recorded.clone()
    };
    let first = link(inputs, &recorded, process, &placer);
    let relocations = Report::of(&first).expect("reports").relocations.len();
    let regions = floor_of(&first);
    drop(first);
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS + WARM_UP {
        let start = Instant::now();
        let linked = link(inputs, &options, process, &placer);
        let elapsed = start.elapsed();
        drop(linked);
        let least = run_floor(&regions);
        if pair >= WARM_UP {
            ours.push(elapsed);
            floor.push(least);
        }
    }
    let (ours, floor) = (median(ours), median(floor));
    println!(
        "{name:<28} {relocations:>8} relocations  low2g {:>9.3} ms  floor {:>8.3} ms  x{:.2}",
        ours.as_secs_f64() * 1e3,
        floor.as_secs_f64() * 1e3,
        ours.as_secs_f64() / floor.as_secs_f64()
    );
}

fn files(program: &support::inputs::Program) -> Vec<Input> {
    program
        .paths()
        .map(|path| Input::from_file(path).expect("made by the support"))
        .collect()
}

/// `count` objects of a function, a variable and a string each, every one calling the next.
fn tiny_objects(count: usize) -> Vec<Input> {
    let text = |index: usize| {
        let next = (index + 1) % count;
        format!(
            ".text\n.globl f{index}\n.type f{index},@function\nf{index}: movl g{index}(%rip),%eax\n addl $g{index},%edi\n call f{next}\n ret\n.data\n.globl g{index}\ng{index}: .quad f{index}\n.section .rodata.str1.1,\"aMS\",@progbits,1\n.string \"x{index}\"\n"
        )
    };
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tiny-{count}"));
    std::fs::create_dir_all(&folder).expect("cargo's folder can be written");
    let object = |index: usize| {
        let (source, object) = (
            folder.join(format!("t{index}.s")),
            folder.join(format!("t{index}.o")),
        );
        if !object.exists() {
            std::fs::write(&source, text(index)).expect("the folder can be written");
            let status = std::process::Command::new("as")
                .arg("-o")
                .arg(&object)
                .arg(&source)
                .status();
            assert!(
                status.expect("`as` runs").success(),
                "as {}",
                source.display()
            );
        }
        Input::from_file(&object).expect("just made")
    };
    (0..count).map(object).collect()
}

pub(super) fn main() {
    let wanted = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let wants = |name: &str| wanted.as_deref().is_none_or(|wanted| name.contains(wanted));
    let process = ProcessSymbols::new().with_exit_functions();
    if wants("sqlite3") {
        measure("sqlite3", &files(&support::inputs::sqlite()), &process);
    }
    if wants("lua") {
        measure(
            "lua (archive)",
            &files(&support::inputs::lua(&[])),
            &process,
        );
    }
    if wants("libpython") {
        match support::inputs::python() {
            Ok(program) => {
                let mut process = ProcessSymbols::new().with_exit_functions();
                for library in &program.libraries {
                    process
                        .open(library)
                        .expect("installed with libpython3.11-dev");
                }
                measure("libpython3.11 (archive)", &files(&program), &process);
            }
            Err(missing) => println!("SKIP libpython3.11: {missing}"),
        }
    }
    if wants("tiny") {
        measure("1,000 tiny objects", &tiny_objects(1000), &process);
    }
}
