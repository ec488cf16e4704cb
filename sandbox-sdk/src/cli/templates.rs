//! Making templates, finding and removing them.

use std::path::PathBuf;

use sandbox_core::{
    id::PLATFORM_TEAM_ID,
    template::{ImportSource, TemplatePageRequest, TemplateRecord, TemplateUse},
};

use super::{
    args::{Import, Snapshot, Source, Template, Templates},
    failure::Failure,
    progress,
    session::Session,
    view,
};

pub(super) async fn snapshot(session: &Session, args: Snapshot) -> Result<(), Failure> {
    let sandbox = session.sandbox(args.id);
    let mut snapshot = match args.name {
        Some(name) => sandbox.snapshot(name),
        None => sandbox.unnamed_snapshot(),
    };
    snapshot = snapshot.resume(args.resume);
    if args.image {
        snapshot = snapshot.image_only();
    }
    let made = progress::spinner("making the template", snapshot.into_future()).await?;
    made_is(session, made.info())
}

pub(super) async fn template(session: &Session, command: Template) -> Result<(), Failure> {
    match command {
        Template::Get { name } => get(session, &name).await,
        Template::Rm { names } => rm(session, names).await,
        Template::Import(args) => import(session, args).await,
    }
}

/// What a person wants to know first comes first.
const SHOWN: [&str; 9] = [
    "id",
    "name",
    "type",
    "platform",
    "vcpus",
    "memory_mb",
    "disk_size_mb",
    "size_bytes",
    "created_at",
];

async fn get(session: &Session, name: &str) -> Result<(), Failure> {
    let template = session.client.templates().get(name).await?;
    let value = view::template(template.info());
    if session.json {
        return view::json(&value);
    }
    view::fields(&value, &SHOWN)
}

/// Removes all that it can and tells of the first that it could not.
async fn rm(session: &Session, names: Vec<String>) -> Result<(), Failure> {
    let mut first = Ok(());
    for name in names {
        let removing = session.client.templates();
        let removing = removing.delete(&name);
        match progress::spinner(&format!("removing {name}"), removing).await {
            Ok(()) if session.json => {}
            Ok(()) => view::line(view::plain(&name))?,
            Err(error) if first.is_ok() => first = Err(error.into()),
            Err(error) => view::note(error),
        }
    }
    if session.json && first.is_ok() {
        return view::json(&serde_json::json!({}));
    }
    first
}

async fn import(session: &Session, args: Import) -> Result<(), Failure> {
    let source = source(args.source, args.reference, args.insecure)?;
    let templates = session.client.templates();
    let mut import = templates.import(args.name, source);
    if let Some(count) = args.vcpus {
        import = import.vcpus(count);
    }
    if let Some(mb) = args.memory_mb {
        import = import.memory_mb(mb);
    }
    if let Some(mb) = args.disk_size_mb {
        import = import.disk_size_mb(mb);
    }
    let made = progress::spinner("importing", import.into_future()).await?;
    made_is(session, made.info())
}

fn made_is(session: &Session, record: &TemplateRecord) -> Result<(), Failure> {
    if session.json {
        view::json(&view::template(record))
    } else {
        view::line(&record.name)
    }
}

/// The source that was named; the command line takes one.
fn source(
    given: Source,
    reference: Option<String>,
    insecure: bool,
) -> Result<ImportSource, Failure> {
    if let Some(path) = given.dir {
        return Ok(ImportSource::Directory {
            path: absolute(path)?,
        });
    }
    if let Some(path) = given.tar {
        return Ok(ImportSource::Tar {
            path: absolute(path)?,
        });
    }
    if let Some(path) = given.oci_layout {
        return Ok(ImportSource::OciLayout {
            path: absolute(path)?,
            reference,
        });
    }
    if let Some(reference) = given.oci {
        return Ok(ImportSource::OciRegistry {
            reference,
            insecure,
        });
    }
    let Some(debian) = given.debian else {
        return Err(Failure::Own("where should it come from?".to_owned()));
    };
    let (suite, packages) = debian.split_once(':').unwrap_or((&debian, ""));
    let packages = packages.split(',').filter(|name| !name.is_empty());
    Ok(ImportSource::Debian {
        suite: suite.to_owned(),
        packages: packages.map(str::to_owned).collect(),
    })
}

/// The platform knows nothing of where this program runs.
fn absolute(path: PathBuf) -> Result<String, Failure> {
    let what = format!("can't make sense of {}", path.display());
    let path = std::path::absolute(path).map_err(Failure::local(what))?;
    path.into_os_string()
        .into_string()
        .map_err(|path| Failure::Own(format!("{}: paths must be UTF-8", path.display())))
}

pub(super) async fn ls(session: &Session, args: Templates) -> Result<(), Failure> {
    let mut page = TemplatePageRequest::default();
    let mut found: Vec<TemplateUse> = Vec::new();
    loop {
        let templates = session.client.templates();
        let (part, next) = if args.all {
            templates.all(args.kind, page).await?
        } else {
            let part = templates.list(args.kind, page).await?;
            let items = part.items.into_iter().map(|template| TemplateUse {
                template,
                in_use_by: Vec::new(),
            });
            (items.collect(), part.next)
        };
        found.extend(part);
        page.after = next;
        if page.after.is_none() {
            break;
        }
    }
    if session.json {
        let shown = found.iter().map(|one| match args.all {
            true => view::template_use(one),
            false => view::template(&one.template),
        });
        return view::json(&shown.collect());
    }
    if args.quiet {
        return found
            .iter()
            .try_for_each(|one| view::line(&one.template.name));
    }
    let now = view::now();
    let rows: Vec<_> = found.iter().map(|one| row(one, now)).collect();
    if args.all {
        let rows: Vec<_> = found.iter().zip(rows).map(with_users).collect();
        let head = [
            "NAME",
            "TYPE",
            "OWNER",
            "VCPUS",
            "MEMORY",
            "DISK",
            "SIZE",
            "AGE",
            "IN USE BY",
        ];
        return view::table(head, &rows);
    }
    let head = [
        "NAME", "TYPE", "OWNER", "VCPUS", "MEMORY", "DISK", "SIZE", "AGE",
    ];
    view::table(head, &rows)
}

fn row(one: &TemplateUse, now: sandbox_core::clock::Timestamp) -> [String; 8] {
    let template = &one.template;
    [
        template.name.to_string(),
        template.kind.as_str().to_owned(),
        if template.team_id == PLATFORM_TEAM_ID {
            "platform".to_owned()
        } else {
            template.team_id.to_string()
        },
        template.size.vcpus.to_string(),
        format!("{}M", template.size.memory_mb),
        format!("{}M", template.size.disk_size_mb),
        view::mib(template.size_bytes()),
        view::between(template.created_at, now),
    ]
}

fn with_users((one, row): (&TemplateUse, [String; 8])) -> [String; 9] {
    let [name, kind, owner, vcpus, memory, disk, size, age] = row;
    let users = one.in_use_by.len();
    let users = match users {
        0 => "-".to_owned(),
        1 => "1 sandbox".to_owned(),
        _ => format!("{users} sandboxes"),
    };
    [name, kind, owner, vcpus, memory, disk, size, age, users]
}
