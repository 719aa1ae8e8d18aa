//! The relocation table of x86-64: a row a type, and pure functions on bytes.
//!
//! Source: x86-64 psABI, table "Relocation Types"; the types 41 and up by the
//! psABI's later merge requests and what assemblers emit. x86-64 objects use
//! RELA only: the field's old contents never count.
//!
//! Checks: a field holds value `v` (64-bit, two's complement) if `v` equals the
//! field zero-extended (unsigned), sign-extended (signed), or either.

/// Width of the field in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Width {
    /// No field at all (`R_X86_64_NONE`, the call marker of TLS descriptors).
    None = 0,
    /// One byte.
    Byte = 1,
    /// Two bytes.
    Half = 2,
    /// Four bytes.
    Word = 4,
    /// Eight bytes.
    Xword = 8,
}

/// What a value must satisfy to be representable in its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Everything fits (64-bit fields).
    Any,
    /// Equal to its field zero-extended.
    Unsigned,
    /// Equal to its field sign-extended.
    Signed,
    /// Either of the two.
    Either,
}

/// How the value is computed. S symbol, A addend, P place, G offset of the GOT slot
/// from GOT, GOT `_GLOBAL_OFFSET_TABLE_`, L stub (or S), Z symbol size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Formula {
    /// Nothing to compute.
    Nothing,
    /// S + A
    Absolute,
    /// S + A - P
    Relative,
    /// L + A - P
    Stub,
    /// G + A
    GotOffset,
    /// G + GOT + A - P
    GotRelative,
    /// S + A - GOT
    OffsetFromGot,
    /// L + A - GOT
    StubOffsetFromGot,
    /// GOT + A - P
    GotBaseRelative,
    /// Z + A
    Size,
    /// Anything of thread-local storage.
    Tls,
    /// Belongs in executables and shared objects, never in relocatable objects.
    DynamicOnly,
}

/// A row: what a relocation type means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Howto {
    /// The type's number.
    pub number: u32,
    /// The psABI's name.
    pub name: &'static str,
    /// Field width.
    pub width: Width,
    /// How the value is computed.
    pub formula: Formula,
    /// When it fits.
    pub check: Check,
}

const fn row(
    number: u32,
    name: &'static str,
    width: Width,
    formula: Formula,
    check: Check,
) -> Howto {
    Howto {
        number,
        name,
        width,
        formula,
        check,
    }
}

