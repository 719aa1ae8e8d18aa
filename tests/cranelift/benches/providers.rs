//! low2g's memory provider beside Cranelift's own: time to define and finalize functions, time and
//! memory of modules of one function, spread of addresses, and what holds functions back.
//!
//! `cargo bench -p low2g-cranelift-tests`. Machine code is made once, so that what is measured is the
//! module's and the provider's work. Medians; the peers take turns in one run. `--once` makes one
//! round.

use std::collections::BTreeSet;
use std::time::Instant;

use cranelift_codegen::ir::{InstBuilder, types};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{ArenaMemoryProvider, JITMemoryProvider, JITModule, SystemMemoryProvider};
use cranelift_module::{Linkage, Module};
use low2g::alloc::LowAllocator;
use low2g::jit::{CodeModel, cranelift::LowMemoryProvider};
use low2g_cranelift_tests::{builder, signature};

/// Functions of one module.
const FUNCTIONS: usize = 1_000;
/// Modules of one function each.
const MODULES: usize = 200;
/// What an arena reserves: enough for `FUNCTIONS`.
const ARENA: usize = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    System,
    Arena,
    Low2g,
}

const KINDS: [Kind; 3] = [Kind::System, Kind::Arena, Kind::Low2g];

fn module(kind: Kind, low: &LowAllocator, arena: usize) -> JITModule {
    let memory: Box<dyn JITMemoryProvider + Send> = match kind {
        Kind::System => Box::new(SystemMemoryProvider::new()),
        Kind::Arena => Box::new(ArenaMemoryProvider::new_with_size(arena).expect("address space")),
        Kind::Low2g => Box::new(
            LowMemoryProvider::new(low.clone(), CodeModel::Small).expect("serves small code"),
        ),
    };
    JITModule::new(builder(memory))
}

/// Machine code of a function of some 250 bytes without relocations.
fn code() -> Vec<u8> {
    let low = LowAllocator::new().expect("low memory");
    let module = module(Kind::Low2g, &low, 0);
    let mut context = module.make_context();
    context.func.signature = signature(&module, &[types::I64], &[types::I64]);
    let mut frontend = FunctionBuilderContext::new();
    let mut body = FunctionBuilder::new(&mut context.func, &mut frontend);
    let entry = body.create_block();
    body.append_block_params_for_function_params(entry);
    body.switch_to_block(entry);
    let mut value = body.block_params(entry)[0];
    for step in 1..24 {
        let square = body.ins().imul(value, value);
        let shifted = body.ins().ushr_imm_u(square, step % 7);
        value = body.ins().bxor(shifted, value);
    }
    body.ins().return_(&[value]);
    body.seal_all_blocks();
    body.finalize(module.target_config());
    let mut state = cranelift_codegen::control::ControlPlane::default();
    let compiled = context
        .compile(module.isa(), &mut state)
        .expect("a valid function");
    assert!(compiled.buffer.relocs().is_empty());
    compiled.code_buffer().to_vec()
}

/// Defines `count` functions, finalizes them, calls the last; gives its address.
fn define(module: &mut JITModule, count: usize, code: &[u8]) -> usize {
    let signature = signature(module, &[types::I64], &[types::I64]);
    let mut last = None;
    for number in 0..count {
        let name = format!("f{number}");
        let id = module.declare_function(&name, Linkage::Local, &signature);
        let id = id.expect("a new name");
        module
            .define_function_bytes(id, 16, code, &[])
            .expect("memory");
        last = Some(id);
    }
    module.finalize_definitions().expect("memory");
    let address = module.get_finalized_function(last.expect("one at least"));
    // SAFETY: transmuting needs a function of this type there: `code` made it.
    let function: extern "C" fn(u64) -> u64 = unsafe { std::mem::transmute(address) };
    std::hint::black_box(function(std::hint::black_box(7)));
    address.addr()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The process's resident set, and how many mappings it has.
fn memory_use() -> (i64, i64) {
    let status = std::fs::read_to_string("/proc/self/statm").expect("this is Linux");
    let pages: i64 = status
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .expect("statm has numbers");
    let maps = std::fs::read_to_string("/proc/self/maps").expect("this is Linux");
    let lines = i64::try_from(maps.lines().count()).expect("few");
    (pages * 4096, lines)
}

/// Nanoseconds a function in one module.
fn one_module(kind: Kind, low: &LowAllocator, code: &[u8]) -> f64 {
    let mut module = module(kind, low, ARENA);
    let start = Instant::now();
    define(&mut module, FUNCTIONS, code);
    let took = start.elapsed().as_secs_f64() * 1e9;
    // SAFETY: no function of the module is called any more.
    unsafe { module.free_memory() };
    took / f64::from(u32::try_from(FUNCTIONS).expect("few"))
}

/// Nanoseconds a module of one function, its end included; bytes resident and mappings a module;
/// addresses.
fn many_modules(kind: Kind, low: &LowAllocator, code: &[u8]) -> (f64, f64, f64, BTreeSet<usize>) {
    let before = memory_use();
    let start = Instant::now();
    let mut addresses = BTreeSet::new();
    let modules: Vec<_> = (0..MODULES)
        .map(|_| {
            let mut module = module(kind, low, 64 << 10);
            addresses.insert(define(&mut module, 1, code));
            module
        })
        .collect();
    let mut took = start.elapsed();
    let after = memory_use();
    let start = Instant::now();
    for module in modules {
        // SAFETY: as above.
        unsafe { module.free_memory() };
    }
    took += start.elapsed();
    let count = f64::from(u32::try_from(MODULES).expect("few"));
    let each = |total: i64| f64::from(i32::try_from(total).expect("small")) / count;
    (
        took.as_secs_f64() * 1e9 / count,
        each(after.0 - before.0),
        each(after.1 - before.1),
        addresses,
    )
}

fn main() {
    let once = std::env::args().any(|word| word == "--once");
    let rounds = if once { 1 } else { 31 };
    let low = LowAllocator::new().expect("low memory");
    let code = code();
    println!("functions of {} bytes, medians of {rounds}", code.len());
    let mut figures = KINDS.map(|_| (Vec::new(), Vec::new(), Vec::new(), Vec::new()));
    let mut spread = KINDS.map(|_| BTreeSet::new());
    for _ in 0..rounds {
        for (index, kind) in KINDS.into_iter().enumerate() {
            figures[index].0.push(one_module(kind, &low, &code));
            let (time, resident, mappings, addresses) = many_modules(kind, &low, &code);
            figures[index].1.push(time);
            figures[index].2.push(resident);
            figures[index].3.push(mappings);
            // Distances of neighbours: what one address gives away of the next.
            let sorted: Vec<usize> = addresses.into_iter().collect();
            spread[index].extend(sorted.windows(2).map(|pair| pair[1] - pair[0]));
        }
    }
    for ((kind, figures), distances) in KINDS.into_iter().zip(figures).zip(spread) {
        println!(
            "{:7} one module of {FUNCTIONS}: {:7.0} ns a function; modules of one: {:7.0} ns, \
             {:6.0} bytes resident, {:.1} mappings each, {} distances of neighbours",
            format!("{kind:?}"),
            median(figures.0),
            median(figures.1),
            median(figures.2),
            median(figures.3),
            distances.len()
        );
    }
}
