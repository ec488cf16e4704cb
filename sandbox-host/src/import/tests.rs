//! From sources to disks, whole.

use std::{
    fs::{self, File, Permissions},
    io::Write,
    os::unix::fs::{FileExt, PermissionsExt, symlink},
    path::Path,
};

use sandbox_core::template::ImportSource;

use super::fixture::{Archive, Done, refusal, run};
use crate::image::IMAGE_FILE;

const MIB: u64 = 1024 * 1024;

fn tar_of(folder: &Path, archive: &[u8]) -> ImportSource {
    let path = folder.join("rootfs.tar");
    fs::write(&path, archive).unwrap();
    ImportSource::Tar {
        path: path.display().to_string(),
    }
}

async fn import_tar(archive: &[u8]) -> Done {
    let folder = tempfile::tempdir().unwrap();
    run(tar_of(folder.path(), archive)).await.unwrap()
}

async fn refused_tar(archive: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    refusal(tar_of(folder.path(), archive)).await
}

fn physical_bytes(done: &Done) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(done.disk()).unwrap().blocks() * 512
}

#[tokio::test]
async fn r27_a_tar_keeps_owners_modes_links_devices_and_attributes() {
    let archive = Archive::default()
        .folder("./", 0o750, (0, 42))
        .folder("usr/bin", 0o755, (0, 0))
        .file("usr/bin/sudo", 0o4755, (0, 0), b"#!/bin/sh\n")
        .hard_link("usr/bin/sudoedit", "usr/bin/sudo")
        .symlink("bin", "usr/bin")
        .pax(&[
            (
                "SCHILY.xattr.security.capability",
                b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            ),
            ("SCHILY.xattr.user.note", b"two\nlines"),
        ])
        .file("bin/ping", 0o755, (0, 0), b"ping")
        .device("dev/null", b'3', 1, 3)
        .device("dev/far", b'4', 259, 70_000)
        .fifo("pipe")
        .pax(&[("uid", b"3000000000"), ("gid", b"100000")])
        .folder("home", 0o700, (0, 0))
        .file("home/empty", 0o600, (1000, 1000), b"")
        .folder("tmp", 0o1777, (0, 0))
        .end();
    let done = import_tar(&archive).await;
    assert_eq!(done.meta("/"), (0o750, 0, 42));
    assert_eq!(done.meta("/usr/bin/sudo"), (0o4755, 0, 0));
    assert_eq!(done.inode("/usr/bin/sudo"), done.inode("/usr/bin/sudoedit"));
    assert!(done.debugfs("stat /usr/bin/sudo").contains("Links: 2"));
    let link = done.open().read_link("/bin").unwrap();
    assert_eq!(link.as_ref() as &[u8], b"usr/bin");
    // The archive's own link led it there.
    assert_eq!(done.read("/usr/bin/ping"), b"ping");
    let attributes = done.debugfs("ea_list /usr/bin/ping");
    assert!(
        attributes.contains("security.capability (20)"),
        "{attributes}"
    );
    assert!(attributes.contains("user.note (9)"), "{attributes}");
    assert!(
        done.debugfs("stat /dev/null")
            .contains("Type: character special")
    );
    let far = done.debugfs("stat /dev/far");
    assert!(
        far.contains("Type: block special") && far.contains("259:70000"),
        "{far}"
    );
    assert!(done.debugfs("stat /pipe").contains("Type: FIFO"));
    assert_eq!(done.meta("/home"), (0o700, 3_000_000_000, 100_000));
    assert_eq!(done.meta("/home/empty"), (0o600, 1000, 1000));
    assert_eq!(done.read("/home/empty"), b"");
    assert_eq!(done.meta("/tmp"), (0o1777, 0, 0));
    assert!(
        done.debugfs("stat /usr/bin/sudo")
            .contains("mtime: 0x59682f00")
    );
}

#[tokio::test]
async fn a_guest_finds_all_that_it_is_mounted_on() {
    let done = import_tar(&Archive::default().file("app", 0o755, (0, 0), b"x").end()).await;
    for (path, mode) in [
        ("/dev", 0o755),
        ("/proc", 0o555),
        ("/sys", 0o555),
        ("/run", 0o755),
        ("/tmp", 0o1777),
        ("/root", 0o700),
    ] {
        assert_eq!(done.meta(path), (mode, 0, 0), "{path}");
    }
    for name in ["proc", "dev", "sys"] {
        let in_the_way = Archive::default().file(name, 0o644, (0, 0), b"x").end();
        assert!(refused_tar(&in_the_way).await.contains("is no folder"));
        let link = Archive::default().symlink(name, "/etc").end();
        assert!(refused_tar(&link).await.contains("is no folder"));
    }
    assert!(
        refused_tar(&Archive::default().end())
            .await
            .contains("it is empty")
    );
}

