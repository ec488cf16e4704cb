//! Flattening real disks with the real programs.

use std::{
    ffi::OsStr,
    os::unix::fs::{FileExt, MetadataExt},
    process::Command,
    sync::Mutex,
    time::Instant,
};

use ext4_view::Ext4;
use sandbox_core::size::DEFAULT_DISK_SIZE_MB;
use tempfile::TempDir;

use super::*;
use crate::testkit::leftovers::Leftovers;

async fn setup() -> Setup {
    Setup::locate(None)
        .await
        .expect("`make test` sets the machine up")
}

/// Bytes that no layer of the stack can make smaller, different for each seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn tool<S: AsRef<OsStr>>(program: &Path, args: impl IntoIterator<Item = S>) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{}: {text}{}",
        program.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Changes a raw ext4 as its guest would.
fn debugfs(setup: &Setup, disk: &Path, commands: &str) -> String {
    let script = tempfile::NamedTempFile::new().unwrap();
    fs::write(script.path(), commands).unwrap();
    let args = ["-w".as_ref(), "-f".as_ref(), script.path().as_os_str()];
    let program = setup.mke2fs.with_file_name("debugfs");
    tool(&program, args.into_iter().chain([disk.as_os_str()]))
}

/// What `raw` has and `backing` has not, as a qcow2 on top of it.
fn overlay(setup: &Setup, raw: &Path, backing: &Path, format: &str, to: &Path) {
    let args: [&OsStr; 9] = [
        "convert".as_ref(),
        "-O".as_ref(),
        "qcow2".as_ref(),
        "-B".as_ref(),
        backing.as_ref(),
        "-F".as_ref(),
        format.as_ref(),
        raw.as_ref(),
        to.as_ref(),
    ];
    tool(&setup.qemu_img, args);
}

const MEMBERS: u64 = 88;
const MEMBER_BYTES: usize = 2 * 1024 * 1024;
const LINKED_BYTES: usize = 8 * 1024 * 1024;
const TRASH_BYTES: usize = 128 * 1024 * 1024;

/// A 5 GiB disk of three layers, as a machine's is: 200 MiB of files, and 128 MiB that were there
/// once. Returns the uppermost.
async fn used_disk(setup: &Setup, folder: &Path) -> PathBuf {
    let tree = folder.join("tree");
    fs::create_dir_all(tree.join("data")).unwrap();
    for member in 0..MEMBERS {
        let file = tree.join(format!("data/{member}"));
        fs::write(file, noise(member, MEMBER_BYTES)).unwrap();
    }
    fs::write(tree.join("linked"), noise(1000, LINKED_BYTES)).unwrap();
    fs::hard_link(tree.join("linked"), tree.join("data/link")).unwrap();
    fs::write(tree.join("empty"), b"").unwrap();
    let sparse = File::create(tree.join("sparse")).unwrap();
    sparse.set_len(1024 * MIB).unwrap();
    sparse.write_all_at(&noise(1001, 4096), 700 * MIB).unwrap();
    fs::write(tree.join("trash"), noise(1002, TRASH_BYTES)).unwrap();

    let base = folder.join("base.img");
    ext4::make_from_folder(setup, &base, DEFAULT_DISK_SIZE_MB, &tree)
        .await
        .unwrap();
    let raw = folder.join("raw");
    sparse::copy(&base, &raw).unwrap();
    let late = folder.join("late");
    fs::write(&late, noise(1003, 16 * 1024 * 1024)).unwrap();
    let commands = format!("rm /trash\nwrite {} late\n", late.display());
    debugfs(setup, &raw, &commands);
    let middle = folder.join("middle.qcow2");
    overlay(setup, &raw, &base, "raw", &middle);
    debugfs(setup, &raw, "mkdir /last\nsymlink /last/one /linked\n");
    let top = folder.join("top.qcow2");
    overlay(setup, &raw, &middle, "qcow2", &top);
    fs::remove_file(&raw).unwrap();
    fs::remove_dir_all(&tree).unwrap();
    top
}

