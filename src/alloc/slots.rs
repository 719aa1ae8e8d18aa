//! The sizes of slots: which one a block of some size and alignment gets, and its number.

use low2g_platform::{to_u64, to_usize};

/// Smallest slot, and the spacing of the small classes, in bytes.
pub(crate) const QUANTUM: u64 = 16;

/// Last class of the small spacing.
const LINEAR_END: u64 = 128;

/// The slot size for `size` bytes aligned to `align`, a power of two: every 16 bytes up to
/// 128, then four sizes between powers of two. At most a fifth of a slot is lost to size.
pub(crate) fn slot_size(size: u64, align: u64) -> u64 {
    let mut class = size.max(1).next_multiple_of(QUANTUM);
    loop {
        if class > LINEAR_END {
            let spacing = (class - 1).next_power_of_two() / 8;
            class = class.next_multiple_of(spacing);
        }
        if class.is_multiple_of(align) {
            return class;
        }
        class += QUANTUM;
    }
}

/// Number of slot sizes up to [`MAX_CLASS`].
pub(crate) const CLASSES: usize = 40;

/// Largest of the numbered slot sizes in bytes.
pub(crate) const MAX_CLASS: u64 = 32 << 10;

/// The number of the class that [`slot_size`] gives for `size` bytes at `align`; `None` if it is
/// larger than [`MAX_CLASS`], or `align` is no alignment.
#[inline]
pub(crate) fn class_of(size: u64, align: u64) -> Option<usize> {
    if !align.is_power_of_two() {
        return None;
    }
    let slot = if align <= QUANTUM {
        size
    } else {
        slot_size(size, align)
    };
    if slot > MAX_CLASS {
        return None;
    }
    if slot <= LINEAR_END {
        return Some(to_usize(slot.max(1).div_ceil(QUANTUM)) - 1);
    }
    let magnitude = (slot - 1).ilog2();
    let quarter = ((slot - 1) >> (magnitude - 2)) & 3;
    Some(to_usize(u64::from(magnitude - LINEAR_END.ilog2()) * 4 + quarter) + 8)
}

/// The class of each size up to [`TABLED`], by its number of whole [`QUANTUM`]s less one byte.
static CLASS_OF: [u8; to_usize(TABLED / QUANTUM)] = class_table();

/// Sizes up to this many bytes are looked up.
pub(crate) const TABLED: u64 = 4096;

const fn class_table() -> [u8; to_usize(TABLED / QUANTUM)] {
    let mut table = [0; to_usize(TABLED / QUANTUM)];
    let (mut at, mut class) = (0, 0_u8);
    while at < table.len() {
        while class_size(class as usize) < (to_u64(at) + 1) * QUANTUM {
            class += 1;
        }
        table[at] = class;
        at += 1;
    }
    table
}

/// The class of a block of `size` bytes, not 0, that needs no more alignment than any slot has, if
/// it is one of the small ones.
#[inline(always)]
pub(crate) fn class_of_size(size: u64) -> Option<usize> {
    // 0 wraps to beyond the table.
    let class = usize::from(*CLASS_OF.get(to_usize(size.wrapping_sub(1) / QUANTUM))?);
    const {
        // The table ascends.
        assert!((CLASS_OF[CLASS_OF.len() - 1] as usize) < CLASSES);
    }
    // SAFETY: assert_unchecked needs that it holds: it does for all of the table.
    unsafe { std::hint::assert_unchecked(class < CLASSES) };
    Some(class)
}

/// The slot size of class `class`.
pub(crate) const fn class_size(class: usize) -> u64 {
    let class = to_u64(class);
    if class < 8 {
        return (class + 1) * QUANTUM;
    }
    let (doubling, quarter) = ((class - 8) / 4, (class - 8) % 4);
    (LINEAR_END << doubling) / 4 * (5 + quarter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "arithmetic only, and much of it")]
    fn classes_are_slot_sizes() {
        for align in [1, 2, 16, 32, 64, 256, 4096] {
            for size in 1..=MAX_CLASS + 2 {
                let slot = slot_size(size, align);
                let class = class_of(size, align);
                assert_eq!(class.is_some(), slot <= MAX_CLASS, "{size} {align}");
                if let Some(class) = class {
                    assert_eq!(class_size(class), slot, "{size} {align}");
                    assert!(class < CLASSES);
                }
            }
        }
        assert_eq!(class_of(0, 1), Some(0));
        for size in 1..=TABLED {
            assert_eq!(class_of_size(size), class_of(size, 1), "{size}");
        }
        assert_eq!(class_of_size(0), None);
        assert_eq!(class_of_size(TABLED + 1), None);
    }
}
