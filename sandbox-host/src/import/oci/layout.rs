//! An image in files: `index.json`, and contents in `blobs/ALGORITHM/HEX`.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

use super::{
    OciImage, Target, assemble,
    digest::Digest,
    document::{self, Descriptor, Document, Manifest, choose},
    read_document,
};
use crate::import::{
    error::ImportError,
    stage::Stage,
    tar::{EndMark, TarReader},
};

/// Indexes that may name one another.
const DEPTH_MAX: usize = 5;

/// A folder in this form.
#[derive(Debug)]
pub(in crate::import) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(in crate::import) fn new(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
        }
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.root
            .join("blobs")
            .join(digest.algorithm().as_str())
            .join(digest.hex())
    }

    pub(super) fn json<T: DeserializeOwned>(&self, what: &Descriptor) -> Result<T, ImportError> {
        let bytes = read_document(&self.blob(&what.digest), what)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| ImportError::bad(format!("{} can't be read: {error}", what.digest)))
    }

    /// Reads the image of this reference; the only one where none is given.
    pub(in crate::import) fn read(
        &self,
        reference: Option<&str>,
        stage: &mut Stage,
    ) -> Result<OciImage, ImportError> {
        let index = self.root.join("index.json");
        let bytes = match read_bounded(&index) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ImportError::bad(
                    "it is no OCI image layout: there is no index.json in it",
                ));
            }
            Err(error) => {
                return Err(ImportError::bad(format!(
                    "index.json can't be read: {error}"
                )));
            }
        };
        self.read_from(&bytes, reference, stage)
    }

    /// Reads the image that a document leads to.
    pub(super) fn read_from(
        &self,
        document: &[u8],
        reference: Option<&str>,
        stage: &mut Stage,
    ) -> Result<OciImage, ImportError> {
        let manifest = self.manifest(document, reference)?;
        assemble(self, &manifest, stage)
    }

    fn manifest(&self, document: &[u8], reference: Option<&str>) -> Result<Manifest, ImportError> {
        let mut reference = reference;
        let mut document = Document::parse(document)?;
        for _ in 0..DEPTH_MAX {
            let manifests = match document {
                Document::Manifest(manifest) => return Ok(manifest),
                Document::Index(manifests) => manifests,
            };
            let chosen = choose(&manifests, reference, Target::here())?;
            document = Document::parse(&read_document(&self.blob(&chosen.digest), chosen)?)?;
            // It named an entry of the outermost.
            reference = None;
        }
        Err(ImportError::bad("its indexes go on and on"))
    }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(document::BYTES_MAX)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Unpacks a tar archive of a layout into the stage: the index and what has a digest for its name,
/// and nothing else.
pub(in crate::import) fn unpack(
    reader: impl Read,
    stage: &mut Stage,
) -> Result<Layout, ImportError> {
    const STEP: &str = "unpacking an image";
    let root = stage.folder().join("layout");
    let layout = Layout::new(&root);
    fs::create_dir(&root).map_err(ImportError::at(STEP))?;
    let mut archive = TarReader::new(reader, EndMark::Required);
    let mut is_of_docker = false;
    while let Some(member) = archive.next_member()? {
        let path = member.path.strip_prefix(b"./").unwrap_or(&member.path);
        is_of_docker |= path == b"manifest.json";
        if !member.is_file() {
            continue;
        }
        let Some(place) = place_of(path, &layout) else {
            continue;
        };
        let content = archive.store(&member, stage)?;
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder).map_err(ImportError::at(STEP))?;
        }
        fs::rename(stage.path(content), place).map_err(ImportError::at(STEP))?;
    }
    if is_of_docker && !root.join("index.json").exists() {
        return Err(ImportError::bad(
            "it is an archive in Docker's old form; save it as an OCI image layout",
        ));
    }
    Ok(layout)
}

/// Where a member goes, by a name that was made here.
fn place_of(path: &[u8], layout: &Layout) -> Option<PathBuf> {
    if path == b"index.json" {
        return Some(layout.root.join("index.json"));
    }
    let name = std::str::from_utf8(path).ok()?.strip_prefix("blobs/")?;
    let (algorithm, hex) = name.split_once('/')?;
    let digest = Digest::parse(&format!("{algorithm}:{hex}")).ok()?;
    Some(layout.blob(&digest))
}