#[tokio::test]
async fn r19_r21_a_disk_of_5_gib_with_200_mib_of_files_becomes_an_image_of_about_200_mib() {
    let folder = tempfile::tempdir().unwrap();
    let setup = setup().await;
    let disk = used_disk(&setup, folder.path()).await;
    let leftovers = Leftovers::watch(folder.path());
    let out = folder.path().join("out.img");
    let start = Instant::now();
    let flat = flatten_disk(&setup, &FrozenDisk::qcow2(&disk), &out)
        .await
        .unwrap();
    println!("{flat:?} in {:?}", start.elapsed());
    leftovers.assert_none().await;

    let metadata = fs::metadata(&out).unwrap();
    assert_eq!(flat.size_bytes, metadata.blocks() * 512);
    let physical_mb = flat.size_bytes / MIB;
    assert!((195..=215).contains(&physical_mb), "{physical_mb} MiB");
    // The journal, a hole, comes to it.
    let least_mb = u64::from(flat.disk_size_mb);
    assert!((physical_mb..=240).contains(&least_mb), "{least_mb} MiB");
    assert!(metadata.len() <= least_mb * MIB);
    ext4::verify(&setup, &out).await.unwrap();

    let view = Ext4::load_from_path(&out).unwrap();
    // A sample: reading is slow without optimization.
    for member in (0..MEMBERS).step_by(8) {
        let content = view.read(&*format!("/data/{member}")).unwrap();
        assert!(content == noise(member, MEMBER_BYTES), "member {member}");
    }
    for link in ["/linked", "/data/link", "/last/one"] {
        assert!(
            view.read(link).unwrap() == noise(1000, LINKED_BYTES),
            "{link}"
        );
    }
    assert!(view.read("/late").unwrap() == noise(1003, 16 * 1024 * 1024));
    assert_eq!(view.metadata("/empty").unwrap().len(), 0);
    assert_eq!(view.read("/empty").unwrap(), b"");
    assert!(!view.exists("/trash").unwrap());
    assert_eq!(view.metadata("/sparse").unwrap().len(), 1024 * MIB);
    let mut sparse = view.open("/sparse").unwrap();
    sparse.seek_to(700 * MIB).unwrap();
    let mut bytes = vec![0; 8192];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += sparse.read_bytes(&mut bytes[filled..]).unwrap();
    }
    assert!(bytes[..4096] == noise(1001, 4096) && bytes[4096..].iter().all(|byte| *byte == 0));
    let inode = |path: &str| debugfs(&setup, &out, &format!("stat {path}\n"));
    assert!(inode("/linked").contains("Links: 2"));
    let links = ["/linked", "/data/link"].map(|path| {
        let text = inode(path);
        text.lines()
            .find(|line| line.contains("Inode:"))
            .unwrap()
            .to_owned()
    });
    assert_eq!(links[0], links[1]);
}

#[tokio::test]
async fn r12_the_copy_for_a_memory_snapshot_is_exact_and_sparse() {
    let folder = tempfile::tempdir().unwrap();
    let setup = setup().await;
    let base = small_disk(&setup, folder.path()).await;
    let raw = folder.path().join("raw");
    sparse::copy(&base, &raw).unwrap();
    let file = File::options().write(true).open(&raw).unwrap();
    // What a guest left behind the file system belongs to the disk as well.
    file.write_all_at(b"the end", 64 * MIB - 7).unwrap();
    let disk = folder.path().join("disk.qcow2");
    overlay(&setup, &raw, &base, "raw", &disk);
    for frozen in [FrozenDisk::qcow2(&disk), FrozenDisk::raw(&raw)] {
        let out = folder.path().join("out");
        copy_exact(&setup, &frozen, &out).await.unwrap();
        assert!(fs::read(&out).unwrap() == fs::read(&raw).unwrap());
        let more = sparse::physical_bytes(&out).unwrap() as i64
            - sparse::physical_bytes(&raw).unwrap() as i64;
        assert!(more < 256 * 1024, "{more} bytes more than the disk itself");
        fs::remove_file(&out).unwrap();
    }
}

