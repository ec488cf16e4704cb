//! Files and disks of real VMs, through the SDK.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod vm_support;

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
};

use bytes::Bytes;
use sandbox_sdk::{Error, GuestError};
use vm_support::{Platform, text, with_platform};

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn r6_files_are_written_read_listed_moved_and_removed() {
    with_platform(async |platform| {
        let sandbox = platform.create().await;
        let files = sandbox.files();
        files.write("/data/deep/a.txt", "alpha").await.unwrap();
        files.write("/data/deep/empty", "").await.unwrap();
        assert_eq!(files.read("/data/deep/empty").await.unwrap(), Bytes::new());
        assert_eq!(files.stat("/data/deep/empty").await.unwrap().size, 0);
        files
            .rename("/data/deep/a.txt", "/data/deep/b.txt")
            .await
            .unwrap();
        files.make_dir("/data/deep/sub/subsub").await.unwrap();
        let names = |listed: Vec<sandbox_sdk::FileStat>| -> Vec<String> {
            listed.into_iter().map(|entry| entry.name).collect()
        };
        assert_eq!(
            names(files.list("/data/deep").await.unwrap()),
            ["b.txt", "empty", "sub"]
        );
        assert_eq!(
            files.read_to_string("/data/deep/b.txt").await.unwrap(),
            "alpha"
        );
        assert!(!files.exists("/data/deep/a.txt").await.unwrap());
        let refused = files.remove("/data/deep").await.unwrap_err();
        assert!(
            matches!(refused, Error::Guest(GuestError::WrongKind { .. })),
            "{refused:?}"
        );
        files.remove_all("/data").await.unwrap();
        let gone = files.read("/data/deep/b.txt").await.unwrap_err();
        assert!(
            matches!(gone, Error::Guest(GuestError::NotFound { .. })),
            "{gone:?}"
        );
        let relative = files.write("relative", "x").await.unwrap_err();
        assert!(relative.to_string().contains("relative"), "{relative}");
        sandbox.destroy().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn r6_64_mib_go_in_and_come_out_byte_for_byte() {
    with_platform(async |platform| {
        let sandbox = platform.create().await;
        let mut state = 1_u64;
        let content: Bytes = (0..8 * MIB)
            .flat_map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                state.to_be_bytes()
            })
            .collect();
        let stat = sandbox
            .files()
            .write("/big", content.clone())
            .await
            .unwrap();
        assert_eq!(stat.size, 64 * MIB as u64);
        let back = sandbox.files().read("/big").await.unwrap();
        assert!(back == content, "the content differs");
        sandbox.destroy().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn r6_r19_a_sparse_file_of_1_gib_stays_sparse_both_ways() {
    const GIB: u64 = 1 << 30;
    with_platform(async |platform| {
        let sandbox = platform.create().await;
        let local = platform.folder.join("sparse");
        let mut file = File::create(&local).unwrap();
        file.set_len(GIB).unwrap();
        for (at, words) in [(0, "begin"), (GIB / 2 + 777, "middle")] {
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(words.as_bytes()).unwrap();
        }
        fs::set_permissions(&local, fs::Permissions::from_mode(0o750)).unwrap();
        let stat = sandbox.files().upload(&local, "/sparse").await.unwrap();
        assert_eq!((stat.size, stat.mode), (GIB, 0o750));
        assert!(
            stat.physical_bytes < 4 << 20,
            "{} bytes in the guest",
            stat.physical_bytes
        );

        let copy = platform.folder.join("copy");
        sandbox.files().download("/sparse", &copy).await.unwrap();
        let metadata = fs::metadata(&copy).unwrap();
        assert_eq!(metadata.len(), GIB);
        assert!(
            metadata.blocks() * 512 < 4 << 20,
            "{} blocks here",
            metadata.blocks()
        );
        let mut words = [0; 6];
        let mut copied = File::open(&copy).unwrap();
        copied.seek(SeekFrom::Start(GIB / 2 + 777)).unwrap();
        copied.read_exact(&mut words).unwrap();
        assert_eq!(&words, b"middle");
        sandbox.destroy().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn r17_r18_r19_df_shows_5120_mib_while_the_host_spends_what_is_used() {
    with_platform(async |platform| {
        let sandbox = platform.create().await;
        let bytes = text(sandbox.exec("blockdev --getsize64 /dev/vda").await.unwrap());
        assert_eq!(bytes.trim(), (5120_u64 << 20).to_string());
        let df = text(
            sandbox
                .exec("df -m / | tail -n 1 | awk '{print $2, $4}'")
                .await
                .unwrap(),
        );
        let numbers: Vec<u32> = df.split_whitespace().map(|n| n.parse().unwrap()).collect();
        // ext4's own tables take some of the device.
        assert!(numbers[0] > 4900 && numbers[1] > 4800, "{df}");
        assert!(
            spent(platform) < 32 << 20,
            "{} bytes of a fresh sandbox",
            spent(platform)
        );

        let write = "dd if=/dev/urandom of=/some bs=1M count=16 2>/dev/null; sync";
        text(sandbox.exec(write).await.unwrap());
        let after = spent(platform);
        assert!(
            (16 << 20..64 << 20).contains(&after),
            "{after} bytes after writing 16 MiB"
        );
        sandbox.destroy().await.unwrap();
        assert_eq!(spent(platform), 0);
    })
    .await;
}

/// What the machines of a platform take on the host's disk, in bytes.
fn spent(platform: &Platform) -> u64 {
    let machines = platform.folder.join("host/machines");
    let folders = fs::read_dir(machines)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    folders
        .flat_map(|folder| fs::read_dir(folder).unwrap())
        .map(|file| file.unwrap().metadata().unwrap().blocks() * 512)
        .sum()
}

#[tokio::test]
async fn r17_the_guest_sees_the_cpus_memory_and_disk_that_were_asked_for() {
    with_platform(async |platform| {
        let create = platform
            .client
            .create()
            .vcpus(2)
            .memory_mb(384)
            .disk_size_mb(200);
        let sandbox = create.await.unwrap();
        let look = "nproc; awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo; \
                blockdev --getsize64 /dev/vda; df -m / | tail -n 1 | awk '{print $2}'";
        let seen = text(sandbox.exec(look).await.unwrap());
        let numbers: Vec<u64> = seen
            .split_whitespace()
            .map(|n| n.parse().unwrap())
            .collect();
        assert_eq!(numbers[0], 2);
        assert!((300..=384).contains(&numbers[1]), "{seen}");
        assert_eq!(numbers[2], 200 << 20);
        assert!((170..=200).contains(&numbers[3]), "{seen}");
        sandbox.destroy().await.unwrap();
    })
    .await;
}
