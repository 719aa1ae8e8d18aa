//! The code sequences of thread-local access: patterns, and what they relax to.
//!
//! Source: x86-64 psABI, "Thread-Local Storage" and "TLS Code Sequences"; facts that
//! compilers add: `-fno-plt` calls through the GOT, the large model through `PLTOFF64`.
//! Local-dynamic relaxes to the block's own address (as mold does), so that the `DTPOFF32`
//! uses keep their meaning whether or not every sequence of the code matched.
//!
//! A relaxed sequence has the length of the old one. No match, no relaxation.

/// A matched sequence: where it starts from the field, how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Matched {
    pub(crate) form: Form,
    /// Offset of its first byte in the section.
    start: usize,
}

/// What the sequence is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// General dynamic, 16 bytes: call or call through the GOT.
    General,
    /// General dynamic of the large model, 22 bytes.
    GeneralLarge,
    /// Local dynamic: 12 bytes (call), 13 (through the GOT), 22 (large).
    Local(usize),
    /// `mov x@gottpoff(%rip), reg`; the register's number.
    Load(u8),
    /// `add x@gottpoff(%rip), reg`
    Add(u8),
    /// `lea x@tlsdesc(%rip), reg`
    Descriptor(u8),
    /// `call *(%rax)` of a descriptor.
    DescriptorCall,
}

/// What a sequence becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    /// The offset is in the instruction.
    LocalExec,
    /// The offset is in a slot.
    InitialExec,
}

/// Bytes to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rewritten {
    /// First byte, offset in the section.
    pub(crate) start: usize,
    code: [u8; 22],
    len: usize,
    /// Where in `code` the 32-bit field is; `None` if there is none.
    field: Option<usize>,
}

/// `mov %fs:0, %rax`
const LOAD_POINTER: [u8; 9] = [0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0];
/// A nop of six bytes.
const NOP_6: [u8; 6] = [0x66, 0x0f, 0x1f, 0x44, 0, 0];
/// The tails of a large call: `add %rbx, %rax` or `add %r15, %rax`, then `call *%rax`.
const LARGE_TAILS: [[u8; 5]; 2] = [
    [0x48, 0x01, 0xd8, 0xff, 0xd0],
    [0x4c, 0x01, 0xf8, 0xff, 0xd0],
];

/// The call relocation that must follow, as it stands: type and offset in the section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallField {
    pub(crate) r_type: u32,
    pub(crate) offset: usize,
    pub(crate) addend: i64,
}

impl CallField {
    fn is(self, types: &[u32], offset: usize, addend: i64) -> bool {
        types.contains(&self.r_type) && self.offset == offset && self.addend == addend
    }
}

fn has(code: &[u8], at: usize, bytes: &[u8]) -> bool {
    at.checked_add(bytes.len())
        .and_then(|end| code.get(at..end))
        .is_some_and(|found| found == bytes)
}

const CALL: [u32; 2] = [2, 4];
const CALL_GOT: [u32; 3] = [9, 41, 42];
const CALL_LARGE: [u32; 1] = [31];

/// `movabs $f, %rax` at `at` and one of the large tails.
fn large_call(code: &[u8], at: usize) -> bool {
    has(code, at, &[0x48, 0xb8]) && LARGE_TAILS.iter().any(|tail| has(code, at + 10, tail))
}

/// `TLSGD` at `field`.
pub(crate) fn general(code: &[u8], field: usize, call: CallField) -> Option<Matched> {
    let next = field.checked_add(4)?;
    if let Some(start) = field.checked_sub(4)
        && has(code, start, &[0x66, 0x48, 0x8d, 0x3d])
    {
        let direct = has(code, next, &[0x66, 0x66, 0x48, 0xe8]) && call.is(&CALL, next + 4, -4);
        let through_got =
            has(code, next, &[0x66, 0x48, 0xff, 0x15]) && call.is(&CALL_GOT, next + 4, -4);
        if (direct || through_got) && code.len() >= start + 16 {
            return Some(Matched {
                form: Form::General,
                start,
            });
        }
    }
    let start = field.checked_sub(3)?;
    let large = has(code, start, &[0x48, 0x8d, 0x3d])
        && large_call(code, next)
        && call.is(&CALL_LARGE, next + 2, 0);
    large.then_some(Matched {
        form: Form::GeneralLarge,
        start,
    })
}

/// `TLSLD` at `field`.
pub(crate) fn local(code: &[u8], field: usize, call: CallField) -> Option<Matched> {
    let (start, next) = (field.checked_sub(3)?, field.checked_add(4)?);
    if !has(code, start, &[0x48, 0x8d, 0x3d]) {
        return None;
    }
    let len = if has(code, next, &[0xe8]) && call.is(&CALL, next + 1, -4) {
        12
    } else if has(code, next, &[0xff, 0x15]) && call.is(&CALL_GOT, next + 2, -4) {
        13
    } else if large_call(code, next) && call.is(&CALL_LARGE, next + 2, 0) {
        22
    } else {
        return None;
    };
    (code.len() >= start + len).then_some(Matched {
        form: Form::Local(len),
        start,
    })
}

