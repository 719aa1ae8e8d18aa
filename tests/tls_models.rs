//! Every model of thread-local access, own variables and the C library's, on threads that
//! exist when the objects are loaded and on threads that start later.

#![cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;
#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod tls_support;

use std::collections::HashSet;

use low2g::link::{Module, Relax};
use tls_support::{MODELS, Worker, alone, compile, compile_by, load, pointer};

const SIZE: usize = 24;
const FILLED: [u8; 6] = [1, 2, 3, 5, 8, 13];
const KEPT: [u8; 3] = [21, 34, 55];

/// The functions to call, which every thread can hold.
#[derive(Clone, Copy)]
struct Functions {
    filled: [extern "C" fn() -> *mut u8; 2],
    zeroed: [extern "C" fn() -> *mut u8; 2],
    kept: [extern "C" fn() -> *mut u8; 2],
    errno: extern "C" fn() -> *mut u8,
    mix: extern "C" fn(i32, i32) -> i32,
    align: usize,
}

impl Functions {
    fn of(module: &Module, align: usize) -> Self {
        Self {
            filled: ["define_filled", "use_filled"].map(|name| pointer(module, name)),
            zeroed: ["define_zeroed", "use_zeroed"].map(|name| pointer(module, name)),
            kept: ["static_filled", "static_zeroed"].map(|name| pointer(module, name)),
            errno: pointer(module, "use_errno"),
            // SAFETY: the source declares `int mix(int, int)`.
            mix: unsafe { module.function("mix") }.expect("mix is defined"),
            align,
        }
    }

    /// Checks the calling thread's copies; returns where they are.
    fn check(self, context: &str) -> Vec<usize> {
        let places = [
            ((self.filled[0])(), &FILLED[..]),
            ((self.zeroed[0])(), &[]),
            ((self.kept[0])(), &KEPT),
            ((self.kept[1])(), &[]),
        ];
        for (number, (place, initial)) in places.into_iter().enumerate() {
            assert_eq!(place.addr() % self.align, 0, "{context}: variable {number}");
            // SAFETY: the variable has SIZE bytes, and only this thread uses its copy.
            let bytes = unsafe { std::slice::from_raw_parts(place, SIZE) };
            let mut expected = initial.to_vec();
            expected.resize(SIZE, 0);
            assert_eq!(bytes, expected, "{context}: initial value of {number}");
        }
        assert_eq!(
            (self.filled[1])(),
            places[0].0,
            "{context}: two objects, one address"
        );
        assert_eq!(
            (self.zeroed[1])(),
            places[1].0,
            "{context}: two objects, one address"
        );
        // SAFETY: __errno_location has no precondition.
        let native = unsafe { libc::__errno_location() };
        assert_eq!((self.errno)(), native.cast(), "{context}: errno");
        assert_eq!(
            (self.mix)(10, 20),
            12 + 20 * 3 + 44 * 5 + 20 * 7,
            "{context}"
        );
        assert_eq!((self.mix)(1, 2), 13 + 22 * 3 + 45 * 5 + 22 * 7, "{context}");
        places.iter().map(|(place, _)| place.addr()).collect()
    }
}

/// Loads and checks on two threads of before, two of after and this one.
fn check_everywhere(paths: &[std::path::PathBuf], align: usize, relax: Relax, context: &str) {
    let mut workers = vec![Worker::start(), Worker::start()];
    let module = load(paths, relax).unwrap_or_else(|error| panic!("{context}: {error}"));
    let functions = Functions::of(&module, align);
    workers.extend([Worker::start(), Worker::start()]);
    let mut seen = HashSet::new();
    for (number, worker) in workers.iter().enumerate() {
        let context = format!("{context}, thread {number}");
        let places = worker.run(move || functions.check(&context));
        for place in places {
            assert!(seen.insert(place), "each thread has its own copy");
        }
    }
    functions.check(context);
    let host = module.thread_local("filled").expect("the host sees it");
    assert_eq!(
        (host.addr, host.size),
        (to_u64((functions.filled[0])().addr()), 24),
        "{context}"
    );
    assert!(
        module.thread_local("kept_filled").is_none(),
        "static ones are the object's own"
    );
    for worker in workers {
        worker.end();
    }
}

