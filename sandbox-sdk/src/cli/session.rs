//! Whom the commands are for: a control plane, or this machine.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use sandbox_core::{error::Error, id::SandboxId};

use super::{args::Global, failure::Failure, progress};
use crate::{Client, EmbeddedConfig, RemoteConfig, Sandbox};

/// How long to wait for another command to let go of the data folder.
const FOLDER_PATIENCE: Duration = Duration::from_secs(5);
/// Template builds at a time within this program.
const BUILD_WORKERS: u32 = 2;
const FOLDER_RETRY: Duration = Duration::from_millis(50);

/// Where commands go, as told by flags before the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// A control plane.
    Remote(String),
    /// The sandboxes of this folder.
    Folder(PathBuf),
}

impl Target {
    pub(super) fn of(global: &Global) -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(address) = &global.remote {
            return Self::Remote(address.clone());
        }
        if let Some(folder) = &global.data {
            return Self::Folder(folder.clone());
        }
        if let Some(address) = variable("SANDBOX_REMOTE") {
            return Self::Remote(address.to_string_lossy().into_owned());
        }
        Self::Folder(EmbeddedConfig::default().data_dir)
    }
}

/// An open connection, or the platform in this process.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) json: bool,
}

impl Session {
    /// With `builds`, template builds may run in this process where no daemon is asked.
    pub(super) async fn open(global: Global, builds: bool) -> Result<Self, Failure> {
        let client = match Target::of(&global) {
            Target::Remote(address) => connect(address, &global).await?,
            Target::Folder(folder) => match ask_daemon(&folder).await? {
                Some(client) => client,
                None => {
                    let opening = embedded(&folder, builds);
                    progress::spinner("waiting for another command to finish", opening).await?
                }
            },
        };
        let json = global.json;
        Ok(Self { client, json })
    }

    /// A handle, without asking whether the sandbox is there.
    pub(super) fn sandbox(&self, id: SandboxId) -> Sandbox {
        Sandbox::new(self.client.api.clone(), id)
    }

    /// Lets go of the data folder. What is under way may end before, unless the user won't wait.
    pub(super) async fn close(self, json: bool) {
        let closing = progress::spinner("finishing", self.client.shutdown());
        tokio::select! {
            () = closing => {}
            _ = tokio::signal::ctrl_c() => {
                Failure::Interrupted.tell(json, false);
            }
        }
    }
}

pub(super) async fn connect(address: String, global: &Global) -> Result<Client, Failure> {
    let mut config = RemoteConfig::new(address);
    config.key = key(global)?;
    match Client::connect_with(config).await {
        Err(Error::Unavailable(words)) => {
            let words = format!("{words}; does `sandboxd` run there?");
            Err(Error::Unavailable(words).into())
        }
        other => Ok(other?),
    }
}

/// The API key: from the file that was named, else from the environment.
fn key(global: &Global) -> Result<Option<String>, Failure> {
    let from_file = |path: &Path| {
        let what = format!("can't read the API key from {}", path.display());
        let key = std::fs::read_to_string(path).map_err(Failure::local(what))?;
        Ok(Some(key.trim().to_owned()))
    };
    if let Some(path) = &global.key_file {
        return from_file(path);
    }
    if let Ok(key) = std::env::var("SANDBOX_API_KEY")
        && !key.trim().is_empty()
    {
        return Ok(Some(key.trim().to_owned()));
    }
    match std::env::var_os("SANDBOX_API_KEY_FILE") {
        Some(path) if !path.is_empty() => from_file(Path::new(&path)),
        _ => Ok(None),
    }
}

/// The daemon that serves a folder, if one does.
async fn ask_daemon(folder: &Path) -> Result<Option<Client>, Failure> {
    let socket = folder.join("sandboxd.sock");
    if !socket.exists() {
        return Ok(None);
    }
    match Client::connect(format!("unix:{}", socket.display())).await {
        Ok(client) => Ok(Some(client)),
        // One that was killed leaves its socket behind.
        Err(Error::Unavailable(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Opens a folder, once whoever uses it has finished.
async fn embedded(folder: &Path, builds: bool) -> Result<Client, Failure> {
    let started = Instant::now();
    // What other commands find waiting is not theirs to run.
    let workers = if builds { BUILD_WORKERS } else { 0 };
    loop {
        let config = EmbeddedConfig::in_folder(folder)
            .pool_size(0)
            .build_workers(workers);
        match Client::embedded(config).await {
            Err(Error::Unavailable(_)) if started.elapsed() < FOLDER_PATIENCE => {
                tokio::time::sleep(FOLDER_RETRY).await;
            }
            Err(Error::Unavailable(words)) => {
                return Err(Failure::Platform(Error::Unavailable(format!(
                    "{words}; to use one folder from several programs at once, run `sandboxd \
                     --data {}`",
                    folder.display()
                ))));
            }
            other => return Ok(other?),
        }
    }
}
