//! The main job, step by step, with what each step took: create, exec, pause, resume, snapshot,
//! clone, and all of it gone again.

#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::time::{Duration, Instant};

use futures::TryStreamExt;
use sandbox_sdk::{Client, EmbeddedConfig, Error, Process, ProcessEvent};

/// A shell that counts the lines it is told, in a variable: in memory, and nowhere else.
const COUNTER: &str = "n=0; while read line; do n=$((n + 1)); echo \"$n: $line\"; done";

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
    steps.done("run a command in it");
    say(&output.stdout);

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
    say(&sorted.stdout);

    let counter = sandbox.shell(COUNTER).piped_stdin().spawn().await?;
    let said = tell(&counter, "before the pause").await?;
    steps.done("leave a process running that counts in its memory");
    say(&said);

    sandbox.pause().await?;
    steps.done("pause: memory and disk are saved, and nothing runs");

    sandbox.resume().await?;
    steps.done("resume");

    let said = tell(&counter, "after the pause").await?;
    steps.done("ask the same process again");
    say(&said);

    let template = sandbox.unnamed_snapshot().resume(true).await?;
    steps.done("make a snapshot of it while it runs: a template, memory and all");
    println!(
        "    {} takes {} MiB on this machine's disk",
        template.name(),
        template.info().size_bytes() / (1024 * 1024)
    );

    let clone = client.create().template(&template).await?;
    steps.done("start a clone of the snapshot");

    let said = tell(&clone.process(counter.pid()), "in the clone").await?;
    steps.done("ask the process in the clone: it was never started there");
    say(&said);

    let said = tell(&counter, "in the original").await?;
    steps.done("ask the original, which knows nothing of that");
    say(&said);

    clone.destroy().await?;
    sandbox.destroy().await?;
    steps.done("destroy both, with all they held");

    template.delete().await?;
    steps.done("delete the snapshot");

    client.shutdown().await;
    steps.done("close the platform");
    Ok(())
}

/// Writes a line to a process and gives what it answers, up to the end of the line.
async fn tell(process: &Process, line: &str) -> anyhow::Result<Vec<u8>> {
    let mut answer = Vec::new();
    process.write_stdin(format!("{line}\n")).await?;
    let mut events = std::pin::pin!(process.events());
    while let Some(event) = events.try_next().await? {
        match event {
            ProcessEvent::Stdout(bytes) => answer.extend_from_slice(&bytes),
            ProcessEvent::Exit(exit) => anyhow::bail!("it ended: {exit:?}"),
            _ => {}
        }
        // Its output is told from the beginning; the last line is the answer.
        if answer.ends_with(format!("{line}\n").as_bytes()) {
            break;
        }
    }
    let text = answer.strip_suffix(b"\n").unwrap_or(&answer);
    let last = text.rsplit(|byte| *byte == b'\n').next();
    Ok(last.unwrap_or_default().to_vec())
}

/// Shows what a command wrote, on one line.
fn say(written: &[u8]) {
    let text = String::from_utf8_lossy(written);
    println!("    {}", text.trim().replace('\n', " "));
}

/// Prints what was done and how long it took.
struct Steps(Instant);

impl Steps {
    fn done(&mut self, what: &str) {
        println!("{:>9.1} ms  {what}", self.0.elapsed().as_secs_f64() * 1e3);
        self.0 = Instant::now();
    }
}
