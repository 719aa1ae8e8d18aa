//! The order in which carriers with static blocks are unloaded.
//!
//! glibc takes static space back only where the free space starts: a block that is freed
//! below one in use is lost for good. So a carrier that is done with waits until all above
//! it are, and whatever the order in which modules go, the space comes back in the end.

use parking_lot::Mutex;

/// A loaded carrier whose block is static.
#[derive(Debug)]
struct Entry {
    /// Distance of the block's start below the thread pointer: the greater, the higher up.
    depth: u64,
    handle: usize,
    done: bool,
}

/// Those of the process, by `depth`.
static LOADED: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// Notes a carrier whose block starts `depth` bytes below the thread pointer.
pub(super) fn enter(handle: usize, depth: u64) {
    let mut loaded = LOADED.lock();
    let at = loaded.partition_point(|entry| entry.depth < depth);
    let entry = Entry {
        depth,
        handle,
        done: false,
    };
    loaded.insert(at, entry);
}

/// The carriers to unload, in order, now that this one is done with. The caller unloads them
/// without a lock of ours: the dynamic linker has its own.
pub(super) fn leave(handle: usize) -> Vec<usize> {
    let mut loaded = LOADED.lock();
    if let Some(entry) = loaded.iter_mut().find(|entry| entry.handle == handle) {
        entry.done = true;
    }
    let mut unload = Vec::new();
    while let Some(entry) = loaded.pop_if(|entry| entry.done) {
        unload.push(entry.handle);
    }
    unload
}
