//! Where instructions start: function symbols, then any symbol, then the section's start.
//!
//! Linear decoding from such a start is accepted only if some instruction's field lies
//! exactly where the relocation says. Data in a code section can still pass for an
//! instruction if the bytes before its address word happen to be an opcode; compilers put
//! no address words between instructions, hand-written assembly may.

use hashbrown::HashMap;
use object::elf;
use object::endian::LittleEndian as LE;
use object::read::elf::Sym as _;

use super::object::{Object, SymbolPlace};

/// Known starts of a section's instructions, offsets ascending.
#[derive(Debug, Default)]
struct SectionStarts {
    functions: Vec<usize>,
    labels: Vec<usize>,
}

/// Starts by object and section number, made when first asked for.
#[derive(Debug, Default)]
pub(crate) struct Starts {
    sections: HashMap<u32, HashMap<u32, SectionStarts>>,
    /// Object, section and offset of the instruction found last.
    last: Option<(u32, u32, usize)>,
}

impl Starts {
    /// Offsets to decode from to reach `offset`, best first.
    pub(crate) fn candidates(
        &mut self,
        object: &Object<'_>,
        object_number: u32,
        section: u32,
        offset: usize,
    ) -> impl Iterator<Item = usize> + use<> {
        let sections = self
            .sections
            .entry(object_number)
            .or_insert_with(|| index(object));
        let starts = sections.entry(section).or_default();
        let before = |list: &[usize]| {
            let end = list.partition_point(|&start| start <= offset);
            end.checked_sub(1).map(|last| list[last])
        };
        let function = before(&starts.functions);
        // Relocations ascend: going on from the last instruction keeps a long function linear.
        let last = self.last.filter(|&(object, number, at)| {
            (object, number) == (object_number, section)
                && at <= offset
                && function.is_none_or(|function| function <= at)
        });
        let last = last.map(|(_, _, at)| at);
        [last, function, before(&starts.labels), Some(0)]
            .into_iter()
            .flatten()
    }

    /// Notes where an instruction was found, for those behind it.
    pub(crate) fn found(&mut self, object: u32, section: u32, at: usize) {
        self.last = Some((object, section, at));
    }
}

fn index(object: &Object<'_>) -> HashMap<u32, SectionStarts> {
    let mut sections: HashMap<u32, SectionStarts> = HashMap::new();
    for (index, symbol) in object.symbols().iter().enumerate() {
        let Ok(SymbolPlace::Section(section)) = object.place_of(index, symbol) else {
            continue;
        };
        let (Ok(section), Ok(value)) =
            (u32::try_from(section), usize::try_from(symbol.st_value(LE)))
        else {
            continue;
        };
        let starts = sections.entry(section).or_default();
        match symbol.st_type() {
            elf::STT_FUNC | elf::STT_GNU_IFUNC => starts.functions.push(value),
            _ => starts.labels.push(value),
        }
    }
    for starts in sections.values_mut() {
        starts.functions.sort_unstable();
        starts.labels.sort_unstable();
    }
    sections
}

/// Whether the 4-byte field at `offset` is that of `call`, `jmp` or `jcc` rel32.
///
/// A rip-relative operand cannot be mistaken for one: its ModRM byte, just before the
/// field, has mod 00 and r/m 101, which e8, e9 and 80..8f have not.
pub(crate) fn is_branch_field(code: &[u8], offset: usize) -> bool {
    let byte = |back: usize| {
        offset
            .checked_sub(back)
            .and_then(|at| code.get(at))
            .copied()
    };
    match (byte(2), byte(1)) {
        (_, Some(0xe8 | 0xe9)) => true,
        (Some(0x0f), Some(second)) => second & 0xf0 == 0x80,
        _ => false,
    }
}
