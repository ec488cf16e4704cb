//! Archives as they are found, and as nobody should make them.

use std::io::Write;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::import::entry::Content;

struct Read {
    entries: Vec<Entry>,
    stage: Stage,
    _folder: tempfile::TempDir,
}

impl Read {
    fn entry(&self, path: &str) -> &Entry {
        let path = GuestPath::parse(path.as_bytes()).unwrap();
        self.entries
            .iter()
            .find(|entry| entry.path == path)
            .unwrap()
    }

    fn content(&self, path: &str) -> (Content, Vec<u8>) {
        let Node::File(content) = self.entry(path).node else {
            panic!("{path} is no file");
        };
        (content, std::fs::read(self.stage.path(content)).unwrap())
    }
}

fn read(archive: &[u8], end_mark: EndMark) -> Result<Read, ImportError> {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = Stage::create(folder.path(), CancellationToken::new()).unwrap();
    let plain = crate::import::archive::decompress(archive)?;
    let entries = read_entries(plain, end_mark, &mut stage)?;
    Ok(Read {
        entries,
        stage,
        _folder: folder,
    })
}

/// Runs the machine's own tar over a script's files.
fn gnu_tar(script: &str, args: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let done = std::process::Command::new("sh")
        .args(["-ec", script])
        .current_dir(folder.path())
        .status()
        .unwrap();
    assert!(done.success());
    let out = std::process::Command::new("tar")
        .args(args)
        .args([
            "-c",
            "-f",
            "-",
            "--numeric-owner",
            "--owner=1234",
            "--group=70000",
            ".",
        ])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    out.stdout
}

const TREE: &str = "
    mkdir -p etc usr/lib
    printf root > etc/passwd; chmod 4751 etc/passwd; ln etc/passwd etc/second
    ln -s ../usr/lib lib; mkfifo pipe; chmod 1777 usr/lib
    long=$(printf 'n%.0s' $(seq 200)); mkdir $long; printf deep > $long/$long
    ln -s $long/$long longlink
    printf begin > hole; truncate -s 3M hole; printf end >> hole; truncate -s 5M hole
    touch -d @1000000000 etc/passwd
";

#[test]
fn what_gnu_tar_writes_comes_out_right_in_each_of_its_forms() {
    let sparse_forms = ["--format=gnu", "--format=pax"].map(|format| vec![format, "-S"]);
    let versions = ["0.0", "0.1", "1.0"].map(|version| format!("--sparse-version={version}"));
    let pax_versions = versions
        .iter()
        .map(|version| vec!["--format=pax", "-S", version.as_str()]);
    let plain = [vec!["--format=gnu"], vec!["--format=pax"]];
    for args in sparse_forms.into_iter().chain(pax_versions).chain(plain) {
        let found = read(&gnu_tar(TREE, &args), EndMark::Required).unwrap();
        let passwd = found.entry("etc/passwd");
        let second = found.entry("etc/second");
        // Which of the two comes first is the folder's order.
        let (first, link) = if matches!(passwd.node, Node::File(_)) {
            ("etc/passwd", second)
        } else {
            ("etc/second", passwd)
        };
        assert_eq!(found.content(first).1, b"root", "{args:?}");
        assert_eq!(
            link.node,
            Node::HardLink(GuestPath::parse(first.as_bytes()).unwrap())
        );
        let meta = &found.entry(first).meta;
        assert_eq!(
            (meta.mode, meta.uid, meta.gid),
            (0o4751, 1234, 70000),
            "{args:?}"
        );
        assert_eq!(meta.mtime_secs, 1_000_000_000);
        assert_eq!(found.entry("usr/lib").meta.mode, 0o1777);
        assert_eq!(found.entry("usr/lib").node, Node::Directory);
        assert_eq!(
            found.entry("lib").node,
            Node::Symlink(b"../usr/lib".to_vec())
        );
        assert_eq!(found.entry("pipe").node, Node::Fifo);
        let long = "n".repeat(200);
        let deep = format!("{long}/{long}");
        assert_eq!(found.content(&deep).1, b"deep", "{args:?}");
        assert_eq!(
            found.entry("longlink").node,
            Node::Symlink(deep.into_bytes())
        );

        let (content, bytes) = found.content("hole");
        assert_eq!(bytes.len(), 5 << 20, "{args:?}");
        assert_eq!(&bytes[..5], b"begin");
        assert_eq!(&bytes[3 << 20..(3 << 20) + 3], b"end");
        assert_eq!(bytes.iter().filter(|&&byte| byte != 0).count(), 8);
        assert!(content.data_bytes <= 16 * 1024, "{args:?}: {content:?}");
    }
}

fn header(path: &[u8], kind: u8, size: u64) -> ::tar::Header {
    let mut header = ::tar::Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path);
    header.set_entry_type(::tar::EntryType::new(kind));
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    header
}

