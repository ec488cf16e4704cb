//! Empty overlays: a qcow2 file that reads as its backing file. Written here, since a machine's
//! creation would wait some 20 ms for the program that does the same.
//!
//! ```text
//! cluster 0   header, the backing file's format and name
//! cluster 1   refcount table: one block
//! cluster 2   refcount block: one reference for each cluster of the file
//! cluster 3…  L1 table: nothing is allocated
//! ```
//!
//! The format, all numbers big-endian, is in QEMU's `docs/interop/qcow2.txt`.

use std::{
    fs::{self, File},
    io,
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::Path,
};

use crate::disk::Base;

const MAGIC: [u8; 4] = *b"QFI\xfb";
const VERSION: u32 = 3;
const CLUSTER_BITS: u32 = 16;
const CLUSTER_BYTES: u64 = 1 << CLUSTER_BITS;
/// References are counted in 16 bits.
const REFCOUNT_ORDER: u32 = 4;
const HEADER_BYTES: u32 = 104;
const EXTENSION_BACKING_FORMAT: u32 = 0xE279_2ACA;
/// The longest name of a backing file.
const BACKING_NAME_BYTES_MAX: usize = 1023;
/// Where the virtual size stands.
const SIZE_AT: usize = 24;

/// Makes a file that is not there yet, `size_bytes` long to whoever reads it. Nothing is left after
/// an error.
pub(crate) fn create(overlay: &Path, base: &Base, size_bytes: u64) -> io::Result<()> {
    // A relative name would be looked for in the overlay's folder.
    let backing = std::path::absolute(&base.path)?;
    let l1_entries = size_bytes.div_ceil(CLUSTER_BYTES * (CLUSTER_BYTES / 8));
    let clusters = 3 + (l1_entries * 8).div_ceil(CLUSTER_BYTES).max(1);
    let l1_entries = u32::try_from(l1_entries).map_err(io::Error::other)?;
    let header = header(
        backing.as_os_str().as_bytes(),
        base.format.as_str(),
        size_bytes,
        l1_entries,
    )?;
    let references: Vec<u8> = (0..clusters).flat_map(|_| 1_u16.to_be_bytes()).collect();
    let file = File::create_new(overlay)?;
    let written = file
        .set_len(clusters * CLUSTER_BYTES)
        .and_then(|()| file.write_all_at(&header, 0))
        .and_then(|()| file.write_all_at(&(2 * CLUSTER_BYTES).to_be_bytes(), CLUSTER_BYTES))
        .and_then(|()| file.write_all_at(&references, 2 * CLUSTER_BYTES));
    if written.is_err() {
        fs::remove_file(overlay)?;
    }
    written
}

fn header(backing: &[u8], format: &str, size_bytes: u64, l1_entries: u32) -> io::Result<Vec<u8>> {
    if backing.len() > BACKING_NAME_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidFilename,
            "the path of a disk's base is longer than 1023 bytes",
        ));
    }
    let padded = format.len().next_multiple_of(8);
    // The header, the format with its own header, and the one that ends them.
    let name_at = HEADER_BYTES as usize + 8 + padded + 8;
    let mut header = Vec::with_capacity(name_at + backing.len());
    let words = |header: &mut Vec<u8>, words: &[u32]| {
        header.extend(words.iter().flat_map(|word| word.to_be_bytes()));
    };
    let longs = |header: &mut Vec<u8>, longs: &[u64]| {
        header.extend(longs.iter().flat_map(|long| long.to_be_bytes()));
    };
    header.extend(MAGIC);
    words(&mut header, &[VERSION]);
    longs(&mut header, &[name_at as u64]);
    words(&mut header, &[backing.len() as u32, CLUSTER_BITS]);
    longs(&mut header, &[size_bytes]);
    // Not encrypted.
    words(&mut header, &[0, l1_entries]);
    longs(&mut header, &[3 * CLUSTER_BYTES, CLUSTER_BYTES]);
    // One cluster of refcount table, no snapshots.
    words(&mut header, &[1, 0]);
    // Where snapshots are, then features: incompatible, compatible, autoclear.
    longs(&mut header, &[0, 0, 0, 0]);
    words(&mut header, &[REFCOUNT_ORDER, HEADER_BYTES]);
    words(
        &mut header,
        &[EXTENSION_BACKING_FORMAT, format.len() as u32],
    );
    header.extend(format.as_bytes());
    header.resize(HEADER_BYTES as usize + 8 + padded, 0);
    words(&mut header, &[0, 0]);
    header.extend(backing);
    Ok(header)
}

/// How long a qcow2 file is to whoever reads it.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] for what is none.
pub(in crate::disk) fn virtual_bytes(file: &Path) -> io::Result<u64> {
    let mut header = [0; SIZE_AT + 8];
    File::open(file)?.read_exact_at(&mut header, 0)?;
    match header.split_last_chunk::<8>() {
        Some((start, size)) if start.starts_with(&MAGIC) => Ok(u64::from_be_bytes(*size)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is no qcow2 file",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use sandbox_core::disk::DiskFormat;
    use serde_json::Value;

    use super::*;

    fn qemu_img(command: &str, overlay: &Path) -> Value {
        let output = Command::new("qemu-img")
            .args([command, "--output=json", "-f", "qcow2"])
            .arg(overlay)
            .output()
            .expect("`make test` installs it");
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    #[test]
    fn r17_an_overlay_of_any_size_is_sound_to_qemu_and_names_its_base() {
        const GIB: u64 = 1 << 30;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a base, with a comma");
        let base = Base::raw(&path);
        for (index, bytes) in [512, 8 << 20, GIB / 2, 5 * GIB, 5 * GIB + 512, 9 << 40]
            .into_iter()
            .enumerate()
        {
            File::create(&path).unwrap().set_len(bytes).unwrap();
            let overlay = folder.path().join(format!("{index}.qcow2"));
            create(&overlay, &base, bytes).unwrap();
            assert_eq!(virtual_bytes(&overlay).unwrap(), bytes);
            let info = qemu_img("info", &overlay);
            assert_eq!(info["virtual-size"], bytes);
            assert_eq!(info["backing-filename"], path.to_str().unwrap());
            assert_eq!(info["backing-filename-format"], "raw");
            assert_eq!(info["format-specific"]["data"]["corrupt"], false);
            let check = qemu_img("check", &overlay);
            assert_eq!(check["check-errors"], 0);
            for problem in ["leaks", "corruptions"] {
                assert!(
                    check.get(problem).is_none_or(|count| *count == 0),
                    "{check}"
                );
            }
            create(&overlay, &base, bytes).unwrap_err();

            // One on top of another.
            let on_top = folder.path().join(format!("{index}-top.qcow2"));
            let base = Base {
                path: overlay,
                format: DiskFormat::Qcow2,
            };
            create(&on_top, &base, bytes).unwrap();
            assert_eq!(
                qemu_img("info", &on_top)["backing-filename-format"],
                "qcow2"
            );
        }
        assert!(virtual_bytes(Path::new("/proc/self/exe")).is_err());
        let far = Base::raw(Path::new("/").join("x".repeat(1024)));
        let overlay = folder.path().join("far");
        create(&overlay, &far, GIB).unwrap_err();
        assert!(!overlay.exists());
    }
}
