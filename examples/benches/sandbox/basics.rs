//! Creating a sandbox, running commands and moving files, embedded and over the daemon.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;
use sandbox_host::testkit::bare::Bare;
use sandbox_sdk::{Client, EmbeddedConfig, Sandbox};

use crate::{
    MIB,
    daemon::{self, Daemon},
    fill, memory, remote,
    table::{Samples, Table},
    throughput,
};

pub(crate) const CREATES: usize = 30;
pub(crate) const EXECS: usize = 300;
/// The first rounds translate the guest's code.
pub(crate) const WARM_UP_EXECS: usize = 20;
pub(crate) const FILES: usize = 5;
/// Records in the store of the daemon whose start is measured.
const RECORDS: usize = 1000;
const FILE_BYTES: usize = 64 * MIB;

/// Adds the rows of this module, and how much memory a waiting clone takes.
pub(crate) async fn rows(folder: &Path, table: &mut Table) -> anyhow::Result<()> {
    let config = EmbeddedConfig::in_folder(folder);
    // Makes the memory image that all rows use.
    let client = Client::embedded(config.clone().pool_size(0)).await?;
    client.prepare().await?;
    let bare = Bare::open(&folder.join("host")).await?;

    let (agent, shell, pool_off) = creates_beside_the_floor(&client, &bare).await?;
    table.row(
        "bare QEMU restores the image: the agent's first answer",
        &agent,
        None,
    );
    table.row(
        "bare QEMU restores the image: a guest shell's first answer",
        &shell,
        None,
    );
    table.row(
        "create -> first exec, pool off",
        &pool_off,
        Some(("shell floor", &shell)),
    );

    let sandbox = client.create().await?;
    exec_rows(&sandbox, table).await?;
    file_rows(&sandbox, &bare, table).await?;
    daemon_rows(&sandbox, &bare, table).await?;
    sandbox.destroy().await?;
    client.shutdown().await;
    drop(client);

    let client = Client::embedded(config.pool_size(2)).await?;
    let pool_on = creates_from_the_pool(&client).await?;
    table.row(
        "create -> first exec, pool of two",
        &pool_on,
        Some(("shell floor", &shell)),
    );

    wait_for_pool(&client, 2).await?;
    let pids = client
        .host()
        .context("the client is embedded")?
        .waiting_pids();
    table.below(memory::of("a waiting clone", &pids)?);
    client.shutdown().await;
    Ok(())
}

/// The daemon has a folder of its own, since the one here is in use.
async fn daemon_rows(embedded: &Sandbox, bare: &Bare, table: &mut Table) -> anyhow::Result<()> {
    let program = daemon::build().await?;
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let daemon = Daemon::start(&program, folder).await?;
    // The first create makes the memory image.
    let mut http = daemon.connect().await?;
    let first = remote::create(&mut http).await?;
    http.delete(&first).await?;
    drop(http);
    remote::exec_rows(&daemon, folder, embedded, table).await?;
    remote::create_rows(&daemon, bare, table).await?;
    remote::file_rows(&daemon, embedded, table).await?;
    throughput::row(&daemon, table).await?;
    let kept = remote::create(&mut daemon.connect().await?).await?;
    daemon.stop().await?;
    start_rows(&program, folder, &kept, table).await?;
    let daemon = Daemon::start(&program, folder).await?;
    daemon.connect().await?.delete(&kept).await?;
    daemon.stop().await
}

async fn start_rows(
    program: &Path,
    folder: &Path,
    kept: &str,
    table: &mut Table,
) -> anyhow::Result<()> {
    let few = remote::starts(program, folder).await?;
    let id = kept.rsplit('/').next().context("no ID")?.parse()?;
    fill::with_stopped(folder, id, RECORDS - 1).await?;
    let many = remote::starts(program, folder).await?;
    table.row("sandboxd: start to ready, one sandbox", &few, None);
    table.row(
        "sandboxd: start to ready, 1,000 sandboxes",
        &many,
        Some(("start with one", &few)),
    );
    Ok(())
}

