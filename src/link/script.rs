//! Linker scripts that stand in place of a library (`libc.so`, `libm.a`): lists of files.
//!
//! Understood are GROUP, INPUT and AS_NEEDED, SEARCH_DIR, and OUTPUT_FORMAT, TARGET and
//! OUTPUT_ARCH for x86-64; any other command is refused by name. Source: GNU ld's manual,
//! "Commands Dealing with Files". Archives and objects that a script names are read as inputs;
//! shared libraries are for the caller to open.

use std::path::{Path, PathBuf};

use super::error::LinkError;
use super::input::Input;

/// Scripts that name scripts: as deep as this.
const MAX_DEPTH: usize = 16;

/// Where GNU ld looks for `-lNAME` and for names without a folder, after the script's own folder.
const SEARCH: [&str; 8] = [
    "/usr/local/lib/x86_64-linux-gnu",
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/local/lib",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];

/// The files that a linker script names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    /// Objects and archives, in order.
    pub(crate) inputs: Vec<Input>,
    /// Shared libraries, in order.
    pub(crate) libraries: Vec<PathBuf>,
}

/// Whether `data` is text that begins like a linker script rather than an object or archive.
pub(crate) fn looks_like_script(data: &[u8]) -> bool {
    let head = &data[..data.len().min(4096)];
    if head.contains(&0) || std::str::from_utf8(data).is_err() {
        return false;
    }
    [
        &b"GROUP"[..],
        b"INPUT",
        b"OUTPUT_FORMAT",
        b"OUTPUT_ARCH",
        b"SEARCH_DIR",
        b"SECTIONS",
    ]
    .iter()
    .any(|word| head.windows(word.len()).any(|window| window == *word))
}

/// Reads the script `data` that stands at `path`, and the files that it names.
pub(crate) fn read(
    name: &str,
    path: &Path,
    data: &[u8],
    depth: usize,
) -> Result<Script, LinkError> {
    let fail = |reason: String| LinkError::object(name, format!("linker script: {reason}"));
    if depth >= MAX_DEPTH {
        return Err(fail(format!(
            "scripts name each other {MAX_DEPTH} deep; does one name itself?"
        )));
    }
    let text = String::from_utf8_lossy(data);
    let tokens = tokens(&text).map_err(fail)?;
    let parsed = parse(&tokens).map_err(fail)?;
    let mut folders: Vec<PathBuf> = path.parent().map(Path::to_path_buf).into_iter().collect();
    folders.extend(parsed.folders.iter().map(PathBuf::from));
    folders.extend(SEARCH.iter().map(PathBuf::from));
    let mut script = Script::default();
    for file in parsed.files {
        let path = find(file, &folders).map_err(fail)?;
        let mut start = [0; 18];
        let read = std::fs::File::open(&path)
            .and_then(|mut file| std::io::Read::read(&mut file, &mut start))
            .map_err(|error| fail(format!("cannot read {}: {error}", path.display())))?;
        // e_type ET_DYN: a shared library.
        if read == start.len() && start.starts_with(b"\x7fELF") && start[16..] == [3, 0] {
            script.libraries.push(path);
        } else {
            script.inputs.push(Input::read_file(&path, depth + 1)?);
        }
    }
    Ok(script)
}

/// A path that exists: absolute, in one of `folders`, or by the rule of `-lNAME`.
fn find(file: &str, folders: &[PathBuf]) -> Result<PathBuf, String> {
    // A leading = or $SYSROOT stands for the sysroot, which is this system's root.
    let plain = file
        .strip_prefix('=')
        .or_else(|| file.strip_prefix("$SYSROOT"))
        .unwrap_or(file);
    let names = match plain.strip_prefix("-l") {
        Some(name) => match name.strip_prefix(':') {
            Some(name) => vec![name.to_owned()],
            None => vec![format!("lib{name}.so"), format!("lib{name}.a")],
        },
        None => vec![plain.to_owned()],
    };
    let mut candidates = folders
        .iter()
        .flat_map(|folder| names.iter().map(|name| folder.join(name)));
    let found = candidates.find(|path| path.is_file());
    found.ok_or_else(|| {
        let folders: Vec<_> = folders.iter().map(|f| f.display().to_string()).collect();
        format!(
            "names {file}, which is not in {}; install it, or give the files instead of the script",
            folders.join(", ")
        )
    })
}

/// Names, and `(`, `)`, `,`, `;`, `{`, `}` each alone; comments are gone.
fn tokens(text: &str) -> Result<Vec<&str>, String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let Some(first) = rest.chars().next() else {
            return Ok(tokens);
        };
        if let Some(comment) = rest.strip_prefix("/*") {
            let end = comment
                .find("*/")
                .ok_or("a comment does not end (*/); is the file truncated?")?;
            rest = &comment[end + 2..];
        } else if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted
                .find('"')
                .ok_or("a quoted name does not end (\"); is the file truncated?")?;
            tokens.push(&quoted[..end]);
            rest = &quoted[end + 1..];
        } else if "(),;{}".contains(first) {
            tokens.push(&rest[..1]);
            rest = &rest[1..];
        } else {
            let ends = |c: char| c.is_whitespace() || "(),;{}\"".contains(c);
            let end = rest.find(ends).unwrap_or(rest.len());
            tokens.push(&rest[..end]);
            rest = &rest[end..];
        }
    }
}

