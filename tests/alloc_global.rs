//! Low memory as the global allocator of a program with contending threads: this one.

#![cfg(target_os = "linux")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use low2g::alloc::{LowAllocator, LowGlobal};

#[global_allocator]
static LOW: LowGlobal = LowGlobal::with(|| LowAllocator::builder().hardened());

fn is_low<T>(value: &T) -> bool {
    std::ptr::from_ref(value).addr() < 1 << 31
}

/// Where a constructor of the program has put something, before main and before the standard
/// library is set up.
static EARLY: AtomicUsize = AtomicUsize::new(0);

extern "C" fn before_main() {
    let early = Box::leak(Box::new([5_u8; 100]));
    EARLY.store(
        std::ptr::from_ref(early).expose_provenance(),
        Ordering::Relaxed,
    );
}

// SAFETY: the section holds addresses of functions that the C library calls with arguments that
// they may ignore; this is one, of the right size.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

#[test]
fn constructors_before_main_allocate_low() {
    let addr = EARLY.load(Ordering::Relaxed);
    assert!(addr != 0 && addr < 1 << 31, "{addr:#x}");
    let early = std::ptr::with_exposed_provenance::<[u8; 100]>(addr);
    // SAFETY: read needs a valid value there: the constructor left it, for ever.
    assert_eq!(unsafe { early.read() }, [5; 100]);
}

/// Allocates when the thread that made it ends.
struct AtExit(std::sync::mpsc::Sender<bool>);

impl Drop for AtExit {
    fn drop(&mut self) {
        let late = Box::new([1_u8; 100]);
        // The receiver waits until all threads are done.
        let _ = self.0.send(is_low(&late[0]));
    }
}

#[test]
fn eight_threads_live_low() {
    thread_local! {
        static LATE: std::cell::RefCell<Option<AtExit>> = const { std::cell::RefCell::new(None) };
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    let (blocks, incoming) = std::sync::mpsc::channel::<Box<[u64]>>();
    let threads: Vec<_> = (0..8_u64)
        .map(|thread| {
            let (sender, blocks) = (sender.clone(), blocks.clone());
            std::thread::spawn(move || {
                LATE.with(|late| *late.borrow_mut() = Some(AtExit(sender)));
                let mut map = HashMap::new();
                for round in 0..3_000_u64 {
                    let size = usize::try_from(round * 37 % 900 + 1).expect("small");
                    let values = vec![thread * 1_000_000 + round; size];
                    assert!(is_low(&values[0]));
                    map.insert(round % 97, values.into_boxed_slice());
                    if round % 5 == 0
                        && let Some(values) = map.remove(&(round * 7 % 97))
                    {
                        blocks.send(values).expect("the receiver lives");
                    }
                }
                for values in map.values() {
                    assert!(values.iter().all(|value| *value == values[0]));
                    assert_eq!(values[0] / 1_000_000, thread);
                }
                let large = vec![0_u8; 3 << 20];
                assert!(is_low(&large[0]) && large.iter().all(|byte| *byte == 0));
            })
        })
        .collect();
    drop((sender, blocks));
    let mut received = 0;
    for values in incoming {
        assert!(values.iter().all(|value| *value == values[0]));
        received += 1;
    }
    assert!(received > 1_000);
    for thread in threads {
        thread.join().expect("no thread panicked");
    }
    let late: Vec<bool> = receiver.iter().collect();
    assert_eq!(late, [true; 8], "thread-local destructors allocate low too");
}

#[test]
fn what_is_too_large_comes_from_the_system() {
    let huge: Vec<u8> = Vec::with_capacity(3 << 30);
    assert!(huge.as_ptr().addr() > 1 << 32);
    drop(huge);
    let statistics = LOW.statistics().expect("this system has low memory");
    assert!(statistics.data_slot_bytes > 0);
}

#[test]
fn blocks_move_between_sizes() {
    let mut text = String::new();
    let mut expected = 0_usize;
    for round in 0..40_000_u32 {
        text.push_str(&round.to_string());
        expected += round.to_string().len();
    }
    assert_eq!(text.len(), expected);
    assert!(text.starts_with("0123456789101112"));
    text.truncate(8);
    text.shrink_to_fit();
    assert_eq!(text, "01234567");
}

#[test]
fn blocks_stay_where_they_fit() {
    let mut block: Vec<u8> = Vec::with_capacity(100);
    block.extend_from_slice(&[7; 100]);
    let start = block.as_ptr();
    // A slot for 100 bytes has 112.
    block.reserve_exact(12);
    assert_eq!((block.as_ptr(), block.capacity()), (start, 112));
    block.reserve_exact(1_000);
    assert_ne!(block.as_ptr(), start);
    assert!(block.capacity() >= 1_100 && block.iter().all(|byte| *byte == 7));
    // Half of a block is not left unused for long.
    let large = block.as_ptr();
    block.truncate(50);
    block.shrink_to_fit();
    assert_ne!(block.as_ptr(), large);
    assert_eq!(block, [7; 50]);
    // Pages of the system's, because this size is nowhere to be had low.
    let mut huge: Vec<u8> = Vec::with_capacity(3 << 30);
    huge.push(9);
    huge.shrink_to(10);
    assert!(is_low(&huge[0]) && huge == [9]);
}
