//! Sessions: objects and archives in, modules out.

use std::cell::RefCell;
use std::ffi::{c_char, c_void};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::alloc::LowAllocator;
use crate::jit::{Relocations, check_reach};
use crate::link::{Input, Session};

use super::allocator::{low2g_allocator, set};
use super::handle::{self, Handle, kind};
use super::module::{Loaded, low2g_module};
use super::options;
use super::status::{Failure, guard, guard_status, low2g_status};
use super::symbol::{Callback, low2g_resolver};

/// Loads objects into low memory. Modules loaded in one session see each other's symbols. Several
/// threads may use one at the same time; what one adds is loaded by whichever loads next.
pub type low2g_session = Handle<Shared>;

/// What a `low2g_session` points to; a load keeps it while it runs.
#[derive(Debug)]
pub struct Shared(pub(super) Arc<State>);

/// A session and what was added to it since the last load.
#[derive(Debug)]
pub struct State {
    pub(super) session: RwLock<Session>,
    inputs: Mutex<Vec<Input>>,
}

kind!(Shared, "session", b"l2gSessn");

thread_local! {
    /// Sessions whose loads this thread is in: code that they run may come back here.
    static LOADING: RefCell<Vec<*const State>> = const { RefCell::new(Vec::new()) };
}

/// Says that this thread is in a load until it is dropped.
struct InLoad;

impl Drop for InLoad {
    fn drop(&mut self) {
        LOADING.with_borrow_mut(Vec::pop);
    }
}

impl State {
    /// Runs `load` with the session; code that it runs may load, but not define.
    pub(super) fn load<T>(
        self: &Arc<Self>,
        load: impl FnOnce(&Session) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        LOADING.with_borrow_mut(|loading| loading.push(Arc::as_ptr(self)));
        let _in_load = InLoad;
        load(&self.session.read_recursive())
    }

    fn change<T>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Session) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if LOADING.with_borrow(|loading| loading.contains(&Arc::as_ptr(self))) {
            return Err(Failure::new(
                low2g_status::WrongOrder,
                "a session cannot be changed by a resolver or constructor of its own load",
            ));
        }
        change(&mut self.session.write())
    }

    /// Takes what was added.
    pub(super) fn take_inputs(&self) -> Result<Vec<Input>, Failure> {
        let inputs = std::mem::take(&mut *self.inputs.lock());
        if inputs.is_empty() {
            return Err(Failure::new(
                low2g_status::WrongOrder,
                "nothing was added to the session since the last load",
            ));
        }
        Ok(inputs)
    }
}

/// The session behind a handle.
///
/// # Safety
/// The caller's handle.
pub(super) unsafe fn state(session: *const low2g_session) -> Result<Arc<State>, Failure> {
    // SAFETY: the caller's handle.
    Ok(Arc::clone(&unsafe { handle::get(session) }?.0))
}

/// A session. `allocator` places its modules; NULL for one of its own with the default settings.
/// `options` is NULL or `key=value` pairs joined by commas: `model=small|medium|large|small-pic`,
/// `relax=none|pcrel|all`, `far-data=island|error`, `debugger=traced|always|never`, `entry=SYM`,
/// `whole-archive=yes|no`, `scatter=yes|no`, `share-hidden=yes|no`, `process-symbols=yes|no`.
///
/// A named model other than `small-pic` is that of static code: an allocator whose reach does not serve
/// it is refused with `LOW2G_STATUS_REACH_TOO_WIDE`. Where none is named, each object is held to what
/// it needs when it is linked.
///
/// Returns NULL on failure; then `*error`, if `error` is not NULL, is a text to `free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_session_new(
    allocator: *const low2g_allocator,
    options: *const c_char,
    error: *mut *mut c_char,
) -> *mut low2g_session {
    let made = guard(error, || {
        let low = if allocator.is_null() {
            LowAllocator::new()?
        } else {
            // SAFETY: the caller's handle.
            unsafe { handle::get(allocator) }?.low.clone()
        };
        // SAFETY: the caller's string.
        let options = options::session(unsafe { options::optional_text(options, "options") }?)?;
        if let Some(model) = options.absolute {
            check_reach(&low, model, Relocations::Absolute)?;
        }
        let mut session = Session::with_allocator(low).options(options.link);
        if !options.process_symbols {
            session = session.without_process_symbols();
        }
        Ok(handle::give(Shared(Arc::new(State {
            session: RwLock::new(session),
            inputs: Mutex::default(),
        }))))
    });
    made.unwrap_or(std::ptr::null_mut())
}

/// Frees a session; its modules stay loaded. NULL is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_session_free(session: *mut low2g_session) -> low2g_status {
    guard_status(std::ptr::null_mut(), || {
        if session.is_null() {
            return Ok(());
        }
        // SAFETY: the caller's handle.
        drop(unsafe { handle::take(session) }?);
        Ok(())
    })
}

