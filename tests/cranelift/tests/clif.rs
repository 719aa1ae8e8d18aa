//! Functions in Cranelift's text form with the calls that its file tests are made of (`; run:`), from
//! tests/cranelift/clif: parsed, compiled and called in low memory, each file in one module, so that its
//! functions and data find each other.

#![cfg(target_os = "linux")]

use std::collections::HashMap;

use cranelift_codegen::Context;
use cranelift_codegen::data_value::DataValue;
use cranelift_codegen::ir::{
    ExternalName, Function, GlobalValueData, InstBuilder, MemFlagsData, Signature,
    UserExternalName, UserFuncName, types,
};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{DataDescription, DataId, FuncId, Linkage, Module, default_libcall_names};
use cranelift_reader::{ParseOptions, parse_run_command, parse_test};
use low2g::alloc::LowAllocator;
use low2g::jit::CodeModel;
use low2g::jit::cranelift::LowMemoryProvider;
use low2g::platform::to_u64;
use low2g_cranelift_tests::{isa, signature};

/// Bytes of each variable that a file names.
const DATA: usize = 64;

struct File {
    module: JITModule,
    functions: HashMap<String, (FuncId, Signature)>,
    data: HashMap<String, DataId>,
}

impl File {
    fn new(low: &LowAllocator, opt_level: &str) -> Self {
        let memory = LowMemoryProvider::new(low.clone(), CodeModel::Small);
        let mut builder = JITBuilder::with_isa(isa(opt_level), default_libcall_names());
        builder.memory_provider(Box::new(memory.expect("serves small code")));
        Self {
            module: JITModule::new(builder),
            functions: HashMap::new(),
            data: HashMap::new(),
        }
    }

    fn declare(&mut self, function: &Function) {
        let name = function.name.to_string();
        let declared = &function.signature;
        let id = self
            .module
            .declare_function(&name, Linkage::Export, declared);
        let id = id.expect("one signature a name");
        self.functions.insert(name, (id, declared.clone()));
    }

    fn variable(&mut self, name: &str) -> DataId {
        if let Some(id) = self.data.get(name) {
            return *id;
        }
        let id = self.module.declare_data(name, Linkage::Export, true, false);
        let id = id.expect("a new name");
        let mut description = DataDescription::new();
        description.define_zeroinit(DATA);
        let defined = self.module.define_data(id, &description);
        defined.expect("room for a variable");
        self.data.insert(name.to_owned(), id);
        id
    }

    /// Gives what the text names the numbers that the module has for it.
    fn resolve(&mut self, function: &mut Function) {
        let callees: Vec<_> = function.dfg.ext_funcs.keys().collect();
        for callee in callees {
            let name = function.dfg.ext_funcs[callee].name.clone();
            let name = name.display(None).to_string();
            let (id, _) = &self.functions[&name];
            let user = UserExternalName::new(0, id.as_u32());
            let user = function.declare_imported_user_function(user);
            function.dfg.ext_funcs[callee].name = ExternalName::user(user);
        }
        let values: Vec<_> = function.global_values.keys().collect();
        for value in values {
            let GlobalValueData::Symbol { name, .. } = &function.global_values[value] else {
                continue;
            };
            let name = name.display(None).to_string();
            let id = self.variable(&name);
            let user =
                function.declare_imported_user_function(UserExternalName::new(1, id.as_u32()));
            if let GlobalValueData::Symbol { name, .. } = &mut function.global_values[value] {
                *name = ExternalName::user(user);
            }
        }
    }

    fn define(&mut self, mut function: Function) {
        let (id, _) = self.functions[&function.name.to_string()];
        self.resolve(&mut function);
        function.name = UserFuncName::user(0, id.as_u32());
        let mut context = Context::for_function(function);
        let defined = self.module.define_function(id, &mut context);
        defined.expect("a valid function");
    }

