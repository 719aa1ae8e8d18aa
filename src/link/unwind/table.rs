//! Writes frame tables for the unwinder: one a region of code, in our own memory.
//!
//! Every pointer is absolute and 8 bytes wide (`DW_EH_PE_absptr`), so a table may lie anywhere.
//! Invariants: entries are multiples of 8 bytes; the table ends in a zero word, as
//! `__register_frame` wants it.

use hashbrown::HashMap;
use low2g_platform::{AddrRange, to_u64};

use super::read::{Cie, Fde};

/// Where an entry for code went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) code: AddrRange,
    /// Offset in the table, bytes.
    pub(super) offset: usize,
    pub(super) signal: bool,
}

/// A frame table under construction.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) bytes: Vec<u8>,
    pub(super) entries: Vec<Written>,
    /// Offset of CIEs by the section and offset that they come from.
    cies: HashMap<(usize, usize), usize>,
}

impl Table {
    /// Adds `fde`, and its `cie` under the name `key` if it is not there yet.
    pub(super) fn add(&mut self, key: (usize, usize), cie: &Cie<'_>, fde: &Fde<'_>) {
        let Some(code) = AddrRange::at(fde.start, fde.len) else {
            return;
        };
        let cie_at = match self.cies.get(&key) {
            Some(&at) => at,
            None => {
                let at = self.add_cie(cie);
                self.cies.insert(key, at);
                at
            }
        };
        let offset = self.begin(|at| at - cie_at);
        self.bytes.extend(fde.start.to_le_bytes());
        self.bytes.extend(fde.len.to_le_bytes());
        if cie.lsda_encoding.is_some() {
            self.bytes.push(8);
            self.bytes.extend(fde.lsda.to_le_bytes());
        } else {
            self.bytes.push(0);
        }
        self.bytes.extend(fde.instructions);
        self.end(offset);
        self.entries.push(Written {
            code,
            offset,
            signal: cie.signal,
        });
    }

    fn add_cie(&mut self, cie: &Cie<'_>) -> usize {
        let offset = self.begin(|_| 0);
        self.bytes.push(3);
        self.bytes.push(b'z');
        let mut data = Vec::new();
        if let Some((indirect, address)) = cie.personality {
            self.bytes.push(b'P');
            data.push(indirect);
            data.extend(address.to_le_bytes());
        }
        if cie.lsda_encoding.is_some() {
            self.bytes.push(b'L');
            data.push(0);
        }
        if cie.signal {
            self.bytes.push(b'S');
        }
        self.bytes.push(0);
        uleb(&mut self.bytes, cie.code_align);
        sleb(&mut self.bytes, cie.data_align);
        uleb(&mut self.bytes, cie.return_register);
        uleb(&mut self.bytes, to_u64(data.len()));
        self.bytes.extend(data);
        self.bytes.extend(cie.instructions);
        self.end(offset);
        offset
    }

    /// Room for the length, then the id that `id` makes of its own offset.
    fn begin(&mut self, id: impl FnOnce(usize) -> usize) -> usize {
        let offset = self.bytes.len();
        self.bytes.extend([0; 4]);
        let id = u32::try_from(id(offset + 4)).expect("frame tables are below 4 GiB");
        self.bytes.extend(id.to_le_bytes());
        offset
    }

    fn end(&mut self, offset: usize) {
        // 0 is DW_CFA_nop.
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let len =
            u32::try_from(self.bytes.len() - offset - 4).expect("frame tables are below 4 GiB");
        self.bytes[offset..offset + 4].copy_from_slice(&len.to_le_bytes());
    }

    /// The table with its end mark, aligned to 8 bytes.
    pub(super) fn finish(self) -> Finished {
        let words = self
            .bytes
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().expect("chunks of 8")))
            .chain([0])
            .collect();
        Finished {
            words,
            offsets: self.entries.iter().map(|entry| entry.offset).collect(),
        }
    }
}

/// A table as the unwinder reads it, and the offsets of its frame entries in bytes.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) words: Box<[u64]>,
    pub(super) offsets: Vec<usize>,
}

impl Finished {
    /// The table's bytes, the end mark included.
    #[cfg(any(test, all(windows, target_arch = "x86_64")))]
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect()
    }
}

/// Appends an unsigned LEB128 number.
pub(super) fn uleb(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let byte = (value & 0x7f).to_le_bytes()[0];
        value >>= 7;
        if value == 0 {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}

/// Appends a signed LEB128 number.
pub(super) fn sleb(out: &mut Vec<u8>, mut value: i64) {
    loop {
        let byte = (value & 0x7f).to_le_bytes()[0];
        value >>= 7;
        if (value == 0 && byte & 0x40 == 0) || (value == -1 && byte & 0x40 != 0) {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}
