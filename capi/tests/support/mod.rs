//! C and C++ programs built against the header and either library by the system's compilers, and run.

pub(crate) mod llvm;
#[path = "../../../tests/support/needs.rs"]
mod needs;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

#[allow(
    unused_imports,
    reason = "each test binary uses a part of what they share"
)]
pub(crate) use needs::{program, require};

/// The top folder of the sources.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Which library a program is linked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Library {
    Static,
    Shared,
}

/// Where the libraries are, as they are to be built from these sources.
pub(crate) fn built() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        // TARGET/PROFILE/deps/TEST
        let test = std::env::current_exe().expect("the test's own path");
        let folder = test.ancestors().nth(2).expect("a folder of the profile");
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--locked", "-p", "low2g-capi"]);
        if folder.ends_with("release") {
            build.arg("--release");
        }
        let target = folder.parent().expect("cargo's target folder");
        succeed(build.arg("--target-dir").arg(target).current_dir(root()));
        folder.to_owned()
    })
}

impl Library {
    pub(crate) const BOTH: [Self; 2] = [Self::Static, Self::Shared];

    /// What follows the sources on the compiler's command line.
    pub(crate) fn flags(self) -> Vec<String> {
        let folder = built();
        let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
        let mut flags = match self {
            Self::Static => vec![path("liblow2g.a")],
            Self::Shared => vec![
                path("liblow2g.so"),
                format!("-Wl,-rpath,{}", folder.display()),
            ],
        };
        flags.extend(["-lpthread", "-ldl", "-lm"].map(str::to_owned));
        flags
    }
}

/// Builds `source` of tests/capi, or another by its path, with every warning an error.
pub(crate) fn build(
    compiler: &str,
    source: &str,
    library: Library,
    folder: &Path,
    flags: &[&str],
) -> PathBuf {
    let program = folder.join(format!("{}-{library:?}", source.replace('/', "-")));
    let mut command = Command::new(compiler);
    command.args(["-g", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"]);
    command.arg("-I").arg(root().join("include"));
    command.arg(match source.contains('/') {
        true => root().join(source),
        false => root().join("tests/capi").join(source),
    });
    command
        .args(flags)
        .args(library.flags())
        .arg("-o")
        .arg(&program);
    succeed(&mut command);
    program
}

/// Runs `command`, which must succeed.
pub(crate) fn succeed(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Compiles a source of tests/capi to an object of the small static model.
pub(crate) fn object(source: &str, folder: &Path) -> PathBuf {
    let object = folder.join(format!("{source}.o"));
    let compiler = match source.ends_with(".cpp") {
        true => "c++",
        false => "cc",
    };
    let mut command = Command::new(compiler);
    command.args(["-O2", "-fno-pic", "-fno-pie", "-mcmodel=small", "-c"]);
    command.arg(root().join("tests/capi").join(source));
    succeed(command.arg("-o").arg(&object));
    object
}

/// Runs a program under valgrind, which must find nothing.
pub(crate) fn under_valgrind(program: &Path, arguments: &[PathBuf], leaks: bool) {
    if require(needs::program("valgrind")).is_none() {
        return;
    }
    let mut command = Command::new("valgrind");
    command.env("UNDER_VALGRIND", "1");
    command.args(["--error-exitcode=97", "--errors-for-leak-kinds=definite"]);
    command.arg(match leaks {
        true => "--leak-check=full",
        false => "--leak-check=no",
    });
    succeed(command.arg("--quiet").arg(program).args(arguments));
}
