//! The carriers with static blocks: the order in which they are unloaded, and their second use.
//!
//! glibc takes static space back only where the free space starts: a block that is freed
//! below one in use is lost for good. So a carrier that is done with waits until all above
//! it are, and whatever the order in which modules go, the space comes back in the end.
//! While it waits another module may have its block (see `room`).

use parking_lot::Mutex;

/// A loaded carrier whose block is static.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fixed {
    /// From `dlopen`, as a number.
    pub(super) handle: usize,
    /// The block's module number.
    pub(super) module: u64,
    /// Distance of the block's start below the thread pointer: the greater, the higher up.
    pub(super) depth: u64,
    /// Bytes of the block.
    pub(super) size: u64,
    /// Address of its initial values, as many, writable.
    pub(super) image: usize,
}

#[derive(Debug)]
struct Entry {
    fixed: Fixed,
    done: bool,
}

/// Those of the process, by depth.
static LOADED: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// Notes a carrier.
pub(super) fn enter(fixed: Fixed) {
    let mut loaded = LOADED.lock();
    let at = loaded.partition_point(|entry| entry.fixed.depth < fixed.depth);
    loaded.insert(at, Entry { fixed, done: false });
}

/// The handles of carriers to unload, in order, now that this one is done with. The caller
/// unloads them without a lock of ours: the dynamic linker has its own.
pub(super) fn leave(handle: usize) -> Vec<usize> {
    let mut loaded = LOADED.lock();
    if let Some(entry) = loaded.iter_mut().find(|entry| entry.fixed.handle == handle) {
        entry.done = true;
    }
    let mut unload = Vec::new();
    while let Some(entry) = loaded.pop_if(|entry| entry.done) {
        unload.push(entry.fixed.handle);
    }
    unload
}

/// Takes the smallest block that waits and that has `size` bytes aligned to `align`, or tells
/// whether there is one if not `take`. It is to be left again.
fn find(size: u64, align: u64, take: bool) -> Option<Fixed> {
    let mut loaded = LOADED.lock();
    let fits = |entry: &&mut Entry| {
        let fixed = entry.fixed;
        entry.done && fixed.size >= size && fixed.depth.is_multiple_of(align)
    };
    let found = loaded.iter_mut().filter(fits);
    let entry = found.min_by_key(|entry| entry.fixed.size)?;
    entry.done = !take;
    Some(entry.fixed)
}

/// Whether `take` would find one.
pub(super) fn has(size: u64, align: u64) -> bool {
    find(size, align, false).is_some()
}

/// Takes the smallest waiting block of `size` bytes at least, aligned to `align`: nobody's
/// until it is left again.
pub(super) fn take(size: u64, align: u64) -> Option<Fixed> {
    find(size, align, true)
}

/// Bytes of blocks that wait.
pub(super) fn waiting() -> u64 {
    let loaded = LOADED.lock();
    let waiting = loaded.iter().filter(|entry| entry.done);
    waiting.map(|entry| entry.fixed.size).sum()
}
