//! Input files: what they are, and the names under which errors and dumps show them.

use std::io::Read as _;
use std::path::Path;

use hashbrown::HashMap;
use object::read::archive::{ArchiveFile, ArchiveMember, ArchiveOffset};

use super::error::LinkError;
use super::object::Object;
use super::script::{self, Script};
use super::thin::{self, ThinMembers};

/// Bytes of an object or archive, with the name to show.
#[derive(Clone, Debug)]
pub struct Input {
    name: String,
    data: Vec<u8>,
    thin: ThinMembers,
    /// Where the bytes are a linker script: the files that it names.
    script: Option<Box<Script>>,
}

impl Input {
    /// Bytes in memory. `name` is shown in messages and dumps.
    #[must_use]
    pub fn from_bytes(name: impl Into<String>, data: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            data: data.into(),
            thin: ThinMembers::default(),
            script: None,
        }
    }

    /// Reads a file; its base name is the name to show. Where it is a linker script (`libm.a`
    /// often is), the objects and archives that it names are read as well.
    ///
    /// # Errors
    /// The file cannot be read; the error names it. A linker script that lists no files, or
    /// files that are not there.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, LinkError> {
        Self::read_file(path.as_ref(), 0)
    }

    /// As [`Input::from_file`], for a file named by a script that is `depth` scripts deep.
    pub(crate) fn read_file(path: &Path, depth: usize) -> Result<Self, LinkError> {
        let name = path.file_name().map_or_else(
            || path.display().to_string(),
            |name| name.to_string_lossy().into_owned(),
        );
        match std::fs::read(path) {
            Ok(data) => {
                let folder = path.parent().unwrap_or(Path::new(""));
                let thin = ThinMembers::new(&data, folder);
                let script = match script::looks_like_script(&data) {
                    true => Some(Box::new(script::read(&name, path, &data, depth)?)),
                    false => None,
                };
                Ok(Self {
                    name,
                    data,
                    thin,
                    script,
                })
            }
            Err(error) => Err(LinkError::object(
                &name,
                format!("cannot read {}: {error}", path.display()),
            )),
        }
    }

    /// The name to show.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bytes.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    pub(crate) fn is_archive(&self) -> bool {
        self.data.starts_with(b"!<arch>\n") || self.data.starts_with(thin::MAGIC)
    }

    /// The files of a linker script.
    pub(crate) fn script(&self) -> Option<&Script> {
        self.script.as_deref()
    }

    /// Whether it is a linker script whose files nobody read.
    pub(crate) fn is_unread_script(&self) -> bool {
        self.script.is_none() && script::looks_like_script(&self.data)
    }

    /// The linker script that a library's name stands for, if it is the path of one.
    ///
    /// # Errors
    /// As [`Input::from_file`].
    pub fn script_at(library: &str) -> Result<Option<Self>, LinkError> {
        // Other names are for the dynamic linker to find.
        if !library.contains('/') {
            return Ok(None);
        }
        let mut start = Vec::new();
        let opened = std::fs::File::open(library);
        let read = opened.and_then(|file| file.take(4096).read_to_end(&mut start));
        if read.is_err() || !script::looks_like_script(&start) {
            return Ok(None);
        }
        Self::from_file(library).map(Some)
    }

    /// The shared libraries that a linker script names. They are no part of the link: whoever
    /// wants their symbols opens them ([`ProcessSymbols::open`](super::ProcessSymbols::open)).
    #[must_use]
    pub fn libraries(&self) -> Vec<&Path> {
        let Some(script) = self.script() else {
            return Vec::new();
        };
        let mut all: Vec<&Path> = script.libraries.iter().map(AsRef::as_ref).collect();
        for input in &script.inputs {
            all.extend(input.libraries());
        }
        all
    }
}

/// Hands out names to show: a repeated one gets `#2`, `#3`.
#[derive(Debug, Default)]
pub(crate) struct Names {
    seen: HashMap<String, u32>,
}

impl Names {
    pub(crate) fn unique(&mut self, name: String) -> String {
        let mut shown = name.clone();
        while self.seen.contains_key(&shown) {
            let count = self.seen.entry(name.clone()).or_insert(1);
            *count += 1;
            shown = format!("{name}#{count}");
        }
        self.seen.insert(shown.clone(), 1);
        shown
    }
}

