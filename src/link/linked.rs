//! A link that succeeded: protected memory, symbols, and what a report needs.

use low2g_platform::AddrRange;
use object::elf;
use object::endian::LittleEndian as LE;
use object::read::elf::Sym as _;

use crate::place::Finalized;

use super::apply::Row;
use super::engine::{Phases, Tables};
use super::far::Plan;
use super::layout::Layout;
use super::options::LinkOptions;
use super::relocate::Own;
use super::symbols::to_index;
use super::value::Value;

/// A finished link. Its memory is unmapped when it is dropped.
#[derive(Debug)]
pub struct Linked<'d> {
    pub(crate) tables: Tables<'d>,
    pub(crate) options: &'d LinkOptions,
    pub(crate) phases: Phases,
    pub(crate) layout: Layout,
    pub(crate) memory: Finalized,
    pub(crate) addrs: Vec<u64>,
    pub(crate) globals: Vec<Value>,
    pub(crate) plan: Plan,
    pub(crate) own: Own,
    pub(crate) rows: Vec<Row>,
}
impl Linked<'_> {
    /// Time that each phase took.
    #[must_use]
    pub const fn phases(&self) -> &Phases {
        &self.phases
    }
}