async fn first_exec(client: &Client) -> anyhow::Result<(Duration, Sandbox)> {
    let start = Instant::now();
    let sandbox = client.create().await?;
    let output = sandbox.exec("true").await?;
    let took = start.elapsed();
    anyhow::ensure!(output.status.success(), "`true` failed in a new sandbox");
    Ok((took, sandbox))
}

async fn creates_beside_the_floor(
    client: &Client,
    bare: &Bare,
) -> anyhow::Result<(Samples, Samples, Samples)> {
    let (mut agent, mut shell, mut created) =
        (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..CREATES {
        let floor = bare.restore().await?;
        agent.add(floor.agent_answered);
        shell.add(floor.shell_answered);
        let (took, sandbox) = first_exec(client).await?;
        created.add(took);
        sandbox.destroy().await?;
    }
    Ok((agent, shell, created))
}

async fn creates_from_the_pool(client: &Client) -> anyhow::Result<Samples> {
    client.prepare().await?;
    let mut created = Samples::default();
    for _ in 0..CREATES {
        wait_for_pool(client, 2).await?;
        let (took, sandbox) = first_exec(client).await?;
        created.add(took);
        sandbox.destroy().await?;
    }
    Ok(created)
}

/// The pool is filled behind a create's back; a create that comes before is a create without it.
async fn wait_for_pool(client: &Client, size: usize) -> anyhow::Result<()> {
    let host = client.host().context("the client is embedded")?;
    let until = Instant::now() + Duration::from_secs(60);
    while host.waiting_pids().len() < size {
        anyhow::ensure!(
            Instant::now() < until,
            "the pool was not filled within a minute"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn exec_rows(sandbox: &Sandbox, table: &mut Table) -> anyhow::Result<()> {
    let (mut inside, mut outside, mut over) =
        (Samples::default(), Samples::default(), Samples::default());
    for round in 0..EXECS + WARM_UP_EXECS {
        let start = Instant::now();
        let output = sandbox.command("true").output().await?;
        let took = start.elapsed();
        if round >= WARM_UP_EXECS {
            inside.add(output.duration);
            outside.add(took);
            over.add(took.saturating_sub(output.duration));
        }
    }
    table.row("`true`: fork to exit, measured in the guest", &inside, None);
    table.row(
        "`true`: round trip of exec",
        &outside,
        Some(("guest's own", &inside)),
    );
    table.row("`true`: round trip over the guest's own", &over, None);
    Ok(())
}

/// No zeros, which would travel as holes.
pub(crate) fn large_content() -> bytes::Bytes {
    (0..FILE_BYTES).map(|at| (at % 251) as u8 + 1).collect()
}

async fn file_rows(sandbox: &Sandbox, bare: &Bare, table: &mut Table) -> anyhow::Result<()> {
    let content = large_content();
    let (mut raw_down, mut raw_up) = (Samples::default(), Samples::default());
    let (mut write, mut read) = (Samples::default(), Samples::default());
    for _ in 0..FILES {
        let raw = bare.raw_port(FILE_BYTES as u64).await?;
        raw_down.add(Duration::from_secs_f64(FILE_BYTES as f64 / raw.to_guest));
        raw_up.add(Duration::from_secs_f64(FILE_BYTES as f64 / raw.to_host));
        let start = Instant::now();
        sandbox
            .files()
            .write("/root/large", content.clone())
            .await?;
        write.add(start.elapsed());
        let start = Instant::now();
        let back = sandbox.files().read("/root/large").await?;
        read.add(start.elapsed());
        anyhow::ensure!(back == content, "what was read is not what was written");
    }
    let mib = FILE_BYTES / MIB;
    table.rate(
        "64 MiB to the guest over the bare port",
        mib,
        &raw_down,
        None,
    );
    table.rate(
        "64 MiB written to a file",
        mib,
        &write,
        Some(("bare port", &raw_down)),
    );
    table.rate("64 MiB to the host over the bare port", mib, &raw_up, None);
    table.rate(
        "64 MiB read from a file",
        mib,
        &read,
        Some(("bare port", &raw_up)),
    );
    Ok(())
}
