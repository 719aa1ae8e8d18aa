//! Links in two steps, for those who look externals up elsewhere and perhaps later (an object layer
//! of LLVM's ORC): addresses first, then externals, then a module.

use std::ffi::{CString, c_char, c_void};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::link::{Definitions, ExternalSymbol, Pending};

use super::allocator::set;
use super::handle::{self, Handle, kind};
use super::module::{Loaded, low2g_module, module};
use super::options;
use super::session::{State, low2g_session, state};
use super::status::{Failure, guard_status, low2g_status};
use super::symbol::{low2g_symbol, low2g_symbol_visitor, low2g_undefined_visitor, visit};

/// A link that has addresses and waits for its externals. Any thread may go on with it, one at a time.
pub type low2g_link = Handle<Begun>;

/// What a `low2g_link` points to.
#[derive(Debug)]
pub struct Begun {
    state: Arc<State>,
    work: Mutex<Work>,
}

#[derive(Debug)]
struct Work {
    pending: Pending,
    definitions: Definitions,
    /// Modules whose thread-local variables it uses.
    uses: Vec<Arc<crate::link::Module>>,
}

kind!(Begun, "link", b"l2gLinkk");

/// The first half of `low2g_session_load`: reads what was added since the last load and gives it its
/// addresses. Nothing of it runs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_session_begin(
    session: *const low2g_session,
    link: *mut *mut low2g_link,
    error: *mut *mut c_char,
) -> low2g_status {
    guard_status(error, || {
        if link.is_null() {
            return Err(Failure::null("link"));
        }
        // SAFETY: the caller's handle.
        let state = unsafe { state(session) }?;
        let inputs = state.take_inputs()?;
        let pending = state.load(|session| Ok(session.begin(inputs)?))?;
        let work = Work {
            pending,
            definitions: Definitions::default(),
            uses: Vec::new(),
        };
        let work = Mutex::new(work);
        // SAFETY: the caller's place.
        unsafe { set(link, "link", handle::give(Begun { state, work })) }
    })
}

/// Tells `visitor` of the symbols that the link defines, but for thread-local variables and ifuncs, which
/// have no address yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_link_symbols(
    link: *const low2g_link,
    visitor: low2g_symbol_visitor,
    context: *mut c_void,
    error: *mut *mut c_char,
) -> low2g_status {
    guard_status(error, || {
        // SAFETY: the caller's handle.
        let exports = unsafe { handle::get(link) }?
            .work
            .lock()
            .pending
            .exports()?;
        let exports = exports.iter().map(|(name, export)| (&**name, *export));
        // SAFETY: the caller's function.
        unsafe { visit(exports, visitor, context) }
    })
}

/// Tells `visitor` of the names that the link needs from elsewhere.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_link_undefined(
    link: *const low2g_link,
    visitor: low2g_undefined_visitor,
    context: *mut c_void,
    error: *mut *mut c_char,
) -> low2g_status {
    guard_status(error, || {
        let visitor = visitor.ok_or_else(|| Failure::null("visitor"))?;
        // SAFETY: the caller's handle.
        let begun = unsafe { handle::get(link) }?;
        let names: Vec<_> = {
            let work = begun.work.lock();
            let undefined = work.pending.undefined();
            let with_name = |undefined: crate::link::Undefined<'_>| {
                let name = CString::new(undefined.name).ok()?;
                Some((name, undefined.weak, undefined.thread_local))
            };
            undefined.filter_map(with_name).collect()
        };
        for (name, weak, thread_local) in names {
            // SAFETY: the caller's function, with a string that lives during the call.
            unsafe { visitor(context, name.as_ptr(), weak, thread_local) };
        }
        Ok(())
    })
}

