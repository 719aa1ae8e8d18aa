//! Every system call fails once, at every position, with every likely code: nothing stays mapped.

mod common;

use common::{LOW, OnClaims, range, unit};
use low2g_platform::freebsd::abi::Errno as FreeBsdErrno;
use low2g_platform::linux::abi::Errno;
use low2g_platform::linux::{LinuxPlatform, Options};
use low2g_platform::macos::abi::KernReturn;
use low2g_platform::sim::{
    FreeBsdOptions, MacOsOptions, SimFreeBsd, SimLinux, SimMacOs, SimOptions, SimWindows,
    Simulated, WindowsOptions,
};
use low2g_platform::windows::abi::Win32Error;
use low2g_platform::{AddrRange, ClaimError, Platform, Protection, sim};
use std::fmt::Debug;

const CODES: [Errno; 8] = [
    Errno::ENOMEM,
    Errno::EINVAL,
    Errno::EPERM,
    Errno::EACCES,
    Errno::EEXIST,
    Errno::EINTR,
    Errno::ENOSYS,
    Errno::EMFILE,
];

const FREEBSD_CODES: [FreeBsdErrno; 7] = [
    FreeBsdErrno::ENOMEM,
    FreeBsdErrno::EINVAL,
    FreeBsdErrno::EPERM,
    FreeBsdErrno::EACCES,
    FreeBsdErrno::EINTR,
    FreeBsdErrno::ENOSYS,
    FreeBsdErrno::EMFILE,
];

const MACOS_CODES: [KernReturn; 5] = [
    KernReturn::NO_SPACE,
    KernReturn::INVALID_ARGUMENT,
    KernReturn::PROTECTION_FAILURE,
    KernReturn::RESOURCE_SHORTAGE,
    KernReturn::NOT_SUPPORTED,
];

const WINDOWS_CODES: [Win32Error; 6] = [
    Win32Error::INVALID_ADDRESS,
    Win32Error::INVALID_PARAMETER,
    Win32Error::NOT_ENOUGH_MEMORY,
    Win32Error::COMMITMENT_LIMIT,
    Win32Error::ACCESS_DENIED,
    Win32Error::DYNAMIC_CODE_BLOCKED,
];

const AREA: AddrRange = range(0x1000_0000, 0x1020_0000);

/// Where there is no low memory.
const HIGH: AddrRange = range(0x20_0000_0000, 0x20_0010_0000);

/// Gives `claim` back; one planned failure may refuse the first time and leaves it mapped.
fn release(platform: &dyn Platform, claim: AddrRange) {
    if platform.give_back(claim).is_err() {
        platform
            .give_back(claim)
            .expect("only one failure was planned");
    }
}

/// Uses everything of the contract; whatever fails is skipped, whatever succeeded is given back.
fn scenario(platform: &dyn Platform) {
    common::count_in_units_of(platform);
    let has_low = platform.config().low_window.is_ok();
    let area = if has_low { AREA } else { HIGH };
    let page = unit();
    let exact = common::pages(area, 0, 4);
    for protection in [Protection::ReadWrite, Protection::ReadExecute] {
        if platform.claim_exact(exact, protection).is_ok() {
            let _ = platform.claim_exact(exact, protection);
            if protection == Protection::ReadWrite {
                let _ = platform.fill_pages(exact);
            }
            let _ = platform.fence(common::pages(area, 3, 1));
            let _ = platform.empty(common::pages(area, 0, 2));
            let _ = platform.set_access(common::pages(area, 1, 1), Protection::Read);
            release(platform, exact);
        }
    }
    let hint = common::pages(area, 8, 2);
    for within in [LOW, area, range(0, page)] {
        let hinted =
            platform.claim_hinted(hint.start(), hint.len(), within, Protection::ReadExecute);
        let low = platform.claim_low(page, within, Protection::ReadExecute);
        for claim in [hinted, low].into_iter().flatten() {
            assert!(within.encloses(claim), "{claim} was asked for in {within}");
            release(platform, claim);
        }
    }
    if let Ok(backing) = platform.new_backing(2 * page) {
        let written = common::pages(area, 16, 2);
        let run = common::pages(area, 24, 2);
        for (view, protection) in [
            (written, Protection::ReadWrite),
            (run, Protection::ReadExecute),
        ] {
            if platform
                .claim_view_exact(&*backing, 0, view, protection)
                .is_ok()
            {
                let _ = platform.empty(view);
                release(platform, view);
            }
        }
    }
    let mut regions = Vec::new();
    let _ = platform.survey(LOW, &mut regions);
    let _ = platform.describe(LOW);
}