/// What a script says, files in order.
#[derive(Debug, Default)]
struct Parsed<'t> {
    files: Vec<&'t str>,
    folders: Vec<&'t str>,
}

fn parse<'t>(tokens: &[&'t str]) -> Result<Parsed<'t>, String> {
    let mut parsed = Parsed::default();
    let mut at = 0;
    while let Some(&command) = tokens.get(at) {
        at += 1;
        if command == ";" {
            continue;
        }
        let known = [
            "GROUP",
            "INPUT",
            "SEARCH_DIR",
            "OUTPUT_FORMAT",
            "OUTPUT_ARCH",
            "TARGET",
        ];
        if !known.contains(&command) {
            return Err(format!(
                "{command} is not understood (only {} and AS_NEEDED are); give the files that the script stands for",
                known.join(", ")
            ));
        }
        let (arguments, next) = arguments(command, tokens, at)?;
        at = next;
        match command {
            "GROUP" | "INPUT" => parsed.files.extend(arguments),
            "SEARCH_DIR" => parsed.folders.extend(arguments),
            _ => {
                let wanted = if command == "OUTPUT_ARCH" {
                    "i386:x86-64"
                } else {
                    "elf64-x86-64"
                };
                if arguments.first().is_none_or(|&first| first != wanted) {
                    return Err(format!(
                        "{command}({}) is for another machine; x86-64 is {wanted}",
                        arguments.join(", ")
                    ));
                }
            }
        }
    }
    Ok(parsed)
}

/// Names between parentheses from `at` on, and where they end. `AS_NEEDED(...)` stands for its
/// names: what nobody needs of them is never taken.
fn arguments<'t>(
    command: &str,
    tokens: &[&'t str],
    mut at: usize,
) -> Result<(Vec<&'t str>, usize), String> {
    if tokens.get(at) != Some(&"(") {
        return Err(format!("{command} is not followed by ("));
    }
    let (mut names, mut depth) = (Vec::new(), 0);
    while let Some(&token) = tokens.get(at) {
        at += 1;
        match token {
            "(" => depth += 1,
            ")" if depth == 1 => return Ok((names, at)),
            ")" => depth -= 1,
            "," => {}
            "AS_NEEDED" if tokens.get(at) == Some(&"(") => {}
            ";" | "{" | "}" => return Err(format!("{token} inside of {command}( )")),
            name if tokens.get(at) == Some(&"(") => {
                return Err(format!(
                    "{name}( ) inside of {command}( ) is not understood"
                ));
            }
            name => names.push(name),
        }
    }
    Err(format!("{command}( does not end; is the file truncated?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(text: &str) -> Result<Vec<String>, String> {
        let tokens = tokens(text)?;
        let parsed = parse(&tokens)?;
        Ok(parsed.files.iter().map(|&file| file.to_owned()).collect())
    }

    #[test]
    fn lists_of_files() {
        let libc = "/* GNU ld script */\nOUTPUT_FORMAT(elf64-x86-64)\nGROUP ( /lib/libc.so.6 /usr/lib/libc_nonshared.a  AS_NEEDED ( /lib64/ld-linux-x86-64.so.2 ) )";
        assert_eq!(
            files(libc),
            Ok(vec![
                "/lib/libc.so.6".to_owned(),
                "/usr/lib/libc_nonshared.a".to_owned(),
                "/lib64/ld-linux-x86-64.so.2".to_owned()
            ])
        );
        let other = "SEARCH_DIR(\"/x y\");INPUT(-lz,\"a b.a\");OUTPUT_ARCH(i386:x86-64)";
        assert_eq!(files(other), Ok(vec!["-lz".to_owned(), "a b.a".to_owned()]));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (text, part) in [
            (
                "SECTIONS { .text : { *(.text) } }",
                "SECTIONS is not understood",
            ),
            ("GROUP ( a.a ) ENTRY(main)", "ENTRY is not understood"),
            ("OUTPUT_FORMAT(elf32-i386)", "another machine"),
            ("OUTPUT_ARCH(aarch64)", "another machine"),
            ("GROUP a.a", "not followed by ("),
            ("GROUP ( a.a", "does not end"),
            ("GROUP ( SORT(a.a) )", "SORT( ) inside of GROUP( )"),
            ("GROUP ( a.a ; )", "; inside of GROUP( )"),
            ("/* GROUP", "comment does not end"),
            ("INPUT ( \"a )", "quoted name does not end"),
        ] {
            let error = files(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
