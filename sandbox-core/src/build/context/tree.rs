//! The files of a context, by path.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Dir { mode: u32 },
    File { mode: u32, data: Bytes },
    Symlink { target: String },
}

/// All of them. Paths have no `.`, `..` and slash at either end, and each one's parents are there and
/// are folders. The context itself has the empty path and is not among them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Tree(BTreeMap<String, Node>);

/// The root, which every context has.
const ROOT: Node = Node::Dir { mode: 0o755 };

/// Where a path leads.
pub(super) enum Found {
    /// To this path.
    At(String),
    Nothing,
    Loop,
}

impl Tree {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, path: &str) -> Option<&Node> {
        if path.is_empty() {
            return Some(&ROOT);
        }
        self.0.get(path)
    }

    /// Adds an entry, or replaces one, and makes the parents that are missing. Refuses what would make
    /// one path a folder and something else.
    pub(super) fn insert(&mut self, path: &str, node: Node) -> bool {
        let is_dir = matches!(node, Node::Dir { .. });
        if path.is_empty() {
            return is_dir;
        }
        for (slash, _) in path.match_indices('/') {
            match self.0.get(&path[..slash]) {
                Some(Node::Dir { .. }) => {}
                Some(_) => return false,
                None => {
                    self.0.insert(path[..slash].to_owned(), ROOT);
                }
            }
        }
        let was_dir = matches!(self.0.get(path), Some(Node::Dir { .. }));
        if was_dir && !is_dir && self.below(path).next().is_some() {
            return false;
        }
        self.0.insert(path.to_owned(), node);
        true
    }

    /// All that lies below a folder, with paths from there; parents come before what they hold.
    pub(super) fn below<'t>(&'t self, dir: &str) -> impl Iterator<Item = (&'t str, &'t Node)> {
        let prefix = match dir {
            "" => String::new(),
            dir => format!("{dir}/"),
        };
        let length = prefix.len();
        self.0
            .range(prefix.clone()..)
            .take_while(move |(path, _)| path.starts_with(&prefix))
            .map(move |(path, node)| (&path[length..], node))
    }

    /// The names in a folder.
    pub(super) fn names<'t>(&'t self, dir: &str) -> impl Iterator<Item = &'t str> {
        self.below(dir)
            .map(|(path, _)| path)
            .filter(|path| !path.contains('/'))
    }

    /// Follows a path and all links on it, as if the context were the whole file system.
    pub(super) fn follow(&self, path: &str) -> Found {
        const LINKS_MAX: usize = 40;
        let mut links = 0;
        let mut at: Vec<String> = Vec::new();
        let split = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
        let mut rest = VecDeque::from(split(path));
        while let Some(part) = rest.pop_front() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    at.pop();
                    continue;
                }
                _ => at.push(part),
            }
            match self.get(&at.join("/")) {
                None => return Found::Nothing,
                Some(Node::Symlink { target }) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Found::Loop;
                    }
                    if target.starts_with('/') {
                        at.clear();
                    } else {
                        at.pop();
                    }
                    split(target)
                        .into_iter()
                        .rev()
                        .for_each(|part| rest.push_front(part));
                }
                Some(Node::File { .. }) if !rest.iter().all(String::is_empty) => {
                    return Found::Nothing;
                }
                Some(_) => {}
            }
        }
        Found::At(at.join("/"))
    }
}
