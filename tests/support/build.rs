//! C sources to objects, archives and natively linked programs, each made once and kept.
//!
//! Everything goes to a folder under cargo's for tests, under a name that is the hash of what it
//! is made from (tool, flags, contents of the sources), so that a later test or run finds it. A
//! file lock keeps two processes from making the same thing at once; the result appears by a
//! rename, so that nobody sees half of it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{Flock, FlockArg};

/// The code model that the loader is for.
pub(crate) const STATIC_SMALL: &[&str] = &["-O2", "-fno-pic", "-fno-pie", "-mcmodel=small"];

fn cache() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("inputs");
    fs::create_dir_all(&folder).expect("cargo's folder for tests can be written");
    folder
}

/// Makes the file `name` unless it is there: `make` is given the path to write. `parts` is all
/// that the result depends on; the hash of it goes into the path.
fn once(name: &str, parts: &[&[u8]], make: impl FnOnce(&Path)) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    let folder = cache().join(format!("{:016x}", hasher.finish()));
    let done = folder.join(name);
    if done.exists() {
        return done;
    }
    fs::create_dir_all(&folder).expect("the cache can be written");
    let lock = File::create(folder.join("lock")).expect("the cache can be written");
    let _held = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .expect("a file can be locked");
    if !done.exists() {
        let partial = folder.join(format!("partial-{name}"));
        make(&partial);
        fs::rename(&partial, &done).expect("a file can be renamed in its folder");
    }
    done
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn succeed(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The C compiler: `CC`, or cc.
pub(crate) fn cc() -> OsString {
    std::env::var_os("CC").unwrap_or_else(|| "cc".into())
}

/// Compiles one C or assembly source; the object is called after it.
pub(crate) fn object(source: &Path, flags: &[String]) -> PathBuf {
    object_by(&cc(), source, flags)
}

/// Compiles one source with a compiler of the test's choice.
pub(crate) fn object_by(compiler: &OsStr, source: &Path, flags: &[String]) -> PathBuf {
    let stem = source
        .file_stem()
        .expect("a source has a name")
        .to_string_lossy();
    let contents = read(source);
    let all_flags = flags.join("\0");
    once(
        &format!("{stem}.o"),
        &[compiler.as_encoded_bytes(), all_flags.as_bytes(), &contents],
        |out| {
            succeed(
                Command::new(compiler)
                    .args(flags)
                    .arg("-c")
                    .arg(source)
                    .arg("-o")
                    .arg(out),
            );
        },
    )
}

/// Compiles several sources, two at a time.
pub(crate) fn objects(sources: &[PathBuf], flags: &[String]) -> Vec<PathBuf> {
    let next = Mutex::new(sources.iter().enumerate());
    let done = Mutex::new(vec![PathBuf::new(); sources.len()]);
    let work = || {
        loop {
            let Some((index, source)) = next.lock().unwrap_or_else(PoisonError::into_inner).next()
            else {
                break;
            };
            let made = object(source, flags);
            done.lock().unwrap_or_else(PoisonError::into_inner)[index] = made;
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    done.into_inner().expect("no compilation failed")
}

/// An archive of objects, with its symbol table.
pub(crate) fn archive(name: &str, objects: &[PathBuf]) -> PathBuf {
    let contents: Vec<Vec<u8>> = objects.iter().map(|path| read(path)).collect();
    let parts: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
    once(name, &parts, |out| {
        succeed(Command::new("ar").arg("rcs").arg(out).args(objects))
    })
}

/// The same files linked by the system's linker into a program at fixed addresses.
pub(crate) fn program(name: &str, files: &[PathBuf], flags: &[&str]) -> PathBuf {
    let contents: Vec<Vec<u8>> = files.iter().map(|path| read(path)).collect();
    let all_flags = flags.join("\0");
    let mut parts: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
    parts.push(all_flags.as_bytes());
    once(name, &parts, |out| {
        succeed(
            Command::new(cc())
                .arg("-no-pie")
                .args(files)
                .args(flags)
                .arg("-o")
                .arg(out),
        );
    })
}
