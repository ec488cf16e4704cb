//! What a template build needs dies while it runs, and is started again: `sandboxd`,
//! `sandbox-hostd`, Redis, PostgreSQL. The build ends, what it says is so, and nothing is left.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests fail by panicking"
)]

mod daemon_support;
#[path = "../../sandbox-store/tests/postgres/server.rs"]
#[allow(
    dead_code,
    clippy::allow_attributes,
    reason = "made for the store's tests, which use more of it"
)]
mod postgres;
#[path = "../../sandbox-store/tests/redis/server.rs"]
#[allow(
    dead_code,
    clippy::allow_attributes,
    reason = "made for the store's tests, which use more of it"
)]
mod redis;

use std::{fs, future::Future, time::Duration};

use daemon_support::{
    Daemon, Folder,
    hostd::{Hostd, kill_file},
};
use nix::sys::signal::Signal;
use sandbox_core::id::BuildId;
use sandbox_host::fault;
use sandbox_sdk::{BuildRecord, BuildStatus, Client};
use tokio::{
    process::Command,
    time::{Instant, sleep, timeout},
};

/// A lease that runs out, and a build anew, under emulation.
const PATIENCE: Duration = Duration::from_secs(90);
/// The steps: preparing, the command, what is started, its check, saving.
const STEPS: u32 = 5;

async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < until, "{what}: not within {PATIENCE:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// By the socket in this data folder.
async fn connect(folder: &Folder, data: &str) -> Client {
    let socket = folder.path.join(data).join("sandboxd.sock");
    let address = format!("unix:{}", socket.display());
    Client::connect(address).await.unwrap()
}

/// A build that takes some seconds in two of its steps.
async fn submit(client: &Client, name: &str) -> BuildId {
    let build = client
        .build_template(name)
        .no_cache(true)
        .recipe([
            "sleep 2; echo made > /root/made",
            "START exec sh -c 'echo begun > /dev/shm/begun; exec sleep 10000'",
        ])
        .healthcheck("test -s /dev/shm/begun && sleep 2");
    build.submit().await.unwrap().id()
}

async fn record(client: &Client, id: BuildId) -> BuildRecord {
    // A daemon that was just started again may be about to answer.
    eventually("the build is told", async || {
        let build = client.build(id).await.ok()?;
        build.get().await.ok().map(|details| details.record)
    })
    .await
}

async fn until_at(client: &Client, id: BuildId, attempt: u32, step: u32) {
    eventually("the build is at its step", async || {
        let build = record(client, id).await;
        assert!(!build.status.ended(), "ended before step {step}: {build:?}");
        (build.attempt == attempt && build.current_step >= step).then_some(())
    })
    .await;
}

async fn until_ended(client: &Client, id: BuildId) -> BuildRecord {
    eventually("the build has ended", async || {
        let build = record(client, id).await;
        build.status.ended().then_some(build)
    })
    .await
}

