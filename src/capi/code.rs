//! Low memory for functions: written through one view, executed through another.

use std::collections::hash_map::Entry;
use std::ffi::{c_char, c_void};

use low2g_platform::to_u64;

use crate::alloc::{CodeBlock, PublishedCode};

use super::allocator::{low2g_allocator, low2g_certificate, pointer, set};
use super::handle;
use super::status::{Failure, guard_status, low2g_status};

/// An executable block.
#[derive(Debug)]
pub(super) enum Code {
    Written(CodeBlock),
    Published(PublishedCode),
}

/// Memory for `size` bytes of code at a multiple of `align`, a power of two. The code is written at
/// `*write` and executes at `*exec` once it is published; the two are the same address where this
/// system refuses second views. `certificate` is NULL or is told how `*exec` was chosen.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_code_allocate(
    allocator: *const low2g_allocator,
    size: usize,
    align: usize,
    write: *mut *mut c_void,
    exec: *mut *mut c_void,
    certificate: *mut low2g_certificate,
    error: *mut *mut c_char,
) -> low2g_status {
    guard_status(error, || {
        // SAFETY: the caller's handle.
        let allocator = unsafe { handle::get(allocator) }?;
        if write.is_null() || exec.is_null() {
            return Err(Failure::null("write or exec"));
        }
        let mut block = allocator.low.allocate_code(to_u64(size), to_u64(align))?;
        let bytes = block.working_mem().as_mut_ptr();
        // SAFETY: the caller's place.
        unsafe { set(write, "write", bytes.cast()) }?;
        let addr = block.exec_addr();
        // SAFETY: as above.
        unsafe { set(exec, "exec", pointer(addr)) }?;
        if !certificate.is_null() {
            // SAFETY: writing needs a place for a certificate: it is not NULL.
            unsafe { certificate.write(block.certificate().into()) };
        }
        allocator.code.lock().insert(addr, Code::Written(block));
        Ok(())
    })
}

/// Makes the code that was written for `exec` executable. Nothing writes it afterwards. Where the
/// system refuses, the block is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_code_publish(
    allocator: *const low2g_allocator,
    exec: *mut c_void,
    error: *mut *mut c_char,
) -> low2g_status {
    guard_status(error, || {
        // SAFETY: the caller's handle.
        let allocator = unsafe { handle::get(allocator) }?;
        let addr = to_u64(exec.addr());
        let mut code = allocator.code.lock();
        let Entry::Occupied(entry) = code.entry(addr) else {
            return Err(unknown(addr));
        };
        match entry.remove() {
            Code::Written(block) => {
                let published = block.publish()?;
                code.insert(addr, Code::Published(published));
                Ok(())
            }
            published @ Code::Published(_) => {
                code.insert(addr, published);
                Err(Failure::new(
                    low2g_status::WrongOrder,
                    format!("the code at {addr:#x} is published already"),
                ))
            }
        }
    })
}

/// Frees the code at `exec`, published or not. NULL is ignored; what is no such block is an error
/// and changes nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_code_free(
    allocator: *const low2g_allocator,
    exec: *mut c_void,
    error: *mut *mut c_char,
) -> low2g_status {
    guard_status(error, || {
        // SAFETY: the caller's handle.
        let allocator = unsafe { handle::get(allocator) }?;
        if exec.is_null() {
            return Ok(());
        }
        let addr = to_u64(exec.addr());
        let code = allocator.code.lock().remove(&addr);
        match code {
            Some(Code::Written(block)) => drop(block),
            Some(Code::Published(code)) => drop(code),
            None => return Err(unknown(addr)),
        }
        Ok(())
    })
}

fn unknown(addr: u64) -> Failure {
    Failure::new(
        low2g_status::NotInUse,
        format!(
            "{addr:#x} is no executable block of this allocator in use: foreign, or freed before"
        ),
    )
}
