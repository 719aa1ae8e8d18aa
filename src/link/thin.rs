//! Thin archives: members are files beside the archive, named by paths relative to it.
//!
//! A member's file is read when the link first needs it, and kept with the input that names it.
//! Source: GNU binutils, `ar --thin`; the format is the common one without members' bytes.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use hashbrown::HashMap;
use object::read::archive::ArchiveFile;

/// Members by the path that the archive gives.
#[derive(Clone, Debug, Default)]
pub(crate) struct ThinMembers {
    files: HashMap<Vec<u8>, ThinFile>,
}

#[derive(Clone, Debug)]
struct ThinFile {
    path: PathBuf,
    data: OnceLock<Result<Vec<u8>, String>>,
}

pub(crate) const MAGIC: &[u8] = b"!<thin>\n";

impl ThinMembers {
    /// The members that `data` names, if it is a thin archive in `folder`. What is malformed
    /// comes up when the archive is read for the link.
    pub(crate) fn new(data: &[u8], folder: &Path) -> Self {
        let mut files = HashMap::new();
        if data.starts_with(MAGIC)
            && let Ok(archive) = ArchiveFile::parse(data)
        {
            for member in archive.members().flatten() {
                let name = String::from_utf8_lossy(member.name()).into_owned();
                let file = ThinFile {
                    path: folder.join(name),
                    data: OnceLock::new(),
                };
                files.insert(member.name().to_vec(), file);
            }
        }
        Self { files }
    }

    /// The bytes of member `name`, or why there are none.
    pub(crate) fn data(&self, name: &[u8]) -> Result<&[u8], String> {
        let Some(file) = self.files.get(name) else {
            return Err(
                "is in a thin archive given as bytes: its members are files, give its path"
                    .to_owned(),
            );
        };
        let data = file.data.get_or_init(|| {
            std::fs::read(&file.path).map_err(|error| {
                let path = file.path.display();
                format!("cannot read {path}, which the thin archive names: {error}")
            })
        });
        data.as_deref().map_err(Clone::clone)
    }
}
