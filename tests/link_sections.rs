//! Section kinds and flags of the gABI beyond plain code and data: compressed, mergeable, ordered
//! by link, excluded; run for real, and as natively linked.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod battery;

use battery::elf::{self, Obj, Sec};
use battery::programs::prints;
use battery::tool::{Folder, low2g, output, refused, run, stderr};

/// Debug sections with relocations, compressed: the code runs, and the dump reads them.
#[test]
fn compressed_debug_sections() {
    let folder = Folder::new();
    let source = "extern int printf(const char *, ...);\n\
                  struct pair { int first, second; } pair = {19, 23};\n\
                  int main(void) { printf(\"%d\", pair.first + pair.second); return 0; }";
    for (name, flag) in [
        ("plain", "-Wa,--nocompress-debug-sections"),
        ("zlib", "-Wa,--compress-debug-sections=zlib"),
        ("gnu", "-Wa,--compress-debug-sections=zlib-gnu"),
        ("zstd", "-Wa,--compress-debug-sections=zstd"),
    ] {
        let object = folder.compile(&format!("{name}.c"), source, &["-g3", "-O1", flag]);
        let bytes = std::fs::read(&object).expect("it was just compiled");
        let file = object::File::parse(&*bytes).expect("an object");
        let compressed = object::Object::sections(&file).any(|section| {
            let range = object::ObjectSection::compressed_file_range(&section);
            range.is_ok_and(|range| range.format != object::CompressionFormat::None)
        });
        assert_eq!(
            compressed,
            name != "plain",
            "{name}: as the assembler was told"
        );
        assert_eq!(run(&[&object]), "42", "{name}");
        // With the debugger told, so that the sections' contents are relocated.
        let mut told = low2g("run");
        told.args(["--debugger", "always"]).arg(&object);
        let told = output(&mut told);
        assert_eq!(told.stdout, b"42", "{name}: {}", stderr(&told));
        let dumped = output(low2g("link").args(["--dry-run", "--json"]).arg(&object));
        assert_eq!(dumped.status.code(), Some(0), "{name}: {}", stderr(&dumped));
    }
}

#[test]
fn compressed_sections_that_are_loaded_are_refused() {
    let folder = Folder::new();
    let mut object = Obj::default();
    object.section(Sec::new(".packed", elf::ALLOC | 0x800, vec![1; 40]));
    refused(
        low2g("link").arg(folder.object("packed.o", &object)),
        1,
        &["packed.o: input: section .packed is both SHF_ALLOC and SHF_COMPRESSED"],
    );
}

/// Whether strings are merged is the linker's choice; what each reference names is not.
#[test]
fn mergeable_strings_and_constants() {
    let one = "extern int printf(const char *, ...);\n\
               extern const char *tail(void); extern double third(void);\n\
               static const char *volatile text = \"a long string with a tail\";\n\
               int main(void) { printf(\"%s|%s|%s|%.3f|%.3f\", text, text + 21, tail(), third(), 1.0 / 3); return 0; }";
    let two = "const char *tail(void) { return \"tail\"; }\n\
               double third(void) { static volatile double one = 1; return one * (1.0 / 3); }";
    let printed = prints(&[one, two], &["-O2"]);
    assert_eq!(printed, "a long string with a tail|tail|tail|0.333|0.333");
}

/// `SHF_LINK_ORDER`: each table stays with the function that it names.
#[test]
fn sections_ordered_by_another() {
    let main = "extern int printf(const char *, ...);\n\
                extern int first(int), second(int);\n\
                extern char *__start___patchable_function_entries[], *__stop___patchable_function_entries[];\n\
                int main(void) {\n\
                  int seen = 0;\n\
                  for (char **at = __start___patchable_function_entries; at < __stop___patchable_function_entries; at++)\n\
                    seen += (*at == (char *)first) + 10 * (*at == (char *)second) + 100 * (*at == (char *)main);\n\
                  printf(\"%d %d\", seen, first(second(1)));\n\
                  return 0;\n\
                }";
    let others = "int first(int n) { return n + 1; } int second(int n) { return 2 * n; }";
    let flags = [
        "-O1",
        "-ffunction-sections",
        "-fpatchable-function-entry=4",
        "-fcf-protection=none",
    ];
    assert_eq!(prints(&[main, others], &flags), "111 3");
}

/// `SHF_EXCLUDE` is for the linker alone, and notes that are not loaded are nobody's.
#[test]
fn sections_for_the_linker_alone() {
    let source = ".section .only.linker,\"e\",@progbits\n.quad 1\n\
                  .section .note.text,\"\",@note\n.long 0, 0, 0\n\
                  .section .comment.more,\"MS\",@progbits,1\n.string \"x\"\n\
                  .text\n.globl main\nmain: mov $3, %eax\n ret\n";
    let folder = Folder::new();
    let object = folder.compile("alone.s", source, &[]);
    let ended = output(low2g("run").arg(&object));
    assert_eq!(ended.status.code(), Some(3), "{}", stderr(&ended));
}

#[test]
fn the_kernel_code_model_is_refused_by_name() {
    let folder = Folder::new();
    let object = folder.compile("k.c", "int main(void) { return 0; }", &["-O1"]);
    let ended = output(low2g("link").args(["--model", "kernel"]).arg(&object));
    let said = stderr(&ended);
    assert_eq!(ended.status.code(), Some(2), "{said}");
    assert!(
        said.contains("the kernel code model needs the top 2 GiB of the address space"),
        "{said}"
    );
}

/// `SHF_X86_64_LARGE`: anywhere under the medium model, within reach of small code under the small.
#[test]
fn large_sections_of_the_medium_model() {
    let source = "extern int printf(const char *, ...);\n\
                  char filled[200000] = {1}; static char zeroed[200000]; int little = 5;\n\
                  int main(void) {\n\
                    filled[199999] = 7; zeroed[199999] = 9;\n\
                    printf(\"%p %p %p %d\", filled, zeroed, &little, filled[199999] + zeroed[199999]);\n\
                    return 0;\n\
                  }";
    let folder = Folder::new();
    for (name, pic) in [("fixed", "-fno-pic"), ("pic", "-fPIC")] {
        let flags = ["-O1", "-mcmodel=medium", pic];
        let object = folder.compile(&format!("{name}.c"), source, &flags);
        for (model, high) in [("medium", true), ("small", false)] {
            let ended = output(low2g("run").args(["--model", model]).arg(&object));
            assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
            let text = String::from_utf8_lossy(&ended.stdout).into_owned();
            let words: Vec<&str> = text.split(' ').collect();
            let addr = |word: &str| {
                u64::from_str_radix(word.trim_start_matches("0x"), 16).expect("an address")
            };
            assert_eq!(words[3], "16", "{text}");
            assert!(addr(words[2]) < 1 << 31, "{name}, {model}: {text}");
            for large in &words[..2] {
                assert_eq!(addr(large) >= 1 << 32, high, "{name}, {model}: {text}");
            }
        }
    }
}
