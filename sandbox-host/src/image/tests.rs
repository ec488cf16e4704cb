//! Images as templates have them: published once, at every size that is asked for, gone with their
//! last user.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::Path,
    sync::Arc,
};

use sandbox_core::{
    disk::{DiskBackend, DiskChoice},
    host::HostError,
    id::TemplateId,
    size::{DEFAULT_DISK_SIZE_MB, MIB, MachineSize},
    template::{MINIMAL_TEMPLATE_ID, TemplateKind},
};
use uuid::Uuid;

use super::{
    Content, FrozenDisk, MemoryImages, StoredImage,
    ext4::{self, Superblock},
    flatten_disk, sized,
    store::ImageStore,
};
use crate::{
    boot::BootParts,
    disk::{
        Disk, sparse,
        tests::{Mounted, is_root},
    },
    emulator::Emulator,
    fault::{self, Fault},
    setup::{Setup, run},
    testkit::leftovers::Leftovers,
};

async fn setup() -> Setup {
    Setup::locate(None)
        .await
        .expect("`make test` sets the machine up")
}

fn new_id() -> TemplateId {
    TemplateId::from_uuid(Uuid::now_v7())
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// An image of one file, flattened from a disk of 256 MiB.
async fn image(setup: &Setup, store: &ImageStore, scratch: &Path) -> StoredImage {
    let tree = scratch.join("tree");
    fs::create_dir_all(&tree).unwrap();
    fs::write(tree.join("file"), vec![7; 3_000_000]).unwrap();
    let disk = scratch.join("raw.img");
    ext4::make_from_folder(setup, &disk, 256, &tree)
        .await
        .unwrap();
    let making = store.begin(new_id()).unwrap();
    let flat = flatten_disk(setup, &FrozenDisk::raw(&disk), &making.disk())
        .await
        .unwrap();
    fs::remove_file(disk).unwrap();
    let size = MachineSize {
        disk_size_mb: flat.disk_size_mb,
        ..MachineSize::default()
    };
    making
        .publish(Content::Image, size, BTreeMap::new())
        .await
        .unwrap()
}

#[tokio::test]
async fn r19_a_published_image_is_found_again_with_its_true_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let setup = setup().await;
    let store = ImageStore::open(folder.path().join("images")).unwrap();
    let image = image(&setup, &store, folder.path()).await;
    let manifest = &image.manifest;
    assert_eq!(store.find(manifest.id).unwrap().as_ref(), Some(&image));
    assert_eq!(store.list().unwrap(), std::slice::from_ref(&image));
    let report = image.report(3);
    assert_eq!((report.id, report.kind), (manifest.id, TemplateKind::Image));
    assert_eq!((report.users, report.memory_bytes), (3, 0));
    assert_eq!(
        report.disk_bytes,
        sparse::physical_bytes(&image.disk()).unwrap()
    );
    assert!(
        (3_000_000..6_000_000).contains(&report.disk_bytes),
        "{report:?}"
    );
    assert_eq!(store.find(new_id()).unwrap(), None);
}

#[tokio::test]
async fn trap_20_nothing_is_ever_published_under_an_id_that_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let store = ImageStore::open(folder.path().to_path_buf()).unwrap();
    let id = new_id();
    let (first, second) = (store.begin(id).unwrap(), store.begin(id).unwrap());
    fs::write(first.disk(), b"first").unwrap();
    fs::write(second.disk(), b"second").unwrap();
    let size = MachineSize::default();
    let image = first
        .publish(Content::Image, size, BTreeMap::new())
        .await
        .unwrap();
    let error = second
        .publish(Content::Image, size, BTreeMap::new())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(
        store.begin(id).unwrap_err().kind(),
        io::ErrorKind::AlreadyExists
    );
    store.mark_deleting(id).unwrap();
    assert_eq!(
        store.begin(id).unwrap_err().kind(),
        io::ErrorKind::AlreadyExists
    );
    assert_eq!(fs::read(image.disk()).unwrap(), b"first");
    assert_eq!(names(store.root()), [id.uuid().to_string()]);
}

#[tokio::test]
async fn an_image_that_is_not_published_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = ImageStore::open(folder.path().to_path_buf()).unwrap();
    let making = store.begin(new_id()).unwrap();
    assert!(
        names(store.root())[0].starts_with('.'),
        "recovery goes by it"
    );
    fs::write(making.folder().join("anything"), b"x").unwrap();
    drop(making);
    assert!(names(store.root()).is_empty());
    // Without a disk there is nothing to publish.
    let making = store.begin(new_id()).unwrap();
    let size = MachineSize::default();
    making
        .publish(Content::Image, size, BTreeMap::new())
        .await
        .unwrap_err();
    assert!(names(store.root()).is_empty());
}

