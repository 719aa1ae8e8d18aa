//! The contract suite: the same checks on the running system and on simulated ones.

mod common;

use common::suite::{exact, hinted, suite, views};
use common::{OnClaims, alone, count_in_units_of, pages, range};
use low2g_platform::macos::Machine;
use low2g_platform::sim::{
    BoundedAlloc, FreeBsdOptions, LowMemory, MacOsOptions, SimOptions, Simulated, WindowsOptions,
};
use low2g_platform::{AddrRange, Platform, Protection, native, sim};

/// Each test of the running system has an area of its own: they share one process.
fn native_area(number: u64) -> AddrRange {
    AddrRange::at(0x1000_0000 + number * 0x100_0000, 0x40_0000).expect("low")
}

#[test]
fn running_system() {
    let _alone = alone();
    suite(
        &*native().expect("this system has low memory"),
        native_area(0).start(),
    );
}

#[test]
fn running_system_high() {
    let _alone = alone();
    let platform = native().expect("this system has low memory");
    let hint = range(0x2000_0000_0000, 0x2000_0100_0000);
    assert!(hint.end() <= platform.config().user_end);
    count_in_units_of(&*platform);
    exact(&*platform, hint);
    views(&*platform, hint);
    hinted(&*platform, hint);
}

#[test]
fn running_system_sealed_pages_stay() {
    let _alone = alone();
    let platform = native().expect("this system has low memory");
    count_in_units_of(&*platform);
    let claim = pages(native_area(2), 0, 1);
    platform.claim_exact(claim, Protection::Read).expect("free");
    match platform.finalize(claim) {
        Ok(()) => {
            assert!(platform.config().capabilities.seal);
            platform
                .set_access(claim, Protection::ReadWrite)
                .expect_err("final");
            platform.give_back(claim).expect_err("final");
        }
        Err(error) => {
            assert!(!platform.config().capabilities.seal, "{error}");
            platform.give_back(claim).expect("ours");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn running_system_shares_one_anchor() {
    let _alone = alone();
    let first = low2g_platform::linux::native().expect("this system has low memory");
    let claim = pages(native_area(3), 0, 1);
    first.claim_exact(claim, Protection::None).expect("free");
    first.give_back(claim).expect("ours");
    let window = first
        .config()
        .low_window
        .clone()
        .expect("Linux has low memory");
    let bottom = AddrRange::at(window.start(), common::PAGE).expect("low");
    assert_eq!(
        common::survey(&first, bottom).len(),
        1,
        "somebody holds the bottom page"
    );
    if let Some(anchor) = first.anchor() {
        let held = first.describe(anchor).expect("the map can be read");
        assert_eq!(held[0].name, "[low2g anchor]");
        assert_eq!(held[0].access, "---p");
    }
}

/// Where simulated systems are asked: low, and where there is no low memory.
const SIMULATED: u64 = 0x1000_0000;
const HIGH: u64 = 0x20_0000_0000;

/// The suite on a simulated system, which then holds nothing of the backend's any more.
fn check(name: &str, platform: impl Platform, kernel: &dyn Simulated, start: u64) {
    assert!(platform.is_simulated());
    suite(&platform, start);
    drop(platform);
    assert_eq!(kernel.leaked(), [], "{name}");
    assert_eq!(kernel.open_files(), 0, "{name}");
}

#[test]
fn simulated_kernels() {
    let base = SimOptions::default;
    let cases = [
        ("recent", base()),
        (
            "non-PIE",
            SimOptions {
                low: LowMemory::NonPie { brk: 0x0123_4000 },
                ..base()
            },
        ),
        (
            "6.2: no MFD_EXEC, mseal, ioctl",
            SimOptions {
                kernel: (6, 2),
                ..base()
            },
        ),
        (
            "5.4: no populate",
            SimOptions {
                kernel: (5, 4),
                ..base()
            },
        ),
        (
            "4.14: no NOREPLACE",
            SimOptions {
                kernel: (4, 14),
                ..base()
            },
        ),
        (
            "memfd_noexec",
            SimOptions {
                memfd_noexec: 2,
                ..base()
            },
        ),
    ];
    for (name, options) in cases {
        println!("Linux, {name}: {options:?}");
        let platform = sim::linux(options);
        let kernel = platform.kernel().clone();
        check(name, platform, &kernel, SIMULATED);
    }
}

#[test]
fn simulated_freebsd() {
    let base = FreeBsdOptions::default;
    let cases = [
        ("recent", base()),
        (
            "non-PIE",
            FreeBsdOptions {
                low: LowMemory::NonPie { brk: 0x0123_4000 },
                ..base()
            },
        ),
        (
            "without address-space randomization",
            FreeBsdOptions {
                aslr: false,
                ..base()
            },
        ),
        (
            "vm.imply_prot_max",
            FreeBsdOptions {
                imply_prot_max: true,
                ..base()
            },
        ),
        (
            "without MAP_32BIT",
            FreeBsdOptions {
                map_32bit: false,
                ..base()
            },
        ),
        (
            "hardened",
            FreeBsdOptions {
                exec_gain: false,
                ..base()
            },
        ),
    ];
    for (name, options) in cases {
        println!("FreeBSD, {name}: {options:?}");
        let platform = sim::freebsd(options);
        let kernel = platform.kernel().clone();
        check(name, platform, &kernel, SIMULATED);
    }
}

#[test]
fn simulated_macos() {
    let shrunk = || MacOsOptions {
        pagezero: 0x1_0000,
        ..MacOsOptions::default()
    };
    let cases = [
        ("x86-64, linked for low memory", shrunk(), SIMULATED),
        ("x86-64, as usually linked", MacOsOptions::default(), HIGH),
        (
            "arm64",
            MacOsOptions {
                machine: Machine::Arm64,
                ..MacOsOptions::default()
            },
            HIGH,
        ),
    ];
    for (name, options, start) in cases {
        println!("macOS, {name}: {options:?}");
        let platform = sim::macos(options);
        let kernel = platform.kernel().clone();
        check(name, platform, &kernel, start);
    }
}

#[test]
fn simulated_windows() {
    let base = WindowsOptions::default;
    let cases = [
        ("recent", base()),
        (
            "before 1803: no VirtualAlloc2",
            WindowsOptions {
                bounded: BoundedAlloc::Missing,
                ..base()
            },
        ),
        (
            "Wine 8: lower bounds ignored, a free slot that is refused",
            WindowsOptions {
                bounded: BoundedAlloc::IgnoresLowest,
                refused: vec![range(0x1_0000, 0x3_0000)],
                ..base()
            },
        ),
    ];
    for (name, options) in cases {
        println!("Windows, {name}: {options:?}");
        let platform = sim::windows(options);
        let kernel = platform.kernel().clone();
        check(name, platform, &kernel, SIMULATED);
        assert_eq!(kernel.committed(), 0, "{name}");
    }
}
