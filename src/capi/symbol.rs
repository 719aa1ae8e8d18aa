//! Symbols as C sees them.

use std::ffi::{CStr, CString, c_char, c_void};
use std::fmt;

use crate::link::{Export, ExternalKind, ExternalSymbol, SymbolResolver};

use super::status::Failure;

/// What a symbol is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum low2g_symbol_kind {
    /// Not known: calls take stubs, instructions that need its address are moved.
    Unknown = 0,
    /// A function.
    Function = 1,
    /// A variable or a constant.
    Data = 2,
}

/// A `low2g_symbol_kind` as C gives it: any number.
pub type SymbolKindValue = u32;

/// A symbol with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct low2g_symbol {
    /// Its address.
    pub addr: u64,
    /// Bytes, 0 if not known.
    pub size: u64,
    /// What it is.
    pub kind: SymbolKindValue,
}

impl From<Export> for low2g_symbol {
    fn from(export: Export) -> Self {
        let kind = if export.function {
            low2g_symbol_kind::Function
        } else {
            low2g_symbol_kind::Data
        };
        Self {
            addr: export.addr,
            size: export.size,
            kind: kind as u32,
        }
    }
}

impl low2g_symbol {
    pub(super) fn external(self) -> Result<ExternalSymbol, Failure> {
        let kind = match self.kind {
            0 => ExternalKind::Unknown,
            1 => ExternalKind::Function,
            2 => ExternalKind::Data,
            other => {
                return Err(Failure::invalid(format!(
                    "symbol kind {other} is no low2g_symbol_kind"
                )));
            }
        };
        Ok(ExternalSymbol {
            addr: self.addr,
            size: self.size,
            kind,
        })
    }
}

/// Answers for a name: fills `*out` and returns true, or returns false to let others answer. It
/// throws no exception. A name may carry a version: `memcpy@GLIBC_2.2.5`.
pub type low2g_resolver = Option<
    unsafe extern "C" fn(context: *mut c_void, name: *const c_char, out: *mut low2g_symbol) -> bool,
>;

/// Is told of a symbol; `name` is good during the call. It throws no exception.
pub type low2g_symbol_visitor = Option<
    unsafe extern "C" fn(context: *mut c_void, name: *const c_char, symbol: *const low2g_symbol),
>;

/// Is told of a name that is needed from elsewhere: whether it may stay undefined (its address is 0
/// then), and whether it is used as a thread-local variable. It throws no exception.
pub type low2g_undefined_visitor = Option<
    unsafe extern "C" fn(
        context: *mut c_void,
        name: *const c_char,
        weak: bool,
        is_thread_local: bool,
    ),
>;

/// Tells `visitor` of symbols.
///
/// # Safety
/// `visitor` may be called with `context`.
pub(super) unsafe fn visit<'s>(
    symbols: impl Iterator<Item = (&'s str, Export)>,
    visitor: low2g_symbol_visitor,
    context: *mut c_void,
) -> Result<(), Failure> {
    let visitor = visitor.ok_or_else(|| Failure::null("visitor"))?;
    for (name, export) in symbols {
        // A name with a NUL is none that C could ask for.
        let Ok(name) = CString::new(name) else {
            continue;
        };
        // SAFETY: the caller's function, with a string and a symbol that live during the call.
        unsafe { visitor(context, name.as_ptr(), &export.into()) };
    }
    Ok(())
}

/// A C function as a resolver.
pub(super) struct Callback {
    pub(super) function:
        unsafe extern "C" fn(*mut c_void, *const c_char, *mut low2g_symbol) -> bool,
    pub(super) context: *mut c_void,
}

// SAFETY: who sets a resolver lets any thread that loads call it.
unsafe impl Send for Callback {}
// SAFETY: as above.
unsafe impl Sync for Callback {}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback")
    }
}

impl Callback {
    fn ask(&self, name: &CStr) -> Option<low2g_symbol> {
        let mut symbol = low2g_symbol {
            addr: 0,
            size: 0,
            kind: low2g_symbol_kind::Unknown as u32,
        };
        // SAFETY: the user's function, with its context, a string and a place for a symbol.
        let known = unsafe { (self.function)(self.context, name.as_ptr(), &raw mut symbol) };
        known.then_some(symbol)
    }
}

impl SymbolResolver for Callback {
    fn resolve(&self, name: &str) -> Option<ExternalSymbol> {
        let name = CString::new(name).ok()?;
        self.ask(&name)?.external().ok()
    }

    /// An address alone does not say where a thread-local variable is.
    fn resolve_thread_local(&self, _name: &str) -> Option<ExternalSymbol> {
        None
    }
}
