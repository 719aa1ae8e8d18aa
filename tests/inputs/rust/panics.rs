//! A Rust program without Cargo: panics unwind through it and are caught, threads, collections,
//! closures, thread-local values; its destructors tell the order in which they run.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic;

struct Noisy(&'static str);

impl Drop for Noisy {
    fn drop(&mut self) {
        println!("drop {}", self.0);
    }
}

#[inline(never)]
fn deep(n: u32) -> u32 {
    let _guard = n.is_multiple_of(3).then_some(Noisy("deep"));
    assert!(n != 0, "bottom {n}");
    deep(n - 1) + 1
}

thread_local! {
    static LOCAL: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

#[unsafe(no_mangle)]
pub extern "C" fn main(_argc: i32, _argv: *const *const u8) -> i32 {
    let _outer = Noisy("outer");
    panic::set_hook(Box::new(|info| println!("hook: {info}")));
    let mut map: HashMap<String, Vec<u32>> = HashMap::new();
    for i in 0..100u32 {
        map.entry(format!("k{}", i % 7)).or_default().push(i);
    }
    let mut keys: Vec<_> = map.iter().map(|(k, v)| (k, v.iter().sum::<u32>())).collect();
    keys.sort();
    println!("{keys:?}");
    let payload = panic::catch_unwind(|| deep(10)).expect_err("it panics");
    println!("{:?}", payload.downcast_ref::<String>());
    let closure: Box<dyn Fn(u32) -> String> = Box::new(|n| format!("{n:#x}"));
    println!("{}", closure(255));
    LOCAL.with_borrow_mut(|local| local.push(3));
    let other = std::thread::spawn(|| LOCAL.with_borrow(Vec::len));
    let length = LOCAL.with_borrow(Vec::len);
    println!("{:?} {length}", other.join());
    let failed = std::thread::Builder::new()
        .name("failing".to_owned())
        .spawn(|| {
            let _thread = Noisy("thread");
            let none: Vec<u32> = Vec::new();
            none[LOCAL.with_borrow(Vec::len)]
        })
        .expect("threads start");
    println!("{}", failed.join().is_err());
    7
}
