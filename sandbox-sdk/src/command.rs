//! Describing a process to run.

use std::time::Duration;

use bytes::Bytes;
use sandbox_core::process::{ExecOutput, ProcessSpec, PtySize, Stdin, WhenFull};

use crate::{Process, Result, Sandbox};

/// A command to run in a sandbox. [`output`](Self::output) runs it to its end;
/// [`spawn`](Self::spawn) starts it and returns.
#[derive(Debug, Clone)]
#[must_use = "a command runs when it is told to"]
pub struct Command {
    sandbox: Sandbox,
    spec: ProcessSpec,
}

impl Command {
    pub(crate) fn new(sandbox: Sandbox, command: sandbox_core::process::Command) -> Self {
        Self {
            sandbox,
            spec: ProcessSpec::new(command),
        }
    }

    /// Adds an argument. A shell line takes none.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        if let sandbox_core::process::Command::Program { args, .. } = &mut self.spec.command {
            args.push(arg.into());
        }
        self
    }

    /// Adds arguments. A shell line takes none.
    pub fn args<A: Into<String>>(self, args: impl IntoIterator<Item = A>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    /// The working directory, absolute; the user's home by default.
    pub fn cwd(mut self, path: impl Into<String>) -> Self {
        self.spec.cwd = Some(path.into());
        self
    }

    /// Sets an environment variable, over the sandbox's own.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.spec.env.insert(name.into(), value.into());
        self
    }

    /// The user, by name or number; root by default.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.spec.user = Some(user.into());
        self
    }

    /// What it reads from stdin; nothing by default.
    pub fn stdin(mut self, data: impl Into<Bytes>) -> Self {
        self.spec.stdin = Stdin::Bytes(data.into());
        self
    }

    /// Keeps stdin open for [`Process::write_stdin`].
    pub fn piped_stdin(mut self) -> Self {
        self.spec.stdin = Stdin::Piped;
        self
    }

    /// Runs it on a terminal of this size. stdout and stderr are then one.
    pub fn pty(mut self, size: PtySize) -> Self {
        self.spec.pty = Some(size);
        self
    }

    /// Kills it with its children after this long.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.spec.timeout_ms = Some(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// How much output the sandbox keeps for readers, in bytes; 4 MiB by default.
    pub fn retain_bytes(mut self, bytes: u32) -> Self {
        self.spec.retain_bytes = bytes;
        self
    }

    /// Makes the process wait for its readers when it is that far ahead of them. Otherwise the
    /// oldest output is dropped, and readers are told so.
    pub fn wait_for_readers(mut self) -> Self {
        self.spec.when_full = WhenFull::Wait;
        self
    }

    /// As [`wait_for_readers`](Self::wait_for_readers), but readers that stay away for longer than
    /// this are not waited for until they come back.
    #[cfg(feature = "cli")]
    pub(crate) fn wait_for_readers_up_to(self, patience: Duration) -> Self {
        let mut command = self.wait_for_readers();
        let patience_ms = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
        command.spec.reader_patience_ms = Some(patience_ms);
        command
    }

    /// Runs it to its end and gives all that it wrote, up to 16 MiB.
    ///
    /// A command that fails is no error: look at [`ExecOutput::status`]. When this future is
    /// dropped the command runs on.
    ///
    /// # Errors
    /// When it could not be started or followed.
    pub async fn output(self) -> Result<ExecOutput> {
        self.sandbox.api.exec(self.sandbox.id, self.spec).await
    }

    /// Starts it and returns.
    ///
    /// # Errors
    /// When it could not be started.
    pub async fn spawn(self) -> Result<Process> {
        let started = self
            .sandbox
            .api
            .start_process(self.sandbox.id, self.spec, Duration::ZERO)
            .await?;
        Ok(Process::new(
            self.sandbox,
            started.pid,
            Some(started.output),
        ))
    }
}
