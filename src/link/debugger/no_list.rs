//! Where debuggers have no interface for code made at run time, nobody is told.

/// A description that nobody reads.
#[derive(Debug)]
pub(super) struct Registered;

impl Registered {
    pub(super) fn new(_image: Box<[u8]>) -> Self {
        Self
    }
}
