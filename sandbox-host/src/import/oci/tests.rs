//! Images in folders, in archives and in a registry.

use std::{fs, io::Write, path::Path, sync::Arc};

use sandbox_core::template::ImportSource;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

use crate::import::fixture::{Archive, Done, OciImage, refusal, run};

const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const TAR_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zstd(data: &[u8]) -> Vec<u8> {
    ::zstd::stream::encode_all(data, 1).unwrap()
}

fn layered() -> OciImage {
    let base = Archive::default()
        .folder("etc", 0o755, (0, 0))
        .file("etc/removed", 0o644, (0, 0), b"removed")
        .file("etc/kept", 0o600, (7, 8), b"kept")
        .file("cache/old", 0o644, (0, 0), b"old")
        .file("usr/bin/su", 0o4755, (0, 0), b"su")
        .symlink("bin", "usr/bin")
        .file("was-a-folder/x", 0o644, (0, 0), b"x")
        .end();
    let middle = Archive::default()
        .file("etc/.wh.removed", 0o644, (0, 0), b"")
        .file("cache/new", 0o644, (0, 0), b"new")
        .file("cache/.wh..wh..opq", 0o644, (0, 0), b"")
        .hard_link("usr/bin/su-too", "usr/bin/su")
        .device("dev/tty", b'3', 5, 0)
        .end();
    let top = Archive::default()
        .pax(&[("SCHILY.xattr.user.level", b"top")])
        .file("bin/tool", 0o755, (0, 0), b"tool")
        .file("was-a-folder", 0o644, (0, 0), b"now a file");
    OciImage::new(
        super::Target::here().architecture,
        &[
            (TAR, base),
            (TAR_GZIP, gzip(&middle)),
            // Its writer left the end mark out.
            (TAR_ZSTD, zstd(&top.0)),
        ],
    )
}

fn check(done: &Done) {
    assert!(!done.exists("/etc/removed") && !done.exists("/etc/.wh.removed"));
    assert_eq!(done.meta("/etc/kept"), (0o600, 7, 8));
    assert!(!done.exists("/cache/old"));
    assert_eq!(done.read("/cache/new"), b"new");
    assert_eq!(done.meta("/usr/bin/su-too"), (0o4755, 0, 0));
    assert_eq!(done.inode("/usr/bin/su"), done.inode("/usr/bin/su-too"));
    let tty = done.debugfs("stat /dev/tty");
    assert!(
        tty.contains("Type: character special") && tty.contains("05:00"),
        "{tty}"
    );
    assert_eq!(done.read("/usr/bin/tool"), b"tool");
    assert!(
        done.debugfs("ea_list /usr/bin/tool")
            .contains("user.level (3) = \"top\"")
    );
    assert_eq!(done.read("/was-a-folder"), b"now a file");
    let env = [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("APP", "1")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(done.imported.env, env.into());
}

fn layout(path: &Path) -> ImportSource {
    ImportSource::OciLayout {
        path: path.display().to_string(),
        reference: None,
    }
}

#[tokio::test]
async fn r27_layers_come_out_right_from_a_folder_and_from_an_archive() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("layout");
    layered().write_layout(&root);
    check(&run(layout(&root)).await.unwrap());
    let archive = folder.path().join("layout.tar");
    let tar = std::process::Command::new("tar")
        .args(["-czf"])
        .arg(&archive)
        .arg("-C")
        .arg(&root)
        .arg(".")
        .status()
        .unwrap();
    assert!(tar.success());
    check(&run(layout(&archive)).await.unwrap());
}

#[tokio::test]
async fn a_wrong_digest_a_missing_layer_or_another_machines_image_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let image = layered();
    image.write_layout(folder.path());
    let layer = image.layers[1].strip_prefix("sha256:").unwrap();
    let blob = folder.path().join("blobs/sha256").join(layer);
    // Valid, and not what was meant.
    let other = Archive::default().file("evil", 0o644, (0, 0), b"x").end();
    fs::write(&blob, gzip(&other)).unwrap();
    let reason = refusal(layout(folder.path())).await;
    assert!(
        reason.contains("layer 2") && reason.contains("digest is wrong"),
        "{reason}"
    );
    let half = &image.blobs[&image.layers[1]];
    fs::write(&blob, &half[..half.len() / 2]).unwrap();
    let reason = refusal(layout(folder.path())).await;
    assert!(reason.contains("digest is wrong"), "{reason}");
    fs::remove_file(&blob).unwrap();
    let reason = refusal(layout(folder.path())).await;
    assert!(
        reason.contains("layer 2") && reason.contains("not in the image"),
        "{reason}"
    );

    let folder = tempfile::tempdir().unwrap();
    OciImage::new("riscv64", &[]).write_layout(folder.path());
    let reason = refusal(layout(folder.path())).await;
    assert!(reason.contains("linux/riscv64"), "{reason}");
    let empty = tempfile::tempdir().unwrap();
    let reason = refusal(layout(empty.path())).await;
    assert!(reason.contains("no index.json"), "{reason}");
}

