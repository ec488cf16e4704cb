//! Where sandboxes run: in this process, or in `sandbox-hostd` beside it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use sandbox_core::{
    error::Error,
    host::{Host, HostError},
    wire::Address,
};
use sandbox_host::{
    FolderLock, HostConfig, HostManager,
    daemon::{KeyFile, KeyFileError, warm_up},
    rpc::{RemoteHost, RemoteHostConfig},
};
use tokio::time::timeout;

use crate::config::Config;

/// What a stopping host gets. Together with what the engine gets it is less than the 10 s that a
/// stop may take.
const STOP_TIMEOUT: Duration = Duration::from_millis(3000);
/// How long a start waits for a host that is another process.
const REACH_TIMEOUT: Duration = Duration::from_secs(30);
/// After this long, it says that it waits.
const QUIET: Duration = Duration::from_secs(1);
/// The folder of the host, and of the lock that makes the data folder one daemon's.
const FOLDER: &str = "host";

/// A host that is another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostAddress {
    /// Where it listens.
    pub(crate) address: Address,
    /// The file with its secret.
    pub(crate) key_file: Option<PathBuf>,
}

/// Why the settings name no host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostChoiceError {
    /// There would be none.
    #[error(
        "--no-local-host leaves nowhere to run sandboxes: name a host with --host unix:PATH or \
         --host tcp:127.0.0.1:PORT"
    )]
    None,
    /// There would be two.
    #[error("--host goes with --no-local-host: a daemon has one host")]
    Two,
    /// It is named by an address that is none.
    #[error("--host: {0}")]
    Address(Error),
    /// There is no secret to show to it.
    #[error("--host {0} needs --host-key-file FILE: the host.key in that host's folder")]
    NoKey(Address),
}

impl HostAddress {
    /// What the settings say; nothing where sandboxes run in this process.
    pub(crate) fn choose(
        no_local_host: bool,
        host: Option<&str>,
        key_file: Option<PathBuf>,
    ) -> Result<Option<Self>, HostChoiceError> {
        let address: Address = match (no_local_host, host) {
            (false, None) => return Ok(None),
            (false, Some(_)) => return Err(HostChoiceError::Two),
            (true, None) => return Err(HostChoiceError::None),
            (true, Some(host)) => host.parse().map_err(HostChoiceError::Address)?,
        };
        if matches!(address, Address::Tcp(_)) && key_file.is_none() {
            return Err(HostChoiceError::NoKey(address));
        }
        Ok(Some(Self { address, key_file }))
    }
}

/// Why there is no host to work with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenHostError {
    /// The data folder, or the host in it, can't be used.
    #[error(transparent)]
    Host(HostError),
    /// The other process's secret can't be read.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The other process is not there, or turns us away.
    #[error("{0}; is a sandbox-hostd of ours running there?")]
    Away(HostError),
    /// The data folder can't be made.
    #[error("the folder {} can't be made", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

/// The host of a daemon.
#[derive(Debug)]
pub(crate) enum DaemonHost {
    /// In this process.
    Local(HostManager),
    /// Elsewhere. The data folder is ours alone all the same.
    Remote { host: RemoteHost, _lock: FolderLock },
}

impl DaemonHost {
    /// Opens the host, or reaches it. Its lock on the data folder is taken first.
    pub(crate) async fn open(config: &Config) -> Result<Self, OpenHostError> {
        let folder = config.data.join(FOLDER);
        let Some(remote) = &config.host else {
            let mut host = HostConfig::new(folder);
            host.kernel_dir.clone_from(&config.kernel_dir);
            host.pool_size = config.pool_size;
            host.disk_backend = config.disk_backend;
            let host = HostManager::open(host).await;
            return host.map(Self::Local).map_err(OpenHostError::Host);
        };
        std::fs::create_dir_all(&folder).map_err(|source| OpenHostError::Folder {
            path: folder.clone(),
            source,
        })?;
        let lock = FolderLock::take(&folder)
            .await
            .map_err(OpenHostError::Host)?;
        Ok(Self::Remote {
            host: reach(remote).await?,
            _lock: lock,
        })
    }

    pub(crate) fn as_host(&self) -> Arc<dyn Host> {
        match self {
            Self::Local(host) => Arc::new(host.clone()),
            Self::Remote { host, .. } => Arc::new(host.clone()),
        }
    }

    /// Has the first create be as fast as all others. A host elsewhere sees to that itself.
    pub(crate) fn warm_up(&self) {
        if let Self::Local(host) = self {
            tokio::spawn(warm_up(host.clone()));
        }
    }

    /// Lets go of it. Sandboxes run on.
    pub(crate) async fn shutdown(self) {
        if let Self::Local(host) = self
            && timeout(STOP_TIMEOUT, host.shutdown()).await.is_err()
        {
            tracing::warn!("the host was at work; the next start settles what it left");
        }
    }
}

async fn reach(remote: &HostAddress) -> Result<RemoteHost, OpenHostError> {
    let mut config = RemoteHostConfig::new(remote.address.to_string());
    if let Some(path) = &remote.key_file {
        config.secret = Some(KeyFile::new(path, "").read()?);
    }
    let internal = |error: Error| OpenHostError::Host(HostError::Internal(error.to_string()));
    let host = RemoteHost::new(config).map_err(internal)?;
    if let Err(error) = host.reached(QUIET).await {
        if host.is_refused() {
            return Err(OpenHostError::Away(error));
        }
        tracing::warn!(%error, "waiting for the host for {REACH_TIMEOUT:?}");
        host.reached(REACH_TIMEOUT)
            .await
            .map_err(OpenHostError::Away)?;
    }
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_has_one_host_and_shows_a_secret_where_one_is_needed() {
        let choose = HostAddress::choose;
        assert_eq!(choose(false, None, None).unwrap(), None);
        let unix = choose(true, Some("unix:/run/h.sock"), None).unwrap();
        assert_eq!(unix.unwrap().address, Address::Unix("/run/h.sock".into()));
        let tcp = choose(true, Some("tcp:127.0.0.1:7"), Some("/k".into())).unwrap();
        assert_eq!(tcp.unwrap().key_file, Some("/k".into()));
        for (no_local_host, host, words) in [
            (false, Some("unix:/h"), "--no-local-host"),
            (true, None, "--host unix:PATH"),
            (true, Some("http://h"), "unix:/path"),
            (true, Some("tcp:127.0.0.1:7"), "--host-key-file"),
        ] {
            let error = choose(no_local_host, host, None).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
