//! A program's view of `low2g run`: arguments, environment, standard streams, exit codes and
//! signals are as when it is linked and run natively.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod battery;

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;

use battery::tool::{Folder, low2g, output, stderr, stdout};

fn compiled(folder: &Folder, source: &str) -> std::path::PathBuf {
    folder.compile("program.c", source, &[])
}

#[test]
fn arguments_environment_and_standard_streams() {
    let folder = Folder::new();
    let source = r#"
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv, char **envp) {
    for (int i = 0; i < argc; i++) printf("[%s]", argv[i]);
    printf("%d %s\n", argv[argc] == 0, getenv("LOW2G_TEST_WORD"));
    for (; *envp; envp++) if (!__builtin_strncmp(*envp, "LOW2G_TEST_WORD=", 16)) puts(*envp);
    int c; long sum = 0; while ((c = getchar()) != EOF) sum += c;
    printf("%ld", sum); fprintf(stderr, "to stderr"); return 3; }
"#;
    let program = compiled(&folder, source);
    let mut command = low2g("run");
    command
        .arg(&program)
        .args(["--", "one", "", "two words", "--seed", "-x", "é"]);
    command
        .env("LOW2G_TEST_WORD", "value")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("low2g starts");
    let text = vec![b'a'; 200_000];
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(&text)
        .expect("the program reads all");
    let ended = child.wait_with_output().expect("it ends");
    let wanted = format!(
        "[{}][one][][two words][--seed][-x][é]1 value\nLOW2G_TEST_WORD=value\n{}",
        program.display(),
        97 * 200_000
    );
    assert_eq!(stdout(&ended), wanted);
    assert_eq!(stderr(&ended), "to stderr");
    assert_eq!(ended.status.code(), Some(3));
}

#[test]
fn every_exit_code_and_the_ways_to_end() {
    let folder = Folder::new();
    let source = r#"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <signal.h>
static void bye(void) { printf("bye "); }
static void first(void) { printf("registered first "); }
__attribute__((constructor)) static void begin(void) { printf("begin "); }
__attribute__((destructor)) static void end(void) { printf("end"); }
int main(int argc, char **argv) {
    int code = atoi(argv[2]);
    atexit(first); atexit(bye); printf("main ");
    switch (argv[1][0]) {
    case 'r': return code;
    case 'e': exit(code);
    case '_': _exit(code);
    case 'a': abort();
    case 'k': raise(code);
    case 's': *(volatile int *)8 = 1;
    case 'f': __builtin_trap();
    }
    return 99; }
"#;
    let program = compiled(&folder, source);
    let ran = |how: &str, code: i32| {
        output(
            low2g("run")
                .arg(&program)
                .arg("--")
                .arg(how)
                .arg(code.to_string()),
        )
    };
    for code in (0..=255).step_by(if cfg!(debug_assertions) { 15 } else { 1 }) {
        assert_eq!(ran("return", code).status.code(), Some(code));
    }
    assert_eq!(
        ran("return", 256 + 7).status.code(),
        Some(7),
        "the low 8 bits, as everywhere"
    );
    assert_eq!(ran("return", -1).status.code(), Some(255));
    for (how, code) in [("return", 4), ("exit", 5)] {
        let ended = ran(how, code);
        assert_eq!(ended.status.code(), Some(code));
        assert_eq!(
            stdout(&ended),
            "begin main bye registered first end",
            "{how}"
        );
    }
    assert_eq!(stdout(&ran("_exit", 6)), "", "_exit flushes nothing");
    assert_eq!(ran("_exit", 6).status.code(), Some(6));
    for (how, number, signal) in [
        ("abort", 0, 6),
        ("kill", 15, 15),
        ("kill", 9, 9),
        ("segv", 0, 11),
        ("fault", 0, 4),
    ] {
        assert_eq!(
            ran(how, number).status.signal(),
            Some(signal),
            "{how} {number}"
        );
    }
}

#[test]
fn a_program_whose_reader_ends_is_ended_by_sigpipe() {
    let folder = Folder::new();
    let program = compiled(
        &folder,
        "#include <stdio.h>\nint main(void) { for (;;) puts(\"y\"); }",
    );
    let mut child = low2g("run")
        .arg(&program)
        .stdout(Stdio::piped())
        .spawn()
        .expect("low2g starts");
    drop(child.stdout.take());
    let status = child.wait().expect("it ends");
    assert_eq!(status.signal(), Some(13), "as when run natively: {status}");
}

#[test]
fn sources_objects_archives_and_entries() {
    let folder = Folder::new();
    let source = folder.write("direct.c", "int main(void) { return 11; }");
    assert_eq!(output(low2g("run").arg(&source)).status.code(), Some(11));
    let other = folder.compile(
        "other.c",
        "int main(void) { return 1; } int begin(void) { return 12; }",
        &[],
    );
    assert_eq!(
        output(low2g("run").args(["--entry", "begin"]).arg(&other))
            .status
            .code(),
        Some(12)
    );
    let library = folder.archive("lib.a", "rcs", &[&other]);
    assert_eq!(
        output(low2g("run").arg(&library)).status.code(),
        Some(1),
        "the entry pulls its member"
    );
    assert_eq!(
        output(low2g("run").args(["--entry", "begin"]).arg(&library))
            .status
            .code(),
        Some(12)
    );
    let plain = folder.compile(
        "plain.s",
        ".globl main\n.text\nmain:\nmov $13, %eax\nret\n",
        &[],
    );
    assert_eq!(
        output(low2g("run").arg(&plain)).status.code(),
        Some(13),
        "a label without a type"
    );
    for options in [
        ["--placement", "first-fit"],
        ["--placement", "kernel"],
        ["--reach", "2g-full"],
        ["--reach", "4g"],
        ["--relax", "none"],
        ["--model", "medium"],
    ] {
        assert_eq!(
            output(low2g("run").args(options).arg(&source))
                .status
                .code(),
            Some(11),
            "{options:?}"
        );
    }
    let library = ["-l", "libm.so.6"];
    let cosine = folder.write(
        "cos.c",
        "double cos(double); int main(int c, char **v) { return (int)(cos(c - 1) * 14); }",
    );
    assert_eq!(
        output(low2g("run").args(library).arg(&cosine))
            .status
            .code(),
        Some(14)
    );
    assert!(Path::new(&source).exists());
}
