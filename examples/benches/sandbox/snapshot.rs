//! Snapshots of a running sandbox, and clones of one: alone, and many at once.

use std::time::{Duration, Instant};

use anyhow::Context;
use futures::future::try_join_all;
use sandbox_host::testkit::bare::Bare;
use sandbox_sdk::{Client, Sandbox, Template};

use crate::{
    MIB, fill_memory, memory, standstill,
    table::{Samples, Table},
};

const DIRTY_MIB: usize = 64;
const SNAPSHOTS: usize = 9;
const CLONES: usize = 20;

pub(crate) async fn rows(client: &Client, bare: &Bare, table: &mut Table) -> anyhow::Result<()> {
    let sandbox = client.create().await?;
    fill_memory(&sandbox, DIRTY_MIB).await?;
    let template = snapshot_rows(&sandbox, table).await?;
    // What it did goes on in the clones, and would be counted as theirs.
    sandbox.destroy().await?;
    template.delete().await?;

    let sandbox = client.create().await?;
    fill_memory(&sandbox, DIRTY_MIB).await?;
    let template = sandbox.unnamed_snapshot().await?;
    sandbox.destroy().await?;
    let one_by_one = clone_rows(client, bare, &template, table).await?;
    at_once(client, &template, &one_by_one, table).await?;
    Ok(template.delete().await?)
}

/// Gives the last one.
async fn snapshot_rows(sandbox: &Sandbox, table: &mut Table) -> anyhow::Result<Template> {
    standstill::watch(sandbox).await?;
    let (mut total, mut still) = (Samples::default(), Samples::default());
    let mut kernel_ran = Samples::default();
    let mut last: Option<Template> = None;
    for _ in 0..SNAPSHOTS {
        if let Some(template) = last.take() {
            template.delete().await?;
        }
        let start = Instant::now();
        let template = sandbox.unnamed_snapshot().resume(true).await?;
        total.add(start.elapsed());
        last = Some(template);
        let gap = standstill::longest(sandbox).await?;
        still.add(gap.all);
        kernel_ran.add(gap.kernel_ran);
    }
    let what = format!("snapshot while it runs, {DIRTY_MIB} MiB dirty: processes stand still");
    table.row(&what, &still, None);
    table.row("  of that, settling the disk and waking", &kernel_ran, None);
    table.row(
        "snapshot while it runs: all of it",
        &total,
        Some(("standstill", &still)),
    );
    let template = last.context("at least one was made")?;
    table.note(&format!(
        "it takes {} MiB on disk",
        template.info().size_bytes() / MIB as u64
    ));
    Ok(template)
}

async fn clone_rows(
    client: &Client,
    bare: &Bare,
    template: &Template,
    table: &mut Table,
) -> anyhow::Result<Samples> {
    let (mut floor, mut minimal, mut cloned) =
        (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..CLONES {
        floor.add(bare.restore().await?.shell_answered);
        let start = Instant::now();
        let sandbox = client.create().await?;
        exec(&sandbox).await?;
        minimal.add(start.elapsed());
        sandbox.destroy().await?;
        let (took, sandbox) = first_exec(client, template, Instant::now()).await?;
        cloned.add(took);
        sandbox.destroy().await?;
    }
    table.row(
        "bare QEMU restores `minimal`: a shell's first answer",
        &floor,
        None,
    );
    let beside = Some(("shell floor", &floor));
    table.row(
        "create `minimal` -> first exec, in turns with the next",
        &minimal,
        beside,
    );
    table.row("clone of a snapshot -> first exec", &cloned, beside);
    Ok(cloned)
}

async fn at_once(
    client: &Client,
    template: &Template,
    one_by_one: &Samples,
    table: &mut Table,
) -> anyhow::Result<()> {
    let start = Instant::now();
    let clones = (0..CLONES).map(|_| first_exec(client, template, start));
    let clones = try_join_all(clones).await?;
    let each: Samples = clones.iter().map(|(took, _)| *took).collect();
    let all: Samples = clones
        .iter()
        .map(|(took, _)| *took)
        .max()
        .into_iter()
        .collect();
    let row: Samples = [one_by_one.sum()].into_iter().collect();
    table.row(
        &format!("{CLONES} clones at once: each one's first exec"),
        &each,
        None,
    );
    let what = format!("{CLONES} clones at once: the last one's first exec");
    table.row(&what, &all, Some(("time one by one", &row)));
    let host = client.host().context("the client is embedded")?;
    let pids: Vec<u32> = clones
        .iter()
        .filter_map(|(_, sandbox)| host.pid_of(sandbox.id()))
        .collect();
    anyhow::ensure!(pids.len() == CLONES, "only {} clones run", pids.len());
    table.below(memory::of("a clone of a snapshot", &pids)?);
    try_join_all(clones.iter().map(|(_, sandbox)| sandbox.destroy())).await?;
    Ok(())
}

async fn first_exec(
    client: &Client,
    template: &Template,
    start: Instant,
) -> anyhow::Result<(Duration, Sandbox)> {
    let sandbox = client.create().template(template).await?;
    exec(&sandbox).await?;
    Ok((start.elapsed(), sandbox))
}

async fn exec(sandbox: &Sandbox) -> anyhow::Result<()> {
    let output = sandbox.exec("true").await?;
    anyhow::ensure!(output.status.success(), "`true` failed in a new sandbox");
    Ok(())
}
