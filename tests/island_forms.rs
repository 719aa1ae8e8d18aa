//! Every form that compilers give to an instruction with a far operand, assembled by the
//! system's assembler and run for real, natively and through its island.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod island_support;

use island_support::Rng;
use island_support::assembled::compile;
use island_support::case::{Case, Verdict, text};
use island_support::machine::Machine;

/// Templates: `{q}`, `{l}`, `{w}` and `{b}` are one register in its four sizes, `{x}` and
/// `{y}` others for base and index. `far` and `near` are symbols; `{x}` may equal `{q}`.
const FORMS: &str = include_str!("island_support/forms.s");

const NAMES: [[&str; 4]; 15] = [
    ["rax", "eax", "ax", "al"],
    ["rcx", "ecx", "cx", "cl"],
    ["rdx", "edx", "dx", "dl"],
    ["rbx", "ebx", "bx", "bl"],
    ["rbp", "ebp", "bp", "bpl"],
    ["rsi", "esi", "si", "sil"],
    ["rdi", "edi", "di", "dil"],
    ["r8", "r8d", "r8w", "r8b"],
    ["r9", "r9d", "r9w", "r9b"],
    ["r10", "r10d", "r10w", "r10b"],
    ["r11", "r11d", "r11w", "r11b"],
    ["r12", "r12d", "r12w", "r12b"],
    ["r13", "r13d", "r13w", "r13b"],
    ["r14", "r14d", "r14w", "r14b"],
    ["r15", "r15d", "r15w", "r15b"],
];

fn expand(template: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for (i, names) in NAMES.iter().enumerate() {
        for (x, y) in [(i, i + 1), (i + 4, i + 4), (i + 7, i)] {
            let mut line = template.to_owned();
            for (mark, name) in ["{q}", "{l}", "{w}", "{b}"].iter().zip(names) {
                line = line.replace(mark, &format!("%{name}"));
            }
            for (mark, n) in [("{x}", x), ("{y}", y)] {
                line = line.replace(mark, &format!("%{}", NAMES[n % NAMES.len()][0]));
            }
            lines.push(line);
        }
    }
    lines.sort();
    lines.dedup();
    lines
}

#[test]
fn every_form_does_through_an_island_what_it_does_in_place() {
    let templates = FORMS
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with('#'));
    let lines: Vec<String> = templates.flat_map(expand).collect();
    let mut source = String::from(".text\n");
    for (i, line) in lines.iter().enumerate() {
        source += &format!("form_{i}: {line}\n");
    }
    let Some(texts) = compile("cc", "assembler", &[], &source) else {
        return;
    };
    let [section] = &texts[..] else {
        panic!("{} text sections", texts.len());
    };
    assert_eq!(section.starts.len(), lines.len());
    let mut machine = Machine::new();
    let mut rng = Rng(island_support::seed());
    let mut faults = Vec::new();
    let mut equal = 0;
    'lines: for (i, line) in lines.iter().enumerate() {
        let start = section.starts[i];
        let end = section
            .starts
            .get(i + 1)
            .map_or(section.code.len(), |&end| end);
        let inside = |offset: usize| (start..end).contains(&offset);
        let far: Vec<_> = section
            .references
            .iter()
            .filter(|r| inside(r.offset) && r.symbol == "far")
            .map(|r| {
                let (at, len, field) = section.locate(r).expect("no branches among the forms");
                assert_eq!((at, at + len), (start, end), "{line}");
                (field.offset, field.kind)
            })
            .collect();
        assert!(!far.is_empty(), "no far field in {line}");
        let case = Case {
            bytes: section.code[start..end].to_vec(),
            far,
        };
        let mut ran = 0;
        for _ in 0..4 {
            if ran == 2 {
                break;
            }
            match case.check(&mut machine, &mut rng) {
                Verdict::Equal => ran += 1,
                Verdict::Faults => {}
                // Base and index are one register, and the displacement is not ours to set.
                Verdict::Unreachable => continue 'lines,
                Verdict::Refused(error) => panic!("{line}: {error}"),
            }
        }
        if ran > 0 {
            equal += 1;
        } else {
            faults.push(text(&case.bytes));
        }
    }
    println!(
        "{equal} forms equal, {} not on this processor: {faults:#?}",
        faults.len()
    );
    assert!(equal > 2000, "only {equal} forms ran");
    // AVX and AVX-512 may be missing; nothing else may fault.
    assert!(
        faults
            .iter()
            .all(|f| f.starts_with('v') || f.starts_with('k')),
        "{faults:#?}"
    );
}
