//! A function compiled by Cranelift, in low memory.

use cranelift_codegen::ir::{AbiParam, InstBuilder, types};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{Linkage, Module, default_libcall_names};
use low2g::alloc::LowAllocator;
use low2g::jit::{CodeModel, cranelift::LowMemoryProvider};

fn main() {
    let low = LowAllocator::new().expect("low memory");
    let memory = LowMemoryProvider::new(low, CodeModel::Small).expect("2g serves small code");
    let mut builder = JITBuilder::new(default_libcall_names()).expect("this machine");
    builder.memory_provider(Box::new(memory));
    let mut module = JITModule::new(builder);

    let mut context = module.make_context();
    context
        .func
        .signature
        .params
        .push(AbiParam::new(types::I64));
    context
        .func
        .signature
        .returns
        .push(AbiParam::new(types::I64));
    let mut frontend = FunctionBuilderContext::new();
    let mut body = FunctionBuilder::new(&mut context.func, &mut frontend);
    let entry = body.create_block();
    body.append_block_params_for_function_params(entry);
    body.switch_to_block(entry);
    let n = body.block_params(entry)[0];
    let square = body.ins().imul(n, n);
    body.ins().return_(&[square]);
    body.seal_all_blocks();
    body.finalize(module.target_config());
    let signature = context.func.signature.clone();
    let id = module.declare_function("square", Linkage::Export, &signature);
    let id = id.expect("a new name");
    module.define_function(id, &mut context).expect("valid");
    module.finalize_definitions().expect("memory");

    let code = module.get_finalized_function(id);
    // SAFETY: transmuting needs a function of this type there: it was built above.
    let square: extern "C" fn(i64) -> i64 = unsafe { std::mem::transmute(code) };
    println!("square at {code:p} returns {}", square(12));
    assert!(code.addr() < 1 << 31 && square(12) == 144);
    // SAFETY: nothing of the module is used any more.
    unsafe { module.free_memory() };
}