/// The register of `REX.W opcode modrm` with a rip-relative operand at `field`.
fn register(code: &[u8], field: usize, opcode: u8) -> Option<u8> {
    let start = field.checked_sub(3)?;
    code.get(start..field.checked_add(4)?)?;
    let (rex, op, modrm) = (code[start], code[start + 1], code[start + 2]);
    // REX.W, at most R with it.
    (rex & 0xfb == 0x48 && op == opcode && modrm & 0xc7 == 5)
        .then_some((modrm >> 3) & 7 | if rex & 4 != 0 { 8 } else { 0 })
}

/// `GOTTPOFF` at `field`.
pub(crate) fn initial(code: &[u8], field: usize) -> Option<Matched> {
    let start = field.checked_sub(3)?;
    let form = match register(code, field, 0x8b) {
        Some(register) => Form::Load(register),
        None => Form::Add(register(code, field, 0x03)?),
    };
    Some(Matched { form, start })
}

/// `GOTPC32_TLSDESC` at `field`.
pub(crate) fn descriptor(code: &[u8], field: usize) -> Option<Matched> {
    Some(Matched {
        form: Form::Descriptor(register(code, field, 0x8d)?),
        start: field.checked_sub(3)?,
    })
}

/// `TLSDESC_CALL` at `field`, the start of the instruction.
pub(crate) fn descriptor_call(code: &[u8], field: usize) -> Option<Matched> {
    has(code, field, &[0xff, 0x10]).then_some(Matched {
        form: Form::DescriptorCall,
        start: field,
    })
}

impl Matched {
    /// The sequence in `model`.
    pub(crate) fn rewrite(self, model: Model) -> Rewritten {
        let mut out = Rewritten {
            start: self.start,
            code: [0x90; 22],
            len: 0,
            field: None,
        };
        let high = |register: u8| u8::from(register & 8 != 0);
        match self.form {
            Form::General | Form::GeneralLarge => {
                out.push(&LOAD_POINTER);
                out.push(match model {
                    // lea f(%rax), %rax
                    Model::LocalExec => &[0x48, 0x8d, 0x80],
                    // add f(%rip), %rax
                    Model::InitialExec => &[0x48, 0x03, 0x05],
                });
                out.push_field();
                if self.form == Form::GeneralLarge {
                    out.push(&NOP_6);
                }
            }
            Form::Local(len) => {
                // xor %eax, %eax; mov %fs:(%rax), %rax; lea-free: add $f, %rax
                out.push(&[0x31, 0xc0, 0x64, 0x48, 0x8b, 0x00, 0x48, 0x05]);
                out.push_field();
                out.len = len;
            }
            Form::Load(register) | Form::Descriptor(register) if model == Model::LocalExec => {
                out.push(&[0x48 | high(register), 0xc7, 0xc0 | register & 7]);
                out.push_field();
            }
            Form::Add(register) => {
                let low = register & 7;
                if low == 4 {
                    // rsp and r12 as a base need a longer form: add $f, reg
                    out.push(&[0x48 | high(register), 0x81, 0xc0 | low]);
                } else {
                    // lea f(reg), reg
                    out.push(&[
                        0x48 | high(register) << 2 | high(register),
                        0x8d,
                        0x80 | low << 3 | low,
                    ]);
                }
                out.push_field();
            }
            // mov f(%rip), reg
            Form::Load(register) | Form::Descriptor(register) => {
                out.push(&[0x48 | high(register) << 2, 0x8b, 0x05 | (register & 7) << 3]);
                out.push_field();
            }
            Form::DescriptorCall => out.push(&[0x66, 0x90]),
        }
        out
    }
}

