//! R44: one suite runs the whole SDK on real VMs: embedded, and through a `sandboxd` by its socket
//! and over TCP. Each run makes do with one sandbox for most of it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests fail by panicking"
)]

mod daemon;
mod real;
#[path = "../../../sandbox-sdk/tests/suite/sleepers.rs"]
mod sleepers;
#[macro_use]
#[path = "../../../sandbox-sdk/tests/suite/mod.rs"]
mod suite;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use daemon::Daemon;
use sandbox_host::testkit::{leftovers::Leftovers, seed};
use sandbox_sdk::{Client, EmbeddedConfig, Error, RemoteConfig};
use tempfile::TempDir;

/// Longer than anything here takes, and short enough for a test that hangs.
const LONG: Duration = Duration::from_secs(30);

/// A data folder of the test's own. Dropped in this order.
struct Folder {
    leftovers: Leftovers,
    path: PathBuf,
    _temporary: TempDir,
}

impl Folder {
    async fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().canonicalize().unwrap();
        let leftovers = Leftovers::watch(&path);
        seed::plant(Path::new(env!("CARGO_TARGET_TMPDIR")), &path.join("host")).await;
        Self {
            leftovers,
            path,
            _temporary: temporary,
        }
    }
}

macro_rules! one_after_another {
    ($($part:ident)*) => {
        /// The whole suite, on a platform without sandboxes.
        async fn whole_suite(client: &Client) {
            let sandbox = suite::created_and_found(client).await;
            $(suite::$part(client, &sandbox).await;)*
            real::r5_commands_take_arguments_stdin_environment_directory_and_user(&sandbox).await;
            real::r5_a_reader_that_comes_back_with_its_offset_loses_and_doubles_no_byte(
                client, &sandbox,
            )
            .await;
            real::r5_a_process_is_signalled_with_all_of_its_group(&sandbox).await;
            real::r5_a_terminal_has_a_size_that_can_be_changed(&sandbox).await;
            suite::destroyed(client, sandbox).await;
        }
    };
}

sdk_suite!(one_after_another);

#[tokio::test]
async fn r44_the_suite_embedded() {
    let folder = Folder::new().await;
    let config = EmbeddedConfig::in_folder(&folder.path).pool_size(0);
    let client = Client::embedded(config).await.unwrap();
    whole_suite(&client).await;
    client.shutdown().await;
    drop(client);
    folder.leftovers.assert_none().await;
}

#[tokio::test]
async fn r44_the_suite_through_a_daemon_by_its_socket_and_over_tcp() {
    let folder = Folder::new().await;
    let daemon = Daemon::start(&folder.path).await;
    let socket = format!("unix:{}", folder.path.join("sandboxd.sock").display());
    whole_suite(&Client::connect(socket).await.unwrap()).await;

    let key = std::fs::read_to_string(folder.path.join("admin.key")).unwrap();
    let over_tcp = || RemoteConfig::new(&daemon.tcp);
    whole_suite(
        &Client::connect_with(over_tcp().key(key.trim()))
            .await
            .unwrap(),
    )
    .await;
    for wrong in [over_tcp(), over_tcp().key("wrong"), over_tcp().key("")] {
        let refused = Client::connect_with(wrong).await.err();
        assert!(
            matches!(refused, Some(Error::Unauthorized(_))),
            "{refused:?}"
        );
    }
    daemon.stop().await;
    folder.leftovers.assert_none().await;
}
