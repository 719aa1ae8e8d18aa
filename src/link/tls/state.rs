//! What a link knows of its thread-local storage, from layout to report.

use hashbrown::HashMap;
use low2g_platform::to_usize;

use crate::link::engine::Tables;
use crate::link::object::Section;
use crate::link::symbols::Symbols;
use crate::link::value::Value;

use super::block::Block;
use super::carrier::Carrier;
use super::destructors::{NAMES, Registration};
use super::plan::{Slot, Variable};

/// Where the own block stands in relation to the thread pointer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// There is none.
    #[default]
    None,
    /// At one offset in all threads.
    Static {
        /// Of the block's start, two's complement.
        offset: u64,
    },
    /// Wherever `__tls_get_addr` says.
    Dynamic,
}

/// Thread-local storage of a link.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Initial values of the own block.
    pub(crate) image: Vec<u8>,
    pub(crate) mode: Mode,
    /// Module number of the own block.
    pub(crate) module: u64,
    /// Offsets from the thread pointer of others' variables, by global, where asked for.
    pub(crate) external: HashMap<u32, u64>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) carrier: Option<Carrier>,
    /// What `__dso_handle` stands for.
    pub(crate) dso_handle: u64,
}

impl State {
    /// What the loaded module needs. `variables`: visible ones, offset and size.
    pub(crate) fn into_runtime(
        self,
        symbols: &Symbols<'_>,
        variables: HashMap<Box<str>, (u64, u64)>,
    ) -> Runtime {
        let registers = NAMES
            .iter()
            .any(|name| symbols.find(name.as_bytes()).is_some());
        Runtime {
            module: self.module,
            block: self.offset_of(Variable::Own(0)),
            variables,
            destructors: registers.then(|| Registration::new(self.dso_handle)),
            carrier: self.carrier,
        }
    }

    /// Copies the initial values, not yet relocated.
    pub(crate) fn copy(&mut self, tables: &Tables<'_>, block: &Block) {
        self.image = vec![0; to_usize(block.file_size)];
        for &(object, section) in &block.sections {
            let section = &tables.objects[object].sections[section];
            if !section.data.is_empty() {
                let start = to_usize(section.tls_offset);
                self.image[start..start + section.data.len()].copy_from_slice(section.data);
            }
        }
    }

    /// The initial values of a thread-local section.
    pub(crate) fn section_bytes(&mut self, section: &Section<'_>) -> &mut [u8] {
        let start = to_usize(section.tls_offset);
        let range = start..start + section.data.len();
        let image = self.image.get_mut(range);
        image
            .filter(|_| section.is_thread_local())
            .unwrap_or_default()
    }

    /// The offset of a variable from the thread pointer, where it is one for all threads.
    pub(crate) fn offset_of(&self, variable: Variable) -> Option<u64> {
        match (variable, self.mode) {
            (Variable::Own(at), Mode::Static { offset }) => Some(offset.wrapping_add(at)),
            (Variable::Own(_), _) => None,
            (Variable::External(global), _) => self.external.get(&global).copied(),
        }
    }

    /// As `offset_of`, for a symbol of a report.
    pub(crate) fn offset_of_symbol(&self, value: Value, global: Option<u32>) -> Option<u64> {
        use crate::link::value::{EXTERNAL, TLS};
        match global {
            _ if !value.has(TLS) => None,
            Some(global) if value.has(EXTERNAL) => self.offset_of(Variable::External(global)),
            _ => self.offset_of(Variable::Own(value.addr)),
        }
    }
}

/// Thread-local storage of a loaded module.
#[derive(Debug, Default)]
pub(crate) struct Runtime {
    /// Module number of the block.
    pub(crate) module: u64,
    /// Its offset from the thread pointer, if that is one for all threads.
    pub(crate) block: Option<u64>,
    /// Visible variables: offset in the block and size.
    pub(crate) variables: HashMap<Box<str>, (u64, u64)>,
    /// If its code may register destructors of thread-local objects.
    pub(crate) destructors: Option<Registration>,
    /// Keeps the block. Dropped after the module's memory: destructors may use both.
    pub(crate) carrier: Option<Carrier>,
}
