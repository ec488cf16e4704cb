//! A tree in debugfs's own words: the commands that put it into an empty ext4, whoever runs them.
//!
//! Names stand where debugfs takes them for names; wherever it takes a path, `./` goes in front, as
//! it reads `<5>` as an inode's number and `-x` as an option.

use std::{
    collections::HashMap,
    io::{self, Write},
    path::Path,
};

use super::{
    entry::{Content, DeviceKind, Meta, shown},
    tree::{Census, InodeId, Kind, Tree},
};

/// What debugfs reads as one line.
const LINE_BYTES_MAX: usize = 8000;
const BLOCK_BYTES: u64 = 4096;
/// What ext4 keeps of an attribute beside its name and value; all of a file's share a block.
const XATTR_OVERHEAD_BYTES: usize = 32;
const XATTRS_BYTES_MAX: usize = BLOCK_BYTES as usize - 64;

/// Why a tree can't be said in commands.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScriptError {
    #[error("the name {0} holds a line break, which is not supported")]
    LineBreak(String),
    #[error("{0} has extended attributes of {1} bytes, more than ext4 can hold")]
    Attributes(String, usize),
    #[error("{0} is too deep, or too long a link")]
    TooLong(String),
    #[error("writing the script: {0}")]
    Write(#[from] io::Error),
}

/// Where the executor keeps what commands read.
pub(super) trait Files {
    /// A file's content.
    fn content(&self, content: Content) -> std::path::PathBuf;
    /// Keeps an attribute's value in a file.
    fn value(&mut self, value: &[u8]) -> io::Result<std::path::PathBuf>;
}

enum Visit {
    Enter(Vec<u8>, InodeId),
    Leave,
}

/// Writes the commands for all of `tree`, of which `census` was taken.
pub(super) fn write(
    tree: &Tree,
    census: &Census,
    files: &mut dyn Files,
    out: &mut dyn Write,
) -> Result<(), ScriptError> {
    let mut script = Script {
        tree,
        census,
        files,
        out,
        place: Vec::new(),
        first: HashMap::new(),
    };
    script.attributes(b"/", Tree::ROOT)?;
    script.fill(Tree::ROOT)?;
    let mut visits = folders_of(tree, Tree::ROOT);
    while let Some(visit) = visits.pop() {
        match visit {
            Visit::Enter(name, folder) => {
                script.command(&[b"cd ", &quoted(&local(&name))?])?;
                script.place.push(name);
                script.fill(folder)?;
                visits.push(Visit::Leave);
                visits.extend(folders_of(tree, folder));
            }
            Visit::Leave => {
                script.place.pop();
                script.command(&[b"cd .."])?;
            }
        }
    }
    Ok(())
}

fn folders_of(tree: &Tree, folder: InodeId) -> Vec<Visit> {
    let children = tree.children(folder).into_iter().flatten();
    children
        .filter(|(_, child)| tree.children(**child).is_some())
        .map(|(name, child)| Visit::Enter(name.clone(), *child))
        .collect()
}

struct Script<'a> {
    tree: &'a Tree,
    census: &'a Census,
    files: &'a mut dyn Files,
    out: &'a mut dyn Write,
    /// The folder that debugfs is in.
    place: Vec<Vec<u8>>,
    /// The first path of each file that has several.
    first: HashMap<InodeId, Vec<u8>>,
}

