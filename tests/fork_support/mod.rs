//! Forks for tests: a child that runs a function, tells numbers, and ends without a word.

#![allow(dead_code, reason = "each test program uses a part")]
#![allow(
    unreachable_pub,
    reason = "a module of test programs is nobody's interface"
)]

use std::io::{PipeReader, PipeWriter, Read, Write};

/// Seconds after which a child that hangs is killed.
const PATIENCE: u32 = 60;

/// How a child tells its parent.
#[derive(Debug)]
pub struct Pipe(PipeWriter);

impl Pipe {
    pub fn send(&self, numbers: &[u64]) {
        for number in numbers {
            let mut pipe = &self.0;
            pipe.write_all(&number.to_ne_bytes()).expect("a pipe");
        }
    }
}

/// A child that runs.
#[derive(Debug)]
pub struct Child {
    pid: libc::pid_t,
    pipe: PipeReader,
}

/// Forks; the child runs `main`, and succeeds if that returns true.
pub fn fork(main: impl FnOnce(&Pipe) -> bool) -> Child {
    // SAFETY: what a child of many threads may do is limited by locks that other threads held: it
    // uses the allocator, which is what is tested, and pipes.
    fork_by(|| unsafe { libc::fork() }, main)
}

/// As `fork`, but without the C library, which knows nothing of it and calls no handler.
#[cfg(target_os = "linux")]
pub fn fork_unnoticed(main: impl FnOnce(&Pipe) -> bool) -> Child {
    let clone = || {
        // SAFETY: clone without flags gives the child a copy of everything; for locks see `fork`.
        let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
        libc::pid_t::try_from(pid).expect("a process id")
    };
    fork_by(clone, main)
}

fn fork_by(fork: impl FnOnce() -> libc::pid_t, main: impl FnOnce(&Pipe) -> bool) -> Child {
    let (pipe, writer) = std::io::pipe().expect("a pipe");
    let pid = fork();
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        drop(pipe);
        // SAFETY: alarm only sets this process's clock; its signal ends a child that hangs.
        unsafe { libc::alarm(PATIENCE) };
        let pipe = Pipe(writer);
        let run = std::panic::AssertUnwindSafe(|| main(&pipe));
        let done = std::panic::catch_unwind(run).unwrap_or(false);
        // SAFETY: _exit ends this process; no destructor of the parent's values runs.
        unsafe { libc::_exit(if done { 0 } else { 1 }) };
    }
    Child { pid, pipe }
}

impl Child {
    pub fn pid(&self) -> u32 {
        self.pid.cast_unsigned()
    }

    /// All that the child tells until it ends.
    pub fn receive(&self) -> Vec<u64> {
        let mut bytes = Vec::new();
        let mut pipe = &self.pipe;
        pipe.read_to_end(&mut bytes).expect("a pipe");
        let words = bytes.chunks_exact(8);
        words
            .map(|word| u64::from_ne_bytes(word.try_into().expect("eight")))
            .collect()
    }

    /// Waits for the child; gives its wait status.
    pub fn wait(self) -> i32 {
        let mut status = 0;
        // SAFETY: waitpid writes the status of a child of ours, which nobody else waits for.
        let waited = unsafe { libc::waitpid(self.pid, &raw mut status, 0) };
        assert_eq!(waited, self.pid);
        status
    }

    /// Waits for the child, which must succeed.
    #[track_caller]
    pub fn succeeds(self) {
        let status = self.wait();
        assert_eq!(status, 0, "the child failed or hung (wait status)");
    }
}