impl Rewritten {
    fn push(&mut self, bytes: &[u8]) {
        self.code[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn push_field(&mut self) {
        self.field = Some(self.len);
        self.push(&[0; 4]);
    }

    /// Offset of the field in the section, if there is one.
    pub(crate) fn field(&self) -> Option<usize> {
        Some(self.start + self.field?)
    }

    /// The bytes, with `value` in the field.
    pub(crate) fn code(&self, value: u32) -> Vec<u8> {
        let mut code = self.code[..self.len].to_vec();
        if let Some(field) = self.field {
            code[field..field + 4].copy_from_slice(&value.to_le_bytes());
        }
        code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELD: u8 = 0x5a;

    /// A sequence: bytes (fields as `FIELD`), offset of the field, the call.
    struct Sample {
        code: Vec<u8>,
        field: usize,
        call: CallField,
        find: fn(&[u8], usize, CallField) -> Option<Matched>,
    }

    fn sample(
        text: &str,
        field: usize,
        call: (u32, usize, i64),
        find: fn(&[u8], usize, CallField) -> Option<Matched>,
    ) -> Sample {
        let byte = |word: &str| match word {
            "__" => FIELD,
            word => u8::from_str_radix(word, 16).expect("hexadecimal"),
        };
        Sample {
            code: text.split(' ').map(byte).collect(),
            field,
            call: CallField {
                r_type: call.0,
                offset: call.1,
                addend: call.2,
            },
            find,
        }
    }

    fn samples() -> Vec<Sample> {
        const LEA: &str = "48 8d 3d __ __ __ __";
        const LARGE: &str = "48 b8 __ __ __ __ __ __ __ __";
        let general_long = format!("66 {LEA} 66 66 48 e8 __ __ __ __");
        let general_got = format!("66 {LEA} 66 48 ff 15 __ __ __ __");
        let large_rbx = format!("{LEA} {LARGE} 48 01 d8 ff d0");
        let large_r15 = format!("{LEA} {LARGE} 4c 01 f8 ff d0");
        let local_long = format!("{LEA} e8 __ __ __ __");
        let local_got = format!("{LEA} ff 15 __ __ __ __");
        vec![
            sample(&general_long, 4, (4, 12, -4), general),
            sample(&general_long, 4, (2, 12, -4), general),
            sample(&general_got, 4, (41, 12, -4), general),
            sample(&large_rbx, 3, (31, 9, 0), general),
            sample(&large_r15, 3, (31, 9, 0), general),
            sample(&local_long, 3, (4, 8, -4), local),
            sample(&local_got, 3, (41, 9, -4), local),
            sample(&large_rbx, 3, (31, 9, 0), local),
            sample("48 8b 05 __ __ __ __", 3, (0, 0, 0), |c, f, _| {
                initial(c, f)
            }),
            sample("4c 03 3d __ __ __ __", 3, (0, 0, 0), |c, f, _| {
                initial(c, f)
            }),
            sample("48 8d 05 __ __ __ __", 3, (0, 0, 0), |c, f, _| {
                descriptor(c, f)
            }),
            sample("ff 10", 0, (0, 0, 0), |c, f, _| descriptor_call(c, f)),
        ]
    }

    #[test]
    fn sequences_are_found_and_keep_their_length() {
        for sample in samples() {
            let matched = (sample.find)(&sample.code, sample.field, sample.call).expect("matches");
            for model in [Model::LocalExec, Model::InitialExec] {
                let rewritten = matched.rewrite(model);
                assert_eq!(rewritten.start, 0);
                let code = rewritten.code(0x1234_5678);
                assert_eq!(code.len(), sample.code.len(), "{matched:?} {model:?}");
                if let Some(field) = rewritten.field() {
                    assert_eq!(code[field..field + 4], [0x78, 0x56, 0x34, 0x12]);
                }
            }
        }
    }

    /// No other length, no other call, and no other byte unless it is another register's.
    #[test]
    fn near_misses_are_left_alone() {
        for sample in samples() {
            let find = |code: &[u8], call| (sample.find)(code, sample.field, call);
            let whole = find(&sample.code, sample.call).expect("matches");
            for end in 0..sample.code.len() {
                assert_eq!(find(&sample.code[..end], sample.call), None, "cut at {end}");
            }
            assert_eq!((sample.find)(&sample.code, usize::MAX, sample.call), None);
            for at in (0..sample.code.len()).filter(|&at| sample.code[at] != FIELD) {
                for bit in 0..8 {
                    let mut code = sample.code.clone();
                    code[at] ^= 1 << bit;
                    let found = find(&code, sample.call);
                    let register =
                        |form| matches!(form, Form::Load(_) | Form::Add(_) | Form::Descriptor(_));
                    assert!(
                        found.is_none_or(|found| register(found.form) && found != whole),
                        "byte {at} bit {bit}: {found:?}"
                    );
                }
            }
            if matches!(
                whole.form,
                Form::General | Form::GeneralLarge | Form::Local(_)
            ) {
                let call = sample.call;
                let shifted = CallField {
                    offset: call.offset + 1,
                    ..call
                };
                let other = CallField { r_type: 1, ..call };
                let addend = CallField {
                    addend: call.addend + 1,
                    ..call
                };
                for call in [shifted, other, addend] {
                    assert_eq!(find(&sample.code, call), None, "{call:?}");
                }
            }
        }
    }

    #[test]
    fn every_register_keeps_its_number() {
        for number in 0..16u8 {
            let (rex, modrm) = (0x48 | (number >> 3) << 2, 5 | (number & 7) << 3);
            let code = |opcode| [rex, opcode, modrm, 0, 0, 0, 0];
            let load = initial(&code(0x8b), 3).expect("matches");
            assert_eq!(load.form, Form::Load(number));
            let relaxed = load.rewrite(Model::LocalExec).code(7);
            assert_eq!(
                relaxed,
                [0x48 | number >> 3, 0xc7, 0xc0 | number & 7, 7, 0, 0, 0]
            );
            let same = load.rewrite(Model::InitialExec).code(0);
            assert_eq!(same, code(0x8b));
            let add = initial(&code(0x03), 3).expect("matches");
            let relaxed = add.rewrite(Model::LocalExec).code(7);
            let expected = if number & 7 == 4 {
                [0x48 | number >> 3, 0x81, 0xc0 | number & 7, 7, 0, 0, 0]
            } else {
                let both = number >> 3;
                [
                    0x48 | both << 2 | both,
                    0x8d,
                    0x80 | (number & 7) << 3 | number & 7,
                    7,
                    0,
                    0,
                    0,
                ]
            };
            assert_eq!(relaxed, expected);
        }
    }
}
