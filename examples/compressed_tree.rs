//! A search tree whose links are four bytes wide, because all of it lies in low memory: 16 bytes a
//! node against 24 of its 64-bit twin, for which malloc takes 32.
//!
//! `cargo run --release --example compressed_tree`

use std::ptr::NonNull;
use std::time::Instant;

use allocator_api2::boxed::Box;
use low2g::alloc::{Low32, LowAllocator, Placement};

/// A node with links of four bytes.
struct Node {
    key: u32,
    left: Option<Low32<Node>>,
    right: Option<Low32<Node>>,
    value: u32,
}

/// A tree that owns its nodes.
struct Tree {
    low: LowAllocator,
    root: Option<Low32<Node>>,
    len: usize,
}

impl Tree {
    fn new(low: LowAllocator) -> Self {
        Self {
            low,
            root: None,
            len: 0,
        }
    }

    fn insert(&mut self, key: u32, value: u32) {
        let mut link = &mut self.root;
        while let Some(node) = *link {
            // SAFETY: as_mut needs a valid node that nobody else reaches: the tree owns its nodes and
            // is borrowed exclusively.
            let node = unsafe { node.as_mut() };
            if node.key == key {
                node.value = value;
                return;
            }
            link = if key < node.key {
                &mut node.left
            } else {
                &mut node.right
            };
        }
        let node = Node {
            key,
            left: None,
            right: None,
            value,
        };
        let node = NonNull::from(Box::leak(Box::new_in(node, self.low.clone())));
        *link = Some(Low32::new(node).expect("the allocator's reach ends below 2 GiB"));
        self.len += 1;
    }

    fn get(&self, key: u32) -> Option<u32> {
        let mut link = self.root;
        while let Some(node) = link {
            // SAFETY: as_ref needs a valid node that nobody writes: the tree owns its nodes and is
            // borrowed.
            let node = unsafe { node.as_ref() };
            if node.key == key {
                return Some(node.value);
            }
            link = if key < node.key {
                node.left
            } else {
                node.right
            };
        }
        None
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let mut rest: Vec<_> = self.root.into_iter().collect();
        while let Some(node) = rest.pop() {
            // SAFETY: from_raw_in needs a box leaked from the same allocator, once: each node is
            // reached over one link, and the tree is gone.
            let node = unsafe { Box::from_raw_in(node.as_ptr(), self.low.clone()) };
            rest.extend(node.left.into_iter().chain(node.right));
        }
    }
}

/// The same with ordinary links.
struct Wide {
    key: u32,
    left: Option<std::boxed::Box<Wide>>,
    right: Option<std::boxed::Box<Wide>>,
    value: u32,
}

fn insert_wide(root: &mut Option<std::boxed::Box<Wide>>, key: u32, value: u32) {
    let mut link = root;
    while let Some(node) = link {
        if node.key == key {
            node.value = value;
            return;
        }
        link = if key < node.key {
            &mut node.left
        } else {
            &mut node.right
        };
    }
    let (left, right) = (None, None);
    *link = Some(std::boxed::Box::new(Wide {
        key,
        left,
        right,
        value,
    }));
}

fn get_wide(root: &Option<std::boxed::Box<Wide>>, key: u32) -> Option<u32> {
    let mut link = root;
    while let Some(node) = link {
        if node.key == key {
            return Some(node.value);
        }
        link = if key < node.key {
            &node.left
        } else {
            &node.right
        };
    }
    None
}

/// Distinct keys in no order.
fn key(index: u32) -> u32 {
    index.wrapping_mul(2_654_435_761)
}

/// Bytes that malloc has given out, where it tells.
fn malloc_bytes() -> Option<usize> {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallinfo2 has no precondition.
    return Some(unsafe { libc::mallinfo2() }.uordblks);
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    None
}

fn main() {
    const KEYS: u32 = 200_000;
    // First fit keeps neighbours in time neighbours in memory; scattered nodes cost cache misses.
    let builder = LowAllocator::builder()
        .bare()
        .placement(Placement::FirstFit);
    let low = builder.build();
    let mut tree = Tree::new(low.expect("this system has low memory"));
    let mut wide = None;
    let before = malloc_bytes();
    for index in 0..KEYS {
        insert_wide(&mut wide, key(index), index);
    }
    let after = malloc_bytes();
    for index in 0..KEYS {
        tree.insert(key(index), index);
    }
    let start = Instant::now();
    assert!((0..KEYS).all(|index| tree.get(key(index)) == Some(index)));
    let narrow_time = start.elapsed();
    let start = Instant::now();
    assert!((0..KEYS).all(|index| get_wide(&wide, key(index)) == Some(index)));
    let wide_time = start.elapsed();
    assert_eq!(tree.len, 200_000);
    let slots = tree.low.statistics().data_slot_bytes;
    println!(
        "{KEYS} nodes: {} bytes each in low memory ({slots} in all), {} with 64-bit links",
        size_of::<Node>(),
        size_of::<Wide>()
    );
    println!("look-ups: {narrow_time:?} low, {wide_time:?} with 64-bit links");
    assert_eq!(size_of::<Node>(), 16);
    assert_eq!(slots, u64::from(KEYS) * 16);
    if let (Some(before), Some(after)) = (before, after) {
        let malloc = after - before;
        println!("all nodes: {slots} bytes low, {malloc} of malloc with 64-bit links");
        // Seven chunks of a size may have been this thread's before, and counted as given out.
        const CACHED: u64 = 7 * 32;
        assert!(low2g::platform::to_u64(malloc) + CACHED >= 2 * slots);
    }
}
