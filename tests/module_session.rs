//! Modules of one session: they see each other, unload in the right order, run what they
//! registered for exit, and give everything back.

#![cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;

use std::panic::catch_unwind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use low2g::link::{Input, Module, Session, SessionError};
use support::{build, input};

type Number = extern "C-unwind" fn(i64) -> i64;

/// Numbers that loaded code told the host. One test at a time: see `alone`.
static LOG: Mutex<Vec<i64>> = Mutex::new(Vec::new());

extern "C" fn host_log(event: i64) {
    LOG.lock().expect("no panic while held").push(event);
}

extern "C-unwind" fn host_call(callback: Number, argument: i64) -> i64 {
    callback(argument)
}

fn taken() -> Vec<i64> {
    std::mem::take(&mut *LOG.lock().expect("no panic while held"))
}

/// Tests share the log, the process's mappings and its fork handlers.
fn alone() -> impl Drop {
    static ONE: Mutex<()> = Mutex::new(());
    let guard = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    taken();
    guard
}

fn session() -> Session {
    let mut session = Session::new().expect("low memory");
    session.define_function("host_log", host_log as *const ());
    session.define_function("host_call", host_call as *const ());
    session.open_library("libstdc++.so.6").expect("installed");
    session
}

fn object(name: &str) -> Input {
    let mut flags: Vec<String> = build::STATIC_SMALL.iter().map(|&f| f.to_owned()).collect();
    if Path::new(name).extension().is_some_and(|end| end == "cpp") {
        flags.push("-std=c++17".to_owned());
    }
    Input::from_file(build::object(&input(name), &flags)).expect("it was written")
}

fn load(session: &Session, object: &Input) -> Arc<Module> {
    // SAFETY: the objects are those of tests/inputs.
    let loaded = unsafe { session.load(std::slice::from_ref(object)) };
    loaded.unwrap_or_else(|error: SessionError| panic!("{error}"))
}

fn call(module: &Module, name: &str, argument: i64) -> i64 {
    // SAFETY: all functions of tests/inputs called here are long f(long); the module lives.
    let function = unsafe { module.function::<Number>(name) };
    function.unwrap_or_else(|| panic!("{name} is defined"))(argument)
}

#[test]
fn destructors_run_at_unload_in_the_reverse_order() {
    let _alone = alone();
    let session = session();
    let module = load(&session, &object("cpp/module.cpp"));
    assert_eq!(taken(), [10, 1, 2]);
    call(&module, "work", 10);
    assert_eq!(
        taken(),
        [4],
        "a static local object is made when first used"
    );
    drop(module);
    // Registered last, run first; destructor functions after all that was constructed;
    // then what they registered.
    assert_eq!(taken(), [-4, -3, -2, -1, -10, -11, -12]);
}

#[test]
fn fork_handlers_go_with_their_module() {
    let _alone = alone();
    let fork = || {
        // SAFETY: the child does nothing but end.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: _exit has no precondition.
            unsafe { libc::_exit(0) };
        }
        let mut status = 0;
        // SAFETY: the child is ours and not waited for yet.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    };
    let session = session();
    let module = load(&session, &object("cpp/module.cpp"));
    taken();
    fork();
    assert_eq!(taken(), [40, 41]);
    drop(module);
    taken();
    fork();
    assert_eq!(taken(), [0; 0], "the handlers are gone");
}

#[test]
fn exceptions_and_panics_pass_between_host_and_module() {
    let _alone = alone();
    let session = session();
    let module = load(&session, &object("cpp/module.cpp"));
    assert_eq!(call(&module, "through_host", 4), 7);
    let message = i64::try_from("negative -12".len()).expect("short");
    assert_eq!(call(&module, "through_host", -12), message);

    extern "C-unwind" fn panics(value: i64) -> i64 {
        assert!(value != 5, "five");
        value
    }
    type Through = extern "C-unwind" fn(Number, i64) -> i64;
    // SAFETY: that is its signature, and the module outlives the calls.
    let through = unsafe { module.function::<Through>("through_us") }.expect("defined");
    taken();
    assert_eq!(through(panics, 1), 2);
    assert_eq!(taken(), [-50]);
    let panic = catch_unwind(|| through(panics, 5)).expect_err("it panics");
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"five"));
    assert_eq!(taken(), [-50], "the module's destructor ran on the way");
}

