//! `low2g entropy`: the document's figures recounted from its addresses, and the randomness
//! that they show on the system that runs the tests.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::process::{Command, Output};

use serde_json::Value;

fn entropy(options: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_low2g"))
        .arg("entropy")
        .args(options)
        .output()
        .expect("the program starts")
}

fn json(options: &[&str]) -> Value {
    let output = entropy(&[options, &["--json"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{options:?}: {errors}");
    assert_eq!(errors, "", "{options:?}");
    serde_json::from_slice(&output.stdout).expect("a JSON document")
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value}"))
}

fn bits(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value}"))
}

fn address(value: &str) -> u64 {
    let digits = value.strip_prefix("0x").expect("hexadecimal");
    assert_eq!(digits, digits.to_lowercase());
    u64::from_str_radix(digits, 16).expect("hexadecimal")
}

fn hex(value: &Value) -> u64 {
    address(value.as_str().expect("addresses are strings"))
}

fn measurement<'a>(document: &'a Value, source: &str, over: &str) -> &'a Value {
    let all = document["measurements"].as_array().expect("a list");
    let mut found = all
        .iter()
        .filter(|one| one["source"] == source && one["over"] == over);
    let one = found.next().expect("that measurement");
    assert!(found.next().is_none(), "twice");
    one
}

/// Recounts every figure from the addresses.
fn recount(document: &Value, one: &Value) {
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    for addr in one["addresses"].as_array().expect("asked for") {
        *counts.entry(hex(addr)).or_default() += 1;
    }
    let draws: u64 = counts.values().sum();
    let steps = one["steps"].as_object().expect("counts by step");
    assert_eq!(draws, number(&one["draws"]));
    assert_eq!(draws, steps.values().map(number).sum::<u64>());
    assert_eq!(number(&one["distinct"]), counts.len() as u64);
    let pairs: u64 = counts.values().map(|count| count * (count - 1) / 2).sum();
    assert_eq!(number(&one["colliding_pairs"]), pairs);
    if pairs < 10 {
        assert!(one["renyi2_bits"].is_null());
    } else {
        let all = draws as f64 * (draws as f64 - 1.0);
        let expected = -(2.0 * pairs as f64 / all).log2();
        assert!((bits(&one["renyi2_bits"]) - expected).abs() < 1e-9);
    }
    let free_slots = number(&one["free_slots"]);
    assert_eq!(one["min_entropy_bits"].is_null(), draws < 100 * free_slots);
    assert!((bits(&one["limit_bits"]) - (free_slots as f64).log2()).abs() < 1e-9);
    let align = number(&document["align"]);
    let size = number(&document["size"]);
    let (start, end) = match one["source"].as_str() {
        Some("low2g") => (
            hex(&document["window"]["start"]),
            hex(&document["window"]["end"]),
        ),
        _ => (0, 1 << 31),
    };
    for addr in counts.keys() {
        assert!(addr.is_multiple_of(align), "{addr:#x}");
        assert!(*addr >= start && addr + size <= end, "{addr:#x}");
    }
}

#[test]
fn every_figure_follows_from_the_addresses() {
    for options in [
        &["--runs", "25", "--addresses"][..],
        &["--runs", "15", "--live", "40", "--addresses"],
        &["--runs", "15", "--size", "100", "--addresses"],
        &["--runs", "15", "--placement", "first-fit", "--addresses"],
        &["--runs", "15", "--placement", "kernel", "--addresses"],
    ] {
        let document = json(options);
        assert_eq!(document["format"], "low2g-entropy/1");
        assert_eq!(document["runs"].to_string(), options[1]);
        assert!(document["seed"].is_null());
        for source in ["low2g", "map_32bit"] {
            for over in ["processes", "live"] {
                let one = measurement(&document, source, over);
                assert_eq!(one["draws"], document["runs"], "{options:?}");
                recount(&document, one);
            }
        }
        assert_eq!(document["measurements"].as_array().map(Vec::len), Some(4));
    }
}

#[test]
fn one_of_two_measurements_can_be_named() {
    for over in ["processes", "live"] {
        let document = json(&["--runs", "3", "--over", over]);
        let all = document["measurements"].as_array().expect("a list");
        assert_eq!(all.len(), 2);
        assert!(all.iter().all(|one| one["over"] == over));
        assert!(all.iter().all(|one| one.get("addresses").is_none()));
    }
}

