//! Reads `.eh_frame`: common entries (CIE) and frame entries (FDE), pointers resolved.
//!
//! Source: LSB Core 5.0, "Exception Frames"; DWARF 5 section 6.4.1; GCC's unwind-pe.h.
//! Invariant: no byte outside of the section is looked at, however malformed it is.

use super::FrameProblem;

/// `DW_EH_PE_omit`: no pointer.
const OMIT: u8 = 0xff;
/// `DW_EH_PE_indirect`: the address of the address.
pub(super) const INDIRECT: u8 = 0x80;
/// `DW_EH_PE_pcrel`.
const PC_RELATIVE: u8 = 0x10;

/// A section's bytes as they stand at `addr`.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameSection<'a> {
    pub(super) addr: u64,
    pub(super) bytes: &'a [u8],
}

/// What the frame entries of one kind share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cie<'a> {
    pub(super) code_align: u64,
    pub(super) data_align: i64,
    pub(super) return_register: u64,
    /// Frames of signal handlers' callers: their address is exact.
    pub(super) signal: bool,
    /// Encoding (`INDIRECT` or 0) and address of the personality routine.
    pub(super) personality: Option<(u8, u64)>,
    pub(super) lsda_encoding: Option<u8>,
    fde_encoding: u8,
    augmented: bool,
    pub(super) instructions: &'a [u8],
}

impl<'a> Cie<'a> {
    /// A CIE without personality and language-specific data.
    pub(super) const fn plain(
        code_align: u64,
        data_align: i64,
        return_register: u64,
        signal: bool,
        instructions: &'a [u8],
    ) -> Self {
        Self {
            code_align,
            data_align,
            return_register,
            signal,
            personality: None,
            lsda_encoding: None,
            fde_encoding: 0,
            augmented: false,
            instructions,
        }
    }
}

/// The frame entry of one piece of code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fde<'a> {
    pub(super) start: u64,
    pub(super) len: u64,
    /// Address of the language-specific data; 0 for none.
    pub(super) lsda: u64,
    pub(super) instructions: &'a [u8],
}

/// An entry's extent: where its id field and its end are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Offset of its first byte.
    pub(super) offset: usize,
    id_offset: usize,
    end: usize,
    /// 0 for a CIE; else how far before the id field the CIE begins.
    id: usize,
}

impl Entry {
    /// Offset of the CIE of this FDE; `None` for a CIE.
    pub(super) fn cie(&self) -> Option<usize> {
        (self.id != 0).then(|| self.id_offset.wrapping_sub(self.id))
    }

    /// Offset of the field that holds where the code starts.
    pub(super) fn start_field(&self) -> usize {
        self.id_offset + 4
    }
}

/// A position in a section; reads give `None` past `end`.
struct Cursor<'a> {
    section: FrameSection<'a>,
    at: usize,
    end: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.end)?;
        let bytes = self.section.bytes.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn word<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn uleb(&mut self) -> Option<u64> {
        let (mut value, mut shift) = (0u64, 0u32);
        loop {
            let byte = self.byte()?;
            if shift < 64 {
                value |= u64::from(byte & 0x7f) << shift;
            }
            if byte & 0x80 == 0 {
                return Some(value);
            }
            shift += 7;
        }
    }

    fn sleb(&mut self) -> Option<i64> {
        let (mut value, mut shift) = (0u64, 0u32);
        loop {
            let byte = self.byte()?;
            if shift < 64 {
                value |= u64::from(byte & 0x7f) << shift;
            }
            shift += 7;
            if byte & 0x80 == 0 {
                if shift < 64 && byte & 0x40 != 0 {
                    value |= u64::MAX << shift;
                }
                return Some(value.cast_signed());
            }
        }
    }

    /// A number in the format of `encoding`, without its base.
    fn number(&mut self, encoding: u8) -> Option<u64> {
        Some(match encoding & 0x0f {
            0x00 | 0x04 | 0x0c => u64::from_le_bytes(self.word()?),
            0x01 => self.uleb()?,
            0x02 => u64::from(u16::from_le_bytes(self.word()?)),
            0x03 => u64::from(u32::from_le_bytes(self.word()?)),
            0x09 => self.sleb()?.cast_unsigned(),
            0x0a => i64::from(i16::from_le_bytes(self.word()?)).cast_unsigned(),
            0x0b => i64::from(i32::from_le_bytes(self.word()?)).cast_unsigned(),
            _ => return None,
        })
    }

    /// A pointer; a field of 0 is null, whatever its base. Not followed if indirect.
    fn pointer(&mut self, encoding: u8) -> Option<u64> {
        let place = self
            .section
            .addr
            .wrapping_add(low2g_platform::to_u64(self.at));
        let value = self.number(encoding)?;
        match encoding & 0x70 {
            _ if value == 0 => Some(0),
            0 => Some(value),
            PC_RELATIVE => Some(value.wrapping_add(place)),
            _ => None,
        }
    }

    fn rest(&mut self) -> &'a [u8] {
        self.take(self.end.saturating_sub(self.at))
            .unwrap_or_default()
    }
}

