//! `fork`, where the system has it: functions that run around it.

/// Has `prepare` run before each fork of this process, in the thread that forks, and `parent` and
/// `child` after it in each of the two; says whether the system accepted that. They do not run for
/// children that are made past the C library (a raw `clone`), nor by `vfork` and `posix_spawn`,
/// whose children run nothing of this program.
#[cfg(unix)]
#[must_use]
pub fn at_fork(prepare: extern "C" fn(), parent: extern "C" fn(), child: extern "C" fn()) -> bool {
    // SAFETY: pthread_atfork needs functions that stay for as long as the process: they are
    // this program's own.
    unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) == 0 }
}

/// Processes of this system do not fork.
#[cfg(not(unix))]
#[must_use]
pub fn at_fork(_: extern "C" fn(), _: extern "C" fn(), _: extern "C" fn()) -> bool {
    true
}
