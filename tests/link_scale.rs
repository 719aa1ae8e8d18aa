//! Links of many objects, many sections, great alignments and much zero-filled memory.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod battery;

use std::time::{Duration, Instant};

use battery::elf::{self, Obj, Of, Sec, Sym, Where};
use battery::link::{Externals, bytes_at, dry, link};
use battery::programs::{printing, prints};
use battery::tool::{Folder, low2g, output, stderr};
use low2g::link::{Input, LinkOptions};

#[test]
fn every_function_in_a_section_of_its_own() {
    let functions: String = (0..300)
        .map(|n| format!("int f{n}(int x) {{ return x + {n}; }}\n"))
        .collect();
    let calls: String = (0..300).map(|n| format!("s = f{n}(s);")).collect();
    let declarations: String = (0..300).map(|n| format!("int f{n}(int);")).collect();
    let main = printing(
        &format!("{declarations} int all(void) {{ int s = 0; {calls} return s; }}"),
        "all()",
    );
    assert_eq!(
        prints(
            &[&main, &functions],
            &["-ffunction-sections", "-fdata-sections"]
        ),
        (299 * 150).to_string()
    );
}

#[test]
fn more_than_65280_sections() {
    let mut object = Obj::default();
    let count = 66_000;
    for number in 0..count {
        let value = u64::try_from(number).expect("small").to_le_bytes();
        object.section(Sec::new(".data.n", elf::ALLOC | elf::WRITE, value.to_vec()).aligned(8));
    }
    let last = object.symbol(Sym::new(
        "last",
        elf::GLOBAL,
        elf::OBJECT,
        Where::In(count - 1),
        0,
    ));
    let local = object.symbol(Sym::new(
        "",
        elf::LOCAL,
        elf::SECTION,
        Where::In(count - 2),
        0,
    ));
    object.section(
        Sec::new("table", elf::ALLOC | elf::WRITE, vec![0; 16])
            .rel(0, 1, Of::Sym(last), 0)
            .rel(8, 1, Of::Sym(local), 0),
    );
    let inputs = [Input::from_bytes("many.o", object.build())];
    let options = LinkOptions::default();
    let linked = link(&inputs, &options, &Externals::default(), &dry(1)).expect("links");
    let last = linked.symbol("last").expect("defined");
    let number = u64::try_from(count - 1).expect("small");
    assert_eq!(bytes_at(&linked, last, 8), number.to_le_bytes());
    let table = linked
        .sections()
        .into_iter()
        .find(|section| section.section == "table")
        .expect("placed");
    let words = bytes_at(&linked, table.addr, 16);
    let word = |at: usize| u64::from_le_bytes(words[at..at + 8].try_into().expect("8 bytes"));
    assert_eq!(word(0), last);
    assert_eq!(bytes_at(&linked, word(8), 8), (number - 1).to_le_bytes());
    let start = Instant::now();
    let folder = Folder::new();
    let path = folder.object("many.o", &object);
    let ended = output(low2g("link").arg("--json").arg(path));
    assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "the dump took {:?}",
        start.elapsed()
    );
}

#[test]
fn huge_alignments_and_zeros() {
    for align in [1u64 << 12, 1 << 16, 1 << 21, 1 << 26, 1 << 30] {
        let mut object = Obj::default();
        let at = object.section(Sec::data([7u8; 8]).aligned(align));
        object.symbol(Sym::new("here", elf::GLOBAL, elf::OBJECT, Where::In(at), 0));
        let inputs = [Input::from_bytes("align.o", object.build())];
        let options = LinkOptions::default();
        let linked = link(&inputs, &options, &Externals::default(), &dry(1)).expect("links");
        assert_eq!(
            linked.symbol("here").expect("defined") % align,
            0,
            "{align:#x}"
        );
        let folder = Folder::new();
        assert_eq!(
            output(low2g("link").arg(folder.object("align.o", &object)))
                .status
                .code(),
            Some(0),
            "{align:#x}"
        );
    }
    let big = "static char zeros[1900L << 20]; extern int printf(const char *, ...); int main(int c, char **v) { long n = sizeof zeros; zeros[c] = 1; zeros[n - c] = 2; printf(\"%d\", zeros[1] + zeros[n - 1] + zeros[n / 2]); return 0; }";
    assert_eq!(prints(&[big], &[]), "3");
}

#[test]
fn ten_thousand_objects_in_one_link() {
    let count = 10_000usize;
    let inputs: Vec<Input> = (0..count)
        .map(|number| {
            let mut object = Obj::default();
            let text = object.section(Sec::text([0xe8, 0, 0, 0, 0, 0xc3]).aligned(16));
            object.section(Sec::data(Vec::new()));
            object.section(Sec::zeros(".bss", elf::ALLOC | elf::WRITE, 0));
            object.symbol(Sym::new(
                &format!("f{number}"),
                elf::GLOBAL,
                elf::FUNC,
                Where::In(text),
                0,
            ));
            let next = object.symbol(Sym::new(
                &format!("f{}", (number + 1) % count),
                elf::GLOBAL,
                elf::NOTYPE,
                Where::Undefined,
                0,
            ));
            object.sections[text] = object.sections[text].clone().rel(1, 4, Of::Sym(next), -4);
            Input::from_bytes(format!("o{number}.o"), object.build())
        })
        .collect();
    let options = LinkOptions::default();
    let start = Instant::now();
    let linked = link(&inputs, &options, &Externals::default(), &dry(1)).expect("links");
    let took = start.elapsed();
    let limit = Duration::from_millis(if cfg!(debug_assertions) { 5_000 } else { 900 });
    assert!(took < limit, "10,000 objects took {took:?}");
    for number in [0, 1, count - 1] {
        let [from, to] = [number, (number + 1) % count]
            .map(|n| linked.symbol(&format!("f{n}")).expect("defined"));
        let field = bytes_at(&linked, from + 1, 4);
        let distance = i32::from_le_bytes(field.try_into().expect("4 bytes"));
        assert_eq!((from + 5).wrapping_add_signed(i64::from(distance)), to);
    }
}
