//! What the SDK promises over every kind of connection, as functions over a client: on simulated
//! hosts in `remote.rs`, on real VMs in `sandbox-api/tests/vm_sdk_suite`. The commands are such as
//! both kinds of guest understand.

mod bytes;
mod templates;

use std::{collections::BTreeMap, time::Duration};

use futures::TryStreamExt;
use sandbox_core::process::ExitStatus;
use sandbox_sdk::{
    Client, Error, GuestError, OperationId, PageRequest, ProcessEvent, PtySize, Sandbox,
    SandboxFilter, SandboxId, SandboxState,
};
use uuid::Uuid;

use bytes::{pattern, stdout};
pub(crate) use templates::*;

const MIB: usize = 1024 * 1024;

/// Gives the names of all functions here that take a client and a sandbox to a macro. They may run
/// one after another on one sandbox, which [`created_and_found`] made.
macro_rules! sdk_suite {
    ($each:ident) => {
        $each! {
            r44_errors_come_out_as_they_went_in
            r4_lists_are_filtered_and_come_in_pages
            r5_a_command_s_output_status_and_surroundings
            r5_ten_mib_of_output_are_the_same_to_the_byte
            r5_processes_are_followed_fed_resized_and_killed
            r6_files_go_both_ways
            r10_a_key_makes_one_sandbox
            r12_a_paused_sandbox_goes_on_where_it_was
            r14_a_snapshot_leaves_its_origin_paused_unless_told_otherwise
            r14_clones_of_a_snapshot_start_warm
            r15_what_was_begun_is_found_under_its_operation
            r23_templates_are_found_listed_and_of_one_name
        }
    };
}

/// The first sandbox of a platform.
pub(crate) async fn created_and_found(client: &Client) -> Sandbox {
    let sandbox = client
        .create()
        .memory_mb(512)
        .metadata("job", "one")
        .env("NAME", "value")
        .await
        .unwrap();
    let info = sandbox.info().await.unwrap();
    assert_eq!((info.id, info.state), (sandbox.id(), SandboxState::Running));
    assert_eq!(info.size.memory_mb, 512);
    assert_eq!(
        info.metadata,
        BTreeMap::from([("job".into(), "one".into())])
    );
    assert!(info.started_at.is_some());

    let found = client.get(sandbox.id()).await.unwrap();
    let output = found.exec("echo $NAME").await.unwrap();
    assert_eq!(output.stdout, "value\n");
    assert_eq!(sandbox.ping().await.unwrap().id, sandbox.id());
    let page = client.list(SandboxFilter::default(), PageRequest::default());
    assert_eq!(page.await.unwrap().items.len(), 1);
    sandbox
}

/// Twice, and gone.
pub(crate) async fn destroyed(client: &Client, sandbox: Sandbox) {
    sandbox.destroy().await.unwrap();
    sandbox.destroy().await.unwrap();
    let gone = Error::SandboxNotFound(sandbox.id());
    assert_eq!(client.get(sandbox.id()).await.err(), Some(gone.clone()));
    assert_eq!(sandbox.exec("true").await.err(), Some(gone));
}

