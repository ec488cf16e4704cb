//! Disks of machines: their formats, which backend makes them on a host, and how large a
//! copy-on-write file must be. Pure: what opens files and devices is the host's.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// How a disk is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskFormat {
    /// Byte for byte: a file, or a block device.
    Raw,
    /// QEMU's format, which may lie on a backing file.
    Qcow2,
}

impl DiskFormat {
    /// QEMU's name for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// What gives machines their private disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskBackend {
    /// A file that shares the base's blocks until they are written to.
    Reflink,
    /// A qcow2 file on top of the base.
    Qcow2,
    /// A block device of the kernel: the base read-only, and a copy-on-write file.
    DmSnapshot,
}

impl DiskBackend {
    /// All backends, best first among those that need no asking.
    pub const ALL: [Self; 3] = [Self::Reflink, Self::Qcow2, Self::DmSnapshot];

    /// The backend's name, in settings and manifests.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reflink => "reflink",
            Self::Qcow2 => "qcow2",
            Self::DmSnapshot => "dm-snapshot",
        }
    }
}

impl fmt::Display for DiskBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a setting says of the backend: `auto`, or a backend's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum DiskChoice {
    /// The best one that works and needs no asking.
    #[default]
    Auto,
    /// This one, or none.
    Only(DiskBackend),
}

/// A setting that names no backend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no disk backend `{0}`; there are auto, reflink, qcow2 and dm-snapshot")]
pub struct UnknownBackend(String);

impl DiskChoice {
    const AUTO: &str = "auto";
}

impl fmt::Display for DiskChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str(Self::AUTO),
            Self::Only(backend) => backend.fmt(f),
        }
    }
}

impl FromStr for DiskChoice {
    type Err = UnknownBackend;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == Self::AUTO {
            return Ok(Self::Auto);
        }
        let named = DiskBackend::ALL
            .into_iter()
            .find(|backend| backend.as_str() == text);
        named
            .map(Self::Only)
            .ok_or_else(|| UnknownBackend(text.to_owned()))
    }
}

impl From<DiskChoice> for String {
    fn from(choice: DiskChoice) -> Self {
        choice.to_string()
    }
}

impl TryFrom<String> for DiskChoice {
    type Error = UnknownBackend;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// What a host found out about itself and its data folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskFacts {
    /// The data folder's file system lets files share blocks.
    pub reflink: bool,
    /// There is a program that makes qcow2 files.
    pub qemu_img: bool,
    /// The kernel has the target `snapshot`, and lets this process use it.
    pub dm_snapshot: bool,
    /// The kernel has loop devices, and lets this process use them.
    pub loop_devices: bool,
}

/// Why a backend can't be used here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("disks can't be made by {backend} here: {missing}")]
pub struct NoBackend {
    /// Which one.
    pub backend: DiskBackend,
    /// What it lacks.
    pub missing: &'static str,
}

impl DiskFacts {
    /// The backend, if it works here.
    ///
    /// # Errors
    /// With what it lacks.
    pub fn usable(self, backend: DiskBackend) -> Result<DiskBackend, NoBackend> {
        let missing = match backend {
            DiskBackend::Reflink if !self.reflink => {
                "the data folder's file system can't share blocks between files (XFS and btrfs can)"
            }
            DiskBackend::Qcow2 if !self.qemu_img => "qemu-img is missing",
            DiskBackend::DmSnapshot if !self.dm_snapshot => {
                "the kernel's dm-snapshot is missing, or not for this user"
            }
            DiskBackend::DmSnapshot if !self.loop_devices => {
                "loop devices are missing, or not for this user"
            }
            _ => return Ok(backend),
        };
        Err(NoBackend { backend, missing })
    }

    /// The backend that was asked for; without a wish, shared blocks where the file system has
    /// them and qcow2 elsewhere. Device-mapper is never chosen unasked: what it takes is the whole
    /// machine's.
    ///
    /// # Errors
    /// Where the one that was asked for, or every other, lacks something.
    pub fn choose(self, choice: DiskChoice) -> Result<DiskBackend, NoBackend> {
        match choice {
            DiskChoice::Only(backend) => self.usable(backend),
            DiskChoice::Auto => self
                .usable(DiskBackend::Reflink)
                .or_else(|_| self.usable(DiskBackend::Qcow2)),
        }
    }
}

/// What a dm-snapshot copies at once, in bytes: an ext4 block.
pub const COW_CHUNK_BYTES: u64 = 4096;

/// One entry of the table that says where a chunk's copy is.
const COW_ENTRY_BYTES: u64 = 16;

