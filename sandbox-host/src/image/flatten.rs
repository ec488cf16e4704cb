//! Flattening: carries out the steps that [`sandbox_core::flatten`] has planned, one after the
//! other, and undoes them in reverse where one fails, panics, or nobody waits any more. A process
//! that dies leaves one file with a leading dot, which the next start removes.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use sandbox_core::{
    disk::DiskFormat,
    flatten::{FlattenInputs, Step, Undo, plan, plan_exact},
    host::HostError,
    size::{DISK_SIZE_MB_MIN, MIB},
};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::ext4::{self, Superblock};
use crate::{
    disk::{OpenDisk, sparse},
    durable, fault,
    setup::{Setup, run},
    space,
};

/// What stays free on the least disk that an image is said to fit, in MiB: a guest that boots
/// writes a few files.
const FREE_MB: u64 = 8;

/// A disk that nobody writes to while it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FrozenDisk {
    pub(crate) path: PathBuf,
    /// Said by who made it: its content is the guest's, and can look like any format.
    pub(crate) format: DiskFormat,
}

impl FrozenDisk {
    /// A qcow2 file with its backing files.
    #[cfg(test)]
    pub(crate) fn qcow2(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            format: DiskFormat::Qcow2,
        }
    }

    /// A raw file, or a block device.
    pub(crate) fn raw(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            format: DiskFormat::Raw,
        }
    }

    fn to(&self, out: &Path) -> FlattenInputs {
        FlattenInputs {
            frozen: self.path.clone(),
            format: self.format,
            out: out.to_path_buf(),
        }
    }
}

impl From<OpenDisk> for FrozenDisk {
    fn from(OpenDisk { path, format }: OpenDisk) -> Self {
        Self { path, format }
    }
}

/// A flattened disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlattenedDisk {
    /// The least disk that its content fits, in MiB.
    pub(crate) disk_size_mb: u32,
    /// What it takes on the host, in bytes.
    pub(crate) size_bytes: u64,
}

/// Makes `out`, a file that is not there yet, of what the frozen disk holds: a checked ext4, shrunk
/// to its content, in a sparse file of its size.
///
/// # Errors
/// [`HostError::BadSource`] where the disk holds no ext4, or one that can't be mended;
/// [`HostError::DiskFull`]. Nothing is left after any error.
pub(crate) async fn flatten_disk(
    setup: &Setup,
    frozen: &FrozenDisk,
    out: &Path,
) -> Result<FlattenedDisk, HostError> {
    execute(setup, plan(&frozen.to(out)), undisturbed).await?;
    let report = || {
        let needed_mb = Superblock::read(out)?.bytes.div_ceil(MIB) + FREE_MB;
        Ok::<_, io::Error>(FlattenedDisk {
            disk_size_mb: u32::try_from(needed_mb)
                .map_err(io::Error::other)?
                .max(DISK_SIZE_MB_MIN),
            size_bytes: sparse::physical_bytes(out)?,
        })
    };
    report().map_err(|error| step_error("measuring the disk", out, &error))
}

/// Makes `out`, a file that is not there yet, of exactly the frozen disk's content and length,
/// sparse.
///
/// # Errors
/// [`HostError::DiskFull`]. Nothing is left after any error.
pub(crate) async fn copy_exact(
    setup: &Setup,
    frozen: &FrozenDisk,
    out: &Path,
) -> Result<(), HostError> {
    execute(setup, plan_exact(&frozen.to(out)), undisturbed).await
}

/// Runs the steps on a task of its own. Where nobody waits for it any more, it stops behind the
/// step that it is at and undoes all of them: what it had begun could not be ended at once. `disturb`
/// is asked before and behind each step, with a number that counts up, and has the step fail by
/// failing.
async fn execute(
    setup: &Setup,
    steps: Vec<Step>,
    disturb: impl Fn(usize) -> io::Result<()> + Send + Sync + 'static,
) -> Result<(), HostError> {
    let nobody_waits = CancellationToken::new();
    let _until_dropped = nobody_waits.clone().drop_guard();
    let setup = setup.clone();
    let mut undos =
        tokio::spawn(async move { run_steps(&setup, &steps, &nobody_waits, disturb).await })
            .await
            .unwrap_or_else(|error| {
                let error = format!("flattening a disk: its task ended: {error}");
                Err(HostError::Internal(error))
            })?;
    undos.0.clear();
    Ok(())
}

