//! Instructions that an island cannot repeat are refused, with a message that shows them;
//! and the plain arguments of the island functions.

use low2g::link::island::{
    self, FarField, FieldKind, FieldRole, Island, IslandError, IslandRow, Refusal,
};

const FAR: u64 = 0x7f12_3456_7890;
const PLACE: u64 = 0x1000_0000;

fn field(offset: usize, kind: FieldKind) -> FarField {
    FarField {
        offset,
        kind,
        target: FAR,
    }
}

fn build(bytes: &[u8], offset: usize, kind: FieldKind) -> Result<Island, IslandError> {
    island::build(bytes, PLACE, &[field(offset, kind)], PLACE + 0x1000)
}

/// The reason that the instruction is refused for; its size bound must be refused alike.
fn refusal(bytes: &[u8], offset: usize, kind: FieldKind) -> Refusal {
    let error = build(bytes, offset, kind).expect_err("a refusal");
    let bound = island::size_bound(bytes, PLACE, &[field(offset, kind)]);
    assert_eq!(bound, Err(error.clone()));
    let IslandError::Refused { insn, why } = error else {
        panic!("{error}");
    };
    assert_eq!((insn.ip, &insn.bytes[..]), (PLACE, bytes));
    why
}

#[test]
fn narrow_operations_on_a_far_address_are_refused() {
    use FieldKind::{Abs32, Abs32S, PcRel};
    // cmp eax, imm32; movl $imm32, (rax); add ecx, imm32; lea disp(rax), ecx
    assert_eq!(refusal(&[0x3d, 0, 0, 0, 0], 1, Abs32), Refusal::Truncates);
    assert_eq!(
        refusal(&[0xc7, 0, 0, 0, 0, 0], 2, Abs32),
        Refusal::Truncates
    );
    assert_eq!(
        refusal(&[0x81, 0xc1, 0, 0, 0, 0], 2, Abs32),
        Refusal::Truncates
    );
    assert_eq!(
        refusal(&[0x8d, 0x88, 0, 0, 0, 0], 2, Abs32S),
        Refusal::Truncates
    );
    // lea disp(rip), ax
    assert_eq!(
        refusal(&[0x66, 0x8d, 5, 0, 0, 0, 0], 3, PcRel),
        Refusal::Truncates
    );
}

#[test]
fn offsets_that_are_no_addresses_are_refused() {
    use FieldKind::{Abs32, Abs32S};
    // mov fs:disp, rax; mov addr32 disp, eax; mov addr32 disp(ecx), eax
    let fs = [0x64, 0x48, 0x8b, 4, 0x25, 0, 0, 0, 0];
    assert_eq!(refusal(&fs, 5, Abs32S), Refusal::Segment);
    let gs = [0x65, 0x8b, 0x81, 0, 0, 0, 0];
    assert_eq!(refusal(&gs, 3, Abs32S), Refusal::Segment);
    let short = [0x67, 0x8b, 4, 0x25, 0, 0, 0, 0];
    assert_eq!(refusal(&short, 4, Abs32), Refusal::AddressSize);
    let based = [0x67, 0x8b, 0x81, 0, 0, 0, 0];
    assert_eq!(refusal(&based, 3, Abs32S), Refusal::AddressSize);
    let eip = [0x67, 0x8b, 5, 0, 0, 0, 0];
    assert_eq!(refusal(&eip, 3, FieldKind::PcRel), Refusal::AddressSize);
    // vpgatherdd disp(,xmm1), xmm0
    let gather = [0xc4, 0xe2, 0x69, 0x90, 4, 0x0d, 0, 0, 0, 0];
    assert_eq!(refusal(&gather, 6, Abs32S), Refusal::AddressForm);
}

#[test]
fn stack_and_control_instructions_are_refused() {
    use FieldKind::{Abs32S, PcRel};
    // mov disp(rip), rsp; add $imm, rsp; add disp(rip), rsp; pushw disp(rip)
    assert_eq!(
        refusal(&[0x48, 0x8b, 0x25, 0, 0, 0, 0], 3, PcRel),
        Refusal::StackPointer
    );
    assert_eq!(
        refusal(&[0x48, 0x81, 0xc4, 0, 0, 0, 0], 3, Abs32S),
        Refusal::StackPointer
    );
    assert_eq!(
        refusal(&[0x48, 3, 0x25, 0, 0, 0, 0], 3, PcRel),
        Refusal::StackPointer
    );
    assert_eq!(
        refusal(&[0x66, 0xff, 0x35, 0, 0, 0, 0], 3, PcRel),
        Refusal::StackPointer
    );
    // call rel32; je rel32; ljmp *disp(rip)
    assert_eq!(refusal(&[0xe8, 0, 0, 0, 0], 1, PcRel), Refusal::ControlFlow);
    assert_eq!(
        refusal(&[0x0f, 0x84, 0, 0, 0, 0], 2, PcRel),
        Refusal::ControlFlow
    );
    assert_eq!(
        refusal(&[0xff, 0x2d, 0, 0, 0, 0], 2, PcRel),
        Refusal::ControlFlow
    );
}

