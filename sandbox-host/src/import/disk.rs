//! A tree becomes a disk image: an empty ext4, filled by debugfs as an ordinary user or as root
//! alike, then flattened like a sandbox's disk.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process::Stdio,
};

use sandbox_core::size::MIB;
use tokio::{process::Command, task::spawn_blocking};

use super::{
    entry::Content,
    error::ImportError,
    script::{self, Files, ScriptError},
    stage::Stage,
    tree::{Census, Tree},
};
use crate::{
    image::{FlattenedDisk, FrozenDisk, flatten_disk},
    setup::{Setup, run},
    space,
};

/// One inode for so many bytes, as `mke2fs` has it for ordinary disks: what a disk is grown by
/// later gets inodes in the same proportion.
const BYTES_PER_INODE: u64 = 16 * 1024;
const BLOCK_BYTES: u64 = 4096;

/// Writes `tree` to `image`, a file that is not there yet.
pub(super) async fn write(
    setup: &Setup,
    tree: Tree,
    stage: Stage,
    image: &Path,
) -> Result<FlattenedDisk, ImportError> {
    let census = tree
        .census()
        .map_err(|error| ImportError::bad(error.to_string()))?;
    let folder = stage.folder().to_path_buf();
    // The data is there once more, and a third time while it is flattened.
    let needed_mb = 2 * census.data_bytes / MIB + space::SPARE_MB;
    space::require(&folder, needed_mb)?;
    let whole = folder.join("whole.img");
    make_empty(setup, &whole, size_bytes(&census)).await?;
    let commands = folder.join("commands");
    let to = commands.clone();
    // It holds the contents until the image has them.
    let stage = spawn_blocking(move || write_script(&tree, &census, stage, &to))
        .await
        .map_err(|error| ImportError::at("writing the script")(io::Error::other(error)))??;
    fill(setup, &whole, &commands).await?;
    let frozen = FrozenDisk::raw(&whole);
    let flattened = flatten_disk(setup, &frozen, image).await?;
    // Many files go with it.
    let _ = spawn_blocking(move || drop(stage)).await;
    Ok(flattened)
}

/// With room to spare: it is sparse, and shrunk afterwards.
fn size_bytes(census: &Census) -> u64 {
    const LEAST_BYTES: u64 = 1024 * MIB;
    let files = census.data_bytes + census.inodes * 2 * BLOCK_BYTES + 2 * census.name_bytes;
    (files + files / 8 + 128 * MIB)
        .max(census.inodes * BYTES_PER_INODE * 5 / 4)
        .max(LEAST_BYTES)
        .next_multiple_of(128 * MIB)
}

async fn make_empty(setup: &Setup, image: &Path, size: u64) -> Result<(), ImportError> {
    const STEP: &str = "making an empty file system";
    let file = File::create_new(image).map_err(ImportError::at(STEP))?;
    file.set_len(size).map_err(ImportError::at(STEP))?;
    let bytes_per_inode = BYTES_PER_INODE.to_string();
    let arguments = [
        "-q",
        "-F",
        "-t",
        "ext4",
        "-m",
        "0",
        "-b",
        "4096",
        "-i",
        &bytes_per_inode,
        "-J",
        "size=16",
        // At its beginning nothing of it is in the way when it is shrunk.
        "-E",
        "root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1,packed_meta_blocks=1",
    ];
    run(
        &setup.mke2fs,
        arguments
            .map(AsRef::as_ref)
            .into_iter()
            .chain([image.as_os_str()]),
    )
    .await
    .map(drop)
    .map_err(ImportError::at(STEP))
}

struct Staged {
    stage: Stage,
    values: usize,
}

impl Files for Staged {
    fn content(&self, content: Content) -> PathBuf {
        self.stage.path(content)
    }

    fn value(&mut self, value: &[u8]) -> io::Result<PathBuf> {
        let path = self.stage.folder().join(format!("v{}", self.values));
        self.values += 1;
        fs::write(&path, value)?;
        Ok(path)
    }
}

fn write_script(
    tree: &Tree,
    census: &Census,
    stage: Stage,
    path: &Path,
) -> Result<Stage, ImportError> {
    const STEP: &str = "writing the script";
    let mut files = Staged { stage, values: 0 };
    let mut out = BufWriter::new(File::create_new(path).map_err(ImportError::at(STEP))?);
    script::write(tree, census, &mut files, &mut out).map_err(|error| match error {
        ScriptError::Write(error) => ImportError::at(STEP)(error),
        other => ImportError::bad(other.to_string()),
    })?;
    out.flush().map_err(ImportError::at(STEP))?;
    Ok(files.stage)
}

/// Runs the commands. debugfs ends well whatever became of them: what tells is what it says.
async fn fill(setup: &Setup, image: &Path, commands: &Path) -> Result<(), ImportError> {
    const STEP: &str = "filling the file system";
    const SHOWN_LINES_MAX: usize = 5;
    let output = Command::new(setup.mke2fs.with_file_name("debugfs"))
        .args([
            "-w".as_ref(),
            "-f".as_ref(),
            commands.as_os_str(),
            image.as_os_str(),
        ])
        .stdin(Stdio::null())
        // It tells what it does, a line for each command.
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(ImportError::at(STEP))?;
    let words = String::from_utf8_lossy(&output.stderr);
    // The first line is its version.
    let complaints: Vec<_> = words.lines().skip(1).take(SHOWN_LINES_MAX).collect();
    if output.status.success() && complaints.is_empty() {
        return Ok(());
    }
    let told = format!(
        "debugfs ended with {}: {}",
        output.status,
        complaints.join("; ")
    );
    Err(ImportError::at(STEP)(io::Error::other(told)))
}
