//! Vec, Box and hash tables in low memory, and four-byte pointers into it.

#![cfg(target_os = "linux")]

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::Arc;

use allocator_api2::alloc::Allocator;
use allocator_api2::boxed::Box;
use allocator_api2::vec::Vec;
use low2g::alloc::{Low32, LowAllocator};
use low2g::platform::sim::{self, SimOptions};

fn presets() -> [LowAllocator; 3] {
    let builder = LowAllocator::builder;
    [builder().bare(), builder(), builder().hardened()]
        .map(|builder| builder.build().expect("this system has low memory"))
}

fn is_low<T>(pointer: *const T) -> bool {
    pointer.addr() < 1 << 31
}

#[test]
fn containers_live_low() {
    for low in presets() {
        let mut numbers = Vec::new_in(low.clone());
        for number in 0..100_000_u64 {
            numbers.push(number);
        }
        assert!(is_low(numbers.as_ptr()));
        numbers.truncate(10);
        numbers.shrink_to_fit();
        assert_eq!(numbers.as_slice(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert!(is_low(numbers.as_ptr()));
        let mut table = hashbrown::HashMap::new_in(low.clone());
        for number in 0..5_000_u32 {
            table.insert(number, number.wrapping_mul(2_654_435_761));
        }
        for number in 0..5_000_u32 {
            let value = table.get(&number).expect("inserted");
            assert_eq!(*value, number.wrapping_mul(2_654_435_761));
            assert!(is_low(value));
        }
        // The memory outlives the first handle: the containers hold others.
        let boxed = Box::new_in([7_u8; 50_000], low);
        assert!(boxed.iter().all(|byte| *byte == 7));
        drop((numbers, table));
        assert!(is_low(&raw const *boxed));
    }
}

#[test]
fn layouts_are_kept() {
    for low in presets() {
        let empty = Allocator::allocate(&low, Layout::new::<()>()).expect("nothing to have");
        assert_eq!(empty.len(), 0);
        // SAFETY: deallocate needs a block of this allocator with its layout: the empty one.
        unsafe { low.deallocate(empty.cast(), Layout::new::<()>()) };
        for align in [1, 8, 64, 4096, 1 << 16, 1 << 21] {
            for size in [1, 24, 5_000, 70_000] {
                let layout = Layout::from_size_align(size, align).expect("a layout");
                let block = low.allocate_zeroed(layout).expect("room");
                let start: NonNull<u8> = block.cast();
                assert!(start.addr().get().is_multiple_of(align));
                let larger = Layout::from_size_align(size * 2 + 9, align).expect("a layout");
                // SAFETY: add needs to stay inside the block: it has `size` bytes.
                let last = unsafe { start.add(size - 1) };
                // SAFETY: write needs a byte of ours: the block's last one.
                unsafe { last.write(9) };
                // SAFETY: grow_zeroed needs a block in use with its layout, and a larger one.
                let block = unsafe { low.grow_zeroed(start, layout, larger) }.expect("room");
                // SAFETY: as_ref needs initialised bytes that nobody writes: zeroed, and ours.
                let bytes = unsafe { block.as_ref() };
                assert_eq!(bytes.len(), larger.size());
                assert_eq!(bytes[size - 1], 9);
                let others = bytes.iter().enumerate().filter(|(at, _)| *at != size - 1);
                assert!(others.into_iter().all(|(_, byte)| *byte == 0));
                // SAFETY: shrink needs a block in use with its layout, and a smaller one.
                let block = unsafe { low.shrink(block.cast(), larger, layout) }.expect("room");
                // SAFETY: deallocate needs a block in use with its layout.
                unsafe { low.deallocate(block.cast(), layout) };
            }
        }
        low.trim();
        assert_eq!(low.statistics().live_bytes, 0);
    }
}

#[test]
fn a_simulated_system_has_no_memory_to_give() {
    let platform = Arc::new(sim::linux(SimOptions::default()));
    let low = LowAllocator::builder().platform(platform).build();
    let low = low.expect("the simulated system has a low window");
    assert!(Box::try_new_in(1_u8, low).is_err());
}

#[test]
fn four_bytes_point_at_low_values() {
    let low = LowAllocator::new().expect("this system has low memory");
    let mut boxed = Box::new_in(41_u64, low);
    let pointer = Low32::new(NonNull::from(&mut *boxed)).expect("below 4 GiB");
    assert_eq!(size_of_val(&Some(pointer)), 4);
    // SAFETY: as_mut needs a valid value that nobody else reaches meanwhile: the box is not used.
    unsafe { *pointer.as_mut() += 1 };
    // SAFETY: as_ref needs a valid value that nobody writes meanwhile.
    assert_eq!(unsafe { *pointer.as_ref() }, 42);
    assert_eq!(*boxed, 42);
    let on_the_stack = 1_u64;
    assert!(Low32::new(NonNull::from(&on_the_stack)).is_none());
}

/// Does to the allocator what a broken program does. Comes back only if nothing noticed.
fn misuse(how: &str) {
    let low = LowAllocator::builder().hardened().quarantine(2, 0).build();
    let low = low.expect("this system has low memory");
    let layout = Layout::new::<[u64; 6]>();
    let _keeper = Box::new_in([0_u64; 6], low.clone());
    let block: NonNull<u8> = Allocator::allocate(&low, layout).expect("room").cast();
    // SAFETY: deallocate needs a block in use with its layout.
    unsafe { low.deallocate(block, layout) };
    if how == "double free" {
        // SAFETY: none of it: this is the misuse, which the allocator is to notice before anything.
        unsafe { low.deallocate(block, layout) };
        return;
    }
    // SAFETY: none of it but that the arena is mapped: the keeper lives in it.
    unsafe { block.write_volatile(1) };
    for _ in 0..200_000 {
        drop(Box::new_in([0_u64; 6], low.clone()));
    }
}

#[test]
fn misuse_ends_the_process_with_a_message() {
    const HOW: &str = "LOW2G_TEST_MISUSE";
    if let Ok(how) = std::env::var(HOW) {
        misuse(&how);
        return;
    }
    for (how, message) in [
        ("double free", "a second free of it"),
        ("write after free", "was written to after its free"),
    ] {
        let program = std::env::current_exe().expect("this test program");
        let output = std::process::Command::new(program)
            .args([
                "--exact",
                "misuse_ends_the_process_with_a_message",
                "--nocapture",
            ])
            .env(HOW, how)
            .output()
            .expect("it starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{how}: not noticed");
        assert!(errors.contains(message), "{how}: {errors}");
    }
}
