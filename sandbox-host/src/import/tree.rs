//! Layers laid on one another: what a root file system holds in the end. Plain data and no I/O.
//!
//! A path's folders are followed through symbolic links the way the guest itself would, from the
//! guest's root: nothing here can name a file of the host.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::entry::{Content, DeviceKind, Entry, GuestPath, Meta, Node};

/// Begins the names by which a layer says that something below it is gone.
const WHITEOUT: &[u8] = b".wh.";
/// Says that all that lower layers have in a folder is gone.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Begins other names that layered file systems use for themselves.
const WHITEOUT_META: &[u8] = b".wh..wh.";

/// The most links that are followed in one path, as in Linux.
const SYMLINKS_MAX: usize = 40;
/// The most names that ext4 gives one file.
const LINKS_MAX: u32 = 65_000;
const NAME_BYTES_MAX: usize = 255;

/// What names that begin with `.wh.` are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whiteouts {
    /// They remove what lower layers have.
    Honoured,
    /// Names like any other.
    Literal,
}

/// Why layers make no file system.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum MergeError {
    #[error("{path} is a hard link to {target}, which is not there")]
    NoTarget { path: GuestPath, target: GuestPath },
    #[error("{path} is a hard link to {target}, which is a folder")]
    LinkToFolder { path: GuestPath, target: GuestPath },
    #[error("the way to {0} goes round in symbolic links")]
    SymlinkLoop(GuestPath),
    #[error("the way to {0} goes through a symbolic link to too long a name")]
    LongName(GuestPath),
    #[error("the root is not a folder")]
    RootNotFolder,
    #[error("{0} removes nothing that could have a name")]
    BadWhiteout(GuestPath),
    #[error("{0} has more than {LINKS_MAX} names")]
    TooManyLinks(GuestPath),
}

/// Which inode of a [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct InodeId(usize);

/// Everything but the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inode {
    pub(super) meta: Meta,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Directory(BTreeMap<Vec<u8>, InodeId>),
    File(Content),
    Symlink(Vec<u8>),
    Device {
        kind: DeviceKind,
        major: u32,
        minor: u32,
    },
    Fifo,
}

/// A root file system.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    /// What is not reached from the root any more stays here.
    inodes: Vec<Inode>,
}

impl Default for Tree {
    fn default() -> Self {
        let root = Inode {
            meta: Meta::of_root(0o755),
            kind: Kind::Directory(BTreeMap::new()),
        };
        Self { inodes: vec![root] }
    }
}

impl Tree {
    pub(super) const ROOT: InodeId = InodeId(0);

    /// Lays one more layer on top. Its whiteouts concern what is below, wherever in it they stand.
    pub(super) fn apply(
        &mut self,
        layer: Vec<Entry>,
        whiteouts: Whiteouts,
    ) -> Result<(), MergeError> {
        if whiteouts == Whiteouts::Literal {
            return layer.into_iter().try_for_each(|entry| self.insert(entry));
        }
        let (removing, making): (Vec<_>, Vec<_>) = layer.into_iter().partition(|entry| {
            entry
                .path
                .split()
                .is_some_and(|(_, name)| name.starts_with(WHITEOUT))
        });
        for entry in &removing {
            self.white_out(&entry.path)?;
        }
        making.into_iter().try_for_each(|entry| self.insert(entry))
    }

    fn white_out(&mut self, path: &GuestPath) -> Result<(), MergeError> {
        let Some((folder, name)) = path.split() else {
            return Ok(());
        };
        let Some(folder) = self.folder(path, folder, false)? else {
            return Ok(());
        };
        if name == OPAQUE {
            self.children_mut(folder).clear();
        } else if !name.starts_with(WHITEOUT_META) {
            let gone = &name[WHITEOUT.len()..];
            if matches!(gone, b"" | b"." | b"..") {
                return Err(MergeError::BadWhiteout(path.clone()));
            }
            self.children_mut(folder).remove(gone);
        }
        Ok(())
    }

    fn insert(&mut self, entry: Entry) -> Result<(), MergeError> {
        let Entry { path, meta, node } = entry;
        let Some((folder, name)) = path.split() else {
            if node != Node::Directory {
                return Err(MergeError::RootNotFolder);
            }
            self.inodes[Self::ROOT.0].meta = meta;
            return Ok(());
        };
        // Made, where it is not there.
        let Some(folder) = self.folder(&path, folder, true)? else {
            return Ok(());
        };
        let present = self.child(folder, name);
        let kind = match node {
            Node::Directory => {
                if let Some(present) = present
                    && matches!(self.inode(present).kind, Kind::Directory(_))
                {
                    self.inodes[present.0].meta = meta;
                    return Ok(());
                }
                Kind::Directory(BTreeMap::new())
            }
            Node::HardLink(target) => {
                let linked = self.link_target(&path, &target)?;
                self.children_mut(folder).insert(name.to_vec(), linked);
                return Ok(());
            }
            Node::File(content) => Kind::File(content),
            Node::Symlink(target) => Kind::Symlink(target),
            Node::Device { kind, major, minor } => Kind::Device { kind, major, minor },
            Node::Fifo => Kind::Fifo,
        };
        let made = self.add(Inode { meta, kind });
        self.children_mut(folder).insert(name.to_vec(), made);
        Ok(())
    }

