//! Pausing, resuming, snapshots, clones and templates.

use futures::TryStreamExt;
use sandbox_core::process::ExitStatus;
use sandbox_sdk::{
    Client, Error, ImportSource, OperationKind, OperationRecord, OperationStatus, Sandbox,
    SandboxState, TemplateKind, TemplatePageRequest, TemplateRecord,
};

use super::bytes::stdout;

/// All that a process wrote to stdout until it ended well.
async fn written(process: &sandbox_sdk::Process) -> String {
    let events = process.events().try_collect::<Vec<_>>().await.unwrap();
    let exit = process.wait().await.unwrap();
    assert_eq!(exit.status, ExitStatus::Code(0));
    String::from_utf8(stdout(&events)).unwrap()
}

/// A process that holds what it read in its memory and pipes, and repeats it.
async fn reader(sandbox: &Sandbox, first: &str) -> sandbox_sdk::Process {
    let cat = sandbox.command("cat").piped_stdin().spawn().await.unwrap();
    cat.write_stdin(first.to_owned()).await.unwrap();
    cat
}

async fn state(sandbox: &Sandbox) -> SandboxState {
    sandbox.info().await.unwrap().state
}

pub(crate) async fn r12_a_paused_sandbox_goes_on_where_it_was(_: &Client, sandbox: &Sandbox) {
    let cat = reader(sandbox, "before\n").await;
    sandbox.files().write("/kept", "kept").await.unwrap();
    assert_eq!(sandbox.pause().await.unwrap().state, SandboxState::Paused);
    assert_eq!(state(sandbox).await, SandboxState::Paused);
    // Twice is as good as once.
    assert_eq!(sandbox.pause().await.unwrap().state, SandboxState::Paused);
    let error = sandbox.exec("true").await.err();
    assert!(
        matches!(error, Some(Error::InvalidState { id, state: SandboxState::Paused, .. })
            if id == sandbox.id()),
        "{error:?}"
    );

    for _ in 0..2 {
        let resumed = sandbox.resume().await.unwrap();
        assert_eq!(resumed.state, SandboxState::Running);
    }
    cat.write_stdin("after\n").await.unwrap();
    cat.close_stdin().await.unwrap();
    assert_eq!(written(&cat).await, "before\nafter\n");
    let kept = sandbox.files().read("/kept").await.unwrap();
    assert_eq!(kept, "kept");
}

pub(crate) async fn r14_clones_of_a_snapshot_start_warm(client: &Client, sandbox: &Sandbox) {
    let cat = reader(sandbox, "in memory\n").await;
    sandbox.files().write("/kept", "kept").await.unwrap();
    let warm = sandbox.snapshot("warm").resume(true).await.unwrap();
    assert_eq!((warm.name(), warm.kind()), ("warm", TemplateKind::Snapshot));
    let size = sandbox.info().await.unwrap().size;
    assert_eq!(warm.info().size, size);
    assert!(warm.info().size_bytes() > 0 && warm.info().memory_bytes > 0);
    assert_eq!(state(sandbox).await, SandboxState::Running);

    let clone = client.create().template(&warm).await.unwrap();
    let info = clone.info().await.unwrap();
    assert_eq!((info.size, info.template.as_str()), (size, "warm"));
    // What goes on in the one is not seen in the other.
    let cloned = clone.process(cat.pid());
    for (process, words) in [(&cloned, "in the clone\n"), (&cat, "in the origin\n")] {
        process.write_stdin(words).await.unwrap();
        process.close_stdin().await.unwrap();
        assert_eq!(written(process).await, format!("in memory\n{words}"));
    }
    assert_eq!(clone.files().read("/kept").await.unwrap(), "kept");
    clone.files().write("/kept", "changed").await.unwrap();
    assert_eq!(sandbox.files().read("/kept").await.unwrap(), "kept");

    // R26: deleted, it is gone at once, and who started from it runs on.
    warm.delete().await.unwrap();
    let gone = || Some(Error::TemplateNotFound("warm".to_owned()));
    assert_eq!(client.templates().get("warm").await.err(), gone());
    assert_eq!(client.create().template("warm").await.err(), gone());
    assert_eq!(client.templates().delete("warm").await.err(), gone());
    let output = clone.exec("cat /kept").await.unwrap();
    assert_eq!(output.stdout, "changed");
    clone.destroy().await.unwrap();
}

pub(crate) async fn r14_a_snapshot_leaves_its_origin_paused_unless_told_otherwise(
    client: &Client,
    sandbox: &Sandbox,
) {
    let made = sandbox.unnamed_snapshot().await.unwrap();
    assert!(made.name().starts_with("snap-"), "{made:?}");
    assert_eq!(state(sandbox).await, SandboxState::Paused);
    // Of a paused one too, and it stays so.
    let again = sandbox.snapshot("again").resume(true).await.unwrap();
    assert_eq!(state(sandbox).await, SandboxState::Paused);
    sandbox.resume().await.unwrap();

    // Its memory has the size that it has.
    let error = client.create().template("again").memory_mb(1024).await;
    assert!(
        matches!(&error, Err(Error::InvalidRequest(words)) if words.contains("memory_mb")),
        "{error:?}"
    );
    for template in [made, again] {
        template.delete().await.unwrap();
    }
    assert!(sandbox.exec("true").await.unwrap().status.success());
}