    /// A function that takes the arguments of `callee` from a row of 16 bytes each, and leaves its
    /// results there.
    fn gate(&mut self, callee: FuncId, declared: &Signature) -> FuncId {
        let own = signature(&self.module, &[types::I64], &[]);
        let id = self.module.declare_anonymous_function(&own);
        let id = id.expect("room for a function");
        let mut context = Context::new();
        context.func = Function::with_name_signature(UserFuncName::user(0, id.as_u32()), own);
        let mut frontend = FunctionBuilderContext::new();
        let mut body = FunctionBuilder::new(&mut context.func, &mut frontend);
        let entry = body.create_block();
        body.append_block_params_for_function_params(entry);
        body.switch_to_block(entry);
        let row = body.block_params(entry)[0];
        let flags = MemFlagsData::trusted();
        let mut arguments = Vec::new();
        for (parameter, at) in declared.params.iter().zip((0..).step_by(16)) {
            arguments.push(body.ins().load(parameter.value_type, flags, row, at));
        }
        let callee = self.module.declare_func_in_func(callee, body.func);
        let call = body.ins().call(callee, &arguments);
        let results = body.inst_results(call).to_vec();
        for (result, at) in results.into_iter().zip((0..).step_by(16)) {
            body.ins().store(flags, result, row, at);
        }
        body.ins().return_(&[]);
        body.seal_all_blocks();
        body.finalize(self.module.target_config());
        let defined = self.module.define_function(id, &mut context);
        defined.expect("a valid function");
        id
    }

    /// Calls `gate` of a function that returns what `declared` says.
    fn call(&self, gate: FuncId, declared: &Signature, arguments: &[DataValue]) -> Vec<DataValue> {
        let mut row = [0_u128; 16];
        for (argument, place) in arguments.iter().zip(&mut row) {
            // SAFETY: write_value_to needs 16 writable bytes: a place has as many.
            unsafe { argument.write_value_to(place) };
        }
        let code = self.module.get_finalized_function(gate);
        assert!(to_u64(code.addr()) < 1 << 31);
        // SAFETY: transmute needs a function of that type there: `gate` made one.
        let code = unsafe { std::mem::transmute::<*const u8, extern "C" fn(*mut u128)>(code) };
        code(row.as_mut_ptr());
        let results = declared.returns.iter().zip(&row);
        // SAFETY: read_value_from needs 16 readable bytes that hold such a value: the gate left it.
        let read = |(result, place): (&cranelift_codegen::ir::AbiParam, &u128)| unsafe {
            DataValue::read_value_from(place, result.value_type)
        };
        results.map(read).collect()
    }
}

/// Runs all calls of a file; gives their number.
fn run(low: &LowAllocator, text: &str, opt_level: &str) -> usize {
    let test = parse_test(text, ParseOptions::default()).expect("valid text");
    let mut file = File::new(low, opt_level);
    let mut commands = Vec::new();
    for (function, details) in &test.functions {
        file.declare(function);
        for comment in &details.comments {
            let comment = comment.text.trim_start_matches(';').trim();
            let command = parse_run_command(comment, &function.signature);
            let command = command.expect("a valid call");
            commands.extend(command.map(|command| (function.name.to_string(), command)));
        }
    }
    for (function, _) in test.functions {
        file.define(function);
    }
    let mut gates = HashMap::new();
    for (name, _) in &commands {
        if !gates.contains_key(name) {
            let (id, declared) = file.functions[name].clone();
            gates.insert(name.clone(), (file.gate(id, &declared), declared));
        }
    }
    file.module.finalize_definitions().expect("finalizes");
    for (name, command) in &commands {
        let (gate, declared) = &gates[name];
        let ran = command.run(|_, arguments| Ok(file.call(*gate, declared, arguments)));
        ran.unwrap_or_else(|error| panic!("opt_level {opt_level}: {error}"));
    }
    // SAFETY: free_memory needs that no function runs or is called later: all calls are over.
    unsafe { file.module.free_memory() };
    commands.len()
}

#[test]
fn functions_in_text_form_run_low() {
    let low = LowAllocator::new().expect("low memory");
    let files = [
        ("integers", include_str!("../clif/integers.clif"), 12),
        ("control", include_str!("../clif/control.clif"), 12),
        ("memory", include_str!("../clif/memory.clif"), 5),
        ("floats", include_str!("../clif/floats.clif"), 8),
    ];
    for (name, text, calls) in files {
        for opt_level in ["none", "speed", "speed_and_size"] {
            assert_eq!(run(&low, text, opt_level), calls, "{name}");
        }
    }
    assert_eq!(low.statistics().live_bytes, 0);
}
