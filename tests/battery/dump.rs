//! The dump of two small programs, and ways to look things up in it.

use std::ffi::{OsStr, OsString};

use serde_json::Value;

use super::link::unhex;
use super::tool::{Folder, dump};

/// Code that loads from the GOT, calls a far function, names far data; data with 32-bit and
/// 64-bit words; a common, a debug section, a COMDAT copy too many.
const ONE: &str = r#"
#include <stdio.h>
extern char **environ;
int other(int);
__attribute__((weak)) extern int nothing;
int common_one;
int table[3] = {1, 2, 3};
int *const pointer = table;
int main(void) { printf("%p", (void *)&nothing); return other(common_one) + (environ == 0) + (stdout == 0); }
"#;
const TWO: &str = "static int counter = 7; int other(int x) { return x + counter; }";

pub(crate) fn dump_of(folder: &Folder, options: &[&str]) -> Value {
    let one = folder.compile("one.c", ONE, &["-fcommon", "-g"]);
    let two = folder.compile("two.c", TWO, &["-fno-plt"]);
    let mut arguments: Vec<OsString> = options.iter().map(OsString::from).collect();
    arguments.extend([one.into_os_string(), two.into_os_string()]);
    let arguments: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
    let (value, code) = dump(&arguments);
    assert_eq!(code, Some(0), "{value}");
    value
}

pub(crate) fn list<'v>(value: &'v Value, key: &str) -> &'v Vec<Value> {
    value[key]
        .as_array()
        .unwrap_or_else(|| panic!("{key} is a list"))
}

/// The dump's memory at `addr`.
pub(crate) fn memory_at(dump: &Value, addr: u64, len: usize) -> Option<Vec<u8>> {
    list(dump, "memory").iter().find_map(|row| {
        let skip = usize::try_from(addr.checked_sub(unhex(row["addr"].as_str()?))?).ok()?;
        let size = usize::try_from(row["size"].as_u64()?).ok()?;
        (skip.checked_add(len)? <= size).then_some(())?;
        match row["bytes"].as_str() {
            Some(bytes) => bytes.as_bytes()[2 * skip..2 * (skip + len)]
                .chunks(2)
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
                .collect(),
            None => Some(vec![0; len]),
        }
    })
}

pub(crate) fn addr_of(dump: &Value, object: &str, section: &str) -> u64 {
    let objects = list(dump, "objects");
    let object = objects
        .iter()
        .find(|row| row["name"] == object)
        .expect("the object is listed");
    let sections = list(object, "sections");
    let section = sections
        .iter()
        .find(|row| row["name"] == section)
        .expect("the section is listed");
    unhex(section["addr"].as_str().expect("an address"))
}