#[rustfmt::skip]
static HOWTOS: [Howto; 52] = {
    use Check::{Any, Either, Signed, Unsigned};
    use Formula as F;
    use Width::{Byte, Half, None, Word, Xword};
    [
        row(0, "R_X86_64_NONE", None, F::Nothing, Any),
        row(1, "R_X86_64_64", Xword, F::Absolute, Any),
        row(2, "R_X86_64_PC32", Word, F::Relative, Signed),
        row(3, "R_X86_64_GOT32", Word, F::GotOffset, Signed),
        row(4, "R_X86_64_PLT32", Word, F::Stub, Signed),
        row(5, "R_X86_64_COPY", None, F::DynamicOnly, Any),
        row(6, "R_X86_64_GLOB_DAT", Xword, F::DynamicOnly, Any),
        row(7, "R_X86_64_JUMP_SLOT", Xword, F::DynamicOnly, Any),
        row(8, "R_X86_64_RELATIVE", Xword, F::DynamicOnly, Any),
        row(9, "R_X86_64_GOTPCREL", Word, F::GotRelative, Signed),
        row(10, "R_X86_64_32", Word, F::Absolute, Unsigned),
        row(11, "R_X86_64_32S", Word, F::Absolute, Signed),
        row(12, "R_X86_64_16", Half, F::Absolute, Either),
        row(13, "R_X86_64_PC16", Half, F::Relative, Signed),
        row(14, "R_X86_64_8", Byte, F::Absolute, Either),
        row(15, "R_X86_64_PC8", Byte, F::Relative, Signed),
        row(16, "R_X86_64_DTPMOD64", Xword, F::Tls, Any),
        row(17, "R_X86_64_DTPOFF64", Xword, F::Tls, Any),
        row(18, "R_X86_64_TPOFF64", Xword, F::Tls, Any),
        row(19, "R_X86_64_TLSGD", Word, F::Tls, Signed),
        row(20, "R_X86_64_TLSLD", Word, F::Tls, Signed),
        row(21, "R_X86_64_DTPOFF32", Word, F::Tls, Signed),
        row(22, "R_X86_64_GOTTPOFF", Word, F::Tls, Signed),
        row(23, "R_X86_64_TPOFF32", Word, F::Tls, Signed),
        row(24, "R_X86_64_PC64", Xword, F::Relative, Any),
        row(25, "R_X86_64_GOTOFF64", Xword, F::OffsetFromGot, Any),
        row(26, "R_X86_64_GOTPC32", Word, F::GotBaseRelative, Signed),
        row(27, "R_X86_64_GOT64", Xword, F::GotOffset, Any),
        row(28, "R_X86_64_GOTPCREL64", Xword, F::GotRelative, Any),
        row(29, "R_X86_64_GOTPC64", Xword, F::GotBaseRelative, Any),
        row(30, "R_X86_64_GOTPLT64", Xword, F::GotOffset, Any),
        row(31, "R_X86_64_PLTOFF64", Xword, F::StubOffsetFromGot, Any),
        row(32, "R_X86_64_SIZE32", Word, F::Size, Unsigned),
        row(33, "R_X86_64_SIZE64", Xword, F::Size, Any),
        row(34, "R_X86_64_GOTPC32_TLSDESC", Word, F::Tls, Signed),
        row(35, "R_X86_64_TLSDESC_CALL", None, F::Tls, Any),
        row(36, "R_X86_64_TLSDESC", Xword, F::DynamicOnly, Any),
        row(37, "R_X86_64_IRELATIVE", Xword, F::DynamicOnly, Any),
        row(38, "R_X86_64_RELATIVE64", Xword, F::DynamicOnly, Any),
        row(39, "R_X86_64_PC32_BND", Word, F::Relative, Signed),
        row(40, "R_X86_64_PLT32_BND", Word, F::Stub, Signed),
        row(41, "R_X86_64_GOTPCRELX", Word, F::GotRelative, Signed),
        row(42, "R_X86_64_REX_GOTPCRELX", Word, F::GotRelative, Signed),
        row(43, "R_X86_64_CODE_4_GOTPCRELX", Word, F::GotRelative, Signed),
        row(44, "R_X86_64_CODE_4_GOTTPOFF", Word, F::Tls, Signed),
        row(45, "R_X86_64_CODE_4_GOTPC32_TLSDESC", Word, F::Tls, Signed),
        row(46, "R_X86_64_CODE_5_GOTPCRELX", Word, F::GotRelative, Signed),
        row(47, "R_X86_64_CODE_5_GOTTPOFF", Word, F::Tls, Signed),
        row(48, "R_X86_64_CODE_5_GOTPC32_TLSDESC", Word, F::Tls, Signed),
        row(49, "R_X86_64_CODE_6_GOTPCRELX", Word, F::GotRelative, Signed),
        row(50, "R_X86_64_CODE_6_GOTTPOFF", Word, F::Tls, Signed),
        row(51, "R_X86_64_CODE_6_GOTPC32_TLSDESC", Word, F::Tls, Signed),
    ]
};

/// The row of a relocation type, or `None` for a number that the psABI does not define.
#[must_use]
pub fn howto(r_type: u32) -> Option<&'static Howto> {
    HOWTOS.get(usize::try_from(r_type).ok()?)
}

impl Width {
    /// Bytes of the field.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::None => 0,
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
            Self::Xword => 8,
        }
    }
}

impl Check {
    /// Whether `value` is representable in a field of `width`.
    #[must_use]
    pub const fn fits(self, width: Width, value: u64) -> bool {
        let bits = match width {
            Width::None | Width::Xword => return true,
            Width::Byte => 8,
            Width::Half => 16,
            Width::Word => 32,
        };
        // Zero-extended: no bit above the field. Sign-extended: adding half the range lands inside it.
        let unsigned = value >> bits == 0;
        let signed = value.wrapping_add(1 << (bits - 1)) >> bits == 0;
        match self {
            Self::Any => true,
            Self::Unsigned => unsigned,
            Self::Signed => signed,
            Self::Either => unsigned || signed,
        }
    }

