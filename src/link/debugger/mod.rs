//! Loaded code made known to debuggers: gdb's interface for code that is made at run time
//! (gdb manual, "JIT Compilation Interface"; lldb reads it as well).
//!
//! A module is one ELF image in memory, whatever number of objects it has: a debugger works
//! through all its files at each new one, so an image an object would cost the square.
//!
//! ```text
//! regions of the module      sections without bytes, at their true addresses
//! symbols of the objects     .symtab, with `name@plt` for stubs
//! frame tables (`unwind`)    .eh_frame: objects, islands and stubs
//! .debug_* of all objects    side by side, relocated to where code and data are
//! ```

mod image;
#[cfg(all(
    target_arch = "x86_64",
    any(target_os = "linux", target_os = "freebsd")
))]
#[path = "list.rs"]
mod list;
/// Systems whose debuggers have no such interface.
#[cfg(not(all(
    target_arch = "x86_64",
    any(target_os = "linux", target_os = "freebsd")
)))]
#[path = "no_list.rs"]
mod list;
mod sections;

use std::sync::OnceLock;

use super::linked::Linked;
use super::options::Debugger;
use super::unwind::Frames;
use list::Registered;

/// What debuggers are told of a module, while it lives.
#[derive(Debug, Default)]
pub(crate) struct Description {
    image: Vec<u8>,
    registered: Option<Registered>,
}

impl Description {
    /// Describes a finished link, if somebody may want it.
    pub(crate) fn of(linked: &Linked<'_>, frames: &Frames) -> Self {
        let wanted = match linked.debugger {
            Debugger::Always => true,
            Debugger::Never => false,
            Debugger::Traced => is_traced(),
        };
        Self {
            image: match wanted {
                true => sections::image(linked, frames),
                false => Vec::new(),
            },
            registered: None,
        }
    }

    /// Tells the debugger; once only.
    pub(crate) fn register(&mut self) {
        if !self.image.is_empty() {
            let image = std::mem::take(&mut self.image);
            self.registered = Some(Registered::new(image.into_boxed_slice()));
        }
    }

    /// Takes it back: the code is about to go.
    pub(crate) fn withdraw(&mut self) {
        self.registered = None;
    }
}

/// Whether a debugger was attached when this was first asked: once a process, since it is a file
/// to read. Source: Linux, proc_pid_status(5).
fn is_traced() -> bool {
    static TRACED: OnceLock<bool> = OnceLock::new();
    *TRACED.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let tracer = status
            .lines()
            .find_map(|line| line.strip_prefix("TracerPid:"));
        tracer.is_some_and(|tracer| tracer.trim() != "0")
    })
}