#[tokio::test]
async fn an_image_that_is_deleted_while_it_is_made_is_never_there() {
    let folder = tempfile::tempdir().unwrap();
    let store = ImageStore::open(folder.path().to_path_buf()).unwrap();
    let id = new_id();
    let making = store.begin(id).unwrap();
    fs::write(making.disk(), b"disk").unwrap();
    store.bury(id);
    let size = MachineSize::default();
    let error = making.publish(Content::Image, size, BTreeMap::new()).await;
    let words = error.unwrap_err().to_string();
    assert!(words.contains("deleted meanwhile"), "{words}");
    assert_eq!(store.find(id).unwrap(), None);
    // An order for it that comes late makes none either.
    let late = store.begin(id).unwrap_err();
    assert_eq!(late.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(names(folder.path()), [""; 0]);
    assert!(store.begin(new_id()).is_ok());
}

#[tokio::test]
async fn r26_a_deleted_image_takes_no_new_users_and_stays_for_those_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(ImageStore::open(folder.path().to_path_buf()).unwrap());
    let id = new_id();
    assert!(store.lease(id).unwrap().is_none());
    assert!(store.remove(id).unwrap(), "what is not there is gone");
    let making = store.begin(id).unwrap();
    fs::write(making.disk(), b"x").unwrap();
    let size = MachineSize::default();
    making
        .publish(Content::Image, size, BTreeMap::new())
        .await
        .unwrap();

    let (one, two) = (store.lease(id).unwrap(), store.lease(id).unwrap());
    drop(one);
    assert!(two.is_some() && !store.remove(id).unwrap());
    assert!(store.find(id).unwrap().unwrap().deleting);
    assert!(
        store.lease(id).unwrap().is_none(),
        "a new user of what is to go"
    );
    // It is on disk: another process knows it.
    let reopened = ImageStore::open(folder.path().to_path_buf()).unwrap();
    assert!(reopened.list().unwrap()[0].deleting);
    drop(two);
    assert!(store.remove(id).unwrap());
    assert!(names(store.root()).is_empty());
}

#[tokio::test]
async fn r18_r20_trap_16_an_image_is_given_each_size_beside_what_was_published() {
    let folder = tempfile::tempdir().unwrap();
    let setup = setup().await;
    let root = folder.path().join("images");
    let images = MemoryImages::open(folder.path().join("memory"), root.clone()).unwrap();
    let image = image(&setup, images.store(), folder.path()).await;
    let published = fs::read(image.disk()).unwrap();
    let leftovers = Leftovers::watch(folder.path());

    images
        .ensure_image_sizes(&setup, DEFAULT_DISK_SIZE_MB)
        .await
        .unwrap();
    let sizes = image.folder.join("sized");
    assert_eq!(names(&sizes), [DEFAULT_DISK_SIZE_MB.to_string()]);
    let least_mb = image.manifest.size.disk_size_mb;
    for size_mb in [DEFAULT_DISK_SIZE_MB, least_mb, 300, DEFAULT_DISK_SIZE_MB] {
        let disk = sized::ensure(images.store(), &setup, &image, size_mb)
            .await
            .unwrap();
        let bytes = u64::from(size_mb) * MIB;
        assert_eq!(fs::metadata(&disk).unwrap().len(), bytes);
        assert_eq!(Superblock::read(&disk).unwrap().bytes, bytes);
        ext4::verify(&setup, &disk).await.unwrap();
        let physical = sparse::physical_bytes(&disk).unwrap();
        assert!(physical < 16 * MIB, "{size_mb} MiB take {physical} bytes");
        let view = ext4_view::Ext4::load_from_path(&disk).unwrap();
        assert!(view.read("/file").unwrap() == vec![7; 3_000_000]);
    }
    assert!(fs::read(image.disk()).unwrap() == published);
    let error = sized::ensure(images.store(), &setup, &image, least_mb - 1)
        .await
        .unwrap_err();
    let too_small = HostError::DiskTooSmall {
        asked_mb: least_mb - 1,
        needed_mb: least_mb,
    };
    assert_eq!(error, too_small);
    leftovers.assert_none().await;

    // The same size twice at once is made once.
    let two = tokio::join!(
        sized::ensure(images.store(), &setup, &image, 400),
        sized::ensure(images.store(), &setup, &image, 400)
    );
    assert_eq!(two.0.unwrap(), two.1.unwrap());
    assert_eq!(names(&root), [image.manifest.id.uuid().to_string()]);
    // One that is to go is not given sizes any more.
    fs::remove_dir_all(&sizes).unwrap();
    images.store().mark_deleting(image.manifest.id).unwrap();
    images.ensure_image_sizes(&setup, 5120).await.unwrap();
    assert!(!sizes.exists());
}

