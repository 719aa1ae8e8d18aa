//! Thread-local variables of the C library and of shared libraries; what is refused, and why.

#![cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;
#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod tls_support;

use std::ffi::{CString, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use low2g::link::{LinkError, Module, Relax, SessionError};
use tls_support::{MODELS, Worker, alone, compile, load, pointer};

/// A shared library with names of its own, opened for all to see.
fn open_library(folder: &Path, name: &str, size: usize) -> *mut c_void {
    let path = make_library(folder, name, size);
    let path = CString::new(path.to_str().expect("UTF-8")).expect("no NUL");
    // SAFETY: a library of two variables and a function.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    assert!(!handle.is_null());
    handle
}

/// The library's file.
fn make_library(folder: &Path, name: &str, size: usize) -> PathBuf {
    let path = folder.join(format!("{name}.so"));
    let source = format!(
        "__thread int {name}_value = 77; __thread char {name}_rest[{size}]; int *{name}_address(void) {{ return &{name}_value; }}"
    );
    let file = folder.join(format!("{name}.c"));
    std::fs::write(&file, source).expect("the folder is ours");
    let made = Command::new(support::build::cc())
        .args(["-O1", "-shared", "-fPIC", "-o"])
        .args([&path, &file])
        .status()
        .expect("the compiler starts");
    assert!(made.success());
    path
}

/// The library's own answer for the calling thread, as a number.
fn library_address(handle: *mut c_void, name: &str) -> extern "C" fn() -> *mut u8 {
    let function = CString::new(format!("{name}_address")).expect("no NUL");
    // SAFETY: the handle is open.
    let found = unsafe { libc::dlsym(handle, function.as_ptr()) };
    assert!(!found.is_null());
    // SAFETY: the source declares `int *NAME_address(void)`.
    unsafe { std::mem::transmute::<*mut c_void, extern "C" fn() -> *mut u8>(found) }
}

/// An object that uses the library's variable.
fn user(folder: &Path, name: &str, flags: &[&str]) -> PathBuf {
    let source = folder.join(format!("use_{name}.c"));
    let text = format!(
        "extern __thread int {name}_value; int *user(void) {{ return &{name}_value; }} int add(int n) {{ return {name}_value += n; }}"
    );
    std::fs::write(&source, text).expect("the folder is ours");
    let all: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
    support::build::object(&source, &all)
}

fn loaded(path: PathBuf, relax: Relax) -> Result<Arc<Module>, SessionError> {
    load(&[path], relax)
}

#[test]
fn a_dlopened_library_in_every_model() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for (number, model) in MODELS.iter().enumerate() {
        // Fresh libraries: once touched, a block is dynamic for good.
        let name = format!("library{number}");
        let handle = open_library(folder.path(), &name, 1);
        let before = Worker::start();
        let module = loaded(user(folder.path(), &name, model.flags), Relax::All)
            .unwrap_or_else(|error| panic!("{}: {error}", model.name));
        let after = Worker::start();
        let (native, ours) = (library_address(handle, &name), pointer(&module, "user"));
        // SAFETY: the source declares `int add(int)`.
        let add: extern "C" fn(i32) -> i32 = unsafe { module.function("add") }.expect("defined");
        let context = model.name;
        for worker in [&before, &after] {
            worker.run(move || {
                assert_eq!(ours(), native(), "{context}");
                assert_eq!(add(3), 80, "{context}");
            });
        }
        assert_eq!((ours(), add(1)), (native(), 78), "{context}");
        before.end();
        after.end();
    }
}

#[test]
fn a_block_that_is_not_static_is_refused_to_local_exec() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let handle = open_library(folder.path(), "big", 1 << 20);
    // Touched: this thread has a copy now.
    let native = library_address(handle, "big");
    assert!(!native().is_null());
    for flags in [
        &["-fno-pic", "-ftls-model=local-exec"][..],
        &["-fPIC", "-ftls-model=initial-exec"],
    ] {
        let error = loaded(user(folder.path(), "big", flags), Relax::All).expect_err("dynamic");
        let text = error.to_string();
        assert!(
            text.contains("big_value") && text.contains("static TLS"),
            "{text}"
        );
        assert!(text.contains("-ftls-model=global-dynamic"), "{text}");
    }
    let module = loaded(user(folder.path(), "big", &["-fPIC"]), Relax::All).expect("dynamic works");
    assert_eq!(pointer(&module, "user")(), native());
}

#[test]
fn a_private_version_is_found() {
    let module = loaded(compile("versioned.s", &[], &[]), Relax::All).expect("errno is there");
    // SAFETY: __errno_location has no precondition.
    let native = unsafe { libc::__errno_location() };
    assert_eq!(pointer(&module, "address")(), native.cast());
}

