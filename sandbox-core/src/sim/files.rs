//! A file tree in memory.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    clock::Timestamp,
    file::{DirPage, FileChunk, FileData, FileKind, FileStat, WriteHandle, WriteSpec},
    guest::GuestError,
};

const DEFAULT_FILE_MODE: u32 = 0o644;
const DEFAULT_DIR_MODE: u32 = 0o755;
/// As on Linux.
const PATH_MAX_BYTES: usize = 4096;
const NAME_MAX_BYTES: usize = 255;

#[derive(Debug, Clone)]
pub(super) struct Files {
    nodes: BTreeMap<String, Node>,
    writes: BTreeMap<u64, (WriteSpec, Vec<u8>)>,
    next_write: u64,
}

#[derive(Debug, Clone)]
struct Node {
    content: Option<Bytes>,
    mode: u32,
    modified: Timestamp,
    version: u64,
}

impl Node {
    fn is_dir(&self) -> bool {
        self.content.is_none()
    }
}

type Result<T> = std::result::Result<T, GuestError>;

fn not_found(path: &str) -> GuestError {
    GuestError::NotFound {
        path: path.to_owned(),
    }
}

fn wrong_kind(path: &str, problem: &str) -> GuestError {
    GuestError::WrongKind {
        path: path.to_owned(),
        problem: problem.to_owned(),
    }
}

/// The one spelling of an absolute path.
fn plain(path: &str) -> Result<String> {
    let problem = if !path.starts_with('/') || path.contains('\0') {
        Some("it must be absolute and hold no NUL byte")
    } else if path.len() > PATH_MAX_BYTES || path.split('/').any(|part| part.len() > NAME_MAX_BYTES)
    {
        Some("is too long")
    } else {
        None
    };
    if let Some(problem) = problem {
        return Err(GuestError::BadPath {
            path: path.chars().take(64).collect(),
            problem: problem.to_owned(),
        });
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    Ok(format!("/{}", parts.join("/")))
}

fn parent(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((parent, _)) => parent,
    }
}

fn inside(dir: &str) -> String {
    if dir == "/" {
        dir.to_owned()
    } else {
        format!("{dir}/")
    }
}

impl Files {
    pub(super) fn new(now: Timestamp) -> Self {
        let root = Node {
            content: None,
            mode: DEFAULT_DIR_MODE,
            modified: now,
            version: 0,
        };
        let nodes = ["/", "/tmp", "/root"].map(|path| (path.to_owned(), root.clone()));
        Self {
            nodes: BTreeMap::from(nodes),
            writes: BTreeMap::new(),
            next_write: 1,
        }
    }

    fn node(&self, path: &str) -> Result<&Node> {
        self.nodes.get(path).ok_or_else(|| not_found(path))
    }

    fn stat_of(path: &str, node: &Node) -> FileStat {
        let size = node
            .content
            .as_ref()
            .map_or(0, |content| content.len() as u64);
        FileStat {
            name: path.rsplit('/').next().unwrap_or_default().to_owned(),
            kind: if node.is_dir() {
                FileKind::Directory
            } else {
                FileKind::File
            },
            size,
            physical_bytes: size,
            mode: node.mode,
            uid: 0,
            gid: 0,
            modified_ms: node.modified.timestamp_millis(),
        }
    }

    pub(super) fn content(&self, path: &str) -> Option<Bytes> {
        let path = plain(path).ok()?;
        self.nodes.get(&path)?.content.clone()
    }

    pub(super) fn stat(&self, path: &str) -> Result<FileStat> {
        let path = plain(path)?;
        Ok(Self::stat_of(&path, self.node(&path)?))
    }

    pub(super) fn list(&self, path: &str, after: Option<&str>, limit: u32) -> Result<DirPage> {
        let path = plain(path)?;
        if !self.node(&path)?.is_dir() {
            return Err(wrong_kind(&path, "not a directory"));
        }
        let prefix = inside(&path);
        let mut entries: Vec<FileStat> = self
            .nodes
            .iter()
            .filter(|(other, _)| {
                other.len() > prefix.len()
                    && other.starts_with(&prefix)
                    && !other[prefix.len()..].contains('/')
            })
            .map(|(other, node)| Self::stat_of(other, node))
            .filter(|entry| after.is_none_or(|after| entry.name.as_str() > after))
            .collect();
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        let more = entries.len() > limit as usize;
        entries.truncate(limit as usize);
        Ok(DirPage { entries, more })
    }

    pub(super) fn read(&self, path: &str, offset: u64, max_bytes: u32) -> Result<FileChunk> {
        let path = plain(path)?;
        let Some(content) = &self.node(&path)?.content else {
            return Err(wrong_kind(&path, "is a directory"));
        };
        let start = usize::try_from(offset).map_or(content.len(), |at| at.min(content.len()));
        let end = content.len().min(start.saturating_add(max_bytes as usize));
        Ok(FileChunk {
            data: FileData::Bytes(content.slice(start..end)),
            size: content.len() as u64,
            version: self.node(&path)?.version,
        })
    }