#[test]
fn a_relocation_of_the_wrong_kind_is_refused() {
    use FieldKind::{Abs32S, PcRel};
    assert_eq!(refusal(&[0x8b, 5, 0, 0, 0, 0], 2, Abs32S), Refusal::Kind);
    assert_eq!(refusal(&[0x8b, 0x80, 0, 0, 0, 0], 2, PcRel), Refusal::Kind);
    assert_eq!(refusal(&[0xbf, 0, 0, 0, 0], 1, PcRel), Refusal::Kind);
}

#[test]
fn a_refusal_shows_instruction_bytes_address_and_reason() {
    let error = build(&[0x3d, 0x78, 0x56, 0x34, 0x12], 1, FieldKind::Abs32);
    assert_eq!(
        error.expect_err("a refusal").to_string(),
        "cannot move `cmp eax,12345678h` (3d 78 56 34 12) at 0x10000000 to an island: the \
         operation is narrower than 64 bits and would cut the far address off; compile with -fPIC"
    );
}

#[test]
fn an_rsp_operand_that_leaves_its_range_is_refused() {
    // movq $imm, 0x7fffffff(rsp)
    let mut bytes = [0x48, 0xc7, 0x84, 0x24, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0];
    assert!(matches!(
        build(&bytes, 8, FieldKind::Abs32S),
        Err(IslandError::Refused {
            why: Refusal::StackDisplacement(0x88),
            ..
        })
    ));
    bytes[7] = 0;
    build(&bytes, 8, FieldKind::Abs32S).expect("0xffffff(rsp) fits");
}

#[test]
fn undecodable_bytes_are_shown() {
    // REX2 of APX, which the decoder does not know.
    let bytes = [0xd5, 0x48, 0x8b, 5, 0, 0, 0, 0];
    let error = build(&bytes, 4, FieldKind::PcRel).expect_err("an error");
    assert_eq!(
        error.to_string(),
        "no instruction known at 0x10000000 (d5 48 8b 05 00 00 00 00): data in code, or an APX \
         encoding"
    );
    let error = build(&[0x48, 0x8b], 2, FieldKind::PcRel).expect_err("cut short");
    assert!(matches!(error, IslandError::Decode { .. }), "{error}");
}

#[test]
fn field_arguments_are_checked() {
    let load = [0x8b, 5, 0, 0, 0, 0];
    let none = island::build(&load, PLACE, &[], PLACE);
    assert!(matches!(none, Err(IslandError::Fields { count: 0, .. })));
    let one = field(2, FieldKind::PcRel);
    let twice = island::build(&load, PLACE, &[one, one], PLACE);
    assert!(matches!(twice, Err(IslandError::Fields { count: 2, .. })));
    let beside = build(&load, 1, FieldKind::PcRel);
    assert!(matches!(beside, Err(IslandError::NoField { field, .. }) if field == PLACE + 1));
    // An 8-bit displacement is no field of ours.
    let short = build(&[0x8b, 0x40, 0, 0x90, 0x90, 0x90], 2, FieldKind::Abs32S);
    assert!(matches!(short, Err(IslandError::NoField { .. })));
}

#[test]
fn the_target_of_a_rip_operand_counts_from_the_instructions_end() {
    // cmpb $0, x(rip): one immediate byte follows the field; the addend is -5.
    let far = FarField::new(2, FieldKind::PcRel, FAR - 5, 7);
    assert_eq!(far.target, FAR);
    let absolute = FarField::new(2, FieldKind::Abs32S, FAR, 7);
    assert_eq!(absolute.target, FAR);
}

