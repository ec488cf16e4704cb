//! From an uploaded archive to a tree. All in memory, and within bounds whatever the archive says.

use std::io::{Cursor, Read};

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use tar::{Archive, Entry, EntryType};

use super::{
    CONTEXT_ENTRIES_MAX, CONTEXT_UNPACKED_MAX_BYTES,
    error::{ContextError, shown},
    tree::{Node, Tree},
};
use crate::build::CONTEXT_MAX_BYTES;

/// The longest path and link target, in bytes.
const PATH_BYTES_MAX: usize = 4095;
/// The longest part of a path, in bytes.
const NAME_BYTES_MAX: usize = 255;

pub(super) fn read(upload: Bytes) -> Result<Tree, ContextError> {
    let got = upload.len();
    if got > CONTEXT_MAX_BYTES {
        return Err(ContextError::TooLarge { got });
    }
    unpack(&decompressed(upload)?)
}

fn decompressed(upload: Bytes) -> Result<Bytes, ContextError> {
    const OTHERS: [(&[u8], &str); 3] = [
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\xfd7zXZ\0", "xz"),
        (b"BZh", "bzip2"),
    ];
    if upload.starts_with(&[0x1f, 0x8b]) {
        let mut unpacked = Vec::new();
        MultiGzDecoder::new(&*upload)
            .take(CONTEXT_UNPACKED_MAX_BYTES + 1)
            .read_to_end(&mut unpacked)
            .map_err(|error| ContextError::BadGzip {
                reason: error.to_string(),
            })?;
        if unpacked.len() as u64 > CONTEXT_UNPACKED_MAX_BYTES {
            return Err(ContextError::UnpackedTooLarge);
        }
        return Ok(unpacked.into());
    }
    match OTHERS.iter().find(|(magic, _)| upload.starts_with(magic)) {
        // A tar archive begins with a name, which may be any of these; then its header says so.
        Some((_, format)) if upload.get(257..262) != Some(b"ustar") => {
            Err(ContextError::Compression { format })
        }
        _ => Ok(upload),
    }
}

fn unpack(archive: &Bytes) -> Result<Tree, ContextError> {
    if archive.is_empty() {
        return Err(ContextError::BadArchive { after: None });
    }
    let mut tree = Tree::default();
    let mut last = None;
    let mut budget = CONTEXT_UNPACKED_MAX_BYTES;
    let bad = |after: &Option<String>| ContextError::BadArchive {
        after: after.clone(),
    };
    let mut reader = Archive::new(Cursor::new(&**archive));
    for (entry, number) in reader.entries().map_err(|_| bad(&last))?.zip(1..) {
        let mut entry = entry.map_err(|_| bad(&last))?;
        if number > CONTEXT_ENTRIES_MAX {
            return Err(ContextError::TooManyEntries);
        }
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            continue;
        }
        let raw = entry.path_bytes().into_owned();
        let name = shown(&raw);
        let path = clean(&raw)?;
        take(&mut budget, path.len() as u64)?;
        if is_pax_sparse(&mut entry) {
            let kind = "sparse file in PAX form (pack without `--sparse`)";
            return Err(ContextError::Kind { name, kind });
        }
        let mode = entry.header().mode().map_err(|_| bad(&last))? & 0o7777;
        let node = match kind {
            EntryType::Regular | EntryType::Continuous if raw.ends_with(b"/") => Node::Dir { mode },
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let data = content(&mut entry, archive, &mut budget)
                    .map_err(|error| error.unwrap_or_else(|| bad(&last)))?;
                Node::File { mode, data }
            }
            EntryType::Directory => Node::Dir { mode },
            EntryType::Symlink => Node::Symlink {
                target: link_target(&entry, &name)?,
            },
            EntryType::Link => {
                let raw = entry.link_name_bytes().unwrap_or_default().into_owned();
                let target = clean(&raw)?;
                match tree.get(&target) {
                    Some(Node::File { mode, data }) => {
                        let node = Node::File {
                            mode: *mode,
                            data: data.clone(),
                        };
                        take(&mut budget, data.len() as u64)?;
                        node
                    }
                    _ => {
                        let target = shown(&raw);
                        return Err(ContextError::HardLink { name, target });
                    }
                }
            }
            EntryType::Fifo => {
                return Err(ContextError::Kind {
                    name,
                    kind: "named pipe",
                });
            }
            EntryType::Char => {
                let kind = "character device";
                return Err(ContextError::Kind { name, kind });
            }
            EntryType::Block => {
                let kind = "block device";
                return Err(ContextError::Kind { name, kind });
            }
            _ => {
                let kind = "thing of an unknown kind";
                return Err(ContextError::Kind { name, kind });
            }
        };
        if !tree.insert(&path, node) {
            return Err(ContextError::Clash { name });
        }
        if tree.len() > CONTEXT_ENTRIES_MAX {
            return Err(ContextError::TooManyEntries);
        }
        last = Some(name);
    }
    Ok(tree)
}