impl Script<'_> {
    /// Makes all that is in the folder at hand, but what is in its folders.
    fn fill(&mut self, folder: InodeId) -> Result<(), ScriptError> {
        let tree = self.tree;
        let mut links = Vec::new();
        for (name, &child) in tree.children(folder).into_iter().flatten() {
            if self.first.contains_key(&child) {
                links.push((name, child));
                continue;
            }
            self.make(name, child)?;
            self.attributes(&local(name), child)?;
            let names = self.census.links.get(&child).copied().unwrap_or(1);
            if names > 1 {
                self.first.insert(child, self.path_of(name));
                let count = format!(" links_count {names}");
                self.command(&[b"sif ", &quoted(&local(name))?, count.as_bytes()])?;
            }
        }
        self.link(&links)
    }

    fn make(&mut self, name: &[u8], child: InodeId) -> Result<(), ScriptError> {
        let bare = quoted(name)?;
        let path = quoted(&local(name))?;
        match &self.tree.inode(child).kind {
            Kind::Directory(_) => self.command(&[b"mkdir ", &path]),
            Kind::File(content) => {
                let source = file_argument(&self.files.content(*content))?;
                self.command(&[b"write ", &source, b" ", &bare])
            }
            Kind::Symlink(target) => self.command(&[b"symlink ", &path, b" ", &quoted(target)?]),
            Kind::Device { kind, major, minor } => {
                let letter = match kind {
                    DeviceKind::Character => 'c',
                    DeviceKind::Block => 'b',
                };
                // debugfs takes no numbers as large as an inode has room for.
                let small = (*minor).min(0xFF);
                let numbers = format!(" {letter} {major} {small}");
                self.command(&[b"mknod ", &bare, numbers.as_bytes()])?;
                if small == *minor {
                    return Ok(());
                }
                let number = (minor & 0xFF) | (major << 8) | ((minor & !0xFF) << 12);
                self.command(&[b"sif ", &path, b" block[0] 0"])?;
                let number = format!(" block[1] {number}");
                self.command(&[b"sif ", &path, number.as_bytes()])
            }
            Kind::Fifo => self.command(&[b"mknod ", &bare, b" p"]),
        }
    }

    fn attributes(&mut self, path: &[u8], inode: InodeId) -> Result<(), ScriptError> {
        let inode = self.tree.inode(inode);
        let Meta {
            mode,
            uid,
            gid,
            mtime_secs,
            xattrs,
        } = &inode.meta;
        let full_mode = file_type(&inode.kind) | u32::from(*mode);
        let bytes = xattrs
            .iter()
            .map(|(name, value)| name.len() + value.len() + XATTR_OVERHEAD_BYTES)
            .sum();
        if bytes > XATTRS_BYTES_MAX {
            return Err(ScriptError::Attributes(shown(path), bytes));
        }
        let path = quoted(path)?;
        for field in [
            format!(" mode 0{full_mode:o}"),
            format!(" uid {uid}"),
            format!(" gid {gid}"),
            format!(" mtime @{mtime_secs}"),
        ] {
            self.command(&[b"sif ", &path, field.as_bytes()])?;
        }
        for (name, value) in xattrs {
            let source = file_argument(&self.files.value(value)?)?;
            self.command(&[b"ea_set -f ", &source, b" ", &path, b" ", &quoted(name)?])?;
        }
        Ok(())
    }

    /// Further names of files that are there already. debugfs makes no room for them by itself.
    fn link(&mut self, links: &[(&Vec<u8>, InodeId)]) -> Result<(), ScriptError> {
        const ENTRY_BYTES_MAX: u64 = 264;
        let bytes: u64 = links
            .iter()
            .map(|(name, _)| (name.len() as u64 + 8).next_multiple_of(4))
            .sum();
        // What is left in each block may be too little for one more.
        let blocks = bytes.div_ceil(BLOCK_BYTES - 12 - ENTRY_BYTES_MAX);
        for _ in 0..blocks {
            self.command(&[b"expand_dir ."])?;
        }
        for (name, inode) in links {
            let first = self.first.get(inode).cloned().unwrap_or_default();
            self.command(&[b"ln ", &quoted(&first)?, b" ", &quoted(&local(name))?])?;
        }
        Ok(())
    }

    fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut path = Vec::new();
        for part in self.place.iter().map(Vec::as_slice).chain([name]) {
            path.push(b'/');
            path.extend_from_slice(part);
        }
        path
    }

    fn command(&mut self, parts: &[&[u8]]) -> Result<(), ScriptError> {
        let line = parts.concat();
        if line.len() > LINE_BYTES_MAX {
            let place = self.place.last().map(Vec::as_slice).unwrap_or(b"/");
            return Err(ScriptError::TooLong(shown(place)));
        }
        self.out.write_all(&line)?;
        self.out.write_all(b"\n")?;
        Ok(())
    }
}

