//! What the daemon is told: by flags, then `SANDBOX_...` variables, then a TOML file, then defaults.

use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;
use sandbox_core::{disk::DiskChoice, engine::EngineConfig};
use sandbox_host::daemon::LogFormat;
use sandbox_store::RedisUrlError;
use serde::Deserialize;

use crate::{
    database::Database,
    host::{HostAddress, HostChoiceError},
    limits::Limits,
    queue::QueueChoice,
};

/// The sandbox platform as a daemon: isolated Linux machines over REST.
///
/// Each sandbox is a virtual machine with a kernel, memory and disk of its own. They are created in
/// a fraction of a second, and live on when the daemon stops: the next one finds them.
#[derive(Debug, Clone, Default, Parser)]
#[command(
    name = "sandboxd",
    version,
    after_long_help = "EXAMPLE
  sandboxd --data /var/lib/sandbox --listen 127.0.0.1:8080

  In another terminal, as the same user:
    KEY=$(cat /var/lib/sandbox/admin.key)
    curl -s -X POST -H \"X-API-Key: $KEY\" http://127.0.0.1:8080/v1/sandboxes
    curl -s -H \"X-API-Key: $KEY\" --json '{\"cmd\":\"uname -a\"}' \\
         http://127.0.0.1:8080/v1/sandboxes/ID/exec
    curl -s -X DELETE -H \"X-API-Key: $KEY\" http://127.0.0.1:8080/v1/sandboxes/ID

  When it is ready it prints one line with its address. /docs describes the interface, /openapi.json
  is the same for programs. /healthz, /readyz and /metrics need no key.

FILES
  DATA/admin.key     the administrator's API key, written by the first start; remove it for a new one
  DATA/sandbox.db    the records (SQLite)
  DATA/host/         images, disks and machines
  DATA/sandboxd.sock where the Rust SDK and the tool `sandbox` come in, on this machine

CONFIGURATION FILE (TOML; a flag or variable goes before what it says)
  data = \"/var/lib/sandbox\"
  listen = \"127.0.0.1:8080\"
  pool_size = 2

SIGNALS
  SIGTERM, SIGINT    stop within 10 seconds; sandboxes run on. A second one stops at once."
)]
pub struct Args {
    /// The folder that holds everything; one daemon at a time may use it
    ///
    /// Where neither this nor SANDBOX_DATA says it, SANDBOX_DATA_DIR does.
    #[arg(long, env = "SANDBOX_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// The address to listen on [default: 127.0.0.1:8080]
    ///
    /// Port 0 takes any that is free. The interface is plain HTTP: keep it on the loopback or put a
    /// TLS proxy before it.
    #[arg(long, env = "SANDBOX_LISTEN", value_name = "ADDR")]
    pub listen: Option<SocketAddr>,

    /// Take clients of the Rust SDK and of the tool `sandbox` here too, as tcp:HOST:PORT
    ///
    /// They show the administrator's key, or a team's. On this machine they use DATA/sandboxd.sock without one.
    #[arg(long, env = "SANDBOX_RPC_LISTEN", value_name = "ADDR")]
    pub rpc_listen: Option<String>,

    /// Keep the records in this PostgreSQL database instead of DATA/sandbox.db
    #[arg(
        long,
        env = "SANDBOX_DATABASE_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub database_url: Option<String>,

    /// Wake workers up through this Redis instead of within the daemon
    ///
    /// redis://USER:PASSWORD@HOST:PORT/DATABASE, rediss:// for TLS, or redis+unix:///PATH. Daemons
    /// that share a PostgreSQL share it too.
    #[arg(
        long,
        env = "SANDBOX_REDIS_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub redis_url: Option<String>,

    /// Run no sandboxes in this process: be a control plane for the host that --host names
    #[arg(long, env = "SANDBOX_NO_LOCAL_HOST")]
    pub no_local_host: bool,

    /// Where the sandbox-hostd listens that runs the sandboxes: unix:PATH or tcp:127.0.0.1:PORT
    ///
    /// The start waits for it a while, and /readyz answers 503 for as long as it is away.
    #[arg(long, env = "SANDBOX_HOST", value_name = "ADDR")]
    pub host: Option<String>,

    /// The file with that host's secret, which tcp: needs: the host.key in its folder
    #[arg(long, env = "SANDBOX_HOST_KEY_FILE", value_name = "FILE")]
    pub host_key_file: Option<PathBuf>,

    /// Take the keys of teams from this file: lines of a team's ID and a key
    ///
    /// It must be its owner's alone (mode 0600), and is read once. Callers with a team's key see and
    /// use what is their team's, and the platform's templates.
    #[arg(long, env = "SANDBOX_TEAM_KEYS", value_name = "FILE")]
    pub team_keys: Option<PathBuf>,

