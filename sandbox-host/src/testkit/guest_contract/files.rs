//! Files (R6).

use super::*;
use sandbox_core::file::FileKind;

/// All byte values, more than one chunk.
pub async fn r6_a_written_file_reads_back_byte_for_byte(guest: &dyn Guest, folder: &str) {
    let path = format!("{folder}/file");
    let data = noise(CHUNK_MAX_BYTES as usize * 2 + 12_345);
    let stat = write_file(guest, &path, &data).await.unwrap();
    assert_eq!((stat.name.as_str(), stat.size), ("file", data.len() as u64));
    assert_eq!((stat.kind, stat.mode), (FileKind::File, 0o644));
    let (content, holes) = read_file(guest, &path).await.unwrap();
    assert!(content == data && holes == 0);
}

/// Nothing is something.
pub async fn r6_an_empty_file_survives(guest: &dyn Guest, folder: &str) {
    let path = format!("{folder}/empty");
    write_file(guest, &path, b"").await.unwrap();
    assert_eq!(guest.stat(&path).await.unwrap().size, 0);
    assert_eq!(read_file(guest, &path).await.unwrap(), (vec![], 0));
}

/// Holes left out, zeros written: neither takes space, and both come back as holes.
pub async fn r6_a_sparse_file_stays_sparse_both_ways(guest: &dyn Guest, folder: &str) {
    const MIB: u64 = 1 << 20;
    let path = format!("{folder}/sparse");
    let handle = guest.open_write(spec(&path)).await.unwrap();
    let head = Bytes::from_static(b"head");
    guest.write_chunk(handle, 0, head).await.unwrap();
    let zeros = Bytes::from(vec![0; 256 * 1024]);
    guest.write_chunk(handle, MIB, zeros).await.unwrap();
    let tail = Bytes::from_static(b"tail");
    guest.write_chunk(handle, 5 * MIB, tail).await.unwrap();
    let stat = guest.commit_write(handle, 9 * MIB).await.unwrap();
    assert_eq!(stat.size, 9 * MIB);
    assert!(stat.physical_bytes <= 64 * 1024, "{}", stat.physical_bytes);
    let (content, holes) = read_file(guest, &path).await.unwrap();
    assert!(holes > 8 * MIB, "{holes}");
    let mut expected = vec![0; 9 << 20];
    expected[..4].copy_from_slice(b"head");
    expected[5 << 20..(5 << 20) + 4].copy_from_slice(b"tail");
    assert!(content == expected);
}

/// A reader sees the old file or the new one, and nothing between.
pub async fn r6_nothing_shows_before_the_commit_and_all_of_it_after(
    guest: &dyn Guest,
    folder: &str,
) {
    let path = format!("{folder}/file");
    write_file(guest, &path, b"old content").await.unwrap();
    let handle = guest.open_write(spec(&path)).await.unwrap();
    let half = Bytes::from_static(b"new");
    guest.write_chunk(handle, 0, half).await.unwrap();
    assert_eq!(read_file(guest, &path).await.unwrap().0, b"old content");
    guest.commit_write(handle, 3).await.unwrap();
    assert_eq!(read_file(guest, &path).await.unwrap().0, b"new");
    let page = guest.list_dir(folder, None, 10).await.unwrap();
    assert_eq!(page.entries.len(), 1, "no temporary file is left");
    assert_eq!(
        refused(guest.write_chunk(handle, 0, Bytes::new()).await),
        GuestError::NoSuchWrite
    );
}

/// As if it had never been.
pub async fn r6_an_aborted_write_leaves_nothing(guest: &dyn Guest, folder: &str) {
    let handle = guest
        .open_write(spec(&format!("{folder}/x")))
        .await
        .unwrap();
    let data = Bytes::from_static(b"data");
    guest.write_chunk(handle, 0, data).await.unwrap();
    guest.abort_write(handle).await.unwrap();
    let page = guest.list_dir(folder, None, 10).await.unwrap();
    assert_eq!(page.entries, []);
    let again = guest.abort_write(handle).await;
    assert_eq!(refused(again), GuestError::NoSuchWrite);
    let commit = guest.commit_write(handle, 4).await;
    assert_eq!(refused(commit), GuestError::NoSuchWrite);
}