fn member(path: &str, kind: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = header(path.as_bytes(), kind, data.len() as u64)
        .as_bytes()
        .to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

fn end() -> Vec<u8> {
    vec![0; 1024]
}

fn error_of(archive: &[u8]) -> String {
    match read(archive, EndMark::Required) {
        Ok(found) => panic!("it was read: {:?}", found.entries),
        Err(error @ ImportError::BadSource(_)) => error.to_string(),
        Err(error) => panic!("the host's fault: {error}"),
    }
}

#[test]
fn trap_33_names_and_hard_links_that_lead_out_are_refused() {
    let escape = [member("../../etc/passwd", b'0', b"x"), end()].concat();
    assert!(error_of(&escape).contains("leads out of the root"));
    let by_pax = [
        member("pax", b'x', &record("path", b"a/../../b")),
        member("innocent", b'0', b"x"),
        end(),
    ];
    assert!(error_of(&by_pax.concat()).contains("leads out of the root"));
    let mut link = header(b"link", b'1', 0);
    link.set_link_name_literal("../../../etc/shadow").unwrap();
    link.set_cksum();
    let linked = [link.as_bytes().to_vec(), end()].concat();
    assert!(error_of(&linked).contains("leads out of the root"));
    let absolute = [member("/etc/passwd", b'0', b"guest"), end()].concat();
    let found = read(&absolute, EndMark::Required).unwrap();
    assert_eq!(found.content("etc/passwd").1, b"guest");
}

#[test]
fn an_archive_that_is_cut_off_anywhere_is_told() {
    let whole = [
        member("a", b'0', &[7; 700]),
        member("pax", b'x', &record("user.k", b"v")),
        member("b", b'0', b"b"),
        end(),
    ]
    .concat();
    read(&whole, EndMark::Required).unwrap();
    let body = whole.len() - 1024;
    for length in (0..=body).step_by(256) {
        let error = error_of(&whole[..length]);
        let told = error.contains("cut off") || (length < 512 && error.contains("no tar"));
        assert!(told, "{length}: {error}");
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&whole).unwrap();
    let gzip = gzip.finish().unwrap();
    read(&gzip, EndMark::Required).unwrap();
    assert!(error_of(&gzip[..gzip.len() / 2]).contains("cut off"));
    let zstd = zstd::stream::encode_all(whole.as_slice(), 1).unwrap();
    read(&zstd, EndMark::Required).unwrap();
    assert!(error_of(&zstd[..zstd.len() / 2]).contains("cut off"));
    // A layer has a digest instead.
    assert_eq!(
        read(&whole[..body], EndMark::Optional)
            .unwrap()
            .entries
            .len(),
        2
    );
}

#[test]
fn what_is_no_archive_is_told_with_what_it_is() {
    assert!(error_of(&[b'x'; 2048]).contains("no tar archive"));
    assert!(error_of(b"").contains("no tar archive"));
    assert!(error_of(b"\xFD7zXZ\0 and so on").contains("xz"));
    let mut damaged = [member("a", b'0', b"a"), member("b", b'0', b"b"), end()].concat();
    damaged[1024 + 20] ^= 1;
    assert!(error_of(&damaged).contains("checksum"));
}

#[test]
fn a_header_that_claims_endless_memory_is_refused() {
    let huge = header(b"long", b'L', 1 << 40).as_bytes().to_vec();
    assert!(error_of(&huge).contains("extended header"));
    let sparse = [
        member(
            "pax",
            b'x',
            &[
                record("GNU.sparse.major", b"1"),
                record("GNU.sparse.realsize", b"10"),
            ]
            .concat(),
        ),
        member("s", b'0', b"999999999999\n"),
        end(),
    ];
    assert!(error_of(&sparse.concat()).contains("damaged"));
}

#[test]
fn sparse_maps_that_overlap_or_leave_the_file_are_refused() {
    for map in ["0,10,5,10", "0,99", "18446744073709551615,2", "1", "a,b"] {
        let records = [
            record("GNU.sparse.size", b"20"),
            record("GNU.sparse.map", map.as_bytes()),
        ];
        let archive = [
            member("pax", b'x', &records.concat()),
            member("s", b'0', &[1; 99]),
            end(),
        ];
        assert!(error_of(&archive.concat()).contains("sparse"), "{map}");
    }
}

#[test]
fn extended_attributes_and_devices_are_read_and_the_hosts_own_left_out() {
    let records = [
        record("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0=\n"),
        record("SCHILY.xattr.user.note", b"hello"),
        record("SCHILY.xattr.security.selinux", b"host_t"),
        record("uid", b"3000000"),
        record("mtime", b"-5.5"),
    ];
    let mut device = header(b"null", b'3', 0);
    device.set_device_major(1).unwrap();
    device.set_device_minor(300).unwrap();
    device.set_cksum();
    let archive = [
        member("global", b'g', &record("comment", b"of no concern")),
        member("pax", b'x', &records.concat()),
        member("f", b'0', b"x"),
        device.as_bytes().to_vec(),
        end(),
    ];
    let found = read(&archive.concat(), EndMark::Required).unwrap();
    let meta = &found.entry("f").meta;
    assert_eq!(
        meta.xattrs,
        [
            (
                b"security.capability".to_vec(),
                b"\x01\0\0\x02\0=\n".to_vec()
            ),
            (b"user.note".to_vec(), b"hello".to_vec()),
        ]
    );
    assert_eq!((meta.uid, meta.mtime_secs), (3_000_000, 0));
    assert_eq!(
        found.entry("null").node,
        Node::Device {
            kind: DeviceKind::Character,
            major: 1,
            minor: 300,
        }
    );
    let socket = [member("s", b's', b""), end()].concat();
    assert!(error_of(&socket).contains("kind that is not known"));
}

proptest::proptest! {
    #[test]
    fn damage_anywhere_is_an_error_or_read_and_never_a_panic(
        at in 0_usize..3000, bit in 0_u8..8, cut in 0_usize..4000,
    ) {
        let mut archive = [
            member("pax", b'x', &record("GNU.sparse.major", b"1")),
            member("a", b'0', &[7; 700]),
            member("b", b'S', b"b"),
            end(),
        ]
        .concat();
        archive.truncate(cut.max(1));
        let at = at % archive.len();
        archive[at] ^= 1 << bit;
        let _ = read(&archive, EndMark::Optional).map(|found| found.entries.len());
    }
}
