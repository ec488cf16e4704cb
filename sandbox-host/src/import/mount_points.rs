//! What a root file system must have for a guest to come up: folders to mount on.

use super::{
    entry::{Entry, GuestPath, Meta, Node},
    error::ImportError,
    tree::{Kind, Tree, Whiteouts},
};

/// Folders that the guest agent mounts on, or expects, with their permissions.
const FOLDERS: [(&str, u16); 6] = [
    ("dev", 0o755),
    ("proc", 0o555),
    ("sys", 0o555),
    ("run", 0o755),
    ("tmp", 0o1777),
    ("root", 0o700),
];
/// What the agent mounts on before the guest's root is the root: a link would lead elsewhere.
const REAL_FOLDERS: [&str; 3] = ["dev", "proc", "sys"];

/// Makes what is missing.
///
/// # Errors
/// Where something else is in the place of a mount point, or there is nothing at all.
pub(super) fn ensure(tree: &mut Tree) -> Result<(), ImportError> {
    // ext4 makes its own.
    tree.remove_from_root(b"lost+found");
    if tree
        .children(Tree::ROOT)
        .is_none_or(|children| children.is_empty())
    {
        return Err(ImportError::bad("it is empty"));
    }
    let mut missing = Vec::new();
    for (name, mode) in FOLDERS {
        let present = tree.child(Tree::ROOT, name.as_bytes());
        match present.map(|present| &tree.inode(present).kind) {
            Some(Kind::Directory(_)) => {}
            Some(Kind::Symlink(_)) if !REAL_FOLDERS.contains(&name) => {}
            Some(_) => return Err(ImportError::bad(format!("its /{name} is no folder"))),
            None => missing.push(Entry {
                path: GuestPath::parse(name.as_bytes())
                    .map_err(|error| ImportError::bad(error.to_string()))?,
                meta: Meta::of_root(mode),
                node: Node::Directory,
            }),
        }
    }
    tree.apply(missing, Whiteouts::Literal)
        .map_err(|error| ImportError::bad(error.to_string()))
}
