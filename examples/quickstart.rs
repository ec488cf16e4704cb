//! The main job, step by step, with what each step took.

#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::time::{Duration, Instant};

use sandbox_sdk::{Client, EmbeddedConfig, Error};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut steps = Steps(Instant::now());
    let client = match Client::embedded(EmbeddedConfig::default()).await {
        Err(Error::NotSetUp(what_to_do)) => anyhow::bail!("{what_to_do}"),
        other => other?,
    };
    steps.done("open the platform inside this program");

    client.prepare().await?;
    steps.done("make the template `minimal` ready (it boots once, ever)");

    let sandbox = client
        .create()
        .env("GREETING", "hello")
        .timeout(Duration::from_secs(600))
        .await?;
    steps.done("create a sandbox: a virtual machine of its own");

    let output = sandbox
        .exec("echo \"$GREETING from $(hostname), Linux $(uname -r)\"")
        .await?;
    steps.done("run a first command in it");
    println!("    {}", String::from_utf8_lossy(&output.stdout).trim());

    let output = sandbox.exec("df -m / | tail -n 1; exit 3").await?;
    steps.done("run a second one");
    println!("    {}", String::from_utf8_lossy(&output.stdout).trim());
    println!("    it ended with {:?}", output.status);

    sandbox
        .files()
        .write("/srv/words", "pear\napple\nfig\n")
        .await?;
    let sorted = sandbox
        .command("sort")
        .arg("words")
        .cwd("/srv")
        .user("user")
        .timeout(Duration::from_secs(5))
        .output()
        .await?;
    steps.done("write a file and sort it as an ordinary user");
    println!(
        "    {}",
        String::from_utf8_lossy(&sorted.stdout)
            .trim()
            .replace('\n', " ")
    );

    let found_again = client.get(sandbox.id()).await?;
    let info = found_again.info().await?;
    steps.done("find the sandbox again by its ID");
    println!(
        "    {} is {}, {} MiB of memory",
        info.id,
        info.state.as_str(),
        info.size.memory_mb
    );

    sandbox.destroy().await?;
    steps.done("destroy it, with all it held");

    client.shutdown().await;
    steps.done("close the platform");
    Ok(())
}

/// Prints what was done and how long it took.
struct Steps(Instant);

impl Steps {
    fn done(&mut self, what: &str) {
        println!("{:>9.1} ms  {what}", self.0.elapsed().as_secs_f64() * 1e3);
        self.0 = Instant::now();
    }
}
