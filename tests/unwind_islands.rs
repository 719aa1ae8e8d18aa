//! backtrace() from a signal handler at every instruction of every island and stub gives the
//! callers that it gives at the instruction that the island stands for.

#![cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
mod support;

use std::arch::global_asm;
use std::ffi::{c_int, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use low2g::alloc::LowAllocator;
use low2g::link::{
    Arguments, Definitions, ExternalKind, ExternalSymbol, Input, Link, LinkOptions, Module,
};
use low2g::place::Placer;
use support::{build, input};

/// Deepest backtrace that is kept.
const DEPTH: usize = 64;

/// One instruction of loaded code: where, and the callers that backtrace found.
#[derive(Clone)]
struct Step {
    ip: u64,
    callers: Vec<u64>,
}

/// Ranges to watch: the module's own code, and its islands and stubs.
#[derive(Default)]
struct Watch {
    code: Vec<(u64, u64)>,
    islands: (u64, u64),
    stubs: (u64, u64),
    steps: Vec<Step>,
}

static WATCH: Mutex<Option<Watch>> = Mutex::new(None);

const fn within(ip: u64, (start, end): (u64, u64)) -> bool {
    start <= ip && ip < end
}

extern "C" fn on_step(_signal: c_int, _info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a ucontext_t to handlers with SA_SIGINFO.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    let rip = usize::try_from(libc::REG_RIP).expect("an index");
    let ip = context.uc_mcontext.gregs[rip].cast_unsigned();
    // The interrupted code is loaded code or `far_call`: neither holds the lock nor allocates.
    let mut guard = WATCH.lock().expect("no panic while it is held");
    let Some(watch) = guard.as_mut() else { return };
    let loaded = watch.code.iter().any(|&range| within(ip, range));
    if !loaded && !within(ip, watch.islands) && !within(ip, watch.stubs) {
        return;
    }
    let mut frames = [std::ptr::null_mut(); DEPTH];
    let depth = c_int::try_from(DEPTH).expect("small");
    // SAFETY: the array has room for DEPTH frames.
    let count = unsafe { libc::backtrace(frames.as_mut_ptr(), depth) };
    let frames = &frames[..usize::try_from(count).expect("a count")];
    let mut frames = frames.iter().map(|frame| frame.addr() as u64);
    let found = frames.any(|frame| frame == ip);
    let callers = if found { frames.collect() } else { Vec::new() };
    watch.steps.push(Step { ip, callers });
}

extern "C" fn far_call(value: i64) -> i64 {
    value ^ 0x55
}

static FAR_WORD: AtomicU64 = AtomicU64::new(1);
static FAR_WORDS: [AtomicU64; 4] = [const { AtomicU64::new(2) }; 4];
static FAR_FUNCTION: extern "C" fn(i64) -> i64 = far_call;

fn definitions() -> Definitions {
    let mut all = Definitions::default();
    let mut add = |name: &str, pointer: *const (), size: u64, kind| {
        let addr = pointer.expose_provenance() as u64;
        all.insert(name, ExternalSymbol { addr, size, kind });
    };
    let data = ExternalKind::Data;
    add("far_word", (&raw const FAR_WORD).cast(), 8, data);
    add("far_words", (&raw const FAR_WORDS).cast(), 32, data);
    add("far_function", (&raw const FAR_FUNCTION).cast(), 8, data);
    add(
        "far_called",
        far_call as *const (),
        0,
        ExternalKind::Function,
    );
    all
}

// long single_step(long (*function)(long), long argument): calls it with the trap flag set.
global_asm!(
    ".pushsection .text.single_step,\"ax\",@progbits",
    ".globl low2g_test_single_step",
    "low2g_test_single_step:",
    ".cfi_startproc",
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "mov rbp, rsp",
    ".cfi_def_cfa_register rbp",
    "mov rax, rdi",
    "mov rdi, rsi",
    "pushfq",
    "or qword ptr [rsp], 0x100",
    "popfq",
    "call rax",
    "pushfq",
    "and qword ptr [rsp], -257",
    "popfq",
    "pop rbp",
    ".cfi_def_cfa rsp, 8",
    "ret",
    ".cfi_endproc",
    ".popsection",
);

unsafe extern "C" {
    /// Calls `function` one instruction at a time; each ends in `on_step`.
    #[link_name = "low2g_test_single_step"]
    safe fn single_step(function: extern "C" fn(i64) -> i64, argument: i64) -> i64;
}

/// Links `object` and starts watching its code.
fn load(object: Input) -> Module {
    let inputs = [object];
    let options = LinkOptions::default();
    let mut link = Link::read(&inputs, &options).expect("a well-formed object");
    assert_eq!(link.resolve(&definitions()), [""; 0]);
    let placer = Placer::Mapped {
        allocator: LowAllocator::new().expect("low memory"),
        reach: None,
        min_entropy: None,
    };
    let linked = link.place(&placer).expect("room").relocate().expect("fits");
    let linked = linked.protect().expect("allowed");
    let mut watch = Watch {
        steps: Vec::with_capacity(100_000),
        ..Watch::default()
    };
    for section in linked.sections() {
        let range = (section.addr, section.addr + section.size);
        match section.section.as_str() {
            ".islands" => watch.islands = range,
            ".stubs" => watch.stubs = range,
            ".text" => watch.code.push(range),
            _ => {}
        }
    }
    *WATCH.lock().expect("no panic") = Some(watch);
    let mut module = linked.into_module();
    assert_eq!(module.frame_warnings(), []);
    // SAFETY: the object has no constructors.
    unsafe { module.initialise(&Arguments::new(["test"]).expect("no NUL")) }.expect("allowed");
    module
}

fn handle_traps() {
    // SAFETY: all zeros is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_flags = libc::SA_SIGINFO;
    action.sa_sigaction = (on_step as *const ()).addr();
    // SAFETY: the handler has the signature that SA_SIGINFO asks for.
    let result = unsafe { libc::sigaction(libc::SIGTRAP, &raw const action, std::ptr::null_mut()) };
    assert_eq!(result, 0);
    // backtrace loads its unwinder at the first call, which a handler should not.
    let mut frame = [std::ptr::null_mut(); 1];
    // SAFETY: the array has room for one frame.
    unsafe { libc::backtrace(frame.as_mut_ptr(), 1) };
}

fn explain(step: &Step) -> String {
    let callers: Vec<String> = step.callers.iter().map(|ip| format!("{ip:#x}")).collect();
    format!("at {:#x}: {}", step.ip, callers.join(" "))
}

#[test]
fn backtrace_holds_at_every_island_and_stub_instruction() {
    let flags = ["-O2", "-fno-pic", "-fno-pie", "-mcmodel=small"].map(str::to_owned);
    let object = build::object(&input("unwind_islands.c"), &flags);
    let module = load(Input::from_file(object).expect("it was written"));
    handle_traps();
    // SAFETY: `steps` is long steps(long), and the module outlives the call.
    let steps = unsafe { module.function::<extern "C" fn(i64) -> i64>("steps") };
    let steps = steps.expect("defined");
    let plain = steps(3);
    let stepped = single_step(steps, 3);
    let watch = WATCH.lock().expect("no panic").take().expect("it was set");
    let first = watch.steps.first().expect("some steps").clone();
    assert_eq!(first.ip, (steps as *const ()).addr() as u64);
    let outermost = first.callers.first().copied().expect("a caller");
    assert_ne!((plain, outermost), (0, 0));
    let (mut islands, mut stubs) = (std::collections::BTreeSet::new(), 0);
    let mut place: Option<&Step> = None;
    for step in &watch.steps {
        let context = || {
            format!(
                "{}\nafter {}",
                explain(step),
                place.map_or(String::new(), explain)
            )
        };
        assert!(step.callers.contains(&outermost), "{}", context());
        if within(step.ip, watch.islands) {
            islands.insert(step.ip);
            let place = place.expect("islands are entered from code");
            assert_eq!(step.callers, place.callers, "{}", context());
        } else if within(step.ip, watch.stubs) {
            stubs += 1;
            let place = place.expect("stubs are called");
            let returns = step.callers.first().copied().expect("a caller");
            assert!(within(returns, (place.ip, place.ip + 16)), "{}", context());
            assert_eq!(step.callers[1..], place.callers, "{}", context());
        } else {
            place = Some(step);
        }
    }
    assert!(stubs >= 3, "{stubs} stub instructions");
    assert!(
        islands.len() >= 100,
        "{} island instructions",
        islands.len()
    );
    // The run in single steps did the same as the plain one.
    assert_eq!(stepped, plain);
    assert_ne!(FAR_WORD.load(Ordering::Relaxed), 1);
    drop(module);
}
