//! The LLVMs that are installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{program, root, succeed};

/// An installed LLVM.
pub(crate) struct Llvm {
    pub(crate) version: u32,
    pub(crate) flags: Vec<String>,
}

impl Llvm {
    /// Version `version` with its clang and headers, and the flags for C.
    pub(crate) fn find(version: u32) -> Result<Self, String> {
        Self::with(version, "--cflags")
    }

    /// The same for C++ with exceptions.
    pub(crate) fn find_cpp(version: u32) -> Result<Self, String> {
        let mut found = Self::with(version, "--cxxflags")?;
        found
            .flags
            .retain(|flag| flag != "-fno-exceptions" && !flag.starts_with("-std="));
        found.flags.push("-std=c++17".to_owned());
        Ok(found)
    }

    fn with(version: u32, language: &str) -> Result<Self, String> {
        program(&format!("clang-{version}"))?;
        let config = format!("llvm-config-{version}");
        program(&config)?;
        let ask = |what: &[&str]| {
            let printed = succeed(Command::new(&config).arg("--link-shared").args(what)).stdout;
            String::from_utf8(printed).expect("UTF-8")
        };
        let printed = ask(&[language, "--ldflags", "--libs"]);
        let mut flags: Vec<_> = printed.split_whitespace().map(str::to_owned).collect();
        flags.push(format!("-Wl,-rpath,{}", ask(&["--libdir"]).trim()));
        Ok(Self { version, flags })
    }

    /// `source` of tests/capi as this LLVM's bitcode of the small model.
    pub(crate) fn bitcode(&self, source: &str, pic: bool, folder: &Path) -> PathBuf {
        let name = source.replace('/', "-");
        let out = folder.join(format!("{name}-{}-{pic}.bc", self.version));
        let cpp = source.ends_with(".cpp");
        let driver = if cpp { "clang++" } else { "clang" };
        let mut command = Command::new(format!("{driver}-{}", self.version));
        command.args(match pic {
            true => ["-O1", "-fPIC"].as_slice(),
            false => &["-O1", "-fno-pic", "-fno-pie"],
        });
        command.args(["-mcmodel=small", "-fasynchronous-unwind-tables"]);
        command.args(if cpp { &["-std=c++17"][..] } else { &[] });
        command.args(["-emit-llvm", "-c"]);
        command.arg(root().join("tests/capi").join(source));
        succeed(command.arg("-o").arg(&out));
        out
    }
}
