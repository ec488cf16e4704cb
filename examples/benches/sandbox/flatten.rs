//! Making an image of a sandbox's disk, beside a sparse copy of the same data.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context;
use sandbox_sdk::{Client, Sandbox};
use tokio::process::Command;

use crate::{
    MIB,
    files_of::{noise, physical_bytes},
    run,
    table::{Samples, Table},
};

/// In files of 64 MiB.
const CONTENT_MIB: usize = 512;
const FILE_MIB: usize = 64;
const ROUNDS: usize = 3;

pub(crate) async fn rows(client: &Client, data: &Path, table: &mut Table) -> anyhow::Result<()> {
    let sandbox = client.create().await?;
    let content = bytes::Bytes::from(noise(FILE_MIB * MIB));
    for number in 0..CONTENT_MIB / FILE_MIB {
        let path = format!("/srv/{number}");
        sandbox.files().write(&path, content.clone()).await?;
    }
    run(&sandbox, "sync").await?;
    sandbox.pause().await?;
    let (mut flattened, mut copied) = (Samples::default(), Samples::default());
    let mut physical = 0;
    for _ in 0..ROUNDS {
        let (took, copy_took, bytes) = round(&sandbox, data).await?;
        flattened.add(took);
        copied.add(copy_took);
        physical = bytes;
    }
    sandbox.destroy().await?;
    let mib = usize::try_from(physical)? / MIB;
    let what = format!("`cp --sparse=always` of a disk of {mib} MiB, and sync");
    table.rate(&what, mib, &copied, None);
    table.rate(
        "image of a sandbox's disk (flatten)",
        mib,
        &flattened,
        Some(("copy", &copied)),
    );
    Ok(())
}

/// One image and one copy of it: how long each took, and what the image takes on disk.
async fn round(sandbox: &Sandbox, data: &Path) -> anyhow::Result<(Duration, Duration, u64)> {
    let start = Instant::now();
    let template = sandbox.unnamed_snapshot().image_only().await?;
    let flattened = start.elapsed();
    let disk = disk_of(data, &template.id().uuid().to_string())?;
    let copy = data.join("copy");
    let start = Instant::now();
    let status = Command::new("cp")
        .arg("--sparse=always")
        .args([&disk, &copy])
        .status()
        .await?;
    anyhow::ensure!(status.success(), "cp: {status}");
    // An image is on disk when it is published.
    tokio::fs::File::open(&copy).await?.sync_all().await?;
    let copied = start.elapsed();
    let bytes = physical_bytes(&disk)?;
    std::fs::remove_file(copy)?;
    template.delete().await?;
    Ok((flattened, copied, bytes))
}

fn disk_of(data: &Path, id: &str) -> anyhow::Result<PathBuf> {
    let disk = data.join("host/images").join(id).join("disk.img");
    disk.is_file()
        .then_some(disk)
        .context("the image has no disk")
}
