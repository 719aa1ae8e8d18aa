//! Makes frame tables known to the process's unwinder, and takes them back.
//!
//! libgcc's `__register_frame` takes a table that ends in a zero word; LLVM's libunwind takes
//! one frame entry, and is told apart by `__unw_add_dynamic_fde`, which only it has. Both
//! lock or publish so that other threads may throw meanwhile. Both suppose that the code of
//! registered tables does not overlap or interleave, which one table a region provides (libgcc
//! 12 searches a list sorted by lowest address, 13 and later a tree of ranges).

use std::ffi::{CStr, c_void};
use std::sync::OnceLock;

use super::table::Finished;
use crate::link::host::{self, Scope};

type FrameFunction = unsafe extern "C" fn(*const c_void);

/// How the unwinder of this process takes frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// A table at a time.
    Table,
    /// An entry at a time.
    Entry,
}

#[derive(Clone, Copy, Debug)]
struct Unwinder {
    register: FrameFunction,
    deregister: FrameFunction,
    unit: Unit,
}

/// What the unwinder that answers `lookup` takes; `None` if it takes nothing.
pub(super) fn unit_of(lookup: &dyn Fn(&CStr) -> usize) -> Option<Unit> {
    if lookup(c"__register_frame") == 0 || lookup(c"__deregister_frame") == 0 {
        None
    } else if lookup(c"__unw_add_dynamic_fde") == 0 {
        Some(Unit::Table)
    } else {
        Some(Unit::Entry)
    }
}

fn lookup(name: &CStr) -> usize {
    host::symbol(Scope::Process, name, None).map_or(0, low2g_platform::to_usize)
}

fn function(name: &CStr) -> Option<FrameFunction> {
    let addr = std::ptr::with_exposed_provenance::<c_void>(lookup(name));
    // SAFETY: null is Option's None; else it is the unwinder's function of that name, which
    // takes one pointer in libgcc and LLVM's libunwind. Neither is ever unloaded.
    unsafe { std::mem::transmute::<*const c_void, Option<FrameFunction>>(addr) }
}

/// The process's unwinder, if it takes frames at run time.
fn unwinder() -> Option<&'static Unwinder> {
    static FOUND: OnceLock<Option<Unwinder>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        Some(Unwinder {
            unit: unit_of(&lookup)?,
            register: function(c"__register_frame")?,
            deregister: function(c"__deregister_frame")?,
        })
    });
    found.as_ref()
}

/// Whether exceptions and backtraces can pass through loaded code in this process: its
/// unwinder (libgcc_s, or LLVM's libunwind) takes frame tables at run time, or it is Windows, which
/// takes function tables.
#[must_use]
pub fn unwinding_is_supported() -> bool {
    cfg!(all(windows, target_arch = "x86_64")) || unwinder().is_some()
}

/// Registered tables. Dropping it takes them back; no code that they describe may be on any
/// thread's stack then.
#[derive(Debug)]
pub(super) struct Registered {
    tables: Vec<Finished>,
}

impl Registered {
    /// Registers `tables`; gives them back where the process has no unwinder to take them.
    pub(super) fn new(tables: Vec<Finished>) -> Result<Self, Vec<Finished>> {
        let Some(unwinder) = unwinder() else {
            return Err(tables);
        };
        let registered = Self { tables };
        registered.each(unwinder.unit, unwinder.register);
        Ok(registered)
    }

    pub(super) fn tables(&self) -> &[Finished] {
        &self.tables
    }

    fn each(&self, unit: Unit, function: FrameFunction) {
        for table in &self.tables {
            let start = table.words.as_ptr().cast::<c_void>();
            let all: &[usize] = match unit {
                Unit::Table => &[0],
                Unit::Entry => &table.offsets,
            };
            for &offset in all {
                let at = start.wrapping_byte_add(offset);
                // SAFETY: `at` is a well-formed table that ends in a zero word, or an entry of
                // one; it is kept until it has been taken back, and each is registered and
                // taken back once.
                unsafe { function(at) };
            }
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(unwinder) = unwinder() {
            self.each(unwinder.unit, unwinder.deregister);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::ManuallyDrop;

    use parking_lot::Mutex;

    use super::super::table::Table;
    use super::*;

    static SEEN: Mutex<Vec<usize>> = Mutex::new(Vec::new());

    unsafe extern "C" fn note(at: *const c_void) {
        SEEN.lock().push(at.addr());
    }

    #[test]
    fn a_table_goes_whole_or_by_entries() {
        let mut table = Table::default();
        let mut starts = Vec::new();
        for start in [0x1000, 0x2000, 0x3000] {
            let (cie, fde) = super::super::moved::stub_entry(start, 16);
            table.add((0, 0), &cie, &fde);
        }
        let finished = table.finish();
        assert_eq!(finished.words.last(), Some(&0), "the end mark");
        let base = finished.words.as_ptr().addr();
        for &offset in &finished.offsets {
            // Length and id, then where the code starts.
            starts.push(finished.words[offset / 8 + 1]);
        }
        assert_eq!(starts, [0x1000, 0x2000, 0x3000]);
        let entries: Vec<usize> = finished.offsets.iter().map(|at| base + at).collect();
        let registered = ManuallyDrop::new(Registered {
            tables: vec![finished],
        });
        registered.each(Unit::Entry, note);
        assert_eq!(std::mem::take(&mut *SEEN.lock()), entries);
        registered.each(Unit::Table, note);
        assert_eq!(std::mem::take(&mut *SEEN.lock()), [base]);
    }

    #[test]
    fn the_unwinder_is_told_by_its_symbols() {
        let with = |names: &'static [&'static CStr]| {
            unit_of(&move |name| usize::from(names.contains(&name)))
        };
        let both = [c"__register_frame", c"__deregister_frame"];
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[c"__register_frame"]), None);
        assert_eq!(
            unit_of(&|name| usize::from(both.contains(&name))),
            Some(Unit::Table)
        );
        assert_eq!(
            with(&[
                c"__register_frame",
                c"__deregister_frame",
                c"__unw_add_dynamic_fde"
            ]),
            Some(Unit::Entry)
        );
    }
}