async fn listed(client: &Client, kind: Option<TemplateKind>) -> Vec<TemplateRecord> {
    let page = TemplatePageRequest::default();
    client.templates().list(kind, page).await.unwrap().items
}

fn names(templates: &[TemplateRecord]) -> Vec<&str> {
    let mut names: Vec<_> = templates.iter().map(|it| it.name.as_str()).collect();
    names.sort_unstable();
    names
}

pub(crate) async fn r23_templates_are_found_listed_and_of_one_name(
    client: &Client,
    sandbox: &Sandbox,
) {
    sandbox.files().write("/kept", "on the disk").await.unwrap();
    let image = sandbox.snapshot("disk").image_only().resume(true).await;
    let image = image.unwrap();
    let snapshot = sandbox.snapshot("whole").resume(true).await.unwrap();
    assert_eq!(
        (image.kind(), image.info().memory_bytes),
        (TemplateKind::Image, 0)
    );
    assert_eq!(image.info().origin, Some(sandbox.id()));

    let all = listed(client, None).await;
    assert_eq!(names(&all), ["disk", "minimal", "whole"]);
    let images = listed(client, Some(TemplateKind::Image)).await;
    assert_eq!(names(&images), ["disk", "minimal"]);
    let snapshots = listed(client, Some(TemplateKind::Snapshot)).await;
    assert_eq!(names(&snapshots), ["whole"]);
    let mut page = TemplatePageRequest {
        after: None,
        limit: 1,
    };
    let mut one_by_one = Vec::new();
    loop {
        let part = client.templates().list(None, page).await.unwrap();
        assert!(part.items.len() <= 1);
        one_by_one.extend(part.items);
        page.after = part.next;
        if page.after.is_none() {
            break;
        }
    }
    assert_eq!(one_by_one, all);
    let (uses, _) = client.templates().all(None, page).await.unwrap();
    assert_eq!(uses.len(), 1);
    for name in ["disk", &image.id().to_string()] {
        let found = client.templates().get(name).await.unwrap();
        assert_eq!(found.info(), image.info());
    }

    let taken = sandbox.snapshot("disk").resume(true).await.err();
    assert_eq!(taken, Some(Error::TemplateExists("disk".to_owned())));
    let bad = sandbox.snapshot("../disk").resume(true).await.err();
    assert!(matches!(bad, Some(Error::InvalidRequest(_))), "{bad:?}");
    assert_eq!(state(sandbox).await, SandboxState::Running);

    // An image boots, at another size too.
    let larger = client.create().template(&image).disk_size_mb(2048);
    let booted = larger.memory_mb(384).await.unwrap();
    let size = booted.info().await.unwrap().size;
    assert_eq!((size.disk_size_mb, size.memory_mb), (2048, 384));
    let output = booted.exec("cat /kept").await.unwrap();
    assert_eq!(output.stdout, "on the disk");
    let all = TemplatePageRequest::default();
    let (uses, _) = client.templates().all(None, all).await.unwrap();
    let of_disk = uses.iter().find(|one| one.template.id == image.id());
    assert_eq!(of_disk.unwrap().in_use_by, [booted.id()]);
    booted.destroy().await.unwrap();
    for template in [image, snapshot] {
        template.delete().await.unwrap();
    }
    assert_eq!(names(&listed(client, None).await), ["minimal"]);
}

async fn ended(client: &Client, operation: sandbox_sdk::OperationId) -> OperationRecord {
    for _ in 0..6000 {
        let record = client.operation(operation).await.unwrap();
        if record.status != OperationStatus::Running {
            return record;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("{operation} does not end");
}

pub(crate) async fn r15_what_was_begun_is_found_under_its_operation(
    client: &Client,
    sandbox: &Sandbox,
) {
    let begun = sandbox.snapshot("begun").resume(true).begin();
    let operation = ended(client, begun.await.unwrap()).await;
    assert_eq!(operation.status, OperationStatus::Succeeded);
    assert_eq!(operation.kind, OperationKind::Snapshot);
    assert_eq!(operation.sandbox_id, Some(sandbox.id()));
    let made = client.templates().get("begun").await.unwrap();
    assert_eq!(operation.template_id, Some(made.id()));
    made.delete().await.unwrap();

    // The host finds out what is wrong with a source.
    let source = || ImportSource::Directory {
        path: "/missing/on/the/host".to_owned(),
    };
    let import = client.templates().import("never", source());
    let operation = ended(client, import.begin().await.unwrap()).await;
    let OperationStatus::Failed { error } = operation.status else {
        panic!("{operation:?}");
    };
    assert!(matches!(error, Error::InvalidRequest(_)), "{error:?}");
    let again = client.templates().import("never", source()).await.err();
    assert_eq!(again, Some(error));
    assert_eq!(names(&listed(client, None).await), ["minimal"]);
}
