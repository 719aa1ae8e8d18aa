//! `.eh_frame` read from bytes: what assemblers write, and every truncation of it.

use super::*;

/// A CIE as g++ -fno-pic writes it ("zPLR", udata4 pointers) and one FDE of it.
fn sample() -> Vec<u8> {
    let cie = [
        &[0u8, 0, 0, 0][..],
        &[1],
        b"zPLR\0",
        &[1, 0x78, 16],
        &[7, 0x03, 0x00, 0x10, 0x20, 0x30, 0x03, 0x1b],
        &[0x0c, 7, 8, 0x90, 1, 0, 0],
    ]
    .concat();
    let fde = [
        &[0u8; 4][..],
        &0x100i32.to_le_bytes(),
        &0x40u32.to_le_bytes(),
        &[4, 0x11, 0x22, 0x33, 0x00],
        &[0x41, 0x0e, 16, 0x86, 2, 0, 0],
    ]
    .concat();
    let mut bytes = Vec::new();
    bytes.extend(u32::try_from(cie.len()).expect("short").to_le_bytes());
    bytes.extend(cie);
    let fde_at = bytes.len();
    bytes.extend(u32::try_from(fde.len()).expect("short").to_le_bytes());
    bytes.extend(fde);
    let back = u32::try_from(fde_at + 4).expect("short");
    bytes[fde_at + 4..fde_at + 8].copy_from_slice(&back.to_le_bytes());
    bytes
}

fn section(bytes: &[u8]) -> FrameSection<'_> {
    FrameSection {
        addr: 0x1000_0000,
        bytes,
    }
}

#[test]
fn pointers_are_resolved_by_their_encoding() {
    let mut bytes = sample();
    bytes.extend([0; 4]);
    let all = section(&bytes);
    let entries: Vec<Entry> = all
        .entries()
        .map(|entry| entry.expect("well formed"))
        .collect();
    assert_eq!(entries.len(), 2, "the terminator is no entry");
    let cie = all.cie(entries[0].offset).expect("well formed");
    assert_eq!(entries[0].cie(), None);
    assert_eq!(entries[1].cie(), Some(0));
    assert_eq!(cie.personality, Some((0, 0x3020_1000)));
    assert_eq!(
        (cie.code_align, cie.data_align, cie.return_register),
        (1, -8, 16)
    );
    assert_eq!(cie.instructions, [0x0c, 7, 8, 0x90, 1, 0, 0]);
    let fde = all.fde(&entries[1], &cie).expect("well formed");
    let field = low2g_platform::to_u64(entries[1].start_field());
    assert_eq!(fde.start, 0x1000_0000 + field + 0x100, "pcrel");
    assert_eq!((fde.len, fde.lsda), (0x40, 0x33_2211));
    assert_eq!(fde.instructions, [0x41, 0x0e, 16, 0x86, 2, 0, 0]);
}

#[test]
fn every_truncation_is_an_error_or_fewer_entries() {
    let bytes = sample();
    let whole = section(&bytes).entries().count();
    for len in 0..bytes.len() {
        let cut = section(&bytes[..len]);
        let mut good = 0;
        for entry in cut.entries().flatten() {
            good += 1;
            let cie = cut.cie(entry.cie().unwrap_or(entry.offset));
            if let (Ok(cie), Some(_)) = (&cie, entry.cie()) {
                assert!(cut.fde(&entry, cie).is_ok(), "an entry that is whole reads");
            }
        }
        assert!(good < whole, "{len} bytes hold {good} entries");
    }
}

#[test]
fn every_single_byte_changed_never_panics() {
    let bytes = sample();
    for at in 0..bytes.len() {
        for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] = value;
            let all = section(&changed);
            for entry in all.entries().flatten() {
                if let Ok(cie) = all.cie(entry.cie().unwrap_or(entry.offset)) {
                    // Any answer is right; that there is one is the test.
                    drop(all.fde(&entry, &cie));
                }
            }
        }
    }
}

#[test]
fn an_instruction_with_an_address_is_refused() {
    assert!(is_position_independent(&[
        0x41, 0x0e, 16, 0x10, 3, 2, 0x77, 0, 0x2e, 8
    ]));
    assert!(
        !is_position_independent(&[0x41, 0x01, 0, 0, 0, 0]),
        "set_loc"
    );
    assert!(
        !is_position_independent(&[0x0f, 3, 0x77]),
        "block past the end"
    );
    assert!(!is_position_independent(&[0x3f]), "unknown");
}