/// 20,000 draws among 516,081 starts give 387 equal pairs, plus or minus 20: 0.3 bits are 4 sigma.
#[test]
fn randomized_is_within_a_third_of_a_bit_of_the_limit() {
    for live in ["0", "512"] {
        let options = ["--over", "live", "--runs", "20000", "--live", live];
        let document = json(&[&options[..], &["--addresses"]].concat());
        let own = measurement(&document, "low2g", "live");
        recount(&document, own);
        let limit = bits(&own["limit_bits"]);
        assert!(limit > 18.9, "{limit}");
        let measured = bits(&own["renyi2_bits"]);
        assert!((measured - limit).abs() < 0.33, "{measured} of {limit}");
    }
}

#[test]
fn fresh_processes_differ() {
    let document = json(&["--over", "processes", "--runs", "60", "--live", "20"]);
    let own = measurement(&document, "low2g", "processes");
    // 60 draws among 500,000: three equal pairs come once in 10^8 runs.
    assert!(number(&own["colliding_pairs"]) < 3, "{own}");
    assert!(bits(&own["limit_bits"]) > 18.9);
}

#[test]
fn placements_without_randomness_show() {
    let options = ["--runs", "30", "--placement", "first-fit"];
    let document = json(&options);
    for over in ["processes", "live"] {
        let one = measurement(&document, "low2g", over);
        assert_eq!(number(&one["distinct"]), 1);
        assert!(bits(&one["renyi2_bits"]).abs() < 1e-9);
        assert_eq!(one["steps"]["first_fit"], 30);
    }
    let seeded = || json(&["--runs", "12", "--seed", "7", "--addresses"]);
    let (first, second) = (seeded(), seeded());
    assert_eq!(first["seed"], 7);
    for over in ["processes", "live"] {
        let addresses = |document| measurement(document, "low2g", over)["addresses"].clone();
        assert_eq!(addresses(&first), addresses(&second));
    }
    assert_eq!(measurement(&first, "low2g", "processes")["distinct"], 1);
    assert_ne!(measurement(&first, "low2g", "live")["distinct"], 1);
}

#[test]
fn addresses_alone_are_printed_one_a_line() {
    let output = entropy(&["--addresses", "--runs", "20"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("text");
    let addresses: Vec<u64> = text.lines().map(address).collect();
    assert_eq!(addresses.len(), 20);
    assert!(addresses.iter().all(|addr| *addr < 1 << 31));
}

#[test]
fn the_table_and_the_picture() {
    let path = std::env::temp_dir().join(format!("low2g-entropy-{}.svg", std::process::id()));
    let name = path.to_str().expect("text");
    let output = entropy(&["--runs", "8", "--svg", name]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("text");
    let rows = |word: &str| text.lines().filter(|line| line.starts_with(word)).count();
    assert_eq!((rows("low2g "), rows("map_32bit ")), (2, 2), "{text}");
    let picture = std::fs::read_to_string(&path).expect("the picture was written");
    std::fs::remove_file(&path).expect("it is ours");
    assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
    assert_eq!(picture.matches("<text ").count(), 4);
    assert!(picture.matches("<rect ").count() > 8, "{picture}");
}

#[test]
fn what_cannot_be_measured_is_an_error() {
    for (options, code) in [
        (&["--runs", "0"][..], 2),
        (&["--size", "0"], 2),
        (&["--placement", "lucky"], 2),
        (&["--over", "years"], 2),
        (&["--size", "3000000000", "--runs", "2"], 3),
        (&["--size", "1000000000", "--live", "3", "--runs", "2"], 3),
    ] {
        let output = entropy(options);
        assert_eq!(output.status.code(), Some(code), "{options:?}");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains("error: "), "{options:?}: {errors}");
        assert!(output.stdout.is_empty(), "{options:?}");
    }
}

#[test]
fn where_map_32bit_is_full_the_rest_is_measured() {
    // 1,200 MiB: more than the kernel's 1 GiB.
    let options = ["--size", "104857600", "--live", "12", "--runs", "5"];
    let document = json(&[&options[..], &["--placement", "first-fit"]].concat());
    for over in ["processes", "live"] {
        assert_eq!(measurement(&document, "low2g", over)["draws"], 5);
        let other = measurement(&document, "map_32bit", over);
        assert_eq!(other["draws"], 0);
        assert!(other["limit_bits"].is_null() && other["renyi2_bits"].is_null());
    }
}
