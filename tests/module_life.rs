//! A module's life in this process: where it lies, what its pages allow, what it leaves behind.

use std::collections::BTreeSet;

use low2g::alloc::LowAllocator;
use low2g::link::{FarData, Input, Link, LinkOptions, ProcessSymbols, Session};
use low2g::place::Placer;

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/demo/demo.o");

fn demo() -> Input {
    Input::from_file(DEMO).expect("the demo's object is part of the tree")
}

/// Lines of the process's map below 2 GiB; the anchor page comes with the first claim and stays.
fn low_maps() -> BTreeSet<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc is there");
    maps.lines()
        .filter(|line| {
            let start = line.split('-').next().unwrap_or_default();
            u64::from_str_radix(start, 16).is_ok_and(|start| (0x2_0000..1 << 31).contains(&start))
        })
        .map(str::to_owned)
        .collect()
}

/// No page of the process is writable and executable.
fn assert_w_xor_x(when: &str) {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc is there");
    for line in maps.lines() {
        let access = line.split(' ').nth(1).unwrap_or_default();
        assert!(
            !access.starts_with("rwx") && !access.starts_with("-wx"),
            "{when}: {line}"
        );
    }
}

/// One test, since all look at one process's map.
#[test]
fn a_module_lives_low_keeps_w_xor_x_and_leaves_nothing() {
    let session = Session::new().expect("low memory");
    // SAFETY: demo.o has no constructors.
    drop(unsafe { session.load(&[demo()]) }.expect("loads"));
    let before = low_maps();
    let mut places = BTreeSet::new();
    for round in 0..64 {
        // SAFETY: as above.
        let module = unsafe { session.load(&[demo()]) }.expect("loads");
        assert_w_xor_x("loaded");
        for (name, export) in module.symbols() {
            let end = export.addr + export.size;
            assert!(
                (0x100_0000..0x7f00_0000).contains(&export.addr) && end <= 0x7f00_0000,
                "{name}"
            );
        }
        // SAFETY: `long demo_sum(int)`; the module is alive.
        let sum = unsafe { module.function::<extern "C" fn(i32) -> i64>("demo_sum") };
        assert_eq!(sum.expect("exported")(8), 204);
        places.insert(module.symbol("squares").expect("exported").addr);
        assert!(module.symbol("no_such_name").is_none());
        // SAFETY: never called, and asks for a data symbol.
        assert!(unsafe { module.function::<extern "C" fn()>("squares") }.is_none());
        drop(module);
        assert_eq!(low_maps(), before, "round {round} left something");
    }
    assert!(
        places.len() > 60,
        "64 draws of 19 bits gave {} places",
        places.len()
    );

    failures_leave_nothing(&before);
    steps_keep_w_xor_x();
    assert_eq!(low_maps(), before);
}

/// Whatever step fails, all is given back.
fn failures_leave_nothing(before: &BTreeSet<String>) {
    let options = LinkOptions {
        far_data: FarData::Error,
        ..LinkOptions::default()
    };
    let session = Session::new().expect("low memory").options(options);
    // SAFETY: does not get so far as to run anything.
    let error = unsafe { session.load(&[demo()]) }.expect_err("stdout is far");
    assert!(error.to_string().contains("stdout"), "{error}");
    assert_eq!(&low_maps(), before, "a relocation that does not fit");

    let session = Session::new().expect("low memory");
    // SAFETY: as above.
    let error = unsafe { session.load(&[demo(), demo()]) }.expect_err("everything twice");
    assert!(error.to_string().contains("duplicate_symbol"), "{error}");
    assert_eq!(&low_maps(), before, "duplicate symbols");
}

/// At no step of a link is a page writable and executable.
fn steps_keep_w_xor_x() {
    let placer = Placer::Mapped {
        allocator: LowAllocator::new().expect("low memory"),
        reach: None,
        min_entropy: None,
    };
    let (inputs, options, process) = ([demo()], LinkOptions::default(), ProcessSymbols::new());
    let mut link = Link::read(&inputs, &options).expect("reads");
    assert!(link.resolve(&process).is_empty(), "libc has all");
    let placed = link.place(&placer).expect("room");
    assert_w_xor_x("placed");
    let relocated = placed.relocate().expect("fits");
    assert_w_xor_x("relocated");
    let linked = relocated.protect().expect("allowed");
    assert_w_xor_x("protected");
    drop(linked);
    assert_w_xor_x("dropped");
}