/// The link stays a link, as with an editor.
pub async fn r6_a_write_through_a_link_replaces_what_it_points_to(guest: &dyn Guest, folder: &str) {
    write_file(guest, &format!("{folder}/real"), b"1")
        .await
        .unwrap();
    let line =
        format!("cd {folder} && ln -s real link && ln -s nowhere dangling && ln -s loop loop");
    assert!(exec(guest, ProcessSpec::shell(line)).await.status.success());
    write_file(guest, &format!("{folder}/link"), b"2")
        .await
        .unwrap();
    assert_eq!(
        read_file(guest, &format!("{folder}/real")).await.unwrap().0,
        b"2"
    );
    let target = "real".to_owned();
    let link = guest.stat(&format!("{folder}/link")).await.unwrap();
    assert_eq!(link.kind, FileKind::Symlink { target });
    write_file(guest, &format!("{folder}/dangling"), b"3")
        .await
        .unwrap();
    assert_eq!(
        read_file(guest, &format!("{folder}/nowhere"))
            .await
            .unwrap()
            .0,
        b"3"
    );
    let endless = write_file(guest, &format!("{folder}/loop"), b"4").await;
    assert!(matches!(refused(endless), GuestError::Io { .. }));
}

/// Mode and owner of what was there, or what the request says.
pub async fn r6_a_replaced_file_keeps_its_mode_unless_told(guest: &dyn Guest, folder: &str) {
    let path = format!("{folder}/file");
    let write = async |mode| {
        let spec = WriteSpec {
            mode,
            ..spec(&path)
        };
        let handle = guest.open_write(spec).await.unwrap();
        guest.commit_write(handle, 0).await.unwrap().mode
    };
    assert_eq!(write(Some(0o4751)).await, 0o4751);
    assert_eq!(write(None).await, 0o4751);
    assert_eq!(write(Some(0o600)).await, 0o600);
}

/// In order, each entry once, however the pages are cut.
pub async fn r6_a_directory_is_listed_in_pages(guest: &dyn Guest, folder: &str) {
    let line =
        format!("cd {folder} && for i in $(seq 1 57); do : > f$i; done && mkdir d && ln -s d l");
    assert!(exec(guest, ProcessSpec::shell(line)).await.status.success());
    let mut names: Vec<String> = Vec::new();
    loop {
        let after = names.last().cloned();
        let page = guest.list_dir(folder, after.as_deref(), 10).await.unwrap();
        assert!(page.entries.len() <= 10);
        names.extend(page.entries.into_iter().map(|entry| entry.name));
        if !page.more {
            break;
        }
    }
    let mut expected: Vec<String> = (1..=57).map(|number| format!("f{number}")).collect();
    expected.extend(["d".to_owned(), "l".to_owned()]);
    expected.sort();
    assert_eq!(names, expected);
    let file = format!("{folder}/f1");
    assert!(matches!(
        refused(guest.list_dir(&file, None, 10).await),
        GuestError::WrongKind { .. }
    ));
}

/// The rest of what one does with files, and how it fails.
pub async fn r6_make_rename_and_remove(guest: &dyn Guest, folder: &str) {
    let at = |name: &str| format!("{folder}/{name}");
    let missing = guest.make_dir(&at("a/b/c"), 0o700, false).await;
    assert!(matches!(refused(missing), GuestError::NotFound { .. }));
    guest.make_dir(&at("a/b/c"), 0o711, true).await.unwrap();
    assert_eq!(guest.stat(&at("a/b/c")).await.unwrap().mode, 0o711);
    guest.make_dir(&at("a/b/c"), 0o711, true).await.unwrap();
    let twice = guest.make_dir(&at("a/b/c"), 0o711, false).await;
    assert!(matches!(refused(twice), GuestError::AlreadyExists { .. }));

    write_file(guest, &at("a/file"), b"1").await.unwrap();
    write_file(guest, &at("other"), b"2").await.unwrap();
    guest.rename(&at("other"), &at("a/file")).await.unwrap();
    assert_eq!(read_file(guest, &at("a/file")).await.unwrap().0, b"2");
    let gone = guest.rename(&at("other"), &at("x")).await;
    assert_eq!(refused(gone), GuestError::NotFound { path: at("other") });

    let full = guest.remove(&at("a"), false).await;
    assert!(matches!(refused(full), GuestError::WrongKind { .. }));
    guest.remove(&at("a"), true).await.unwrap();
    let again = guest.remove(&at("a"), true).await;
    assert!(matches!(refused(again), GuestError::NotFound { .. }));

    let spec = WriteSpec {
        create_parents: true,
        ..spec(&at("p/q/file"))
    };
    let handle = guest.open_write(spec).await.unwrap();
    guest.commit_write(handle, 0).await.unwrap();
    assert_eq!(guest.stat(&at("p/q/file")).await.unwrap().size, 0);
    let directory = write_file(guest, &at("p"), b"").await;
    assert!(matches!(refused(directory), GuestError::WrongKind { .. }));
    let no_parent = write_file(guest, &at("nowhere/file"), b"").await;
    assert!(matches!(refused(no_parent), GuestError::NotFound { .. }));
}

