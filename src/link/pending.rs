//! [`Pending`]: a placed link that owns its inputs, for one whose externals come later and from
//! another thread perhaps (LLVM ORC).
//!
//! Unsafe code, because a link borrows what is kept beside it here.
//! Invariant: the link is dropped before its inputs and options are freed.

use std::ptr::NonNull;
use std::sync::Arc;

use hashbrown::HashMap;

use super::engine::Link;
use super::error::LinkFailure;
use super::input::Input;
use super::mirrors::Mirrors;
use super::module::{Arguments, Export, Module};
use super::options::LinkOptions;
use super::relocate::Placed;
use super::resolve::SymbolResolver;
use super::session::SessionError;
use super::unresolved::Undefined;
use crate::place::Placer;

/// A link that has addresses and waits for its externals. Dropping it undoes it.
#[derive(Debug)]
pub struct Pending {
    // Fields are dropped in this order.
    placed: Placed<'static>,
    _inputs: Kept<[Input]>,
    _options: Kept<LinkOptions>,
}

/// A box that is borrowed for as long as its owner likes.
#[derive(Debug)]
struct Kept<T: ?Sized>(NonNull<T>);

// SAFETY: it owns the value like a box, and only shared references to it are made.
unsafe impl<T: ?Sized + Send + Sync> Send for Kept<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send + Sync> Sync for Kept<T> {}

impl<T: ?Sized> Kept<T> {
    fn new(value: Box<T>) -> Self {
        Self(NonNull::from(Box::leak(value)))
    }

    /// # Safety
    /// What holds the reference must be gone before the value is dropped.
    unsafe fn get(&self) -> &'static T {
        // SAFETY: as_ref needs a live value that nobody changes: made from a box by `new`, and
        // the caller sees to the lifetime.
        unsafe { self.0.as_ref() }
    }
}

impl<T: ?Sized> Drop for Kept<T> {
    fn drop(&mut self) {
        // SAFETY: from_raw needs a pointer of Box::leak that is given back once: `new` made it.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl Pending {
    /// Reads `inputs` and places their sections.
    ///
    /// # Errors
    /// Malformed inputs, duplicate definitions, sections that cannot be placed.
    pub fn new(
        inputs: Vec<Input>,
        options: LinkOptions,
        placer: &Placer,
    ) -> Result<Self, LinkFailure> {
        Self::sharing(inputs, options, placer, None)
    }

    /// As [`Pending::new`], with the low copies of host constants that other links made.
    pub(super) fn sharing(
        inputs: Vec<Input>,
        options: LinkOptions,
        placer: &Placer,
        mirrors: Option<&Arc<Mirrors>>,
    ) -> Result<Self, LinkFailure> {
        let inputs = Kept::new(inputs.into_boxed_slice());
        let options = Kept::new(Box::new(options));
        // SAFETY: get needs that the reference goes first: only `placed` holds it, which is dropped
        // before `_inputs`; on an error the link is gone before the boxes are.
        let borrowed = unsafe { inputs.get() };
        // SAFETY: as above.
        let mut link = Link::read(borrowed, unsafe { options.get() })?;
        if let Some(mirrors) = mirrors {
            link.share_mirrors(mirrors);
        }
        Ok(Self {
            placed: link.place_unresolved(placer)?,
            _inputs: inputs,
            _options: options,
        })
    }

    /// As [`Placed::exports`].
    ///
    /// # Errors
    /// As there.
    pub fn exports(&self) -> Result<HashMap<Box<str>, Export>, LinkFailure> {
        self.placed.exports()
    }

    /// As [`Placed::undefined`].
    pub fn undefined(&self) -> impl Iterator<Item = Undefined<'_>> {
        self.placed.undefined()
    }

    /// As [`Placed::weak_definitions`].
    pub fn weak_definitions(&self) -> impl Iterator<Item = &str> {
        self.placed.weak_definitions()
    }

    /// As [`Placed::replace_weak`].
    pub fn replace_weak(&mut self, resolver: &dyn SymbolResolver) {
        self.placed.replace_weak(resolver);
    }

    /// Takes what `resolver` knows of the undefined names. Returns those needed and still missing.
    pub fn resolve(&mut self, resolver: &dyn SymbolResolver) -> Vec<String> {
        self.placed.resolve(resolver)
    }

    /// Relocates and protects; nothing of the objects has run.
    pub(super) fn into_module(self) -> Result<Module, LinkFailure> {
        Ok(self.placed.relocate()?.protect()?.into_module())
    }

    /// Relocates, protects and initialises: a running module.
    ///
    /// # Errors
    /// Undefined symbols, relocations that do not fit, what the system refuses. Nothing stays mapped.
    ///
    /// # Safety
    /// Code of the objects runs: resolvers of ifuncs and constructors. What resolvers answered is true.
    pub unsafe fn load(self, arguments: &Arguments) -> Result<Module, SessionError> {
        let mut module = self.into_module()?;
        // SAFETY: the caller agreed to run the objects' code.
        unsafe { module.initialise(arguments) }?;
        Ok(module)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pending_link_may_wait_on_another_thread() {
        fn crosses_threads<T: Send>() {}
        crosses_threads::<Pending>();
    }
}
