//! What the tests and benchmarks share: modules on a given provider, functions built in a line or
//! two, and calling them.

use cranelift_codegen::Context;
use cranelift_codegen::ir::{
    AbiParam, Function, InstBuilder, Signature, Type, UserFuncName, Value, types,
};
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{JITBuilder, JITMemoryProvider, JITModule};
use cranelift_module::{FuncId, Linkage, Module, default_libcall_names};
use low2g::alloc::LowAllocator;
use low2g::jit::CodeModel;
use low2g::jit::cranelift::LowMemoryProvider;

/// Code generation for this machine, `is_pic` off as Cranelift's JIT wants it.
///
/// # Panics
/// Cranelift has no backend for this machine.
#[must_use]
pub fn isa(opt_level: &str) -> OwnedTargetIsa {
    let mut flags = settings::builder();
    for (name, value) in [
        ("use_colocated_libcalls", "false"),
        ("is_pic", "false"),
        ("opt_level", opt_level),
    ] {
        flags.set(name, value).expect("a flag of Cranelift's");
    }
    let native = cranelift_native::builder().expect("Cranelift has a backend");
    native.finish(settings::Flags::new(flags)).expect("flags")
}

/// A builder on `memory`.
#[must_use]
pub fn builder(memory: Box<dyn JITMemoryProvider + Send>) -> JITBuilder {
    let mut builder = JITBuilder::with_isa(isa("speed"), default_libcall_names());
    builder.memory_provider(memory);
    builder
}

/// A module in low memory, and the provider to look at.
///
/// # Panics
/// There is no low memory.
#[must_use]
pub fn low_module() -> (JITModule, LowMemoryProvider) {
    let low = LowAllocator::new().expect("low memory");
    let memory = LowMemoryProvider::new(low, CodeModel::Small).expect("serves small code");
    (JITModule::new(builder(Box::new(memory.clone()))), memory)
}

/// `(parameters) -> results` in the module's calling convention.
#[must_use]
pub fn signature(module: &JITModule, parameters: &[Type], results: &[Type]) -> Signature {
    let mut signature = module.make_signature();
    signature.params = parameters.iter().copied().map(AbiParam::new).collect();
    signature.returns = results.iter().copied().map(AbiParam::new).collect();
    signature
}

/// Declares and defines `name: (i64 x parameters) -> i64`, whose body `build` writes from its parameters.
///
/// # Panics
/// Cranelift refuses the function.
pub fn define(
    module: &mut JITModule,
    name: &str,
    parameters: usize,
    build: impl FnOnce(&mut JITModule, &mut FunctionBuilder<'_>, &[Value]) -> Value,
) -> FuncId {
    let signature = signature(module, &vec![types::I64; parameters], &[types::I64]);
    let id = module.declare_function(name, Linkage::Export, &signature);
    let id = id.expect("one signature a name");
    let mut context = Context::new();
    context.func = Function::with_name_signature(UserFuncName::user(0, id.as_u32()), signature);
    let mut frontend = FunctionBuilderContext::new();
    let mut body = FunctionBuilder::new(&mut context.func, &mut frontend);
    let entry = body.create_block();
    body.append_block_params_for_function_params(entry);
    body.switch_to_block(entry);
    let parameters = body.block_params(entry).to_vec();
    let result = build(module, &mut body, &parameters);
    body.ins().return_(&[result]);
    body.seal_all_blocks();
    body.finalize(module.target_config());
    let defined = module.define_function(id, &mut context);
    defined.expect("a valid function, defined once");
    id
}

/// Calls the finalized function `id`, a `(i64, i64) -> i64` or one of fewer parameters.
#[must_use]
pub fn call(module: &JITModule, id: FuncId, first: i64, second: i64) -> i64 {
    let code = module.get_finalized_function(id);
    // SAFETY: transmute needs a function of that type there: `define` made one, of integer
    // parameters that the System V and Windows conventions pass in registers that it may ignore.
    let code = unsafe { std::mem::transmute::<*const u8, extern "C" fn(i64, i64) -> i64>(code) };
    code(first, second)
}

/// The access of the mapping that holds `addr`, as the system tells (`r-xp`); `None` if nothing does.
///
/// # Panics
/// The system does not tell.
#[must_use]
pub fn access(addr: u64) -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux");
    maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).expect("hex"));
        (start <= addr && addr < end).then(|| rest[..4].to_owned())
    })
}
