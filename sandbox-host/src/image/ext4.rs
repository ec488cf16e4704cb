//! ext4 file systems in sparse files, through e2fsprogs.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use sandbox_core::size::MIB;
use tokio::process::Command;

use crate::setup::{Setup, run};

/// Makes `image`, a sparse file of `size_mb` MiB with an ext4 that holds what is in `tree`, all of
/// it owned by root.
pub(crate) async fn make_from_folder(
    setup: &Setup,
    image: &Path,
    size_mb: u32,
    tree: &Path,
) -> io::Result<()> {
    File::create_new(image)?.set_len(u64::from(size_mb) * MIB)?;
    run(
        &setup.mke2fs,
        [
            "-q".as_ref(),
            "-F".as_ref(),
            "-t".as_ref(),
            "ext4".as_ref(),
            "-m".as_ref(),
            "0".as_ref(),
            // Inode tables and journal are holes in a new file, and read as zero already.
            "-E".as_ref(),
            "root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1".as_ref(),
            "-d".as_ref(),
            tree.as_os_str(),
            image.as_os_str(),
        ],
    )
    .await?;
    if !nix::unistd::geteuid().is_root() {
        give_to_root(setup, image, tree).await?;
    }
    File::open(image)?.sync_all()
}

/// `mke2fs -d` keeps the owners that files have on the host, which for an ordinary user is that
/// user. debugfs rewrites them in the image.
async fn give_to_root(setup: &Setup, image: &Path, tree: &Path) -> io::Result<()> {
    let mut script = String::new();
    let mut folders = vec![tree.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let inside = path
                .strip_prefix(tree)
                .map_err(io::Error::other)?
                .display()
                .to_string();
            script.push_str(&format!("sif /{inside} uid 0\nsif /{inside} gid 0\n"));
            if fs::symlink_metadata(&path)?.is_dir() {
                folders.push(path);
            }
        }
    }
    let commands = tempfile::NamedTempFile::new()?;
    fs::write(commands.path(), script)?;
    run(
        &tool(setup, "debugfs"),
        [
            "-w".as_ref(),
            "-f".as_ref(),
            commands.path().as_os_str(),
            image.as_os_str(),
        ],
    )
    .await?;
    Ok(())
}

/// The package's other programs are where `mke2fs` is.
fn tool(setup: &Setup, name: &str) -> PathBuf {
    setup.mke2fs.with_file_name(name)
}

/// Replays the journal, mends what is broken and makes holes of blocks that belong to no file.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] where it can't be mended, or is no ext4.
pub(super) async fn mend(setup: &Setup, disk: &Path) -> io::Result<()> {
    let discard = ["-fy", "-E", "discard"].map(OsStr::new);
    check(setup, discard.into_iter().chain([disk.as_os_str()])).await
}

/// Checks without mending.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] where there would be something to mend.
pub(super) async fn verify(setup: &Setup, disk: &Path) -> io::Result<()> {
    check(setup, ["-fn".as_ref(), disk.as_os_str()]).await
}

async fn check<'a>(setup: &Setup, args: impl IntoIterator<Item = &'a OsStr>) -> io::Result<()> {
    // The lowest two bits of its exit status say that it has mended something.
    const MENDED: i32 = 0b11;
    let output = Command::new(tool(setup, "e2fsck"))
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    match output.status.code() {
        Some(code) if code & !MENDED == 0 => Ok(()),
        // It tells of its trouble on both.
        Some(_) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{} {}",
                String::from_utf8_lossy(&output.stdout).trim(),
                String::from_utf8_lossy(&output.stderr).trim()
            ),
        )),
        None => Err(io::Error::other(format!(
            "e2fsck ended with {}",
            output.status
        ))),
    }
}

/// Replaces the journal by an empty one, no larger than it was or than `most_mb` MiB. A file system
/// without one is left so.
pub(super) async fn renew_journal(setup: &Setup, disk: &Path, most_mb: u32) -> io::Result<()> {
    let journal_mb = Superblock::read(disk)?.journal_bytes / MIB;
    if journal_mb == 0 {
        return Ok(());
    }
    let size = format!("size={}", journal_mb.min(u64::from(most_mb)));
    let tune2fs = tool(setup, "tune2fs");
    let remove = ["-O".as_ref(), "^has_journal".as_ref(), disk.as_os_str()];
    run(&tune2fs, remove).await?;
    let add = [
        "-j".as_ref(),
        "-J".as_ref(),
        size.as_ref(),
        disk.as_os_str(),
    ];
    run(&tune2fs, add).await.map(drop)
}

/// Makes the file system fill its file, which has been made longer.
pub(super) async fn grow(setup: &Setup, disk: &Path) -> io::Result<()> {
    run(&tool(setup, "resize2fs"), [disk]).await.map(drop)
}

/// Makes the file system as small as its content. What is needed is guessed too high while groups
/// of blocks that go still count: it is repeated until it gains no more.
pub(super) async fn shrink(setup: &Setup, disk: &Path) -> io::Result<()> {
    const ROUNDS_MAX: usize = 4;
    let mut bytes = Superblock::read(disk)?.bytes;
    for _ in 0..ROUNDS_MAX {
        run(&tool(setup, "resize2fs"), ["-M".as_ref(), disk.as_os_str()]).await?;
        let now = Superblock::read(disk)?.bytes;
        if now >= bytes {
            break;
        }
        bytes = now;
    }
    Ok(())
}

/// What a file system says of itself. The layout is in the kernel's documentation,
/// `filesystems/ext4/super`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Superblock {
    /// Its size in bytes.
    pub(super) bytes: u64,
    /// Its journal's size in bytes; 0 where it has none.
    pub(super) journal_bytes: u64,
}

impl Superblock {
    const OFFSET: u64 = 1024;
    const LENGTH: usize = 1024;
    const MAGIC: u16 = 0xEF53;

    /// # Errors
    /// [`io::ErrorKind::InvalidData`] where there is no ext4.
    pub(super) fn read(disk: &Path) -> io::Result<Self> {
        let mut block = [0; Self::LENGTH];
        match File::open(disk)?.read_exact_at(&mut block, Self::OFFSET) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => return Err(error),
            Ok(()) => Self::parse(&block),
        }
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "there is no ext4 on it"))
    }

    fn parse(block: &[u8; Self::LENGTH]) -> Option<Self> {
        const HAS_JOURNAL: u32 = 0x4;
        const HAS_64_BIT_SIZE: u32 = 0x80;
        // 64 KiB blocks are the largest.
        const LOG_BLOCK_SIZE_MAX: u32 = 6;
        let u32_at = |at: usize| {
            block
                .get(at..at + 4)
                .and_then(|bytes| bytes.try_into().ok())
                .map(u32::from_le_bytes)
        };
        if block.get(0x38..0x3A)? != Self::MAGIC.to_le_bytes() {
            return None;
        }
        let log_block_size = u32_at(0x18)?;
        if log_block_size > LOG_BLOCK_SIZE_MAX {
            return None;
        }
        let high = if u32_at(0x60)? & HAS_64_BIT_SIZE == 0 {
            0
        } else {
            u64::from(u32_at(0x150)?)
        };
        let blocks = u64::from(u32_at(0x4)?) | high << 32;
        // The journal's inode is kept here a second time, its size in the last two words.
        let journal_bytes = if u32_at(0x5C)? & HAS_JOURNAL == 0 {
            0
        } else {
            u64::from(u32_at(0x148)?) << 32 | u64::from(u32_at(0x14C)?)
        };
        Some(Self {
            bytes: blocks.checked_mul(1024 << log_block_size)?,
            journal_bytes,
        })
    }
}
