//! Function tables that Windows knows of, while this lives.
//!
//! A table names code and its `UNWIND_INFO` by 32-bit distances from one base, so the latter must lie
//! above the code and within 4 GiB of it: in pages of their own, the first free ones there. Nothing
//! secret is in them, and they are only read.

use std::mem::offset_of;

use low2g_platform::{AddrRange, to_u64, to_usize};
use windows_sys::Win32::System::Diagnostics::Debug::{
    IMAGE_RUNTIME_FUNCTION_ENTRY, RtlAddFunctionTable, RtlDeleteFunctionTable,
};
use windows_sys::Win32::System::Memory::{
    MEM_COMMIT, MEM_FREE, MEM_RELEASE, MEM_RESERVE, MEMORY_BASIC_INFORMATION, PAGE_READONLY,
    PAGE_READWRITE, VirtualAlloc, VirtualFree, VirtualProtect, VirtualQuery,
};

use super::functions::Functions;
use super::table::Finished;

/// Where reservations begin.
const GRANULARITY: u64 = 64 << 10;

/// Bytes of an entry: begin, end, `UNWIND_INFO`.
const ENTRY: u64 = 12;
const _: () = assert!(size_of::<IMAGE_RUNTIME_FUNCTION_ENTRY>() == 12);
const _: () = assert!(offset_of!(IMAGE_RUNTIME_FUNCTION_ENTRY, EndAddress) == 4);

/// The tables of a module. Dropping it takes them back; no code that they describe may be on any
/// thread's stack then.
#[derive(Debug)]
pub(super) struct Installed {
    _tables: Vec<FunctionTable>,
}

impl Installed {
    /// Tells Windows of the code of `tables`; what it has no room or no words for is left out.
    pub(super) fn new(tables: &[Finished]) -> Self {
        let functions = tables.iter().map(Functions::of);
        let known = functions.filter_map(|functions| FunctionTable::new(&functions));
        Self {
            _tables: known.collect(),
        }
    }
}

/// Pages with the entries of a table, then what they name.
#[derive(Debug)]
struct FunctionTable {
    pages: Pages,
}

impl FunctionTable {
    fn new(functions: &Functions) -> Option<Self> {
        let (first, last) = (functions.stretches.first()?, functions.stretches.last()?);
        let base = first.code.start();
        let count = u32::try_from(functions.stretches.len()).ok()?;
        let infos_at = u64::from(count) * ENTRY;
        let len = infos_at + to_u64(functions.infos.len());
        let mut pages = Pages::near(
            AddrRange::new(last.code.end(), base.checked_add(1 << 32)?)?,
            len,
        )?;
        // All distances are below 4 GiB: the pages lie above the code, and inside of that.
        let far = |addr: u64| u32::try_from(addr - base).ok();
        let mut bytes = Vec::with_capacity(to_usize(len));
        let infos = pages.range.start() + infos_at;
        for stretch in &functions.stretches {
            let ends = [
                stretch.code.start(),
                stretch.code.end(),
                infos + u64::from(stretch.info),
            ];
            for addr in ends {
                bytes.extend(far(addr)?.to_le_bytes());
            }
        }
        bytes.extend(&functions.infos);
        pages.fill(&bytes)?;
        // SAFETY: RtlAddFunctionTable needs entries, ascending and apart, that stay as they are until
        // they are taken back: those in the pages, which go after that.
        let known = unsafe { RtlAddFunctionTable(pages.entries(), count, base) };
        known.then_some(Self { pages })
    }
}

impl Drop for FunctionTable {
    fn drop(&mut self) {
        // SAFETY: RtlDeleteFunctionTable needs a table that was added and not deleted since.
        unsafe { RtlDeleteFunctionTable(self.pages.entries()) };
    }
}

/// Pages of our own.
#[derive(Debug)]
struct Pages {
    range: AddrRange,
}

impl Pages {
    /// `len` bytes to write, in whole inside `window`, as low as they fit.
    fn near(window: AddrRange, len: u64) -> Option<Self> {
        let mut at = window.start();
        while at < window.end() {
            let mut found = MEMORY_BASIC_INFORMATION::default();
            let size = size_of::<MEMORY_BASIC_INFORMATION>();
            // SAFETY: VirtualQuery writes a structure of that size.
            let got = unsafe { VirtualQuery(pointer(at), &raw mut found, size) };
            if got != size {
                return None;
            }
            let next = to_u64(found.BaseAddress.addr()) + to_u64(found.RegionSize);
            let start = at.next_multiple_of(GRANULARITY);
            let range = AddrRange::at(start, len)?;
            if found.State == MEM_FREE && range.end() <= next.min(window.end()) {
                // SAFETY: VirtualAlloc needs no more than free address space, or it fails.
                let got = unsafe {
                    let kind = MEM_RESERVE | MEM_COMMIT;
                    VirtualAlloc(pointer(start), to_usize(len), kind, PAGE_READWRITE)
                };
                // Null if another thread was faster: the next stretch may do.
                if !got.is_null() {
                    return Some(Self { range });
                }
            }
            at = next;
        }
        None
    }

    /// Writes what they hold for good.
    fn fill(&mut self, bytes: &[u8]) -> Option<()> {
        let to = std::ptr::with_exposed_provenance_mut::<u8>(to_usize(self.range.start()));
        assert_eq!(to_u64(bytes.len()), self.range.len());
        // SAFETY: copy_from_nonoverlapping needs as many writable bytes that nobody else uses: the pages
        // are this value's own, fresh, and no table yet.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        let mut old = 0;
        // SAFETY: VirtualProtect needs pages of ours, which nobody writes any more.
        let done = unsafe { VirtualProtect(to.cast(), bytes.len(), PAGE_READONLY, &raw mut old) };
        (done != 0).then_some(())
    }

    fn entries(&self) -> *const IMAGE_RUNTIME_FUNCTION_ENTRY {
        pointer(self.range.start()).cast()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let start = pointer(self.range.start()).cast_mut();
        // SAFETY: VirtualFree needs the start of a reservation that nobody uses: the table in it was
        // taken back, or never added.
        unsafe { VirtualFree(start, 0, MEM_RELEASE) };
    }
}

fn pointer(addr: u64) -> *const std::ffi::c_void {
    std::ptr::with_exposed_provenance(to_usize(addr))
}
