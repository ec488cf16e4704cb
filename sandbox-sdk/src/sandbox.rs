//! A handle on one sandbox.

use std::{fmt, sync::Arc};

use sandbox_core::{
    api::Api,
    id::SandboxId,
    process::{ExecOutput, ProcessInfo},
    sandbox::SandboxRecord,
};

use crate::{Command, Files, Process, Result, Snapshot};

/// A handle on a sandbox. Clones are handles on the same one; dropping them ends nothing.
#[derive(Clone)]
pub struct Sandbox {
    pub(crate) api: Arc<dyn Api>,
    pub(crate) id: SandboxId,
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sandbox").field(&self.id).finish()
    }
}

impl Sandbox {
    pub(crate) fn new(api: Arc<dyn Api>, id: SandboxId) -> Self {
        Self { api, id }
    }

    /// Its ID, to find it again by.
    #[must_use]
    pub fn id(&self) -> SandboxId {
        self.id
    }

    /// What the platform knows of it now.
    ///
    /// # Errors
    /// [`Error::SandboxNotFound`](crate::Error::SandboxNotFound) once it was destroyed.
    pub async fn info(&self) -> Result<SandboxRecord> {
        self.api.get(self.id).await
    }

    /// Runs a shell line to its end.
    ///
    /// A command that fails is no error: look at [`ExecOutput::status`].
    ///
    /// # Errors
    /// When the sandbox does not run, or its guest could not start `/bin/sh`.
    pub async fn exec(&self, line: impl Into<String>) -> Result<ExecOutput> {
        self.shell(line).output().await
    }

    /// Begins to describe a shell line to run.
    #[must_use = "a command runs when it is told to"]
    pub fn shell(&self, line: impl Into<String>) -> Command {
        Command::new(
            self.clone(),
            sandbox_core::process::Command::Shell(line.into()),
        )
    }

    /// Begins to describe a program to run, without a shell.
    ///
    /// ```no_run
    /// # async fn example(sandbox: sandbox_sdk::Sandbox) -> Result<(), sandbox_sdk::Error> {
    /// let output = sandbox.command("wc").arg("-c").stdin("four").output().await?;
    /// assert_eq!(output.stdout, "4\n");
    /// # Ok(()) }
    /// ```
    #[must_use = "a command runs when it is told to"]
    pub fn command(&self, program: impl Into<String>) -> Command {
        let program = program.into();
        Command::new(
            self.clone(),
            sandbox_core::process::Command::Program {
                program,
                args: Vec::new(),
            },
        )
    }

    /// Processes that were started through the platform, the oldest first; the last ended ones
    /// among them.
    ///
    /// # Errors
    /// When the sandbox does not run.
    pub async fn processes(&self) -> Result<Vec<ProcessInfo>> {
        self.api.processes(self.id).await
    }

    /// A handle on a process by its ID, such as from [`processes`](Self::processes).
    #[must_use]
    pub fn process(&self, pid: u32) -> Process {
        Process::new(self.clone(), pid, None)
    }

    /// Its files.
    #[must_use]
    pub fn files(&self) -> Files<'_> {
        Files::new(self)
    }

    /// Asks the guest for a sign of life, and pushes the sandbox's timeout.
    ///
    /// # Errors
    /// When it gives none.
    pub async fn ping(&self) -> Result<SandboxRecord> {
        self.api.ping(self.id).await
    }

    /// Saves its memory and disk and ends its process: what is paused costs disk and nothing else. A
    /// paused one is done already. The work goes on when the caller goes away.
    ///
    /// ```no_run
    /// # async fn example(sandbox: sandbox_sdk::Sandbox) -> Result<(), sandbox_sdk::Error> {
    /// let counter = sandbox.shell("n=0; while sleep 1; do n=$((n+1)); echo $n; done");
    /// let counter = counter.spawn().await?;
    /// sandbox.pause().await?;
    /// // An hour or a restart later:
    /// sandbox.resume().await?;
    /// // It counts on from where it was.
    /// counter.kill().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidState`](crate::Error::InvalidState) where it neither runs nor is paused.
    pub async fn pause(&self) -> Result<SandboxRecord> {
        self.api.pause(self.id).await
    }

    /// Has it go on where it was paused, with the same processes, files and open state. A running
    /// one is done already.
    ///
    /// # Errors
    /// [`Error::InvalidState`](crate::Error::InvalidState) where it neither runs nor is paused.
    pub async fn resume(&self) -> Result<SandboxRecord> {
        self.api.resume(self.id).await
    }

    /// Begins to describe a template made of this sandbox, with its memory; awaiting it makes the
    /// template. The sandbox is paused afterwards, unless [`Snapshot::resume`] says otherwise. The
    /// work goes on when the caller goes away.
    ///
    /// ```no_run
    /// # async fn example(client: sandbox_sdk::Client, sandbox: sandbox_sdk::Sandbox)
    /// # -> Result<(), sandbox_sdk::Error> {
    /// let template = sandbox.snapshot("with-tools").resume(true).await?;
    /// let clone = client.create().template(&template).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::TemplateExists`](crate::Error::TemplateExists);
    /// [`Error::Forbidden`](crate::Error::Forbidden) for a name of the platform's.
    pub fn snapshot(&self, name: impl Into<String>) -> Snapshot {
        Snapshot::new(self.clone(), Some(name.into()))
    }

    /// Like [`snapshot`](Self::snapshot), with a name made up by the platform.
    ///
    /// # Errors
    /// As for [`snapshot`](Self::snapshot).
    pub fn unnamed_snapshot(&self) -> Snapshot {
        Snapshot::new(self.clone(), None)
    }

    /// Removes the sandbox with its memory and disk, whatever its state. Twice is as good as once.
    ///
    /// # Errors
    /// When the host could not; the platform goes on trying.
    pub async fn destroy(&self) -> Result<()> {
        self.api.destroy(self.id).await
    }
}
