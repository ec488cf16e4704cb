//! What the platform costs over the machine under it, in one table: `make bench`.
//!
//! Every row stands beside a floor or a peer measured in the same run, in turns where both are
//! repeated, so that a machine whose speed drifts changes both. Nothing here passes or fails.
//!
//! Parts of it are run by their names: `cargo bench -p sandbox-examples -- pause snapshot`.

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

mod basics;
mod builds;
mod daemon;
mod files_of;
mod fill;
mod flatten;
mod http;
mod memory;
mod pause;
mod pauses;
mod reconcile;
mod remote;
mod snapshot;
mod standstill;
mod table;
mod throughput;

use sandbox_host::testkit::bare::Bare;
use sandbox_sdk::{Client, EmbeddedConfig, Sandbox};

use table::Table;

const MIB: usize = 1024 * 1024;
const PARTS: [&str; 7] = [
    "basics",
    "reconcile",
    "pause",
    "pauses",
    "snapshot",
    "flatten",
    "builds",
];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some(throughput::SERVE_CONSTANT) {
        return throughput::serve_constant(args.next().unwrap_or_default()).await;
    }
    // Cargo adds options of its own.
    let named: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    if let Some(unknown) = named.iter().find(|name| !PARTS.contains(&name.as_str())) {
        anyhow::bail!(
            "there is no part `{unknown}`; there are {}",
            PARTS.join(", ")
        );
    }
    let wanted = |part: &str| named.is_empty() || named.iter().any(|name| name == part);

    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let mut table = Table::default();
    if wanted("basics") {
        basics::rows(folder, &mut table).await?;
    }
    if wanted("reconcile") {
        reconcile::rows(folder, &mut table).await?;
    }
    let needs_machines = PARTS
        .iter()
        .any(|part| !matches!(*part, "basics" | "reconcile") && wanted(part));
    if !needs_machines {
        table.print();
        return Ok(());
    }
    let config = EmbeddedConfig::in_folder(folder).pool_size(0);
    let client = Client::embedded(config).await?;
    client.prepare().await?;
    let bare = Bare::open(&folder.join("host")).await?;
    if wanted("pause") {
        pause::rows(&client, &bare, folder, &mut table).await?;
    }
    if wanted("pauses") {
        pauses::rows(&client, folder, &mut table).await?;
    }
    if wanted("snapshot") {
        snapshot::rows(&client, &bare, &mut table).await?;
    }
    if wanted("flatten") {
        flatten::rows(&client, folder, &mut table).await?;
    }
    if wanted("builds") {
        builds::rows(&client, &mut table).await?;
    }
    client.shutdown().await;
    table.print();
    Ok(())
}

/// Runs a shell line that must do well, and gives what it wrote.
async fn run(sandbox: &Sandbox, line: &str) -> anyhow::Result<String> {
    let output = sandbox.exec(line).await?;
    anyhow::ensure!(output.status.success(), "`{line}` failed: {output:?}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Fills this much of the guest's memory with what can't be made smaller.
async fn fill_memory(sandbox: &Sandbox, mib: usize) -> anyhow::Result<()> {
    let line = format!("head -c {} /dev/urandom > /dev/shm/dirty", mib * MIB);
    run(sandbox, &line).await.map(drop)
}
