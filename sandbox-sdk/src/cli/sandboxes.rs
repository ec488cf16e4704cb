//! Making, finding and removing sandboxes.

use sandbox_core::{
    id::SandboxId,
    sandbox::{CreateSandbox, PageRequest, SandboxFilter, SandboxRecord},
};

use super::{
    args::{Create, Ls, Rm},
    failure::Failure,
    progress,
    session::Session,
    view,
};

pub(super) async fn create(session: &Session, args: Create) -> Result<(), Failure> {
    let request = CreateSandbox {
        template: args.template,
        vcpus: args.vcpus,
        memory_mb: args.memory_mb,
        disk_size_mb: args.disk_size_mb,
        // A fraction is rounded up: a timeout is never shorter than was asked for.
        timeout_sec: args
            .timeout
            .map(|timeout| timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0)),
        on_timeout: args.on_timeout,
        metadata: args.labels.into_iter().collect(),
        env: args.env.into_iter().collect(),
        idempotency_key: args.idempotency_key,
    };
    let making = session.client.api.create(request);
    let record = progress::spinner(
        "making the sandbox; a template's first takes longest",
        making,
    );
    done(session, &record.await?)
}

pub(super) async fn ls(session: &Session, args: Ls) -> Result<(), Failure> {
    let filter = SandboxFilter {
        state: args.state,
        template: args.template,
        metadata: args.labels.into_iter().collect(),
        ..SandboxFilter::default()
    };
    let mut page = PageRequest::default();
    let mut records: Vec<SandboxRecord> = Vec::new();
    loop {
        let part = session.client.list(filter.clone(), page).await?;
        records.extend(part.items);
        page.after = part.next;
        if page.after.is_none() {
            break;
        }
    }
    if session.json {
        return view::json(&records.iter().map(view::sandbox).collect());
    }
    if args.quiet {
        return records.iter().try_for_each(|record| view::line(record.id));
    }
    let now = view::now();
    let rows: Vec<_> = records
        .iter()
        .map(|record| {
            [
                record.id.to_string(),
                record.state.as_str().to_owned(),
                record.template.to_string(),
                record.size.vcpus.to_string(),
                format!("{}M", record.size.memory_mb),
                format!("{}M", record.size.disk_size_mb),
                view::between(record.created_at, now),
                record
                    .expires_at
                    .map_or("never".to_owned(), |at| view::between(now, at)),
                labels(record),
            ]
        })
        .collect();
    let head = [
        "ID", "STATE", "TEMPLATE", "VCPUS", "MEMORY", "DISK", "AGE", "EXPIRES", "LABELS",
    ];
    view::table(head, &rows)
}

fn labels(record: &SandboxRecord) -> String {
    let labels = record.metadata.iter();
    let labels: Vec<_> = labels
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    labels.join(",")
}

pub(super) async fn get(session: &Session, id: SandboxId) -> Result<(), Failure> {
    show(session, &session.sandbox(id).info().await?)
}

pub(super) async fn ping(session: &Session, id: SandboxId) -> Result<(), Failure> {
    show(session, &session.sandbox(id).ping().await?)
}

pub(super) async fn pause(session: &Session, id: SandboxId) -> Result<(), Failure> {
    let sandbox = session.sandbox(id);
    done(
        session,
        &progress::spinner("saving its memory", sandbox.pause()).await?,
    )
}

pub(super) async fn resume(session: &Session, id: SandboxId) -> Result<(), Failure> {
    let sandbox = session.sandbox(id);
    done(
        session,
        &progress::spinner("resuming", sandbox.resume()).await?,
    )
}

fn done(session: &Session, record: &SandboxRecord) -> Result<(), Failure> {
    if session.json {
        view::json(&view::sandbox(record))
    } else {
        view::line(record.id)
    }
}

/// What a person wants to know first comes first.
const SHOWN: [&str; 15] = [
    "id",
    "state",
    "reason",
    "template",
    "vcpus",
    "memory_mb",
    "disk_size_mb",
    "metadata",
    "created_at",
    "started_at",
    "timeout_sec",
    "on_timeout",
    "expires_at",
    "operation",
    "host_id",
];

fn show(session: &Session, record: &SandboxRecord) -> Result<(), Failure> {
    let value = view::sandbox(record);
    if session.json {
        return view::json(&value);
    }
    view::fields(&value, &SHOWN)
}

/// Removes all that it can and tells of the first that it could not.
pub(super) async fn rm(session: &Session, args: Rm) -> Result<(), Failure> {
    let mut first = Ok(());
    for id in args.ids {
        let sandbox = session.sandbox(id);
        // Twice is as good as once, but an ID that never was is a slip of the pen.
        let removed = async {
            sandbox.info().await?;
            sandbox.destroy().await
        };
        match progress::spinner(&format!("removing {id}"), removed).await {
            Ok(()) if session.json => {}
            Ok(()) => view::line(id)?,
            Err(error) if first.is_ok() => first = Err(error.into()),
            Err(error) => view::note(error),
        }
    }
    if session.json && first.is_ok() {
        return view::json(&serde_json::json!({}));
    }
    first
}
