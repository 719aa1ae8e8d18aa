//! Destructors of C++ `thread_local` objects, which run when a thread ends.
//!
//! Compilers register them with `__cxa_thread_atexit(destructor, object, &__dso_handle)`, and
//! the C library keeps the library that `__dso_handle` is in. Ours is in no library: so the
//! resolver gives objects the function below, which counts what is pending for each module.
//! A module dropped while some are pending is parked, and goes when the last has run.
//!
//! Invariant: an owner is in `OWNERS` as long as its module's code can run.

use std::ffi::{c_int, c_void};
use std::sync::{Arc, OnceLock};

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};

use crate::link::host::{self, Scope};
use crate::link::module::Module;

/// The names under which compilers and languages ask for the function.
pub(crate) const NAMES: [&str; 2] = ["__cxa_thread_atexit", "__cxa_thread_atexit_impl"];

type Destructor = unsafe extern "C" fn(*mut c_void);
type Register = unsafe extern "C" fn(Destructor, *mut c_void, *mut c_void) -> c_int;

/// Modules by what their `__dso_handle` stands for.
static OWNERS: RwLock<Option<HashMap<usize, Arc<Owner>>>> = RwLock::new(None);

/// Whose destructors they are.
#[derive(Debug, Default)]
struct Owner {
    state: Mutex<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    count: usize,
    parked: Option<Box<Module>>,
}

/// A destructor to run.
struct Node {
    destructor: Destructor,
    object: *mut c_void,
    owner: Arc<Owner>,
}

/// Makes a module known. Dropping it makes it unknown.
#[derive(Debug)]
pub(crate) struct Registration {
    dso_handle: usize,
    owner: Arc<Owner>,
}

impl Registration {
    /// Enters the module whose `__dso_handle` is `dso_handle`.
    pub(crate) fn new(dso_handle: u64) -> Self {
        let dso_handle = low2g_platform::to_usize(dso_handle);
        let owner = Arc::<Owner>::default();
        let mut owners = OWNERS.write();
        let owners = owners.get_or_insert_default();
        owners.insert(dso_handle, Arc::clone(&owner));
        Self { dso_handle, owner }
    }

    /// Where the module is parked: apart from the registration, which moves with the module.
    pub(crate) fn parking(&self) -> Parking {
        Parking(Arc::clone(&self.owner))
    }
}

/// A module's place until its last pending destructor has run.
#[derive(Debug)]
pub(crate) struct Parking(Arc<Owner>);

impl Parking {
    /// Keeps what `module` gives if a destructor is pending; else asks for nothing and
    /// returns `false`.
    pub(crate) fn park(&self, module: impl FnOnce() -> Module) -> bool {
        let mut state = self.0.state.lock();
        let pending = state.count > 0;
        if pending {
            state.parked = Some(Box::new(module()));
        }
        pending
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(owners) = OWNERS.write().as_mut() {
            owners.remove(&self.dso_handle);
        }
    }
}

/// The C library's function, if it has one (glibc, FreeBSD; not musl).
fn native() -> Option<Register> {
    static FOUND: OnceLock<Option<Register>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let name = c"__cxa_thread_atexit_impl";
        host::symbol(Scope::Process, name, None).map(|addr| {
            let addr = low2g_platform::to_usize(addr);
            let found = std::ptr::with_exposed_provenance::<c_void>(addr);
            // SAFETY: the C libraries that have it give it this signature (Itanium C++ ABI, 3.3.6).
            unsafe { std::mem::transmute::<*const c_void, Register>(found) }
        })
    })
}

/// The address to give for one of [`NAMES`]; `None` where the C library has no such function.
pub(crate) fn address() -> Option<u64> {
    native()?;
    Some(low2g_platform::to_u64((thread_atexit as *const ()).addr()))
}

/// `__cxa_thread_atexit` for loaded code. 0 on success.
unsafe extern "C" fn thread_atexit(
    destructor: Destructor,
    object: *mut c_void,
    dso_handle: *mut c_void,
) -> c_int {
    let Some(native) = native() else {
        return -1;
    };
    let owner = OWNERS
        .read()
        .as_ref()
        .and_then(|owners| owners.get(&dso_handle.addr()).cloned());
    let Some(owner) = owner else {
        // SAFETY: the caller's arguments as they are.
        return unsafe { native(destructor, object, dso_handle) };
    };
    owner.state.lock().count += 1;
    let node = Box::into_raw(Box::new(Node {
        destructor,
        object,
        owner,
    }));
    // The library that must stay is the one that `run` is in.
    let here = (run as *const ()).cast_mut().cast();
    // SAFETY: `run` takes the node that it is registered with, once.
    let failed = unsafe { native(run, node.cast(), here) };
    if failed != 0 {
        // SAFETY: the node came from a Box and was not taken.
        let node = unsafe { Box::from_raw(node) };
        node.owner.release();
    }
    failed
}

/// Runs one destructor at the end of its thread.
unsafe extern "C" fn run(node: *mut c_void) {
    // SAFETY: `thread_atexit` registered a node from a Box, to run once.
    let node = unsafe { Box::from_raw(node.cast::<Node>()) };
    // SAFETY: the loaded code registered the pair; its module is mapped, because this
    // destructor counts as pending.
    unsafe { (node.destructor)(node.object) };
    node.owner.release();
}

impl Owner {
    /// One destructor less; the parked module goes with the last.
    fn release(&self) {
        let mut state = self.state.lock();
        state.count -= 1;
        let parked = if state.count == 0 {
            state.parked.take()
        } else {
            None
        };
        drop(state);
        drop(parked);
    }
}