impl<'a> FrameSection<'a> {
    /// All entries. A length of 0 ends a linker's table, but only one object's part of ours:
    /// what follows it is read as well.
    pub(super) fn entries(self) -> impl Iterator<Item = Result<Entry, FrameProblem>> + use<'a> {
        let mut at = 0;
        std::iter::from_fn(move || {
            loop {
                if at >= self.bytes.len() {
                    return None;
                }
                let offset = at;
                match self.entry(offset) {
                    Some((None, next)) => at = next,
                    Some((Some(entry), next)) => {
                        at = next;
                        return Some(Ok(entry));
                    }
                    None => {
                        at = usize::MAX;
                        return Some(Err(FrameProblem::Truncated { offset }));
                    }
                }
            }
        })
    }

    /// The entry at `offset` (none for a terminator) and where the next one is.
    fn entry(self, offset: usize) -> Option<(Option<Entry>, usize)> {
        let mut cursor = self.cursor(offset, self.bytes.len());
        let mut len = u64::from(u32::from_le_bytes(cursor.word()?));
        if len == 0 {
            return Some((None, cursor.at));
        }
        if len == 0xffff_ffff {
            len = u64::from_le_bytes(cursor.word()?);
        }
        let id_offset = cursor.at;
        let end = id_offset.checked_add(usize::try_from(len).ok()?)?;
        let id = u32::from_le_bytes(cursor.word()?);
        let entry = Entry {
            offset,
            id_offset,
            end,
            id: usize::try_from(id).ok()?,
        };
        (end <= self.bytes.len() && id_offset + 4 <= end).then_some((Some(entry), end))
    }

    fn cursor(self, at: usize, end: usize) -> Cursor<'a> {
        Cursor {
            section: self,
            at,
            end,
        }
    }

    /// The CIE at `offset`.
    pub(super) fn cie(self, offset: usize) -> Result<Cie<'a>, FrameProblem> {
        let entry = match self.entry(offset) {
            Some((Some(entry), _)) if entry.id == 0 => entry,
            _ => return Err(FrameProblem::NoCie { offset }),
        };
        self.cie_body(&entry)
            .ok_or(FrameProblem::Unsupported { offset })
    }

    fn cie_body(self, entry: &Entry) -> Option<Cie<'a>> {
        let mut cursor = self.cursor(entry.start_field(), entry.end);
        let version = cursor.byte()?;
        if !matches!(version, 1 | 3) {
            return None;
        }
        let text = cursor.section.bytes.get(cursor.at..cursor.end)?;
        let augmentation = &text[..text.iter().position(|&byte| byte == 0)?];
        cursor.at += augmentation.len() + 1;
        let code_align = cursor.uleb()?;
        let data_align = cursor.sleb()?;
        let return_register = if version == 1 {
            u64::from(cursor.byte()?)
        } else {
            cursor.uleb()?
        };
        let mut cie = Cie {
            code_align,
            data_align,
            return_register,
            signal: false,
            personality: None,
            lsda_encoding: None,
            fde_encoding: 0,
            augmented: !augmentation.is_empty(),
            instructions: &[],
        };
        if let Some((b'z', letters)) = augmentation.split_first() {
            let len = usize::try_from(cursor.uleb()?).ok()?;
            let after = cursor.at.checked_add(len).filter(|&at| at <= entry.end)?;
            for letter in letters {
                match letter {
                    b'P' => {
                        let encoding = cursor.byte()?;
                        if encoding != OMIT {
                            let address = cursor.pointer(encoding)?;
                            cie.personality = Some((encoding & INDIRECT, address));
                        }
                    }
                    b'L' => {
                        let encoding = cursor.byte()?;
                        cie.lsda_encoding = (encoding != OMIT).then_some(encoding);
                    }
                    b'R' => cie.fde_encoding = cursor.byte()?,
                    b'S' => cie.signal = true,
                    _ => return None,
                }
            }
            cursor.at = after;
        } else if cie.augmented {
            return None;
        }
        cie.instructions = cursor.rest();
        is_position_independent(cie.instructions).then_some(cie)
    }

    /// The FDE of `entry`, which belongs to `cie`.
    pub(super) fn fde(self, entry: &Entry, cie: &Cie<'_>) -> Result<Fde<'a>, FrameProblem> {
        self.fde_body(entry, cie).ok_or(FrameProblem::Unsupported {
            offset: entry.offset,
        })
    }

    fn fde_body(self, entry: &Entry, cie: &Cie<'_>) -> Option<Fde<'a>> {
        if cie.fde_encoding & INDIRECT != 0 {
            return None;
        }
        let mut cursor = self.cursor(entry.start_field(), entry.end);
        let start = cursor.pointer(cie.fde_encoding)?;
        let len = cursor.number(cie.fde_encoding)?;
        let mut lsda = 0;
        if cie.augmented {
            let len = usize::try_from(cursor.uleb()?).ok()?;
            let after = cursor.at.checked_add(len).filter(|&at| at <= entry.end)?;
            if let Some(encoding) = cie.lsda_encoding
                && len > 0
            {
                if encoding & INDIRECT != 0 {
                    return None;
                }
                lsda = cursor.pointer(encoding)?;
            }
            cursor.at = after;
        }
        let instructions = cursor.rest();
        is_position_independent(instructions).then_some(Fde {
            start,
            len,
            lsda,
            instructions,
        })
    }
}

/// Whether the instructions hold no address, so that they mean the same anywhere. False for
/// `DW_CFA_set_loc`, which compilers do not emit, and where an operation is not known.
fn is_position_independent(instructions: &[u8]) -> bool {
    let section = FrameSection {
        addr: 0,
        bytes: instructions,
    };
    let mut cursor = section.cursor(0, instructions.len());
    while cursor.at < cursor.end {
        if skip_instruction(&mut cursor).is_none() {
            return false;
        }
    }
    true
}

/// Steps over one call frame instruction (DWARF 5, table 7.29, and GNU's three).
fn skip_instruction(cursor: &mut Cursor<'_>) -> Option<()> {
    let opcode = cursor.byte()?;
    let (fixed, numbers, block) = match opcode {
        0x40..=0x7f | 0xc0..=0xff | 0x00 | 0x0a | 0x0b | 0x2d => (0, 0, false),
        0x02 => (1, 0, false),
        0x03 => (2, 0, false),
        0x04 => (4, 0, false),
        0x80..=0xbf | 0x06..=0x08 | 0x0d | 0x0e | 0x13 | 0x2e => (0, 1, false),
        0x05 | 0x09 | 0x0c | 0x11 | 0x12 | 0x14 | 0x15 | 0x2f => (0, 2, false),
        0x0f => (0, 0, true),
        0x10 | 0x16 => (0, 1, true),
        _ => return None,
    };
    cursor.take(fixed)?;
    for _ in 0..numbers {
        cursor.uleb()?;
    }
    if block {
        let len = usize::try_from(cursor.uleb()?).ok()?;
        cursor.take(len)?;
    }
    Some(())
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
