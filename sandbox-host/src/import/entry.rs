//! What archives and folders are made of, whatever form they come in.

use std::fmt;

/// Longest name in a folder, as of ext4.
const NAME_BYTES_MAX: usize = 255;
/// Longest path that a program can name.
const PATH_BYTES_MAX: usize = 4096;
/// How much of a foreign name goes into a message.
const SHOWN_CHARS_MAX: usize = 200;

/// A path below the root of a guest's file system: names between slashes, none of them empty, `.` or
/// `..`. It is never joined to one of the host's.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct GuestPath(Vec<u8>);

/// Why something is no path inside a guest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadPath {
    #[error("{0} leads out of the root")]
    Outside(String),
    #[error("{0} is too long a name")]
    TooLong(String),
    #[error("{0} holds a zero byte")]
    Zero(String),
}

impl GuestPath {
    /// Reads a path as archives have it: relative, absolute or with a `./` in front.
    pub(super) fn parse(raw: &[u8]) -> Result<Self, BadPath> {
        if raw.contains(&0) {
            return Err(BadPath::Zero(shown(raw)));
        }
        let mut path = Vec::with_capacity(raw.len());
        for name in raw.split(|&byte| byte == b'/') {
            match name {
                b"" | b"." => continue,
                b".." => return Err(BadPath::Outside(shown(raw))),
                _ => {}
            }
            if name.len() > NAME_BYTES_MAX {
                return Err(BadPath::TooLong(shown(raw)));
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
        }
        if path.len() >= PATH_BYTES_MAX {
            return Err(BadPath::TooLong(shown(raw)));
        }
        Ok(Self(path))
    }

    /// The path's folder and last name; `None` for the root.
    pub(super) fn split(&self) -> Option<(&[u8], &[u8])> {
        if self.0.is_empty() {
            return None;
        }
        Some(match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&self.0[..slash], &self.0[slash + 1..]),
            None => (&[], &self.0),
        })
    }
}

impl fmt::Display for GuestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", shown(&self.0))
    }
}

impl fmt::Debug for GuestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A foreign name, fit for a message: no control characters, and not long.
pub(super) fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let mut shown: String = text
        .chars()
        .take(SHOWN_CHARS_MAX)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// Extended attributes: full names and values.
pub(super) type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// What is said of a file beside its name and content.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Meta {
    /// Permissions with setuid, setgid and sticky, without the file's type.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds since 1970.
    pub(super) mtime_secs: u32,
    pub(super) xattrs: Attributes,
}

impl Meta {
    /// Root's, with these permissions.
    pub(super) fn of_root(mode: u16) -> Self {
        Self {
            mode,
            ..Self::default()
        }
    }

    /// Times before 1970 and after 2038 become the nearest that every ext4 can hold.
    pub(super) fn clamp_mtime(seconds: i64) -> u32 {
        u32::try_from(seconds.clamp(0, i64::from(i32::MAX))).unwrap_or(0)
    }
}

/// Whether an attribute means something in a guest. Labels and keys of the host that a file came
/// from do not.
pub(super) fn keeps_xattr(name: &[u8]) -> bool {
    const KEPT: [&[u8]; 3] = [
        b"security.capability",
        b"system.posix_acl_access",
        b"system.posix_acl_default",
    ];
    KEPT.contains(&name)
        || (name.starts_with(b"user.") && name.len() > b"user.".len())
        || (name.starts_with(b"trusted.")
            && name.len() > b"trusted.".len()
            && !name.starts_with(b"trusted.overlay."))
}

/// A file's content, kept in a [`Stage`](super::stage::Stage).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Content {
    /// Which of the stage's files.
    pub(super) number: u64,
    /// Its length.
    pub(super) size_bytes: u64,
    /// What of it is not holes.
    pub(super) data_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeviceKind {
    Character,
    Block,
}

/// What kind of file an entry makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Directory,
    File(Content),
    Symlink(Vec<u8>),
    /// Another name of a file that an earlier entry made.
    HardLink(GuestPath),
    Device {
        kind: DeviceKind,
        major: u32,
        minor: u32,
    },
    Fifo,
}

/// One entry of an archive, a layer or a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: GuestPath,
    pub(super) meta: Meta,
    pub(super) node: Node,
}

impl Entry {
    /// What it takes in memory, about.
    pub(super) fn held_bytes(&self) -> usize {
        /// With the inode and the folder's entry that it becomes.
        const LEAST_BYTES: usize = 256;
        let xattrs = &self.meta.xattrs;
        let attributes: usize = xattrs
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        let target = match &self.node {
            Node::Symlink(target) => target.len(),
            Node::HardLink(target) => target.0.len(),
            _ => 0,
        };
        LEAST_BYTES + self.path.0.len() + attributes + target
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trap_33_a_path_that_leads_out_of_the_root_is_none() {
        for raw in [
            "../../etc/passwd",
            "a/../../b",
            "..",
            "/..",
            "a/..",
            "./../x",
        ] {
            let error = GuestPath::parse(raw.as_bytes()).unwrap_err();
            assert!(matches!(error, BadPath::Outside(_)), "{raw}: {error}");
        }
        assert!(GuestPath::parse(b"a\0b").is_err());
    }

    #[test]
    fn the_forms_that_archives_use_are_one_path() {
        for raw in [
            "/etc/passwd",
            "etc/passwd",
            "./etc//passwd",
            "etc/./passwd/",
        ] {
            assert_eq!(
                GuestPath::parse(raw.as_bytes()).unwrap().to_string(),
                "/etc/passwd"
            );
        }
        assert_eq!(GuestPath::parse(b"./").unwrap().split(), None);
        assert_eq!(
            GuestPath::parse(b"..data/...").unwrap().to_string(),
            "/..data/..."
        );
    }

    #[test]
    fn names_at_the_limit_are_taken_and_beyond_it_refused() {
        let name = "n".repeat(NAME_BYTES_MAX);
        assert!(GuestPath::parse(name.as_bytes()).is_ok());
        assert!(GuestPath::parse(format!("{name}n").as_bytes()).is_err());
        assert!(GuestPath::parse("d/".repeat(3000).as_bytes()).is_err());
    }

    #[test]
    fn trap_33_what_is_shown_of_a_name_holds_no_control_characters() {
        let text = shown(b"\x1b[31mred\n");
        assert!(!text.contains('\x1b') && !text.contains('\n'), "{text}");
        assert!(shown("x".repeat(1000).as_bytes()).chars().count() < 210);
    }
}