fn to_u64(addr: usize) -> u64 {
    u64::try_from(addr).expect("64-bit")
}

fn flags(align: usize) -> [String; 2] {
    [format!("-DALIGN={align}"), format!("-DSIZE={SIZE}")]
}

#[test]
fn every_model_alignment_and_relaxation() {
    let _alone = alone();
    for model in MODELS {
        for align in [1, 2, 4, 8, 16, 32, 64] {
            let defined = compile("define.c", model.flags, &flags(align));
            let used = compile("use.c", &["-fPIC"], &[]);
            for relax in [Relax::None, Relax::PcRelative, Relax::All] {
                let context = format!("{}, alignment {align}, {relax:?}", model.name);
                check_everywhere(&[defined.clone(), used.clone()], align, relax, &context);
            }
        }
    }
}

/// clang writes other instructions around the sequences, and descriptors since version 18.
#[test]
fn every_model_of_clang() {
    let _alone = alone();
    for compiler in ["clang-14", "clang-19"] {
        if support::require(support::program(compiler)).is_none() {
            continue;
        }
        for model in MODELS {
            if compiler == "clang-14" && model.flags.contains(&"-mtls-dialect=gnu2") {
                continue;
            }
            for align in [1, 16, 64] {
                let made = |source, flags: &[&str], more: &[String]| {
                    compile_by(compiler.as_ref(), source, flags, more)
                };
                let defined = made("define.c", model.flags, &flags(align));
                let used = made("use.c", model.flags, &[]);
                for relax in [Relax::None, Relax::PcRelative, Relax::All] {
                    let context = format!("{compiler}, {}, {align}, {relax:?}", model.name);
                    check_everywhere(&[defined.clone(), used.clone()], align, relax, &context);
                }
            }
        }
    }
}

/// The reference decides: the other object's model need not be the definition's.
#[test]
fn every_pair_of_models() {
    let _alone = alone();
    for defining in MODELS {
        for using in MODELS {
            let defined = compile("define.c", defining.flags, &flags(16));
            let used = compile("use.c", using.flags, &[]);
            let context = format!("{} used by {}", defining.name, using.name);
            check_everywhere(&[defined, used], 16, Relax::All, &context);
        }
    }
}

#[test]
fn great_alignment_and_size_need_the_dynamic_models() {
    let _alone = alone();
    for model in MODELS {
        let used = compile("use.c", &["-fPIC"], &[]);
        let defined = compile("define.c", model.flags, &flags(128));
        let big = ["-DALIGN=16".to_owned(), "-DSIZE=1000000".to_owned()];
        let big = compile("define.c", model.flags, &big);
        if model.fixed {
            let error = load(&[defined, used.clone()], Relax::All).expect_err("no such room");
            let text = error.to_string();
            assert!(text.contains("aligned to 128"), "{}: {text}", model.name);
            assert!(text.contains("aligned to 64 at most"), "{text}");
            let text = load(&[big, used], Relax::All)
                .expect_err("no such room")
                .to_string();
            assert!(
                text.contains("GLIBC_TUNABLES=glibc.rtld.optional_static_tls="),
                "{text}"
            );
        } else {
            check_everywhere(&[defined, used.clone()], 128, Relax::All, model.name);
            let module = load(&[big, used], Relax::All).expect("dynamic blocks have any size");
            let start = pointer(&module, "define_zeroed")();
            // SAFETY: the variable has a million bytes.
            let last = unsafe { start.add(999_999) };
            // SAFETY: as above; only this thread uses its copy.
            unsafe { last.write(9) };
            assert_eq!(pointer(&module, "use_zeroed")(), start);
        }
    }
}

