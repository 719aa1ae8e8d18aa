//! A module's symbols in the process's own dynamic linker, and handlers of exit in a program.

#![cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;

use std::ffi::{CString, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use low2g::link::{Input, Module, Session, unload_deferred};
use support::command::{assert_same, low2g_on, run};
use support::inputs::{self, SYSTEM_PYTHON};
use support::{build, input, require, seed};

fn object(name: &str) -> std::path::PathBuf {
    let flags: Vec<String> = build::STATIC_SMALL.iter().map(|&f| f.to_owned()).collect();
    build::object(&input(name), &flags)
}

fn load(session: &Session) -> Arc<Module> {
    let inputs = [Input::from_file(object("export_module.c")).expect("it was written")];
    // SAFETY: the object has no constructors.
    unsafe { session.load(&inputs) }.expect("it links")
}

fn found(name: &str) -> u64 {
    let name = CString::new(name).expect("no NUL byte");
    // SAFETY: the name ends in NUL; RTLD_DEFAULT is a valid handle.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }.addr() as u64
}

fn open(path: &Path) -> *mut c_void {
    let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL byte");
    // SAFETY: the path ends in NUL; the library has no constructors.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    assert!(!handle.is_null(), "{path:?} opens");
    handle
}

fn user_library() -> std::path::PathBuf {
    let flags = ["-O1".to_owned(), "-fPIC".to_owned()];
    let object = build::object(&input("export_user.c"), &flags);
    build::program("libexport_user.so", &[object], &["-shared"])
}

fn is_mapped(addr: u64) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc is mounted");
    maps.lines().any(|line| {
        let range = line
            .split(' ')
            .next()
            .and_then(|range| range.split_once('-'));
        let (start, end) = range.expect("a line begins with a range");
        let number = |text| u64::from_str_radix(text, 16).expect("hexadecimal");
        (number(start)..number(end)).contains(&addr)
    })
}

/// One test, since dlsym sees what the whole process exports.
#[test]
fn libraries_opened_later_bind_to_a_module_and_keep_it() {
    let library = user_library();
    let session = Session::new().expect("low memory");
    assert_eq!(found("exported_word"), 0);
    let module = load(&session);
    let word = module.symbol("exported_word").expect("defined").addr;
    assert_eq!(found("exported_word"), 0, "only what is exported is seen");

    let exports = session
        .export(&module)
        .expect("the dynamic linker takes it");
    let handle = open(&library);
    // SAFETY: the handle is open, the name ends in NUL.
    let symbol = unsafe { libc::dlsym(handle, c"use".as_ptr()) };
    // SAFETY: null is None; else it is long use(long) of the library, which is open.
    let use_it =
        unsafe { std::mem::transmute::<*mut c_void, Option<extern "C" fn(i64) -> i64>>(symbol) };
    let use_it = use_it.expect("defined");
    assert_eq!(use_it(1), 42 + 41);

    // The library still needs the module: it stays, though nobody here holds it.
    drop((exports, module));
    assert_eq!(unload_deferred(), 1);
    assert!(is_mapped(word));
    assert_eq!(use_it(2), 43 + 41);
    // SAFETY: the handle is open, and nothing of the library is used any more.
    assert_eq!(unsafe { libc::dlclose(handle) }, 0);
    assert_eq!(unload_deferred(), 0);
    assert!(!is_mapped(word), "now it is gone");

    // Nobody bound: gone at once, many times over, and always the newest is seen.
    for _ in 0..200 {
        let module = load(&session);
        let exports = session
            .export(&module)
            .expect("the dynamic linker takes it");
        let word = module.symbol("exported_word").expect("defined").addr;
        let handle = open(&library);
        // SAFETY: the handle is open, the name ends in NUL.
        let pointer = unsafe { libc::dlsym(handle, c"pointer".as_ptr()) };
        // SAFETY: it is a variable of 8 bytes in the library, which is open.
        assert_eq!(unsafe { *pointer.cast::<u64>() }, word);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::dlclose(handle) }, 0);
        drop((exports, module));
        assert!(!is_mapped(word));
    }
    assert_eq!(found("exported_word"), 0);

    // The program's own dlsym counts as a use by the program, which never ends.
    let module = load(&session);
    let exports = session
        .export(&module)
        .expect("the dynamic linker takes it");
    let addr = |name: &str| module.symbol(name).expect("defined").addr;
    let (word, function) = (addr("exported_word"), addr("exported_function"));
    assert_eq!(found("exported_word"), word);
    assert_eq!(found("exported_function"), function);
    drop((exports, module));
    assert_eq!(unload_deferred(), 1);
    assert!(is_mapped(word));
}

#[test]
fn exit_handlers_run_in_the_order_of_c() {
    let object = object("quick_exit.c");
    let native = build::program("quick_exit", std::slice::from_ref(&object), &[]);
    for arguments in [&[][..], &["quick"]] {
        let native = run(Command::new(&native).args(arguments), b"");
        let mut low2g = low2g_on("run", seed(), &[], [object.as_path()]);
        let loaded = run(low2g.arg("--").args(arguments), b"");
        assert_same(&format!("quick_exit.c {arguments:?}"), &native, &loaded);
        assert!(!loaded.stdout.is_empty());
    }
}

/// The interpreter below 2 GiB imports Debian's extension modules, which bind to its functions
/// and objects by name.
#[test]
fn extension_modules_bind_to_a_loaded_interpreter() {
    let Some(python) = require(inputs::python()) else {
        return;
    };
    const SCRIPT: &str = "
import _json, _ctypes, _decimal, _sqlite3, json, decimal, sqlite3, ctypes
for module in (_json, _ctypes, _decimal, _sqlite3):
    print(module.__name__, module.__file__)
assert json.encoder.c_make_encoder is _json.make_encoder
print(json.dumps({'a': [1, 2.5, None]}), decimal.Decimal(1) / 7)
print(sqlite3.connect(':memory:').execute('select 6 * 7').fetchone())
print(ctypes.CDLL(None).labs(-5))
try:
    decimal.Decimal(1) / 0
except decimal.DivisionByZero as error:
    print(type(error).__mro__)
address = ctypes.cast(ctypes.pythonapi.Py_IncRef, ctypes.c_void_p).value
print('low' if address < 2 ** 31 else 'high')
";
    let seed = seed();
    let arguments = ["-I", "-c", SCRIPT];
    let system = run(Command::new(SYSTEM_PYTHON).args(arguments), b"");
    let mut low2g = low2g_on("run", seed, &python.libraries, python.paths());
    let loaded = run(low2g.args(["--export", "--"]).args(arguments), b"");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (system, loaded_text) = (text(&system.stdout), text(&loaded.stdout));
    let context = format!("seed {seed}: {}", text(&loaded.stderr));
    let (body, place) = loaded_text.trim_end().rsplit_once('\n').expect(&context);
    let (expected, _) = system.trim_end().rsplit_once('\n').expect("some lines");
    assert_eq!(body, expected, "{context}");
    assert_eq!(
        place, "low",
        "the functions are the loaded one's; {context}"
    );
}
