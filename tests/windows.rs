//! Windows, or Wine: the allocator, the relocation engine on ELF objects, and the tool.

#![cfg(all(windows, target_arch = "x86_64"))]

#[allow(dead_code, reason = "each test binary uses a part of what they share")]
#[path = "battery/elf.rs"]
mod elf;
#[allow(dead_code, reason = "each test binary uses a part of what they share")]
#[path = "battery/write.rs"]
mod write;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use elf::{DEFAULT, FUNC, GLOBAL, LOCAL, NOTYPE, OBJECT, Obj, Of, Sec, Sym, Where};
use low2g::alloc::{CodeViews, LowAllocator, MapRequest, Mapping};
use low2g::link::{Input, Session};
use low2g::platform::{AddrRange, Protection};
use serde_json::Value;

const PC32: u32 = 2;
const PLT32: u32 = 4;
const ABS32S: u32 = 11;
const TPOFF32: u32 = 23;

/// `abs(numbers[1])` through a 32-bit absolute address and the C library of the process:
/// ```text
/// f:  sub rsp, 40
///     mov ecx, [numbers + 4]     R_X86_64_32S
///     call abs                   R_X86_64_PLT32, in a DLL beyond 2 GiB
///     add rsp, 40
///     ret
/// ```
fn object(name: &str) -> Vec<u8> {
    let mut object = Obj::default();
    let mut numbers = 11_i32.to_le_bytes().to_vec();
    numbers.extend((-42_i32).to_le_bytes());
    let data = object.section(Sec::data(numbers).aligned(4));
    let numbers = object.symbol(Sym::new("numbers", LOCAL, OBJECT, Where::In(data), 0).sized(8));
    let abs = object.symbol(Sym::new("abs", GLOBAL, NOTYPE, Where::Undefined, 0));
    let mut text = vec![0x48, 0x83, 0xec, 40];
    text.extend([0x8b, 0x0c, 0x25, 0, 0, 0, 0]);
    text.extend([0xe8, 0, 0, 0, 0]);
    text.extend([0x48, 0x83, 0xc4, 40, 0xc3]);
    let text = Sec::text(text)
        .aligned(16)
        .rel(7, ABS32S, Of::Sym(numbers), 4)
        .rel(12, PLT32, Of::Sym(abs), -4);
    let text = object.section(text);
    object.symbol(Sym::new(name, GLOBAL, FUNC, Where::In(text), 0).visible(DEFAULT));
    object.build()
}

fn tool(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_low2g"))
        .args(arguments)
        .output()
        .expect("the tool can be started")
}

fn json(arguments: &[&str]) -> Value {
    let output = tool(arguments);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {words}");
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

fn number(value: &Value) -> u64 {
    let text = value.as_str().expect("addresses are strings");
    u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("hex")
}

fn file(folder: &tempfile::TempDir, name: &str, contents: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, contents).expect("the folder is ours");
    path
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain name")
}

#[test]
fn ten_thousand_placements_lie_apart_and_below_2_gib() {
    let low = LowAllocator::new().expect("low memory");
    let mut live: Vec<Mapping> = Vec::new();
    let mut starts = HashSet::new();
    for round in 0..10_000_u64 {
        let size = (1 + low.random_below(32)) * 4096;
        let mut mapping = low.map(&MapRequest::new(size)).expect("room");
        let range = mapping.range();
        assert!(
            range.end() <= 0x7f00_0000 && range.start() >= 0x100_0000,
            "{range}"
        );
        assert!(range.start().is_multiple_of(0x1_0000), "{range}");
        let apart = |held: &Mapping| !held.range().overlaps(range);
        assert!(live.iter().all(apart), "{range}");
        starts.insert(range.start());
        mapping.working_mem().expect("writable")[..8].copy_from_slice(&round.to_le_bytes());
        live.push(mapping);
        if live.len() > 300 {
            let victim = usize::try_from(low.random_below(300)).expect("small");
            live.swap_remove(victim);
        }
    }
    // Of 32,352 slots, 10,000 uniform draws hit 8,580 or so; a thousand fewer is no chance.
    assert!(starts.len() > 7_500, "{} different starts", starts.len());
    drop(live);
    assert_eq!(low.statistics().live_bytes, 0);
}

