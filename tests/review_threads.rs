//! Eight threads load, run and drop modules at once, in one session, and keep what is theirs.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::sync::Barrier;

use low2g::link::{Input, Session};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/demo/demo.o");

#[test]
fn eight_threads_share_a_session() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 24;
    let session = Session::new().expect("low memory");
    let input = [Input::from_file(DEMO).expect("the demo's object is part of the tree")];
    let start = Barrier::new(THREADS);
    let load = || {
        start.wait();
        let mut kept = Vec::new();
        for round in 0..ROUNDS {
            // SAFETY: demo.o has no constructors.
            let module = unsafe { session.load(&input) }.expect("loads");
            // SAFETY: `long demo_sum(int)`; the module is alive.
            let sum = unsafe { module.function::<extern "C" fn(i32) -> i64>("demo_sum") };
            assert_eq!(sum.expect("exported")(4), 30);
            if round % 2 == 0 {
                kept.push(module);
            }
        }
        let squares = |module: &std::sync::Arc<low2g::link::Module>| module.symbol("squares");
        let list: Vec<_> = kept.iter().filter_map(squares).collect();
        list.iter()
            .map(|export| (export.addr, export.addr + export.size))
            .collect::<Vec<_>>()
    };
    let all: Vec<Vec<(u64, u64)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(load)).collect();
        let results = threads.into_iter().map(|thread| thread.join());
        results.map(|result| result.expect("no panic")).collect()
    });
    // Within a thread all were alive together, so none may overlap.
    for mut ranges in all {
        ranges.sort_unstable();
        assert_eq!(ranges.len(), ROUNDS / 2);
        assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    }
}
