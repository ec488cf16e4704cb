//! What a COPY takes from a context, by the rules that users know from Dockerfiles.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use super::{
    CONTEXT_ENTRIES_MAX, CONTEXT_UNPACKED_MAX_BYTES, Context, Destination, Put,
    error::{SelectError, shown},
    pattern,
    tree::{Found, Node, Tree},
};
use crate::build::recipe::ContentDigest;

/// The longest path in a guest, in bytes.
const PATH_BYTES_MAX: usize = 4095;

/// Something that a COPY takes.
struct Taken<'c> {
    /// Its path in the context; empty for the context itself.
    path: String,
    node: &'c Node,
    /// The source that it was found by, as the step says it.
    source: &'c str,
}

impl Taken<'_> {
    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

impl Context {
    /// What to put where, in an order in which folders come before what they hold. `mode` is what the
    /// step says of permission bits.
    ///
    /// A folder's content is copied, not the folder itself; a file or link gets the destination's name,
    /// or keeps its own where that is a directory. Links that a source names or leads through are
    /// followed within the context; those that a wildcard finds, and those inside of folders, are
    /// copied as links.
    ///
    /// # Errors
    /// What is missing, or can't lie where it would.
    pub fn select<S: AsRef<str>>(
        &self,
        sources: &[S],
        to: &Destination,
        mode: Option<u32>,
    ) -> Result<Vec<Put>, SelectError> {
        let taken = self.taken(sources)?;
        if let [_, second, ..] = taken.as_slice()
            && !to.is_dir
        {
            let source_path = shown(second.source.as_bytes());
            return Err(SelectError::NeedsDirectory { source_path });
        }
        let mut puts = Puts {
            by_path: BTreeMap::new(),
            mode,
        };
        for taken in &taken {
            match taken.node {
                Node::Dir { .. } => {
                    puts.add(Put::Dir {
                        path: to.path.clone(),
                        mode: None,
                    })?;
                    for (path, node) in self.0.below(&taken.path) {
                        puts.add_node(to.below(path), node)?;
                    }
                }
                node if to.is_dir => puts.add_node(to.below(taken.name()), node)?,
                node => puts.add_node(to.path.clone(), node)?,
            }
        }
        Ok(puts.by_path.into_values().collect())
    }

    /// A hash of all that [`select`](Self::select) would take, wherever it goes: names, kinds,
    /// permission bits, content and links; not times and owners.
    ///
    /// # Errors
    /// As for [`select`](Self::select), what is missing.
    pub fn digest<S: AsRef<str>>(&self, sources: &[S]) -> Result<ContentDigest, SelectError> {
        let mut hash = Sha256::new();
        for taken in self.taken(sources)? {
            hash_node(&mut hash, "source", taken.name(), taken.node);
            if let Node::Dir { .. } = taken.node {
                for (path, node) in self.0.below(&taken.path) {
                    hash_node(&mut hash, "inside", path, node);
                }
            }
        }
        Ok(ContentDigest::from(<[u8; 32]>::from(hash.finalize())))
    }

    fn taken<'c, S: AsRef<str>>(&'c self, sources: &'c [S]) -> Result<Vec<Taken<'c>>, SelectError> {
        let mut taken = Vec::new();
        let mut room = Room::new();
        for source in sources {
            let source = source.as_ref();
            let before = taken.len();
            let paths = if source.split('/').any(pattern::has_wildcard) {
                expand(&self.0, source)
            } else {
                let source_path = || shown(source.as_bytes());
                match self.0.follow(source) {
                    Found::At(path) => vec![path],
                    Found::Nothing => {
                        let source_path = source_path();
                        return Err(SelectError::Missing { source_path });
                    }
                    Found::Loop => {
                        let source_path = source_path();
                        return Err(SelectError::LinkLoop { source_path });
                    }
                }
            };
            for path in paths {
                let Some(node) = self.0.get(&path) else {
                    continue;
                };
                room.take(node)?;
                for (_, node) in self.0.below(&path) {
                    room.take(node)?;
                }
                taken.push(Taken { path, node, source });
            }
            if taken.len() == before {
                let pattern = shown(source.as_bytes());
                return Err(SelectError::NoMatch { pattern });
            }
        }
        Ok(taken)
    }
}