#[test]
fn a_thread_with_a_small_stack() {
    let _alone = alone();
    for name in ["le", "gd", "desc"] {
        let model = MODELS
            .iter()
            .find(|model| model.name == name)
            .expect("listed");
        let paths = [
            compile("define.c", model.flags, &flags(64)),
            compile("use.c", &["-fPIC"], &[]),
        ];
        let module = load(&paths, Relax::All).expect("loads");
        let filled = pointer(&module, "define_filled");
        let small = std::thread::Builder::new().stack_size(16 << 10);
        let thread = small.spawn(move || filled().addr()).expect("starts");
        let there = thread.join().expect("no panic");
        assert_ne!(there, filled().addr(), "{name}");
    }
}

#[test]
fn eight_threads_load_at_once() {
    let _alone = alone();
    let model = MODELS
        .iter()
        .find(|model| model.name == "gd")
        .expect("listed");
    let paths = [
        compile("define.c", model.flags, &flags(16)),
        compile("use.c", &["-fPIC"], &[]),
    ];
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for round in 0..10 {
                    let module = load(&paths, Relax::All).expect("loads");
                    Functions::of(&module, 16).check(&format!("round {round}"));
                }
            });
        }
    });
}

/// A variable that one module defines and another uses.
#[test]
fn two_modules_share_one_copy_a_thread() {
    let _alone = alone();
    for defining in MODELS {
        let defined = compile("define.c", defining.flags, &flags(16));
        let definer = load(&[defined], Relax::All).expect("loads");
        let filled = pointer(&definer, "define_filled");
        for using in MODELS {
            let context = format!("{} used by {}", defining.name, using.name);
            let mut session = low2g::link::Session::new().expect("low memory");
            assert!(session.define_thread_local("filled", &definer));
            assert!(session.define_thread_local("zeroed", &definer));
            assert!(!session.define_thread_local("kept_filled", &definer));
            let used = compile("use.c", using.flags, &[]);
            let input = low2g::link::Input::from_file(used).expect("compiled");
            // SAFETY: the object has no constructors.
            let loaded = unsafe { session.load(&[input]) };
            let from_block = using.name.starts_with("ld");
            if !defining.fixed && (using.fixed || from_block || using.name.starts_with("desc")) {
                let text = loaded.expect_err("no constant offset").to_string();
                assert!(text.contains("another module defines"), "{context}: {text}");
                continue;
            }
            let user = loaded.unwrap_or_else(|error| panic!("{context}: {error}"));
            let seen = pointer(&user, "use_filled");
            let there = Worker::start();
            assert_eq!(
                there.run(move || seen().addr()),
                there.run(move || filled().addr())
            );
            assert_eq!(seen(), filled(), "{context}");
            there.end();
        }
    }
}

/// Modules of one session find each other's variables, and hold each other.
#[test]
fn later_modules_of_a_session_find_earlier_variables() {
    let _alone = alone();
    for (defining, using) in [
        ("le", "le"),
        ("le", "gd"),
        ("gd", "gd"),
        ("desc", "gd-large"),
    ] {
        let flags_of = |name| {
            let model = MODELS.iter().find(|model| model.name == name);
            model.expect("listed").flags
        };
        let session = low2g::link::Session::new().expect("low memory");
        let load = |source, name| {
            let object = compile(source, flags_of(name), &[]);
            let input = low2g::link::Input::from_file(object).expect("compiled");
            // SAFETY: the objects have no constructors.
            unsafe { session.load(&[input]) }.unwrap_or_else(|error| panic!("{error}"))
        };
        let definer = load("define.c", defining);
        let user = load("use.c", using);
        let (filled, seen) = (
            pointer(&definer, "define_filled"),
            pointer(&user, "use_filled"),
        );
        assert_eq!(seen(), filled(), "{defining} used by {using}");
        drop(definer);
        // SAFETY: the user holds the definer; the variable has bytes.
        assert_eq!(unsafe { seen().read() }, 1);
    }
}
