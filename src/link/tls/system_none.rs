//! Systems whose dynamic linker takes no ELF objects: no thread pointer is known, so no block
//! is static, and there is no pool.

use std::ffi::c_void;

/// Arguments of `__tls_get_addr` (psABI).
#[repr(C)]
pub(super) struct Index {
    pub(super) module: u64,
    pub(super) offset: u64,
}

/// `__tls_get_addr`.
pub(super) type GetAddr = unsafe extern "C" fn(*const Index) -> *mut c_void;

/// There is none.
pub(super) fn get_addr() -> Option<GetAddr> {
    None
}

/// Not known.
pub(super) fn thread_pointer() -> Option<usize> {
    None
}

/// There are no descriptors.
pub(super) fn resolver_of_static() -> u64 {
    0
}

/// # Errors
/// Never: there is nothing to protect.
pub(super) fn protect(_addr: usize, _len: usize, _writable: bool) -> Result<(), i32> {
    Ok(())
}

/// The program's thread-local block: never found.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProgramBlock {
    pub(super) image: u64,
    pub(super) image_size: u64,
    pub(super) protected: bool,
}

impl ProgramBlock {
    pub(super) fn find() -> Option<Self> {
        None
    }

    pub(super) fn depth(&self) -> Option<u64> {
        let _ = self;
        None
    }
}