/// Runs all on a fresh kernel whose call number `position` fails; whether that call came.
fn run<P: Platform>(
    kernel: &dyn Simulated,
    platform: impl FnOnce() -> Option<P>,
    position: u64,
    code: i32,
    context: &dyn Debug,
) -> bool {
    kernel.fail_call(position, code);
    if let Some(platform) = platform() {
        scenario(&platform);
    }
    let place = format!("call {position} fails with {code}, {context:?}");
    assert_eq!(kernel.leaked(), [], "{place}");
    assert_eq!(kernel.open_files(), 0, "{place}");
    kernel.calls() > position
}

/// Positions one after the other, until the scenario makes no such call.
fn at_every_position(least: u64, mut run: impl FnMut(u64) -> bool) {
    let mut position = 0;
    while run(position) {
        position += 1;
    }
    assert!(
        position > least,
        "the scenario makes more calls than {position}"
    );
}

#[test]
fn every_call_fails_once_at_every_position() {
    for kernel in [(6, 18), (5, 4), (4, 14)] {
        let options = SimOptions {
            kernel,
            ..SimOptions::default()
        };
        for errno in CODES {
            at_every_position(60, |position| {
                let kernel = SimLinux::new(options.clone());
                let platform = || LinuxPlatform::new(kernel.clone(), Options::default()).ok();
                run(&kernel, platform, position, errno.0, &options)
            });
        }
    }
}

#[test]
fn every_call_fails_once_at_every_position_on_freebsd() {
    use low2g_platform::freebsd::{FreeBsdPlatform, Options};
    for aslr in [true, false] {
        let options = FreeBsdOptions {
            aslr,
            ..FreeBsdOptions::default()
        };
        for errno in FREEBSD_CODES {
            at_every_position(60, |position| {
                let kernel = SimFreeBsd::new(options.clone());
                let platform = || FreeBsdPlatform::new(kernel.clone(), Options::default()).ok();
                run(&kernel, platform, position, errno.0, &options)
            });
        }
    }
}

#[test]
fn every_call_fails_once_at_every_position_on_macos() {
    use low2g_platform::macos::{MacOsPlatform, Machine};
    for (machine, pagezero) in [
        (Machine::X86_64, 0x1_0000),
        (Machine::X86_64, 1 << 32),
        (Machine::Arm64, 1 << 32),
    ] {
        let options = MacOsOptions {
            machine,
            pagezero,
            ..MacOsOptions::default()
        };
        for code in MACOS_CODES {
            at_every_position(30, |position| {
                let kernel = SimMacOs::new(options.clone());
                let platform = || MacOsPlatform::new(kernel.clone()).ok();
                run(&kernel, platform, position, code.0, &options)
            });
        }
    }
}

#[test]
fn every_call_fails_once_at_every_position_on_windows() {
    use low2g_platform::sim::BoundedAlloc;
    use low2g_platform::windows::WindowsPlatform;
    for bounded in [
        BoundedAlloc::Works,
        BoundedAlloc::IgnoresLowest,
        BoundedAlloc::Missing,
    ] {
        let options = WindowsOptions {
            bounded,
            ..WindowsOptions::default()
        };
        for code in WINDOWS_CODES {
            at_every_position(30, |position| {
                let kernel = SimWindows::new(options.clone());
                let platform = || WindowsPlatform::new(kernel.clone()).ok();
                let more = run(&kernel, platform, position, code.0, &options);
                assert_eq!(kernel.committed(), 0, "call {position} fails with {code}");
                more
            });
        }
    }
}

/// A claim that fails says why, in the class that the caller acts on.
#[test]
fn codes_of_mmap_are_classified() {
    let claim = |errno| {
        let platform = sim::linux(SimOptions::default());
        // The first low claim also maps the anchor.
        platform
            .claim_exact(common::pages(AREA, 0, 1), Protection::None)
            .expect("free");
        platform.kernel().fail_named("mmap", 0, errno);
        platform
            .claim_exact(common::pages(AREA, 4, 1), Protection::None)
            .expect_err("planned")
    };
    assert!(matches!(claim(Errno::EEXIST), ClaimError::Occupied { .. }));
    assert!(matches!(
        claim(Errno::EINVAL),
        ClaimError::Unsupported { .. }
    ));
    for errno in [Errno::EPERM, Errno::EACCES] {
        let ClaimError::Refused(error) = claim(errno) else {
            panic!("{errno} is policy")
        };
        assert_eq!(
            (error.code, error.range),
            (errno.0, common::pages(AREA, 4, 1))
        );
    }
    for errno in [Errno::ENOMEM, Errno::EAGAIN] {
        assert!(matches!(claim(errno), ClaimError::Exhausted(_)), "{errno}");
    }
}

#[test]
fn interrupted_randomness_is_asked_for_again() {
    let platform = sim::linux(SimOptions::default());
    platform.kernel().fail_named("getrandom", 0, Errno::EINTR);
    let mut bytes = [0_u8; 32];
    platform.random(&mut bytes);
    assert_ne!(bytes, [0; 32]);
}