/// What one COPY may still take. Sources may name the same thing, but not so often that it becomes
/// much more than there is.
struct Room {
    entries: usize,
    bytes: u64,
}

impl Room {
    const fn new() -> Self {
        Self {
            entries: 2 * CONTEXT_ENTRIES_MAX,
            bytes: 2 * CONTEXT_UNPACKED_MAX_BYTES,
        }
    }

    fn take(&mut self, node: &Node) -> Result<(), SelectError> {
        let bytes = match node {
            Node::File { data, .. } => data.len() as u64,
            Node::Dir { .. } | Node::Symlink { .. } => 0,
        };
        let entries = self.entries.checked_sub(1).ok_or(SelectError::TooMuch)?;
        let bytes = self.bytes.checked_sub(bytes).ok_or(SelectError::TooMuch)?;
        *self = Self { entries, bytes };
        Ok(())
    }
}

/// The paths that are like a source with wildcards. Folders on the way may be links.
fn expand(tree: &Tree, source: &str) -> Vec<String> {
    let parts = source
        .split('/')
        .filter(|part| !matches!(*part, "" | "." | ".."));
    let mut found = vec![String::new()];
    for part in parts {
        // Many links can lead to one folder.
        let dirs: BTreeSet<String> = found
            .iter()
            .filter_map(|dir| match tree.follow(dir) {
                Found::At(dir) => matches!(tree.get(&dir), Some(Node::Dir { .. })).then_some(dir),
                Found::Nothing | Found::Loop => None,
            })
            .collect();
        let mut next = Vec::new();
        for dir in &dirs {
            let names = tree.names(dir).filter(|name| pattern::matches(part, name));
            next.extend(names.map(|name| match dir.as_str() {
                "" => name.to_owned(),
                dir => format!("{dir}/{name}"),
            }));
        }
        found = next;
    }
    found
}

/// Puts by where they go.
struct Puts {
    by_path: BTreeMap<String, Put>,
    mode: Option<u32>,
}

impl Puts {
    fn add_node(&mut self, path: String, node: &Node) -> Result<(), SelectError> {
        self.add(match node {
            Node::Dir { mode } => Put::Dir {
                path,
                mode: Some(self.mode.unwrap_or(*mode)),
            },
            Node::File { mode, data } => Put::File {
                path,
                mode: self.mode.unwrap_or(*mode),
                data: data.clone(),
            },
            Node::Symlink { target } => Put::Symlink {
                path,
                target: target.clone(),
            },
        })
    }

    /// Of two files at one path the later one stays; a folder and something else can't share one.
    fn add(&mut self, put: Put) -> Result<(), SelectError> {
        let path = put.path();
        if path.len() > PATH_BYTES_MAX {
            return Err(SelectError::PathTooLong {
                path: shown(path.as_bytes()),
                max: PATH_BYTES_MAX,
            });
        }
        let is_dir = matches!(put, Put::Dir { .. });
        if let Some(there) = self.by_path.get(path)
            && is_dir != matches!(there, Put::Dir { .. })
        {
            let path = shown(path.as_bytes());
            return Err(SelectError::Clash { path });
        }
        if path == "/" && !is_dir {
            let path = shown(path.as_bytes());
            return Err(SelectError::Clash { path });
        }
        // The destination itself, named again, keeps the mode that a folder in it was given.
        let keeps = matches!(put, Put::Dir { mode: None, .. }) && self.by_path.contains_key(path);
        if !keeps {
            self.by_path.insert(path.to_owned(), put);
        }
        Ok(())
    }
}

fn hash_node(hash: &mut Sha256, place: &str, path: &str, node: &Node) {
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(place.as_bytes());
    part(path.as_bytes());
    match node {
        Node::Dir { mode } => {
            part(b"dir");
            part(&mode.to_be_bytes());
        }
        Node::File { mode, data } => {
            part(b"file");
            part(&mode.to_be_bytes());
            part(data);
        }
        Node::Symlink { target } => {
            part(b"symlink");
            part(target.as_bytes());
        }
    }
}
