//! What the platform's files on the host's disk say: sizes of saved memory, depth of disk chains.

use std::{
    fs, io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context;

const QCOW2: [u8; 4] = *b"QFI\xfb";

/// The saved memory of the one sandbox of a data folder that is paused, in bytes.
pub(crate) fn delta_bytes(data: &Path) -> anyhow::Result<u64> {
    let mut found = Vec::new();
    for machine in fs::read_dir(data.join("host/machines"))? {
        let delta = machine?.path().join("memory.delta");
        if let Ok(metadata) = fs::metadata(delta) {
            found.push(metadata.len());
        }
    }
    match found[..] {
        [bytes] => Ok(bytes),
        _ => anyhow::bail!("{} machines are paused", found.len()),
    }
}

/// The files that the deepest disk of a data folder's machines consists of, itself among them.
pub(crate) fn deepest_disk(data: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut deepest = Vec::new();
    for machine in fs::read_dir(data.join("host/machines"))? {
        let machine = machine?;
        // By the backend: an overlay, a raw file, or a device that no file names.
        let files = ["disk.qcow2", "disk.raw"].map(|name| machine.path().join(name));
        let Some(disk) = files.into_iter().find(|file| file.is_file()) else {
            continue;
        };
        let chain = chain(disk)?;
        if chain.len() > deepest.len() {
            deepest = chain;
        }
    }
    Ok(deepest)
}

/// A disk and what lies under it, by its headers (QEMU's `docs/interop/qcow2.txt`).
fn chain(disk: PathBuf) -> anyhow::Result<Vec<PathBuf>> {
    let mut next = Some(disk);
    let mut chain = Vec::new();
    while let Some(disk) = next {
        let file = fs::File::open(&disk).with_context(|| format!("opening {}", disk.display()))?;
        let mut header = [0; 20];
        file.read_exact_at(&mut header, 0)?;
        let offset = u64::from_be_bytes(header[8..16].try_into()?);
        let length = u32::from_be_bytes(header[16..20].try_into()?);
        next = if header[..4] == QCOW2 && offset > 0 {
            let mut name = vec![0; length as usize];
            file.read_exact_at(&mut name, offset)?;
            let folder = disk.parent().context("a file is in a folder")?;
            Some(folder.join(String::from_utf8(name)?))
        } else {
            None
        };
        chain.push(disk);
    }
    Ok(chain)
}

/// What a file takes on the host, in bytes.
pub(crate) fn physical_bytes(file: &Path) -> io::Result<u64> {
    Ok(fs::metadata(file)?.blocks() * 512)
}

/// Bytes that can't be made smaller, the same each time.
pub(crate) fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = (0..count.div_ceil(8)).flat_map(|_| {
        // Xorshift, by Marsaglia.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(count).collect()
}

/// How long it takes to write these to a new file of this folder and to bring them to disk.
pub(crate) fn write_and_sync(folder: &Path, bytes: &[u8]) -> io::Result<Duration> {
    let path = folder.join("floor");
    let start = Instant::now();
    let file = fs::File::create_new(&path)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()?;
    let took = start.elapsed();
    fs::remove_file(path)?;
    Ok(took)
}