/// Returns what undoes it all, for a caller that is not there to take it.
async fn run_steps(
    setup: &Setup,
    steps: &[Step],
    nobody_waits: &CancellationToken,
    disturb: impl Fn(usize) -> io::Result<()>,
) -> Result<Undos, HostError> {
    let mut undos = Undos(Vec::new());
    let mut points = 0..;
    let mut disturb = || points.next().map_or(Ok(()), &disturb);
    for step in steps {
        // A file that was there before the step is not the step's to remove.
        let free = step.takes().is_none_or(|file| !file.exists());
        if free {
            undos.0.extend(step.undo());
        }
        let done = async {
            disturb()?;
            carry_out(setup, step).await?;
            fault::point(step.name())?;
            disturb()
        };
        done.await
            .map_err(|error| step_error(step.name(), place_of(steps), &error))?;
        if nobody_waits.is_cancelled() {
            let error = format!("{}: nobody waits for it any more", step.name());
            return Err(HostError::Internal(error));
        }
    }
    Ok(undos)
}

fn undisturbed(_point: usize) -> io::Result<()> {
    Ok(())
}

/// Where the steps write.
fn place_of(steps: &[Step]) -> &Path {
    steps
        .iter()
        .find_map(Step::takes)
        .unwrap_or_else(|| Path::new("/"))
}

fn step_error(step: &'static str, file: &Path, error: &io::Error) -> HostError {
    let folder = file.parent().unwrap_or(file);
    if error.kind() == io::ErrorKind::InvalidData {
        return HostError::BadSource(format!("{step}: {error}"));
    }
    space::or_internal(folder, step, error)
}

/// What is to be undone, the last first. Dropping it does so.
#[derive(Debug)]
struct Undos(Vec<Undo>);

impl Drop for Undos {
    fn drop(&mut self) {
        for Undo::Remove { file } in self.0.drain(..).rev() {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::error!(file = %file.display(), %error, "a file was not removed");
                }
                _ => {}
            }
        }
    }
}

async fn carry_out(setup: &Setup, step: &Step) -> io::Result<()> {
    match step {
        Step::Convert { from, format, to } => convert(setup, from, *format, to).await,
        Step::Check { disk } => ext4::mend(setup, disk).await,
        Step::RenewJournal { disk, most_mb } => ext4::renew_journal(setup, disk, *most_mb).await,
        Step::Shrink { disk } => ext4::shrink(setup, disk).await,
        Step::Trim { disk } => {
            let bytes = Superblock::read(disk)?.bytes;
            let disk = disk.clone();
            blocking(move || {
                let file = File::options().read(true).write(true).open(&disk)?;
                file.set_len(bytes)?;
                sparse::punch_zeros(&file)
            })
            .await
        }
        Step::Verify { disk } => {
            ext4::verify(setup, disk).await?;
            let (length, bytes) = (fs::metadata(disk)?.len(), Superblock::read(disk)?.bytes);
            if length == bytes {
                Ok(())
            } else {
                Err(io::Error::other(format!(
                    "its file is of {length} bytes, its file system of {bytes}"
                )))
            }
        }
        Step::Publish { from, to } => {
            let (from, to) = (from.clone(), to.clone());
            blocking(move || publish(&from, &to)).await
        }
    }
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Never over a file that is there: machines may map it.
fn publish(from: &Path, to: &Path) -> io::Result<()> {
    File::open(from)?.sync_all()?;
    let here = rustix::fs::CWD;
    rustix::fs::renameat_with(here, from, here, to, rustix::fs::RenameFlags::NOREPLACE)?;
    to.parent().map_or(Ok(()), durable::sync_folder)
}

/// A raw file is copied here, extent by extent or with shared blocks; what needs a format
/// understood, by qemu-img. It reads past the lock of a process that has the disk open, and
/// stands still.
async fn convert(setup: &Setup, from: &Path, format: DiskFormat, to: &Path) -> io::Result<()> {
    let is_file = fs::metadata(from)?.is_file();
    if format == DiskFormat::Raw && is_file {
        let (from, to) = (from.to_path_buf(), to.to_path_buf());
        return blocking(move || sparse::copy(&from, &to)).await;
    }
    File::create_new(to)?;
    let arguments = [
        "convert".as_ref(),
        "-U".as_ref(),
        "-f".as_ref(),
        format.as_str().as_ref(),
        "-O".as_ref(),
        "raw".as_ref(),
        // In any order, several at once: the file is not read before it is whole.
        "-W".as_ref(),
        from.as_os_str(),
        to.as_os_str(),
    ];
    run(&setup.qemu_img, arguments).await.map(drop)
}

#[cfg(test)]
mod tests;
