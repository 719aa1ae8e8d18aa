//! The real programs: the files that low2g is given, and the same program linked natively.

use std::path::{Path, PathBuf};

use super::build::{self, STATIC_SMALL};
use super::{input, sources};

/// A program as objects and archives.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// Objects and archives, the one with `main` first.
    pub(crate) files: Vec<PathBuf>,
    /// Shared libraries by soname, as `low2g --lib` takes them.
    pub(crate) libraries: Vec<&'static str>,
    /// The same for cc, and what else the native program needs.
    native_flags: Vec<&'static str>,
}

impl Program {
    /// The program linked by the system's linker.
    pub(crate) fn native(&self) -> PathBuf {
        build::program(self.name, &self.files, &self.native_flags)
    }

    /// The files as paths, for a command line.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(PathBuf::as_path)
    }
}

fn flags(more: &[&str]) -> Vec<String> {
    STATIC_SMALL
        .iter()
        .chain(more)
        .map(|&flag| flag.to_owned())
        .collect()
}

fn include(folder: &Path) -> String {
    format!("-I{}", folder.display())
}

fn c_sources(folder: &Path) -> Vec<PathBuf> {
    let entries =
        std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a folder reads to its end").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "c" || ext == "S"))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no C source in {}", folder.display());
    found
}

/// SQLite's amalgamation, one object, and a driver that runs SQL from standard input.
pub(crate) fn sqlite() -> Program {
    let folder = sources::package("libsqlite3-sys").join("sqlite3");
    let options = flags(&[
        "-DSQLITE_ENABLE_FTS5",
        "-DSQLITE_ENABLE_RTREE",
        "-DSQLITE_ENABLE_MATH_FUNCTIONS",
        &include(&folder),
    ]);
    // Both at once: the amalgamation takes half a minute.
    let files = build::objects(
        &[input("sqlite_driver.c"), folder.join("sqlite3.c")],
        &options,
    );
    Program {
        name: "sqlite",
        files,
        libraries: vec!["libm.so.6"],
        native_flags: vec!["-lm"],
    }
}

/// The folder of Lua 5.4's sources in their package.
fn lua_sources() -> PathBuf {
    let package = sources::package("lua-src");
    let entries = std::fs::read_dir(package).expect("the package is a folder");
    entries
        .map(|entry| entry.expect("a folder reads to its end").path())
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("lua-5.4"))
        })
        .expect("lua-src carries Lua 5.4")
}

/// Lua as an archive, and an interpreter as an object. `more` are further flags of the compiler.
pub(crate) fn lua(more: &[&str]) -> Program {
    let folder = lua_sources();
    let mut options = flags(&["-DLUA_USE_LINUX", &include(&folder)]);
    options.extend(more.iter().map(|&flag| flag.to_owned()));
    let archive = build::archive("liblua.a", &build::objects(&c_sources(&folder), &options));
    let driver = build::object(&input("lua_driver.c"), &options);
    Program {
        name: "lua",
        files: vec![driver, archive],
        libraries: vec!["libm.so.6"],
        native_flags: vec!["-lm"],
    }
}

/// zlib and zstd as archives, and a driver that compresses with both.
pub(crate) fn compress() -> Program {
    let zlib = sources::package("libz-sys").join("src/zlib");
    let zstd = sources::package("zstd-sys").join("zstd/lib");
    let options = flags(&[
        "-DZSTD_MULTITHREAD",
        "-D_LARGEFILE64_SOURCE",
        "-DHAVE_UNISTD_H",
        &include(&zlib),
        &include(&zstd),
    ]);
    let zstd_sources: Vec<PathBuf> = ["common", "compress", "decompress"]
        .iter()
        .flat_map(|part| c_sources(&zstd.join(part)))
        .collect();
    let libz = build::archive("libz.a", &build::objects(&c_sources(&zlib), &options));
    let libzstd = build::archive("libzstd.a", &build::objects(&zstd_sources, &options));
    let driver = build::object(&input("compress_driver.c"), &options);
    Program {
        name: "compress",
        files: vec![driver, libz, libzstd],
        libraries: vec![],
        native_flags: vec![],
    }
}

/// bzip2 and lz4 as archives, and a driver.
pub(crate) fn bzip2_lz4() -> Program {
    let bzip2 = sources::package("bzip2-sys").join("bzip2-1.0.8");
    let lz4 = sources::package("lz4-sys").join("liblz4/lib");
    let options = flags(&["-w", &include(&bzip2), &include(&lz4)]);
    let files = |folder: &Path, names: &[&str]| -> Vec<PathBuf> {
        let sources: Vec<PathBuf> = names.iter().map(|name| folder.join(name)).collect();
        build::objects(&sources, &options)
    };
    let bzip2 = [
        "blocksort.c",
        "huffman.c",
        "crctable.c",
        "randtable.c",
        "compress.c",
        "decompress.c",
        "bzlib.c",
    ]
    .map(|name| (&bzip2, name));
    let bzip2 = files(bzip2[0].0, &bzip2.map(|(_, name)| name));
    let lz4 = files(&lz4, &["lz4.c", "lz4hc.c", "lz4frame.c", "xxhash.c"]);
    Program {
        name: "bzip2_lz4",
        files: vec![
            build::object(&input("archives/bzip2_lz4.c"), &options),
            build::archive("libbz2.a", &bzip2),
            build::archive("liblz4.a", &lz4),
        ],
        libraries: vec![],
        native_flags: vec![],
    }
}

