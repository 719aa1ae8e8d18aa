//! Symbols of loaded modules in the process's own dynamic linker: `dlsym` finds them, and
//! libraries opened later bind to them.
//!
//! A shared object made in memory, whose dynamic symbols are absolute (`image`), is opened
//! with RTLD_GLOBAL from a memfd. A library that binds to it keeps it resident, as with any
//! other; `dlclose` then leaves it, and what it stands for must stay as well.

mod image;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::host::{self, MemoryFile, Visibility};
use super::module::{Export, Module};

/// Why symbols could not be exported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// No file in memory.
    #[error("cannot make a file in memory for {symbols} exported symbols: {reason}")]
    Memory {
        /// How many symbols.
        symbols: usize,
        /// What the system said.
        reason: String,
    },
    /// The dynamic linker refuses the file.
    #[error(
        "the dynamic linker does not open the {symbols} exported symbols at {path}: {reason}; is /proc mounted?"
    )]
    Open {
        /// How many symbols.
        symbols: usize,
        /// The path that it was given.
        path: String,
        /// What it said.
        reason: String,
    },
}

/// Which of a file's paths is used: it stays open as long as the object is loaded.
const PATH: u64 = 0;

/// Symbols known to the dynamic linker until this is dropped.
///
/// The addresses must stay valid until [`ExportedSymbols::withdraw`] answers that nobody uses
/// them any more, or for ever.
#[derive(Debug)]
pub struct ExportedSymbols {
    /// From `dlopen`, as a number; 0 once it was closed.
    handle: usize,
    /// Open as long as the object is loaded, if need be for ever: its path names the file
    /// descriptor, and the dynamic linker takes a second object of one path for the first.
    file: Option<MemoryFile>,
}

impl ExportedSymbols {
    /// Makes `symbols` visible. A name that the process defines already keeps its meaning.
    ///
    /// # Errors
    /// No memory for the file; the dynamic linker refuses it.
    pub fn publish<'a>(
        symbols: impl IntoIterator<Item = (&'a str, Export)>,
    ) -> Result<Self, ExportError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let symbols: Vec<(&str, Export)> = symbols.into_iter().collect();
        let count = symbols.len();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let soname = format!("low2g-exports-{}-{number}", std::process::id());
        let memory = |error: std::io::Error| ExportError::Memory {
            symbols: count,
            reason: error.to_string(),
        };
        let file = MemoryFile::new(&soname, &image::image(&soname, &symbols)).map_err(memory)?;
        let handle = file
            .open(PATH, Visibility::Global)
            .map_err(|reason| ExportError::Open {
                symbols: count,
                path: file.path(PATH),
                reason,
            })?;
        Ok(Self {
            handle,
            file: Some(file),
        })
    }

    /// Closes the object. Gives itself back while a library is still bound to its symbols:
    /// try again once that library was closed.
    ///
    /// # Errors
    /// Still in use.
    pub fn withdraw(mut self) -> Result<(), Self> {
        self.close();
        if self.is_resident() {
            Err(self)
        } else {
            Ok(())
        }
    }

    /// Whether the dynamic linker keeps the object, though we may have closed it.
    fn is_resident(&self) -> bool {
        self.file.as_ref().is_some_and(|file| file.is_open(PATH))
    }

    fn close(&mut self) {
        let handle = std::mem::take(&mut self.handle);
        if handle != 0 {
            host::close(handle);
        }
    }
}

impl Drop for ExportedSymbols {
    fn drop(&mut self) {
        self.close();
        if self.is_resident()
            && let Some(file) = self.file.take()
        {
            file.keep();
        }
    }
}

/// A module's symbols in the dynamic linker. Dropping it takes them out; the module stays
/// loaded until no library is bound to them.
#[derive(Debug)]
pub struct ModuleExports {
    parts: Option<(ExportedSymbols, Arc<Module>)>,
}

/// Modules that libraries were still bound to when they should have gone.
static DEFERRED: Mutex<Vec<(ExportedSymbols, Arc<Module>)>> = Mutex::new(Vec::new());

impl ModuleExports {
    pub(crate) fn new(module: &Arc<Module>) -> Result<Self, ExportError> {
        let symbols = ExportedSymbols::publish(module.symbols())?;
        Ok(Self {
            parts: Some((symbols, Arc::clone(module))),
        })
    }
}

impl Drop for ModuleExports {
    fn drop(&mut self) {
        if let Some(parts) = self.parts.take() {
            DEFERRED.lock().push(parts);
            unload_deferred();
        }
    }
}

/// Unloads the modules whose exports no library uses any more. Returns how many wait still.
/// Loading and withdrawing do this as well.
pub fn unload_deferred() -> usize {
    let waiting = std::mem::take(&mut *DEFERRED.lock());
    let mut kept = Vec::new();
    // Destructors run here: without the lock, since they may load and unload themselves.
    for (symbols, module) in waiting {
        match symbols.withdraw() {
            Ok(()) => drop(module),
            Err(symbols) => kept.push((symbols, module)),
        }
    }
    let mut deferred = DEFERRED.lock();
    deferred.extend(kept);
    deferred.len()
}