    pub(super) fn open_write(
        &mut self,
        mut spec: WriteSpec,
        now: Timestamp,
    ) -> Result<WriteHandle> {
        spec.path = plain(&spec.path)?;
        if self.nodes.get(&spec.path).is_some_and(Node::is_dir) {
            return Err(wrong_kind(&spec.path, "is a directory"));
        }
        let parent = parent(&spec.path).to_owned();
        if spec.create_parents {
            self.make_dir(&parent, DEFAULT_DIR_MODE, true, now)?;
        } else if !self.node(&parent)?.is_dir() {
            return Err(wrong_kind(&parent, "not a directory"));
        }
        let handle = self.next_write;
        self.next_write += 1;
        self.writes.insert(handle, (spec, Vec::new()));
        Ok(WriteHandle(handle))
    }

    pub(super) fn write_chunk(&mut self, handle: WriteHandle, at: u64, data: &[u8]) -> Result<()> {
        let write = self.writes.get_mut(&handle.0);
        let (spec, content) = write.ok_or(GuestError::NoSuchWrite)?;
        let start = usize::try_from(at).ok();
        let Some((start, end)) = start.and_then(|at| Some((at, at.checked_add(data.len())?)))
        else {
            return Err(GuestError::DiskFull {
                path: spec.path.clone(),
            });
        };
        if content.len() < end {
            content.resize(end, 0);
        }
        content[start..end].copy_from_slice(data);
        Ok(())
    }

    pub(super) fn commit(
        &mut self,
        handle: WriteHandle,
        size: u64,
        now: Timestamp,
    ) -> Result<FileStat> {
        let (spec, mut content) = self
            .writes
            .remove(&handle.0)
            .ok_or(GuestError::NoSuchWrite)?;
        let Ok(size) = usize::try_from(size) else {
            return Err(GuestError::DiskFull { path: spec.path });
        };
        content.resize(size, 0);
        let old_mode = self.nodes.get(&spec.path).map(|node| node.mode);
        let node = Node {
            content: Some(content.into()),
            mode: spec.mode.or(old_mode).unwrap_or(DEFAULT_FILE_MODE),
            modified: now,
            // Each commit makes a file of its own, and handles are used once.
            version: handle.0,
        };
        let stat = Self::stat_of(&spec.path, &node);
        self.nodes.insert(spec.path, node);
        Ok(stat)
    }

    pub(super) fn abort(&mut self, handle: WriteHandle) -> Result<()> {
        let write = self.writes.remove(&handle.0);
        write.map(drop).ok_or(GuestError::NoSuchWrite)
    }

    pub(super) fn make_dir(
        &mut self,
        path: &str,
        mode: u32,
        parents: bool,
        now: Timestamp,
    ) -> Result<()> {
        let path = plain(path)?;
        match self.nodes.get(&path) {
            Some(node) if parents && node.is_dir() => return Ok(()),
            Some(_) => return Err(GuestError::AlreadyExists { path }),
            None => {}
        }
        let above = parent(&path).to_owned();
        if parents {
            self.make_dir(&above, DEFAULT_DIR_MODE, true, now)?;
        }
        if !self.node(&above)?.is_dir() {
            return Err(wrong_kind(&above, "not a directory"));
        }
        let node = Node {
            content: None,
            mode,
            modified: now,
            version: 0,
        };
        self.nodes.insert(path, node);
        Ok(())
    }

    fn below(&self, path: &str) -> Vec<String> {
        let prefix = inside(path);
        self.nodes
            .keys()
            .filter(|other| other.as_str() != path && other.starts_with(&prefix))
            .cloned()
            .collect()
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (plain(from)?, plain(to)?);
        let node = self.node(&from)?.clone();
        if !self.node(parent(&to))?.is_dir() {
            return Err(wrong_kind(parent(&to), "not a directory"));
        }
        if from == to {
            return Ok(());
        }
        if self.nodes.get(&to).is_some_and(Node::is_dir) || to.starts_with(&inside(&from)) {
            return Err(wrong_kind(&to, "is a directory"));
        }
        for old in self.below(&from) {
            if let Some(node) = self.nodes.remove(&old) {
                self.nodes
                    .insert(format!("{to}{}", &old[from.len()..]), node);
            }
        }
        self.nodes.remove(&from);
        self.nodes.insert(to, node);
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &str, recursive: bool) -> Result<()> {
        let path = plain(path)?;
        self.node(&path)?;
        if path == "/" {
            return Err(wrong_kind(&path, "the root stays"));
        }
        let below = self.below(&path);
        if !below.is_empty() && !recursive {
            return Err(wrong_kind(&path, "directory not empty"));
        }
        for old in below {
            self.nodes.remove(&old);
        }
        self.nodes.remove(&path);
        Ok(())
    }
}