/// How large the copy-on-write file of a dm-snapshot must be to hold a copy of every chunk of its
/// origin. The file is sparse, and takes what was written.
///
/// The kernel's store begins with one chunk of header. Then come areas: one chunk of table, and the
/// chunks that it has entries for. When an area is full the next one's table is written at once, so
/// that there must be room for one more.
#[must_use]
pub const fn cow_file_bytes(origin_bytes: u64) -> u64 {
    let chunks = origin_bytes.div_ceil(COW_CHUNK_BYTES);
    let entries_per_table = COW_CHUNK_BYTES / COW_ENTRY_BYTES;
    let tables = chunks.div_ceil(entries_per_table) + 1;
    (1 + tables + chunks) * COW_CHUNK_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The kernel's persistent store, chunk by chunk as it hands them out.
    fn highest_chunk_used(copies: u64) -> u64 {
        let stride = 256 + 1;
        // Header, then the first table, which is there from the start.
        let (mut area, mut highest) = (0, 1);
        for copy in 0..copies {
            let in_area = copy % 256;
            highest = highest.max(1 + area * stride + 1 + in_area);
            if in_area == 255 {
                area += 1;
                highest = highest.max(1 + area * stride);
            }
        }
        highest
    }

    proptest! {
        #[test]
        fn trap_17_a_cow_file_holds_every_chunk_of_its_origin(chunks in 0_u64..4000, rest in 0_u64..4096) {
            let origin = chunks * COW_CHUNK_BYTES + rest;
            let needed = (highest_chunk_used(origin.div_ceil(COW_CHUNK_BYTES)) + 1) * COW_CHUNK_BYTES;
            let given = cow_file_bytes(origin);
            prop_assert!(given >= needed, "{given} < {needed}");
            prop_assert!(given <= needed + 2 * COW_CHUNK_BYTES);
        }

        #[test]
        fn a_backend_is_chosen_only_where_it_works(
            reflink: bool, qemu_img: bool, dm_snapshot: bool, loop_devices: bool, wanted in 0_usize..4,
        ) {
            let facts = DiskFacts { reflink, qemu_img, dm_snapshot, loop_devices };
            let wanted = DiskBackend::ALL.get(wanted).copied();
            let choice = wanted.map_or(DiskChoice::Auto, DiskChoice::Only);
            match facts.choose(choice) {
                Ok(backend) => {
                    prop_assert!(wanted.is_none_or(|wanted| wanted == backend));
                    let works = match backend {
                        DiskBackend::Reflink => reflink,
                        DiskBackend::Qcow2 => qemu_img,
                        DiskBackend::DmSnapshot => dm_snapshot && loop_devices,
                    };
                    prop_assert!(works);
                }
                Err(error) => {
                    prop_assert!(wanted.is_some() || !(reflink || qemu_img));
                    prop_assert!(!error.missing.is_empty());
                }
            }
        }
    }

    #[test]
    fn a_setting_is_read_as_it_is_written() {
        let all = DiskBackend::ALL.map(DiskChoice::Only);
        for choice in all.into_iter().chain([DiskChoice::Auto]) {
            assert_eq!(choice.to_string().parse(), Ok(choice));
            let json = serde_json::to_string(&choice).unwrap();
            assert_eq!(serde_json::from_str::<DiskChoice>(&json).unwrap(), choice);
        }
        assert_eq!(
            serde_json::to_string(&DiskChoice::Auto).unwrap(),
            "\"auto\""
        );
        let error = "dm".parse::<DiskChoice>().unwrap_err().to_string();
        assert!(
            error.contains("`dm`") && error.contains("dm-snapshot"),
            "{error}"
        );
    }

    #[test]
    fn shared_blocks_go_before_qcow2_and_device_mapper_is_never_unasked() {
        let all = DiskFacts {
            reflink: true,
            qemu_img: true,
            dm_snapshot: true,
            loop_devices: true,
        };
        assert_eq!(all.choose(DiskChoice::Auto), Ok(DiskBackend::Reflink));
        let no_reflink = DiskFacts {
            reflink: false,
            ..all
        };
        assert_eq!(no_reflink.choose(DiskChoice::Auto), Ok(DiskBackend::Qcow2));
        assert_eq!(
            all.choose(DiskChoice::Only(DiskBackend::DmSnapshot)),
            Ok(DiskBackend::DmSnapshot)
        );
        let error = DiskFacts::default()
            .choose(DiskChoice::Only(DiskBackend::DmSnapshot))
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "disks can't be made by dm-snapshot here: the kernel's dm-snapshot is missing, or not \
             for this user"
        );
    }
}