/// Answers for an undefined name. A later answer for the same name wins.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_link_define(
    link: *const low2g_link,
    name: *const c_char,
    symbol: *const low2g_symbol,
    error: *mut *mut c_char,
) -> low2g_status {
    guard_status(error, || {
        // SAFETY: the caller's handle.
        let begun = unsafe { handle::get(link) }?;
        // SAFETY: the caller's arguments.
        let (name, symbol) = unsafe { definition(name, symbol) }?;
        begun.work.lock().definitions.insert(name, symbol);
        Ok(())
    })
}

/// Answers for an undefined thread-local variable: `of` defines it. `of` stays loaded as long as the
/// module of this link.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_link_define_thread_local(
    link: *const low2g_link,
    name: *const c_char,
    of: *const low2g_module,
    error: *mut *mut c_char,
) -> low2g_status {
    guard_status(error, || {
        // SAFETY: the caller's handle.
        let begun = unsafe { handle::get(link) }?;
        // SAFETY: the caller's string.
        let name = unsafe { options::text(name, "name") }?;
        // SAFETY: the caller's handle.
        let of = unsafe { module(of) }?;
        let symbol = of.thread_local_symbol(name).ok_or_else(|| {
            Failure::new(
                low2g_status::NoSymbol,
                format!("the module has no visible thread-local variable {name}"),
            )
        })?;
        let mut work = begun.work.lock();
        work.definitions.insert(name, symbol);
        work.uses.push(of);
        Ok(())
    })
}

/// Puts another definition in the place of the link's own weak one of that name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_link_replace_weak(
    link: *const low2g_link,
    name: *const c_char,
    symbol: *const low2g_symbol,
    error: *mut *mut c_char,
) -> low2g_status {
    guard_status(error, || {
        // SAFETY: the caller's handle.
        let begun = unsafe { handle::get(link) }?;
        // SAFETY: the caller's arguments.
        let (name, symbol) = unsafe { definition(name, symbol) }?;
        let mut work = begun.work.lock();
        if !work.pending.weak_definitions().any(|weak| weak == name) {
            return Err(Failure::new(
                low2g_status::NoSymbol,
                format!("the link has no weak definition of {name}"),
            ));
        }
        let mut one = Definitions::default();
        one.insert(name, symbol);
        work.pending.replace_weak(&one);
        Ok(())
    })
}

/// # Safety
/// NULL, or a string and a symbol.
unsafe fn definition<'t>(
    name: *const c_char,
    symbol: *const low2g_symbol,
) -> Result<(&'t str, ExternalSymbol), Failure> {
    // SAFETY: the caller says so.
    let name = unsafe { options::text(name, "name") }?;
    if symbol.is_null() {
        return Err(Failure::null("symbol"));
    }
    // SAFETY: reading needs a symbol there: the caller says so.
    Ok((name, unsafe { symbol.read() }.external()?))
}

/// The second half of `low2g_session_load`: what no definition of the link names comes from where that
/// function takes it. The link is gone afterwards, whatever the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_link_finish(
    link: *mut low2g_link,
    module: *mut *mut low2g_module,
    error: *mut *mut c_char,
) -> low2g_status {
    guard_status(error, || {
        if module.is_null() {
            return Err(Failure::null("module"));
        }
        // SAFETY: the caller's handle.
        let begun = unsafe { handle::take(link) }?;
        let work = begun.work.into_inner();
        let loaded = begun.state.load(|session| {
            // SAFETY: who finishes a link runs its code, and answered with what is true.
            let finished = unsafe { session.finish(work.pending, work.uses, &work.definitions) };
            Ok(finished?)
        })?;
        // SAFETY: the caller's place.
        unsafe { set(module, "module", handle::give(Loaded(loaded))) }
    })
}

/// Gives a link up; nothing of it stays. NULL is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn low2g_link_abandon(
    link: *mut low2g_link,
    error: *mut *mut c_char,
) -> low2g_status {
    guard_status(error, || {
        if link.is_null() {
            return Ok(());
        }
        // SAFETY: the caller's handle.
        drop(unsafe { handle::take(link) }?);
        Ok(())
    })
}
