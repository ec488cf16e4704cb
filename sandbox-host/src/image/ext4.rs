//! ext4 file systems in sparse files, through e2fsprogs.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

use sandbox_core::size::MIB;

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
    let debugfs = setup.mke2fs.with_file_name("debugfs");
    run(
        &debugfs,
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

/// What a file takes on disk, in bytes.
pub(crate) fn physical_bytes(file: &Path) -> io::Result<u64> {
    Ok(fs::metadata(file)?.blocks() * 512)
}
