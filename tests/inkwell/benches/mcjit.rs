//! MCJIT on low2g's memory against LLVM's own: failures, spread of addresses, time, size.
//!
//! `cargo bench -p low2g-inkwell-tests`. Medians; the peers take turns in one run. `--once` makes
//! one round.

use std::mem::ManuallyDrop;
use std::process::Command;
use std::time::Instant;

use inkwell::context::Context;
use inkwell::execution_engine::ExecutionEngine;
use inkwell::llvm_sys::execution_engine as sys;
use inkwell::llvm_sys::target_machine::LLVMCodeModel;
use inkwell::module::Module;
use inkwell::targets::{CodeModel as InkwellModel, InitializationConfig, Target};
use inkwell::{GlobalVisibility, IntPredicate, OptimizationLevel};
use low2g::alloc::LowAllocator;
use low2g::jit::CodeModel;
use low2g_inkwell_tests::LowSections;

const FUNCTIONS: u64 = 200;

/// `fN(n) = gN[n % 8] + (n == 0 ? 0 : fN-1(n - 1))`, where all of `gN` are N: an indexed global and a
/// call each.
fn module(context: &Context) -> Module<'_> {
    let module = context.create_module("bench");
    let builder = context.create_builder();
    let i64_type = context.i64_type();
    let mut previous = None;
    for number in 0..FUNCTIONS {
        let table = i64_type.array_type(8);
        let global = module.add_global(table, None, &format!("g{number}"));
        global.set_initializer(&i64_type.const_array(&[i64_type.const_int(number, false); 8]));
        // As clang marks what a static module defines itself; g0 is looked up.
        if number > 0 {
            global.set_visibility(GlobalVisibility::Hidden);
        }
        let signature = i64_type.fn_type(&[i64_type.into()], false);
        let function = module.add_function(&format!("f{number}"), signature, None);
        let [entry, deeper, end] = ["", "", ""].map(|_| context.append_basic_block(function, ""));
        let n = function.get_nth_param(0).expect("one").into_int_value();
        builder.position_at_end(entry);
        let zero = i64_type.const_zero();
        let index = builder.build_and(n, i64_type.const_int(7, false), "");
        let indices = [zero, index.expect("a number")];
        // SAFETY: build_gep needs indices of the type: of 8 elements, one below 8.
        let element =
            unsafe { builder.build_in_bounds_gep(table, global.as_pointer_value(), &indices, "") };
        let own = builder.build_load(i64_type, element.expect("an address"), "");
        let own = own.expect("a load").into_int_value();
        let done = builder.build_int_compare(IntPredicate::EQ, n, zero, "");
        builder
            .build_conditional_branch(done.expect("a comparison"), end, deeper)
            .expect("a branch");
        builder.position_at_end(deeper);
        let sum = match previous {
            Some(previous) => {
                let less = builder.build_int_sub(n, i64_type.const_int(1, false), "");
                let call = builder.build_call(previous, &[less.expect("a number").into()], "");
                let called = call.expect("a call").try_as_basic_value();
                let called = called.basic().expect("a value").into_int_value();
                builder.build_int_add(called, own, "").expect("a sum")
            }
            None => own,
        };
        builder.build_return(Some(&sum)).expect("a return");
        builder.position_at_end(end);
        builder.build_return(Some(&own)).expect("a return");
        previous = Some(function);
    }
    module
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Memory {
    /// LLVM's, the JIT's default code model (large on x86-64).
    LlvmLarge,
    LowLarge,
    LowSmall,
}

fn engine<'c>(module: &Module<'c>, memory: Memory, low: &LowAllocator) -> ExecutionEngine<'c> {
    let (ours, theirs) = match memory {
        Memory::LlvmLarge => {
            let made = module.create_jit_execution_engine(OptimizationLevel::Default);
            return made.expect("an engine");
        }
        Memory::LowLarge => (CodeModel::Large, InkwellModel::Large),
        Memory::LowSmall => (CodeModel::Small, InkwellModel::Small),
    };
    let sections = LowSections::new(low.clone(), ours).expect("serves the model");
    let level = OptimizationLevel::Default;
    module
        .create_mcjit_execution_engine_with_memory_manager(sections, level, theirs, false, false)
        .expect("an engine")
}