#[test]
fn code_is_written_in_one_view_and_runs_in_the_other() {
    let low = LowAllocator::new().expect("low memory");
    for value in 0..200_u32 {
        let mut text = vec![0xb8];
        text.extend(value.to_le_bytes());
        text.push(0xc3);
        let size = if value % 50 == 0 { 70_000 } else { 64 };
        let align = if value % 20 == 0 { 0x2_0000 } else { 16 };
        let mut code = low.allocate_code(size, align).expect("room");
        assert_eq!(code.views(), CodeViews::Two);
        let exec = code.exec_addr();
        assert!(exec < 1 << 31 && exec.is_multiple_of(align));
        code.working_mem()[..text.len()].copy_from_slice(&text);
        let code = code.publish().expect("two views need no call");
        let entry = std::ptr::with_exposed_provenance::<()>(low2g::platform::to_usize(exec));
        // SAFETY: mov eax, imm32; ret was published at the address, and its block is alive.
        let function = unsafe { std::mem::transmute::<*const (), extern "C" fn() -> u32>(entry) };
        assert_eq!(function(), value);
        drop(code);
    }
    let all = AddrRange::new(0, 1 << 47).expect("in order");
    for region in low.platform().describe(all).expect("the map can be read") {
        assert!(!region.access.starts_with("rwx"), "{region:?}");
    }
}

#[test]
fn written_memory_becomes_executable_and_no_longer_writable() {
    let low = LowAllocator::new().expect("low memory");
    let mut mapping = low.map(&MapRequest::new(4096)).expect("room");
    mapping.working_mem().expect("writable")[..6].copy_from_slice(&[0xb8, 42, 0, 0, 0, 0xc3]);
    let range = mapping.range();
    mapping
        .protect(range, Protection::ReadExecute)
        .expect("no ACG");
    let held = low.platform().describe(range).expect("the map can be read");
    assert_eq!(held[0].access, "r-xp");
}

#[test]
fn an_elf_object_is_loaded_and_calls_a_dll() {
    let session = Session::new().expect("low memory");
    let input = Input::from_bytes("f.o", object("f"));
    // SAFETY: the object is the one above; its code keeps to the Windows calling convention.
    let module = unsafe { session.load(&[input]) }.unwrap_or_else(|error| panic!("{error}"));
    // SAFETY: f is int f(void); the module lives.
    let function = unsafe { module.function::<extern "C" fn() -> i32>("f") };
    let function = function.expect("it is defined");
    assert_eq!(function(), 42);
    let at = low2g::platform::to_u64((function as *const ()).addr());
    assert!(at < 0x7f00_0000, "{at:#x}");
}

#[test]
fn thread_local_variables_are_refused_by_name() {
    let mut object = Obj::default();
    let words = object.section(Sec::new(".tdata", 0x403, vec![1, 0, 0, 0]).aligned(4));
    let variable = object.symbol(Sym::new("counter", GLOBAL, 6, Where::In(words), 0).sized(4));
    // mov eax, fs:[counter@tpoff]; ret
    let text = Sec::text(vec![0x64, 0x8b, 4, 0x25, 0, 0, 0, 0, 0xc3]);
    let text = object.section(text.rel(4, TPOFF32, Of::Sym(variable), 0));
    object.symbol(Sym::new("f", GLOBAL, FUNC, Where::In(text), 0));
    let session = Session::new().expect("low memory");
    let input = Input::from_bytes("tls.o", object.build());
    // SAFETY: nothing of it runs: it is refused.
    let refused = unsafe { session.load(&[input]) };
    let words = refused
        .expect_err("Windows has no such storage")
        .to_string();
    assert!(words.contains("tls"), "{words}");
}

#[test]
fn a_name_that_nothing_defines_is_an_error() {
    let mut object = Obj::default();
    let missing = Sym::new("no_such_function", GLOBAL, NOTYPE, Where::Undefined, 0);
    let missing = object.symbol(missing);
    let text = Sec::text(vec![0xe8, 0, 0, 0, 0, 0xc3]).rel(1, PC32, Of::Sym(missing), -4);
    object.section(text);
    let session = Session::new().expect("low memory");
    let input = Input::from_bytes("m.o", object.build());
    // SAFETY: nothing of it runs: it is refused.
    let refused = unsafe { session.load(&[input]) };
    let words = refused.expect_err("undefined").to_string();
    assert!(words.contains("no_such_function"), "{words}");
}

