//! Unloading: thread-local objects with destructors, and thousands of loads and unloads.

#![cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;
#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod tls_support;

use std::sync::{Arc, Mutex, PoisonError};

use low2g::link::{Input, Module, Relax, Session};
use tls_support::{Worker, alone, compile, load, pointer};

/// What the loaded code told, in order.
static LOG: Mutex<Vec<i32>> = Mutex::new(Vec::new());

extern "C" fn record(event: i32) {
    LOG.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(event);
}

fn take_log() -> Vec<i32> {
    std::mem::take(&mut *LOG.lock().unwrap_or_else(PoisonError::into_inner))
}

fn load_cpp(sources: &[&str], flags: &[&str]) -> Arc<Module> {
    let mut session = Session::new().expect("low memory");
    session.define_function("record", record as *const ());
    let inputs: Vec<Input> = sources
        .iter()
        .map(|source| compile(source, flags, &["-fno-exceptions".to_owned()]))
        .map(|object| Input::from_file(object).expect("compiled"))
        .collect();
    // SAFETY: the objects have no constructors, and their destructors call `record`.
    unsafe { session.load(&inputs) }.unwrap_or_else(|error| panic!("{flags:?}: {error}"))
}

fn load_destructors(flags: &[&str]) -> Arc<Module> {
    load_cpp(&["destructors.cpp"], flags)
}

fn touch(module: &Module) -> extern "C" fn() -> i32 {
    // SAFETY: the source declares `int touch()`.
    unsafe { module.function("touch") }.expect("defined")
}

/// Small and position-independent code, dynamic and static blocks.
const WAYS: [&[&str]; 3] = [&["-fno-pic"], &["-fPIC"], &["-fPIC", "-mtls-dialect=gnu2"]];

#[test]
fn destructors_run_in_reverse_when_their_thread_ends() {
    let _alone = alone();
    for flags in WAYS {
        take_log();
        let before = Worker::start();
        let module = load_destructors(flags);
        let after = Worker::start();
        let touch = touch(&module);
        for worker in [before, after] {
            assert_eq!(worker.run(move || touch()), 3);
            assert_eq!(worker.run(move || touch()), 3, "constructed once");
            worker.end();
            assert_eq!(take_log(), [1, 2, -2, -1], "{flags:?}");
        }
        drop(module);
        assert_eq!(take_log(), [1000], "{flags:?}: nothing pends");
    }
}

#[test]
fn an_unload_waits_for_pending_destructors() {
    let _alone = alone();
    for flags in WAYS {
        take_log();
        let workers = [Worker::start(), Worker::start()];
        let module = load_destructors(flags);
        let touch = touch(&module);
        for worker in &workers {
            worker.run(move || touch());
        }
        take_log();
        drop(module);
        assert!(take_log().is_empty(), "{flags:?}: two threads have objects");
        let [one, other] = workers;
        one.end();
        assert_eq!(take_log(), [-2, -1], "{flags:?}");
        other.end();
        assert_eq!(
            take_log(),
            [-2, -1, 1000],
            "{flags:?}: the last one unloads"
        );
    }
}

#[test]
fn an_object_of_another_translation_unit() {
    let _alone = alone();
    for flags in WAYS {
        take_log();
        let module = load_cpp(&["destructors_user.cpp", "destructors_definer.cpp"], flags);
        // SAFETY: the source declares `int touch_shared()`.
        let touch: extern "C" fn() -> i32 =
            unsafe { module.function("touch_shared") }.expect("defined");
        let worker = Worker::start();
        assert_eq!(worker.run(move || touch()), 37, "{flags:?}");
        worker.end();
        assert_eq!(take_log(), [7, -7], "{flags:?}");
    }
}

fn cycles(flags: &[&str], count: u32) {
    let object = compile("define.c", flags, &[]);
    for round in 0..count {
        let module = load(std::slice::from_ref(&object), Relax::All)
            .unwrap_or_else(|error| panic!("{flags:?}, round {round}: {error}"));
        let filled = pointer(&module, "define_filled")();
        // SAFETY: the variable has 24 bytes, and only this thread uses its copy.
        let first = unsafe { filled.replace(200) };
        assert_eq!(first, 1, "{flags:?}, round {round}: a fresh copy");
    }
}

#[test]
fn ten_thousand_loads_and_unloads() {
    let _alone = alone();
    let waiting = Worker::start();
    cycles(&["-fno-pic", "-ftls-model=local-exec"], 10_000);
    cycles(&["-fPIC"], 2_000);
    waiting.end();
}

#[test]
fn modules_of_any_alignment_and_order_give_all_back() {
    let _alone = alone();
    let before = low2g::link::tls::static_space(1 << 20);
    for round in 0..50 {
        let mut modules = Vec::new();
        for (align, size) in [(8, 24), (64, 3), (1, 17), (32, 5), (16, 24)] {
            let more = [format!("-DALIGN={align}"), format!("-DSIZE={size}")];
            let object = compile("define.c", &["-fno-pic"], &more);
            let module = load(&[object], Relax::All);
            modules.push(module.unwrap_or_else(|error| panic!("round {round}: {error}")));
        }
        // Last in first out, first in first out, and from the middle.
        while !modules.is_empty() {
            let last = modules.len() - 1;
            drop(modules.remove([last, 0, last / 2][round % 3]));
        }
    }
    let after = low2g::link::tls::static_space(1 << 20);
    // At most what aligns the first block, once.
    assert!(before - after < 16, "{before} bytes before, {after} after");
}
