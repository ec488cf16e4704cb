//! Running a command of a build: its output goes into the log as it comes.

use std::time::Duration;

use crate::{
    audit::Actor,
    build::Scope,
    caller::Caller,
    engine::{Inner, builds::log::Log},
    error::Error,
    id::SandboxId,
    process::{
        CHUNK_MAX_BYTES, Exit, ExitStatus, Output, OutputRequest, ProcessSpec, Started, WhenFull,
    },
};

/// How long the start itself waits for the end.
const START_WAIT: Duration = Duration::from_millis(500);
/// Between two looks at output: pieces that come quickly go into the log together.
const GATHER: Duration = Duration::from_millis(100);
/// How long a command waits for a reader that stays away. Far above any pause between two looks.
const READER_PATIENCE_MS: u32 = 10_000;
/// How often a look is repeated whose connection was lost. It names its offset, so that repeating it
/// costs and doubles nothing.
const READ_ATTEMPTS: u32 = 5;

/// Who runs a build's commands.
pub(super) fn builder() -> Caller {
    Caller::admin(Actor::system("builder"))
}

/// A shell line as a step runs it.
pub(super) fn shell(line: &str, scope: &Scope) -> ProcessSpec {
    ProcessSpec {
        cwd: Some(scope.workdir.clone()),
        env: scope.env.clone(),
        user: scope.user.clone(),
        ..ProcessSpec::shell(line)
    }
}

/// Whether an error of a call into a sandbox is the recipe's own fault.
pub(super) const fn is_recipes(error: &Error) -> bool {
    matches!(error, Error::Guest(_) | Error::InvalidRequest(_))
}

/// How a command ended, for people; absent where it succeeded.
pub(super) fn failure(exit: Exit) -> Option<String> {
    match exit.status {
        _ if exit.timed_out => Some("it took longer than it may".to_owned()),
        ExitStatus::Code(0) => None,
        ExitStatus::Code(code) => Some(format!("it ended with exit code {code}")),
        ExitStatus::Signal(signal) => Some(format!("signal {signal} ended it")),
    }
}

impl Inner {
    /// Runs a command to its end.
    pub(super) async fn run_command(
        &self,
        sandbox: SandboxId,
        mut spec: ProcessSpec,
        log: &mut Log,
    ) -> Result<Exit, Error> {
        spec.when_full = WhenFull::Wait;
        spec.reader_patience_ms = Some(READER_PATIENCE_MS);
        let caller = builder();
        let started: Started = self
            .call(&caller, sandbox, |guest| async move {
                guest.start_process(spec, START_WAIT).await
            })
            .await?;
        let mut output = started.output;
        let mut waits = true;
        loop {
            log.output(&output);
            if let Some(exit) = output.exit {
                return Ok(exit);
            }
            log.flush().await;
            // What is only counted need not hold the command up.
            if waits && !log.has_room() {
                waits = false;
                self.call(&caller, sandbox, |guest| async move {
                    guest.detach_output(started.pid).await
                })
                .await?;
            }
            if !output.chunks.is_empty() {
                self.clock.sleep(GATHER).await;
            }
            output = self
                .read_build_output(
                    sandbox,
                    started.pid,
                    output.next_offset,
                    self.config.long_poll,
                )
                .await?;
        }
    }

    /// What a process has written from an offset on.
    pub(super) async fn read_build_output(
        &self,
        sandbox: SandboxId,
        pid: u32,
        offset: u64,
        wait: Duration,
    ) -> Result<Output, Error> {
        let request = OutputRequest {
            offset,
            max_bytes: CHUNK_MAX_BYTES,
            wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
        };
        let caller = builder();
        let mut pause = self.config.backoff;
        let mut attempt = 1;
        loop {
            let read = self
                .call(&caller, sandbox, |guest| async move {
                    guest.read_output(pid, request).await
                })
                .await;
            match read {
                Err(Error::GuestUnavailable(_)) if attempt < READ_ATTEMPTS => {}
                other => return other,
            }
            attempt += 1;
            self.clock.sleep(pause).await;
            pause *= 2;
        }
    }
}
