//! Which memory images and disk images are of no use any more: made for another program, kernel or
//! QEMU than this one, and under no machine.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    MINIMAL,
    manifest::{MANIFEST_FILE, Manifest, Platform},
};
use crate::durable;

/// Removes them. `in_use` has the keys of the memory images that machines lie on.
pub(super) fn remove(
    memory: &Path,
    images: &Path,
    platform: &Platform,
    in_use: &HashSet<String>,
) -> io::Result<()> {
    let mut versions = HashSet::new();
    for (key, folder) in folders(memory)? {
        match read_manifest(&folder) {
            Some(manifest) if in_use.contains(&key) || manifest.platform == *platform => {
                versions.insert(manifest.image_version);
            }
            // Unreadable and in use: nobody can tell what lies on it.
            None if in_use.contains(&key) => return Ok(()),
            _ => {
                tracing::info!(key, "removing an outdated memory image");
                durable::remove_folder(&folder)?;
            }
        }
    }
    for (version, folder) in folders(&images.join(MINIMAL))? {
        if !versions.contains(&version) {
            durable::remove_folder(&folder)?;
        }
    }
    Ok(())
}

fn read_manifest(folder: &Path) -> Option<Manifest> {
    serde_json::from_slice(&fs::read(folder.join(MANIFEST_FILE)).ok()?).ok()
}

/// The folders of a folder, by name; none where it is not there.
fn folders(parent: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let entries = match fs::read_dir(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push((
                entry.file_name().to_string_lossy().into_owned(),
                entry.path(),
            ));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbox_core::size::MachineSize;

    fn platform(initramfs: &str) -> Platform {
        serde_json::from_value(serde_json::json!({
            "machine_type": "pc", "accelerator": "tcg", "qemu_version": "7",
            "kernel_version": "6", "initramfs": initramfs,
        }))
        .unwrap()
    }

    fn image(root: &Path, key: &str, initramfs: &str, version: &str) {
        let folder = root.join("memory").join(key);
        fs::create_dir_all(&folder).unwrap();
        fs::create_dir_all(root.join("images").join(MINIMAL).join(version)).unwrap();
        let manifest = serde_json::json!({
            "template": "minimal", "image_version": version, "size": MachineSize::default(),
            "platform": platform(initramfs),
        });
        fs::write(folder.join(MANIFEST_FILE), manifest.to_string()).unwrap();
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = folders(folder)
            .unwrap()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        names.sort();
        names
    }

    #[test]
    fn trap_21_only_what_is_outdated_and_under_no_machine_goes() {
        let root = tempfile::tempdir().unwrap();
        image(root.path(), "current", "new", "v2");
        image(root.path(), "old-in-use", "old", "v1");
        image(root.path(), "old-unused", "old", "v0");
        let (memory, images) = (root.path().join("memory"), root.path().join("images"));
        let in_use = HashSet::from(["old-in-use".to_owned()]);
        remove(&memory, &images, &platform("new"), &in_use).unwrap();
        assert_eq!(names(&memory), ["current", "old-in-use"]);
        assert_eq!(names(&images.join(MINIMAL)), ["v1", "v2"]);
        remove(&memory, &images, &platform("new"), &HashSet::new()).unwrap();
        assert_eq!(names(&memory), ["current"]);
        assert_eq!(names(&images.join(MINIMAL)), ["v2"]);
    }
}