pub(crate) async fn r44_errors_come_out_as_they_went_in(client: &Client, sandbox: &Sandbox) {
    let nobody = SandboxId::from_uuid(Uuid::from_u128(7));
    let error = client.get(nobody).await.err();
    assert_eq!(error, Some(Error::SandboxNotFound(nobody)));
    let nothing = OperationId::from_uuid(Uuid::from_u128(7));
    let error = client.operation(nothing).await.err();
    assert_eq!(error, Some(Error::OperationNotFound(nothing)));
    let error = client.create().memory_mb(1).await.err();
    assert!(
        matches!(&error, Some(Error::InvalidRequest(words)) if words.contains("memory_mb")),
        "{error:?}"
    );

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

pub(crate) async fn r4_lists_are_filtered_and_come_in_pages(client: &Client, other: &Sandbox) {
    let mut made = Vec::new();
    for number in ["1", "2"] {
        let create = client.create().metadata("page", "of two");
        made.push(create.metadata("number", number).await.unwrap());
    }
    let labelled = |pairs: &[(&str, &str)]| SandboxFilter {
        metadata: pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..SandboxFilter::default()
    };
    let mut page = PageRequest {
        after: None,
        limit: 1,
    };
    let mut seen = Vec::new();
    loop {
        let filter = labelled(&[("page", "of two")]);
        let part = client.list(filter, page).await.unwrap();
        assert!(part.items.len() <= 1);
        seen.extend(part.items.iter().map(|item| item.id));
        page.after = part.next;
        if page.after.is_none() {
            break;
        }
    }
    assert_eq!(seen, [made[0].id(), made[1].id()]);
    let ids = async |filter| -> Vec<SandboxId> {
        let page = client.list(filter, PageRequest::default()).await.unwrap();
        page.items.iter().map(|item| item.id).collect()
    };
    let both = labelled(&[("page", "of two"), ("number", "2")]);
    assert_eq!(ids(both).await, [made[1].id()]);
    assert_eq!(ids(labelled(&[("job", "one")])).await, [other.id()]);
    let stopped = SandboxFilter {
        state: Some(SandboxState::Stopped),
        ..SandboxFilter::default()
    };
    assert!(ids(stopped).await.is_empty());

    page.limit = 0;
    let error = client.list(SandboxFilter::default(), page).await.err();
    assert!(matches!(error, Some(Error::InvalidRequest(_))), "{error:?}");
    for sandbox in made {
        sandbox.destroy().await.unwrap();
    }
}

pub(crate) async fn r5_a_command_s_output_status_and_surroundings(_: &Client, sandbox: &Sandbox) {
    let output = sandbox
        .shell("echo out; echo err >&2; echo $X; exit 3")
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

pub(crate) async fn r5_ten_mib_of_output_are_the_same_to_the_byte(_: &Client, sandbox: &Sandbox) {
    let content = pattern(10 * MIB + 1);
    let files = sandbox.files();
    files.write("/big", content.clone()).await.unwrap();
    let output = sandbox.exec("cat /big; echo end >&2").await.unwrap();
    assert!(output.stdout == content, "{} bytes", output.stdout.len());
    assert_eq!(output.stderr, "end\n");
    assert!(!output.truncated());
    // Beyond the bound on collected output it is counted.
    let line = "head -c 20000000 /dev/zero; exit 7";
    let output = sandbox.exec(line).await.unwrap();
    assert_eq!(output.stdout.len(), 16 * MIB);
    assert_eq!(output.dropped_bytes, 20_000_000 - 16 * MIB as u64);
    assert_eq!(output.status, ExitStatus::Code(7));
}

pub(crate) async fn r5_processes_are_followed_fed_resized_and_killed(
    _: &Client,
    sandbox: &Sandbox,
) {
    let cat = sandbox.command("cat").piped_stdin().wait_for_readers();
    let cat = cat.spawn().await.unwrap();
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
    let of = |pid| listed.iter().find(|listed| listed.pid == pid).unwrap();
    assert!(of(cat.pid()).exit.is_some() && !of(cat.pid()).pty);
    assert!(of(terminal.pid()).exit.is_none() && of(terminal.pid()).pty);
    terminal.signal(15).await.unwrap();
    let exit = terminal.wait().await.unwrap();
    assert_eq!(exit.status, ExitStatus::Signal(15));
}

pub(crate) async fn r6_files_go_both_ways(_: &Client, sandbox: &Sandbox) {
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

pub(crate) async fn r10_a_key_makes_one_sandbox(client: &Client, without: &Sandbox) {
    let first = client.create().idempotency_key("k").await.unwrap();
    let second = client.create().idempotency_key("k").await.unwrap();
    assert_eq!(first.id(), second.id());
    assert_ne!(first.id(), without.id());
    let other = client.create().idempotency_key("k").vcpus(2).await.err();
    assert_eq!(other, Some(Error::IdempotencyMismatch));
    first.destroy().await.unwrap();
}
