//! Tar archives, read as a stream: ustar, PAX and GNU, with long names, extended attributes and
//! sparse files. Nothing is kept of an archive but the entry at hand, and nothing that it says makes
//! more than a bounded amount of memory.
//!
//! ```text
//! header ─► extended headers* ─► entry ─► its data ─► header … ─► two blocks of zeros
//! ```

mod pax;
mod reader;
mod sparse;

use std::io::Read;

pub(super) use reader::{TarError, TarReader};

use self::reader::{Member, MemberKind};
use super::{
    entry::{DeviceKind, Entry, GuestPath, Meta, Node, shown},
    error::ImportError,
    stage::Stage,
};

/// Whether an archive has to end with its mark. Where a digest tells that it is whole, it need not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndMark {
    Required,
    Optional,
}

impl From<TarError> for ImportError {
    fn from(error: TarError) -> Self {
        Self::BadSource(error.to_string())
    }
}

/// Reads a whole archive, contents into the stage.
pub(super) fn read_entries(
    reader: impl Read,
    end_mark: EndMark,
    stage: &mut Stage,
) -> Result<Vec<Entry>, ImportError> {
    let mut archive = TarReader::new(reader, end_mark);
    let mut entries = Vec::new();
    while let Some(member) = archive.next_member()? {
        let path = parse(&member.path)?;
        let node = match &member.kind {
            MemberKind::File => Node::File(archive.store(&member, stage)?),
            MemberKind::Directory => Node::Directory,
            MemberKind::Symlink => Node::Symlink(symlink_target(&path, &member.link)?),
            MemberKind::HardLink => Node::HardLink(parse(&member.link)?),
            MemberKind::Fifo => Node::Fifo,
            MemberKind::Character => device(&path, DeviceKind::Character, &member)?,
            MemberKind::Block => device(&path, DeviceKind::Block, &member)?,
        };
        let entry = Entry {
            path,
            meta: Meta {
                mode: member.mode,
                uid: member.uid,
                gid: member.gid,
                mtime_secs: Meta::clamp_mtime(member.mtime_secs),
                xattrs: member.xattrs,
            },
            node,
        };
        stage.hold(&entry)?;
        entries.push(entry);
    }
    Ok(entries)
}

fn parse(raw: &[u8]) -> Result<GuestPath, ImportError> {
    GuestPath::parse(raw).map_err(|error| ImportError::bad(error.to_string()))
}

/// Any target is the guest's own business, as long as Linux can hold it.
pub(super) fn symlink_target(path: &GuestPath, target: &[u8]) -> Result<Vec<u8>, ImportError> {
    const TARGET_BYTES_MAX: usize = 4095;
    if target.is_empty() || target.len() > TARGET_BYTES_MAX || target.contains(&0) {
        return Err(ImportError::bad(format!(
            "{path} is a symbolic link to what no link can lead to, {}",
            shown(target)
        )));
    }
    Ok(target.to_vec())
}

fn device(path: &GuestPath, kind: DeviceKind, member: &Member) -> Result<Node, ImportError> {
    device_node(path, kind, member.device.0, member.device.1)
}

/// A device, by numbers that ext4 can hold.
pub(super) fn device_node(
    path: &GuestPath,
    kind: DeviceKind,
    major: u32,
    minor: u32,
) -> Result<Node, ImportError> {
    const MAJOR_MAX: u32 = 0xFFF;
    const MINOR_MAX: u32 = 0xF_FFFF;
    if major > MAJOR_MAX || minor > MINOR_MAX {
        return Err(ImportError::bad(format!(
            "{path} is a device of number {major}:{minor}, beyond {MAJOR_MAX}:{MINOR_MAX}"
        )));
    }
    Ok(Node::Device { kind, major, minor })
}

#[cfg(test)]
mod tests;
