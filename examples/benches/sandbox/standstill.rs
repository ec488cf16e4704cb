//! How long a guest's processes stand still, told by one of them.
//!
//! It looks at the wall clock every 2 ms and notes each gap. The platform sets that clock before it
//! lets processes go on, so that it counts the time that the machine was stopped too. The uptime
//! does not: what both count is the time in which the kernel ran and processes did not.

use std::time::Duration;

use anyhow::Context;
use sandbox_sdk::Sandbox;

use crate::run;

/// Shorter gaps, in microseconds, are the host's and guest's schedulers'.
const GAP_MIN_US: u32 = 20_000;
const GAPS: &str = "/dev/shm/gaps";

/// A gap.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gap {
    /// All of it.
    pub(crate) all: Duration,
    /// The part in which the kernel ran, to the hundredth of a second.
    pub(crate) kernel_ran: Duration,
}

/// Starts the process.
pub(crate) async fn watch(sandbox: &Sandbox) -> anyhow::Result<()> {
    // Nobody writes to its stdin, so that `read` waits without a process of its own.
    let line = format!(
        "look() {{ t=${{EPOCHREALTIME/./}}; read u r < /proc/uptime; u=${{u/./}}; }}; look; \
         while :; do pt=$t; pu=$u; read -t 0.002 x; look; \
         [ $((t - pt)) -gt {GAP_MIN_US} ] && echo $((t - pt)) $((u - pu)) >> {GAPS}; done"
    );
    run(sandbox, &format!(": > {GAPS}")).await?;
    sandbox.shell(line).piped_stdin().spawn().await?;
    Ok(())
}

/// The longest gap since the last call.
pub(crate) async fn longest(sandbox: &Sandbox) -> anyhow::Result<Gap> {
    // A moment, so that it has noted the last one.
    let gaps = run(sandbox, &format!("sleep 0.1; cat {GAPS}; : > {GAPS}")).await?;
    let gaps = gaps.lines().filter_map(|line| {
        let (all, ran) = line.split_once(' ')?;
        Some(Gap {
            all: Duration::from_micros(all.parse().ok()?),
            kernel_ran: Duration::from_millis(ran.parse::<u64>().ok()? * 10),
        })
    });
    gaps.max_by_key(|gap| gap.all)
        .context("it never stood still")
}
