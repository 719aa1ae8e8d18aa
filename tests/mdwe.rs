//! Modules load where the process may not make written memory executable (`PR_SET_MDWE`).
//! In a test binary of its own: the setting is for good.

#![cfg(target_os = "linux")]

use low2g::alloc::{AllocError, LowAllocator};
use low2g::link::{Input, Session};
use low2g::place::{PlaceError, Placer, SectionKind, SectionRequest};

#[test]
fn a_module_loads_under_mdwe() {
    const PR_SET_MDWE: libc::c_int = 65;
    const PR_MDWE_REFUSE_EXEC_GAIN: libc::c_ulong = 1;
    let none: libc::c_ulong = 0;
    // SAFETY: prctl with this option reads its integer arguments only.
    let set = unsafe { libc::prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, none, none, none) };
    if set != 0 {
        let error = std::io::Error::last_os_error();
        eprintln!("SKIP: prctl(PR_SET_MDWE) needs Linux 6.3: {error}");
        return;
    }
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/demo/demo.o");
    let session = Session::new().expect("low memory");
    for _ in 0..8 {
        let input = Input::from_file(demo).expect("part of the tree");
        // SAFETY: demo.o has no constructors.
        let module = unsafe { session.load(&[input]) }.expect("loads through two views");
        // SAFETY: `long demo_sum(int)`; the module is alive.
        let sum = unsafe { module.function::<extern "C" fn(i32) -> i64>("demo_sum") };
        assert_eq!(sum.expect("exported")(3), 14);
    }
    a_minimum_holds_for_code();
}

/// Code that takes two views answers to the placer's minimum as everything else does.
fn a_minimum_holds_for_code() {
    let allocator = LowAllocator::new().expect("low memory");
    let code = SectionRequest {
        kind: SectionKind::Code,
        size: 4096,
        align: 16,
        zero_fill: false,
        anywhere: false,
        at: None,
    };
    let place = |min_entropy| {
        let placer = Placer::Mapped {
            allocator: allocator.clone(),
            reach: None,
            min_entropy,
        };
        placer.place(&[code])
    };
    drop(place(Some(8.0)).expect("far more bits than that"));
    let error = place(Some(40.0)).expect_err("there are 2^19 pages");
    assert!(
        matches!(
            error,
            PlaceError::Section {
                index: 0,
                source: AllocError::EntropyTooLow { minimum: 40.0, .. }
            }
        ),
        "{error}"
    );
}