/// A raw ext4 of 64 MiB with a few files, and a journal.
async fn small_disk(setup: &Setup, folder: &Path) -> PathBuf {
    let tree = folder.join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), noise(1, 100_000)).unwrap();
    let disk = folder.join("small.img");
    ext4::make_from_folder(setup, &disk, 64, &tree)
        .await
        .unwrap();
    fs::remove_dir_all(&tree).unwrap();
    disk
}

fn names(folder: &Path) -> Vec<std::ffi::OsString> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name()).collect()
}

/// A small disk, its flattening as planned, and the folder where that works.
async fn small_plan(setup: &Setup) -> (TempDir, PathBuf, Vec<Step>) {
    let folder = tempfile::tempdir().unwrap();
    let disk = small_disk(setup, folder.path()).await;
    let making = folder.path().join(".making-test");
    fs::create_dir(&making).unwrap();
    let steps = plan(&FrozenDisk::raw(disk).to(&making.join("disk.img")));
    (folder, making, steps)
}

#[tokio::test]
async fn r21_whichever_step_fails_nothing_is_left() {
    let setup = setup().await;
    let (folder, making, steps) = small_plan(&setup).await;
    let before = fs::read(folder.path().join("small.img")).unwrap();
    let leftovers = Leftovers::watch(folder.path());
    for failing in 0..2 * steps.len() {
        let disturb = move |point| {
            if point == failing {
                Err(io::Error::other("disturbed"))
            } else {
                Ok(())
            }
        };
        let error = execute(&setup, steps.clone(), disturb).await.unwrap_err();
        let expected = format!("{}: disturbed", steps[failing / 2].name());
        assert_eq!(error, HostError::Internal(expected));
        assert!(names(&making).is_empty(), "failed at {failing}");
    }
    leftovers.assert_none().await;
    assert!(fs::read(folder.path().join("small.img")).unwrap() == before);
    execute(&setup, steps, undisturbed).await.unwrap();
    assert_eq!(names(&making), ["disk.img"]);
}

#[tokio::test]
async fn r21_whenever_nobody_waits_any_more_nothing_is_left() {
    static CALLER: Mutex<Option<tokio::task::AbortHandle>> = Mutex::new(None);
    let setup = setup().await;
    let (folder, making, steps) = small_plan(&setup).await;
    let leftovers = Leftovers::watch(folder.path());
    for leaving in 0..2 * steps.len() {
        // Dropped with the last that the work drops.
        let (ended, end) = tokio::sync::oneshot::channel::<()>();
        let disturb = move |point| {
            let _until_the_end = &ended;
            if point == leaving {
                CALLER.lock().unwrap().take().unwrap().abort();
            }
            Ok(())
        };
        let (begin, begun) = tokio::sync::oneshot::channel::<()>();
        let (setup, steps) = (setup.clone(), steps.clone());
        let caller = tokio::spawn(async move {
            begun.await.unwrap();
            execute(&setup, steps, disturb).await
        });
        *CALLER.lock().unwrap() = Some(caller.abort_handle());
        begin.send(()).unwrap();
        assert!(caller.await.unwrap_err().is_cancelled());
        // The work goes on to the end of the step that it is at, and is undone.
        assert!(end.await.is_err());
        assert!(names(&making).is_empty(), "left at {leaving}");
    }
    leftovers.assert_none().await;
}

const CRASH_AT: &str = "SANDBOX_TEST_CRASH_AT";
const CRASH_FOLDER: &str = "SANDBOX_TEST_CRASH_FOLDER";