/// mimalloc as one object, whose heaps are thread-local, and a driver with threads.
pub(crate) fn mimalloc() -> Program {
    let folder = sources::package("libmimalloc-sys").join("c_src/mimalloc/v2");
    let options = flags(&[
        "-w",
        &include(&folder.join("include")),
        &include(&folder.join("src")),
    ]);
    let files = [input("archives/mimalloc.c"), folder.join("src/static.c")];
    Program {
        name: "mimalloc",
        files: build::objects(&files, &options),
        libraries: vec![],
        native_flags: vec!["-pthread"],
    }
}

/// Flags of C++ in the small model.
fn cpp_flags(more: &[&str]) -> Vec<String> {
    let mut all = flags(&["-std=c++17", "-w"]);
    all.extend(more.iter().map(|&flag| flag.to_owned()));
    all
}

/// harfbuzz, which is one C++ source that includes all others, and a driver that shapes text.
pub(crate) fn harfbuzz() -> Program {
    let folder = sources::package("harfbuzz-sys").join("harfbuzz/src");
    let include = include(&folder);
    // -O1: it takes a third of -O2's time.
    let options = cpp_flags(&[
        "-O1",
        "-DHAVE_PTHREAD",
        "-fno-exceptions",
        "-fno-rtti",
        &include,
    ]);
    let library = build::object(&folder.join("harfbuzz.cc"), &options);
    let driver = build::object(
        &input("archives/harfbuzz.cpp"),
        &cpp_flags(&["-O1", &include]),
    );
    Program {
        name: "harfbuzz",
        files: vec![driver, library],
        libraries: vec!["libstdc++.so.6", "libm.so.6"],
        native_flags: vec!["-lstdc++", "-lm"],
    }
}

/// A driver of tests/inputs/archives with a static archive as Debian ships it.
///
/// # Errors
///
/// What to install, when the archive is not there.
pub(crate) fn with_archive(
    name: &'static str,
    source: &str,
    archive: &str,
    debian: &str,
) -> Result<Program, String> {
    let mut ask = std::process::Command::new(build::cc());
    let answer = ask.arg(format!("-print-file-name={archive}")).output();
    let path = answer.map(|answer| String::from_utf8_lossy(&answer.stdout).trim().to_owned());
    let path = path
        .map(PathBuf::from)
        .map_err(|error| format!("{ask:?}: {error}"))?;
    if !path.is_absolute() {
        return Err(format!("there is no {archive}: install Debian's {debian}"));
    }
    let driver = if source.ends_with("cpp") {
        build::object(&input(source), &cpp_flags(&[]))
    } else {
        build::object(&input(source), &flags(&["-w"]))
    };
    Ok(Program {
        name,
        files: vec![driver, path],
        libraries: vec![],
        native_flags: vec!["-lm", "-pthread"],
    })
}

/// Debian's static CPython 3.11, as shipped, with a main program.
///
/// # Errors
///
/// What to install, when the archive or the tests are not there.
pub(crate) fn python() -> Result<Program, String> {
    let archive = Path::new("/usr/lib/python3.11/config-3.11-x86_64-linux-gnu/libpython3.11.a");
    let wanted = [
        (archive, "libpython3.11-dev"),
        (
            Path::new("/usr/lib/python3.11/test/test_dict.py"),
            "libpython3.11-testsuite",
        ),
        (Path::new(SYSTEM_PYTHON), "python3.11"),
        (Path::new("/usr/include/zlib.h"), "zlib1g-dev"),
        (Path::new("/usr/include/expat.h"), "libexpat1-dev"),
    ];
    if let Some((path, package)) = wanted.iter().find(|(path, _)| !path.exists()) {
        return Err(format!(
            "{} is not there: install Debian's {package}",
            path.display()
        ));
    }
    Ok(Program {
        name: "python",
        files: vec![
            build::object(&input("python_main.c"), &flags(&[])),
            archive.to_path_buf(),
        ],
        libraries: vec!["libz.so.1", "libexpat.so.1", "libm.so.6"],
        native_flags: vec!["-Wl,-export-dynamic", "-lz", "-lexpat", "-lm"],
    })
}

/// The interpreter that Debian ships, made from the same sources.
pub(crate) const SYSTEM_PYTHON: &str = "/usr/bin/python3.11";
