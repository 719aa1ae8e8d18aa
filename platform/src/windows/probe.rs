//! What this system and process allow, found once by asking harmlessly.

use super::abi;
use super::syscalls::{Syscalls, SystemInfo};
use super::views::Section;
use crate::contract::{Capabilities, Config};
use crate::error::NoLowWindow;
use crate::range::AddrRange;
use std::sync::Arc;

/// Lowest address that this crate maps, whatever the system's own is.
const FLOOR: u64 = 0x1_0000;

/// End of the low window.
const CEILING: u64 = 1 << 32;

/// Configuration of a process whose addresses are `user`.
pub(super) fn config<S: Syscalls>(sys: &Arc<S>, info: SystemInfo, user: AddrRange) -> Config {
    let low = AddrRange::new(FLOOR, CEILING).and_then(|low| low.intersection(user));
    let protect_to_execute = protect_to_execute(&**sys, info.page_size);
    Config {
        page_size: info.page_size,
        granularity: info.granularity,
        low_window: low.ok_or(NoLowWindow::System),
        user_end: user.end(),
        capabilities: Capabilities {
            exact_claims: true,
            low_claims: sys.has_virtual_alloc2(),
            second_views: second_views(sys, info.granularity),
            protect_to_execute,
            partial_release: false,
            guard_in_place: true,
            seal: false,
            jit_pages: false,
        },
    }
}

/// Whether written memory may become executable: not under Arbitrary Code Guard.
fn protect_to_execute<S: Syscalls>(sys: &S, page_size: u64) -> bool {
    let kind = abi::MEM_RESERVE | abi::MEM_COMMIT;
    let Ok(at) = sys.virtual_alloc(0, page_size, kind, abi::PAGE_READWRITE) else {
        return false;
    };
    let changed = sys.virtual_protect(at, page_size, abi::PAGE_EXECUTE_READ);
    free_twice(|| sys.virtual_free(at, 0, abi::MEM_RELEASE));
    changed.is_ok()
}

/// Whether a second view may be executable; tried, because Arbitrary Code Guard forbids it.
fn second_views<S: Syscalls>(sys: &Arc<S>, len: u64) -> bool {
    let Ok(section) = Section::new(sys, len) else {
        return false;
    };
    let access = abi::FILE_MAP_READ | abi::FILE_MAP_EXECUTE;
    let view = sys.map_view_of_file_ex(section.handle(), access, 0, len, 0);
    let Ok(at) = view else {
        return false;
    };
    free_twice(|| sys.unmap_view_of_file(at));
    true
}

/// Gives back what nobody could free later.
fn free_twice<E>(free: impl Fn() -> Result<(), E>) {
    if free().is_err() {
        let _ = free();
    }
}