    /// Read further settings from this TOML file
    #[arg(long, env = "SANDBOX_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Restored machines that wait for the next create, some 30 MiB each [default: 2]
    #[arg(long, env = "SANDBOX_POOL_SIZE", value_name = "N")]
    pub pool_size: Option<usize>,

    /// Template builds that run at the same time; 0 leaves all to other daemons [default: 2]
    #[arg(long, env = "SANDBOX_BUILD_WORKERS", value_name = "N")]
    pub build_workers: Option<u32>,

    /// What makes the disks of new sandboxes: auto, reflink, qcow2 or dm-snapshot [default: auto]
    ///
    /// auto takes reflink where the data folder's file system shares blocks between files (XFS,
    /// btrfs), and qcow2 elsewhere. dm-snapshot needs root and the kernel's device-mapper. Sandboxes
    /// that are there keep what they have.
    #[arg(long, env = "SANDBOX_DISK_BACKEND", value_name = "BACKEND")]
    pub disk_backend: Option<DiskChoice>,

    /// Look for a guest kernel here before the usual places
    #[arg(long, env = "SANDBOX_KERNEL_DIR", value_name = "DIR")]
    pub kernel_dir: Option<PathBuf>,

    /// The most connections at a time [default: 8192, or what the system's limits leave]
    #[arg(long, env = "SANDBOX_MAX_CONNECTIONS", value_name = "N")]
    pub max_connections: Option<usize>,

    /// What to log to stderr, such as `info` or `sandbox_api=debug,warn` [default: info]
    #[arg(long, env = "SANDBOX_LOG", value_name = "FILTER")]
    pub log: Option<String>,

    /// How log lines are written [default: text]
    #[arg(long, env = "SANDBOX_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// The file's settings.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    data: Option<PathBuf>,
    listen: Option<SocketAddr>,
    rpc_listen: Option<String>,
    team_keys: Option<PathBuf>,
    database_url: Option<String>,
    redis_url: Option<String>,
    no_local_host: Option<bool>,
    host: Option<String>,
    host_key_file: Option<PathBuf>,
    pool_size: Option<usize>,
    build_workers: Option<u32>,
    disk_backend: Option<DiskChoice>,
    kernel_dir: Option<PathBuf>,
    max_connections: Option<usize>,
    log: Option<String>,
    log_format: Option<LogFormat>,
}

/// What the daemon runs with.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The folder that holds everything.
    pub data: PathBuf,
    /// Where the records are.
    pub database: Database,
    /// What wakes the workers up.
    pub queue: QueueChoice,
    /// The address to listen on.
    pub listen: SocketAddr,
    /// Where clients of the Rust SDK and the command line tool may come in besides the socket in
    /// the data folder.
    pub rpc_listen: Option<String>,
    /// The file with teams' keys.
    pub team_keys: Option<PathBuf>,
    /// The host that is another process; none where sandboxes run in this one.
    pub host: Option<HostAddress>,
    /// Where guest kernels are looked for first.
    pub kernel_dir: Option<PathBuf>,
    /// Restored machines that wait.
    pub pool_size: usize,
    /// Template builds that run at the same time.
    pub build_workers: u32,
    /// What makes new sandboxes' disks.
    pub disk_backend: DiskChoice,
    /// Bounds.
    pub limits: Limits,
    /// What to log.
    pub log: String,
    /// How to log.
    pub log_format: LogFormat,
}

