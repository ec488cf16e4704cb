//! Pause and resume over the size of the guest's memory, of which the same amount is dirty.

use std::{path::Path, time::Instant};

use sandbox_host::testkit::bare::Bare;
use sandbox_sdk::{Client, Sandbox};

use crate::{
    MIB,
    files_of::{delta_bytes, noise, write_and_sync},
    fill_memory,
    table::{Samples, Table},
};

const MEMORY_MB: [u32; 3] = [256, 1024, 4096];
const DIRTY_MIB: usize = 64;
const ROUNDS: usize = 15;
/// The first resume reads files that nothing has read before.
const WARM_UP_ROUNDS: usize = 1;

struct Subject {
    memory_mb: u32,
    sandbox: Sandbox,
    pause: Samples,
    resume: Samples,
    delta_bytes: u64,
}

/// Sizes take turns, each time in another order.
pub(crate) async fn rows(
    client: &Client,
    bare: &Bare,
    data: &Path,
    table: &mut Table,
) -> anyhow::Result<()> {
    let mut subjects = Vec::new();
    for memory_mb in MEMORY_MB {
        let sandbox = client.create().memory_mb(memory_mb).await?;
        fill_memory(&sandbox, DIRTY_MIB).await?;
        subjects.push(Subject {
            memory_mb,
            sandbox,
            pause: Samples::default(),
            resume: Samples::default(),
            delta_bytes: 0,
        });
    }
    let (mut written, mut restored) = (Samples::default(), Samples::default());
    for round in 0..WARM_UP_ROUNDS + ROUNDS {
        subjects.rotate_left(1);
        for subject in &mut subjects {
            let start = Instant::now();
            subject.sandbox.pause().await?;
            let pause = start.elapsed();
            subject.delta_bytes = delta_bytes(data)?;
            let start = Instant::now();
            subject.sandbox.resume().await?;
            let resume = start.elapsed();
            if round >= WARM_UP_ROUNDS {
                subject.pause.add(pause);
                subject.resume.add(resume);
            }
        }
        // The floors: the same bytes without a guest, and a guest without those bytes.
        let bytes = noise(usize::try_from(subjects[0].delta_bytes)?);
        let folder = data.to_path_buf();
        let took = tokio::task::spawn_blocking(move || write_and_sync(&folder, &bytes)).await??;
        let floor = bare.restore().await?;
        if round >= WARM_UP_ROUNDS {
            written.add(took);
            restored.add(floor.agent_answered);
        }
    }
    subjects.sort_by_key(|subject| subject.memory_mb);
    table.row(
        "as many bytes as a pause saves, written and synced",
        &written,
        None,
    );
    for subject in &subjects {
        let what = format!(
            "pause, {} MiB of memory, {DIRTY_MIB} MiB dirty",
            subject.memory_mb
        );
        table.row(&what, &subject.pause, Some(("bytes alone", &written)));
    }
    note_flatness(table, &subjects, |subject| &subject.pause);
    for subject in &subjects {
        let what = format!(
            "resume, {} MiB of memory, {DIRTY_MIB} MiB dirty",
            subject.memory_mb
        );
        table.row(&what, &subject.resume, Some(("agent floor", &restored)));
    }
    note_flatness(table, &subjects, |subject| &subject.resume);
    let saved: Vec<String> = subjects
        .iter()
        .map(|subject| (subject.delta_bytes / MIB as u64).to_string())
        .collect();
    table.note(&format!("saved memory: {} MiB", saved.join(", ")));
    for subject in subjects {
        subject.sandbox.destroy().await?;
    }
    Ok(())
}

/// The largest over the smallest: by medians, and by the best of each, which other work on the
/// machine changes least.
fn note_flatness(table: &mut Table, subjects: &[Subject], of: fn(&Subject) -> &Samples) {
    let (Some(smallest), Some(largest)) = (subjects.first(), subjects.last()) else {
        return;
    };
    let medians = of(largest).median().as_secs_f64() / of(smallest).median().as_secs_f64();
    let best = of(largest).best().as_secs_f64() / of(smallest).best().as_secs_f64();
    table.note(&format!(
        "largest / smallest memory: {medians:.2} by medians, {best:.2} by the best"
    ));
}
