//! Where debuggers have no interface for code made at run time, nobody is told.

/// A description that nobody reads.
#[derive(Debug)]
pub(super) struct Registered;

impl Registered {
    #[allow(
        clippy::boxed_local,
        reason = "the signature is that of systems that have a list, which keep the image"
    )]
    pub(super) fn new(_image: Box<[u8]>) -> Self {
        Self
    }
}