/// It is a success and its template is what it says, or it failed and says why.
async fn assert_true(folder: &Folder, client: &Client, build: &BuildRecord, what: &str) {
    let name = build.name.to_string();
    match build.status {
        BuildStatus::Success => {
            let sandbox = client.create().template(&name).await.unwrap();
            let line = "cat /root/made /dev/shm/begun && ps | grep -q '[s]leep 10000'";
            let output = sandbox.exec(line).await.unwrap();
            assert_eq!(output.stdout, "made\nbegun\n", "{what}: {output:?}");
            assert!(output.status.success(), "{what}: {output:?}");
            sandbox.destroy().await.unwrap();
            client.templates().delete(&name).await.unwrap();
        }
        BuildStatus::Failed => {
            let failure = build.failure.as_ref().expect("it says why");
            assert!(!failure.message.contains("sb-"), "{what}: {failure:?}");
            assert!(client.templates().get(&name).await.is_err(), "{what}");
        }
        other => panic!("{what}: {other:?}"),
    }
    eventually("no machine is left", async || {
        folder.leftovers.machine_pids().is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn trap_14_a_build_survives_a_daemon_that_dies_at_any_of_its_steps() {
    let folder = Folder::new().await;
    let mut daemon = Daemon::start(&folder).await;
    for step in 1..=STEPS {
        let client = connect(&folder, "").await;
        let id = submit(&client, &format!("app-{step}")).await;
        until_at(&client, id, 1, step).await;
        daemon.kill().await;
        daemon = Daemon::start(&folder).await;
        let client = connect(&folder, "").await;
        let build = until_ended(&client, id).await;
        assert_eq!(build.status, BuildStatus::Success, "step {step}: {build:?}");
        assert_true(&folder, &client, &build, &format!("step {step}")).await;
    }

    // A second death is one too many, and said so.
    let client = connect(&folder, "").await;
    let id = submit(&client, "twice").await;
    for attempt in 1..=2 {
        let client = connect(&folder, "").await;
        until_at(&client, id, attempt, 2).await;
        daemon.kill().await;
        daemon = Daemon::start(&folder).await;
    }
    let client = connect(&folder, "").await;
    let build = until_ended(&client, id).await;
    assert_eq!(build.status, BuildStatus::Failed, "{build:?}");
    assert_true(&folder, &client, &build, "twice").await;
    daemon.stop().await;
    folder.leftovers.assert_none().await;
}

#[tokio::test]
async fn r29_a_build_survives_a_host_that_dies_at_any_of_its_steps() {
    let folder = Folder::new().await;
    let mut hostd = Hostd::start(&folder).await;
    let daemon = hostd.control(&folder).await;
    let client = connect(&folder, "control").await;
    for step in 1..=STEPS {
        let id = submit(&client, &format!("app-{step}")).await;
        until_at(&client, id, 1, step).await;
        hostd.kill().await;
        hostd = Hostd::start(&folder).await;
        let build = until_ended(&client, id).await;
        assert_eq!(build.status, BuildStatus::Success, "step {step}: {build:?}");
        assert_true(&folder, &client, &build, &format!("step {step}")).await;
    }
    // While a step's result is kept, while the memory is saved, and while it becomes an image.
    for at in ["shrinking the disk", fault::PAUSED, "image memory made"] {
        assert!(
            [&fault::FLATTEN[..], &fault::PAUSE, &fault::SNAPSHOT]
                .concat()
                .contains(&at)
        );
        let id = submit(&client, "saved").await;
        fs::write(kill_file(&folder), at).unwrap();
        let died = timeout(PATIENCE, hostd.child.wait()).await;
        assert!(!died.expect("the host passes it").unwrap().success());
        hostd = Hostd::start(&folder).await;
        let build = until_ended(&client, id).await;
        assert_eq!(build.status, BuildStatus::Success, "{at}: {build:?}");
        assert_true(&folder, &client, &build, at).await;
    }
    daemon.stop().await;
    hostd.stop().await;
    folder.leftovers.assert_none().await;
}

#[tokio::test]
async fn r28_builds_go_on_while_redis_is_away() {
    let folder = Folder::new().await;
    let mut server = redis::Server::start();
    let url = server.url();
    let socket = url.strip_prefix("redis+unix://").unwrap();
    let daemon = Daemon::start_with(&folder, |command| {
        command.args(["--redis-url", &url]);
    });
    let daemon = daemon.await;
    let client = connect(&folder, "").await;
    let id = submit(&client, "woken").await;
    until_at(&client, id, 1, 2).await;
    server.stop(Signal::SIGKILL);
    let build = until_ended(&client, id).await;
    assert_eq!((build.status, build.attempt), (BuildStatus::Success, 1));
    assert_true(&folder, &client, &build, "Redis died").await;

    // Nobody can be woken: a worker looks by itself.
    let asked = Instant::now();
    let id = submit(&client, "not-woken").await;
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(2), "asking took {took:?}");
    let build = until_ended(&client, id).await;
    assert_eq!((build.status, build.attempt), (BuildStatus::Success, 1));
    assert_true(&folder, &client, &build, "Redis away").await;

    server.run();
    eventually("a worker waits at Redis again", async || {
        let asked = Command::new("redis-cli")
            .args(["-s", socket, "client", "list"])
            .output()
            .await;
        let clients = String::from_utf8(asked.unwrap().stdout).unwrap();
        // One that is blocked until something comes.
        clients.contains("flags=b").then_some(())
    })
    .await;
    let id = submit(&client, "woken-again").await;
    let build = until_ended(&client, id).await;
    assert_eq!((build.status, build.attempt), (BuildStatus::Success, 1));
    assert_true(&folder, &client, &build, "Redis back").await;
    daemon.stop().await;
    drop(server);
    folder.leftovers.assert_none().await;
}

#[tokio::test]
async fn r31_a_build_survives_a_store_that_dies_at_any_of_its_steps() {
    let folder = Folder::new().await;
    let mut server = postgres::Server::start();
    let url = server.database("builds").await;
    let daemon = Daemon::start_with(&folder, |command| {
        command.args(["--database-url", &url]);
    });
    let daemon = daemon.await;
    let client = connect(&folder, "").await;
    for step in 1..=STEPS {
        let id = submit(&client, &format!("app-{step}")).await;
        until_at(&client, id, 1, step).await;
        // At once, as in a crash: what is open is cut off, and what is not written is recovered.
        server.stop(Signal::SIGQUIT);
        eventually("the store's absence is felt", async || {
            client.build(id).await.err()
        })
        .await;
        server.run();
        let build = until_ended(&client, id).await;
        assert_eq!(build.status, BuildStatus::Success, "step {step}: {build:?}");
        assert_true(&folder, &client, &build, &format!("step {step}")).await;
    }
    daemon.stop().await;
    drop(server);
    folder.leftovers.assert_none().await;
}
