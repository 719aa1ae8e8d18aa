//! The carrier: a shared object made in memory that the dynamic linker loads and resolves.
//!
//! Its block's copies, the module number and the offsets are then the dynamic linker's own
//! doing, right for threads that exist and threads to come. What it cannot do, it says.
//!
//! Invariant: a path is never used twice, because dynamic linkers know loaded objects by
//! the path as a string, and a file descriptor's number returns. Bits of a serial number
//! are written as `/` and `/.`, which name the same file.

use std::ffi::{CStr, CString, c_void};
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use low2g_platform::{align_up, to_u64, to_usize};

use super::order::{self, Fixed};
use super::shared::{Ask, Contents, Of, WORD_SIZE, WORDS_SYMBOL};

/// Where the process's open files have names.
#[cfg(not(target_os = "freebsd"))]
const OPEN_FILES: &str = "/proc/self/fd";
#[cfg(target_os = "freebsd")]
const OPEN_FILES: &str = "/dev/fd";

/// A loaded carrier. Dropping it unloads it, at once or when its turn comes (see `order`).
#[derive(Debug)]
pub(crate) struct Carrier {
    /// From `dlopen`, as a number.
    handle: usize,
    /// Its own block is static: `order` unloads it.
    fixed: bool,
}

/// What a word resolved to.
pub(crate) type Answer = [u64; 2];

impl Carrier {
    /// Loads an object of `contents`.
    ///
    /// # Errors
    /// What the system or the dynamic linker said.
    pub(crate) fn load(contents: &Contents<'_>) -> Result<(Self, Vec<Answer>), String> {
        let file = in_memory(&contents.write())
            .map_err(|error| format!("a file in memory cannot be made: {error}"))?;
        let path = unique_path(file.as_raw_fd());
        // SAFETY: dlopen wants a NUL-terminated path. The object has no code to run, and its
        // tables are well-formed by construction.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            let said = crate::link::process::last_error();
            let path = path.to_string_lossy();
            return Err(said.replace(&*path, "the link's thread-local block"));
        }
        let mut carrier = Self {
            handle: handle.expose_provenance(),
            fixed: false,
        };
        let (words_addr, answers) = carrier.words(contents.words.len())?;
        let answer = |asked| {
            let index = contents.words.iter().position(|word| *word == asked);
            index.map(|index| answers[index][0])
        };
        if let Some(offset) = answer((Ask::PointerOffset, Of::Own(0))) {
            order::enter(Fixed {
                handle: carrier.handle,
                module: answer((Ask::Module, Of::Own(0))).unwrap_or(0),
                depth: offset.wrapping_neg(),
                size: if contents.full { contents.size } else { 0 },
                image: to_usize(contents.image_addr(words_addr)),
            });
            carrier.fixed = true;
        }
        Ok((carrier, answers))
    }

    /// The words' address, and what they hold.
    fn words(&self, count: usize) -> Result<(u64, Vec<Answer>), String> {
        let name = CString::new(WORDS_SYMBOL).expect("no NUL in it");
        // SAFETY: the handle is open; the name ends in NUL.
        let start = unsafe { libc::dlsym(self.pointer(), name.as_ptr()) };
        if start.is_null() {
            return Err(crate::link::process::last_error());
        }
        let machine_words = count * to_usize(WORD_SIZE / 8);
        // SAFETY: the symbol names this many machine words of the loaded object, aligned to
        // 16, which the dynamic linker has written and nobody writes again.
        let words = unsafe { std::slice::from_raw_parts(start.cast::<u64>(), machine_words) };
        let answers = words.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
        Ok((to_u64(start.expose_provenance()), answers.collect()))
    }

    fn pointer(&self) -> *mut c_void {
        std::ptr::with_exposed_provenance_mut(self.handle)
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        if self.fixed {
            close(&order::leave(self.handle));
        } else {
            close(&[self.handle]);
        }
    }
}

/// Unloads carriers: what they were loaded as, once.
pub(super) fn close(handles: &[usize]) {
    for &handle in handles {
        // SAFETY: the handle came from dlopen and is closed once: by its carrier, or when
        // `order` gives it.
        let failed = unsafe { libc::dlclose(std::ptr::with_exposed_provenance_mut(handle)) };
        debug_assert_eq!(failed, 0, "an open handle can be closed");
    }
}

fn in_memory(bytes: &[u8]) -> std::io::Result<OwnedFd> {
    const NAME: &CStr = c"low2g-tls";
    // SAFETY: memfd_create wants a NUL-terminated name.
    let number = unsafe { libc::memfd_create(NAME.as_ptr(), libc::MFD_CLOEXEC) };
    if number < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the descriptor is fresh and nobody else's.
    let file = unsafe { OwnedFd::from_raw_fd(number) };
    let mut file = std::fs::File::from(file);
    file.write_all(bytes)?;
    Ok(file.into())
}

/// A path of open file `number` that was never used before.
fn unique_path(number: i32) -> CString {
    static SERIAL: AtomicU64 = AtomicU64::new(1);
    let mut serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let mut path = OPEN_FILES.to_owned();
    while serial != 0 {
        path.push_str(if serial & 1 == 1 { "/." } else { "/" });
        serial >>= 1;
    }
    path.push('/');
    path.push_str(&number.to_string());
    CString::new(path).expect("no NUL in it")
}

