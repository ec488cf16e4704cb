//! What the platform costs over the machine under it, in one table: `make bench`.
//!
//! Every row stands beside a floor or a peer measured in the same run, in turns where both are
//! repeated, so that a machine whose speed drifts changes both. Nothing here passes or fails.

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

mod memory;
mod table;

use std::time::{Duration, Instant};

use anyhow::Context;
use sandbox_host::testkit::bare::Bare;
use sandbox_sdk::{Client, EmbeddedConfig, Sandbox};

use table::{Samples, Table};

const CREATES: usize = 30;
const EXECS: usize = 200;
const FILES: usize = 5;
const MIB: usize = 1024 * 1024;
const FILE_BYTES: usize = 64 * MIB;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let config = EmbeddedConfig::in_folder(folder.path());
    let mut table = Table::default();

    // Makes the memory image that all rows use.
    let client = Client::embedded(config.clone().pool_size(0)).await?;
    client.prepare().await?;
    let bare = Bare::open(&folder.path().join("host")).await?;

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
    exec_rows(&sandbox, &mut table).await?;
    file_rows(&sandbox, &bare, &mut table).await?;
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

    table.print();
    wait_for_pool(&client, 2).await?;
    let pids = client
        .host()
        .context("the client is embedded")?
        .waiting_pids();
    memory::print(&pids)?;
    client.shutdown().await;
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
    for round in 0..EXECS + 20 {
        let start = Instant::now();
        let output = sandbox.command("true").output().await?;
        let took = start.elapsed();
        // The first rounds translate the guest's code.
        if round >= 20 {
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

async fn file_rows(sandbox: &Sandbox, bare: &Bare, table: &mut Table) -> anyhow::Result<()> {
    // No zeros, which would travel as holes.
    let content: Vec<u8> = (0..FILE_BYTES).map(|at| (at % 251) as u8 + 1).collect();
    let content = bytes::Bytes::from(content);
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