/// A registry on the loopback interface.
struct Registry {
    address: String,
    serving: JoinHandle<()>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// What the registry answers to a path: status, further headers, body.
type Answer = (u16, String, Vec<u8>);

impl Registry {
    async fn serve(answer: impl Fn(&str, &str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answer = Arc::new(answer);
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let answer = Arc::clone(&answer);
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => request.push(byte),
                            Err(_) => return,
                        }
                    }
                    let request = String::from_utf8(request).unwrap();
                    let path = request.split(' ').nth(1).unwrap();
                    let (status, headers, body) = answer(path, &request);
                    let head = format!(
                        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n",
                        body.len()
                    );
                    // A client that has heard enough hangs up.
                    let _ = stream.write_all(head.as_bytes()).await;
                    let _ = stream.write_all(&body).await;
                });
            }
        });
        Self { address, serving }
    }

    fn source(&self, image: &str) -> ImportSource {
        ImportSource::OciRegistry {
            reference: format!("{}/{image}", self.address),
            insecure: true,
        }
    }
}

fn not_found() -> Answer {
    let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
    (404, String::new(), body.to_vec())
}

fn serve_image(image: &OciImage, path: &str) -> Answer {
    let typed = |kind: &str, body: &[u8]| (200, format!("content-type: {kind}\r\n"), body.to_vec());
    if path == "/v2/" {
        return (200, String::new(), Vec::new());
    }
    if path == "/v2/team/app/manifests/1.0" {
        return typed("application/vnd.oci.image.index.v1+json", &image.index);
    }
    let digest = path
        .strip_prefix("/v2/team/app/manifests/")
        .or_else(|| path.strip_prefix("/v2/team/app/blobs/"));
    match digest.and_then(|digest| image.blobs.get(digest)) {
        Some(body) => typed("application/vnd.oci.image.manifest.v1+json", body),
        None => not_found(),
    }
}

#[tokio::test]
async fn r27_an_image_is_pulled_from_a_registry() {
    let image = layered();
    let registry = Registry::serve(move |path, _| serve_image(&image, path)).await;
    check(&run(registry.source("team/app:1.0")).await.unwrap());
}

#[tokio::test]
async fn a_registry_that_wants_a_token_gives_one_to_anyone() {
    let image = layered();
    let address = Arc::new(std::sync::OnceLock::<String>::new());
    let own = Arc::clone(&address);
    let registry = Registry::serve(move |path, request| {
        if path.starts_with("/token") {
            return (
                200,
                String::new(),
                br#"{"token":"anonymous-pass"}"#.to_vec(),
            );
        }
        if request
            .to_lowercase()
            .contains("authorization: bearer anonymous-pass")
        {
            return serve_image(&image, path);
        }
        let challenge = format!(
            "www-authenticate: Bearer realm=\"http://{}/token\",service=\"test\"\r\n",
            own.get().unwrap()
        );
        (401, challenge, Vec::new())
    })
    .await;
    address.set(registry.address.clone()).unwrap();
    check(&run(registry.source("team/app:1.0")).await.unwrap());
}

#[tokio::test]
async fn r33_a_registrys_refusals_are_told_for_what_they_are() {
    let image = layered();
    let registry = Registry::serve(move |path, _| serve_image(&image, path)).await;
    let reason = refusal(registry.source("team/app:2.0")).await;
    assert!(reason.contains("has no such image"), "{reason}");
    assert!(reason.contains(&registry.address), "{reason}");

    let closed = Registry::serve(|_, _| (401, String::new(), Vec::new())).await;
    let reason = refusal(closed.source("team/app:1.0")).await;
    assert!(reason.contains("not logged in"), "{reason}");

    let busy = Registry::serve(|_, _| {
        let body = br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#;
        (429, String::new(), body.to_vec())
    })
    .await;
    let reason = refusal(busy.source("team/app:1.0")).await;
    assert!(reason.contains("no more requests"), "{reason}");

    let broken = Registry::serve(|_, _| (500, String::new(), Vec::new())).await;
    let reason = refusal(broken.source("team/app:1.0")).await;
    assert!(reason.contains("500"), "{reason}");

    // Nobody listens on a port that was just given back.
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let gone = ImportSource::OciRegistry {
        reference: format!("{port}/team/app:1.0"),
        insecure: true,
    };
    let reason = refusal(gone).await;
    assert!(reason.contains("can't be reached"), "{reason}");
    let nonsense = ImportSource::OciRegistry {
        reference: "UPPER case/!".to_owned(),
        insecure: true,
    };
    assert!(refusal(nonsense).await.contains("no name of an image"));
}

#[tokio::test]
async fn a_registry_that_sends_something_else_or_more_is_not_believed() {
    let image = layered();
    let layer = image.layers[2].clone();
    let registry = Registry::serve(move |path, _| {
        let (status, headers, mut body) = serve_image(&image, path);
        if path.ends_with(&layer) {
            body[10] ^= 1;
        }
        (status, headers, body)
    })
    .await;
    let reason = refusal(registry.source("team/app:1.0")).await;
    assert!(reason.contains("digest"), "{reason}");

    let image = layered();
    let layer = image.layers[2].clone();
    let endless = Registry::serve(move |path, _| {
        let (status, headers, mut body) = serve_image(&image, path);
        if path.ends_with(&layer) {
            body.resize(8 * 1024 * 1024, 0);
        }
        (status, headers, body)
    })
    .await;
    let reason = refusal(endless.source("team/app:1.0")).await;
    assert!(reason.contains("longer than it was said"), "{reason}");
}
