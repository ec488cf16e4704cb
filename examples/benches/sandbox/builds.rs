//! Building a template, beside the same commands run by hand in a sandbox that is then saved.

use std::time::{Duration, Instant};

use sandbox_sdk::{BuildEvent, BuildPhase, Client};

use crate::{
    run,
    table::{Samples, Table},
};

const STEPS: usize = 3;
const STEP_MIB: usize = 32;
const ROUNDS: usize = 5;

pub(crate) async fn rows(client: &Client, table: &mut Table) -> anyhow::Result<()> {
    let (mut by_hand, mut saved) = (Samples::default(), Samples::default());
    let (mut built, mut published, mut cached) = <(Samples, Samples, Samples)>::default();
    for round in 0..ROUNDS {
        let (whole, saving) = by_exec(client).await?;
        by_hand.add(whole);
        saved.add(saving);
        let (whole, publishing) = build(client, round, true).await?;
        built.add(whole);
        published.add(publishing);
        // What the build before left behind is used, though it used nothing itself.
        cached.add(build(client, round, false).await?.0);
    }
    client.templates().delete("bench").await?;
    let what = format!("{STEPS} commands of {STEP_MIB} MiB each by exec, and an image");
    table.row(&what, &by_hand, None);
    table.row(
        "the same as a build, a layer a step",
        &built,
        Some(("exec", &by_hand)),
    );
    table.row("an image of the last command's sandbox", &saved, None);
    table.row(
        "the last step's end to the template ready",
        &published,
        Some(("image", &saved)),
    );
    table.row(
        "the build again, all of it cached",
        &cached,
        Some(("exec", &by_hand)),
    );
    Ok(())
}

fn line(number: usize) -> String {
    format!("dd if=/dev/urandom of=/srv/{number} bs=1M count={STEP_MIB} 2>/dev/null")
}

/// All of it, and making the image alone.
async fn by_exec(client: &Client) -> anyhow::Result<(Duration, Duration)> {
    let begun = Instant::now();
    let sandbox = client.create().await?;
    for number in 0..STEPS {
        run(&sandbox, &line(number)).await?;
    }
    let ran = Instant::now();
    let image = sandbox.unnamed_snapshot().image_only().await?;
    let ended = Instant::now();
    sandbox.destroy().await?;
    image.delete().await?;
    Ok((ended - begun, ended - ran))
}

/// All of it, and what came behind the recipe's last step.
async fn build(
    client: &Client,
    round: usize,
    no_cache: bool,
) -> anyhow::Result<(Duration, Duration)> {
    let begun = Instant::now();
    // A recipe of its own in each round: no round finds what another left.
    let mut lines: Vec<String> = (0..STEPS).map(line).collect();
    lines[0] = format!("{} # {round}", lines[0]);
    let mut ran = begun;
    client
        .build_template("bench")
        .recipe(lines)
        .no_cache(no_cache)
        .run(|event| {
            if matches!(&event, BuildEvent::StepEnded(step) if step.phase == BuildPhase::Recipe) {
                ran = Instant::now();
            }
        })
        .await?;
    let ended = Instant::now();
    Ok((ended - begun, ended - ran))
}
