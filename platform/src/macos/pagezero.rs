//! The end of `__PAGEZERO`, read from the program's own load commands: `mach_vm_region` does
//! not list that segment, so a gap at the bottom of the map is not free space.
//!
//! Invariant: whatever the bytes are, nothing panics and nothing beyond them is read.

use super::abi::{LC_SEGMENT_64, MH_MAGIC_64};

/// Bytes of `struct mach_header_64`.
pub(super) const HEADER: usize = 32;

/// Offset of `ncmds` in it.
const COUNT: usize = 16;

/// Offsets in `struct segment_command_64`.
const NAME: usize = 8;
const ADDRESS: usize = 24;
const SIZE: usize = 32;

/// Where `__PAGEZERO` ends: 0 if the program has none, `None` if this is no 64-bit Mach-O header.
/// The segment is never slid.
pub(super) fn end(header: &[u8]) -> Option<u64> {
    if u32_at(header, 0)? != MH_MAGIC_64 {
        return None;
    }
    let mut rest = header.get(HEADER..)?;
    for _ in 0..u32_at(header, COUNT)? {
        let size = usize::try_from(u32_at(rest, 4)?).ok()?;
        if size < 8 {
            return None;
        }
        let (command, after) = rest.split_at_checked(size)?;
        let name = command.get(NAME..NAME + 16);
        if u32_at(command, 0)? == LC_SEGMENT_64 && name == Some(b"__PAGEZERO\0\0\0\0\0\0") {
            return u64_at(command, ADDRESS)?.checked_add(u64_at(command, SIZE)?);
        }
        rest = after;
    }
    Some(0)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*field))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*field))
}

/// A header with one segment `__PAGEZERO` and one after it, as linkers write it; for the
/// simulated system.
pub(crate) fn header(end: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let words = [MH_MAGIC_64, 0x0100_0007, 3, 2, 2, 2 * 72, 0, 0];
    out.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    for (name, address, size) in [
        (b"__PAGEZERO\0\0\0\0\0\0", 0, end),
        (b"__TEXT\0\0\0\0\0\0\0\0\0\0", end, 0x1000),
    ] {
        out.extend(LC_SEGMENT_64.to_le_bytes());
        out.extend(72_u32.to_le_bytes());
        out.extend(name);
        out.extend(
            [address, size, 0, 0]
                .iter()
                .flat_map(|word: &u64| word.to_le_bytes()),
        );
        out.extend([0; 16]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_segment_is_found() {
        for end_of_zero in [0x1_0000_0000, 0x1_0000, 0x1000] {
            assert_eq!(end(&header(end_of_zero)), Some(end_of_zero));
        }
        let mut without = header(1 << 32);
        without[HEADER + NAME] = b'x';
        assert_eq!(end(&without), Some(0));
        assert_eq!(end(&header(1 << 32)[..50]), None, "cut short");
        assert_eq!(end(b"\x7fELF"), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(at in 0_usize..176, byte in any::<u8>(), len in 0_usize..177) {
            let mut bytes = header(1 << 32);
            bytes[at] = byte;
            bytes.truncate(len);
            let _ = end(&bytes);
        }
    }
}
