//! Which memory images, disk images and versions of them are of no use any more: made for another
//! program, kernel or QEMU than this one or from an image that is gone, and under no machine.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
};

use sandbox_core::{id::TemplateId, size::DEFAULT_DISK_SIZE_MB, template::MINIMAL_TEMPLATE_ID};

use super::{
    manifest::{MANIFEST_FILE, Manifest, Platform},
    minimal::MINIMAL,
    sized::SIZED_FOLDER,
    store::ImageStore,
};
use crate::durable;

/// Removes them. `in_use` has the keys of the memory images that machines lie on; of a snapshot, it
/// is the template's ID.
pub(super) fn remove(
    memory: &Path,
    store: &ImageStore,
    platform: &Platform,
    in_use: &HashSet<String>,
) -> io::Result<()> {
    let images = store.list()?;
    let there = |id: TemplateId| {
        id == MINIMAL_TEMPLATE_ID
            || images
                .iter()
                .any(|image| image.manifest.id == id && !image.deleting)
    };
    let mut used: HashSet<TemplateId> = in_use.iter().filter_map(|key| key.parse().ok()).collect();
    let mut versions = HashSet::new();
    for (key, folder) in folders(memory)? {
        match read_manifest(&folder) {
            Some(manifest) if in_use.contains(&key) => {
                used.insert(manifest.image);
                versions.insert((manifest.image, manifest.image_version));
            }
            Some(manifest) if manifest.platform == *platform && there(manifest.image) => {
                versions.insert((manifest.image, manifest.image_version));
            }
            // Unreadable and in use: nobody can tell what lies on it.
            None if in_use.contains(&key) => return Ok(()),
            _ => {
                tracing::info!(key, "removing an outdated memory image");
                durable::remove_folder(&folder)?;
            }
        }
    }
    for (version, folder) in folders(&store.root().join(MINIMAL))? {
        if !versions.contains(&(MINIMAL_TEMPLATE_ID, version)) {
            durable::remove_folder(&folder)?;
        }
    }
    for image in images {
        let id = image.manifest.id;
        if image.deleting && !used.contains(&id) {
            tracing::info!(%id, "removing an image that was to go");
            store.remove(id)?;
            continue;
        }
        for (size_mb, folder) in folders(&image.folder.join(SIZED_FOLDER))? {
            // The default one is for the next sandbox, whatever came before.
            let default = size_mb == DEFAULT_DISK_SIZE_MB.to_string();
            if !default && !versions.contains(&(id, size_mb)) {
                durable::remove_folder(&folder)?;
            }
        }
    }
    Ok(())
}

/// Removes the memory images that were made from an image.
pub(super) fn remove_made_from(memory: &Path, id: TemplateId) -> io::Result<()> {
    for (_, folder) in folders(memory)? {
        if read_manifest(&folder).is_some_and(|manifest| manifest.image == id) {
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

    fn memory_image(root: &Path, key: &str, initramfs: &str, image: TemplateId, version: &str) {
        let folder = root.join("memory").join(key);
        fs::create_dir_all(&folder).unwrap();
        let manifest = serde_json::json!({
            "image": image, "image_version": version, "size": MachineSize::default(),
            "platform": platform(initramfs),
        });
        fs::write(folder.join(MANIFEST_FILE), manifest.to_string()).unwrap();
    }

    fn minimal(root: &Path, key: &str, initramfs: &str, version: &str) {
        fs::create_dir_all(root.join("images").join(MINIMAL).join(version)).unwrap();
        memory_image(root, key, initramfs, MINIMAL_TEMPLATE_ID, version);
    }

    fn stored(root: &Path, sizes: &[&str]) -> TemplateId {
        let id = TemplateId::from_uuid(uuid::Uuid::now_v7());
        let folder = root.join("images").join(id.uuid().to_string());
        fs::create_dir_all(&folder).unwrap();
        for size in sizes {
            fs::create_dir_all(folder.join(SIZED_FOLDER).join(size)).unwrap();
        }
        let manifest = serde_json::json!({
            "id": id, "content": {"kind": "image"}, "size": MachineSize::default(),
            "disk_bytes": 1, "memory_bytes": 0,
        });
        fs::write(folder.join(MANIFEST_FILE), manifest.to_string()).unwrap();
        id
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

    fn in_use<const N: usize>(keys: [&str; N]) -> HashSet<String> {
        keys.map(str::to_owned).into()
    }

    #[test]
    fn trap_21_only_what_is_outdated_and_under_no_machine_goes() {
        let root = tempfile::tempdir().unwrap();
        minimal(root.path(), "current", "new", "v2");
        minimal(root.path(), "old-in-use", "old", "v1");
        minimal(root.path(), "old-unused", "old", "v0");
        let (memory, images) = (root.path().join("memory"), root.path().join("images"));
        let store = ImageStore::open(images.clone()).unwrap();
        remove(&memory, &store, &platform("new"), &in_use(["old-in-use"])).unwrap();
        assert_eq!(names(&memory), ["current", "old-in-use"]);
        assert_eq!(names(&images.join(MINIMAL)), ["v1", "v2"]);
        remove(&memory, &store, &platform("new"), &HashSet::new()).unwrap();
        assert_eq!(names(&memory), ["current"]);
        assert_eq!(names(&images.join(MINIMAL)), ["v2"]);
    }

    #[test]
    fn r20_sizes_of_an_image_live_as_long_as_a_machine_or_memory_image_refers_to_them() {
        let root = tempfile::tempdir().unwrap();
        let id = stored(root.path(), &["600", "700", "800", "5120"]);
        memory_image(root.path(), "waiting", "new", id, "600");
        memory_image(root.path(), "old-in-use", "old", id, "700");
        memory_image(root.path(), "old-unused", "old", id, "800");
        let memory = root.path().join("memory");
        let store = ImageStore::open(root.path().join("images")).unwrap();
        let sized = store.find(id).unwrap().unwrap().folder.join(SIZED_FOLDER);
        remove(&memory, &store, &platform("new"), &in_use(["old-in-use"])).unwrap();
        assert_eq!(names(&sized), ["5120", "600", "700"]);
        remove(&memory, &store, &platform("new"), &HashSet::new()).unwrap();
        assert_eq!(names(&sized), ["5120", "600"]);
    }

    #[test]
    fn r26_an_image_that_is_to_go_stays_under_its_last_machine_and_then_goes_with_all_of_it() {
        let root = tempfile::tempdir().unwrap();
        let (booted, frozen) = (stored(root.path(), &["600"]), stored(root.path(), &[]));
        memory_image(root.path(), "booted", "new", booted, "600");
        let memory = root.path().join("memory");
        let store = ImageStore::open(root.path().join("images")).unwrap();
        store.mark_deleting(booted).unwrap();
        store.mark_deleting(frozen).unwrap();
        let machines = in_use(["booted", &frozen.to_string()]);
        remove(&memory, &store, &platform("new"), &machines).unwrap();
        assert_eq!(store.list().unwrap().len(), 2);
        assert_eq!(names(&memory), ["booted"]);
        remove(&memory, &store, &platform("new"), &HashSet::new()).unwrap();
        assert!(store.list().unwrap().is_empty());
        assert!(names(&memory).is_empty() && names(store.root()).is_empty());
    }
}
