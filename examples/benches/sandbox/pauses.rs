//! One sandbox, paused and resumed again and again: what the last time costs beside the first.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;
use sandbox_sdk::{Client, Sandbox};

use crate::{
    MIB,
    files_of::{deepest_disk, delta_bytes},
    run,
    table::{Samples, Table},
};

const PAUSES: usize = 60;
/// How many at the beginning are compared with as many at the end.
const COMPARED: usize = 10;
const COUNTER: &str = "n=0; while :; do n=$((n + 1)); echo $n > /dev/shm/count; sleep 0.1; done";

struct Round {
    pause: Duration,
    resume: Duration,
    delta_bytes: u64,
}

/// `SANDBOX_BENCH_PAUSES` says how many. The last ones take turns with the first ones of a new
/// sandbox, since the machine may have changed its speed since this one was new.
pub(crate) async fn rows(client: &Client, data: &Path, table: &mut Table) -> anyhow::Result<()> {
    let count = match std::env::var("SANDBOX_BENCH_PAUSES") {
        Ok(count) => count.parse().context("SANDBOX_BENCH_PAUSES")?,
        Err(_) => PAUSES,
    };
    anyhow::ensure!(
        count >= 2 * COMPARED,
        "there must be {} pauses or more",
        2 * COMPARED
    );
    let sandbox = client.create().await?;
    let counter = sandbox.shell(COUNTER).spawn().await?;
    let mut rounds = Vec::new();
    for _ in 0..count - COMPARED {
        rounds.push(once(&sandbox, data).await?);
    }
    let new = client.create().await?;
    new.shell(COUNTER).spawn().await?;
    let mut of_new = Vec::new();
    for _ in 0..COMPARED {
        rounds.push(once(&sandbox, data).await?);
        of_new.push(once(&new, data).await?);
    }
    let still = run(
        &sandbox,
        &format!("kill -0 {} && cat /dev/shm/count", counter.pid()),
    )
    .await?;
    let chain = deepest_disk(data)?.len();

    let (first, last) = (&rounds[..COMPARED], &rounds[count - COMPARED..]);
    let samples = |rounds: &[Round], of: fn(&Round) -> Duration| rounds.iter().map(of).collect();
    for (what, of) in [
        ("pause", (|round| round.pause) as fn(&Round) -> Duration),
        ("resume", |round| round.resume),
    ] {
        let [first, last, new]: [Samples; 3] =
            [first, last, &of_new].map(|rounds| samples(rounds, of));
        table.row(
            &format!("{what}, the first {COMPARED} of {count}"),
            &first,
            None,
        );
        let what_last = format!("{what}, the last {COMPARED} of {count}");
        table.row(&what_last, &last, Some(("first", &first)));
        let what_new = format!("{what}, the first {COMPARED} of a new sandbox, in turns");
        table.row(&what_new, &new, None);
        table.note(&format!(
            "last / first of the new one: {:.2} by medians, {:.2} by the best",
            last.median().as_secs_f64() / new.median().as_secs_f64(),
            last.best().as_secs_f64() / new.best().as_secs_f64(),
        ));
    }
    // Eleven points from the first to the last.
    let sizes: Vec<String> = (0..=10)
        .filter_map(|tenth| rounds.get((count - 1) * tenth / 10))
        .map(|round| format!("{:.1}", round.delta_bytes as f64 / MIB as f64))
        .collect();
    table.note(&format!("saved memory on the way: {} MiB", sizes.join(" ")));
    table.note(&format!(
        "disk chain: {chain} files; the process that counts is at {}",
        still.trim()
    ));
    new.destroy().await?;
    Ok(sandbox.destroy().await?)
}

async fn once(sandbox: &Sandbox, data: &Path) -> anyhow::Result<Round> {
    let start = Instant::now();
    sandbox.pause().await?;
    let pause = start.elapsed();
    let delta_bytes = delta_bytes(data)?;
    let start = Instant::now();
    sandbox.resume().await?;
    Ok(Round {
        pause,
        resume: start.elapsed(),
        delta_bytes,
    })
}
