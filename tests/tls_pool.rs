//! The pool, and static storage used again: who has which copies. A program of its own, because
//! it counts its threads.

#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod tls_support;

#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
fn main() {
    native::main();
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")))]
fn main() {
    println!("skipped: the carrier is glibc's");
}

#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
mod native {
    use std::path::PathBuf;
    use std::sync::Arc;

    use low2g::link::tls::{PoolError, PoolRefusal, register_thread, static_space, static_use};
    use low2g::link::{
        Chain, Input, Link, LinkError, LinkOptions, Module, ProcessSymbols, Relax, SessionError,
        report::Report,
    };
    use low2g::place::Placer;

    use crate::tls_support::{MODELS, Worker, compile, load, pointer};

    const POOL: u64 = 64 << 10;
    /// Bytes of a variable; a block has four. More than glibc has left.
    const SIZE: usize = 1000;
    const LOCAL_EXEC: &[&str] = &["-fno-pic", "-ftls-model=local-exec"];

    pub(crate) fn main() {
        // Nothing before this: the first tests want one thread.
        let tests: [(&str, fn()); 8] = [
            ("a program has one pool", one_pool),
            ("blocks of the pool have their values", values_everywhere),
            ("every model, from the pool", every_model),
            ("the dump says so", dump),
            ("one thread replaces modules for ever", || {
                replace(LOCAL_EXEC)
            }),
            ("strangers are not written", strangers),
            ("registered threads are written", registered),
            ("ten thousand replacements", || replace_registered(10_000)),
        ];
        for (name, test) in tests {
            test();
            println!("test {name} ... ok");
        }
    }

    fn reserve() -> Result<(), PoolError> {
        low2g::tls_pool!(64 << 10)
    }

    fn one_pool() {
        let text = defined(SIZE, 16, &[]).expect_err("no pool yet").to_string();
        assert!(text.contains("reserves no pool"), "{text}");
        reserve().expect("this is a program");
        reserve().expect("the same one");
        let other = low2g::tls_pool!(4096);
        assert_eq!(other, Err(PoolError::Second { size: POOL }));
        // A pool's storage that is no thread's is not taken for one.
        let heap = Box::new(low2g::link::tls::PoolBytes::<64>::new());
        let elsewhere = low2g::link::tls::install_pool(&heap);
        assert_eq!(elsewhere, Err(PoolError::Elsewhere));
        assert_eq!(static_use().pool, POOL);
    }

    /// The module of define.c and use.c, the former in local-exec.
    fn defined(size: usize, align: usize, more: &[&str]) -> Result<Arc<Module>, SessionError> {
        let flags = [LOCAL_EXEC, more].concat();
        let sizes = [format!("-DSIZE={size}"), format!("-DALIGN={align}")];
        let paths = [
            compile("define.c", &flags, &sizes),
            compile("use.c", &["-fPIC"], &[]),
        ];
        load(&paths, Relax::All)
    }

    /// The first six bytes of `filled` and all of `zeroed`, as they start.
    fn check(module: &Module, size: usize, context: &str) {
        let of = |name| {
            let place = pointer(module, name)();
            // SAFETY: the variable has `size` bytes, which only this thread uses.
            unsafe { std::slice::from_raw_parts_mut(place, size) }
        };
        for (name, values) in [
            ("define_filled", &[1, 2, 3, 5, 8, 13][..]),
            ("define_zeroed", &[]),
        ] {
            let bytes = of(name);
            let (start, rest) = bytes.split_at(values.len());
            assert_eq!(start, values, "{context}: {name}");
            assert!(rest.iter().all(|&byte| byte == 0), "{context}: {name}");
            // So that the next module's thread would see them.
            bytes.fill(0xee);
        }
        let host = module.thread_local("filled").expect("the host sees it");
        let addr = usize::try_from(host.addr).expect("64-bit");
        assert_eq!(addr, of("define_filled").as_ptr().addr(), "{context}");
        assert_eq!(addr, pointer(module, "use_filled")().addr(), "{context}");
        // SAFETY: __errno_location has no precondition.
        let errno = unsafe { libc::__errno_location() };
        assert_eq!(pointer(module, "use_errno")(), errno.cast(), "{context}");
    }

    /// On this thread and on one that starts now.
    fn check_both(module: &Arc<Module>, size: usize, context: &str) {
        let later = Arc::clone(module);
        let there = context.to_owned();
        let thread = std::thread::spawn(move || check(&later, size, &format!("{there}, later")));
        thread.join().expect("as here");
        check(module, size, context);
    }

    fn values_everywhere() {
        for align in [1, 8, 64, 128] {
            for round in 0..3 {
                let context = format!("alignment {align}, round {round}");
                let module = defined(SIZE, align, &[]).unwrap_or_else(|e| panic!("{context}: {e}"));
                assert!(static_use().pool_used >= 4000, "{context}");
                let filled = pointer(&module, "define_filled")().addr();
                assert_eq!(filled % align, 0, "{context}");
                check_both(&module, SIZE, &context);
            }
        }
        assert_eq!(static_use().pool_used, 0);
        let text = defined(20_000, 8, &[])
            .expect_err("80,000 bytes")
            .to_string();
        assert!(
            text.contains("pool of 65536 bytes has 65536 left"),
            "{text}"
        );
        let text = defined(8, 256, &[])
            .expect_err("aligned to 256")
            .to_string();
        assert!(text.contains("aligned to 128 at most"), "{text}");
    }

    fn every_model() {
        for model in MODELS {
            for relax in [Relax::None, Relax::PcRelative, Relax::All] {
                let context = format!("{} {relax:?}", model.name);
                let sizes = [format!("-DSIZE={SIZE}"), "-Dstatic=".to_owned()];
                // The user's model counts; local-exec of another object makes the block static.
                let paths = [
                    compile("define.c", model.flags, &sizes),
                    compile("use.c", model.flags, &[]),
                    compile("fixed.c", LOCAL_EXEC, &[]),
                ];
                let module = load(&paths, relax).unwrap_or_else(|e| panic!("{context}: {e}"));
                assert!(static_use().pool_used >= 4000, "{context}");
                check_both(&module, SIZE, &context);
                // Another module's reference to a variable in the pool.
                let mut session = low2g::link::Session::new().expect("low memory");
                for name in ["filled", "zeroed"] {
                    assert!(session.define_thread_local(name, &module), "{context}");
                }
                let input = Input::from_file(&paths[1]).expect("compiled");
                // SAFETY: the object has no constructors.
                let user = unsafe { session.load(&[input]) };
                let user = user.unwrap_or_else(|e| panic!("{context}, across: {e}"));
                let (seen, there) = (
                    pointer(&user, "use_filled"),
                    pointer(&module, "define_filled"),
                );
                assert_eq!(seen(), there(), "{context}");
                std::thread::spawn(move || assert_eq!(seen(), there()))
                    .join()
                    .unwrap_or_else(|_| panic!("{context}"));
            }
        }
    }

    fn linked(path: PathBuf) -> Report {
        let inputs = [Input::from_file(path).expect("compiled")];
        let options = LinkOptions {
            record: true,
            ..LinkOptions::default()
        };
        let process = ProcessSymbols::new();
        let mut link = Link::read(&inputs, &options).expect("an object");
        link.resolve(&Chain::default().then(&process));
        let placer = Placer::Mapped {
            allocator: low2g::alloc::LowAllocator::new().expect("low memory"),
            reach: None,
            min_entropy: None,
        };
        let placed = link.place(&placer).expect("there is room");
        let linked = placed
            .relocate()
            .expect("fits")
            .protect()
            .expect("protects");
        Report::of(&linked).expect("well-formed")
    }

    fn dump() {
        let sizes = [format!("-DSIZE={SIZE}"), "-DALIGN=8".to_owned()];
        let report = linked(compile("define.c", LOCAL_EXEC, &sizes));
        let report = serde_json::to_value(&report).expect("JSON");
        let tls = &report["tls"];
        assert_eq!(
            (&tls["mode"], &tls["modid"]),
            (&"pool".into(), &1.into()),
            "{tls}"
        );
        assert_eq!(tls["size"], 4000);
        let offset = tls["offset"].as_i64().expect("a number");
        let symbols = report["symbols"].as_array().expect("a list");
        let filled = symbols
            .iter()
            .find(|row| row["name"] == "filled")
            .expect("listed");
        let number = |text: &serde_json::Value| {
            let text = text
                .as_str()
                .expect("hexadecimal")
                .trim_start_matches("0x")
                .to_owned();
            u64::from_str_radix(&text, 16)
                .expect("hexadecimal")
                .cast_signed()
        };
        assert_eq!(number(&filled["tpoff"]), offset + number(&filled["addr"]));
    }

    /// The next module is there before the previous one goes, small ones in the surplus.
    fn replace(flags: &[&str]) {
        let before = static_space(1 << 20);
        let mut current = small(flags, 0);
        for round in 1..500 {
            current = small(flags, round);
        }
        drop(current);
        let after = static_space(1 << 20);
        assert!(before - after < 16, "{before} bytes before, {after} after");
        assert_eq!(static_use().waiting, 0);
        assert_eq!(static_use().pool_used, 0);
    }

    fn small(flags: &[&str], round: usize) -> Arc<Module> {
        let size = 8 + round % 3 * 16;
        let paths = [
            compile("define.c", flags, &[format!("-DSIZE={size}")]),
            compile("use.c", &["-fPIC"], &[]),
        ];
        let module = load(&paths, Relax::All).unwrap_or_else(|e| panic!("round {round}: {e}"));
        if round.is_multiple_of(50) {
            check_both(&module, size, &format!("round {round}"));
        } else {
            check(&module, size, &format!("round {round}"));
        }
        module
    }

    fn refusal(result: Result<Arc<Module>, SessionError>) -> PoolRefusal {
        match result {
            Err(SessionError::Link(failure)) => match failure.errors()[0] {
                LinkError::StaticTls { pool, .. } => pool,
                _ => panic!("{failure}"),
            },
            other => panic!("{other:?}"),
        }
    }

    /// With a thread that nobody knows only untouched parts serve, for zeros.
    fn strangers() {
        let stranger = Worker::start();
        assert_eq!(refusal(defined(SIZE, 8, &[])), PoolRefusal::UnknownThreads);
        let zeros = || {
            let object = compile("zeros.c", LOCAL_EXEC, &[format!("-DSIZE={SIZE}")]);
            load(&[object], Relax::All)
        };
        let touched = static_use().pool_waiting;
        let mut loads = 0;
        let full = loop {
            match zeros() {
                Ok(module) => {
                    let first = pointer(&module, "first");
                    let test = move || {
                        // SAFETY: the variable has SIZE bytes, only this thread's.
                        let bytes = unsafe { std::slice::from_raw_parts_mut(first(), SIZE) };
                        assert!(bytes.iter().all(|&byte| byte == 0));
                        bytes.fill(7);
                    };
                    test();
                    stranger.run(test);
                    let later = Worker::start();
                    later.run(test);
                    later.end();
                }
                Err(error) => break Err(error),
            }
            loads += 1;
            assert!(loads < 100, "each takes a part for good");
        };
        assert!(loads > 3, "{loads}");
        assert!(matches!(
            refusal(full),
            PoolRefusal::Full { size: POOL, .. }
        ));
        assert!(static_use().pool_waiting > touched);
        stranger.end();
        // Alone again: all of it can be written.
        check_both(&defined(SIZE, 8, &[]).expect("alone"), SIZE, "alone");
    }

    fn registered() {
        register_thread();
        let workers = [Worker::start(), Worker::start()];
        assert_eq!(refusal(defined(SIZE, 8, &[])), PoolRefusal::UnknownThreads);
        for worker in &workers {
            worker.run(register_thread);
        }
        for round in 0..20 {
            let module = defined(SIZE, 8, &[]).unwrap_or_else(|e| panic!("round {round}: {e}"));
            let context = format!("round {round}");
            for worker in &workers {
                let (there, context) = (Arc::clone(&module), format!("{context}, registered"));
                worker.run(move || check(&there, SIZE, &context));
            }
            let (later, context) = (Arc::clone(&module), format!("{context}, later"));
            let thread = std::thread::spawn(move || {
                register_thread();
                check(&later, SIZE, &context);
            });
            thread.join().expect("as here");
            check(&module, SIZE, "here");
        }
        for worker in workers {
            worker.end();
        }
    }

    /// As a program does that replaces code while its threads run.
    fn replace_registered(count: usize) {
        let workers = [Worker::start(), Worker::start()];
        for worker in &workers {
            worker.run(register_thread);
        }
        let paths = [
            compile("define.c", LOCAL_EXEC, &[]),
            compile("use.c", &["-fPIC"], &[]),
        ];
        let mut current = load(&paths, Relax::All).expect("loads");
        for round in 0..count {
            let next = load(&paths, Relax::All).unwrap_or_else(|e| panic!("round {round}: {e}"));
            current = next;
            if round % 100 < 2 {
                for worker in &workers {
                    let (there, context) = (Arc::clone(&current), format!("round {round}"));
                    worker.run(move || check(&there, 24, &context));
                }
                check(&current, 24, "here");
            }
        }
        drop(current);
        assert_eq!(static_use().waiting, 0);
        for worker in workers {
            worker.end();
        }
    }
}
