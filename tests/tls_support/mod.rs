//! What the tests of thread-local storage share: the models, loading, threads of before.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use low2g::link::{Input, LinkOptions, Module, Relax, Session, SessionError};

use crate::support;

/// Flags that make the compiler use a model.
pub(crate) struct Model {
    pub(crate) name: &'static str,
    pub(crate) flags: &'static [&'static str],
    /// Its own variables need a constant offset.
    pub(crate) fixed: bool,
}

/// Every model that gcc has sequences for.
pub(crate) const MODELS: &[Model] = &[
    model("le", &["-fno-pic", "-ftls-model=local-exec"], true),
    model(
        "le-large",
        &["-fno-pic", "-mcmodel=large", "-ftls-model=local-exec"],
        true,
    ),
    model("ie", &["-fno-pic", "-ftls-model=initial-exec"], true),
    model("ie-pic", &["-fPIC", "-ftls-model=initial-exec"], true),
    model("gd", &["-fPIC", "-ftls-model=global-dynamic"], false),
    model(
        "gd-no-plt",
        &["-fPIC", "-fno-plt", "-ftls-model=global-dynamic"],
        false,
    ),
    model(
        "gd-large",
        &["-fPIC", "-mcmodel=large", "-ftls-model=global-dynamic"],
        false,
    ),
    model("ld", &["-fPIC", "-ftls-model=local-dynamic"], false),
    model(
        "ld-no-plt",
        &["-fPIC", "-fno-plt", "-ftls-model=local-dynamic"],
        false,
    ),
    model(
        "ld-large",
        &["-fPIC", "-mcmodel=large", "-ftls-model=local-dynamic"],
        false,
    ),
    model("desc", &["-fPIC", "-mtls-dialect=gnu2"], false),
    model(
        "desc-ld",
        &["-fPIC", "-mtls-dialect=gnu2", "-ftls-model=local-dynamic"],
        false,
    ),
];

const fn model(name: &'static str, flags: &'static [&'static str], fixed: bool) -> Model {
    Model { name, flags, fixed }
}

/// What one test holds while it has static blocks: the dynamic linker takes static space back
/// only from its end, so blocks of two tests at once would leave holes.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A source of tests/inputs/tls, compiled.
pub(crate) fn compile(source: &str, flags: &[&str], more: &[String]) -> PathBuf {
    compile_by(&support::build::cc(), source, flags, more)
}

/// The same, by a compiler of the test's choice.
pub(crate) fn compile_by(
    compiler: &OsStr,
    source: &str,
    flags: &[&str],
    more: &[String],
) -> PathBuf {
    let mut all = vec!["-O1".to_owned()];
    all.extend(flags.iter().map(|&flag| flag.to_owned()));
    all.extend_from_slice(more);
    support::build::object_by(compiler, &support::input("tls").join(source), &all)
}

/// Loads objects with the process's symbols.
pub(crate) fn load(paths: &[PathBuf], relax: Relax) -> Result<Arc<Module>, SessionError> {
    let session = Session::new().expect("low memory").options(LinkOptions {
        relax,
        ..LinkOptions::default()
    });
    let inputs: Vec<Input> = paths
        .iter()
        .map(|path| Input::from_file(path).expect("compiled"))
        .collect();
    // SAFETY: the objects are compiled from tests/inputs/tls; their constructors are harmless.
    unsafe { session.load(&inputs) }
}

/// A function of the module that returns an address.
pub(crate) fn pointer(module: &Module, name: &str) -> extern "C" fn() -> *mut u8 {
    // SAFETY: the sources declare these functions without arguments, returning a pointer.
    unsafe { module.function(name) }.unwrap_or_else(|| panic!("{name} is defined"))
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread that waits for work.
pub(crate) struct Worker {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    pub(crate) fn start() -> Self {
        let (jobs, work) = channel::<Job>();
        let thread = std::thread::spawn(move || work.into_iter().for_each(|job| job()));
        Self {
            jobs: Some(jobs),
            thread: Some(thread),
        }
    }

    /// Runs `job` in the thread and gives its result.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, result) = channel();
        let boxed = Box::new(move || answer.send(job()).expect("the asker waits"));
        let jobs = self.jobs.as_ref().expect("not ended");
        jobs.send(boxed).expect("the thread waits for jobs");
        result.recv().expect("the job does not panic")
    }

    /// Ends the thread, with its thread-local objects.
    pub(crate) fn end(mut self) {
        self.jobs = None;
        let thread = self.thread.take().expect("not ended");
        thread.join().expect("no job panics");
    }
}