#[test]
fn the_tool_runs_and_links_an_object() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = file(&folder, "main.o", &object("main"));
    let run = tool(&["run", text(&path)]);
    assert_eq!(run.status.code(), Some(42), "{run:?}");
    let dump = json(&["link", "--json", text(&path)]);
    assert_eq!(dump["status"], "ok");
    for placed in dump["placement"].as_array().expect("a list") {
        let end = number(&placed["addr"]) + placed["size"].as_u64().expect("a number");
        assert!(end <= 0x7f00_0000, "{placed}");
    }
    let stubs = dump["stubs"].as_array().expect("a list");
    assert!(
        stubs.iter().any(|stub| stub["symbol"] == "abs"),
        "{stubs:?}"
    );
    // The same seed gives the same addresses only where the other mappings are the same.
    let broken = file(&folder, "broken.o", b"\x7fELF");
    assert_eq!(tool(&["run", text(&broken)]).status.code(), Some(1));
}

#[test]
fn the_tool_draws_the_map_without_gaps() {
    let map = json(&["map", "--json"]);
    let mut from = 0;
    for region in map["regions"].as_array().expect("a list") {
        assert_eq!(number(&region["start"]), from);
        from = number(&region["end"]);
    }
    assert_eq!(from, 1 << 31);
    let named = |name: &str| {
        let mut regions = map["regions"].as_array().expect("a list").iter();
        regions.any(|region| region["name"] == name)
    };
    assert!(named("KUSER_SHARED_DATA"));
}

#[test]
fn the_tool_measures_randomness_in_slots_of_64_kib() {
    let entropy = json(&["entropy", "--json", "--runs", "400", "--over", "live"]);
    let measured = &entropy["measurements"][0];
    assert_eq!(measured["source"], "low2g");
    let slots = measured["free_slots"].as_u64().expect("a number");
    // All of [16 MiB, 0x7f000000) in slots, without what the process holds.
    assert!((20_000..=32_512).contains(&slots), "{slots}");
    let limit = measured["limit_bits"].as_f64().expect("a number");
    assert!((14.0..15.0).contains(&limit), "{limit}");
    let distinct = measured["distinct"].as_u64().expect("a number");
    assert!(distinct > 370, "{distinct} of 400");
}

#[test]
fn the_tool_says_what_this_system_allows() {
    let doctor = json(&["doctor", "--json"]);
    let checks = doctor["checks"].as_array().expect("a list");
    let status = |id: &str| {
        let check = checks.iter().find(|check| check["id"] == id);
        check.unwrap_or_else(|| panic!("{id} is checked"))["status"].clone()
    };
    for id in ["low-window", "low-memory", "exact-claims", "second-views"] {
        assert_eq!(status(id), "ok", "{id}");
    }
    assert_eq!(status("seal"), "degraded");
}