#[tokio::test]
async fn trap_33_what_leads_out_of_an_archive_touches_nothing_of_the_host() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("target");
    fs::write(&target, "untouched").unwrap();
    // Enough to leave any folder of this machine, and few enough for the name field of 100 bytes.
    let up = "../".repeat(8);
    let away = format!("{up}{}", target.strip_prefix("/").unwrap().display());
    let escape = Archive::default().file(&away, 0o644, (0, 0), b"evil").end();
    assert!(refused_tar(&escape).await.contains("leads out of the root"));
    let linked = Archive::default().hard_link("stolen", &away).end();
    assert!(refused_tar(&linked).await.contains("leads out of the root"));

    // By way of a link that the archive brings along: inside, it is a path of the guest's own.
    let by_link = Archive::default()
        .symlink("out", outside.path().to_str().unwrap())
        .file("out/target", 0o644, (0, 0), b"evil")
        .end();
    let done = import_tar(&by_link).await;
    assert_eq!(done.read(target.to_str().unwrap()), b"evil");
    let stolen = Archive::default()
        .hard_link("stolen", target.to_str().unwrap())
        .end();
    assert!(refused_tar(&stolen).await.contains("which is not there"));
    assert_eq!(fs::read_to_string(&target).unwrap(), "untouched");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn names_that_tools_stumble_over_arrive_as_they_are() {
    let names = [
        "<2>",
        "-f",
        "a b",
        "q\"uo\"te",
        "'",
        "#",
        "back\\slash",
        "ü",
        "$(reboot)",
        ";",
    ];
    let mut archive = Archive::default().folder("odd <7>", 0o755, (0, 0));
    for name in names {
        archive = archive.file(&format!("odd <7>/{name}"), 0o640, (1, 2), name.as_bytes());
        archive = archive.file(&format!("odd <7>/{name}.d/in"), 0o600, (0, 0), b"in");
    }
    let done = import_tar(&archive.symlink("l", "to \"quo te\"").end()).await;
    for name in names {
        let path = format!("/odd <7>/{name}");
        assert_eq!(done.read(&path), name.as_bytes());
        assert_eq!(done.meta(&path), (0o640, 1, 2));
        assert_eq!(done.read(&format!("{path}.d/in")), b"in");
    }
    let link = done.open().read_link("/l").unwrap();
    assert_eq!(link.as_ref() as &[u8], b"to \"quo te\"");
    let laden = Archive::default()
        .pax(&[("SCHILY.xattr.user.big", &[b'v'; 5000])])
        .file("laden", 0o644, (0, 0), b"")
        .end();
    assert!(refused_tar(&laden).await.contains("extended attributes"));
    let broken = Archive::default().file("a\nb", 0o644, (0, 0), b"").end();
    assert!(refused_tar(&broken).await.contains("line break"));
}

#[tokio::test]
async fn folders_of_many_entries_and_many_names_of_one_file_fit() {
    let long = "n".repeat(90);
    let mut archive = Archive::default().file("first", 0o644, (0, 0), b"one");
    for number in 0..2500 {
        archive = archive.hard_link(&format!("links/{number}{}", &long[..60]), "first");
        archive = archive.file(&format!("many/{number}"), 0o644, (0, 0), b"");
    }
    let mut deep = String::new();
    for _ in 0..40 {
        deep.push_str("d/");
    }
    let done = import_tar(
        &archive
            .file(&format!("{deep}x"), 0o644, (0, 0), b"deep")
            .end(),
    )
    .await;
    assert!(done.debugfs("stat /first").contains("Links: 2501"));
    assert_eq!(done.read(&format!("/links/2499{}", &long[..60])), b"one");
    let fs = done.open();
    assert_eq!(fs.read_dir("/many").unwrap().count(), 2502);
    assert_eq!(done.read(&format!("/{deep}x")), b"deep");
}

#[tokio::test]
async fn r19_a_file_of_2_gib_with_little_in_it_stays_little() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir(&root).unwrap();
    let big = File::create(root.join("big")).unwrap();
    big.set_len(2048 * MIB).unwrap();
    big.write_all_at(b"middle", 1024 * MIB).unwrap();
    drop(big);
    let from_folder = ImportSource::Directory {
        path: root.display().to_string(),
    };
    let archive = folder.path().join("big.tar");
    let tar = std::process::Command::new("tar")
        .args(["-S", "-cf"])
        .arg(&archive)
        .arg("-C")
        .arg(&root)
        .arg(".")
        .status()
        .unwrap();
    assert!(tar.success());
    let from_tar = ImportSource::Tar {
        path: archive.display().to_string(),
    };
    for source in [from_folder, from_tar] {
        let done = run(source).await.unwrap();
        let stat = done.debugfs("stat /big");
        assert!(stat.contains(&format!("Size: {}", 2048 * MIB)), "{stat}");
        assert!(physical_bytes(&done) < 8 * MIB, "{}", physical_bytes(&done));
        assert_eq!(done.imported.disk.size_bytes, physical_bytes(&done));
        assert!(
            done.imported.disk.disk_size_mb < 200,
            "{:?}",
            done.imported.disk
        );
    }
}

