//! The carrier: a shared object made in memory that the dynamic linker loads and resolves.
//!
//! Its block's copies, the module number and the offsets are then the dynamic linker's own
//! doing, right for threads that exist and threads to come. What it cannot do, it says.
//!
//! Invariant: a path is never used twice (see `MemoryFile::path`).

use std::ffi::CString;
use std::sync::atomic::{AtomicU64, Ordering};

use low2g_platform::{align_up, to_u64, to_usize};

use super::order::{self, Fixed};
use super::shared::{Ask, Contents, Of, WORD_SIZE, WORDS_SYMBOL};
use super::system::{Index, get_addr};
use crate::link::host::{self, MemoryFile, Scope, Visibility};

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
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        let file = MemoryFile::new("low2g-tls", &contents.write())
            .map_err(|error| format!("a file in memory cannot be made: {error}"))?;
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        // The object has no code to run, and its tables are well-formed by construction.
        let opened = file.open(serial, Visibility::Local);
        let handle = opened
            .map_err(|said| said.replace(&file.path(serial), "the link's thread-local block"))?;
        let mut carrier = Self {
            handle,
            fixed: false,
        };
        let (words_addr, answers) = carrier.words(contents.words.len())?;
        let answer = |asked| {
            let index = contents.words.iter().position(|word| *word == asked);
            index.map(|index| answers[index][0])
        };
        let offset = answer((Ask::PointerOffset, Of::Own(0)));
        if let Some(offset) = offset.or_else(|| static_offset(contents, &answers)) {
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
        let start = host::symbol(Scope::Library(self.handle), &name, None)
            .ok_or_else(|| format!("the dynamic linker does not find {WORDS_SYMBOL}"))?;
        let start = std::ptr::with_exposed_provenance::<u64>(to_usize(start));
        let machine_words = count * to_usize(WORD_SIZE / 8);
        // SAFETY: the symbol names this many machine words of the loaded object, aligned to
        // 16, which the dynamic linker has written and nobody writes again.
        let words = unsafe { std::slice::from_raw_parts(start, machine_words) };
        let answers = words.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
        Ok((to_u64(start.expose_provenance()), answers.collect()))
    }
}

/// The block's offset from the thread pointer if the dynamic linker made it static for the sake
/// of its descriptors, as glibc does while there is room (sysdeps/x86_64/dl-machine.h).
fn static_offset(contents: &Contents<'_>, answers: &[Answer]) -> Option<u64> {
    let described = contents.words.iter().zip(answers);
    described
        .filter_map(|(word, answer)| match word {
            // The argument of a dynamic variable's resolver is an address, so not negative.
            (Ask::Descriptor, Of::Own(at)) if answer[1].cast_signed() < 0 => {
                Some(answer[1].wrapping_sub(*at))
            }
            _ => None,
        })
        .next()
}

impl Drop for Carrier {
    fn drop(&mut self) {
        if self.fixed {
            close(&order::leave(self.handle));
        } else {
            host::close(self.handle);
        }
    }
}

/// Unloads carriers that `order` gives, each once.
pub(super) fn close(handles: &[usize]) {
    for &handle in handles {
        host::close(handle);
    }
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

/// The calling thread's address of the variable at `offset` of `module`'s block; allots the
/// block to the thread if it has none yet. `None` where the system has no such function.
///
/// # Safety
/// `module` must be loaded, and `offset` inside its block.
pub(crate) unsafe fn address_of(module: u64, offset: u64) -> Option<u64> {
    let function = get_addr()?;
    let index = Index { module, offset };
    // SAFETY: the caller vouches for module and offset.
    let found = unsafe { function(&raw const index) };
    Some(to_u64(found.expose_provenance()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
