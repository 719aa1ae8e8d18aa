//! What a link knows of its thread-local storage, from layout to report.

use hashbrown::HashMap;
use low2g_platform::{to_u64, to_usize};

use crate::link::engine::Tables;
use crate::link::object::Section;
use crate::link::resolve::{ExternalKind, ExternalSymbol};
use crate::link::symbols::Symbols;
use crate::link::value::Value;

use super::block::Block;
use super::carrier::{Carrier, address_of};
use super::destructors::{NAMES, Registration};
use super::plan::{Slot, Variable};
use super::room::Room;
use super::system::thread_pointer;

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
    /// As static, in the pool.
    Pool {
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
    /// Where the own block starts in that module's: 0 unless it is a part of the pool.
    pub(crate) base: u64,
    /// Offsets from the thread pointer of others' variables, by global, where asked for.
    pub(crate) external: HashMap<u32, u64>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) carrier: Option<Carrier>,
    /// The own block's place, where it is not the carrier's own.
    pub(crate) room: Option<Room>,
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
            block: (self.carrier.is_some() || self.room.is_some()).then_some(ModuleBlock {
                module: self.module,
                base: self.base,
                offset: self.offset_of(Variable::Own(0)),
            }),
            variables,
            destructors: registers.then(|| Registration::new(self.dso_handle)),
            held: (self.carrier, self.room),
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
            (Variable::Own(at), Mode::Static { offset } | Mode::Pool { offset }) => {
                Some(offset.wrapping_add(at))
            }
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

/// Where a loaded module's block is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ModuleBlock {
    pub(crate) module: u64,
    /// Where it starts in the module's.
    pub(crate) base: u64,
    /// From the thread pointer, if that is one for all threads.
    pub(crate) offset: Option<u64>,
}

impl ModuleBlock {
    /// The calling thread's address of what is at `at`. `None` if nobody knows.
    ///
    /// # Safety
    /// The module must be loaded, and `at` in the block.
    pub(crate) unsafe fn address(self, at: u64) -> Option<u64> {
        match self.offset {
            Some(offset) => {
                let pointer = to_u64(thread_pointer()?);
                Some(pointer.wrapping_add(offset).wrapping_add(at))
            }
            // SAFETY: the caller vouches for module and offset.
            None => unsafe { address_of(self.module, self.base.wrapping_add(at)) },
        }
    }

    /// The variable of `size` bytes at `at`, for other links.
    pub(crate) fn symbol(self, at: u64, size: u64) -> ExternalSymbol {
        ExternalSymbol {
            addr: self.base.wrapping_add(at),
            size,
            kind: ExternalKind::ModuleTls {
                module: self.module,
                block: self.offset.map(|offset| offset.wrapping_sub(self.base)),
            },
        }
    }
}

/// Thread-local storage of a loaded module.
#[derive(Debug, Default)]
pub(crate) struct Runtime {
    /// Its block, if it uses thread-local storage and is there to run.
    pub(crate) block: Option<ModuleBlock>,
    /// Visible variables: offset in the block and size.
    pub(crate) variables: HashMap<Box<str>, (u64, u64)>,
    /// If its code may register destructors of thread-local objects.
    pub(crate) destructors: Option<Registration>,
    /// What keeps the block. Dropped after the module's memory: destructors may use both.
    #[expect(dead_code, reason = "held until the module goes")]
    pub(crate) held: (Option<Carrier>, Option<Room>),
}
