//! The process's own symbols: what the dynamic linker has loaded, and `-l` libraries.
//!
//! The dynamic linker finds addresses (`dlsym`); type and size come from the libraries'
//! dynamic symbol tables (`tables`), because an ifunc's resolved address names nothing.
//! Libraries that defined a symbol must stay loaded as long as what was linked to it.

mod constant;
mod tables;

use std::ffi::{CStr, CString};

use parking_lot::Mutex;

use super::exits::exit_function;
use super::host::{self, Scope, Visibility};
use super::resolve::{ExternalKind, ExternalSymbol, SymbolResolver};
use super::tls::{self, destructors};
pub(crate) use constant::constant_bytes;
use tables::{Found, Tables};

/// A library that the dynamic linker would not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot open library {name}: {reason}; give a path or the soname of an installed library (libz.so.1)"
)]
pub struct LibraryError {
    /// As given.
    pub name: String,
    /// What the dynamic linker said.
    pub reason: String,
}

/// Resolver for `-l` libraries and everything else in the process.
#[derive(Debug, Default)]
pub struct ProcessSymbols {
    /// Handles from `dlopen`, as numbers; kept open for the life of the process.
    libraries: Vec<usize>,
    /// Only the libraries given, not the process.
    libraries_only: bool,
    exit_functions: bool,
    tables: Mutex<Tables>,
}

impl ProcessSymbols {
    /// The process's symbols.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers from the opened libraries alone.
    #[must_use]
    pub fn libraries_only(mut self) -> Self {
        self.libraries_only = true;
        self
    }

    /// Supplies `atexit`, `at_quick_exit` and `pthread_atfork`, which glibc keeps in a static
    /// library. Handlers belong to the module that registers them, and run at its unload.
    #[must_use]
    pub fn with_exit_functions(mut self) -> Self {
        self.exit_functions = true;
        self
    }

    /// Opens `name` as `dlopen` takes it; its symbols are asked before the process's. The
    /// library stays open, and visible to libraries opened later.
    ///
    /// # Errors
    /// The dynamic linker's words.
    pub fn open(&mut self, name: &str) -> Result<(), LibraryError> {
        let fail = |reason: String| LibraryError {
            name: name.to_owned(),
            reason,
        };
        let path = CString::new(name).map_err(|_| fail("the name holds a NUL byte".to_owned()))?;
        self.libraries
            .push(host::open(&path, Visibility::Global).map_err(fail)?);
        Ok(())
    }

    /// The address of `name`, of its version `version` if one is given.
    fn address(&self, name: &CStr, version: Option<&CStr>) -> Option<u64> {
        let process = (!self.libraries_only).then_some(Scope::Process);
        let libraries = self.libraries.iter().copied().map(Scope::Library);
        libraries
            .chain(process)
            .find_map(|scope| host::symbol(scope, name, version))
    }

    /// Type and size of `name` at `addr`.
    fn describe(&self, name: &[u8], addr: u64) -> Found {
        let look = |tables: &Tables| {
            let found = tables.find(name, addr);
            found.unwrap_or_else(|| tables.guess(addr))
        };
        self.tables.lock().search(look)
    }
}

impl SymbolResolver for ProcessSymbols {
    fn resolve(&self, name: &str) -> Option<ExternalSymbol> {
        let (base, version) = match name.split_once('@') {
            // `name@@VERSION` is the default version, as assemblers write it.
            Some((base, version)) => (base, Some(version.trim_start_matches('@'))),
            None => (name, None),
        };
        if version.is_none()
            && !self.libraries_only
            && destructors::NAMES.contains(&base)
            && let Some(addr) = destructors::address()
        {
            return Some(ExternalSymbol {
                addr,
                size: 0,
                kind: ExternalKind::Function,
            });
        }
        let name = CString::new(base).ok()?;
        let version = match version {
            Some(version) => Some(CString::new(version).ok()?),
            None => None,
        };
        if self.exit_functions
            && version.is_none()
            && let Some(function) = exit_function(base)
        {
            return Some(function);
        }
        let found = self.address(&name, version.as_deref());
        let addr = found.or_else(|| {
            // What the program has, though no dynamic linker finds it.
            let own = version.is_none() && !self.libraries_only;
            match base {
                _ if !own => None,
                "__tls_get_addr" => tls::get_addr(),
                base => host::linked(base),
            }
        })?;
        let found = self.describe(base.as_bytes(), addr);
        Some(ExternalSymbol {
            addr,
            size: found.size,
            kind: found.kind,
        })
    }

    /// From the tables alone: asking `dlsym` would make the calling thread's copy, and a
    /// block that a thread has a copy of can no longer become static.
    fn resolve_thread_local(&self, name: &str) -> Option<ExternalSymbol> {
        if self.libraries_only || name.contains('@') {
            return self.resolve(name);
        }
        let look = |tables: &Tables| tables.find_thread_local(name.as_bytes());
        let found = self.tables.lock().search(look);
        let Some((offset, size)) = found else {
            return self.resolve(name);
        };
        Some(ExternalSymbol {
            addr: offset,
            size,
            kind: ExternalKind::Tls,
        })
    }
}
