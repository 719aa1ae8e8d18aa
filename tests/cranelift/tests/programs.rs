//! Real use of Cranelift on low memory: calls among thousands of functions over many rounds, data,
//! libcalls, functions exchanged while they are in use, modules freed while others run.

#![cfg(target_os = "linux")]

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{BlockArg, InstBuilder, MemFlagsData, types};
use cranelift_frontend::FunctionBuilder;
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{
    DataDescription, FuncId, Linkage, Module, ModuleError, default_libcall_names,
};
use low2g::alloc::{LowAllocator, Reach};
use low2g::jit::cranelift::LowMemoryProvider;
use low2g::jit::{CodeModel, SectionKind};
use low2g::platform::{to_u64, to_usize};
use low2g_cranelift_tests::{access, builder, call, define, isa, low_module, signature};

/// Calls `callee`, which is `(i64 x arguments) -> i64`.
fn call_of(
    module: &mut JITModule,
    body: &mut FunctionBuilder<'_>,
    callee: FuncId,
    arguments: &[cranelift_codegen::ir::Value],
) -> cranelift_codegen::ir::Value {
    let callee = module.declare_func_in_func(callee, body.func);
    let call = body.ins().call(callee, arguments);
    body.inst_results(call)[0]
}

/// The whole of Cranelift's smallest example: two functions, one calling the other.
#[test]
fn two_functions() {
    let (mut module, _) = low_module();
    let a = define(&mut module, "a", 1, |_, body, parameters| {
        body.ins().iadd_imm_s(parameters[0], 37)
    });
    let b = define(&mut module, "b", 0, |module, body, _| {
        let five = body.ins().iconst(types::I64, 5);
        call_of(module, body, a, &[five])
    });
    module.finalize_definitions().expect("finalizes");
    assert_eq!(call(&module, b, 0, 0), 42);
    // SAFETY: free_memory needs that no function runs or is called later: this was the last call.
    unsafe { module.free_memory() };
}

/// Function `n` is `x -> x + n + f(n / 2)(x)`, so calls go among all rounds, by 32-bit distance.
#[test]
fn thousands_of_functions_over_many_rounds_call_each_other() {
    const COUNT: i64 = 3000;
    const ROUND: i64 = 100;
    let (mut module, memory) = low_module();
    let mut functions: Vec<FuncId> = Vec::new();
    for n in 0..COUNT {
        let earlier = (n > 0).then(|| functions[to_usize(n.cast_unsigned() / 2)]);
        functions.push(define(
            &mut module,
            &format!("f{n}"),
            1,
            |module, body, parameters| {
                let own = body.ins().iadd_imm_s(parameters[0], n);
                match earlier {
                    Some(earlier) => {
                        let rest = call_of(module, body, earlier, parameters);
                        body.ins().iadd(own, rest)
                    }
                    None => own,
                }
            },
        ));
        if (n + 1) % ROUND == 0 {
            module.finalize_definitions().expect("finalizes");
        }
    }
    let expected = |n: i64, x: i64| {
        let mut sum = x;
        let mut n = n;
        while n > 0 {
            sum += x + n;
            n /= 2;
        }
        sum
    };
    for (n, id) in (0..).zip(&functions) {
        assert_eq!(call(&module, *id, 7, 0), expected(n, 7), "f{n}");
    }
    let regions = memory.regions();
    assert!(
        regions
            .iter()
            .all(|region| region.finalized && region.range.end() < 1 << 31)
    );
    // Ten pages and a half of code a round, were nothing shared.
    let bytes: u64 = regions.iter().map(|region| region.range.len()).sum();
    assert!(bytes < COUNT.cast_unsigned() * 4096 / 10, "{bytes}");
    // SAFETY: as above.
    unsafe { module.free_memory() };
    assert_eq!(memory.regions(), []);
}

