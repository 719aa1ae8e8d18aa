//! Replacing modules by loading the next before the previous one goes. In a process of its own,
//! because it uses up what the process has of static thread-local storage.

#![cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;
#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod tls_support;

use low2g::link::tls::static_space;
use low2g::link::{LinkError, Relax, SessionError};
use tls_support::{compile, load, pointer};

#[test]
fn dynamic_blocks_roll_for_ever_and_static_ones_end_in_an_error() {
    let before = static_space(1 << 20);
    // glibc makes a block static for its descriptors while there is room.
    for flags in [&["-fPIC"][..], &["-fPIC", "-mtls-dialect=gnu2"]] {
        for align in [1, 16, 64] {
            let more = [format!("-DALIGN={align}")];
            let dynamic = [compile("define.c", flags, &more)];
            let mut current = load(&dynamic, Relax::None).expect("loads");
            for _ in 0..300 {
                current = load(&dynamic, Relax::None).expect("dynamic");
            }
            drop(current);
            let after = static_space(1 << 20);
            assert_eq!(after, before, "{flags:?}, aligned to {align}");
        }
    }
    let fixed = compile("define.c", &["-fno-pic"], &[]);
    let mut current = load(std::slice::from_ref(&fixed), Relax::All).expect("loads");
    let mut rounds = 0;
    let error = loop {
        match load(std::slice::from_ref(&fixed), Relax::All) {
            Ok(next) => current = next,
            Err(error) => break error,
        }
        rounds += 1;
        assert!(rounds < 100, "the space has an end");
    };
    let SessionError::Link(failure) = &error else {
        panic!("{error}");
    };
    assert!(
        matches!(failure.errors()[0], LinkError::StaticTls { .. }),
        "{error}"
    );
    // The last module works on, and when it goes all comes back.
    let filled = pointer(&current, "define_filled")();
    // SAFETY: the variable has bytes, and only this thread uses its copy.
    assert_eq!(unsafe { filled.read() }, 1);
    drop(current);
    let after = static_space(1 << 20);
    assert!(before - after < 16, "{before} bytes before, {after} after");
    load(std::slice::from_ref(&fixed), Relax::All).expect("there is room again");
}
