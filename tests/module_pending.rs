//! Links that have addresses before their externals: what needs each other is linked side by side.

#![cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;

use low2g::alloc::LowAllocator;
use low2g::link::{
    Arguments, Chain, Definitions, ExternalKind, ExternalSymbol, Input, LinkOptions, Module,
    Pending, ProcessSymbols, SessionError, SymbolResolver,
};
use low2g::place::Placer;
use support::{build, input};

fn begin(low: &LowAllocator, name: &str, share_hidden: bool) -> Pending {
    let flags: Vec<String> = build::STATIC_SMALL.iter().map(|&f| f.to_owned()).collect();
    let object = Input::from_file(build::object(&input(name), &flags)).expect("it was written");
    let placer = Placer::Mapped {
        allocator: low.clone(),
        reach: None,
        min_entropy: None,
    };
    let options = LinkOptions {
        share_hidden,
        ..LinkOptions::default()
    };
    Pending::new(vec![object], options, &placer).expect("links")
}

/// What `pending` offers, as definitions for others.
fn offered(pending: &Pending) -> Definitions {
    let mut all = Definitions::default();
    for (name, export) in pending.exports().expect("well-formed") {
        let kind = match export.function {
            true => ExternalKind::Function,
            false => ExternalKind::Data,
        };
        let (addr, size) = (export.addr, export.size);
        all.insert(name, ExternalSymbol { addr, size, kind });
    }
    all
}

fn finish(pending: Pending) -> Result<Module, SessionError> {
    let arguments = Arguments::new(["test"]).expect("no NUL");
    // SAFETY: the objects are those of tests/inputs, and their externals are each other's.
    unsafe { pending.load(&arguments) }
}

fn call(module: &Module, name: &str, argument: i32) -> i32 {
    // SAFETY: the functions of these inputs are int f(int) or int f(void); both modules live.
    let function = unsafe { module.function::<extern "C" fn(i32) -> i32>(name) };
    function.unwrap_or_else(|| panic!("{name} is defined"))(argument)
}

#[test]
fn objects_that_need_each_other_link_side_by_side() {
    let low = LowAllocator::new().expect("low memory");
    let mut even = begin(&low, "mutual_even.c", true);
    let mut odd = begin(&low, "mutual_odd.c", true);
    let mut wanted: Vec<_> = odd.undefined().collect();
    wanted.sort_unstable_by_key(|undefined| undefined.name);
    let wanted: Vec<_> = wanted
        .iter()
        .map(|undefined| (undefined.name, undefined.weak, undefined.thread_local))
        .collect();
    let expected = [
        ("__tls_get_addr", false, false),
        ("depth", false, true),
        ("even", false, false),
        ("never_defined", true, false),
        ("shared_secret", false, false),
    ];
    assert_eq!(wanted, expected);

    let (of_even, of_odd) = (offered(&even), offered(&odd));
    assert!(
        of_even
            .resolve("even")
            .is_some_and(|symbol| symbol.addr < 1 << 31)
    );
    // A thread-local variable has no address yet.
    assert_eq!(of_even.resolve("depth"), None);
    assert_eq!(even.weak_definitions().collect::<Vec<_>>(), ["replaceable"]);
    let mut other = Definitions::default();
    let getpid = ProcessSymbols::new().resolve("getpid");
    other.insert("replaceable", getpid.expect("the C library's"));
    even.replace_weak(&other);
    assert!(even.resolve(&of_odd).is_empty());
    let even = finish(even).expect("links");
    let process = ProcessSymbols::new();
    let missing = odd.resolve(&Chain::default().then(&of_even).then(&process));
    assert_eq!(missing, ["depth"]);
    let mut depth = Definitions::default();
    depth.insert("depth", even.thread_local_symbol("depth").expect("defined"));
    assert!(odd.resolve(&depth).is_empty());
    let odd = finish(odd).expect("links");

    assert_eq!(call(&even, "even", 10), 1);
    assert_eq!(call(&odd, "odd", 10), 0);
    assert_eq!(call(&even, "both_calls", 0), 5 + 6);
    assert_eq!([call(&odd, "deeper", 0), call(&odd, "deeper", 0)], [41, 42]);
    assert_eq!(call(&odd, "secret", 0), 77);
    let own = i32::try_from(std::process::id()).expect("a pid");
    assert_eq!(call(&even, "replaced", 0), own);
    drop(odd);
    drop(even);
    assert_eq!(low.statistics().live_bytes, 0);
}

#[test]
fn what_is_missing_is_an_error_and_nothing_stays() {
    let low = LowAllocator::new().expect("low memory");
    let pending = begin(&low, "mutual_odd.c", false);
    assert!(low.statistics().live_bytes > 0);
    // Hidden names are not for others unless the links are one object.
    assert!(
        pending
            .undefined()
            .all(|undefined| undefined.name != "shared_secret")
    );
    let error = finish(pending).expect_err("nobody defines even");
    assert!(
        error.to_string().contains("undefined_symbol: even"),
        "{error}"
    );
    assert_eq!(low.statistics().live_bytes, 0);
    drop(begin(&low, "mutual_even.c", false));
    assert_eq!(low.statistics().live_bytes, 0);
}