    fn link_target(&mut self, path: &GuestPath, target: &GuestPath) -> Result<InodeId, MergeError> {
        let missing = || MergeError::NoTarget {
            path: path.clone(),
            target: target.clone(),
        };
        let (folder, name) = target.split().ok_or_else(|| MergeError::LinkToFolder {
            path: path.clone(),
            target: target.clone(),
        })?;
        let folder = self.folder(target, folder, false)?.ok_or_else(missing)?;
        let linked = self.child(folder, name).ok_or_else(missing)?;
        if matches!(self.inode(linked).kind, Kind::Directory(_)) {
            return Err(MergeError::LinkToFolder {
                path: path.clone(),
                target: target.clone(),
            });
        }
        Ok(linked)
    }

    /// The folder at `way`, through symbolic links. With `make`, what is missing on the way is made,
    /// and what is no folder replaced by one; `None` only without.
    fn folder(
        &mut self,
        path: &GuestPath,
        way: &[u8],
        make: bool,
    ) -> Result<Option<InodeId>, MergeError> {
        let mut to_go: VecDeque<Vec<u8>> = names(way).map(<[u8]>::to_vec).collect();
        let mut trail = vec![Self::ROOT];
        let mut followed = 0;
        while let Some(name) = to_go.pop_front() {
            let here = trail.last().copied().unwrap_or(Self::ROOT);
            if name == b".." {
                // Above the root is the root.
                if trail.len() > 1 {
                    trail.pop();
                }
                continue;
            }
            let child = self.child(here, &name);
            match child.map(|child| (child, &self.inode(child).kind)) {
                Some((child, Kind::Directory(_))) => trail.push(child),
                Some((_, Kind::Symlink(target))) => {
                    followed += 1;
                    if followed > SYMLINKS_MAX {
                        return Err(MergeError::SymlinkLoop(path.clone()));
                    }
                    if target.starts_with(b"/") {
                        trail.truncate(1);
                    }
                    for part in names(target).rev() {
                        to_go.push_front(part.to_vec());
                    }
                }
                _ if !make => return Ok(None),
                _ => {
                    if name.len() > NAME_BYTES_MAX {
                        return Err(MergeError::LongName(path.clone()));
                    }
                    let made = self.add(Inode {
                        meta: Meta::of_root(0o755),
                        kind: Kind::Directory(BTreeMap::new()),
                    });
                    self.children_mut(here).insert(name, made);
                    trail.push(made);
                }
            }
        }
        Ok(trail.last().copied())
    }

    fn add(&mut self, inode: Inode) -> InodeId {
        self.inodes.push(inode);
        InodeId(self.inodes.len() - 1)
    }

    pub(super) fn inode(&self, id: InodeId) -> &Inode {
        &self.inodes[id.0]
    }

    /// A folder's child of this name.
    pub(super) fn child(&self, folder: InodeId, name: &[u8]) -> Option<InodeId> {
        self.children(folder)?.get(name).copied()
    }

    /// A folder's children; `None` for another kind of file.
    pub(super) fn children(&self, folder: InodeId) -> Option<&BTreeMap<Vec<u8>, InodeId>> {
        match &self.inode(folder).kind {
            Kind::Directory(children) => Some(children),
            _ => None,
        }
    }

    /// Of an inode that is known to be a folder.
    fn children_mut(&mut self, folder: InodeId) -> &mut BTreeMap<Vec<u8>, InodeId> {
        let kind = &mut self.inodes[folder.0].kind;
        if !matches!(kind, Kind::Directory(_)) {
            *kind = Kind::Directory(BTreeMap::new());
        }
        match kind {
            Kind::Directory(children) => children,
            _ => unreachable!("it was made a folder above"),
        }
    }

    /// Removes a name from the root, with all below it.
    pub(super) fn remove_from_root(&mut self, name: &[u8]) {
        self.children_mut(Self::ROOT).remove(name);
    }

    /// What is reached from the root.
    pub(super) fn census(&self) -> Result<Census, MergeError> {
        let mut census = Census::default();
        let mut folders = vec![Self::ROOT];
        while let Some(folder) = folders.pop() {
            census.inodes += 1;
            for (name, &child) in self.children(folder).into_iter().flatten() {
                census.name_bytes += name.len() as u64 + 12;
                if self.children(child).is_some() {
                    folders.push(child);
                    continue;
                }
                let links = census.links.entry(child).or_default();
                *links += 1;
                if *links > LINKS_MAX {
                    let path = GuestPath::parse(name).unwrap_or_default();
                    return Err(MergeError::TooManyLinks(path));
                }
                if *links > 1 {
                    continue;
                }
                census.inodes += 1;
                if let Kind::File(content) = self.inode(child).kind {
                    census.data_bytes += content.data_bytes;
                }
            }
        }
        Ok(census)
    }
}

/// How much a tree holds.
#[derive(Debug, Default)]
pub(super) struct Census {
    /// Folders and distinct files.
    pub(super) inodes: u64,
    /// What all entries of folders take, about.
    pub(super) name_bytes: u64,
    /// What is not holes in files, each counted once.
    pub(super) data_bytes: u64,
    /// How many names each file has.
    pub(super) links: HashMap<InodeId, u32>,
}

/// The names of a path or of a link's target.
fn names(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/')
        .filter(|name| !matches!(*name, b"" | b"."))
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
