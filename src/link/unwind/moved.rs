//! Frame entries for islands: the row that holds at the moved instruction, again.
//!
//! A frame address that counts from rsp follows rsp through the island (`IslandRow`); all
//! other rules stay. A moved call has stored the original return address when it leaves, so
//! islands need no personality and no exception data.

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EndianSlice, LittleEndian, RegisterRule, UnwindContext,
    UnwindSection as _, UnwindTableRow,
};
use low2g_platform::to_u64;

use super::read::{Cie, Fde};
use super::table::{Table, Written, sleb, uleb};
use crate::link::island::IslandRow;

/// DWARF's number of rsp (psABI, figure 3.36).
const RSP: u16 = 7;
/// DWARF's number of the return address.
const RETURN_ADDRESS: u64 = 16;

/// An island and where its instruction came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved<'a> {
    /// Address of the instruction before it was moved.
    pub(super) from: u64,
    /// Address of the island.
    pub(super) to: u64,
    /// Bytes of the island.
    pub(super) size: u64,
    pub(super) rows: &'a [IslandRow],
}

type Slice<'a> = EndianSlice<'a, LittleEndian>;
type Row = UnwindTableRow<usize>;

/// What all islands' entries share: unit alignments, no instructions.
pub(super) const fn cie(signal: bool) -> Cie<'static> {
    Cie::plain(1, 1, RETURN_ADDRESS, signal, &[])
}

/// The entry for stubs: nothing is on the stack but the return address.
pub(super) fn stub_entry(start: u64, len: u64) -> (Cie<'static>, Fde<'static>) {
    // def_cfa rsp+8; return address at CFA-8.
    const AT_ENTRY: &[u8] = &[0x0c, 7, 8, 0x90, 1];
    let fde = Fde {
        start,
        len,
        lsda: 0,
        instructions: &[],
    };
    (Cie::plain(1, -8, RETURN_ADDRESS, false, AT_ENTRY), fde)
}

/// Calls `add` with the instructions for every island whose instruction `entry` of `table`
/// covers. `islands` is sorted by `from`. An island whose row cannot be expressed is left out.
pub(super) fn each_of_entry<'i>(
    table: &Table,
    entry: &Written,
    islands: &[Moved<'i>],
    add: &mut dyn FnMut(Moved<'i>, Vec<u8>),
) {
    let first = islands.partition_point(|island| island.from < entry.code.start());
    let mut left = islands[first..]
        .iter()
        .take_while(|island| island.from < entry.code.end())
        .peekable();
    if left.peek().is_none() {
        return;
    }
    let section = EhFrame::new(&table.bytes, LittleEndian);
    let bases = BaseAddresses::default();
    let fde = section.fde_from_offset(&bases, entry.offset.into(), EhFrame::cie_from_offset);
    let mut context = UnwindContext::new();
    let Ok(fde) = fde else { return };
    let Ok(mut rows) = fde.rows(&section, &bases, &mut context) else {
        return;
    };
    while let Ok(Some(row)) = rows.next_row() {
        while let Some(island) = left.next_if(|island| island.from < row.end_address()) {
            if let Some(instructions) = instructions(&section, row, island.rows) {
                add(*island, instructions);
            }
        }
    }
}

/// `row`, carried through the states of an island.
fn instructions(section: &EhFrame<Slice<'_>>, row: &Row, states: &[IslandRow]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let counts_from_rsp = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => {
            out.push(0x12); // def_cfa_sf
            uleb(&mut out, u64::from(register.0));
            sleb(&mut out, *offset);
            (register.0 == RSP).then_some(*offset)
        }
        CfaRule::Expression(expression) => {
            let bytes = expression.get(section).ok()?.0.slice();
            // An expression of rsp would have to be rewritten; only PLT entries have such.
            if uses_rsp(bytes) {
                return None;
            }
            out.push(0x0f); // def_cfa_expression
            block(&mut out, bytes);
            None
        }
    };
    for (register, rule) in row.registers() {
        rule_instruction(section, &mut out, u64::from(register.0), rule)?;
    }
    let mut at = 0;
    for state in states {
        if let Some(offset) = counts_from_rsp {
            advance(&mut out, state.offset - at);
            at = state.offset;
            out.push(0x13); // def_cfa_offset_sf
            sleb(&mut out, offset - i64::from(state.rsp_delta));
        }
    }
    Some(out)
}

fn advance(out: &mut Vec<u8>, distance: usize) {
    match u8::try_from(distance) {
        Ok(0) => {}
        Ok(short) => out.extend([0x02, short]),
        Err(_) => {
            out.push(0x04);
            let long = u32::try_from(distance).expect("islands are short");
            out.extend(long.to_le_bytes());
        }
    }
}

/// One register's rule, with a data alignment of 1.
fn rule_instruction(
    section: &EhFrame<Slice<'_>>,
    out: &mut Vec<u8>,
    register: u64,
    rule: &RegisterRule<usize>,
) -> Option<()> {
    let mut head = |opcode: u8| {
        out.push(opcode);
        uleb(out, register);
    };
    match rule {
        RegisterRule::Undefined => head(0x07),
        RegisterRule::SameValue => head(0x08),
        RegisterRule::Offset(offset) => {
            head(0x11);
            sleb(out, *offset);
        }
        RegisterRule::ValOffset(offset) => {
            head(0x15);
            sleb(out, *offset);
        }
        RegisterRule::Register(other) => {
            head(0x09);
            uleb(out, u64::from(other.0));
        }
        RegisterRule::Expression(expression) => {
            head(0x10);
            block(out, expression.get(section).ok()?.0.slice());
        }
        RegisterRule::ValExpression(expression) => {
            head(0x16);
            block(out, expression.get(section).ok()?.0.slice());
        }
        // x86-64 has no vendor's rules and no pseudo-registers.
        _ => return None,
    }
    Some(())
}

fn block(out: &mut Vec<u8>, bytes: &[u8]) {
    uleb(out, to_u64(bytes.len()));
    out.extend(bytes);
}

/// Whether an expression reads rsp, or cannot be decoded.
fn uses_rsp(bytes: &[u8]) -> bool {
    let encoding = gimli::Encoding {
        address_size: 8,
        format: gimli::Format::Dwarf32,
        version: 5,
    };
    let expression = gimli::Expression(EndianSlice::new(bytes, LittleEndian));
    let mut operations = expression.operations(encoding);
    loop {
        match operations.next() {
            Ok(Some(
                gimli::Operation::RegisterOffset { register, .. }
                | gimli::Operation::Register { register },
            )) if register.0 == RSP => return true,
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}
