//! Every instruction with a relocated field that large code bases contain (the C library, its
//! mathematics, the C++ library, CPython, GMP), run natively and through its island.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod island_support;

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use iced_x86::{Decoder, DecoderOptions, FlowControl};
use island_support::Rng;
use island_support::assembled::{self, Text};
use island_support::case::{Case, Verdict, left_out, text};
use island_support::machine::Machine;
use low2g::link::island::{FieldKind, IslandError, Refusal};
use object::read::archive::ArchiveFile;

/// Archives that the compiler's own packages hold, and CPython's.
const ARCHIVES: [&str; 6] = [
    "libc.a",
    "libm.a",
    "libmvec.a",
    "libstdc++.a",
    "libpython3.11.a",
    "libgmp.a",
];

/// Distinct instructions, what their relocations add to the symbol included.
const AT_LEAST: usize = 10_000;

/// Bytes with the relocated fields cleared, and offset and kind of each field.
type Encoding = (Vec<u8>, Vec<(usize, FieldKind)>);

/// The addends that each encoding was met with.
type Corpus = BTreeMap<Encoding, BTreeSet<Vec<i64>>>;

/// Where the compiler finds `name`.
fn archive(name: &str) -> Result<PathBuf, String> {
    let output = Command::new("gcc")
        .arg(format!("-print-file-name={name}"))
        .output();
    let path = String::from_utf8(output.expect("gcc runs").stdout).expect("a path");
    let path = PathBuf::from(path.trim());
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(format!("gcc finds no {name}"))
    }
}

/// The texts of all members of the archive at `path`. A member that is a linker script has none.
fn texts_of(path: &PathBuf) -> Vec<Text> {
    let data = std::fs::read(path).expect("an archive");
    let Ok(archive) = ArchiveFile::parse(&*data) else {
        // libm.a is a script that names the archives.
        let script = String::from_utf8_lossy(&data).into_owned();
        let named = script.split_whitespace().filter(|word| {
            word.starts_with('/') && PathBuf::from(word).extension().is_some_and(|e| e == "a")
        });
        let mut paths: Vec<_> = named.map(PathBuf::from).collect();
        paths.dedup();
        return paths.iter().flat_map(texts_of).collect();
    };
    let members = archive.members().map(|member| member.expect("a member"));
    let bytes = members.map(|member| member.data(&*data).expect("its bytes"));
    bytes
        .filter(|bytes| bytes.starts_with(b"\x7fELF"))
        .flat_map(assembled::texts)
        .collect()
}

/// Adds the instructions of `section` that hold relocated fields which are no branch's target.
fn gather(section: &Text, into: &mut Corpus) {
    let fields: BTreeMap<usize, (FieldKind, i64)> = section
        .references
        .iter()
        .map(|reference| (reference.offset, (reference.kind, reference.addend)))
        .collect();
    let ends = section.starts.iter().copied().skip(1);
    for (&start, end) in section.starts.iter().zip(ends.chain([section.code.len()])) {
        if fields.range(start..end).next().is_none() {
            continue;
        }
        let code = &section.code[start..end];
        let mut decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
        while decoder.can_decode() {
            let at = decoder.position();
            let insn = decoder.decode();
            if insn.is_invalid() {
                break;
            }
            let (within, addends): (Vec<_>, Vec<_>) = fields
                .range(start + at..start + at + insn.len())
                .map(|(&offset, &(kind, addend))| ((offset - start - at, kind), addend))
                .unzip();
            let constants = decoder.get_constant_offsets(&insn);
            let exact = within.iter().all(|&(offset, _)| {
                (constants.displacement_size() == 4 && offset == constants.displacement_offset())
                    || (constants.immediate_size() == 4 && offset == constants.immediate_offset())
            });
            let branch = insn.is_jcc_short_or_near()
                || matches!(
                    insn.flow_control(),
                    FlowControl::Call
                        | FlowControl::UnconditionalBranch
                        | FlowControl::XbeginXabortXend
                );
            if within.is_empty() || !exact || branch || left_out(insn.code()) {
                continue;
            }
            let mut bytes = code[at..at + insn.len()].to_vec();
            for &(offset, _) in &within {
                bytes[offset..offset + 4].fill(0);
            }
            into.entry((bytes, within)).or_default().insert(addends);
        }
    }
}

/// What is refused must be what the documents say: rsp as an operand that would leave its range.
fn check_refusal(error: &IslandError) {
    let IslandError::Refused { why, .. } = error else {
        panic!("{error}");
    };
    assert!(
        matches!(
            why,
            Refusal::StackPointer | Refusal::Truncates | Refusal::AddressForm
        ),
        "{error}"
    );
}

#[test]
fn instructions_of_large_programs_do_through_an_island_what_they_do_in_place() {
    let mut corpus = Corpus::new();
    for name in ARCHIVES {
        let Some(path) = support::require(archive(name)) else {
            continue;
        };
        texts_of(&path)
            .iter()
            .for_each(|section| gather(section, &mut corpus));
        let instructions: usize = corpus.values().map(BTreeSet::len).sum();
        println!("with {name}: {instructions} of {} encodings", corpus.len());
    }
    let mut machine = Machine::new();
    let mut rng = Rng(island_support::seed());
    let (mut equal, mut unreachable) = (0, 0);
    let (mut faults, mut refused) = (Vec::new(), Vec::new());
    for ((bytes, far), addends) in corpus {
        let case = Case { bytes, far };
        for _ in &addends {
            let mut verdict = case.check(&mut machine, &mut rng);
            for _ in 0..8 {
                if matches!(verdict, Verdict::Faults) {
                    verdict = case.check(&mut machine, &mut rng);
                }
            }
            match verdict {
                Verdict::Equal => equal += 1,
                Verdict::Faults => faults.push(text(&case.bytes)),
                Verdict::Unreachable => unreachable += 1,
                Verdict::Refused(error) => {
                    check_refusal(&error);
                    refused.push(text(&case.bytes));
                }
            }
        }
    }
    println!(
        "{equal} equal, {unreachable} without operands, {} cannot run here: {faults:#?}, \
         {} refused: {refused:#?}",
        faults.len(),
        refused.len()
    );
    assert!(equal >= AT_LEAST, "only {equal} instructions ran");
}