fn take(budget: &mut u64, bytes: u64) -> Result<(), ContextError> {
    *budget = budget
        .checked_sub(bytes)
        .ok_or(ContextError::UnpackedTooLarge)?;
    Ok(())
}

/// A file's content; a part of the archive itself, where it stands there in one piece. `None` as the
/// error says that the archive is cut off.
fn content<R: Read>(
    entry: &mut Entry<'_, R>,
    archive: &Bytes,
    budget: &mut u64,
) -> Result<Bytes, Option<ContextError>> {
    let size = entry.size();
    take(budget, size).map_err(Some)?;
    if entry.header().entry_type() == EntryType::GNUSparse {
        let mut data = Vec::new();
        entry.take(size).read_to_end(&mut data).map_err(|_| None)?;
        return Ok(data.into());
    }
    let range = usize::try_from(entry.raw_file_position())
        .ok()
        .and_then(|start| Some(start..start.checked_add(usize::try_from(size).ok()?)?))
        .filter(|range| range.end <= archive.len())
        .ok_or(None)?;
    Ok(archive.slice(range))
}

/// Whether the data is a map and pieces of a file instead of the file.
fn is_pax_sparse<R: Read>(entry: &mut Entry<'_, R>) -> bool {
    let Ok(Some(extensions)) = entry.pax_extensions() else {
        return false;
    };
    extensions
        .filter_map(Result::ok)
        .any(|extension| extension.key_bytes().starts_with(b"GNU.sparse."))
}

/// The path of an entry within the context, without `.` and doubled slashes. Empty for the context
/// itself.
fn clean(raw: &[u8]) -> Result<String, ContextError> {
    let bad = |problem| ContextError::BadName {
        name: shown(raw),
        problem,
    };
    let text =
        std::str::from_utf8(raw).map_err(|_| bad("has a name that is not UTF-8; rename it"))?;
    if text.is_empty() {
        return Err(bad("has no name"));
    }
    if text.contains('\0') {
        return Err(bad("has a NUL byte in its name"));
    }
    if text.starts_with('/') {
        return Err(bad(
            "has an absolute path; pack the folder from inside, as `tar -C folder -c .`",
        ));
    }
    if text.len() > PATH_BYTES_MAX {
        return Err(bad("has a path of more than 4095 bytes"));
    }
    let mut parts = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(bad("leads out of the context by `..`")),
            part if part.len() > NAME_BYTES_MAX => {
                return Err(bad("has a name of more than 255 bytes"));
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

fn link_target<R: Read>(entry: &Entry<'_, R>, name: &str) -> Result<String, ContextError> {
    let raw = entry.link_name_bytes().unwrap_or_default();
    String::from_utf8(raw.into_owned())
        .ok()
        .filter(|target| {
            !target.is_empty() && target.len() <= PATH_BYTES_MAX && !target.contains('\0')
        })
        .ok_or_else(|| ContextError::BadName {
            name: name.to_owned(),
            problem: "is a symbolic link to what no link can lead to",
        })
}