/// Adds an object or archive for the next load. Its `size` bytes at `data` are copied; `name` is shown
/// in messages.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_session_add_memory(
    session: *const low2g_session,
    name: *const c_char,
    data: *const c_void,
    size: usize,
    error: *mut *mut c_char,
) -> low2g_status {
    guard_status(error, || {
        // SAFETY: the caller's handle.
        let state = unsafe { state(session) }?;
        // SAFETY: the caller's string.
        let name = unsafe { options::text(name, "name") }?;
        if data.is_null() {
            return Err(Failure::null("data"));
        }
        if isize::try_from(size).is_err() {
            return Err(Failure::invalid(format!(
                "{size} bytes are more than there can be"
            )));
        }
        // SAFETY: from_raw_parts needs `size` readable bytes: the caller's.
        let bytes = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), size) };
        state.inputs.lock().push(Input::from_bytes(name, bytes));
        Ok(())
    })
}

/// Adds an object, archive or linker script for the next load. The shared libraries that a script
/// names are opened.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_session_add_file(
    session: *const low2g_session,
    path: *const c_char,
    error: *mut *mut c_char,
) -> low2g_status {
    guard_status(error, || {
        // SAFETY: the caller's handle.
        let state = unsafe { state(session) }?;
        // SAFETY: the caller's string.
        let path = unsafe { options::text(path, "path") }?;
        let input = Input::from_file(path)
            .map_err(|error| Failure::new(low2g_status::File, error.to_string()))?;
        for library in input.libraries() {
            let name = library.to_string_lossy();
            state.change(|session| open(session, &name))?;
        }
        state.inputs.lock().push(input);
        Ok(())
    })
}

/// Opens a shared library, by path or soname, whose symbols are asked before the process's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_session_open_library(
    session: *const low2g_session,
    name: *const c_char,
    error: *mut *mut c_char,
) -> low2g_status {
    guard_status(error, || {
        // SAFETY: the caller's string.
        let name = unsafe { options::text(name, "name") }?;
        // SAFETY: the caller's handle.
        unsafe { state(session) }?.change(|session| open(session, name))
    })
}

fn open(session: &mut Session, name: &str) -> Result<(), Failure> {
    let opened = session.open_library(name);
    opened.map_err(|error| Failure::new(low2g_status::File, error.to_string()))
}

/// Defines a function of the program under `name`, before the process's own symbols.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_session_define_function(
    session: *const low2g_session,
    name: *const c_char,
    addr: *const c_void,
    error: *mut *mut c_char,
) -> low2g_status {
    guard_status(error, || {
        // SAFETY: the caller's string.
        let name = unsafe { options::text(name, "name") }?;
        // SAFETY: the caller's handle.
        unsafe { state(session) }?.change(|session| {
            session.define_function(name, addr.cast());
            Ok(())
        })
    })
}

/// Defines a variable of the program, `size` bytes at `addr`, under `name`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_session_define_data(
    session: *const low2g_session,
    name: *const c_char,
    addr: *const c_void,
    size: usize,
    error: *mut *mut c_char,
) -> low2g_status {
    guard_status(error, || {
        // SAFETY: the caller's string.
        let name = unsafe { options::text(name, "name") }?;
        // SAFETY: the caller's handle.
        unsafe { state(session) }?.change(|session| {
            session.define_data(name, addr.cast(), low2g_platform::to_u64(size));
            Ok(())
        })
    })
}

/// Asks `resolver` with `context` for what no definition names, before earlier modules and the
/// process. NULL for none. Any thread that loads may call it, until another is set or the session is
/// freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_session_set_resolver(
    session: *const low2g_session,
    resolver: low2g_resolver,
    context: *mut c_void,
    error: *mut *mut c_char,
) -> low2g_status {
    guard_status(error, || {
        // SAFETY: the caller's handle.
        unsafe { state(session) }?.change(|session| {
            session.set_resolver(resolver.map(|function| {
                let callback: Box<dyn crate::link::SymbolResolver + Send + Sync> =
                    Box::new(Callback { function, context });
                callback
            }));
            Ok(())
        })
    })
}

/// Links what was added since the last load, and runs its constructors: a module. Undefined names come
/// from definitions, the resolver, modules loaded earlier, libraries and the process, in this
/// order. On failure nothing stays mapped, and what was added is gone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_session_load(
    session: *const low2g_session,
    module: *mut *mut low2g_module,
    error: *mut *mut c_char,
) -> low2g_status {
    guard_status(error, || {
        if module.is_null() {
            return Err(Failure::null("module"));
        }
        // SAFETY: the caller's handle.
        let state = unsafe { state(session) }?;
        let inputs = state.take_inputs()?;
        let loaded = state.load(|session| {
            // SAFETY: who loads an object runs its code.
            Ok(unsafe { session.load(&inputs) }?)
        })?;
        // SAFETY: the caller's place.
        unsafe { set(module, "module", handle::give(Loaded(loaded))) }
    })
}