/// Not a test: the process that the next test has die.
#[tokio::test]
#[ignore = "run by the test below, with a place to die at"]
async fn a_process_that_dies_in_the_middle() {
    let (Ok(point), Some(folder)) = (std::env::var(CRASH_AT), std::env::var_os(CRASH_FOLDER))
    else {
        return;
    };
    let dying: usize = point.parse().unwrap();
    let folder = PathBuf::from(folder);
    let frozen = FrozenDisk::raw(folder.join("small.img"));
    let steps = plan(&frozen.to(&folder.join(".making-test/disk.img")));
    let disturb = move |point| {
        if point == dying {
            std::process::abort();
        }
        Ok(())
    };
    let _ = execute(&setup().await, steps, disturb).await;
}

#[tokio::test]
async fn r21_wherever_the_process_dies_all_it_leaves_is_what_the_next_start_removes() {
    let setup = setup().await;
    let (folder, making, steps) = small_plan(&setup).await;
    let leftovers = Leftovers::watch(folder.path());
    for dying in 0..2 * steps.len() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored"])
            .arg("image::flatten::tests::a_process_that_dies_in_the_middle")
            .env(CRASH_AT, dying.to_string())
            .env(CRASH_FOLDER, folder.path())
            .output()
            .unwrap();
        assert!(!output.status.success(), "it died at {dying}");
        let left = names(&making);
        assert!(left.len() <= 1, "{left:?}");
        // What `HostManager::open` does with folders of this name.
        durable::remove_folder(&making).unwrap();
        fs::create_dir(&making).unwrap();
        leftovers.assert_none().await;
    }
}

#[tokio::test]
async fn a_disk_without_a_file_system_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let setup = setup().await;
    let disk = folder.path().join("disk");
    let out = folder.path().join("out");
    for content in [noise(5, 1_000_000), vec![0; 1_000_000], Vec::new()] {
        fs::write(&disk, content).unwrap();
        let error = flatten_disk(&setup, &FrozenDisk::raw(&disk), &out)
            .await
            .unwrap_err();
        assert!(matches!(error, HostError::BadSource(_)), "{error}");
        assert_eq!(names(folder.path()), ["disk"]);
    }
}

#[tokio::test]
async fn a_raw_disk_that_looks_like_a_qcow2_is_not_read_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let setup = setup().await;
    let secret = folder.path().join("secret");
    fs::write(&secret, noise(9, 1_000_000)).unwrap();
    // What a guest may write to the start of its own raw disk.
    let forged = folder.path().join("disk");
    let args: [&OsStr; 8] = [
        "create".as_ref(),
        "-f".as_ref(),
        "qcow2".as_ref(),
        "-F".as_ref(),
        "raw".as_ref(),
        "-b".as_ref(),
        secret.as_ref(),
        forged.as_ref(),
    ];
    tool(&setup.qemu_img, args);
    let out = folder.path().join("out");
    copy_exact(&setup, &FrozenDisk::raw(&forged), &out)
        .await
        .unwrap();
    assert!(fs::read(&out).unwrap() == fs::read(&forged).unwrap());
}

#[tokio::test]
async fn trap_20_a_file_that_is_there_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let setup = setup().await;
    let disk = small_disk(&setup, folder.path()).await;
    let out = folder.path().join("out");
    fs::write(&out, b"mapped by a machine").unwrap();
    let error = flatten_disk(&setup, &FrozenDisk::raw(disk), &out).await;
    assert!(error.is_err());
    assert_eq!(fs::read(&out).unwrap(), b"mapped by a machine");
    let mut left = names(folder.path());
    left.sort();
    assert_eq!(left, ["out", "small.img"]);
}

#[tokio::test]
async fn a_disk_that_was_cut_off_in_the_middle_of_its_work_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    let setup = setup().await;
    let disk = small_disk(&setup, folder.path()).await;
    // Wrong counts and a file that no folder names.
    let commands = "set_super_value free_blocks_count 1\nset_super_value state 0\nunlink /file\n";
    debugfs(&setup, &disk, commands);
    assert!(ext4::verify(&setup, &disk).await.is_err());
    let out = folder.path().join("out");
    flatten_disk(&setup, &FrozenDisk::raw(disk), &out)
        .await
        .unwrap();
    ext4::verify(&setup, &out).await.unwrap();
}