/// An archive's members by the symbols that they define.
#[derive(Debug)]
pub(crate) struct Archive<'d> {
    pub(crate) name: &'d str,
    data: &'d [u8],
    thin: &'d ThinMembers,
    file: ArchiveFile<'d>,
}

impl<'d> Archive<'d> {
    pub(crate) fn read(input: &'d Input) -> Result<Self, LinkError> {
        let file = ArchiveFile::parse(input.data.as_slice()).map_err(|error| {
            LinkError::object(
                &input.name,
                format!(
                    "archive of {} bytes: {error}; is it truncated?",
                    input.data.len()
                ),
            )
        })?;
        Ok(Self {
            name: &input.name,
            data: &input.data,
            thin: &input.thin,
            file,
        })
    }

    /// Enters the archive's symbols into `index` under archive number `number`; earlier entries stay.
    pub(crate) fn index(
        &self,
        number: usize,
        index: &mut ArchiveIndex<'d>,
    ) -> Result<(), LinkError> {
        let fail = |error: object::read::Error| {
            LinkError::object(
                self.name,
                format!("symbol index: {error}; run `ranlib` on it"),
            )
        };
        if let Some(symbols) = self.file.symbols().map_err(fail)? {
            for symbol in symbols {
                let symbol = symbol.map_err(fail)?;
                index
                    .entry(symbol.name())
                    .or_insert((number, symbol.offset()));
            }
            return Ok(());
        }
        if self.file.is_thin() {
            return Err(LinkError::object(
                self.name,
                "is a thin archive without a symbol index; run `ranlib` on it",
            ));
        }
        // `ar` with S writes no symbol index: the members' own tables tell.
        for (offset, name, data) in self.members()? {
            let object = Object::read(name, data)?;
            for symbol in object.symbols().iter().skip(object.first_global) {
                use object::read::elf::Sym as _;
                if !symbol.is_undefined(object::endian::LittleEndian) {
                    let name = object.symbol_name(symbol)?;
                    index.entry(name).or_insert((number, offset));
                }
            }
        }
        Ok(())
    }

    /// The member at `offset`: its name to show, and its bytes.
    pub(crate) fn member(&self, offset: ArchiveOffset) -> Result<(String, &'d [u8]), LinkError> {
        let fail = |error: object::read::Error| {
            LinkError::object(
                self.name,
                format!(
                    "member at offset {:#x}: {error}; is it truncated?",
                    offset.0
                ),
            )
        };
        let member = self.file.member(offset).map_err(fail)?;
        let name = self.member_name(member.name());
        let data = self.bytes(&member, &name, &fail)?;
        Ok((name, data))
    }

    /// All members in order: offset, name to show, bytes.
    pub(crate) fn members(&self) -> Result<Vec<Member<'d>>, LinkError> {
        let fail = |error: object::read::Error| {
            LinkError::object(self.name, format!("members: {error}; is it truncated?"))
        };
        let mut all = Vec::new();
        for member in self.file.members() {
            let member = member.map_err(fail)?;
            let name = self.member_name(member.name());
            let data = self.bytes(&member, &name, &fail)?;
            // The header is 60 bytes and stands right before the data.
            let offset = ArchiveOffset(member.file_range().0.saturating_sub(60));
            all.push((offset, name, data));
        }
        Ok(all)
    }

    fn bytes(
        &self,
        member: &ArchiveMember<'d>,
        name: &str,
        fail: &dyn Fn(object::read::Error) -> LinkError,
    ) -> Result<&'d [u8], LinkError> {
        if !member.is_thin() {
            return member.data(self.data).map_err(fail);
        }
        let data = self.thin.data(member.name());
        data.map_err(|reason| LinkError::object(name, reason))
    }

    fn member_name(&self, member: &[u8]) -> String {
        format!("{}({})", self.name, String::from_utf8_lossy(member))
    }
}

/// A member: offset of its header, name to show, bytes.
pub(crate) type Member<'d> = (ArchiveOffset, String, &'d [u8]);

/// Symbol name to archive number and member.
pub(crate) type ArchiveIndex<'d> = HashMap<&'d [u8], (usize, ArchiveOffset)>;