/// Why the settings make no sense.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("the configuration file {} can't be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The file is no such TOML.
    #[error("the configuration file {} makes no sense", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: toml::de::Error,
    },
    /// Nobody said where the data is.
    #[error(
        "which folder holds the data? Give --data DIR (or SANDBOX_DATA), such as --data ./data"
    )]
    NoData,
    /// A number is out of bounds.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// There is not one host.
    #[error(transparent)]
    Host(#[from] HostChoiceError),
    /// The URL of a Redis server makes no sense.
    #[error("--redis-url (SANDBOX_REDIS_URL, `redis_url`)")]
    Redis(#[from] RedisUrlError),
}

impl Config {
    /// Puts the settings together.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(mut args: Args) -> Result<Self, ConfigError> {
        // The name that the SDK and the command line tool know it by too.
        args.data = args.data.or_else(|| {
            let folder = std::env::var_os("SANDBOX_DATA_DIR")?;
            (!folder.is_empty()).then(|| folder.into())
        });
        let file = match &args.config {
            None => File::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
                    path: path.clone(),
                    source,
                })?;
                toml::from_str(&text).map_err(|source| ConfigError::Parse {
                    path: path.clone(),
                    source,
                })?
            }
        };
        Self::combine(args, file)
    }

    fn combine(args: Args, file: File) -> Result<Self, ConfigError> {
        const POOL_SIZE: usize = 2;
        let host = HostAddress::choose(
            args.no_local_host || file.no_local_host == Some(true),
            args.host.or(file.host).as_deref(),
            args.host_key_file.or(file.host_key_file),
        )?;
        let mut limits = Limits::default();
        if let Some(most) = args.max_connections.or(file.max_connections) {
            if most == 0 {
                return Err(ConfigError::Zero("--max-connections"));
            }
            limits.connections_max = most;
        }
        let data = args.data.or(file.data).ok_or(ConfigError::NoData)?;
        let database = match args.database_url.or(file.database_url) {
            Some(url) => Database::Postgres(url),
            None => Database::Sqlite(data.join("sandbox.db")),
        };
        let queue = QueueChoice::of(args.redis_url.or(file.redis_url))?;
        Ok(Self {
            data,
            database,
            queue,
            rpc_listen: args.rpc_listen.or(file.rpc_listen),
            team_keys: args.team_keys.or(file.team_keys),
            listen: args
                .listen
                .or(file.listen)
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080))),
            host,
            kernel_dir: args.kernel_dir.or(file.kernel_dir),
            pool_size: args.pool_size.or(file.pool_size).unwrap_or(POOL_SIZE),
            build_workers: args
                .build_workers
                .or(file.build_workers)
                .unwrap_or(EngineConfig::DEFAULT.build_workers),
            disk_backend: args.disk_backend.or(file.disk_backend).unwrap_or_default(),
            limits,
            log: args.log.or(file.log).unwrap_or_else(|| "info".to_owned()),
            log_format: args.log_format.or(file.log_format).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn args(words: &[&str]) -> Args {
        Args::try_parse_from(std::iter::once(&"sandboxd").chain(words)).unwrap()
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_flag_goes_before_the_file_and_the_file_before_the_default() {
        let file: File = toml::from_str(
            "data = \"/a\"\npool_size = 7\nbuild_workers = 5\ndisk_backend = \"qcow2\"\n",
        )
        .unwrap();
        let config = Config::combine(args(&["--data", "/b"]), file).unwrap();
        assert_eq!(config.data, PathBuf::from("/b"));
        assert_eq!(config.pool_size, 7);
        assert_eq!(config.build_workers, 5);
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.disk_backend.to_string(), "qcow2");
        let flags = args(&["--data", "/b", "--disk-backend", "dm-snapshot"]);
        let config = Config::combine(flags, File::default()).unwrap();
        assert_eq!(config.disk_backend.to_string(), "dm-snapshot");
        let unknown = ["sandboxd", "--disk-backend", "zfs"];
        let error = Args::try_parse_from(unknown).unwrap_err().to_string();
        assert!(error.contains("there is no disk backend `zfs`"), "{error}");
    }

    #[test]
    fn a_redis_is_named_by_a_flag_or_in_the_file_and_its_password_is_not_shown() {
        let none = Config::combine(args(&["--data", "/a"]), File::default()).unwrap();
        assert!(matches!(none.queue, QueueChoice::Embedded));
        let url = "redis://user:word@x/1";
        let by_flag = Config::load(args(&["--data", "/a", "--redis-url", url])).unwrap();
        let file = format!("redis_url = \"{url}\"\n");
        let file = toml::from_str(&file).unwrap();
        let by_file = Config::combine(args(&["--data", "/a"]), file).unwrap();
        for config in [by_flag, by_file] {
            assert!(matches!(&config.queue, QueueChoice::Redis(it) if it == url));
            let shown = format!("{config:?}");
            assert!(shown.contains("Redis"), "{shown}");
            assert!(!shown.contains("word"), "{shown}");
        }
        let wrong = ["--data", "/a", "--redis-url", "redis://user:word@x/y"];
        let wrong = Config::load(args(&wrong)).unwrap_err();
        let why = std::error::Error::source(&wrong).unwrap();
        let words = format!("{wrong} {wrong:?} {why}");
        assert!(words.contains("--redis-url"), "{words}");
        assert!(words.contains("no database's number"), "{words}");
        assert!(!words.contains("word"), "{words}");
    }

    #[test]
    fn a_host_elsewhere_is_named_by_flags_or_in_the_file() {
        let flags = ["--data", "/a", "--no-local-host", "--host", "unix:/h"];
        let by_flags = Config::combine(args(&flags), File::default()).unwrap();
        let file = "data = \"/a\"\nno_local_host = true\nhost = \"unix:/h\"\n";
        let by_file = Config::combine(args(&[]), toml::from_str(file).unwrap()).unwrap();
        assert!(by_flags.host.is_some());
        assert_eq!(by_flags.host, by_file.host);
        let refused = Config::combine(args(&flags[..3]), File::default()).unwrap_err();
        assert!(refused.to_string().contains("--host"), "{refused}");
    }

    #[test]
    fn r42_a_setting_that_does_not_exist_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.toml");
        std::fs::write(&path, "colour = 1\n").unwrap();
        let error = Config::load(args(&["--config", path.to_str().unwrap()])).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("colour"), "{source}");
    }
}