#[tokio::test]
async fn r19_an_image_is_about_as_large_as_its_content() {
    let noise: Vec<u8> = (0..20 * MIB as u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8 | 1)
        .collect();
    let archive = Archive::default()
        .file("noise", 0o644, (0, 0), &noise)
        .end();
    let done = import_tar(&archive).await;
    let physical = physical_bytes(&done);
    assert!((20 * MIB..26 * MIB).contains(&physical), "{physical}");
    assert!(
        done.imported.disk.disk_size_mb < 80,
        "{:?}",
        done.imported.disk
    );
    assert_eq!(done.read("/noise"), noise);
}

#[tokio::test]
async fn r27_a_folder_keeps_what_it_has_and_nothing_beyond_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::create_dir(root.join("lost+found")).unwrap();
    fs::write(folder.path().join("secret"), "outside").unwrap();
    let tool = root.join("bin/tool");
    fs::write(&tool, "tool").unwrap();
    fs::set_permissions(&tool, Permissions::from_mode(0o6755)).unwrap();
    fs::hard_link(&tool, root.join("bin/other")).unwrap();
    symlink("../../secret", root.join("link")).unwrap();
    nix::unistd::mkfifo(&root.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    rustix::fs::setxattr(&tool, "user.note", b"kept", rustix::fs::XattrFlags::empty()).unwrap();
    let as_root = nix::unistd::geteuid().is_root();
    if as_root {
        std::os::unix::fs::lchown(root.join("link"), Some(5), Some(6)).unwrap();
    }
    let done = run(ImportSource::Directory {
        path: root.display().to_string(),
    })
    .await
    .unwrap();
    assert_eq!(done.meta("/bin/tool").0, 0o6755);
    assert_eq!(done.meta("/bin/tool").1, 0);
    assert_eq!(done.inode("/bin/tool"), done.inode("/bin/other"));
    assert!(
        done.debugfs("ea_list /bin/tool")
            .contains("user.note (4) = \"kept\"")
    );
    let link = done.open().read_link("/link").unwrap();
    assert_eq!(link.as_ref() as &[u8], b"../../secret");
    assert!(done.debugfs("stat /pipe").contains("Type: FIFO"));
    assert!(!done.exists("/socket") && !done.exists("/secret"));
    if as_root {
        let (_, uid, gid) = done.meta("/link");
        assert_eq!((uid, gid), (5, 6));
    }
}

#[tokio::test]
async fn a_folder_that_holds_the_hosts_own_data_is_read_without_it() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "x").unwrap();
    let making = folder.path().join("data/making");
    fs::create_dir_all(&making).unwrap();
    fs::write(making.join("of-the-host"), "y").unwrap();
    let setup = crate::setup::Setup::locate(None).await.unwrap();
    let source = ImportSource::Directory {
        path: folder.path().display().to_string(),
    };
    super::import(&setup, &source, &making).await.unwrap();
    let disk = ext4_view::Ext4::load_from_path(making.join(IMAGE_FILE)).unwrap();
    assert!(disk.symlink_metadata("/file").is_ok());
    assert!(disk.symlink_metadata("/data/making").is_err());
}

#[tokio::test]
async fn r33_what_can_not_be_read_is_told_by_the_name_that_was_given() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent").display().to_string();
    for source in [
        ImportSource::Tar {
            path: absent.clone(),
        },
        ImportSource::Directory {
            path: absent.clone(),
        },
        ImportSource::OciLayout {
            path: absent.clone(),
            reference: None,
        },
    ] {
        let reason = refusal(source).await;
        assert!(
            reason.contains(&absent) && reason.contains("No such file"),
            "{reason}"
        );
    }
    let relative = ImportSource::Tar {
        path: "rootfs.tar".to_owned(),
    };
    assert!(refusal(relative).await.contains("no absolute path"));
    let is_folder = ImportSource::Tar {
        path: folder.path().display().to_string(),
    };
    assert!(refusal(is_folder).await.contains("it is no file"));

    let whole = Archive::default()
        .file("a", 0o644, (0, 0), &[1; 5000])
        .end();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&whole).unwrap();
    let gzip = gzip.finish().unwrap();
    let reason = refused_tar(&gzip[..gzip.len() - 10]).await;
    assert!(reason.contains("cut off"), "{reason}");
}

#[tokio::test]
async fn an_import_that_nobody_waits_for_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let making = folder.path().join("making");
    fs::create_dir(&making).unwrap();
    let tree = folder.path().join("tree");
    fs::create_dir(&tree).unwrap();
    for number in 0..2000 {
        fs::write(tree.join(number.to_string()), [1; 100]).unwrap();
    }
    let setup = crate::setup::Setup::locate(None).await.unwrap();
    let source = ImportSource::Directory {
        path: tree.display().to_string(),
    };
    let mut work = Box::pin(super::import(&setup, &source, &making));
    // It has begun on another thread.
    assert!(futures::poll!(&mut work).is_pending());
    drop(work);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while fs::read_dir(&making).unwrap().next().is_some() {
        assert!(std::time::Instant::now() < until, "something is left");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
