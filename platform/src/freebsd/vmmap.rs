//! The records of `sysctl KERN_PROC_VMMAP`: `struct kinfo_vmentry`, each as long as its path needs.
//!
//! Invariant: no field is read beyond the record's own length, and a length
//! that cannot be is an error, so whatever the bytes are, nothing panics.

use super::abi::kve;

/// One entry of the process's map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) kind: i32,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) flags: i32,
    pub(super) protection: i32,
    /// Path of the mapped file; empty if there is none.
    pub(super) path: &'a [u8],
}

/// The bytes are no records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Calls `each` with every entry, in the kernel's order (ascending), until it returns false.
pub(super) fn entries<'a>(
    bytes: &'a [u8],
    each: &mut dyn FnMut(Entry<'a>) -> bool,
) -> Result<(), Malformed> {
    let mut rest = bytes;
    // The kernel leaves slack of zeros behind the last record.
    while rest.iter().any(|&byte| byte != 0) {
        let size = u32_at(rest, kve::STRUCTSIZE)?;
        let size = usize::try_from(size).map_err(|_| Malformed)?;
        if size < kve::PATH {
            return Err(Malformed);
        }
        let (record, after) = rest.split_at_checked(size).ok_or(Malformed)?;
        if !each(entry(record)?) {
            return Ok(());
        }
        rest = after;
    }
    Ok(())
}

fn entry(record: &[u8]) -> Result<Entry<'_>, Malformed> {
    let path = record.get(kve::PATH..).unwrap_or_default();
    let end = path.iter().position(|&byte| byte == 0);
    Ok(Entry {
        kind: i32_at(record, kve::TYPE)?,
        start: u64_at(record, kve::START)?,
        end: u64_at(record, kve::END)?,
        flags: i32_at(record, kve::FLAGS)?,
        protection: i32_at(record, kve::PROTECTION)?,
        path: &path[..end.unwrap_or(path.len())],
    })
}

fn field<const N: usize>(record: &[u8], at: usize) -> Result<[u8; N], Malformed> {
    let bytes = record.get(at..).and_then(|rest| rest.first_chunk());
    bytes.copied().ok_or(Malformed)
}

fn u32_at(record: &[u8], at: usize) -> Result<u32, Malformed> {
    field(record, at).map(u32::from_ne_bytes)
}

fn i32_at(record: &[u8], at: usize) -> Result<i32, Malformed> {
    field(record, at).map(i32::from_ne_bytes)
}

fn u64_at(record: &[u8], at: usize) -> Result<u64, Malformed> {
    field(record, at).map(u64::from_ne_bytes)
}

/// Appends the record of one entry, as the kernel writes it; for the simulated kernel.
pub(crate) fn write_entry(
    kind: i32,
    range: crate::range::AddrRange,
    flags: i32,
    protection: i32,
    path: &str,
    out: &mut Vec<u8>,
) {
    let size = (kve::PATH + path.len() + 1).next_multiple_of(8);
    let first = out.len();
    out.resize(first + size, 0);
    let record = &mut out[first..];
    let mut put = |at: usize, bytes: &[u8]| record[at..at + bytes.len()].copy_from_slice(bytes);
    let size = u32::try_from(size).expect("paths are short");
    put(kve::STRUCTSIZE, &size.to_ne_bytes());
    put(kve::TYPE, &kind.to_ne_bytes());
    put(kve::START, &range.start().to_ne_bytes());
    put(kve::END, &range.end().to_ne_bytes());
    put(kve::FLAGS, &flags.to_ne_bytes());
    put(kve::PROTECTION, &protection.to_ne_bytes());
    put(kve::PATH, path.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::range::AddrRange;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Result<Vec<Entry<'_>>, Malformed> {
        let mut out = Vec::new();
        entries(bytes, &mut |entry| {
            out.push(entry);
            true
        })?;
        Ok(out)
    }

    #[test]
    fn records_of_any_length() {
        let mut bytes = Vec::new();
        let range = |start: u64| AddrRange::at(start, 0x1000).expect("small");
        write_entry(2, range(0x1000), 1, 5, "/lib/libc.so.7", &mut bytes);
        write_entry(9, range(0x4000), 0, 0, "", &mut bytes);
        bytes.extend([0; 24]);
        let found = read(&bytes).expect("records");
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].path, found[0].protection),
            (&b"/lib/libc.so.7"[..], 5)
        );
        assert_eq!(
            (found[1].kind, found[1].start, found[1].end),
            (9, 0x4000, 0x5000)
        );
        assert_eq!(
            read(&bytes[..bytes.len() - 30]),
            Err(Malformed),
            "cut short"
        );
        assert_eq!(read(&[8, 0, 0, 0, 1, 1, 1, 1]), Err(Malformed), "too small");
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..400), size in 0_u32..200) {
            let _ = read(&bytes);
            let mut sized = size.to_ne_bytes().to_vec();
            sized.extend(&bytes);
            let _ = read(&sized);
        }
    }
}
