//! The SDK over every kind of connection: the same calls, types and errors. The platform behind is
//! the real engine on a simulated host.

#![cfg(feature = "rpc-server")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

#[expect(dead_code, reason = "not every test target uses all of it")]
mod remote_support;

use std::{collections::BTreeMap, time::Duration};

use futures::TryStreamExt;
use remote_support::{World, pattern, stdout};
use sandbox_core::process::ExitStatus;
use sandbox_sdk::{
    Client, Error, GuestError, OperationId, PageRequest, ProcessEvent, PtySize, SandboxFilter,
    SandboxId, SandboxState,
};

const MIB: usize = 1024 * 1024;

/// Each of these runs against the engine itself, over a unix socket, and over TCP.
macro_rules! everywhere {
    ($($test:ident),* $(,)?) => {
        mod embedded { $(
            #[tokio::test]
            async fn $test() {
                let world = super::World::new().await;
                super::$test(&world.local()).await;
            }
        )* }
        mod unix { $(
            #[tokio::test]
            async fn $test() {
                let world = super::World::new().await;
                let serving = world.serve_unix().await;
                super::$test(&serving.connect().await).await;
                serving.stop().await;
            }
        )* }
        mod tcp { $(
            #[tokio::test]
            async fn $test() {
                let world = super::World::new().await;
                let serving = world.serve("tcp:127.0.0.1:0").await;
                super::$test(&serving.connect().await).await;
                serving.stop().await;
            }
        )* }
    };
}

everywhere!(
    r44_sandboxes_are_created_found_listed_and_destroyed,
    r44_errors_come_out_as_they_went_in,
    r4_lists_are_filtered_and_come_in_pages,
    r5_a_command_s_output_status_and_surroundings,
    r5_ten_mib_of_output_are_the_same_to_the_byte,
    r5_processes_are_followed_fed_resized_and_killed,
    r6_files_go_both_ways,
    r10_a_key_makes_one_sandbox,
);

async fn r44_sandboxes_are_created_found_listed_and_destroyed(client: &Client) {
    let sandbox = client
        .create()
        .memory_mb(256)
        .metadata("job", "one")
        .env("NAME", "value")
        .await
        .unwrap();
    let info = sandbox.info().await.unwrap();
    assert_eq!((info.id, info.state), (sandbox.id(), SandboxState::Running));
    assert_eq!(info.size.memory_mb, 256);
    assert_eq!(
        info.metadata,
        BTreeMap::from([("job".into(), "one".into())])
    );
    assert!(info.started_at.is_some());

    let found = client.get(sandbox.id()).await.unwrap();
    let output = found.exec("printenv NAME").await.unwrap();
    assert_eq!(output.stdout, "value\n");
    assert_eq!(sandbox.ping().await.unwrap().id, sandbox.id());
    let page = client.list(SandboxFilter::default(), PageRequest::default());
    assert_eq!(page.await.unwrap().items.len(), 1);

    sandbox.destroy().await.unwrap();
    sandbox.destroy().await.unwrap();
    let gone = Error::SandboxNotFound(sandbox.id());
    assert_eq!(client.get(sandbox.id()).await.err(), Some(gone));
}

async fn r44_errors_come_out_as_they_went_in(client: &Client) {
    let nobody = SandboxId::from_uuid(uuid::Uuid::from_u128(7));
    let error = client.get(nobody).await.err();
    assert_eq!(error, Some(Error::SandboxNotFound(nobody)));
    let nothing = OperationId::from_uuid(uuid::Uuid::from_u128(7));
    let error = client.operation(nothing).await.err();
    assert_eq!(error, Some(Error::OperationNotFound(nothing)));
    let error = client.create().memory_mb(1).await.err();
    assert!(
        matches!(&error, Some(Error::InvalidRequest(words)) if words.contains("memory_mb")),
        "{error:?}"
    );

    let sandbox = client.create().await.unwrap();
    let path = "/no/such/file".to_owned();
    let error = sandbox.files().read(&path).await.err();
    assert_eq!(error, Some(Error::Guest(GuestError::NotFound { path })));
    let error = sandbox.command("no-such-program").output().await.err();
    assert!(
        matches!(&error, Some(Error::Guest(GuestError::Spawn { command, .. }))
            if command == "no-such-program"),
        "{error:?}"
    );
    let error = sandbox.process(4_000_000).kill().await.err();
    let no_such = GuestError::NoSuchProcess { pid: 4_000_000 };
    assert_eq!(error, Some(Error::Guest(no_such)));
    let error = sandbox.exec("  ").await.err();
    assert!(matches!(error, Some(Error::InvalidRequest(_))), "{error:?}");
}

async fn r4_lists_are_filtered_and_come_in_pages(client: &Client) {
    let mut ids = Vec::new();
    for job in ["a", "b", "a", "a"] {
        ids.push(client.create().metadata("job", job).await.unwrap().id());
    }
    let of_a = SandboxFilter {
        metadata: BTreeMap::from([("job".to_owned(), "a".to_owned())]),
        ..SandboxFilter::default()
    };
    let mut page = PageRequest {
        after: None,
        limit: 2,
    };
    let mut seen = Vec::new();
    loop {
        let part = client.list(of_a.clone(), page).await.unwrap();
        assert!(part.items.len() <= 2);
        seen.extend(part.items.iter().map(|item| item.id));
        page.after = part.next;
        if page.after.is_none() {
            break;
        }
    }
    assert_eq!(seen, [ids[0], ids[2], ids[3]]);
    page.limit = 0;
    let error = client.list(of_a, page).await.err();
    assert!(matches!(error, Some(Error::InvalidRequest(_))), "{error:?}");
}

