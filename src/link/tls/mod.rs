//! Thread-local storage: the objects' own variables and the process's, in every model.
//!
//! ```text
//! TLS relocations --(plan)--> what each becomes, GOT slots, questions
//!        own image ------\                                 |
//!                         carrier (a shared object) --- dlopen: answers
//!                                                          |
//!        code and GOT <------------(finish)----------------+
//! ```
//!
//! The dynamic linker is the judge: it gives the module number, the offset from the thread
//! pointer if that is one for all threads, and every thread's copy. The engine relaxes code
//! only to offsets that it answered. Without the process (dry runs, or when asked) the block
//! stands as a static program's only block would: it ends at the thread pointer.
//!
//! Where the dynamic linker has no room for a static block, or cannot take one back yet, `room`
//! finds one, and `threads` writes every thread's copy.
//!
//! Unsafe code stands in `carrier` (loads and asks), `destructors` (calls them), `pool` and
//! `system` (find the program's block), `room` and `threads` (write initial values and copies).

mod accept;
mod block;
mod carrier;
pub(crate) mod destructors;
mod finish;
mod order;
mod plan;
mod pool;
mod question;
mod room;
mod sequence;
mod shared;
mod state;
mod threads;

#[cfg(all(
    target_arch = "x86_64",
    any(target_os = "linux", target_os = "freebsd")
))]
#[path = "system_elf.rs"]
mod system;
#[cfg(not(all(
    target_arch = "x86_64",
    any(target_os = "linux", target_os = "freebsd")
)))]
#[path = "system_none.rs"]
mod system;

pub use carrier::static_space;
pub use pool::{PoolBytes, PoolError, install_pool};
pub use room::{PoolRefusal, StaticUse, static_use};
pub use threads::register_thread;

pub(crate) use block::Block;
pub(crate) use plan::{Plan, Use, Variable};
pub(crate) use state::{Mode, Runtime, State};

/// The address of `__tls_get_addr` for loaded code, where no dynamic linker gives it.
pub(crate) fn get_addr() -> Option<u64> {
    let function = system::get_addr()?;
    Some(low2g_platform::to_u64(
        (function as *const ()).expose_provenance(),
    ))
}