fn local(name: &[u8]) -> Vec<u8> {
    [b"./", name].concat()
}

/// Between quotes, where a quote itself is doubled.
fn quoted(name: &[u8]) -> Result<Vec<u8>, ScriptError> {
    if name.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        return Err(ScriptError::LineBreak(shown(name)));
    }
    let mut text = vec![b'"'];
    for &byte in name {
        if byte == b'"' {
            text.push(b'"');
        }
        text.push(byte);
    }
    text.push(b'"');
    Ok(text)
}

fn file_argument(path: &Path) -> Result<Vec<u8>, ScriptError> {
    use std::os::unix::ffi::OsStrExt;
    quoted(path.as_os_str().as_bytes())
}

const fn file_type(kind: &Kind) -> u32 {
    match kind {
        Kind::Directory(_) => 0o040_000,
        Kind::File(_) => 0o100_000,
        Kind::Symlink(_) => 0o120_000,
        Kind::Device { kind, .. } => match kind {
            DeviceKind::Character => 0o020_000,
            DeviceKind::Block => 0o060_000,
        },
        Kind::Fifo => 0o010_000,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::import::{
        entry::{Entry, GuestPath, Node},
        tree::Whiteouts,
    };

    struct Numbered(usize);

    impl Files for Numbered {
        fn content(&self, content: Content) -> PathBuf {
            format!("/stage/c{}", content.number).into()
        }

        fn value(&mut self, _value: &[u8]) -> io::Result<PathBuf> {
            self.0 += 1;
            Ok(format!("/stage/v{}", self.0).into())
        }
    }

    fn script_of(entries: &[(&str, Node)]) -> Result<String, ScriptError> {
        let mut tree = Tree::default();
        let entries = entries.iter().map(|(path, node)| Entry {
            path: GuestPath::parse(path.as_bytes()).unwrap(),
            meta: Meta::of_root(0o644),
            node: node.clone(),
        });
        tree.apply(entries.collect(), Whiteouts::Literal).unwrap();
        let mut out = Vec::new();
        let census = tree.census().unwrap();
        write(&tree, &census, &mut Numbered(0), &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    const FILE: Node = Node::File(Content {
        number: 3,
        size_bytes: 1,
        data_bytes: 4096,
    });

    #[test]
    fn names_that_debugfs_reads_as_something_else_are_kept_apart_from_it() {
        let script = script_of(&[("a/<2>", FILE), ("a/-f", FILE), ("a/q\" x", FILE)]).unwrap();
        assert!(script.contains("write \"/stage/c3\" \"<2>\"\n"), "{script}");
        assert!(script.contains("sif \"./<2>\" mode 0100644\n"), "{script}");
        assert!(script.contains("sif \"./-f\" uid 0\n"), "{script}");
        assert!(script.contains("\"./q\"\" x\""), "{script}");
    }

    #[test]
    fn trap_33_a_name_can_hold_no_further_command() {
        for name in ["a\nrm /etc", "a\rrm /etc"] {
            let error = script_of(&[(name, FILE)]).unwrap_err();
            assert!(matches!(error, ScriptError::LineBreak(_)), "{error}");
        }
        let target = Node::Symlink(b"x\nkill_file /".to_vec());
        assert!(script_of(&[("link", target)]).is_err());
    }

    #[test]
    fn a_second_name_is_linked_to_the_first_and_counted() {
        let target = GuestPath::parse(b"b/one").unwrap();
        let script = script_of(&[("b/one", FILE), ("c", Node::HardLink(target))]).unwrap();
        assert!(script.contains("links_count 2"), "{script}");
        assert!(script.contains("write \"/stage/c3\" \"c\""), "{script}");
        assert!(script.contains("ln \"/c\" \"./one\""), "{script}");
        assert_eq!(script.matches("write ").count(), 1, "{script}");
    }
}