async fn r5_a_command_s_output_status_and_surroundings(client: &Client) {
    let sandbox = client.create().await.unwrap();
    let output = sandbox
        .shell("echo out; echo err >&2; printenv X; exit 3")
        .env("X", "from outside")
        .output()
        .await
        .unwrap();
    assert_eq!(output.status, ExitStatus::Code(3));
    assert_eq!(output.stdout, "out\nfrom outside\n");
    assert_eq!(output.stderr, "err\n");
    assert!(!output.truncated() && !output.timed_out);

    let bytes: Vec<u8> = (0..=255).collect();
    let cat = sandbox.command("cat").stdin(bytes.clone()).output();
    assert_eq!(cat.await.unwrap().stdout, bytes);
    let silent = sandbox.exec("true").await.unwrap();
    assert!(silent.stdout.is_empty() && silent.stderr.is_empty());
    let limited = sandbox
        .shell("sleep 100")
        .timeout(Duration::from_millis(50));
    let output = limited.output().await.unwrap();
    assert!(output.timed_out);
    assert_eq!(output.status, ExitStatus::Signal(9));
}

async fn r5_ten_mib_of_output_are_the_same_to_the_byte(client: &Client) {
    let sandbox = client.create().await.unwrap();
    let content = pattern(10 * MIB + 1);
    sandbox
        .files()
        .write("/big", content.clone())
        .await
        .unwrap();
    let output = sandbox.exec("cat /big; echo end >&2").await.unwrap();
    assert!(output.stdout == content, "{} bytes", output.stdout.len());
    assert_eq!(output.stderr, "end\n");
    assert!(!output.truncated());
    // Beyond the bound on collected output it is counted.
    let output = sandbox.exec("spew 20000000; exit 7").await.unwrap();
    assert_eq!(output.stdout.len(), 16 * MIB);
    assert_eq!(output.dropped_bytes, 20_000_000 - 16 * MIB as u64);
    assert_eq!(output.status, ExitStatus::Code(7));
}

async fn r5_processes_are_followed_fed_resized_and_killed(client: &Client) {
    let sandbox = client.create().await.unwrap();
    let cat = sandbox
        .command("cat")
        .piped_stdin()
        .wait_for_readers()
        .spawn()
        .await
        .unwrap();
    let content = pattern(3 * MIB);
    let feed = async {
        cat.write_stdin(content.clone()).await.unwrap();
        cat.close_stdin().await.unwrap();
    };
    let read = cat.events().try_collect::<Vec<_>>();
    let ((), events) = tokio::join!(feed, read);
    let events = events.unwrap();
    assert!(stdout(&events) == content);
    assert!(matches!(events.last(), Some(ProcessEvent::Exit(exit)) if exit.status.success()));

    let terminal = sandbox
        .shell("sleep 100")
        .pty(PtySize { rows: 24, cols: 80 });
    let terminal = terminal.spawn().await.unwrap();
    let size = PtySize {
        rows: 50,
        cols: 132,
    };
    terminal.resize(size).await.unwrap();
    let listed = sandbox.processes().await.unwrap();
    assert_eq!(listed.len(), 2);
    assert!(
        listed
            .iter()
            .any(|process| process.pty && process.exit.is_none())
    );
    terminal.signal(15).await.unwrap();
    assert_eq!(
        terminal.wait().await.unwrap().status,
        ExitStatus::Signal(15)
    );
}

async fn r6_files_go_both_ways(client: &Client) {
    let sandbox = client.create().await.unwrap();
    let files = sandbox.files();
    let folder = tempfile::tempdir().unwrap();
    let (here, back) = (folder.path().join("here"), folder.path().join("back"));
    let content = [pattern(MIB), vec![0; 3 * MIB], pattern(MIB / 2)].concat();
    std::fs::write(&here, &content).unwrap();
    let stat = files.upload(&here, "/deep/down/file").await.unwrap();
    assert_eq!(stat.size, content.len() as u64);
    files.download("/deep/down/file", &back).await.unwrap();
    assert!(std::fs::read(&back).unwrap() == content);

    files.write("/empty", "").await.unwrap();
    assert!(files.read("/empty").await.unwrap().is_empty());
    for number in 0..7 {
        let path = format!("/deep/{number}");
        files.write(&path, "x").await.unwrap();
    }
    files.rename("/deep/0", "/deep/zero").await.unwrap();
    files.remove("/deep/1").await.unwrap();
    let names: Vec<_> = files.list("/deep").await.unwrap();
    let names: Vec<_> = names.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["2", "3", "4", "5", "6", "down", "zero"]);
    files.make_dir("/deep/under/it").await.unwrap();
    files.remove_all("/deep").await.unwrap();
    assert!(!files.exists("/deep").await.unwrap());
}

async fn r10_a_key_makes_one_sandbox(client: &Client) {
    let first = client.create().idempotency_key("k").await.unwrap();
    let second = client.create().idempotency_key("k").await.unwrap();
    assert_eq!(first.id(), second.id());
    let other = client.create().idempotency_key("k").vcpus(2).await.err();
    assert_eq!(other, Some(Error::IdempotencyMismatch));
    let without = client.create().await.unwrap();
    assert_ne!(first.id(), without.id());
}
