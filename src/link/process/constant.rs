//! Data of loaded libraries that never changes, copied for low mirrors.
//!
//! Constant is what lies in a segment without PF_W, or under PT_GNU_RELRO, which the dynamic
//! linker write-protects once it has relocated it. The copy is made while the dynamic linker
//! holds its list of libraries, so the library cannot go meanwhile.

use std::ffi::{c_int, c_void};

use low2g_platform::{AddrRange, to_u64, to_usize};

struct Search {
    wanted: AddrRange,
    found: Option<Vec<u8>>,
}

/// The bytes of `range`, if one loaded library holds all of it as constant data.
pub(crate) fn constant_bytes(range: AddrRange) -> Option<Vec<u8>> {
    let mut search = Search {
        wanted: range,
        found: None,
    };
    if !range.is_empty() {
        // SAFETY: the callback takes `data` for the &mut Search that it is, during the call only.
        unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut search).cast()) };
    }
    search.found
}

unsafe extern "C" fn visit(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    data: *mut c_void,
) -> c_int {
    // SAFETY: the dynamic linker passes a valid info for the duration of the call.
    let info = unsafe { &*info };
    // SAFETY: `constant_bytes` passed a Search and does not touch it meanwhile.
    let search = unsafe { &mut *data.cast::<Search>() };
    // SAFETY: dlpi_phdr points at dlpi_phnum program headers.
    let headers =
        unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let holds = |header: &libc::Elf64_Phdr| {
        let start = info.dlpi_addr.wrapping_add(header.p_vaddr);
        AddrRange::at(start, header.p_memsz).is_some_and(|segment| segment.encloses(search.wanted))
    };
    let constant = |header: &libc::Elf64_Phdr| match header.p_type {
        libc::PT_LOAD => header.p_flags & (libc::PF_R | libc::PF_W) == libc::PF_R,
        libc::PT_GNU_RELRO => true,
        _ => false,
    };
    if !headers
        .iter()
        .any(|header| constant(header) && holds(header))
    {
        return 0;
    }
    let start = std::ptr::with_exposed_provenance::<u8>(to_usize(search.wanted.start()));
    let len = to_usize(search.wanted.len());
    debug_assert_eq!(to_u64(len), search.wanted.len());
    // SAFETY: the range lies in a readable segment of a library that stays loaded during this
    // call, and nobody writes there.
    let bytes = unsafe { std::slice::from_raw_parts(start, len) };
    search.found = Some(bytes.to_vec());
    1
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
