//! Loaded modules: lookup and unload.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use low2g_platform::to_usize;

use crate::link::{Export, Module};

use super::allocator::{pointer, set};
use super::handle::{self, Handle, kind};
use super::options;
use super::status::{Failure, guard, guard_status, low2g_status};
use super::symbol::{low2g_symbol, low2g_symbol_visitor, visit};

/// Code and data that were loaded.
pub type low2g_module = Handle<Loaded>;

/// What a `low2g_module` points to.
#[derive(Debug)]
pub struct Loaded(pub(super) Arc<Module>);

kind!(Loaded, "module", b"l2gModul");

fn no_symbol(name: &str, what: &str) -> Failure {
    Failure::new(
        low2g_status::NoSymbol,
        format!("the module has no visible {what} {name}"),
    )
}

/// The module behind a handle, kept during the call.
///
/// # Safety
/// The caller's handle.
pub(super) unsafe fn module(module: *const low2g_module) -> Result<Arc<Module>, Failure> {
    // SAFETY: the caller's handle.
    Ok(Arc::clone(&unsafe { handle::get(module) }?.0))
}

/// The global symbol `name`, of any kind but thread-local.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_module_symbol(
    module: *const low2g_module,
    name: *const c_char,
    out: *mut low2g_symbol,
    error: *mut *mut c_char,
) -> low2g_status {
    guard_status(error, || {
        // SAFETY: the caller's handle.
        let module = unsafe { self::module(module) }?;
        // SAFETY: the caller's string.
        let name = unsafe { options::text(name, "name") }?;
        let export = module.symbol(name);
        let export = export.ok_or_else(|| no_symbol(name, "symbol"))?;
        // SAFETY: the caller's place.
        unsafe { set(out, "out", export.into()) }
    })
}

/// Tells `visitor` of every global symbol but thread-local ones, in no order.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_module_symbols(
    module: *const low2g_module,
    visitor: low2g_symbol_visitor,
    context: *mut c_void,
    error: *mut *mut c_char,
) -> low2g_status {
    guard_status(error, || {
        // SAFETY: the caller's handle.
        let module = unsafe { self::module(module) }?;
        // SAFETY: the caller's function.
        unsafe { visit(module.symbols(), visitor, context) }
    })
}

/// The address of the function `name`; NULL on failure, and if `name` is no function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_module_function(
    module: *const low2g_module,
    name: *const c_char,
    error: *mut *mut c_char,
) -> *mut c_void {
    // SAFETY: the caller's arguments.
    unsafe {
        address(
            module,
            name,
            std::ptr::null_mut(),
            error,
            "function",
            |module, name| module.symbol(name).filter(|export| export.function),
        )
    }
}

/// The address of the variable or constant `name`, and its bytes if `size` is not NULL; NULL on
/// failure, and if `name` is a function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_module_data(
    module: *const low2g_module,
    name: *const c_char,
    size: *mut usize,
    error: *mut *mut c_char,
) -> *mut c_void {
    // SAFETY: the caller's arguments.
    unsafe {
        address(module, name, size, error, "variable", |module, name| {
            module.symbol(name).filter(|export| !export.function)
        })
    }
}

/// The calling thread's copy of the thread-local variable `name`, good as long as the thread and the
/// module live, and its bytes if `size` is not NULL; NULL on failure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_module_thread_local(
    module: *const low2g_module,
    name: *const c_char,
    size: *mut usize,
    error: *mut *mut c_char,
) -> *mut c_void {
    // SAFETY: the caller's arguments.
    unsafe {
        address(
            module,
            name,
            size,
            error,
            "thread-local variable",
            |module, name| module.thread_local(name),
        )
    }
}

/// # Safety
/// A handle, a string, and places or NULL.
unsafe fn address(
    module: *const low2g_module,
    name: *const c_char,
    size: *mut usize,
    error: *mut *mut c_char,
    what: &str,
    find: impl FnOnce(&Module, &str) -> Option<Export>,
) -> *mut c_void {
    let addr = guard(error, || {
        // SAFETY: the caller's handle.
        let module = unsafe { self::module(module) }?;
        // SAFETY: the caller's string.
        let name = unsafe { options::text(name, "name") }?;
        let export = find(&module, name).ok_or_else(|| no_symbol(name, what))?;
        if !size.is_null() {
            // SAFETY: writing needs a place for a size: it is not NULL.
            unsafe { size.write(to_usize(export.size)) };
        }
        Ok(export.addr)
    });
    pointer(addr.unwrap_or(0))
}

/// Unloads a module: runs its destructors and unmaps it, as soon as no other module uses its symbols.
/// Nothing may run in it or point into it any more, as after `dlclose`. NULL is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_module_unload(
    module: *mut low2g_module,
    error: *mut *mut c_char,
) -> low2g_status {
    guard_status(error, || {
        if module.is_null() {
            return Ok(());
        }
        // SAFETY: the caller's handle.
        drop(unsafe { handle::take(module) }?);
        Ok(())
    })
}
