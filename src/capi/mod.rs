//! The C API: what `include/low2g.h` declares. C programs link `liblow2g.so` or `liblow2g.a`,
//! which `cargo build` makes.
//!
//! May use: `jit`, `link`, `place`, `alloc`, `platform`.
//!
//! ```text
//!   allocator, code   low memory: data, functions, statistics, certificates
//!   session, module   objects and archives in, running code out
//!   link              the same in two steps
//!   llvm              callbacks for LLVM's MCJIT and ORC
//!        |
//!   handle            opaque pointers that know their kind and whether they were freed
//!   status            codes and texts; no panic leaves
//! ```
//!
//! Rules for all functions: pointers are NULL or valid for what their names say, strings end with
//! NUL, a handle is not freed while another thread uses it. What can be told apart from that (NULL,
//! a freed handle, a handle of another kind, a wrong order) is an error with a code and a text.

#![allow(
    non_camel_case_types,
    reason = "the names are C's, and are those of the header"
)]
#![allow(
    clippy::missing_safety_doc,
    reason = "one rule for all functions: that of this module's documentation and of the header"
)]

mod allocator;
mod code;
mod handle;
mod link;
mod llvm;
mod module;
mod options;
mod session;
mod status;
mod symbol;

pub use allocator::*;
pub use code::*;
pub use link::*;
pub use llvm::*;
pub use module::*;
pub use session::*;
pub use status::{low2g_last_error, low2g_last_status, low2g_status, low2g_version};
pub use symbol::*;
