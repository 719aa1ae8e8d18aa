//! What tests do to a simulated system, the same for every personality.

use super::space::{Owner, SimMapping};
use crate::range::AddrRange;

/// A simulated system: what it holds, and the trouble that it can be made to give.
pub trait Simulated: std::fmt::Debug {
    /// All mappings, ascending.
    fn mappings(&self) -> Vec<SimMapping>;

    /// The mappings that the backend made and has not released.
    fn leaked(&self) -> Vec<SimMapping> {
        let mut mappings = self.mappings();
        mappings.retain(|mapping| mapping.owner == Owner::Backend);
        mappings
    }

    /// Descriptors, ports or handles that the backend opened and has not closed.
    fn open_files(&self) -> usize;

    /// System calls made so far.
    fn calls(&self) -> u64;

    /// Lets `after` more calls pass and the next one fail with `code`, once.
    fn fail_call(&self, after: u64, code: i32);

    /// As [`Simulated::fail_call`], counting only the call of this name (`munmap`).
    fn fail_named(&self, call: &'static str, after: u64, code: i32);

    /// Forgets the failures that have not come yet.
    fn clear_faults(&self);

    /// Another thread maps `range`; whether it was free.
    fn occupy(&self, range: AddrRange) -> bool;
}

/// Gives a personality these controls, as methods and as [`Simulated`]. `$code` is the type of
/// its error codes, `$prot` the access bits of ordinary memory, `$open` counts what is open.
macro_rules! controls {
    ($system:ty, $code:ty, $prot:expr, |$state:ident| $open:expr) => {
        impl $system {
            /// All mappings, ascending.
            #[must_use]
            pub fn mappings(&self) -> Vec<$crate::sim::SimMapping> {
                self.state.lock().kernel.space.iter().cloned().collect()
            }

            /// The mappings that the backend made and has not released.
            #[must_use]
            pub fn leaked(&self) -> Vec<$crate::sim::SimMapping> {
                $crate::sim::Simulated::leaked(self)
            }

            /// What the backend opened and has not closed.
            #[must_use]
            pub fn open_files(&self) -> usize {
                let $state = self.state.lock();
                $open
            }

            /// System calls made so far.
            #[must_use]
            pub fn calls(&self) -> u64 {
                self.state.lock().kernel.calls()
            }

            /// Lets `after` more calls pass and the next one fail with `code`, once.
            pub fn fail_call(&self, after: u64, code: $code) {
                self.state.lock().kernel.plan(None, after, code.0);
            }

            /// As `fail_call`, counting only the call of this name.
            pub fn fail_named(&self, call: &'static str, after: u64, code: $code) {
                self.state.lock().kernel.plan(Some(call), after, code.0);
            }

            /// Forgets the failures that have not come yet.
            pub fn clear_faults(&self) {
                self.state.lock().kernel.clear_faults();
            }

            /// Another thread maps `range`; whether it was free.
            pub fn occupy(&self, range: $crate::range::AddrRange) -> bool {
                self.state.lock().kernel.occupy(range, $prot)
            }
        }

        impl $crate::sim::Simulated for $system {
            fn mappings(&self) -> Vec<$crate::sim::SimMapping> {
                <$system>::mappings(self)
            }

            fn open_files(&self) -> usize {
                <$system>::open_files(self)
            }

            fn calls(&self) -> u64 {
                <$system>::calls(self)
            }

            fn fail_call(&self, after: u64, code: i32) {
                self.state.lock().kernel.plan(None, after, code);
            }

            fn fail_named(&self, call: &'static str, after: u64, code: i32) {
                self.state.lock().kernel.plan(Some(call), after, code);
            }

            fn clear_faults(&self) {
                <$system>::clear_faults(self);
            }

            fn occupy(&self, range: $crate::range::AddrRange) -> bool {
                <$system>::occupy(self, range)
            }
        }
    };
}

pub(super) use controls;