/// Nothing that is no path gets as far as the kernel.
pub async fn r6_bad_paths_are_refused(guest: &dyn Guest, folder: &str) {
    let long = format!("/{}", "x/".repeat(4000));
    for path in ["", "relative", "../x", "/a\0b", long.as_str()] {
        for result in [
            guest.stat(path).await.map(drop),
            guest.list_dir(path, None, 1).await.map(drop),
            guest.read_file(path, 0, 1).await.map(drop),
            guest.open_write(spec(path)).await.map(drop),
            guest.make_dir(path, 0o755, true).await,
            guest.rename(path, "/tmp/x").await,
            guest.rename("/tmp", path).await,
            guest.remove(path, true).await,
        ] {
            assert!(
                matches!(refused(result), GuestError::BadPath { .. }),
                "{path:.20}"
            );
        }
    }
    let name = format!("/tmp/{}", "n".repeat(256));
    assert!(matches!(
        refused(write_file(guest, &name, b"").await),
        GuestError::BadPath { .. }
    ));
    let longest = format!("{folder}/{}", "n".repeat(255));
    write_file(guest, &longest, b"x").await.unwrap();
}

/// They say that they are empty, and are not.
pub async fn r6_files_of_proc_are_read(guest: &dyn Guest, _: &str) {
    let (content, _) = read_file(guest, "/proc/cpuinfo").await.unwrap();
    let content = String::from_utf8(content).unwrap();
    assert!(content.contains("processor"), "{content}");
    assert!(
        !read_file(guest, "/proc/version")
            .await
            .unwrap()
            .0
            .is_empty()
    );
}

/// Reading one could wait, or never end.
pub async fn r6_special_files_are_not_read(guest: &dyn Guest, folder: &str) {
    let line = format!("mkfifo {folder}/pipe");
    assert!(exec(guest, ProcessSpec::shell(line)).await.status.success());
    for path in [
        format!("{folder}/pipe"),
        "/dev/zero".into(),
        folder.to_owned(),
    ] {
        assert!(matches!(
            refused(guest.read_file(&path, 0, 1).await),
            GuestError::WrongKind { .. }
        ));
        assert!(matches!(
            refused(write_file(guest, &path, b"x").await),
            GuestError::WrongKind { .. }
        ));
    }
}

/// Pieces may overlap, come twice and in any order.
pub async fn r6_a_large_file_in_pieces_of_any_order(guest: &dyn Guest, folder: &str) {
    let path = format!("{folder}/large");
    let data = noise(3_000_000);
    let handle = guest.open_write(spec(&path)).await.unwrap();
    let pieces: Vec<usize> = (0..data.len()).step_by(300_007).collect();
    for start in pieces.iter().rev().chain(&pieces[2..4]) {
        let end = (start + 400_000).min(data.len());
        let piece = Bytes::copy_from_slice(&data[*start..end]);
        guest
            .write_chunk(handle, *start as u64, piece)
            .await
            .unwrap();
    }
    guest.commit_write(handle, 2_900_000).await.unwrap();
    let (content, _) = read_file(guest, &path).await.unwrap();
    assert!(content == data[..2_900_000]);
}
