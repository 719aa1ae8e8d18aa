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
//! Unsafe code stands in `carrier` (loads and asks) and `destructors` (calls them).

mod accept;
mod block;
mod carrier;
pub(crate) mod destructors;
mod finish;
mod order;
mod plan;
mod sequence;
mod shared;
mod state;

pub use carrier::static_space;

pub(crate) use block::Block;
pub(crate) use carrier::address_of;
pub(crate) use plan::{Plan, Use, Variable};
pub(crate) use state::{Mode, Runtime, State};
