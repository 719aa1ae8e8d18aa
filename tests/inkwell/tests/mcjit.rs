//! inkwell's MCJIT on low2g's memory: static small code runs at random low addresses, writable or
//! executable and never both, panics pass through it, and it is freed.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use inkwell::attributes::{Attribute, AttributeLoc};
use inkwell::context::Context;
use inkwell::execution_engine::ExecutionEngine;
use inkwell::llvm_sys::execution_engine::LLVMCreateSimpleMCJITMemoryManager;
use inkwell::llvm_sys::execution_engine::LLVMDisposeMCJITMemoryManager;
use inkwell::module::Module;
use inkwell::targets::CodeModel as InkwellModel;
use inkwell::{AddressSpace, OptimizationLevel};
use low2g::alloc::LowAllocator;
use low2g::capi;
use low2g::jit::{CodeModel, JitError};
use low2g_inkwell_tests::LowSections;

/// `next()` counts a global up; `through(n)` calls `host(n)` and adds 1.
fn module(context: &Context) -> Module<'_> {
    let module = context.create_module("module");
    let builder = context.create_builder();
    let i32_type = context.i32_type();
    let counter = module.add_global(i32_type, None, "counter");
    counter.set_initializer(&i32_type.const_int(40, false));
    let next = module.add_function("next", i32_type.fn_type(&[], false), None);
    builder.position_at_end(context.append_basic_block(next, ""));
    let old = builder.build_load(i32_type, counter.as_pointer_value(), "");
    let one = i32_type.const_int(1, false);
    let new = builder.build_int_add(old.expect("a load").into_int_value(), one, "");
    let new = new.expect("an addition");
    builder
        .build_store(counter.as_pointer_value(), new)
        .expect("a store");
    builder.build_return(Some(&new)).expect("a return");

    // An address of its own data as a 32-bit absolute immediate or index base.
    let table = i32_type.array_type(4);
    let numbers = module.add_global(table, None, "numbers");
    let values = [7, 8, 9, 10].map(|value| i32_type.const_int(value, false));
    numbers.set_initializer(&i32_type.const_array(&values));
    numbers.set_constant(true);
    let pointer = context.ptr_type(AddressSpace::default());
    let at = module.add_function("at", pointer.fn_type(&[], false), None);
    builder.position_at_end(context.append_basic_block(at, ""));
    builder
        .build_return(Some(&numbers.as_pointer_value()))
        .expect("a return");

    let unary = i32_type.fn_type(&[i32_type.into()], false);
    let host = module.add_function("host", unary, None);
    let through = module.add_function("through", unary, None);
    let kind = Attribute::get_named_enum_kind_id("uwtable");
    through.add_attribute(
        AttributeLoc::Function,
        context.create_enum_attribute(kind, 2),
    );
    builder.position_at_end(context.append_basic_block(through, ""));
    let argument = through.get_first_param().expect("one parameter");
    let called = builder.build_call(host, &[argument.into()], "");
    let called = called.expect("a call").try_as_basic_value();
    let result = called.basic().expect("a value").into_int_value();
    let sum = builder.build_int_add(result, one, "").expect("an addition");
    builder.build_return(Some(&sum)).expect("a return");
    module
}

extern "C-unwind" fn host(n: i32) -> i32 {
    assert!(n >= 0, "negative: {n}");
    n * 2
}

fn engine<'ctx>(module: &Module<'ctx>, low: &LowAllocator) -> ExecutionEngine<'ctx> {
    let sections = LowSections::new(low.clone(), CodeModel::Small).expect("serves small code");
    let engine = module
        .create_mcjit_execution_engine_with_memory_manager(
            sections,
            OptimizationLevel::Default,
            InkwellModel::Small,
            false,
            false,
        )
        .expect("an engine");
    let function = module.get_function("host").expect("declared");
    engine.add_global_mapping(&function, host as *const () as usize);
    engine
}

fn address(engine: &ExecutionEngine<'_>, name: &str) -> usize {
    let addr = engine.get_function_address(name).expect("defined");
    assert!(addr < 1 << 31, "{name} lies at {addr:#x}");
    addr
}

/// Access of the page at `addr`; no page of the process is writable and executable.
fn access(addr: usize) -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux");
    let mut found = String::new();
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ').expect("a range and more");
        let (start, end) = range.split_once('-').expect("a range");
        let bound = |text| usize::from_str_radix(text, 16).expect("hexadecimal");
        assert!(!rest.starts_with("rwx"), "{line}");
        if (bound(start)..bound(end)).contains(&addr) {
            found = rest[..3].to_owned();
        }
    }
    found
}

