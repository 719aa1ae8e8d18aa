//! The low-address allocator: pages and blocks below 2 GiB (or in any other
//! [`Reach`]), at random addresses unless asked otherwise.
//!
//! This layer may use `low2g_platform` and nothing above it.
//!
//! ```text
//!   LowAllocator --- LowBlock, CodeBlock   data and functions: slots of arenas
//!        |      \--- Mapping               whole pages: sections, large blocks
//!      Pages  ------ policy             which addresses to try
//!        |     \---- claim              tries them, with a bound
//!        |     \---- space              what is taken, by us and by others
//!      Platform                         the system, or a simulated one
//! ```
//!
//! Invariants: nothing is ever mapped over what somebody else holds; every
//! byte lies in the reach that was asked for; everything is given back on
//! drop; no page is writable and executable at one address.

pub mod allocator;
pub mod block;
pub mod builder;
pub mod certificate;
pub mod code;
pub mod error;
pub mod global;
pub mod low32;
pub mod mapping;
pub mod policy;
pub mod random;
pub mod reach;
pub mod snapshot;
pub mod space;
pub mod statistics;

mod biased;
#[cfg(all(test, target_os = "linux"))]
mod biased_test;
mod claim;
mod containers;
mod exact;
mod extents;
mod fork;
mod heap;
mod hole;
mod lock;
mod own;
mod pages;
mod raw;
mod runs;
mod slots;
mod sorted;
mod sync;
mod threads;

pub use allocator::{LowAllocator, MapRequest};
pub use block::LowBlock;
pub use builder::Builder;
pub use certificate::{Certificate, Step};
pub use code::{CodeBatch, CodeBlock, CodeViews, PublishedCode};
pub use error::{AllocError, HeldBy, Misuse};
pub use global::LowGlobal;
pub use low32::Low32;
pub use mapping::Mapping;
pub use policy::{Placement, PlacementPolicy};
pub use raw::Owned;
pub use reach::Reach;
pub use snapshot::{SnapshotRegion, Use};
pub use space::Kind;
pub use statistics::{KindCount, Statistics};
