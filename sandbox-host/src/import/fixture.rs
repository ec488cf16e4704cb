//! Archives and images for tests, made here, and a look into the disks that come of them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use ext4_view::Ext4;
use sandbox_core::{host::HostError, template::ImportSource};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::{Imported, import};
use crate::{image::IMAGE_FILE, setup::Setup};

/// A tar archive in the making.
#[derive(Default)]
pub(super) struct Archive(pub(super) Vec<u8>);

impl Archive {
    fn member(mut self, path: &str, kind: u8, mode: u32, owner: (u32, u32), data: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(data.len() as u64);
        header.set_mode(mode);
        header.set_uid(owner.0.into());
        header.set_gid(owner.1.into());
        header.set_mtime(1_500_000_000);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        let padded = self.0.len().next_multiple_of(512);
        self.0.resize(padded, 0);
        self
    }

    pub(super) fn file(self, path: &str, mode: u32, owner: (u32, u32), data: &[u8]) -> Self {
        self.member(path, b'0', mode, owner, data)
    }

    pub(super) fn folder(self, path: &str, mode: u32, owner: (u32, u32)) -> Self {
        self.member(path, b'5', mode, owner, b"")
    }

    pub(super) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            data.extend_from_slice(format!("{length} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.member("pax", b'x', 0o644, (0, 0), &data)
    }

    fn changed(mut self, change: impl FnOnce(&mut tar::Header)) -> Self {
        let at = self.0.len() - 512;
        let mut header = tar::Header::from_byte_slice(&self.0[at..]).clone();
        change(&mut header);
        header.set_cksum();
        self.0[at..].copy_from_slice(header.as_bytes());
        self
    }

    pub(super) fn symlink(self, path: &str, target: &str) -> Self {
        self.member(path, b'2', 0o777, (0, 0), b"")
            .changed(|header| header.set_link_name_literal(target).unwrap())
    }

    pub(super) fn hard_link(self, path: &str, target: &str) -> Self {
        self.member(path, b'1', 0o644, (0, 0), b"")
            .changed(|header| header.set_link_name_literal(target).unwrap())
    }

    pub(super) fn device(self, path: &str, kind: u8, major: u32, minor: u32) -> Self {
        self.member(path, kind, 0o620, (0, 5), b"")
            .changed(|header| {
                header.set_device_major(major).unwrap();
                header.set_device_minor(minor).unwrap();
            })
    }

    pub(super) fn fifo(self, path: &str) -> Self {
        self.member(path, b'6', 0o600, (0, 0), b"")
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// The contents of an OCI image, by digest.
#[derive(Default)]
pub(super) struct OciImage {
    pub(super) blobs: BTreeMap<String, Vec<u8>>,
    pub(super) index: Vec<u8>,
    pub(super) layers: Vec<String>,
}

fn digest(content: &[u8]) -> String {
    let hex: String = Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

impl OciImage {
    pub(super) fn new(architecture: &str, layers: &[(&str, Vec<u8>)]) -> Self {
        let mut image = Self::default();
        let layers: Vec<_> = layers
            .iter()
            .map(|(kind, layer)| {
                let described = image.add(kind, layer.clone());
                image.layers.push(digest(layer));
                described
            })
            .collect();
        let config = serde_json::json!({
            "architecture": architecture, "os": "linux",
            "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "APP=1"]},
            "rootfs": {"type": "layers", "diff_ids": []},
        });
        let config = image.add(
            "application/vnd.oci.image.config.v1+json",
            serde_json::to_vec(&config).unwrap(),
        );
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": layers,
        });
        let manifest = image.add(
            "application/vnd.oci.image.manifest.v1+json",
            serde_json::to_vec(&manifest).unwrap(),
        );
        let mut here = manifest.clone();
        here["platform"] = serde_json::json!({"os": "linux", "architecture": architecture});
        let mut elsewhere = manifest;
        elsewhere["digest"] = digest(b"another machine's").into();
        elsewhere["platform"] = serde_json::json!({"os": "linux", "architecture": "s390x"});
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [elsewhere, here]});
        image.index = serde_json::to_vec(&index).unwrap();
        image
    }

    fn add(&mut self, kind: &str, content: Vec<u8>) -> serde_json::Value {
        let digest = digest(&content);
        let described =
            serde_json::json!({"mediaType": kind, "digest": digest, "size": content.len()});
        self.blobs.insert(digest, content);
        described
    }

    pub(super) fn write_layout(&self, folder: &Path) {
        fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
        fs::write(
            folder.join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )
        .unwrap();
        fs::write(folder.join("index.json"), &self.index).unwrap();
        for (digest, content) in &self.blobs {
            let hex = digest.strip_prefix("sha256:").unwrap();
            fs::write(folder.join("blobs/sha256").join(hex), content).unwrap();
        }
    }
}

/// An import into a folder of its own.
pub(super) struct Done {
    folder: TempDir,
    pub(super) imported: Imported,
}

/// Imports; whatever comes of it, nothing but the disk is left.
pub(super) async fn run(source: ImportSource) -> Result<Done, HostError> {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::locate(None)
        .await
        .expect("`make test` sets the machine up");
    let imported = import(&setup, &source, folder.path()).await;
    let left: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    if imported.is_ok() {
        assert_eq!(left, [IMAGE_FILE], "nothing but the disk is left");
    } else {
        assert!(left.is_empty(), "left behind: {left:?}");
    }
    let done = Done {
        folder,
        imported: imported?,
    };
    done.check();
    Ok(done)
}

/// What a refused source's maker is told.
pub(super) async fn refusal(source: ImportSource) -> String {
    match run(source).await {
        Ok(_) => panic!("it was imported"),
        Err(HostError::BadSource(reason)) => {
            assert!(!reason.contains(".import-"), "an internal path: {reason}");
            reason
        }
        Err(error) => panic!("the host's fault: {error:?}"),
    }
}

impl Done {
    pub(super) fn disk(&self) -> PathBuf {
        self.folder.path().join(IMAGE_FILE)
    }

    fn check(&self) {
        let checked = Command::new("/sbin/e2fsck")
            .arg("-fn")
            .arg(self.disk())
            .output()
            .unwrap();
        assert!(checked.status.success(), "{checked:?}");
    }

    pub(super) fn open(&self) -> Ext4 {
        Ext4::load_from_path(self.disk()).unwrap()
    }

    /// Permissions with the high bits, and owners.
    pub(super) fn meta(&self, path: &str) -> (u16, u32, u32) {
        let meta = self.open().symlink_metadata(path).unwrap();
        (meta.mode() & 0o7777, meta.uid(), meta.gid())
    }

    pub(super) fn read(&self, path: &str) -> Vec<u8> {
        self.open().read(path).unwrap()
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.open().symlink_metadata(path).is_ok()
    }

    /// What debugfs says to a command.
    pub(super) fn debugfs(&self, command: &str) -> String {
        let output = Command::new("/sbin/debugfs")
            .args(["-R", command])
            .arg(self.disk())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(super) fn inode(&self, path: &str) -> String {
        let stat = self.debugfs(&format!("stat \"{path}\""));
        stat.split_whitespace()
            .nth(1)
            .unwrap_or_default()
            .to_owned()
    }
}