/// Two functions, one with a frame at rsp and one with a frame pointer, and their frame entries:
/// ```text
/// f:  push rbx                    g:  push rbp
///     sub rsp, 32                     mov rbp, rsp
///     mov ebx, 7                      push rbx
///     call g                          sub rsp, 40
///     add eax, ebx                    mov ebx, 9
///     add rsp, 32                     call look
///     pop rbx                         mov rbx, [rbp - 8]
///     ret                             leave
///                                     ret
/// ```
fn framed_object() -> Vec<u8> {
    const ABS64: u32 = 1;
    let mut object = Obj::default();
    let look = object.symbol(Sym::new("look", GLOBAL, NOTYPE, Where::Undefined, 0));
    let mut text = vec![
        0x53, 0x48, 0x83, 0xec, 32, 0xbb, 7, 0, 0, 0, 0xe8, 13, 0, 0, 0,
    ];
    text.extend([0x01, 0xd8, 0x48, 0x83, 0xc4, 32, 0x5b, 0xc3]);
    // What pads functions, between the two.
    text.extend([0xcc; 5]);
    assert_eq!(text.len(), 28);
    text.extend([
        0x55, 0x48, 0x89, 0xe5, 0x53, 0x48, 0x83, 0xec, 40, 0xbb, 9, 0, 0, 0,
    ]);
    text.extend([0xe8, 0, 0, 0, 0, 0x48, 0x8b, 0x5d, 0xf8, 0xc9, 0xc3]);
    let text = Sec::text(text)
        .aligned(16)
        .rel(43, PLT32, Of::Sym(look), -4);
    let text = object.section(text);
    object.symbol(
        Sym::new("f", GLOBAL, FUNC, Where::In(text), 0)
            .sized(23)
            .visible(DEFAULT),
    );
    let start = object.symbol(Sym::new("start", LOCAL, NOTYPE, Where::In(text), 0));
    // A common entry: absolute pointers, the frame at rsp + 8.
    let mut frames = vec![20, 0, 0, 0, 0, 0, 0, 0, 1];
    frames.extend(b"zR\0\x01\x78\x10\x01\x00\x0c\x07\x08\x90\x01\0\0");
    assert_eq!(frames.len(), 24);
    let mut starts = Vec::new();
    let mut entry = |len: u8, instructions: &[u8]| {
        let mut entry = vec![0; 4];
        let at = u32::try_from(frames.len() + 4).expect("small");
        entry.extend(at.to_le_bytes());
        starts.push(frames.len() + 8);
        entry.extend([0; 8]);
        entry.extend([len, 0, 0, 0, 0, 0, 0, 0, 0]);
        entry.extend(instructions);
        entry.resize(entry.len().next_multiple_of(8), 0);
        let size = u32::try_from(entry.len() - 4).expect("small");
        entry[..4].copy_from_slice(&size.to_le_bytes());
        frames.extend(entry);
    };
    entry(
        23,
        &[
            0x41, 0x0e, 16, 0x83, 2, 0x44, 0x0e, 48, 0x50, 0x0e, 16, 0x41, 0x0e, 8,
        ],
    );
    entry(
        25,
        &[
            0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6, 0x41, 0x83, 3, 0x53, 0x0c, 7, 8,
        ],
    );
    let mut section = Sec::new(".eh_frame", 2, frames).aligned(8);
    for (at, addend) in starts.into_iter().zip([0, 28]) {
        section = section.rel(at as u64, ABS64, Of::Sym(start), addend);
    }
    object.section(section);
    object.build()
}

/// Windows' own walk of the stack, from a function that loaded code has called.
mod walk {
    use std::sync::Mutex;

    use windows_sys::Win32::System::Diagnostics::Debug::{
        CONTEXT, RtlCaptureContext, RtlCaptureStackBackTrace, RtlLookupFunctionEntry,
        RtlVirtualUnwind, UNW_FLAG_NHANDLER,
    };

    /// What each frame had as its instruction pointer and in rbx.
    pub(super) static FRAMES: Mutex<Vec<(u64, u64)>> = Mutex::new(Vec::new());
    /// What `RtlCaptureStackBackTrace` says.
    pub(super) static TRACE: Mutex<Vec<u64>> = Mutex::new(Vec::new());

    #[repr(align(16))]
    struct Aligned(CONTEXT);

    pub(super) fn is_known(pc: u64) -> bool {
        let mut base = 0;
        // SAFETY: RtlLookupFunctionEntry takes any address, a place for the base and no history.
        let entry = unsafe { RtlLookupFunctionEntry(pc, &raw mut base, std::ptr::null_mut()) };
        !entry.is_null()
    }

