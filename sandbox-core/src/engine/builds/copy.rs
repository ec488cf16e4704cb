//! Copying files of a build's context into its sandbox.

use bytes::Bytes;

use crate::{
    build::{
        Scope, Step,
        context::{Context, Destination, Put},
    },
    engine::{
        Inner,
        builds::{
            command::{builder, failure},
            log::Log,
        },
    },
    error::Error,
    file::{FileKind, WriteSpec},
    guest::GuestError,
    id::SandboxId,
    process::{CHUNK_MAX_BYTES, Command, ProcessSpec},
};

/// What becomes of a `COPY`: done, or why not, by the recipe's fault.
pub(super) type Copied = Result<(), String>;

impl Inner {
    /// Does a `COPY`.
    pub(super) async fn copy_into(
        &self,
        sandbox: SandboxId,
        step: &Step,
        scope: &Scope,
        context: &Context,
        log: &mut Log,
    ) -> Result<Copied, Error> {
        let Step::Copy {
            sources,
            dest,
            mode,
            owner,
        } = step
        else {
            return Ok(Ok(()));
        };
        let mut to = Destination::new(dest, &scope.workdir);
        let was_there = self.is_dir(sandbox, &to.path).await?;
        to.is_dir |= was_there;
        let puts = match context.select(sources, &to, *mode) {
            Ok(puts) => puts,
            Err(problem) => return Ok(Err(problem.to_string())),
        };
        for put in &puts {
            if let Err(problem) = self.put(sandbox, put, log).await? {
                return Ok(Err(format!("{}: {problem}", put.path())));
            }
        }
        match owner {
            Some(owner) => {
                // A directory that was there is whose it was.
                let paths = puts.iter().map(|put| put.path());
                let paths = paths.filter(|path| !was_there || *path != to.path);
                let paths = paths.map(str::to_owned);
                self.chown(sandbox, owner, paths.collect(), log).await
            }
            None => Ok(Ok(())),
        }
    }

    async fn is_dir(&self, sandbox: SandboxId, path: &str) -> Result<bool, Error> {
        // With the slash a link to a directory is one.
        let within = format!("{}/.", path.trim_end_matches('/'));
        let caller = builder();
        let found = self
            .call(&caller, sandbox, |guest| async move {
                guest.stat(&within).await
            })
            .await;
        match found {
            Ok(stat) => Ok(stat.kind == FileKind::Directory),
            Err(Error::Guest(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn put(&self, sandbox: SandboxId, put: &Put, log: &mut Log) -> Result<Copied, Error> {
        match put {
            Put::Dir { path, mode } => {
                let made = self.make_guest_dir(sandbox, path).await?;
                match (made, mode) {
                    (Ok(()), Some(mode)) => {
                        let mode = format!("{mode:o}");
                        let args = vec![mode, "--".to_owned(), path.clone()];
                        self.run_plain(sandbox, "chmod", args, log).await
                    }
                    (made, _) => Ok(made),
                }
            }
            Put::File { path, mode, data } => self.put_file(sandbox, path, *mode, data).await,
            Put::Symlink { path, target } => {
                let parent = path.rsplit_once('/').map_or("/", |(parent, _)| parent);
                if let Err(problem) = self.make_guest_dir(sandbox, parent).await? {
                    return Ok(Err(problem));
                }
                let args = ["-sfn", "--", target, path].map(str::to_owned);
                self.run_plain(sandbox, "ln", args.to_vec(), log).await
            }
        }
    }

    /// Makes a directory in a sandbox, with those above it.
    pub(super) async fn make_guest_dir(
        &self,
        sandbox: SandboxId,
        path: &str,
    ) -> Result<Copied, Error> {
        if path.is_empty() || path == "/" {
            return Ok(Ok(()));
        }
        let caller = builder();
        let made = self
            .call(&caller, sandbox, |guest| async move {
                guest.make_dir(path, 0o755, true).await
            })
            .await;
        recipes_fault(made)
    }

    async fn put_file(
        &self,
        sandbox: SandboxId,
        path: &str,
        mode: u32,
        data: &Bytes,
    ) -> Result<Copied, Error> {
        let caller = builder();
        let spec = WriteSpec {
            path: path.to_owned(),
            mode: Some(mode),
            create_parents: true,
        };
        let opened = self
            .call(&caller, sandbox, |guest| async move {
                guest.open_write(spec).await
            })
            .await;
        let handle = match opened {
            Err(Error::Guest(error)) => return Ok(Err(error.to_string())),
            other => other?,
        };
        let mut offset = 0_u64;
        let mut rest = data.clone();
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(CHUNK_MAX_BYTES as usize));
            let size = piece.len() as u64;
            let written = self
                .call(&caller, sandbox, |guest| async move {
                    guest.write_chunk(handle, offset, piece).await
                })
                .await;
            if let Err(problem) = recipes_fault(written)? {
                return Ok(Err(problem));
            }
            offset += size;
        }
        let committed = self
            .call(&caller, sandbox, |guest| async move {
                guest.commit_write(handle, offset).await
            })
            .await;
        recipes_fault(committed.map(drop))
    }

    async fn chown(
        &self,
        sandbox: SandboxId,
        owner: &str,
        paths: Vec<String>,
        log: &mut Log,
    ) -> Result<Copied, Error> {
        /// Paths of one command: far below what a command line may have.
        const TOGETHER: usize = 64;
        for some in paths.chunks(TOGETHER) {
            let mut args = vec!["-h".to_owned(), "--".to_owned(), owner.to_owned()];
            args.extend(some.iter().cloned());
            if let Err(problem) = self.run_plain(sandbox, "chown", args, log).await? {
                return Ok(Err(problem));
            }
        }
        Ok(Ok(()))
    }

    async fn run_plain(
        &self,
        sandbox: SandboxId,
        program: &str,
        args: Vec<String>,
        log: &mut Log,
    ) -> Result<Copied, Error> {
        let spec = ProcessSpec::new(Command::Program {
            program: program.to_owned(),
            args,
        });
        match self.run_command(sandbox, spec, log).await {
            Ok(exit) => Ok(failure(exit).map_or(Ok(()), |how| Err(format!("{program}: {how}")))),
            Err(Error::Guest(error)) => Ok(Err(format!("{program}: {error}"))),
            Err(error) => Err(error),
        }
    }
}

/// The guest's refusals are the recipe's fault; whatever else is not.
fn recipes_fault(done: Result<(), Error>) -> Result<Copied, Error> {
    match done {
        Ok(()) => Ok(Ok(())),
        Err(Error::Guest(error)) => Ok(Err(words(&error))),
        Err(error) => Err(error),
    }
}

fn words(error: &GuestError) -> String {
    error.to_string()
}