#[test]
fn instruction_at_takes_only_exact_fields() {
    // nop; mov disp(rip), rdi; movq $imm, disp(rip); call rel32
    let code = [
        0x90, 0x48, 0x8b, 0x3d, 0, 0, 0, 0, 0x48, 0xc7, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0xe8, 0, 0, 0, 0,
    ];
    let at = |field| island::instruction_at(&code, PLACE, 0, field);
    let found = at(4).expect("a displacement");
    assert_eq!((found.offset, found.len, found.field), (1, 7, 3));
    assert_eq!(found.role, FieldRole::Displacement);
    assert_eq!(
        at(11).expect("a displacement").role,
        FieldRole::Displacement
    );
    assert_eq!(at(15).expect("an immediate").role, FieldRole::Immediate);
    assert_eq!(at(20).expect("a branch").role, FieldRole::Branch);
    for field in [0, 1, 3, 5, 7, 12, 16, 21] {
        let error = at(field).expect_err("no field there");
        assert!(
            matches!(error, IslandError::NoField { .. }),
            "{field}: {error}"
        );
    }
    assert!(matches!(at(24), Err(IslandError::OutOfCode { .. })));
    let backward = island::instruction_at(&code, PLACE, 5, 4);
    assert!(matches!(backward, Err(IslandError::OutOfCode { .. })));
    let data = island::instruction_at(&[6, 0, 0, 0, 0, 0], PLACE, 0, 2);
    assert!(matches!(data, Err(IslandError::Decode { ip: PLACE, .. })));
}

#[test]
fn the_patch_jumps_and_pads() {
    let bytes = island::patch(7, PLACE, PLACE + 0x105).expect("in reach");
    assert_eq!(bytes, [0xe9, 0, 1, 0, 0, 0x90, 0x90]);
    let high = 3 << 30;
    let back = island::patch(5, high, high - 0x7fff_fffb).expect("the lowest in reach");
    assert_eq!(back, [0xe9, 0, 0, 0, 0x80]);
    let error = island::patch(5, high, high - 0x7fff_fffc).expect_err("out of reach");
    assert!(matches!(error, IslandError::Range { .. }));
    let last = island::patch(5, PLACE, PLACE + 0x8000_0004).expect("the highest in reach");
    assert_eq!(last, [0xe9, 0xff, 0xff, 0xff, 0x7f]);
    let error = island::patch(5, PLACE, PLACE + 0x8000_0005).expect_err("out of reach");
    assert_eq!(
        error.to_string(),
        "0x10000000 cannot reach 0x90000005 with a 32-bit displacement; place islands within 2 GiB"
    );
    let error = island::patch(4, PLACE, PLACE).expect_err("no room");
    assert!(matches!(error, IslandError::TooShort { len: 4, .. }));
}

#[test]
fn an_island_out_of_reach_of_its_place_or_operand_is_an_error() {
    let load = [0x48, 0x8b, 0x3d, 0, 0, 0, 0];
    let far = [field(3, FieldKind::PcRel)];
    let error = island::build(&load, PLACE, &far, PLACE + (3 << 30)).expect_err("too far");
    assert!(matches!(error, IslandError::Range { to, .. } if to == PLACE + 7));
    // movq $far, near(rip) with near 2 GiB above the place, and the island below it.
    let store = [0x48, 0xc7, 5, 0xf0, 0xff, 0xff, 0x7f, 0, 0, 0, 0];
    let far = [field(7, FieldKind::Abs32S)];
    let near = PLACE + 11 + 0x7fff_fff0;
    let error = island::build(&store, PLACE, &far, PLACE - 0x1000).expect_err("too far");
    assert!(matches!(error, IslandError::Range { to, .. } if to == near));
    island::build(&store, PLACE, &far, PLACE + 0x1000).expect("in reach");
}

#[test]
fn a_load_uses_its_own_register_and_no_stack() {
    let island = build(&[0x48, 0x8b, 0x3d, 0, 0, 0, 0], 3, FieldKind::PcRel).expect("a load");
    let mut expected = vec![0x48, 0xbf];
    expected.extend(FAR.to_le_bytes());
    // mov (rdi), rdi; jmp PLACE + 7
    expected.extend([0x48, 0x8b, 0x3f, 0xe9]);
    expected.extend((7 - 0x1000 - 18_i32).to_le_bytes());
    assert_eq!(island.code, expected);
    let row = IslandRow {
        offset: 0,
        rsp_delta: 0,
        return_pushed: false,
    };
    assert_eq!(island.rows, [row]);
}

#[test]
fn a_moved_call_leaves_the_original_return_address() {
    let island = build(&[0xff, 0x15, 0, 0, 0, 0], 2, FieldKind::PcRel).expect("a call");
    let states: Vec<_> = island
        .rows
        .iter()
        .map(|r| (r.rsp_delta, r.return_pushed))
        .collect();
    assert_eq!(states, [(0, false), (-8, false), (-8, true)]);
    // lea PLACE + 6(rip), r11 after the five bytes of lea -8(rsp), rsp
    let distance = 6 - (0x1000 + 5 + 7_i32);
    assert_eq!(island.code[5..8], [0x4c, 0x8d, 0x1d]);
    assert_eq!(island.code[8..12], distance.to_le_bytes());
    assert_eq!(island.code[island.code.len() - 3..], [0x41, 0xff, 0x23]);
}