#[tokio::test]
async fn r20_r22_a_growth_that_fails_leaves_nothing_and_keeps_no_host_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let setup = setup().await;
    let images =
        MemoryImages::open(folder.path().join("memory"), folder.path().join("images")).unwrap();
    let image = image(&setup, images.store(), folder.path()).await;
    let id = image.manifest.id.uuid().to_string();
    let leftovers = Leftovers::watch(folder.path());
    for step in sized::STEPS {
        for (fault, full) in [(Fault::Fail, false), (Fault::DiskFull, true)] {
            fault::arm(Some((step, fault)));
            let error = sized::ensure(images.store(), &setup, &image, 300)
                .await
                .unwrap_err();
            let is_full = matches!(error, HostError::DiskFull { .. });
            assert_eq!(is_full, full, "{step}: {error}");
            assert_eq!(names(images.store().root()), [id.as_str()]);
            fault::arm(Some((step, fault)));
            images.ensure_image_sizes(&setup, 400).await.unwrap();
            leftovers.assert_none().await;
        }
    }
    fault::arm(None);
    let disk = sized::ensure(images.store(), &setup, &image, 300).await;
    assert!(disk.unwrap().is_file());
}

const GROWING_IN: &str = "SANDBOX_TEST_GROWING_IN";
const KILLED_AT: &str = "SANDBOX_TEST_KILLED_AT";

/// Not a test: the process that the next test has die.
#[tokio::test]
#[ignore = "run by the test below, with a place to die at"]
async fn a_process_that_dies_while_an_image_grows() {
    let (Some(root), Ok(at)) = (std::env::var_os(GROWING_IN), std::env::var(KILLED_AT)) else {
        return;
    };
    let setup = setup().await;
    let store = ImageStore::open(root.into()).unwrap();
    let image = store.list().unwrap().remove(0);
    fault::arm(Some((&at, Fault::Kill)));
    let _ = sized::ensure(&store, &setup, &image, 300).await;
}

#[tokio::test]
async fn r20_wherever_the_process_dies_while_an_image_grows_the_next_makes_it_whole() {
    let folder = tempfile::tempdir().unwrap();
    let setup = setup().await;
    let store = ImageStore::open(folder.path().join("images")).unwrap();
    let image = image(&setup, &store, folder.path()).await;
    let published = fs::read(image.disk()).unwrap();
    let id = image.manifest.id.uuid().to_string();
    for step in sized::STEPS {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored"])
            .arg("image::tests::a_process_that_dies_while_an_image_grows")
            .env(GROWING_IN, store.root())
            .env(KILLED_AT, step)
            .output()
            .unwrap();
        assert!(!output.status.success(), "it did not die at: {step}");
        assert!(!image.folder.join("sized/300").exists(), "{step}");
        for name in names(store.root()) {
            // All else goes at the next start.
            assert!(name == id || name.starts_with('.'), "{name}");
        }
        assert_eq!(store.list().unwrap(), std::slice::from_ref(&image));
        assert!(fs::read(image.disk()).unwrap() == published);
    }
    let disk = sized::ensure(&store, &setup, &image, 300).await.unwrap();
    ext4::verify(&setup, &disk).await.unwrap();
}

/// A snapshot's files; what is in them does not matter here.
async fn snapshot(store: &ImageStore, platform: Emulator) -> StoredImage {
    let making = store.begin(new_id()).unwrap();
    let size = MachineSize {
        disk_size_mb: 64,
        ..MachineSize::default()
    };
    let disk = File::create(making.disk()).unwrap();
    disk.set_len(size.disk_bytes()).unwrap();
    fs::write(making.memory(), vec![1; 100_000]).unwrap();
    fs::write(making.device_state(), vec![2; 5_000]).unwrap();
    let content = Content::Snapshot { platform };
    making
        .publish(content, size, BTreeMap::new())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_snapshot_is_cloned_from_where_it_was_published() {
    let folder = tempfile::tempdir().unwrap();
    let boot = BootParts::prepare(folder.path(), None, DiskChoice::Auto)
        .await
        .unwrap();
    let images =
        MemoryImages::open(folder.path().join("memory"), folder.path().join("images")).unwrap();
    let stored = snapshot(images.store(), Emulator::of(&boot)).await;
    let (id, size) = (stored.manifest.id, stored.manifest.size);
    assert_eq!(stored.manifest.content.kind(), TemplateKind::Snapshot);
    assert!((100_000..130_000).contains(&stored.manifest.memory_bytes));

    let image = images.ensure(&boot, id, size).await.unwrap();
    assert_eq!(image.key(), id.to_string());
    assert_eq!(fs::read(image.ram_file()).unwrap(), vec![1; 100_000]);
    let (base, bytes) = (image.base(), size.disk_bytes());
    let disk = Disk::create(DiskBackend::Qcow2, folder.path(), base, bytes).unwrap();
    let disk = disk.open().unwrap().path;
    let info = ["info".as_ref(), "--output=json".as_ref(), disk.as_os_str()];
    let info = run(&boot.setup.qemu_img, info).await.unwrap();
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["backing-filename"], stored.disk().to_str().unwrap());
    assert_eq!(info["virtual-size"], size.disk_bytes());

    assert!(
        !images.remove_image(id).await.unwrap(),
        "it is about to be used"
    );
    drop(image);
    let error = images.ensure(&boot, id, size).await.unwrap_err();
    assert_eq!(error, HostError::UnknownImage(id));
    assert!(images.remove_image(id).await.unwrap());
    assert!(images.store().list().unwrap().is_empty());
}

