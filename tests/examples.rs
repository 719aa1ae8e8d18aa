//! The examples, run: each checks what it computes, and says it.

use std::process::Command;

/// What the example `name` prints.
fn example(name: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "--quiet", "--locked", "--example", name, "--"]);
    let output = command.args(arguments).output().expect("cargo runs");
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(
        output.status.success(),
        "{name}: {}\n{printed}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    printed
}

#[test]
fn a_tree_with_links_of_four_bytes() {
    let printed = example("compressed_tree", &[]);
    assert!(printed.contains("16 bytes each in low memory (3200000 in all), 24 with"));
    if cfg!(all(target_os = "linux", target_env = "gnu")) {
        let (before, _) = printed.split_once(" of malloc").expect("what malloc gave");
        let malloc = before.rsplit(' ').next().and_then(|text| text.parse().ok());
        // But for what malloc had in its cache before.
        assert!(
            malloc.is_some_and(|bytes: u64| bytes >= 6_399_000),
            "{printed}"
        );
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_trampoline_near_a_function() {
    let printed = example("trampoline", &[]);
    assert!(printed.ends_with("f(20) = 42\n"), "{printed}");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_toy_jit() {
    let printed = example("toy_jit", &["3 + x * x * 2 - 1", "5"]);
    assert!(printed.ends_with("\n52\n"), "{printed}");
    let first = printed.split(':').next().expect("an address");
    let first = first.strip_prefix("0x").expect("hexadecimal");
    let first = u64::from_str_radix(first, 16).expect("hexadecimal");
    assert!(first < 1 << 31, "{printed}");
}