    /// The values that fit a field of `width`, both ends included, for messages.
    #[must_use]
    pub const fn range(self, width: Width) -> (i128, i128) {
        let bits = match width {
            Width::None => return (0, 0),
            Width::Byte => 8,
            Width::Half => 16,
            Width::Word => 32,
            Width::Xword => 64,
        };
        let (low, high) = (-(1i128 << (bits - 1)), (1i128 << bits) - 1);
        match self {
            Self::Unsigned => (0, high),
            Self::Signed => (low, (1i128 << (bits - 1)) - 1),
            Self::Either | Self::Any => (low, high),
        }
    }
}

/// Writes the low bytes of `value` at `offset`, unaligned, little-endian.
/// Returns `false`, and writes nothing, if the field is not wholly inside `section`.
#[must_use]
#[inline]
pub(crate) fn write_field(section: &mut [u8], offset: u64, width: Width, value: u64) -> bool {
    let Ok(start) = usize::try_from(offset) else {
        return false;
    };
    let bytes = value.to_le_bytes();
    let n = width.bytes();
    match start
        .checked_add(n)
        .and_then(|end| section.get_mut(start..end))
    {
        Some(field) => {
            field.copy_from_slice(&bytes[..n]);
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_at_their_numbers() {
        for (index, howto) in HOWTOS.iter().enumerate() {
            assert_eq!(
                usize::try_from(howto.number).expect("small"),
                index,
                "{}",
                howto.name
            );
        }
        assert!(howto(52).is_none());
    }

    #[test]
    fn checks_at_both_edges() {
        use Check::{Either, Signed, Unsigned};
        let cases: &[(Check, Width, u64, bool)] = &[
            (Unsigned, Width::Word, 0xffff_ffff, true),
            (Unsigned, Width::Word, 0x1_0000_0000, false),
            (Unsigned, Width::Word, u64::MAX, false),
            (Signed, Width::Word, 0x7fff_ffff, true),
            (Signed, Width::Word, 0x8000_0000, false),
            (Signed, Width::Word, 0xffff_ffff_8000_0000, true),
            (Signed, Width::Word, 0xffff_ffff_7fff_ffff, false),
            (Either, Width::Half, 0xffff, true),
            (Either, Width::Half, 0x1_0000, false),
            (Either, Width::Half, (-0x8000i64).cast_unsigned(), true),
            (Either, Width::Half, (-0x8001i64).cast_unsigned(), false),
            (Either, Width::Byte, 0xff, true),
            (Either, Width::Byte, 0x100, false),
            (Either, Width::Byte, (-0x80i64).cast_unsigned(), true),
            (Either, Width::Byte, (-0x81i64).cast_unsigned(), false),
            (Signed, Width::Byte, 0x80, false),
            (Signed, Width::Half, 0x8000, false),
        ];
        for &(check, width, value, fits) in cases {
            assert_eq!(
                check.fits(width, value),
                fits,
                "{check:?} {width:?} {value:#x}"
            );
            let (low, high) = check.range(width);
            let signed = i128::from(value.cast_signed());
            let either_view =
                (low..=high).contains(&signed) || (low..=high).contains(&i128::from(value));
            if check != Signed {
                assert_eq!(
                    either_view, fits,
                    "the range in messages agrees: {value:#x}"
                );
            }
        }
    }

    #[test]
    fn a_field_past_the_end_is_refused_and_untouched() {
        let mut bytes = [0u8; 6];
        assert!(write_field(&mut bytes, 2, Width::Word, 0x0403_0201));
        assert_eq!(bytes, [0, 0, 1, 2, 3, 4]);
        assert!(!write_field(&mut bytes, 3, Width::Word, u64::MAX));
        assert!(!write_field(&mut bytes, u64::MAX, Width::Word, u64::MAX));
        assert_eq!(bytes, [0, 0, 1, 2, 3, 4]);
    }
}