/// Size and alignment under which a static block of `size` bytes is given back when it is
/// unloaded last in, first out.
///
/// glibc frees a block by its size and forgets the gap that aligned it; the block below then
/// no longer ends where the free space starts, and is lost (glibc 2.36, elf/dl-close.c and
/// `_dl_try_allocate_static_tls`). So the gap is made part of the block. Blocks aligned to 16
/// or less fit each other at multiples of 16; for others, where the space ends is found first.
pub(crate) fn stackable(size: u64, align: u64) -> (u64, u64) {
    if size == 0 {
        return (0, align);
    }
    if align <= GRAIN {
        return (size.next_multiple_of(GRAIN), GRAIN);
    }
    let probe = Carrier::load(&static_block(GRAIN)).ok();
    let Some((_, answers)) = probe else {
        // No room even for that: the block's own load will say so.
        return (size, align);
    };
    let used = answers[0][0].wrapping_neg().wrapping_sub(GRAIN);
    let end = align_up(used.saturating_add(size), align);
    (end.map_or(size, |end| end - used), align)
}

/// Sixteen bytes, the least that blocks are apart in practice.
const GRAIN: u64 = 16;

/// A block of `size` bytes that must be static, wherever it fits.
const fn static_block(size: u64) -> Contents<'static> {
    Contents {
        image: &[],
        size,
        align: 1,
        full: false,
        names: &[],
        words: &[(Ask::PointerOffset, Of::Own(0))],
    }
}

/// Bytes of static thread-local storage that a block loaded now could have, at most `limit`.
///
/// Found by loading blocks and unloading them, as no interface tells it. Costs some
/// milliseconds; other threads' loads at the same time make it too small.
#[must_use]
pub fn static_space(limit: u64) -> u64 {
    let fits = |size: u64| Carrier::load(&static_block(size)).is_ok();
    let (mut low, mut high) = (0, limit / GRAIN + 1);
    while high - low > 1 {
        let middle = low.midpoint(high);
        if fits(middle * GRAIN) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low * GRAIN
}

/// Arguments of `__tls_get_addr`.
#[repr(C)]
struct Index {
    module: u64,
    offset: u64,
}

/// The calling thread's address of the variable at `offset` of `module`'s block; allots the
/// block to the thread if it has none yet. `None` without a dynamic linker.
///
/// # Safety
/// `module` must be loaded, and `offset` inside its block.
pub(crate) unsafe fn address_of(module: u64, offset: u64) -> Option<u64> {
    type GetAddr = unsafe extern "C" fn(*const Index) -> *mut c_void;
    // SAFETY: the name ends in NUL.
    let function = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__tls_get_addr".as_ptr()) };
    if function.is_null() {
        return None;
    }
    // SAFETY: the psABI gives `__tls_get_addr` this signature.
    let function = unsafe { std::mem::transmute::<*mut c_void, GetAddr>(function) };
    let index = Index { module, offset };
    // SAFETY: the caller vouches for module and offset.
    let found = unsafe { function(&raw const index) };
    Some(to_u64(found.expose_provenance()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_never_repeat_and_name_the_file() {
        let file = in_memory(b"carried").expect("memory");
        let mut seen = std::collections::HashSet::new();
        for _ in 0..300 {
            let path = unique_path(file.as_raw_fd());
            let text = path.to_str().expect("ASCII").to_owned();
            assert_eq!(std::fs::read(&text).expect("opens"), b"carried", "{text}");
            assert!(seen.insert(text));
        }
    }

    #[test]
    fn the_dynamic_linker_resolves_own_words() {
        let contents = Contents {
            image: b"initial values",
            size: 4096,
            align: 64,
            full: false,
            names: &["errno"],
            words: &[
                (Ask::Module, Of::Own(0)),
                (Ask::BlockOffset, Of::Own(24)),
                (Ask::PointerOffset, Of::Name(0)),
                (Ask::Descriptor, Of::Own(8)),
            ],
        };
        let (carrier, words) = Carrier::load(&contents).expect("a dynamic block always fits");
        let (module, offset, errno) = (words[0][0], words[1][0], words[2][0]);
        assert_eq!(offset, 24);
        assert!(errno.cast_signed() < 0, "glibc's own block is static");
        assert!(words[3][0] != 0, "a resolver function");
        // SAFETY: the carrier is loaded; offsets 0 and 4095 lie in its block.
        let start = unsafe { address_of(module, 0) }.expect("glibc");
        assert_eq!(start % 64, 0);
        let start = std::ptr::with_exposed_provenance::<[u8; 16]>(to_usize(start));
        // SAFETY: the block has 4096 bytes.
        let value = unsafe { start.read() };
        assert_eq!(&value, b"initial values\0\0");
        drop(carrier);
    }

    #[test]
    fn what_the_dynamic_linker_refuses_it_explains() {
        let contents = Contents {
            image: &[],
            size: 1 << 20,
            align: 16,
            full: false,
            names: &["low2g_nowhere_defined"],
            words: &[(Ask::PointerOffset, Of::Name(0))],
        };
        let error = Carrier::load(&contents).expect_err("nobody defines it");
        assert!(error.contains("low2g_nowhere_defined"), "{error}");
        let space = static_space(1 << 20);
        assert!(space < 1 << 20, "no surplus is that big");
    }
}
