//! Function tables against gimli's reading of the frame entries they come from: a walker that does what
//! Microsoft's "x64 exception handling" says ends with the same registers.

use super::super::moved::stub_entry;
use super::super::read::Fde;
use super::super::table::{Table, uleb};
use super::*;
use crate::dice::dice;

/// The registers at some instruction: integer ones by Windows' numbers, then the halves of xmm0 to 15.
#[derive(Clone, Debug, PartialEq)]
struct Machine {
    integer: [u64; 16],
    xmm: [[u64; 2]; 16],
}

const RSP_NUMBER: usize = 4;

/// What memory holds: something else at each address.
fn memory(addr: u64) -> u64 {
    let mixed = (addr ^ 0x5851_f42d).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

fn pair(addr: u64) -> [u64; 2] {
    [memory(addr), memory(addr + 8)]
}

/// Windows' walk over one frame; the return address and the caller's registers.
fn walk(info: &[u8], at: &Machine) -> (u64, Machine) {
    let mut machine = at.clone();
    let [1, 0, count, frame, steps @ ..] = info else {
        panic!("version 1 without flags, an empty prologue: {info:?}");
    };
    let slot = |index: usize| u16::from_le_bytes([steps[2 * index], steps[2 * index + 1]]);
    let far = |index: usize| u64::from(slot(index + 1)) | u64::from(slot(index + 2)) << 16;
    let register = usize::from(frame & 15);
    let base = match register {
        0 => machine.integer[RSP_NUMBER],
        _ => machine.integer[register].wrapping_sub(u64::from(frame >> 4) * 16),
    };
    let mut index = 0;
    while index < usize::from(*count) {
        let step = slot(index) >> 8;
        assert_eq!(slot(index) & 0xff, 0, "all steps are done");
        let number = usize::from(step >> 4);
        let near = || u64::from(slot(index + 1));
        index += match step & 15 {
            1 if number == 0 => {
                machine.integer[RSP_NUMBER] += near() * 8;
                2
            }
            1 => {
                machine.integer[RSP_NUMBER] += far(index);
                3
            }
            2 => {
                machine.integer[RSP_NUMBER] += low2g_platform::to_u64(number) * 8 + 8;
                1
            }
            3 => {
                let register = machine.integer[register];
                machine.integer[RSP_NUMBER] = register - u64::from(frame >> 4) * 16;
                1
            }
            4 => {
                machine.integer[number] = memory(base + near() * 8);
                2
            }
            5 => {
                machine.integer[number] = memory(base + far(index));
                3
            }
            8 => {
                machine.xmm[number] = pair(base + near() * 16);
                2
            }
            9 => {
                machine.xmm[number] = pair(base + far(index));
                3
            }
            step => panic!("step {step}"),
        };
    }
    assert_eq!(index, usize::from(*count), "the last step is whole");
    let back = memory(machine.integer[RSP_NUMBER]);
    machine.integer[RSP_NUMBER] += 8;
    (back, machine)
}

/// What the frame entry says of the caller's registers.
fn caller(row: &UnwindTableRow<usize>, at: &Machine) -> Option<Machine> {
    let CfaRule::RegisterAndOffset { register, offset } = row.cfa() else {
        return None;
    };
    let register = usize::from(INTEGER[usize::from(register.0)]);
    let frame = at.integer[register].wrapping_add_signed(*offset);
    let mut machine = at.clone();
    for (register, rule) in row.registers() {
        let RegisterRule::Offset(offset) = rule else {
            return None;
        };
        let place = frame.wrapping_add_signed(*offset);
        match usize::from(register.0) {
            16 => assert_eq!(*offset, -8),
            number @ 0..16 => machine.integer[usize::from(INTEGER[number])] = memory(place),
            number => machine.xmm[number - 17] = pair(place),
        }
    }
    machine.integer[RSP_NUMBER] = frame;
    Some(machine)
}

/// Each stretch of an entry for `[start, start + len)` against its row; gives how many were compared and
/// how many have no entry.
fn compare(start: u64, len: u64, instructions: &[u8]) -> (usize, usize) {
    let mut table = Table::default();
    let (cie, _) = stub_entry(start, len);
    let fde = Fde {
        start,
        len,
        lsda: 0,
        instructions,
    };
    table.add((0, 0), &cie, &fde);
    let table = table.finish();
    let functions = Functions::of(&table);
    let bytes = table.bytes();
    let section = EhFrame::new(&bytes, LittleEndian);
    let bases = BaseAddresses::default();
    let offset = gimli::EhFrameOffset(table.offsets[0]);
    let fde = section.fde_from_offset(&bases, offset, EhFrame::cie_from_offset);
    let fde = fde.expect("a frame entry");
    let mut context = UnwindContext::new();
    let mut rows = fde.rows(&section, &bases, &mut context).expect("rows");
    let mut machine = Machine {
        integer: std::array::from_fn(|number| {
            0x10_0000 + 0x1_0000 * low2g_platform::to_u64(number)
        }),
        xmm: [[7, 9]; 16],
    };
    machine.integer[RSP_NUMBER] = 0x7_0000;
    let (mut compared, mut absent) = (0, 0);
    while let Some(row) = rows.next_row().expect("a row") {
        for pc in row.start_address()..row.end_address() {
            let stretch = functions
                .stretches
                .iter()
                .find(|stretch| stretch.code.contains(pc));
            let Some(stretch) = stretch else {
                absent += 1;
                continue;
            };
            let at = low2g_platform::to_usize(stretch.info.into());
            let expected = caller(row, &machine).expect("what has an entry can be expressed");
            let (back, found) = walk(
                &functions.infos[at..][..4 + 2 * usize::from(functions.infos[at + 2])],
                &machine,
            );
            assert_eq!(found, expected, "{row:?}");
            assert_eq!(back, memory(expected.integer[RSP_NUMBER] - 8));
            compared += 1;
        }
    }
    (compared, absent)
}

fn offset(out: &mut Vec<u8>, register: u8, below: u64) {
    // DW_CFA_offset; the entries' data alignment is -8.
    out.push(0x80 | register);
    uleb(out, below / 8);
}

#[test]
fn what_compilers_write_is_walked_as_gimli_reads_it() {
    // push rbp; mov rbp, rsp; push rbx; push r12; sub rsp, 0x1000; ...; leave; ret
    let mut framed = vec![0x41, 0x0e, 16];
    offset(&mut framed, 6, 16);
    framed.extend([0x43, 0x0d, 6, 0x44]);
    offset(&mut framed, 3, 24);
    offset(&mut framed, 12, 32);
    framed.extend([0x60, 0x0c, 7, 8]);
    // After `leave` the registers are what they were, and the place of the old ones is not ours.
    assert_eq!(compare(0x1234_5000, 60, &framed), (40, 20));
    // push r15; push r14; sub rsp, 0x12345678 (def_cfa_offset)
    let mut plain = vec![0x42, 0x0e, 16];
    offset(&mut plain, 15, 16);
    plain.extend([0x42, 0x0e, 24]);
    offset(&mut plain, 14, 24);
    plain.extend([0x47, 0x0e]);
    uleb(&mut plain, 0x1234_5690);
    assert_eq!(compare(0x4000, 40, &plain), (40, 0));
    // sub rsp, 56; movaps [rsp + 16], xmm6 (register 23), as objects for Windows' convention save it
    let mut windows = vec![0x44, 0x0e, 64, 0x45];
    offset(&mut windows, 23, 48);
    assert_eq!(compare(0x5000, 20, &windows), (20, 0));
}

#[test]
fn what_cannot_be_expressed_has_no_entry() {
    // DW_CFA_def_cfa_expression: breg6 -8, deref, as after the stack was aligned.
    let aligned = [0x44, 0x0f, 3, 0x76, 0x78, 0x06];
    assert_eq!(compare(0x1000, 20, &aligned), (4, 16));
    // A register saved farther below the frame pointer than there are 240 bytes.
    let mut far = vec![0x44, 0x0c, 6, 16];
    offset(&mut far, 3, 16 + 248);
    assert_eq!(compare(0x1000, 20, &far), (4, 16));
    // One that is in another register (DW_CFA_register).
    assert_eq!(compare(0x1000, 20, &[0x44, 0x09, 3, 12]), (4, 16));
    // Below the stack pointer, where a signal would overwrite it.
    let mut below = vec![0x44];
    offset(&mut below, 3, 24);
    assert_eq!(compare(0x1000, 20, &below), (4, 16));
}

#[test]
fn any_frame_entry_is_walked_as_gimli_reads_it_or_left_out() {
    let mut dice = dice(11);
    let byte = |value: u64| u8::try_from(value).expect("small");
    let (mut compared, mut absent) = (0, 0);
    for _ in 0..3_000 {
        let mut instructions = Vec::new();
        for _ in 0..dice(12) {
            match dice(5) {
                0 | 1 => {
                    let saved = [3, 6, 12, 13, 14, 15, 23, 30];
                    let register = saved[low2g_platform::to_usize(dice(8))];
                    let below = if register > 16 {
                        16 * (1 + dice(12))
                    } else {
                        8 * (2 + dice(30))
                    };
                    offset(&mut instructions, register, below);
                }
                2 => {
                    let register = [7, 7, 6, 3][low2g_platform::to_usize(dice(4))];
                    instructions.extend([0x0c, register]);
                    let scale = [8, 8, 16, 0x1_0000];
                    uleb(
                        &mut instructions,
                        (1 + dice(20)) * scale[low2g_platform::to_usize(dice(4))],
                    );
                }
                _ => instructions.push(0x40 | byte(1 + dice(9))),
            }
        }
        let (some, none) = compare(0x7654_3210, 120, &instructions);
        compared += some;
        absent += none;
    }
    assert!(compared > 100_000 && absent > 1_000, "{compared} {absent}");
}

#[test]
fn stretches_ascend_apart_and_take_padding_in() {
    let mut table = Table::default();
    let code = [
        (0x3000, 0x20),
        (0x1000, 0x11),
        (0x1020, 8),
        (0x2000, 4),
        (0x3008, 4),
    ];
    for (start, len) in code {
        let (cie, fde) = stub_entry(start, len);
        table.add((0, 0), &cie, &fde);
    }
    let functions = Functions::of(&table.finish());
    let ranges: Vec<(u64, u64)> = functions
        .stretches
        .iter()
        .map(|stretch| (stretch.code.start(), stretch.code.end()))
        .collect();
    assert_eq!(
        ranges,
        [(0x1000, 0x1028), (0x2000, 0x2004), (0x3000, 0x3020)]
    );
    assert_eq!(functions.infos, [1, 0, 0, 0], "one for all");
    // Nothing to read is nothing to walk.
    assert!(
        Functions::of(&Table::default().finish())
            .stretches
            .is_empty()
    );
}
