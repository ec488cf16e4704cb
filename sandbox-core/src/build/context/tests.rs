//! Contexts: archives as they come, and what steps take from them.

use std::io::Write;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use tar::{Builder, EntryType, Header};

use super::{
    CONTEXT_ENTRIES_MAX, CONTEXT_UNPACKED_MAX_BYTES, Context, ContextError, Destination, Put,
    SelectError, pattern,
};
use crate::build::CONTEXT_MAX_BYTES;

/// An archive in the making. Names are written as they are, also those that a tar refuses.
struct Upload(Builder<Vec<u8>>);

impl Upload {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn entry(mut self, name: &str, kind: EntryType, mode: u32, link: &str, data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(data.len() as u64);
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    fn file(self, name: &str, data: &str) -> Self {
        self.entry(name, EntryType::Regular, 0o644, "", data.as_bytes())
    }

    fn dir(self, name: &str, mode: u32) -> Self {
        self.entry(name, EntryType::Directory, mode, "", b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(name, EntryType::Symlink, 0o777, target, b"")
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }

    fn read(self) -> Result<Context, ContextError> {
        Context::read(self.bytes().into())
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn app() -> Upload {
    Upload::new()
        .dir("./", 0o700)
        .file("./app.py", "print(1)")
        .file("./b.py", "2")
        .dir("./conf/", 0o750)
        .file("./conf/a.toml", "a = 1")
        .dir("./conf/sub", 0o711)
        .entry("./conf/sub/run.sh", EntryType::Regular, 0o755, "", b"exit")
        .symlink("./conf/link", "../app.py")
        .symlink("./current", "conf/sub")
        .symlink("./abs", "/conf/a.toml")
        .symlink("./out", "../../etc/passwd")
        .symlink("./loop", "loop")
}

/// What is put where, a line each.
fn puts(context: &Context, sources: &[&str], dest: &str) -> Result<Vec<String>, SelectError> {
    let puts = context.select(sources, &Destination::new(dest, "/work"), None)?;
    let line = |put: &Put| match put {
        Put::Dir { path, mode: None } => format!("{path}/"),
        Put::Dir {
            path,
            mode: Some(mode),
        } => format!("{path}/ {mode:o}"),
        Put::File { path, mode, data } => {
            format!("{path} {mode:o} {}", String::from_utf8_lossy(data))
        }
        Put::Symlink { path, target } => format!("{path} -> {target}"),
    };
    Ok(puts.iter().map(line).collect())
}

#[test]
fn a_folder_is_copied_by_its_content() {
    let context = app().read().unwrap();
    assert_eq!(context.len(), 11);
    for source in ["conf", "conf/", "./conf", "/conf", "conf/."] {
        let expected = [
            "/srv/",
            "/srv/a.toml 644 a = 1",
            "/srv/link -> ../app.py",
            "/srv/sub/ 711",
            "/srv/sub/run.sh 755 exit",
        ];
        for dest in ["/srv", "/srv/", "../srv/."] {
            assert_eq!(
                puts(&context, &[source], dest).unwrap(),
                expected,
                "{source} {dest}"
            );
        }
    }
    let all = puts(&context, &["."], "/").unwrap();
    assert_eq!((all.len(), all[0].as_str()), (12, "//"));
    assert!(all.contains(&"/out -> ../../etc/passwd".to_owned()));
}

#[test]
fn a_file_gets_the_destinations_name_or_lies_in_it() {
    let context = app().read().unwrap();
    for (dest, path) in [
        ("/x", "/x"),
        ("/x/", "/x/app.py"),
        ("x", "/work/x"),
        (".", "/work/app.py"),
        ("./", "/work/app.py"),
        ("..", "/app.py"),
        ("/", "/app.py"),
    ] {
        let expected = [format!("{path} 644 print(1)")];
        assert_eq!(
            puts(&context, &["app.py"], dest).unwrap(),
            expected,
            "{dest}"
        );
    }
    // A directory of the guest that the text alone does not tell.
    let mut to = Destination::new("/tmp", "/");
    assert!(!to.is_dir);
    to.is_dir = true;
    assert_eq!(
        context.select(&["app.py"], &to, None).unwrap()[0].path(),
        "/tmp/app.py"
    );
}

#[test]
fn several_sources_and_wildcards_go_into_a_directory() {
    let context = app().read().unwrap();
    let both = ["/x/app.py 644 print(1)", "/x/b.py 644 2"];
    assert_eq!(puts(&context, &["app.py", "b.py"], "/x/").unwrap(), both);
    assert_eq!(puts(&context, &["*.py"], "/x/").unwrap(), both);
    assert_eq!(puts(&context, &["?.py"], "/x").unwrap(), ["/x 644 2"]);
    assert_eq!(
        puts(&context, &["c*/s*/*.sh"], "/x/").unwrap(),
        ["/x/run.sh 755 exit"]
    );
    assert_eq!(
        puts(&context, &["curr*/r*"], "/x/").unwrap(),
        ["/x/run.sh 755 exit"]
    );
    for sources in [["*.py"].as_slice(), &["app.py", "b.py"]] {
        let error = puts(&context, sources, "/x").unwrap_err();
        assert!(
            matches!(error, SelectError::NeedsDirectory { .. }),
            "{error}"
        );
    }
}

#[test]
fn a_mode_of_the_step_is_that_of_all_it_copies() {
    let context = app().read().unwrap();
    let to = Destination::new("/srv", "/");
    for put in context.select(&["conf"], &to, Some(0o500)).unwrap() {
        match put {
            Put::Dir { path, mode } => assert_eq!(mode.is_none(), path == "/srv"),
            Put::File { mode, .. } => assert_eq!(mode, 0o500),
            Put::Symlink { .. } => {}
        }
    }
}

#[test]
fn links_that_a_source_names_are_followed_inside_the_context_and_no_further() {
    let context = app().read().unwrap();
    assert_eq!(
        puts(&context, &["current"], "/x").unwrap(),
        ["/x/", "/x/run.sh 755 exit"]
    );
    assert_eq!(
        puts(&context, &["current/run.sh"], "/x").unwrap(),
        ["/x 755 exit"]
    );
    assert_eq!(puts(&context, &["abs"], "/x").unwrap(), ["/x 644 a = 1"]);
    assert_eq!(
        puts(&context, &["conf/link"], "/x/").unwrap(),
        ["/x/app.py 644 print(1)"]
    );
    assert_eq!(
        puts(&context, &["curren?"], "/x").unwrap(),
        ["/x -> conf/sub"]
    );
    let error = puts(&context, &["out"], "/x").unwrap_err();
    assert!(matches!(error, SelectError::Missing { .. }));
    let error = puts(&context, &["loop"], "/x").unwrap_err();
    assert!(matches!(error, SelectError::LinkLoop { .. }));
}

#[test]
fn what_is_missing_is_named() {
    let context = app().read().unwrap();
    for source in [
        "nothing.py",
        "app.py/x",
        "conf/none",
        "*.rb",
        "conf/*/*/x",
        "[a",
        "app.py/*",
    ] {
        let error = puts(&context, &["b.py", source], "/x/").unwrap_err();
        assert!(
            error.to_string().contains(&format!("`{source}`")),
            "{error}"
        );
        assert_eq!(context.digest(&[source]).unwrap_err(), error);
    }
}

#[test]
fn two_things_at_one_path_are_the_later_or_refused() {
    let context = Upload::new()
        .file("a/x", "1")
        .file("b/x", "2")
        .file("c/x/y", "3")
        .read()
        .unwrap();
    assert_eq!(
        puts(&context, &["a", "b"], "/d/").unwrap(),
        ["/d/", "/d/x 644 2"]
    );
    let error = puts(&context, &["a", "c"], "/d/").unwrap_err();
    assert_eq!(
        error,
        SelectError::Clash {
            path: "/d/x".to_owned()
        }
    );
    let error = puts(&context, &["a/x"], "/").unwrap();
    assert_eq!(error, ["/x 644 1"]);
}

#[test]
fn one_thing_named_very_often_is_refused_before_it_is_copied() {
    let mut upload = Upload::new();
    for number in 0..1000 {
        upload = upload.file(&format!("f{number}"), "");
    }
    let context = upload.read().unwrap();
    let sources = vec!["."; 200];
    assert_eq!(
        puts(&context, &sources, "/x/").unwrap_err(),
        SelectError::TooMuch
    );
    assert_eq!(context.digest(&sources).unwrap_err(), SelectError::TooMuch);
}

#[test]
fn a_digest_tells_content_names_modes_and_nothing_else() {
    let digest = |upload: Upload, sources: &[&str]| upload.read().unwrap().digest(sources).unwrap();
    let first = digest(app(), &["conf", "app.py"]);
    assert_eq!(digest(app().file("other", "x"), &["conf", "app.py"]), first);
    assert_ne!(
        digest(app().file("conf/new", ""), &["conf", "app.py"]),
        first
    );
    assert_ne!(
        digest(app().file("app.py", "print(2)"), &["conf", "app.py"]),
        first
    );
    assert_ne!(
        digest(app().dir("conf/sub", 0o755), &["conf", "app.py"]),
        first
    );
    let executable = app().entry("app.py", EntryType::Regular, 0o755, "", b"print(1)");
    assert_ne!(digest(executable, &["conf", "app.py"]), first);
    assert_ne!(
        digest(app().symlink("conf/link", "x"), &["conf", "app.py"]),
        first
    );
    // A time that differs, and other packing.
    let mut header = Header::new_gnu();
    header.set_mtime(77);
    header.set_uid(1000);
    header.set_mode(0o644);
    header.set_size(8);
    let mut again = app();
    again
        .0
        .append_data(&mut header, "app.py", &b"print(1)"[..])
        .unwrap();
    let packed = Context::read(gzip(&again.bytes()).into()).unwrap();
    assert_eq!(packed.digest(&["conf", "app.py"]).unwrap(), first);
}

#[test]
fn plain_and_compressed_archives_of_all_kinds_are_read() {
    let plain = app().bytes();
    let context = Context::read(plain.clone().into()).unwrap();
    assert_eq!(Context::read(gzip(&plain).into()).unwrap(), context);
    // Two gzip members in a row are one stream.
    let (front, back) = plain.split_at(700);
    let members = [gzip(front), gzip(back)].concat();
    assert_eq!(Context::read(members.into()).unwrap(), context);

    let long = format!("{}/{}", "d".repeat(140), "n".repeat(140));
    let mut gnu = Upload::new();
    let mut header = Header::new_gnu();
    header.set_mode(0o600);
    header.set_size(2);
    gnu.0.append_data(&mut header, &long, &b"hi"[..]).unwrap();
    let read = gnu.read().unwrap();
    assert_eq!(puts(&read, &[&long], "/x").unwrap(), ["/x 600 hi"]);

    let mut pax = Upload::new();
    pax.0
        .append_pax_extensions([("path", "ü/long".as_bytes())])
        .unwrap();
    let read = pax.file("short", "1").read().unwrap();
    assert_eq!(puts(&read, &["ü"], "/x").unwrap(), ["/x/", "/x/long 644 1"]);
    assert!(Context::read(vec![0; 1024].into()).unwrap().is_empty());
}

#[test]
fn hard_links_become_copies_and_later_entries_replace_earlier_ones() {
    let context = app()
        .entry("hard", EntryType::Link, 0o644, "./conf/sub/run.sh", b"")
        .file("b.py", "3")
        .read()
        .unwrap();
    assert_eq!(puts(&context, &["hard"], "/x").unwrap(), ["/x 755 exit"]);
    assert_eq!(puts(&context, &["b.py"], "/x").unwrap(), ["/x 644 3"]);
}

#[test]
fn trap_33_names_that_lead_out_and_things_that_are_no_files_are_refused_by_name() {
    let kind = |kind| Upload::new().entry("dev/x", kind, 0o644, "", b"");
    let link = |target| app().entry("hard", EntryType::Link, 0o644, target, b"");
    for (upload, name) in [
        (Upload::new().file("a/../../x", ""), "a/../../x"),
        (Upload::new().file("..", ""), ".."),
        (Upload::new().file("/etc/passwd", ""), "/etc/passwd"),
        (Upload::new().dir("./../", 0o755), "./../"),
        (kind(EntryType::Fifo), "dev/x"),
        (kind(EntryType::Char), "dev/x"),
        (kind(EntryType::Block), "dev/x"),
        (kind(EntryType::new(b'Z')), "dev/x"),
        (link("../../etc/passwd"), "../../etc/passwd"),
        (link("conf"), "hard"),
        (link("none"), "none"),
        (Upload::new().symlink("a", "/etc").file("a/b", ""), "a/b"),
        (Upload::new().file("a", "").file("a/b", ""), "a/b"),
        (Upload::new().file("a/b", "").symlink("a", "/etc"), "a"),
        (Upload::new().file(".", ""), "."),
        (Upload::new().symlink("a", ""), "a"),
    ] {
        let error = upload.read().unwrap_err();
        assert!(error.to_string().contains(&format!("`{name}`")), "{error}");
    }
}

#[test]
fn what_is_no_whole_archive_is_refused() {
    let plain = app().bytes();
    let read = |bytes: &[u8]| Context::read(Bytes::copy_from_slice(bytes));
    let archive = |result| matches!(result, Err(ContextError::BadArchive { .. }));
    assert!(archive(read(b"")));
    assert!(archive(read(b"not an archive at all")));
    assert!(archive(read(&[b'x'; 4096])));
    assert!(archive(read(&plain[..1000])));
    assert!(archive(read(&plain[..1100])));
    let packed = gzip(&plain);
    let cut = read(&packed[..packed.len() - 20]);
    assert!(matches!(cut, Err(ContextError::BadGzip { .. })));
    let zstd = read(b"\x28\xb5\x2f\xfd and so on");
    assert_eq!(zstd, Err(ContextError::Compression { format: "zstd" }));
    assert!(archive(read(&gzip(b"text"))));
}

#[test]
fn a_small_upload_that_unpacks_to_much_is_refused() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let zeros = vec![0; 1 << 20];
    for _ in 0..=CONTEXT_UNPACKED_MAX_BYTES >> 20 {
        encoder.write_all(&zeros).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < CONTEXT_MAX_BYTES);
    assert_eq!(
        Context::read(bomb.into()),
        Err(ContextError::UnpackedTooLarge)
    );

    // Hard links to one file count as what they become.
    let mut upload = Upload::new().file("f", &"x".repeat(1 << 20));
    for number in 0..CONTEXT_UNPACKED_MAX_BYTES >> 20 {
        upload = upload.entry(&format!("l{number}"), EntryType::Link, 0o644, "f", b"");
    }
    assert_eq!(upload.read(), Err(ContextError::UnpackedTooLarge));

    let mut upload = Upload::new();
    for number in 0..=CONTEXT_ENTRIES_MAX {
        upload = upload.file(&number.to_string(), "");
    }
    let bytes = upload.bytes();
    assert_eq!(
        Context::read(bytes.into()),
        Err(ContextError::TooManyEntries)
    );
    let got = CONTEXT_MAX_BYTES + 1;
    let large = Context::read(vec![0; got].into());
    assert_eq!(large, Err(ContextError::TooLarge { got }));
}

#[test]
fn wildcards_match_as_users_know_them() {
    for (pattern, good, bad) in [
        ("*", "anything", ""),
        ("*.py", "a.py", "a.pyc"),
        ("a*b*c", "axxbyyc", "axxbyy"),
        ("?", "ä", "ab"),
        ("[a-c]x", "bx", "dx"),
        ("[^a-c]x", "dx", "bx"),
        ("[!a]", "b", "a"),
        ("[]]", "]", "["),
        ("[a-]", "-", "b"),
        ("\\*", "*", "x"),
        ("[\\]]", "]", "\\"),
        (
            "*a*a*a*a*b",
            "aaaaaaab",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac",
        ),
    ] {
        assert!(pattern::matches(pattern, good), "{pattern} {good}");
        assert!(
            !pattern::matches(pattern, bad) || (pattern, bad) == ("*", ""),
            "{pattern} {bad}"
        );
    }
    assert!(!pattern::matches("[a", "a") && !pattern::matches("[", "["));
}

proptest! {
    #[test]
    fn r42_any_upload_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        let _ = Context::read(bytes.into());
    }

    #[test]
    fn r42_a_damaged_archive_is_read_or_refused(
        damage in prop::collection::vec((0..4096_usize, any::<u8>()), 0..8),
        cut in 0..8192_usize,
    ) {
        let mut bytes = app().bytes();
        for (at, byte) in damage {
            bytes[at] = byte;
        }
        bytes.truncate(cut.max(512));
        if let Ok(context) = Context::read(bytes.into()) {
            let to = Destination::new("/x/", "/");
            if let Ok(puts) = context.select(&["."], &to, None) {
                for put in puts {
                    prop_assert!(put.path() == "/x" || put.path().starts_with("/x/"));
                    prop_assert!(!put.path().split('/').any(|part| part == ".."));
                }
            }
        }
    }

    #[test]
    fn a_pattern_without_wildcards_matches_itself_alone(a in "[a-c.]{0,4}", b in "[a-c.]{0,4}") {
        prop_assert_eq!(pattern::matches(&a, &b), a == b);
        let starred = format!("*{a}*");
        prop_assert_eq!(pattern::matches(&starred, &b), b.contains(&a));
    }
}