    pub(super) extern "C" fn look() -> i32 {
        let mut context = Aligned(CONTEXT::default());
        // SAFETY: RtlCaptureContext writes a structure that is aligned to 16 bytes.
        unsafe { RtlCaptureContext(&raw mut context.0) };
        let mut frames = FRAMES.lock().expect("nobody panicked");
        for _ in 0..32 {
            let (pc, mut base) = (context.0.Rip, 0);
            frames.push((pc, context.0.Rbx));
            // SAFETY: as in `is_known`.
            let entry = unsafe { RtlLookupFunctionEntry(pc, &raw mut base, std::ptr::null_mut()) };
            if entry.is_null() {
                break;
            }
            let (mut data, mut frame) = (std::ptr::null_mut(), 0);
            // SAFETY: RtlVirtualUnwind needs registers of a frame of this thread that is not over, and
            // the entry of its code.
            unsafe {
                RtlVirtualUnwind(
                    UNW_FLAG_NHANDLER,
                    base,
                    pc,
                    entry,
                    &raw mut context.0,
                    &raw mut data,
                    &raw mut frame,
                    std::ptr::null_mut(),
                )
            };
            if context.0.Rip == 0 {
                break;
            }
        }
        let mut trace = [std::ptr::null_mut(); 32];
        // SAFETY: RtlCaptureStackBackTrace writes as many pointers as there is room for.
        let count =
            unsafe { RtlCaptureStackBackTrace(0, 32, trace.as_mut_ptr(), std::ptr::null_mut()) };
        let known = trace[..usize::from(count)].iter();
        let known = known.map(|pc| low2g::platform::to_u64(pc.addr()));
        TRACE.lock().expect("nobody panicked").extend(known);
        1
    }
}

#[test]
fn the_stack_is_walked_through_loaded_code_while_it_is_loaded() {
    let mut session = Session::new().expect("low memory");
    session.define_function("look", walk::look as *const ());
    let input = Input::from_bytes("framed.o", framed_object());
    // SAFETY: the object is the one above; its code keeps to the Windows calling convention.
    let module = unsafe { session.load(&[input]) }.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(module.frame_warnings(), []);
    // SAFETY: f is int f(void); the module lives.
    let function = unsafe { module.function::<extern "C" fn() -> i32>("f") };
    let function = function.expect("it is defined");
    assert_eq!(function(), 8);
    let f = low2g::platform::to_u64((function as *const ()).addr());
    // Return addresses: behind the calls.
    let (in_f, in_g) = (f + 15, f + 47);
    let frames = walk::FRAMES.lock().expect("nobody panicked").clone();
    let position = |pc| frames.iter().position(|frame| frame.0 == pc);
    let at = position(in_g).unwrap_or_else(|| panic!("{in_g:#x} is not among {frames:x?}"));
    assert_eq!(frames[at], (in_g, 9), "{frames:x?}");
    assert_eq!(frames[at + 1], (in_f, 7), "{frames:x?}");
    // And beyond: this test, and who called it.
    assert!(frames.len() > at + 4, "{frames:x?}");
    let here = low2g::platform::to_u64((framed_object as *const ()).addr());
    assert!(frames[at + 2].0.abs_diff(here) < 64 << 20, "{frames:x?}");
    let trace = walk::TRACE.lock().expect("nobody panicked").clone();
    let first = trace.iter().position(|pc| *pc == in_g);
    let first = first.unwrap_or_else(|| panic!("{trace:x?}"));
    assert_eq!(trace[first + 1], in_f, "{trace:x?}");
    assert!(walk::is_known(in_f) && walk::is_known(in_g));
    drop(module);
    assert!(!walk::is_known(in_f) && !walk::is_known(in_g));
}

#[test]
fn a_panic_passes_through_loaded_code() {
    extern "C-unwind" fn panics() -> i32 {
        std::panic::resume_unwind(Box::new(77_u8))
    }
    let mut session = Session::new().expect("low memory");
    session.define_function("look", panics as *const ());
    let input = Input::from_bytes("framed.o", framed_object());
    // SAFETY: the object is the one above; its code keeps to the Windows calling convention.
    let module = unsafe { session.load(&[input]) }.unwrap_or_else(|error| panic!("{error}"));
    // SAFETY: f is int f(void), through which what `look` throws passes; the module lives.
    let function = unsafe { module.function::<extern "C-unwind" fn() -> i32>("f") };
    let function = function.expect("it is defined");
    for _ in 0..3 {
        let thrown = std::panic::catch_unwind(|| function()).expect_err("it does not return");
        assert_eq!(thrown.downcast_ref::<u8>(), Some(&77));
    }
}
