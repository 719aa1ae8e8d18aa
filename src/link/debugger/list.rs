//! The list that debuggers read, and the function at which they stop to read it.
//!
//! Both symbols are weak: a program that holds another definition of them, such as LLVM's, has
//! one list, which both use. Debuggers find the symbols of every file of the process by name.
//! Invariant: only `list` below reads or writes the descriptor and what hangs on it; another
//! definer in one program locks for itself, as all of them do.

use std::arch::global_asm;
use std::ptr;

use parking_lot::Mutex;

/// `struct jit_code_entry` of gdb's manual.
#[repr(C)]
#[derive(Debug)]
struct Entry {
    next: *mut Entry,
    prev: *mut Entry,
    image: *const u8,
    /// Bytes.
    size: u64,
}

/// `struct jit_descriptor` of gdb's manual.
#[repr(C)]
#[derive(Debug)]
struct Descriptor {
    version: u32,
    action: u32,
    relevant: *mut Entry,
    first: *mut Entry,
}

const REGISTER: u32 = 1;
const UNREGISTER: u32 = 2;

global_asm!(
    ".pushsection .text.__jit_debug_register_code,\"ax\",@progbits",
    ".weak __jit_debug_register_code",
    ".type __jit_debug_register_code,@function",
    "__jit_debug_register_code:",
    "nop",
    "ret",
    ".size __jit_debug_register_code,.-__jit_debug_register_code",
    ".popsection",
    ".pushsection .data.__jit_debug_descriptor,\"aw\",@progbits",
    ".balign 8",
    ".weak __jit_debug_descriptor",
    ".type __jit_debug_descriptor,@object",
    "__jit_debug_descriptor:",
    ".long 1, 0",
    ".quad 0, 0",
    ".size __jit_debug_descriptor,.-__jit_debug_descriptor",
    ".popsection",
);

unsafe extern "C" {
    fn __jit_debug_register_code();
    static mut __jit_debug_descriptor: Descriptor;
}

static LOCK: Mutex<()> = Mutex::new(());

/// An image in the list. Dropping it takes it out.
#[derive(Debug)]
pub(super) struct Registered {
    entry: *mut Entry,
    /// What the entry points to.
    image: Box<[u8]>,
}

// SAFETY: the entry is owned, and looked at only under LOCK, from any thread.
unsafe impl Send for Registered {}
// SAFETY: no method takes `&self`.
unsafe impl Sync for Registered {}

impl Registered {
    pub(super) fn new(image: Box<[u8]>) -> Self {
        let _guard = LOCK.lock();
        let descriptor = &raw mut __jit_debug_descriptor;
        // SAFETY: the descriptor is a static, and the lock is held.
        let first = unsafe { (*descriptor).first };
        let entry = Box::into_raw(Box::new(Entry {
            next: first,
            prev: ptr::null_mut(),
            image: image.as_ptr(),
            size: low2g_platform::to_u64(image.len()),
        }));
        if !first.is_null() {
            // SAFETY: entries of the list are valid until they are taken out, under the lock.
            unsafe { (*first).prev = entry };
        }
        // SAFETY: as above.
        unsafe { (*descriptor).first = entry };
        tell(entry, REGISTER);
        Self { entry, image }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let _guard = LOCK.lock();
        // SAFETY: the entry was made by `new` and is freed below only; the lock is held.
        let entry = unsafe { &*self.entry };
        let (next, prev) = (entry.next, entry.prev);
        if !next.is_null() {
            // SAFETY: entries of the list are valid until they are taken out, under the lock.
            unsafe { (*next).prev = prev };
        }
        if prev.is_null() {
            let descriptor = &raw mut __jit_debug_descriptor;
            // SAFETY: the descriptor is a static, and the lock is held.
            unsafe { (*descriptor).first = next };
        } else {
            // SAFETY: as for `next`.
            unsafe { (*prev).next = next };
        }
        tell(self.entry, UNREGISTER);
        debug_assert!(!self.image.is_empty(), "the image outlives its entry");
        // SAFETY: it came from Box::into_raw, and nothing points to it any more.
        drop(unsafe { Box::from_raw(self.entry) });
    }
}

/// Has the debugger, if there is one, look at `entry`. The lock is held.
fn tell(entry: *mut Entry, action: u32) {
    let descriptor = &raw mut __jit_debug_descriptor;
    // SAFETY: the descriptor is a static, and the lock is held.
    unsafe { (*descriptor).relevant = entry };
    // SAFETY: as above.
    unsafe { (*descriptor).action = action };
    // SAFETY: it does nothing; debuggers stop there.
    unsafe { __jit_debug_register_code() };
    // SAFETY: as above. What is about to be freed is named no longer.
    unsafe { (*descriptor).relevant = ptr::null_mut() };
    // SAFETY: as above.
    unsafe { (*descriptor).action = 0 };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The images in the list, as a debugger that stops now finds them.
    fn listed() -> Vec<*const u8> {
        let _guard = LOCK.lock();
        let descriptor = &raw const __jit_debug_descriptor;
        let mut images = Vec::new();
        // SAFETY: the descriptor is a static, and the lock is held.
        let mut at = unsafe { (*descriptor).first };
        while !at.is_null() {
            // SAFETY: entries of the list are valid under the lock.
            let entry = unsafe { &*at };
            images.push(entry.image);
            at = entry.next;
        }
        images
    }

    #[test]
    fn entries_come_and_go_in_any_order() {
        let make = |byte: u8| Registered::new(vec![byte; 4].into_boxed_slice());
        let mut all: Vec<Registered> = (0..5).map(make).collect();
        let images: Vec<*const u8> = all.iter().map(|one| one.image.as_ptr()).collect();
        let ours = |list: Vec<*const u8>| {
            let mut list: Vec<_> = list.into_iter().filter(|at| images.contains(at)).collect();
            list.reverse();
            list
        };
        assert_eq!(ours(listed()), images);
        for gone in [2, 0, 2] {
            drop(all.remove(gone));
            let left: Vec<_> = all.iter().map(|one| one.image.as_ptr()).collect();
            assert_eq!(ours(listed()), left);
        }
        drop(all);
        assert_eq!(ours(listed()), []);
    }
}
