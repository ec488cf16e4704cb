//! The template `minimal`: a user land of one static busybox and the files that programs expect.
//!
//! It has no package manager and no libraries. It is made in well under a second, from the host's
//! own busybox, at any disk size.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use super::{content_key, ext4};
use crate::{
    disk::sparse,
    durable,
    setup::{Setup, run},
};

/// The template's name.
pub(crate) const MINIMAL: &str = "minimal";

/// Raised when the files below change.
const LAYOUT: &[u8] = b"minimal 1";

/// Folders and their permissions; parents come first.
const FOLDERS: [(&str, u32); 25] = [
    ("bin", 0o755),
    ("sbin", 0o755),
    ("lib", 0o755),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/sbin", 0o755),
    ("usr/lib", 0o755),
    ("usr/local", 0o755),
    ("usr/local/bin", 0o755),
    ("usr/local/sbin", 0o755),
    ("etc", 0o755),
    ("dev", 0o755),
    ("proc", 0o755),
    ("sys", 0o755),
    ("run", 0o755),
    ("tmp", 0o1777),
    ("var", 0o755),
    ("var/tmp", 0o1777),
    ("var/log", 0o755),
    ("root", 0o700),
    ("home", 0o755),
    ("home/user", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("srv", 0o755),
];

const FILES: [(&str, &str); 8] = [
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\n\
         daemon:x:1:1:daemon:/usr/sbin:/bin/false\n\
         nobody:x:65534:65534:nobody:/:/bin/false\n\
         user:x:1000:1000:user:/home/user:/bin/sh\n",
    ),
    (
        "etc/group",
        "root:x:0:\ndaemon:x:1:\ntty:x:5:\nusers:x:100:user\nnogroup:x:65534:\nuser:x:1000:\n",
    ),
    ("etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost\n"),
    ("etc/hostname", "sandbox\n"),
    ("etc/shells", "/bin/sh\n/bin/ash\n"),
    ("etc/profile", "export PS1='\\u@\\h:\\w\\$ '\numask 022\n"),
    (
        "etc/nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files dns\n",
    ),
    (
        "etc/os-release",
        "NAME=minimal\nID=minimal\nPRETTY_NAME=\"minimal sandbox\"\n",
    ),
];

/// Returns the folder of `minimal` at this disk size, made if it is not there yet, and the
/// version's name.
pub(crate) async fn ensure_minimal(
    images: &Path,
    setup: &Setup,
    disk_size_mb: u32,
) -> io::Result<(PathBuf, String)> {
    let busybox = fs::read(&setup.busybox)?;
    let version = format!("{}-{disk_size_mb}", content_key([LAYOUT, &busybox]));
    let family = images.join(MINIMAL);
    let place = family.join(&version);
    if !place.join("disk.img").is_file() {
        fs::create_dir_all(&family)?;
        let making = tempfile::Builder::new()
            .prefix(".making-")
            .tempdir_in(&family)?;
        let tree = tempfile::Builder::new()
            .prefix(".tree-")
            .tempdir_in(&family)?;
        lay_out(tree.path(), setup).await?;
        let image = making.path().join("disk.img");
        ext4::make_from_folder(setup, &image, disk_size_mb, tree.path()).await?;
        let manifest = serde_json::json!({
            "name": MINIMAL,
            "version": version,
            "disk_size_mb": disk_size_mb,
            "size_bytes": sparse::physical_bytes(&image)?,
        });
        durable::write_json(&making.path().join("manifest.json"), &manifest)?;
        durable::publish_folder(&making.keep(), &place)?;
    }
    Ok((place, version))
}

async fn lay_out(tree: &Path, setup: &Setup) -> io::Result<()> {
    // Permissions are set apart from creation, so that the caller's umask has no say.
    let set_mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
    set_mode(tree, 0o755)?;
    for (folder, mode) in FOLDERS {
        let path = tree.join(folder);
        fs::create_dir(&path)?;
        set_mode(&path, mode)?;
    }
    for (file, content) in FILES {
        let path = tree.join(file);
        fs::write(&path, content)?;
        set_mode(&path, 0o644)?;
    }
    let busybox = tree.join("bin/busybox");
    fs::copy(&setup.busybox, &busybox)?;
    set_mode(&busybox, 0o755)?;
    let applets = run(&setup.busybox, ["--list-full"]).await?;
    for applet in applets.lines().filter(|applet| belongs(applet)) {
        symlink("/bin/busybox", tree.join(applet))?;
    }
    Ok(())
}

/// Applets that busybox names with the folder where they are expected. Not `init` and its like: the
/// guest agent is PID 1.
fn belongs(applet: &str) -> bool {
    let mut parts = applet.rsplitn(2, '/');
    let (Some(name), Some(folder)) = (parts.next(), parts.next()) else {
        return false;
    };
    matches!(folder, "bin" | "sbin" | "usr/bin" | "usr/sbin")
        && !matches!(name, "busybox" | "init" | "linuxrc")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_applets_below_the_usual_folders_are_linked() {
        assert!(belongs("bin/sh") && belongs("usr/sbin/chroot"));
        assert!(!belongs("linuxrc") && !belongs("sbin/init") && !belongs("etc/x"));
    }

    #[tokio::test]
    async fn r17_r19_the_image_has_the_size_asked_for_and_takes_a_fraction_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let setup = Setup::locate(None)
            .await
            .expect("`make test` sets the machine up");
        let (place, _) = ensure_minimal(folder.path(), &setup, 5120).await.unwrap();
        let image = place.join("disk.img");
        assert_eq!(fs::metadata(&image).unwrap().len(), 5120 * 1024 * 1024);
        let physical = sparse::physical_bytes(&image).unwrap();
        assert!(
            (1..16 * 1024 * 1024).contains(&physical),
            "{physical} bytes on disk"
        );

        let e2fsck = setup.mke2fs.with_file_name("e2fsck");
        run(&e2fsck, ["-fn".as_ref(), image.as_os_str()])
            .await
            .expect("e2fsck finds nothing to mend");
        let again = ensure_minimal(folder.path(), &setup, 5120).await.unwrap();
        assert_eq!(again.0, place);
        let left: Vec<_> = fs::read_dir(folder.path().join(MINIMAL)).unwrap().collect();
        assert_eq!(left.len(), 1, "nothing is left beside the image: {left:?}");
    }
}