fn last(engine: &ExecutionEngine<'_>) -> (usize, extern "C" fn(u64) -> u64) {
    let name = format!("f{}", FUNCTIONS - 1);
    let addr = engine.get_function_address(&name).expect("defined");
    // SAFETY: transmuting needs a function of this type there: `module` made it.
    (addr, unsafe {
        std::mem::transmute::<usize, extern "C" fn(u64) -> u64>(addr)
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Microseconds to compile and link, nanoseconds a call, bytes of code.
fn measure(memory: Memory, low: &LowAllocator) -> (f64, f64, u64) {
    let context = Context::create();
    let module = module(&context);
    let start = Instant::now();
    let engine = engine(&module, memory, low);
    let (_, function) = last(&engine);
    let link = start.elapsed().as_secs_f64() * 1e6;
    assert_eq!(function(FUNCTIONS - 1), FUNCTIONS * (FUNCTIONS - 1) / 2);
    let calls = 2000;
    let start = Instant::now();
    for _ in 0..calls {
        std::hint::black_box(function(std::hint::black_box(FUNCTIONS - 1)));
    }
    let nanoseconds = start.elapsed().as_secs_f64() * 1e9 / f64::from(calls) / 200.0;
    let first = engine.get_function_address("f1").expect("defined");
    let size = engine.get_function_address("f2").expect("defined") - first;
    (link, nanoseconds, low2g::platform::to_u64(size))
}

/// In a process of its own: static small code in LLVM's memory.
fn small_in_llvms_memory() {
    Target::initialize_native(&InitializationConfig::default()).expect("this machine");
    let context = Context::create();
    // The engine owns it.
    let module = ManuallyDrop::new(module(&context));
    let mut options = sys::LLVMMCJITCompilerOptions {
        OptLevel: 2,
        CodeModel: LLVMCodeModel::LLVMCodeModelSmall,
        NoFramePointerElim: 0,
        EnableFastISel: 0,
        MCJMM: std::ptr::null_mut(),
    };
    let mut engine = std::ptr::null_mut();
    let mut text = std::ptr::null_mut();
    // SAFETY: the module lives and is given up to the engine; the places are for what is asked.
    let failed = unsafe {
        sys::LLVMCreateMCJITCompilerForModule(
            &raw mut engine,
            module.as_mut_ptr(),
            &raw mut options,
            size_of_val(&options),
            &raw mut text,
        )
    };
    assert_eq!(failed, 0);
    // SAFETY: the engine lives; the name ends with NUL.
    let addr = unsafe { sys::LLVMGetFunctionAddress(engine, c"f199".as_ptr()) };
    // SAFETY: transmuting needs a function of this type there: `module` made it.
    let function: extern "C" fn(u64) -> u64 = unsafe { std::mem::transmute(addr) };
    assert_eq!(function(FUNCTIONS - 1), FUNCTIONS * (FUNCTIONS - 1) / 2);
    // SAFETY: as above.
    let data = unsafe { sys::LLVMGetGlobalValueAddress(engine, c"g0".as_ptr()) };
    println!("{addr:x} {data:x}");
}

/// In a process of its own: prints the addresses of code and data.
fn child(kind: &str) {
    let memory = match kind {
        "llvm-small" => return small_in_llvms_memory(),
        "llvm-large" => Memory::LlvmLarge,
        _ => Memory::LowSmall,
    };
    let low = LowAllocator::new().expect("low memory");
    let context = Context::create();
    let module = module(&context);
    let engine = engine(&module, memory, &low);
    let (addr, function) = last(&engine);
    assert_eq!(function(FUNCTIONS - 1), FUNCTIONS * (FUNCTIONS - 1) / 2);
    // SAFETY: the engine lives; the name ends with NUL.
    let data = unsafe { sys::LLVMGetGlobalValueAddress(engine.as_mut_ptr(), c"g0".as_ptr()) };
    println!("{addr:x} {data:x}");
}

/// Runs that ended well, and how many distances of code and data they showed.
fn runs(kind: &str, count: usize) -> (usize, usize) {
    let own = std::env::current_exe().expect("a path");
    let mut distances = Vec::new();
    for _ in 0..count {
        let output = Command::new(&own).args(["--child", kind]).output();
        let output = output.expect("this program starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if let Some((code, data)) = text
            .trim()
            .split_once(' ')
            .filter(|_| output.status.success())
        {
            let parse = |text| u64::from_str_radix(text, 16).expect("hexadecimal");
            distances.push(parse(code).wrapping_sub(parse(data)));
        }
    }
    let good = distances.len();
    distances.sort_unstable();
    distances.dedup();
    (good, distances.len())
}

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|word| word == "--child") {
        return child(&arguments[at + 1]);
    }
    let rounds = match arguments.iter().any(|word| word == "--once") {
        true => 1,
        false => 31,
    };
    let count = rounds.min(20);
    println!("processes that ran the module, of {count}, and distances of code and data seen:");
    for kind in ["llvm-small", "llvm-large", "low2g-small"] {
        let (good, distances) = runs(kind, count);
        println!("  {kind:12} {good:3} ran, {distances:3} distances");
    }
    let low = LowAllocator::new().expect("low memory");
    let all = [Memory::LlvmLarge, Memory::LowLarge, Memory::LowSmall];
    let mut figures = all.map(|_| Vec::new());
    for _ in 0..rounds {
        for (memory, figures) in all.iter().zip(&mut figures) {
            figures.push(measure(*memory, &low));
        }
    }
    println!("{FUNCTIONS} functions, median of {rounds}:");
    let base = median(figures[0].iter().map(|figure| figure.0).collect());
    for (memory, figures) in all.iter().zip(&figures) {
        let link = median(figures.iter().map(|figure| figure.0).collect());
        let call = median(figures.iter().map(|figure| figure.1).collect());
        let bytes = figures[0].2;
        println!(
            "  {:9} compile and link {link:8.0} us ({:.3} of LLVM's), {call:.2} ns a call, {bytes} bytes a function",
            format!("{memory:?}"),
            link / base
        );
    }
    let context = Context::create();
    let module = module(&context);
    let engine = engine(&module, Memory::LowSmall, &low);
    last(&engine);
    println!(
        "  LowSmall holds {} bytes of mappings for the module",
        low.statistics().live_bytes
    );
}
