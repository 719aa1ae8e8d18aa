//! Loaded objects use the program's own thread-local variables, in every model, compiled by gcc
//! and by clang.

#![cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;

use std::path::PathBuf;
use std::process::Command;

use support::{Library, build, program, require, root, succeed};

const MODELS: [&[&str]; 11] = [
    &["-fno-pic", "-ftls-model=local-exec"],
    &["-fno-pic", "-mcmodel=large", "-ftls-model=local-exec"],
    &["-fno-pic", "-ftls-model=initial-exec"],
    &["-fno-pic"],
    &["-fPIC", "-ftls-model=initial-exec"],
    &["-fPIC"],
    &["-fPIC", "-fno-plt"],
    &["-fPIC", "-mcmodel=large"],
    &["-fPIC", "-ftls-model=global-dynamic"],
    &["-fPIE"],
    &["-fPIC", "-mtls-dialect=gnu2"],
];

#[test]
fn the_programs_own_variables_in_every_model() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut objects: Vec<PathBuf> = Vec::new();
    for compiler in ["gcc", "clang", "clang-19"] {
        if require(program(compiler)).is_none() {
            continue;
        }
        for (number, flags) in MODELS.iter().enumerate() {
            // clang has descriptors since version 18.
            if compiler == "clang" && flags.contains(&"-mtls-dialect=gnu2") {
                continue;
            }
            let object = folder.path().join(format!("{compiler}-{number}.o"));
            let mut command = Command::new(compiler);
            command.args(["-O1", "-c"]).args(*flags);
            command.arg(root().join("tests/capi/host_tls_user.c"));
            succeed(command.arg("-o").arg(&object));
            objects.push(object);
        }
    }
    let flags = ["-std=c11", "-D_GNU_SOURCE", "-rdynamic"];
    for library in Library::BOTH {
        let program = build("cc", "host_tls.c", library, folder.path(), &flags);
        succeed(Command::new(&program).args(&objects));
    }
}