#[test]
fn data_objects_have_their_access_and_refer_to_functions_and_to_each_other() {
    let (mut module, memory) = low_module();
    let seven = define(&mut module, "seven", 0, |_, body, _| {
        body.ins().iconst(types::I64, 7)
    });
    let declare = |module: &mut JITModule, name, writable| {
        let id = module.declare_data(name, Linkage::Export, writable, false);
        id.expect("a new name")
    };
    let counter = declare(&mut module, "counter", true);
    let text = declare(&mut module, "text", false);
    let table = declare(&mut module, "table", false);
    let big = declare(&mut module, "big", true);
    let mut data = DataDescription::new();
    data.define_zeroinit(8);
    module.define_data(counter, &data).expect("defined");
    data.clear();
    data.define(b"constant".to_vec().into());
    module.define_data(text, &data).expect("defined");
    data.clear();
    data.define_zeroinit(16);
    data.set_align(16);
    let function = module.declare_func_in_data(seven, &mut data);
    data.write_function_addr(0, function);
    let value = module.declare_data_in_data(text, &mut data);
    data.write_data_addr(8, value, 2);
    module.define_data(table, &data).expect("defined");
    data.clear();
    data.define_zeroinit(3 << 20);
    data.set_align(1 << 16);
    module.define_data(big, &data).expect("defined");

    // counter += x; calls through the table; adds a byte of the text and the last word of `big`.
    let main = define(&mut module, "main", 1, |module, body, parameters| {
        let address = |module: &mut JITModule, body: &mut FunctionBuilder<'_>, id| {
            let value = module.declare_data_in_func(id, body.func);
            body.ins().symbol_value(types::I64, value)
        };
        let flags = MemFlagsData::trusted();
        let at = address(module, body, counter);
        let old = body.ins().load(types::I64, flags, at, 0);
        let new = body.ins().iadd(old, parameters[0]);
        body.ins().store(flags, new, at, 0);
        let at = address(module, body, table);
        let target = body.ins().load(types::I64, flags, at, 0);
        let callee = signature(module, &[], &[types::I64]);
        let callee = body.import_signature(callee);
        let called = body.ins().call_indirect(callee, target, &[]);
        let called = body.inst_results(called)[0];
        let byte = body.ins().load(types::I64, flags, at, 8);
        let byte = body.ins().uload8(types::I64, flags, byte, 0);
        let at = address(module, body, big);
        let last = body.ins().load(types::I64, flags, at, (3 << 20) - 8);
        let sum = body.ins().iadd(new, called);
        let sum = body.ins().iadd(sum, byte);
        body.ins().iadd(sum, last)
    });
    module.finalize_definitions().expect("finalizes");
    assert_eq!(call(&module, main, 100, 0), 100 + 7 + i64::from(b'n'));
    assert_eq!(call(&module, main, 11, 0), 111 + 7 + i64::from(b'n'));
    for (id, size, expected) in [
        (counter, 8, "rw-p"),
        (text, 8, "r--p"),
        (table, 16, "r--p"),
        (big, 3 << 20, "rw-p"),
    ] {
        let (data, bytes) = module.get_finalized_data(id);
        assert_eq!(bytes, size);
        let addr = to_u64(data.expose_provenance());
        assert!(addr < 1 << 31);
        assert_eq!(access(addr).as_deref(), Some(expected));
    }
    let kinds: Vec<SectionKind> = memory.regions().iter().map(|region| region.kind).collect();
    for kind in [SectionKind::Code, SectionKind::ReadOnly, SectionKind::Data] {
        assert!(kinds.contains(&kind));
    }
    // SAFETY: as above.
    unsafe { module.free_memory() };
}

/// Libcalls and the process's own functions are far: their addresses go into the code as 64 bits.
#[test]
fn far_functions_are_called() {
    extern "C" fn host(a: i64, b: i64) -> i64 {
        a * 1000 + b
    }
    let low = LowAllocator::new().expect("low memory");
    let memory = LowMemoryProvider::new(low, CodeModel::Small).expect("serves small code");
    let mut builder = JITBuilder::with_isa(isa("none"), default_libcall_names());
    builder.memory_provider(Box::new(memory));
    builder.symbol("host", host as *const u8);
    let mut module = JITModule::new(builder);
    let import = |module: &mut JITModule, name, parameters| {
        let signature = signature(module, parameters, &[types::I64]);
        let id = module.declare_function(name, Linkage::Import, &signature);
        id.expect("a new name")
    };
    let host = import(&mut module, "host", &[types::I64; 2]);
    let labs = import(&mut module, "labs", &[types::I64]);
    let main = define(&mut module, "main", 2, |module, body, parameters| {
        let positive = call_of(module, body, labs, &parameters[..1]);
        let sum = call_of(module, body, host, &[positive, parameters[1]]);
        // fma has no instruction on the plain x86-64 and is a library call there.
        let float = body.ins().fcvt_from_sint(types::F64, sum);
        let half = body.ins().f64const(0.5);
        let one = body.ins().f64const(1.0);
        let float = body.ins().fma(float, half, one);
        body.ins().fcvt_to_sint_sat(types::I64, float)
    });
    module.finalize_definitions().expect("finalizes");
    assert_eq!(call(&module, main, -8, 4), 8004 / 2 + 1);
    // SAFETY: as above.
    unsafe { module.free_memory() };
}

