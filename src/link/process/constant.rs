//! Data of loaded libraries that never changes, copied for low mirrors.
//!
//! Constant is what lies in a segment without PF_W, or under PT_GNU_RELRO, which the dynamic
//! linker write-protects once it has relocated it. The copy is made while the dynamic linker
//! holds its list of libraries, so the library cannot go meanwhile.

use std::ops::ControlFlow;

use low2g_platform::{AddrRange, to_u64, to_usize};

use crate::link::host::{self, LoadedObject, Segment, SegmentKind};

/// The bytes of `range`, if one loaded library holds all of it as constant data.
pub(crate) fn constant_bytes(range: AddrRange) -> Option<Vec<u8>> {
    let mut found = None;
    if !range.is_empty() {
        host::each_object(&mut |object: &LoadedObject<'_>| {
            let holds = |segment: Segment| is_constant(segment) && encloses(segment, range);
            if !object.segments().any(holds) {
                return ControlFlow::Continue(());
            }
            let start = std::ptr::with_exposed_provenance::<u8>(to_usize(range.start()));
            let len = to_usize(range.len());
            debug_assert_eq!(to_u64(len), range.len());
            // SAFETY: the range lies in a readable segment of a library that stays loaded
            // during this call, and nobody writes there.
            let bytes = unsafe { std::slice::from_raw_parts(start, len) };
            found = Some(bytes.to_vec());
            ControlFlow::Break(())
        });
    }
    found
}

fn is_constant(segment: Segment) -> bool {
    match segment.kind {
        SegmentKind::Load => !segment.writable,
        SegmentKind::Relro => true,
        SegmentKind::Dynamic => false,
    }
}

fn encloses(segment: Segment, range: AddrRange) -> bool {
    AddrRange::at(segment.start, segment.len).is_some_and(|whole| whole.encloses(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_copied_and_variables_are_not() {
        static CONSTANT: [u64; 4] = [1, 2, 3, 0x1234_5678_9abc_def0];
        static VARIABLE: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(5);
        let range = |start: usize, len| AddrRange::at(to_u64(start), len).expect("in memory");
        let bytes = constant_bytes(range((&raw const CONSTANT).addr(), 32));
        let bytes = bytes.expect("it is in .rodata");
        assert_eq!(bytes[24..], 0x1234_5678_9abc_def0_u64.to_le_bytes());
        assert_eq!(constant_bytes(range((&raw const VARIABLE).addr(), 8)), None);
        let heap = Box::new(7u64);
        assert_eq!(constant_bytes(range((&raw const *heap).addr(), 8)), None);
        assert_eq!(constant_bytes(range(0x1000, 8)), None, "nothing is there");
    }
}
