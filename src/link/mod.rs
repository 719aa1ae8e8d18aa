//! Relocation engine: objects and archives in, executable memory out.
//!
//! May use: `place`, `alloc`, `platform`. What decides and applies relocations is safe code on
//! bytes; unsafe code is only where loaded code is called (`module`, `session`), the dynamic
//! linker's tables are read (`process`), or the C library and the unwinder are told of a module
//! (`exits`, `tls`, `unwind`). What differs by system is in `host`.
//!
//! ```text
//! inputs -> read -> resolve -> place -> relocate -> protect -> Linked -> Module
//!            |        |          |         |           |
//!         object,  resolve,   layout,   apply, far   place
//!         symbols  process    place     island
//! ```

mod apply;
mod debugger;
mod engine;
mod error;
mod exits;
mod export;
mod externals;
mod far;
mod header;
mod host;
mod howto;
mod init;
mod input;
pub mod island;
mod layout;
mod linked;
mod locate;
mod mirrors;
mod module;
mod object;
mod options;
mod own;
mod pending;
mod process;
mod relax;
mod relocate;
pub mod report;
mod resolve;
mod script;
mod second;
mod session;
mod site;
mod symbols;
mod thin;
pub mod tls;
mod unresolved;
mod unwind;
mod value;

pub use engine::{Link, Phases};
pub use error::{LinkError, LinkFailure, Place, RelocationSite};
pub use export::{ExportError, ExportedSymbols, ModuleExports, unload_deferred};
pub use howto::{Check, Formula, Howto, Width, howto};
pub use input::Input;
pub use linked::{Linked, PlacedSection};
pub use module::{Arguments, Export, Module};
pub use options::{Debugger, FarData, LinkOptions, Pin, Relax, SectionName, parse_addr};
pub use pending::Pending;
pub use process::{LibraryError, ProcessSymbols};
pub use relocate::Placed;
pub use resolve::{Chain, Definitions, ExternalKind, ExternalSymbol, SymbolResolver};
pub use session::{Session, SessionError};
pub use unresolved::Undefined;
pub use unwind::{FrameProblem, FrameWarning, unwinding_is_supported};
