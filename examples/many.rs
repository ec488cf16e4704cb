//! Many sandboxes at once: one for each piece of work, and all gone at the end.

#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::time::Instant;

use futures::{StreamExt, TryStreamExt, stream};
use sandbox_sdk::{Client, EmbeddedConfig, PageRequest, SandboxFilter};

const SANDBOXES: u32 = 8;
const AT_A_TIME: usize = 4;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = Client::embedded(EmbeddedConfig::default()).await?;
    client.prepare().await?;
    let start = Instant::now();

    let client_ref = &client;
    let results: Vec<String> = stream::iter(1..=SANDBOXES)
        .map(|number| async move {
            let sandbox = client_ref
                .create()
                .memory_mb(512)
                .metadata("batch", "squares")
                .await?;
            let output = sandbox.exec(format!("echo {number} squared is $(({number} * {number}))"));
            let output = output.await?;
            anyhow::Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        })
        .buffered(AT_A_TIME)
        .try_collect()
        .await?;
    for line in &results {
        println!("{line}");
    }
    println!(
        "{SANDBOXES} sandboxes in {:.2} s",
        start.elapsed().as_secs_f64()
    );

    let filter = SandboxFilter {
        metadata: [("batch".to_owned(), "squares".to_owned())].into(),
        ..SandboxFilter::default()
    };
    for record in client.list(filter, PageRequest::default()).await?.items {
        client.get(record.id).await?.destroy().await?;
    }
    client.shutdown().await;
    Ok(())
}