#[test]
fn words_odd_instructions_and_common_variables() {
    let _alone = alone();
    for relax in [Relax::None, Relax::PcRelative, Relax::All] {
        let module = loaded(compile("words.s", &[], &[]), relax).expect("loads");
        let variable = pointer(&module, "by_word")();
        assert_eq!(pointer(&module, "by_pair")(), variable);
        assert_eq!(pointer(&module, "odd_load")(), variable);
        // SAFETY: the variable is a machine word.
        let message = unsafe { variable.cast::<usize>().read_unaligned() };
        let message = std::ptr::with_exposed_provenance::<[u8; 10]>(message);
        // SAFETY: it holds the address of a string in the module's data.
        assert_eq!(&unsafe { message.read() }, b"an address");
        let common = pointer(&module, "common")();
        assert_eq!(common.addr() % 8, 0);
        let exported = module.thread_local("shared").expect("is global");
        assert_eq!(
            usize::try_from(exported.addr).expect("64-bit"),
            common.addr()
        );
        assert_eq!(exported.size, 24);
    }
}

/// The one error of a link.
fn error_of(case: u32) -> LinkError {
    let object = compile("refused.s", &[&format!("-Wa,--defsym,CASE={case}")], &[]);
    match loaded(object, Relax::All) {
        Err(SessionError::Link(failure)) => failure.errors()[0].clone(),
        other => panic!("case {case} is no link error: {other:?}"),
    }
}

#[test]
fn what_is_refused_says_why() {
    let cases = [
        (
            1,
            "R_X86_64_TPOFF32 against nowhere",
            "weak variable is nowhere defined",
        ),
        (2, "R_X86_64_TPOFF32 against environ", "the symbol is not"),
        (3, "R_X86_64_PC32 against", "the symbol is thread-local"),
        (4, "R_X86_64_DTPOFF32 against environ", "the symbol is not"),
        (
            5,
            "R_X86_64_TPOFF64 against",
            "each thread's copy has another place",
        ),
        (
            6,
            "R_X86_64_PC32 against",
            "each thread's copy has another place",
        ),
    ];
    for (case, site, reason) in cases {
        let error = error_of(case);
        let text = error.to_string();
        assert_eq!(error.kind(), "tls", "case {case}: {text}");
        assert!(
            text.contains(site) && text.contains(reason),
            "case {case}: {text}"
        );
    }
}

#[test]
fn a_block_has_limits() {
    let object = compile("refused.s", &["-Wa,--defsym,CASE=7"], &[]);
    let text = loaded(object, Relax::All).expect_err("4 MiB").to_string();
    assert!(text.contains("aligned to 4194304"), "{text}");
}

/// A library that is there from the start has a constant offset, whatever its size, used or
/// not: as the executable's own variables have.
#[test]
fn a_library_of_the_start_in_local_exec() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let library = make_library(folder.path(), "early", 1 << 16);
    let source = folder.path().join("main.c");
    let text = "extern __thread int early_value; int *early_address(void); int main(void) { return early_address() == &early_value ? early_value : 1; }";
    std::fs::write(&source, text).expect("the folder is ours");
    let flags = ["-fno-pic", "-ftls-model=local-exec"].map(str::to_owned);
    let object = support::build::object(&source, &flags);
    let mut command = support::command::low2g("run");
    command.env("LD_PRELOAD", library).arg(object);
    let finished = support::command::run(&mut command, b"");
    let said = String::from_utf8_lossy(&finished.stderr).into_owned();
    assert_eq!(finished.status.code(), Some(77), "{said}");
}

#[test]
fn exhausted_static_space_is_measured_and_comes_back() {
    let _alone = alone();
    let flags = ["-fno-pic", "-ftls-model=local-exec"];
    let sized = |size: u64| {
        let object = compile("define.c", &flags, &[format!("-DSIZE={size}")]);
        load(&[object], Relax::All)
    };
    let before = low2g::link::tls::static_space(1 << 20);
    assert!(
        before > 500,
        "glibc keeps 1664 bytes unless told otherwise: {before}"
    );
    // Four variables of a size; blocks until one does not fit.
    let mut modules = Vec::new();
    let error = loop {
        match sized(64) {
            Ok(module) => modules.push(module),
            Err(error) => break error,
        }
        assert!(modules.len() < 100, "the space has an end");
    };
    let SessionError::Link(failure) = &error else {
        panic!("{error}");
    };
    let LinkError::StaticTls {
        needed,
        align,
        available,
        ..
    } = failure.errors()[0]
    else {
        panic!("{error}");
    };
    assert_eq!((needed, align), (256, 16));
    assert!(available < 256, "{available}");
    assert!(
        error.to_string().contains("optional_static_tls=768"),
        "{error}"
    );
    while let Some(module) = modules.pop() {
        drop(module);
    }
    assert_eq!(
        low2g::link::tls::static_space(1 << 20),
        before,
        "all is given back"
    );
}
