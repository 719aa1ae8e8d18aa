//! A placed link whose externals are still to come: its own addresses are known already, so that
//! links which need each other can be linked side by side.

use hashbrown::HashMap;

use super::error::LinkFailure;
use super::linked::exports;
use super::module::Export;
use super::relocate::Placed;
use super::resolve::SymbolResolver;
use super::symbols::Definition;
use super::value::{self, Addresses};

/// A name that the objects need from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undefined<'n> {
    /// The name.
    pub name: &'n str,
    /// It may stay undefined: its address is 0 then.
    pub weak: bool,
    /// Objects use it as a thread-local variable.
    pub thread_local: bool,
}

/// Addresses that placing settled, beside those of sections.
#[derive(Debug)]
pub(super) struct Known {
    /// Of common symbols, by global.
    pub(super) commons: HashMap<u32, u64>,
    /// First and last address of clusters.
    pub(super) clusters: Vec<(u64, u64)>,
    /// What `__dso_handle` stands for.
    pub(super) dso_handle: u64,
}

impl Placed<'_> {
    pub(super) fn known(&self) -> Known {
        let commons = self.layout.commons.iter();
        let commons = commons.map(|&(id, request)| (id, self.memory.slot(request).addr));
        let clusters = self.layout.clusters.iter().map(|&request| {
            let slot = self.memory.slot(request);
            (slot.addr, slot.addr + slot.size)
        });
        let got = self.layout.reserved.map(|(got, _)| got);
        Known {
            commons: commons.collect(),
            clusters: clusters.collect(),
            dso_handle: got
                .map(|got| self.memory.slot(got).addr)
                .or(self.addrs.first().copied())
                .unwrap_or(0),
        }
    }

    /// The objects' own symbols for others, but for thread-local variables and ifuncs, which have
    /// no address before the link is done.
    ///
    /// # Errors
    /// Malformed symbols.
    pub fn exports(&self) -> Result<HashMap<Box<str>, Export>, LinkFailure> {
        let known = self.known();
        let addresses = Addresses {
            loaded: &self.addrs,
            commons: &known.commons,
            clusters: &known.clusters,
            tls_commons: &self.layout.tls.commons,
            dso_handle: known.dso_handle,
        };
        let values = value::globals(&self.tables.symbols, &self.tables.objects, &addresses)?;
        Ok(exports(
            &self.tables,
            &values,
            &HashMap::new(),
            self.options,
        ))
    }

    /// What is still undefined. Names that are not UTF-8 are left out: nobody can answer them.
    pub fn undefined(&self) -> impl Iterator<Item = Undefined<'_>> {
        let shared =
            |global: &&super::symbols::Global<'_>| self.options.share_hidden || !global.is_local();
        let list = self.tables.symbols.list.iter();
        list.filter(|global| global.definition == Definition::Undefined)
            .filter(shared)
            .filter_map(|global| {
                Some(Undefined {
                    name: std::str::from_utf8(global.name).ok()?,
                    weak: !global.needed,
                    thread_local: global.thread_local,
                })
            })
    }

    /// Weak definitions of the objects, which others may replace.
    pub fn weak_definitions(&self) -> impl Iterator<Item = &str> {
        let list = self.tables.symbols.list.iter();
        list.filter(|global| global.weak && !global.thread_local)
            .filter(|global| matches!(global.definition, Definition::Object { .. }))
            .filter_map(|global| std::str::from_utf8(global.name).ok())
    }

    /// As [`Link::resolve`](super::Link::resolve).
    pub fn resolve(&mut self, resolver: &dyn SymbolResolver) -> Vec<String> {
        self.tables.resolve(resolver, self.options.share_hidden)
    }

    /// Lets `resolver` put another definition in the place of each weak one of the objects.
    pub fn replace_weak(&mut self, resolver: &dyn SymbolResolver) {
        self.tables.replace_weak(resolver);
    }
}
