//! The same work through the daemon, over REST and over tarpc, beside the platform in this process.

use std::{path::Path, time::Instant};

use anyhow::Context;
use bytes::Bytes;
use sandbox_host::testkit::bare::Bare;
use sandbox_sdk::{Client, Sandbox};

use crate::{
    MIB,
    basics::{CREATES, EXECS, FILES, WARM_UP_EXECS, large_content},
    daemon::Daemon,
    http::Http,
    table::{Samples, Table},
};

const TRUE: &str = r#"{"cmd":"true","args":[]}"#;

/// A sandbox's path, made over REST.
pub(crate) async fn create(http: &mut Http) -> anyhow::Result<String> {
    let made = http.post("/v1/sandboxes", "{}").await?;
    let made: serde_json::Value = serde_json::from_slice(&made)?;
    let id = made["id"].as_str().context("no ID")?;
    Ok(format!("/v1/sandboxes/{id}"))
}

async fn exec_true(http: &mut Http, sandbox: &str) -> anyhow::Result<()> {
    let output = http.post(&format!("{sandbox}/exec"), TRUE).await?;
    let output: serde_json::Value = serde_json::from_slice(&output)?;
    anyhow::ensure!(output["exit_code"] == 0, "{output}");
    Ok(())
}

/// `true`, in turns: in this process, over REST, over tarpc.
pub(crate) async fn exec_rows(
    daemon: &Daemon,
    folder: &Path,
    embedded: &Sandbox,
    table: &mut Table,
) -> anyhow::Result<()> {
    let mut http = daemon.connect().await?;
    let path = create(&mut http).await?;
    let id = path.rsplit('/').next().context("no ID")?.parse()?;
    let socket = folder.join("sandboxd.sock");
    let client = Client::connect(format!("unix:{}", socket.display())).await?;
    let remote = client.get(id).await?;
    let (mut here, mut rest, mut tarpc) =
        (Samples::default(), Samples::default(), Samples::default());
    for round in 0..EXECS + WARM_UP_EXECS {
        let start = Instant::now();
        embedded.command("true").output().await?;
        let here_took = start.elapsed();
        let start = Instant::now();
        exec_true(&mut http, &path).await?;
        let rest_took = start.elapsed();
        let start = Instant::now();
        remote.command("true").output().await?;
        let tarpc_took = start.elapsed();
        if round >= WARM_UP_EXECS {
            here.add(here_took);
            rest.add(rest_took);
            tarpc.add(tarpc_took);
        }
    }
    table.row("`true`: embedded, in turns with the next two", &here, None);
    table.row("`true`: over REST", &rest, Some(("embedded", &here)));
    table.row(
        "`true`: over tarpc, unix socket",
        &tarpc,
        Some(("embedded", &here)),
    );
    http.delete(&path).await
}

/// Creating over REST, in turns with the bare machine.
pub(crate) async fn create_rows(
    daemon: &Daemon,
    bare: &Bare,
    table: &mut Table,
) -> anyhow::Result<()> {
    let mut http = daemon.connect().await?;
    let (mut floor, mut created) = (Samples::default(), Samples::default());
    for _ in 0..CREATES {
        floor.add(bare.restore().await?.shell_answered);
        let start = Instant::now();
        let sandbox = create(&mut http).await?;
        exec_true(&mut http, &sandbox).await?;
        created.add(start.elapsed());
        http.delete(&sandbox).await?;
    }
    table.row(
        "create -> first exec over REST, pool off",
        &created,
        Some(("shell floor", &floor)),
    );
    Ok(())
}

/// 64 MiB both ways, in turns with the same in this process.
pub(crate) async fn file_rows(
    daemon: &Daemon,
    embedded: &Sandbox,
    table: &mut Table,
) -> anyhow::Result<()> {
    let content = large_content();
    let mut http = daemon.connect().await?;
    let sandbox = create(&mut http).await?;
    let path = format!("{sandbox}/files?path=/root/large");
    let mut samples: [Samples; 4] = Default::default();
    for _ in 0..FILES {
        let [write, put, read, get] = &mut samples;
        let files = embedded.files();
        let start = Instant::now();
        files.write("/root/large", content.clone()).await?;
        write.add(start.elapsed());
        let start = Instant::now();
        http.put(&path, &content).await?;
        put.add(start.elapsed());
        let start = Instant::now();
        files.read("/root/large").await?;
        read.add(start.elapsed());
        let start = Instant::now();
        let back: Bytes = http.get(&path).await?;
        get.add(start.elapsed());
        anyhow::ensure!(back == content, "what was read is not what was written");
    }
    let [write, put, read, get] = &samples;
    let mib = content.len() / MIB;
    let embedded = |samples| Some(("embedded", samples));
    table.rate("64 MiB written over REST", mib, put, embedded(write));
    table.rate("64 MiB read over REST", mib, get, embedded(read));
    http.delete(&sandbox).await
}

/// How long the daemon takes until it is ready, again and again.
pub(crate) async fn starts(program: &Path, folder: &Path) -> anyhow::Result<Samples> {
    const STARTS: usize = 10;
    let mut ready = Samples::default();
    for _ in 0..STARTS {
        let daemon = Daemon::start(program, folder).await?;
        ready.add(daemon.ready_after);
        daemon.stop().await?;
    }
    Ok(ready)
}
