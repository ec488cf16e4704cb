//! Output as it comes, input while it runs, and a reader that goes away and comes back.

#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::pin::pin;

use futures::TryStreamExt;
use sandbox_sdk::{Client, EmbeddedConfig, ProcessEvent};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = Client::embedded(EmbeddedConfig::default()).await?;
    let sandbox = client.create().await?;

    let count = sandbox
        .shell("for i in 1 2 3; do echo line $i; sleep 0.3; done")
        .spawn()
        .await?;
    println!("process {} runs", count.pid());

    // A reader remembers how far it has come …
    let mut seen = 0;
    let mut events = pin!(count.events());
    if let Some(ProcessEvent::Stdout(bytes)) = events.try_next().await? {
        seen += bytes.len() as u64;
        println!("first reader:  {:?}", String::from_utf8_lossy(&bytes));
    }

    // … and another one goes on from there. No byte is lost or read twice.
    let mut events = pin!(count.events_from(seen));
    while let Some(event) = events.try_next().await? {
        match event {
            ProcessEvent::Stdout(bytes) | ProcessEvent::Stderr(bytes) => {
                println!("second reader: {:?}", String::from_utf8_lossy(&bytes));
            }
            ProcessEvent::Dropped(bytes) => println!("{bytes} bytes came too fast"),
            ProcessEvent::Exit(exit) => println!("ended: {:?}", exit.status),
        }
    }

    // A conversation over stdin.
    let upper = sandbox
        .command("tr")
        .args(["a-z", "A-Z"])
        .piped_stdin()
        .spawn()
        .await?;
    upper.write_stdin("said quietly\n").await?;
    upper.close_stdin().await?;
    let mut events = pin!(upper.events());
    while let Some(event) = events.try_next().await? {
        if let ProcessEvent::Stdout(bytes) = event {
            print!("tr says: {}", String::from_utf8_lossy(&bytes));
        }
    }

    sandbox.destroy().await?;
    client.shutdown().await;
    Ok(())
}