#[test]
fn static_small_code_runs_and_is_freed() {
    let low = LowAllocator::new().expect("low memory");
    let context = Context::create();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let module = module(&context);
        let engine = engine(&module, &low);
        let next = address(&engine, "next");
        assert_eq!(access(next), "r-x");
        // SAFETY: transmuting needs a function of this type there: `module` made it.
        let next_function: extern "C" fn() -> i32 = unsafe { std::mem::transmute(next) };
        assert_eq!([next_function(), next_function()], [41, 42]);
        // SAFETY: as above.
        let at: extern "C" fn() -> *const i32 =
            unsafe { std::mem::transmute(address(&engine, "at")) };
        let numbers = at();
        assert!(numbers.addr() < 1 << 31);
        assert_eq!(access(numbers.addr()), "r--");
        // SAFETY: reading needs an i32 there: the third of four.
        assert_eq!(unsafe { *numbers.wrapping_add(2) }, 9);
        seen.push(next >> 12);
        drop(engine);
        drop(module);
        assert_eq!(low.statistics().live_bytes, 0);
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 3, "pages of next: {seen:x?}");
}

#[test]
fn panics_pass_through() {
    let low = LowAllocator::new().expect("low memory");
    let context = Context::create();
    let module = module(&context);
    let engine = engine(&module, &low);
    // SAFETY: transmuting needs a function of this type there: `module` made it.
    let through: extern "C-unwind" fn(i32) -> i32 =
        unsafe { std::mem::transmute(address(&engine, "through")) };
    assert_eq!(through(20), 41);
    let panic = catch_unwind(AssertUnwindSafe(|| through(-3))).expect_err("host panics");
    let text = panic.downcast_ref::<String>().expect("a text");
    assert_eq!(text, "negative: -3");
    assert_eq!(through(1), 3);
}

/// Engines of several threads share an allocator.
#[test]
fn threads_share_an_allocator() {
    let low = LowAllocator::new().expect("low memory");
    let work = || {
        for round in 0..10 {
            let context = Context::create();
            let module = module(&context);
            let engine = engine(&module, &low);
            // SAFETY: transmuting needs a function of this type there: `module` made it.
            let through: extern "C-unwind" fn(i32) -> i32 =
                unsafe { std::mem::transmute(address(&engine, "through")) };
            assert_eq!(through(round), 2 * round + 1);
            let panic = catch_unwind(AssertUnwindSafe(|| through(-1)));
            assert!(panic.is_err());
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(work);
        }
    });
    assert_eq!(low.statistics().live_bytes, 0);
}

#[test]
fn a_reach_that_does_not_serve_is_refused() {
    let wide = LowAllocator::builder().reach("4g".parse().expect("a reach"));
    let low = wide.build().expect("low memory");
    let refused = LowSections::new(low.clone(), CodeModel::Small).expect_err("past 2 GiB");
    assert!(
        matches!(refused, JitError::AbsoluteReach { .. }),
        "{refused}"
    );
    assert!(LowSections::new(low, CodeModel::Large).is_ok());
}

// llvm-sys wants safe functions.

extern "C" fn code_section(
    memory: *mut c_void,
    size: usize,
    alignment: u32,
    id: u32,
    name: *const c_char,
) -> *mut u8 {
    // SAFETY: LLVM's arguments, the first of which is a low2g_llvm_memory.
    unsafe { capi::low2g_llvm_allocate_code_section(memory, size, alignment, id, name) }
}

extern "C" fn data_section(
    memory: *mut c_void,
    size: usize,
    alignment: u32,
    id: u32,
    name: *const c_char,
    read_only: i32,
) -> *mut u8 {
    // SAFETY: as above.
    unsafe { capi::low2g_llvm_allocate_data_section(memory, size, alignment, id, name, read_only) }
}

extern "C" fn finalize(memory: *mut c_void, error: *mut *mut c_char) -> i32 {
    // SAFETY: as above.
    unsafe { capi::low2g_llvm_finalize_memory(memory, error) }
}

extern "C" fn destroy(memory: *mut c_void) {
    // SAFETY: as above.
    unsafe { capi::low2g_llvm_destroy(memory) }
}

#[test]
fn llvm_sys_takes_the_callbacks() {
    // SAFETY: no options is NULL, and no text is wanted.
    let low = unsafe { capi::low2g_allocator_new(std::ptr::null(), std::ptr::null_mut()) };
    // SAFETY: the handle was just made.
    let memory = unsafe { capi::low2g_llvm_memory_new(low, capi::low2g_code_model::Small as u32) };
    assert!(!memory.is_null());
    // SAFETY: the callbacks are those for this pointer.
    let manager = unsafe {
        LLVMCreateSimpleMCJITMemoryManager(
            memory.cast(),
            code_section,
            data_section,
            finalize,
            Some(destroy),
        )
    };
    assert!(!manager.is_null());
    // SAFETY: it was just made, and no engine has it. It destroys the memory.
    unsafe { LLVMDisposeMCJITMemoryManager(manager) };
    // SAFETY: no thread uses the allocator.
    let freed = unsafe { capi::low2g_allocator_free(low) };
    assert_eq!(freed, capi::low2g_status::Ok);
}
