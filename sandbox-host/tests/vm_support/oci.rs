//! An OCI image on disk.

use std::{fs, path::Path, process::Command};

/// Runs a shell line that must do well, and gives what it wrote.
fn shell(folder: &Path, line: &str) -> String {
    let done = Command::new("sh")
        .args(["-ec", line])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(done.status.success(), "`{line}`: {done:?}");
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// Adds a blob to a layout and describes it, as an index or a manifest would.
fn blob(layout: &Path, kind: &str, content: &[u8]) -> String {
    fs::write(layout.join("new"), content).unwrap();
    let digest = shell(layout, "sha256sum new | cut -d' ' -f1");
    fs::rename(
        layout.join("new"),
        layout.join("blobs/sha256").join(&digest),
    )
    .unwrap();
    format!(
        r#"{{"mediaType": "application/vnd.oci.image.{kind}", "digest": "sha256:{digest}", "size": {}}}"#,
        content.len()
    )
}

/// An image on disk of one layer, busybox, whose programs expect something of their environment.
pub(crate) fn busybox_layout(layout: &Path) {
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    shell(
        layout,
        "mkdir -p root/opt/tools root/bin
         cp -L $(command -v busybox) root/bin/busybox
         for tool in sh echo cat sync; do ln -s busybox root/bin/$tool; done
         printf '#!/bin/sh\necho found\n' > root/opt/tools/tool
         chmod 755 root/opt/tools/tool
         tar -C root --owner=0 --group=0 -cf layer.tar .",
    );
    let layer = fs::read(layout.join("layer.tar")).unwrap();
    let diff_id = shell(layout, "sha256sum layer.tar | cut -d' ' -f1");
    let layer = blob(layout, "layer.v1.tar", &layer);
    let config = format!(
        r#"{{"architecture": "amd64", "os": "linux",
            "config": {{"Env": ["PATH=/opt/tools:/bin", "APP=from the image", "WHO=nobody"]}},
            "rootfs": {{"type": "layers", "diff_ids": ["sha256:{diff_id}"]}}}}"#
    );
    let config = blob(layout, "config.v1+json", config.as_bytes());
    let manifest = format!(
        r#"{{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {config}, "layers": [{layer}]}}"#
    );
    let manifest = blob(layout, "manifest.v1+json", manifest.as_bytes());
    let index = format!(r#"{{"schemaVersion": 2, "manifests": [{manifest}]}}"#);
    fs::write(layout.join("index.json"), index).unwrap();
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion": "1.0.0"}"#,
    )
    .unwrap();
}