#[test]
fn later_modules_use_earlier_ones_and_keep_them() {
    let _alone = alone();
    let mut session = session();
    extern "C" fn overridden() -> i64 {
        1000
    }
    session.define_function("overridden", overridden as *const ());
    let (first, second) = (object("session_first.c"), object("session_second.c"));
    let missing = unsafe_load_error(&session, &second);
    assert!(missing.contains("first_word"), "{missing}");
    let first = load(&session, &first);
    let second = load(&session, &second);
    // first_call(2) = 6 + 6 + 100; table 9; kept(1) 3; the user's definition, not the module's.
    assert_eq!(call(&second, "second", 2), 112 + 9 + 3 + 1000);
    assert_eq!(
        call(&second, "sees_hidden", 0),
        0,
        "hidden symbols are not seen"
    );
    let kept = second.symbol("kept").expect("defined").addr;
    // SAFETY: `kept` is a variable of 8 bytes in the module.
    let kept = unsafe {
        *std::ptr::with_exposed_provenance::<u64>(usize::try_from(kept).expect("64 bits"))
    };
    let ifunc = first.symbol("first_ifunc").expect("exported").addr;
    assert_eq!(kept, ifunc, "one address for the ifunc in both modules");
    drop(first);
    assert_eq!(taken(), [0; 0], "unload waits for the second module");
    assert_eq!(call(&second, "second", 2), 113 + 9 + 3 + 1000);
    drop(second);
    assert_eq!(taken(), [-2, -1], "the user goes before what it uses");
}

fn unsafe_load_error(session: &Session, object: &Input) -> String {
    // SAFETY: the link fails before anything runs.
    let result = unsafe { session.load(std::slice::from_ref(object)) };
    result.expect_err("symbols are missing").to_string()
}

#[test]
fn one_object_can_be_loaded_twice() {
    let _alone = alone();
    let session = session();
    let object = object("session_first.c");
    let (one, two) = (load(&session, &object), load(&session, &object));
    let addr = |module: &Module| module.symbol("first_word").expect("defined").addr;
    assert_ne!(addr(&one), addr(&two));
    drop(one);
    assert_eq!(call(&two, "first_call", 1), 8);
    drop(two);
    assert_eq!(taken(), [-1, -1]);
}

/// Mappings of the process, and its resident pages.
fn usage() -> (usize, u64) {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc is mounted");
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc is mounted");
    let resident = statm.split(' ').nth(1).expect("two fields");
    (maps.lines().count(), resident.parse().expect("a number"))
}

#[test]
fn ten_thousand_cycles_leave_nothing_behind() {
    let _alone = alone();
    let session = session();
    let object = object("cpp/module.cpp");
    let cycle = || {
        let module = load(&session, &object);
        assert_eq!(call(&module, "work", 3), 15);
        drop(module);
        assert_eq!(taken().len(), 11);
    };
    for _ in 0..500 {
        cycle();
    }
    let before = usage();
    for _ in 0..10_000 {
        cycle();
    }
    let after = usage();
    let more = |after: u64, before: u64| after.saturating_sub(before);
    assert!(after.0 <= before.0 + 4, "mappings: {before:?} to {after:?}");
    // 1 MiB for 10,000 cycles is less than a leak of 105 bytes a cycle.
    assert!(
        more(after.1, before.1) <= 256,
        "pages: {before:?} to {after:?}"
    );
}

#[test]
fn other_threads_throw_while_modules_come_and_go() {
    let _alone = alone();
    let session = session();
    let object = object("cpp/module.cpp");
    let lasting = load(&session, &object);
    let expected = call(&lasting, "work", 30);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let thrower = scope.spawn(|| {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(call(&lasting, "work", 30), expected);
                assert_eq!(call(&lasting, "through_host", -1), 11);
                assert!(catch_unwind(|| panic!("a host's own")).is_err());
                rounds += 1;
            }
            rounds
        });
        for _ in 0..200 {
            let module = load(&session, &object);
            assert_eq!(call(&module, "through_host", -1), 11);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(thrower.join().expect("no failure there") > 10);
    });
}

/// A 32-bit word that names far constant data holds the address of a low copy: one for all
/// modules of the session, there as long as any of them.
#[test]
fn modules_of_a_session_share_mirrors() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let source = folder.path().join("word.s");
    let text = ".globl word\n.type word,@function\nword: mov table(%rip),%eax\n mov %eax,%eax\n ret\n\
                .data\ntable: .long _ZTISt12out_of_range\n.long _ZTISt9exception\n\
                .section .note.GNU-stack,\"\",@progbits\n";
    std::fs::write(&source, text).expect("the folder can be written");
    let object = Input::from_file(build::object(&source, &[])).expect("it was made");
    let (session, other) = (session(), session());
    let first = load(&session, &object);
    let second = load(&session, &object);
    let word = call(&first, "word", 0);
    assert!((0x10000..0x7f00_0000).contains(&word), "{word:#x} is low");
    assert_eq!(call(&second, "word", 0), word, "one copy a session");
    assert_ne!(call(&load(&other, &object), "word", 0), word);
    let pointers = || {
        let addr = usize::try_from(word).expect("an address");
        let copy = std::ptr::with_exposed_provenance::<[usize; 2]>(addr);
        // SAFETY: the word names a copy of a type's two first pointers, which a module keeps.
        unsafe { copy.read() }
    };
    let before = pointers();
    drop(first);
    assert_eq!(pointers(), before, "the second module still uses it");
    let third = load(&session, &object);
    assert_eq!(call(&third, "word", 0), word);
    drop(second);
    assert_eq!(pointers(), before);
}
