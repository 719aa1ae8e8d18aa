//! The threads whose copies of a static block can be written, and the writing.
//!
//! A static block is at one offset from every thread pointer, but no interface tells all
//! thread pointers. So copies are written only where all threads are known: the process has
//! one thread, or each has registered itself.
//!
//! A thread that is being created meanwhile has taken the old initial values and is in no list
//! yet. It registers before it runs loaded code, and registering copies what was written.
//!
//! Invariant: `KNOWN` holds the pointers of running threads only, since a thread leaves it
//! before its storage goes; and `written` holds ranges whose image stays readable.

use std::path::Path;

use low2g_platform::to_usize;
use parking_lot::{Mutex, MutexGuard};

use super::system::thread_pointer;

/// Where Linux lists the process's threads.
const TASKS: &str = "/proc/self/task";
/// `PF_EXITING` in a thread's flags (Linux, include/linux/sched.h): no more of its code runs.
const EXITING: u64 = 4;
/// How often an ended thread that is still listed is looked for, a millisecond apart.
const ATTEMPTS: u32 = 10;

static KNOWN: Mutex<Known> = Mutex::new(Known {
    threads: Vec::new(),
    written: Vec::new(),
});

#[derive(Debug)]
struct Known {
    threads: Vec<Thread>,
    written: Vec<Range>,
}

/// A registered thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Thread {
    id: u32,
    pointer: usize,
}

/// A part of static thread-local storage whose copies we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    /// From the thread pointer, two's complement.
    pub(super) offset: u64,
    /// Address of the initial values, which new threads get.
    pub(super) image: usize,
    pub(super) size: usize,
}

impl Range {
    /// Copies the initial values to the copy of the thread whose pointer is `pointer`.
    ///
    /// # Safety
    /// The thread must run on, the range lie in its static storage, and nobody use its copy.
    unsafe fn write(self, pointer: usize) {
        let from = std::ptr::with_exposed_provenance::<u8>(self.image);
        let to = pointer.wrapping_add(to_usize(self.offset));
        let to = std::ptr::with_exposed_provenance_mut::<u8>(to);
        // SAFETY: the image is readable (`KNOWN`'s invariant); the caller vouches for the copy.
        unsafe { std::ptr::copy_nonoverlapping(from, to, self.size) };
    }
}

/// The registration of one thread, which ends with it.
struct Registration(Option<Thread>);

impl Drop for Registration {
    fn drop(&mut self) {
        let Some(thread) = self.0 else { return };
        KNOWN.lock().threads.retain(|known| *known != thread);
    }
}

/// Registers the calling thread: its copies of thread-local blocks may be written when loaded
/// modules come and go.
///
/// Where every thread of the process does so, ranges of static storage are used again at once,
/// and the pool takes blocks with initial values, also while several threads run. Call it at
/// the start of each thread, before it runs loaded code. It lasts until the thread ends.
pub fn register_thread() {
    std::thread_local! {
        static REGISTRATION: Registration = Registration::new();
    }
    REGISTRATION.with(|_| ());
}

impl Registration {
    fn new() -> Self {
        let (Some(id), Some(pointer)) = (own_id(), thread_pointer()) else {
            return Self(None);
        };
        let thread = Thread { id, pointer };
        let mut known = KNOWN.lock();
        for range in &known.written {
            // SAFETY: the thread is this one; it has not run loaded code yet.
            unsafe { range.write(pointer) };
        }
        known.threads.push(thread);
        Self(Some(thread))
    }
}

/// All threads of the process, which neither end nor register meanwhile.
#[derive(Debug)]
pub(super) struct AllThreads {
    known: MutexGuard<'static, Known>,
    pointers: Vec<usize>,
}

impl AllThreads {
    /// `None` if a thread of the process is not known.
    pub(super) fn hold() -> Option<Self> {
        let (own, pointer) = (own_id()?, thread_pointer()?);
        for _ in 0..ATTEMPTS {
            let known = KNOWN.lock();
            if !has_strangers(&known.threads, own)? {
                let mut pointers: Vec<usize> = known.threads.iter().map(|t| t.pointer).collect();
                if known.threads.iter().all(|thread| thread.id != own) {
                    pointers.push(pointer);
                }
                return Some(Self { known, pointers });
            }
            // Where threads register, the stranger may be one that ends.
            if known.threads.is_empty() {
                return None;
            }
            drop(known);
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        None
    }

    /// Writes every thread's copy of `range`, and keeps doing so for threads that register.
    ///
    /// # Safety
    /// The range must lie in the static storage of all threads, and nobody use it; its image
    /// must be readable until `forget`.
    pub(super) unsafe fn write(&mut self, range: Range) {
        self.known.written.push(range);
        for &pointer in &self.pointers {
            // SAFETY: a registered thread runs as long as `known` is locked, and this one
            // runs; the caller vouches for the rest.
            unsafe { range.write(pointer) };
        }
    }
}

/// Ends what `AllThreads::write` began. The range is nobody's then.
pub(super) fn forget(offset: u64) {
    KNOWN.lock().written.retain(|range| range.offset != offset);
}

/// Whether a thread runs that is neither registered nor alone. `None` if that cannot be known.
fn has_strangers(known: &[Thread], own: u32) -> Option<bool> {
    let registered = |id| known.iter().any(|thread| thread.id == id);
    let mut alone = true;
    for entry in std::fs::read_dir(TASKS).ok()? {
        let name = entry.ok()?.file_name();
        let id: u32 = name.to_str()?.parse().ok()?;
        if id == own {
            continue;
        }
        if registered(id) {
            alone = false;
        } else if !is_exiting(id) {
            return Some(true);
        }
    }
    Some(!alone && !registered(own))
}

/// Whether the kernel has begun to end the thread, or has ended it.
fn is_exiting(id: u32) -> bool {
    let Ok(text) = std::fs::read_to_string(format!("{TASKS}/{id}/stat")) else {
        return !Path::new(&format!("{TASKS}/{id}")).exists();
    };
    // The name, in parentheses, can hold anything; the flags are the seventh field after it.
    let fields = text.rsplit_once(") ").map(|(_, fields)| fields);
    let flags = fields.and_then(|fields| fields.split(' ').nth(6));
    let flags = flags.and_then(|flags| flags.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & EXITING != 0)
}

/// The calling thread's number, as `TASKS` has it.
fn own_id() -> Option<u32> {
    let path = std::fs::read_link("/proc/thread-self").ok()?;
    path.file_name()?.to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unregistered_thread_is_a_stranger() {
        let (send, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || wait.recv());
        assert!(
            AllThreads::hold().is_none(),
            "the test's own threads at least"
        );
        drop(send);
        assert!(thread.join().expect("no panic").is_err());
    }
}
