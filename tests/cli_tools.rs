//! `low2g map`, `low2g doctor` and `low2g demo` as programs use them.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const DEMO: &str = "src/cli/demo/demo.o";
const KINDS: [&str; 10] = [
    "free", "exe", "brk", "library", "stack", "mapping", "arena", "section", "guard", "reserved",
];

fn low2g(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_low2g"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("the tool runs")
}

fn json(output: &Output) -> Value {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn address(value: &Value) -> u64 {
    let text = value.as_str().expect("an address is a string");
    u64::from_str_radix(text.strip_prefix("0x").expect("hexadecimal"), 16).expect("hexadecimal")
}

/// Regions tile [0, 2 GiB) without gap or overlap.
fn assert_tiles(document: &Value) {
    assert_eq!(document["format"], "low2g-map/1");
    let mut end = 0;
    for region in document["regions"].as_array().expect("an array") {
        assert_eq!(address(&region["start"]), end, "{region}");
        end = address(&region["end"]);
        let kind = region["kind"].as_str().expect("a string");
        assert!(KINDS.contains(&kind), "{region}");
        assert!(
            region["name"].is_string() && region["prot"].is_string(),
            "{region}"
        );
    }
    assert_eq!(end, 1 << 31);
}

#[test]
fn a_map_tiles_the_low_two_gib() {
    assert_tiles(&json(&low2g(&["map", "--json"])));
    let own = std::process::id().to_string();
    assert_tiles(&json(&low2g(&["map", "--json", "--pid", &own])));
}

#[test]
fn a_map_of_objects_shows_their_sections() {
    let document = json(&low2g(&["map", "--json", DEMO]));
    assert_tiles(&document);
    let regions = document["regions"].as_array().expect("an array");
    let shown = |name: &str, access: &str| {
        regions.iter().any(|region| {
            region["name"]
                .as_str()
                .is_some_and(|shown| shown.contains(name))
                && region["prot"]
                    .as_str()
                    .is_some_and(|prot| prot.starts_with(access))
        })
    };
    assert!(shown("demo.o(.text)", "r-x"), "{document}");
    assert!(shown("demo.o(.data)", "rw-"), "{document}");
    assert!(shown("demo.o(.rodata", "r--"), "{document}");
}

#[test]
fn a_map_draws_svg() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("map.svg");
    let output = low2g(&["map", "--svg", file.to_str().expect("UTF-8"), DEMO]);
    assert!(output.status.success());
    let svg = std::fs::read_to_string(&file).expect("written");
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert!(svg.contains("demo.o(.text)"));
    let refused = low2g(&["map", "--svg", "/nonexistent/folder/map.svg"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("/nonexistent/folder/map.svg"));
}

#[test]
fn a_map_of_no_process_is_an_error() {
    let output = low2g(&["map", "--pid", "4194305"]);
    assert_eq!(output.status.code(), Some(1));
    let line = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        line.starts_with("low2g: error: ") && line.contains("4194305"),
        "{line}"
    );
}

#[test]
fn doctor_tells_what_holds() {
    let document = json(&low2g(&["doctor", "--json"]));
    assert_eq!(document["format"], "low2g-doctor/1");
    let checks = document["checks"].as_array().expect("an array");
    for check in checks {
        let status = check["status"].as_str().expect("a string");
        assert!(["ok", "degraded", "missing"].contains(&status), "{check}");
        let advice = check["advice"].as_str().expect("a string");
        assert_eq!(status == "ok", advice.is_empty(), "{check}");
        assert!(
            check["id"].is_string() && check["value"].is_string(),
            "{check}"
        );
    }
    assert!(
        checks
            .iter()
            .any(|check| check["id"] == "low-memory" && check["status"] == "ok")
    );
}

/// Without address space nothing can be had: exit code 3, and the reason is named.
#[test]
fn doctor_says_when_low_memory_cannot_be_had() {
    // The process itself needs some, how much differs between builds: bisection finds the least
    // limit under which all is well, below which lie those that leave the tool running.
    let run = |kib: u32| {
        let script = format!("ulimit -v {kib} && exec \"$0\" doctor --json");
        let shell = Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_low2g")])
            .output();
        shell.expect("sh runs")
    };
    let (mut fails, mut works) = (1_000_u32, 1_000_000_u32);
    while works - fails > 16 {
        let middle = fails.midpoint(works);
        if run(middle).status.success() {
            works = middle;
        } else {
            fails = middle;
        }
    }
    let limits = (0..256).map(|step| works - 16 * step);
    let seen = limits
        .map(run)
        .find(|output| output.status.code() == Some(3));
    let output = seen.expect("some limit leaves the tool running and nothing to claim");
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let checks = document["checks"].as_array().expect("an array");
    let low = checks
        .iter()
        .find(|check| check["id"] == "low-memory")
        .expect("checked");
    assert_eq!(low["status"], "missing");
    let text = low["value"].as_str().expect("a string");
    assert!(
        text.contains("RLIMIT_AS") || text.contains("ulimit") || text.contains("limit"),
        "{text}"
    );
}

#[test]
fn the_demo_runs_and_moves() {
    let place = |text: &str| {
        let line = text
            .lines()
            .find(|line| line.contains("demo.o(.text)") && line.contains("0x"));
        line.map(str::to_owned).expect("the table shows .text")
    };
    let mut places = std::collections::BTreeSet::new();
    for _ in 0..4 {
        let output = low2g(&["demo"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        for wanted in [
            "R_X86_64_32 ",
            "R_X86_64_32S",
            "hello from main",
            "main returned 0",
        ] {
            assert!(text.contains(wanted), "no {wanted} in:\n{text}");
        }
        places.insert(place(&text));
    }
    assert!(places.len() > 1, "four runs, one address: {places:?}");
}