/// A function is exchanged while its callers stay: they call through a word of data.
#[test]
fn functions_are_exchanged_through_a_slot() {
    let (mut module, _) = low_module();
    let slot = module.declare_data("slot", Linkage::Export, true, false);
    let slot = slot.expect("a new name");
    let mut data = DataDescription::new();
    data.define_zeroinit(8);
    module.define_data(slot, &data).expect("defined");
    let caller = define(&mut module, "caller", 1, |module, body, parameters| {
        let value = module.declare_data_in_func(slot, body.func);
        let at = body.ins().symbol_value(types::I64, value);
        let target = body.ins().load(types::I64, MemFlagsData::trusted(), at, 0);
        let callee = signature(module, &[types::I64], &[types::I64]);
        let callee = body.import_signature(callee);
        let call = body.ins().call_indirect(callee, target, parameters);
        body.inst_results(call)[0]
    });
    for version in 0..50 {
        let name = format!("version{version}");
        let new = define(&mut module, &name, 1, |_, body, parameters| {
            body.ins().iadd_imm_s(parameters[0], version)
        });
        module.finalize_definitions().expect("finalizes");
        let (word, _) = module.get_finalized_data(slot);
        let word = word.cast_mut().cast::<*const u8>();
        let new = module.get_finalized_function(new);
        // SAFETY: write needs 8 aligned writable bytes nobody else uses now: the slot's, which stay
        // writable after finalization, between two calls of this thread.
        unsafe { word.write(new) };
        assert_eq!(call(&module, caller, 1000, 0), 1000 + version);
    }
    // SAFETY: as above.
    unsafe { module.free_memory() };
}

#[test]
fn loops_and_recursion() {
    let (mut module, _) = low_module();
    let declared = signature(&module, &[types::I64], &[types::I64]);
    let fib = module.declare_function("fib", Linkage::Export, &declared);
    let fib = fib.expect("a new name");
    define(&mut module, "fib", 1, |module, body, parameters| {
        let n = parameters[0];
        let (done, more) = (body.create_block(), body.create_block());
        body.append_block_param(done, types::I64);
        let small = body.ins().icmp_imm_s(IntCC::SignedLessThan, n, 2);
        body.ins()
            .brif(small, done, &[BlockArg::Value(n)], more, &[]);
        body.switch_to_block(more);
        let one = body.ins().iadd_imm_s(n, -1);
        let one = call_of(module, body, fib, &[one]);
        let two = body.ins().iadd_imm_s(n, -2);
        let two = call_of(module, body, fib, &[two]);
        let sum = body.ins().iadd(one, two);
        body.ins().jump(done, &[BlockArg::Value(sum)]);
        body.switch_to_block(done);
        body.block_params(done)[0]
    });
    module.finalize_definitions().expect("finalizes");
    assert_eq!(call(&module, fib, 20, 0), 6765);
    // SAFETY: as above.
    unsafe { module.free_memory() };
}

#[test]
fn modules_on_several_threads_are_freed_while_others_run() {
    let low = LowAllocator::new().expect("low memory");
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let low = low.clone();
            scope.spawn(move || {
                for turn in 0..10 {
                    let memory = LowMemoryProvider::new(low.clone(), CodeModel::Small);
                    let memory = memory.expect("serves small code");
                    let mut module = JITModule::new(builder(Box::new(memory)));
                    let id = define(&mut module, "f", 2, |_, body, parameters| {
                        let sum = body.ins().iadd(parameters[0], parameters[1]);
                        body.ins().iadd_imm_s(sum, thread * 100 + turn)
                    });
                    module.finalize_definitions().expect("finalizes");
                    assert_eq!(call(&module, id, 1, 2), 3 + thread * 100 + turn);
                    // SAFETY: as above.
                    unsafe { module.free_memory() };
                }
            });
        }
    });
    assert_eq!(low.statistics().live_bytes, 0);
}

#[test]
fn want_of_memory_is_cranelifts_own_error_and_earlier_functions_go_on() {
    let reach: Reach = "0x38000000-0x38008000".parse().expect("a reach");
    let low = LowAllocator::builder().reach(reach).build();
    let memory = LowMemoryProvider::new(low.expect("a window"), CodeModel::Small);
    let mut module = JITModule::new(builder(Box::new(memory.expect("serves small code"))));
    let kept = define(&mut module, "kept", 1, |_, body, parameters| {
        body.ins().iadd_imm_s(parameters[0], 1)
    });
    let data = module.declare_data("big", Linkage::Export, true, false);
    let mut description = DataDescription::new();
    description.define_zeroinit(1 << 20);
    let error = module.define_data(data.expect("a new name"), &description);
    let error = error.expect_err("the window has 32 KiB");
    assert!(matches!(error, ModuleError::Allocation { .. }), "{error:?}");
    assert!(format!("{error:?}").contains("1048576"), "{error:?}");
    module.finalize_definitions().expect("finalizes");
    assert_eq!(call(&module, kept, 41, 0), 42);
    // SAFETY: as above.
    unsafe { module.free_memory() };
}