#[tokio::test]
async fn what_an_image_or_snapshot_can_not_become_is_told_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let boot = BootParts::prepare(folder.path(), None, DiskChoice::Auto)
        .await
        .unwrap();
    let images =
        MemoryImages::open(folder.path().join("memory"), folder.path().join("images")).unwrap();
    let ensure = |id, size| images.ensure(&boot, id, size);
    let size = MachineSize::default();
    let nobody = new_id();
    let error = ensure(nobody, size).await.unwrap_err();
    assert_eq!(error, HostError::UnknownImage(nobody));

    let image = image(&boot.setup, images.store(), folder.path()).await;
    let small = MachineSize {
        disk_size_mb: image.manifest.size.disk_size_mb - 1,
        ..size
    };
    let error = ensure(image.manifest.id, small).await.unwrap_err();
    assert!(matches!(error, HostError::DiskTooSmall { .. }), "{error}");

    let stored = snapshot(images.store(), Emulator::of(&boot)).await;
    let error = ensure(stored.manifest.id, size).await.unwrap_err();
    assert!(error.to_string().contains("64 MiB of disk"), "{error}");

    let mut other = serde_json::to_value(Emulator::of(&boot)).unwrap();
    other["qemu_version"] = "0.1".into();
    other["accelerator"] = "another".into();
    let other: Emulator = serde_json::from_value(other).unwrap();
    let stored = snapshot(images.store(), other).await;
    let error = ensure(stored.manifest.id, stored.manifest.size)
        .await
        .unwrap_err()
        .to_string();
    for part in ["QEMU 0.1", "pc-q35-7.2, another", &boot.setup.qemu_version] {
        assert!(error.contains(part), "{part}: {error}");
    }

    // Of another agent and kernel, which are in its memory.
    let mut other = serde_json::to_value(Emulator::of(&boot)).unwrap();
    other["kernel_version"] = "0.1".into();
    other["initramfs"] = "another".into();
    let other: Emulator = serde_json::from_value(other).unwrap();
    let stored = snapshot(images.store(), other).await;
    let kept = ensure(stored.manifest.id, stored.manifest.size).await;
    assert!(kept.is_ok(), "{kept:?}");
    assert!(!images.remove_image(MINIMAL_TEMPLATE_ID).await.unwrap());
}

#[tokio::test]
async fn r22_a_full_host_disk_is_said_to_be_so_and_keeps_nothing_half_made() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let setup = setup().await;
    // What is published fits, and every copy of it does not.
    let mounted = Mounted::new(64, &["mke2fs", "-q", "-t", "ext4", "-m", "0"]);
    let store = ImageStore::open(mounted.place.join("images")).unwrap();
    let image = image(&setup, &store, folder.path()).await;
    let filler = mounted.place.join("filler");
    let free = nix::sys::statvfs::statvfs(&mounted.place).unwrap();
    let bytes = (free.blocks_available() - 256) * free.fragment_size();
    fs::write(&filler, vec![1; usize::try_from(bytes).unwrap()]).unwrap();
    let before = names(store.root());

    let error = sized::ensure(&store, &setup, &image, 300)
        .await
        .unwrap_err();
    assert!(matches!(error, HostError::DiskFull { .. }), "{error}");
    let making = store.begin(new_id()).unwrap();
    let frozen = FrozenDisk::raw(image.disk());
    let error = flatten_disk(&setup, &frozen, &making.disk())
        .await
        .unwrap_err();
    assert!(matches!(error, HostError::DiskFull { .. }), "{error}");
    assert!(names(making.folder()).is_empty());
    drop(making);
    assert_eq!(names(store.root()), before);
    // What is there can be deleted all the same (trap 39).
    assert!(store.remove(image.manifest.id).unwrap());
    assert!(names(store.root()).is_empty());
}
