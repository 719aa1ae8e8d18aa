//! inkwell's MCJIT with static small code in low memory.

use inkwell::OptimizationLevel;
use inkwell::context::Context;
use inkwell::targets::CodeModel as InkwellModel;
use low2g::alloc::LowAllocator;
use low2g::jit::CodeModel;
use low2g_inkwell_tests::LowSections;

fn main() {
    let context = Context::create();
    let module = context.create_module("example");
    let builder = context.create_builder();
    let i64_type = context.i64_type();
    let square = module.add_function("square", i64_type.fn_type(&[i64_type.into()], false), None);
    builder.position_at_end(context.append_basic_block(square, ""));
    let n = square.get_nth_param(0).expect("one parameter");
    let product = builder.build_int_mul(n.into_int_value(), n.into_int_value(), "");
    let product = product.expect("two integers");
    builder.build_return(Some(&product)).expect("in a block");

    let low = LowAllocator::new().expect("low memory");
    let sections = LowSections::new(low, CodeModel::Small).expect("2g serves small code");
    let engine = module
        .create_mcjit_execution_engine_with_memory_manager(
            sections,
            OptimizationLevel::Default,
            InkwellModel::Small,
            false,
            false,
        )
        .expect("an engine");
    let address = engine.get_function_address("square").expect("defined");
    // SAFETY: transmuting needs a function of this type there: it was built above, and the engine lives.
    let square: extern "C" fn(i64) -> i64 = unsafe { std::mem::transmute(address) };
    println!("square at {address:#x} returns {}", square(12));
    assert!(address < 1 << 31 && square(12) == 144);
}
