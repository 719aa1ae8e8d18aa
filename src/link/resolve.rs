//! Where a symbol that no object defines comes from.

use std::fmt;

/// What an external symbol is, as far as its definer tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExternalKind {
    /// A function: calls and 32-bit address words may take a stub.
    Function,
    /// A variable or a constant.
    Data,
    /// Thread-local: `addr` is its offset in the definer's block, and the dynamic linker
    /// knows it by name.
    Tls,
    /// Thread-local of a module that low2g loaded: `addr` is its offset in the block.
    ModuleTls {
        /// The block's module number.
        module: u64,
        /// Offset of the block from the thread pointer, two's complement, if that is one for
        /// all threads.
        block: Option<u64>,
    },
    /// Not known (a user's definition): calls take stubs, instructions take islands.
    Unknown,
}

/// A symbol defined outside of the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExternalSymbol {
    /// Its address in this process.
    pub addr: u64,
    /// Bytes, 0 if not known.
    pub size: u64,
    /// What it is.
    pub kind: ExternalKind,
}

/// Answers for names that no object defines: a user's table, libraries, the process.
pub trait SymbolResolver: fmt::Debug {
    /// The symbol `name`, or `None` to let the next resolver answer.
    /// A name may carry a version: `memcpy@GLIBC_2.2.5`.
    fn resolve(&self, name: &str) -> Option<ExternalSymbol>;

    /// As `resolve`, for a name that objects use as a thread-local variable. Whoever answers
    /// must not touch the variable: a dynamic linker fixes a block's kind at its first use.
    fn resolve_thread_local(&self, name: &str) -> Option<ExternalSymbol> {
        self.resolve(name)
    }
}

/// Definitions that a user gives by name, looked up before the process.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    map: hashbrown::HashMap<String, ExternalSymbol>,
}

impl Definitions {
    /// Defines `name`; a later definition of the same name wins.
    pub fn insert(&mut self, name: impl Into<String>, symbol: ExternalSymbol) {
        self.map.insert(name.into(), symbol);
    }

    /// Whether nothing is defined.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
}

impl SymbolResolver for Definitions {
    fn resolve(&self, name: &str) -> Option<ExternalSymbol> {
        self.map.get(name).copied()
    }
}

/// Several resolvers, asked in order.
#[derive(Debug, Default)]
pub struct Chain<'r> {
    resolvers: Vec<&'r dyn SymbolResolver>,
}

impl<'r> Chain<'r> {
    /// Asks `resolver` after those already added.
    #[must_use]
    pub fn then(mut self, resolver: &'r dyn SymbolResolver) -> Self {
        self.resolvers.push(resolver);
        self
    }
}

impl SymbolResolver for Chain<'_> {
    fn resolve(&self, name: &str) -> Option<ExternalSymbol> {
        self.resolvers
            .iter()
            .find_map(|resolver| resolver.resolve(name))
    }

    fn resolve_thread_local(&self, name: &str) -> Option<ExternalSymbol> {
        self.resolvers
            .iter()
            .find_map(|resolver| resolver.resolve_thread_local(name))
    }
}
