//! Running a build: its recipe is read, its files are uploaded, and it is followed to its end.
//!
//! ```text
//!  read ──► upload ──► submit ──► follow ──► its template's name
//!                        │          │ Ctrl-C: cancel it, and follow on
//!                        │          └ Ctrl-C again: leave it to the platform
//!                        └── --detach: its ID
//! ```

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use futures::StreamExt;
use sandbox_core::{
    build::{BuildEvent, Healthcheck, LogCursor, Recipe, recipe::RecipeError},
    error::Error,
};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    args::NewBuild,
    look,
    screen::{Screen, To},
};
use crate::{
    Build, BuildError, BuildTemplate,
    cli::{
        failure::{Failure, INTERRUPTED},
        interruptible, progress,
        session::Session,
        view,
    },
};

/// In the folder of the context, where no recipe is named.
const RECIPE_FILE: &str = "Dockerfile";

pub(super) async fn build(session: &Session, args: NewBuild) -> Result<u8, Failure> {
    let (detach, quiet) = (args.detach, args.quiet || session.json);
    if detach && session.client.embedded.is_some() {
        return Err(Failure::Own(
            "--detach leaves the build to a platform that goes on when this program ends: run \
             `sandboxd`, and ask it"
                .to_owned(),
        ));
    }
    let submitting = async { Ok(described(session, args)?.submit().await?) };
    let build = interruptible(progress::spinner("uploading", submitting)).await?;
    if detach {
        if session.json {
            view::json(&look::build(&build.get().await?.record))?;
        } else {
            view::line(build.id())?;
        }
        return Ok(0);
    }
    let screen = match quiet {
        true => Screen::plain(To::Nowhere),
        false => Screen::with_bar(),
    };
    let watched = watch(&build, screen).await?;
    if watched == Watched::Left {
        view::note(format_args!(
            "the build goes on; `sandbox build get {}` says how it stands",
            build.id()
        ));
        return Ok(INTERRUPTED);
    }
    ended(session, &build, watched).await
}

/// What came of it.
async fn ended(session: &Session, build: &Build, watched: Watched) -> Result<u8, Failure> {
    let made = build.wait().await;
    if session.json {
        view::json(&look::details(&build.get().await?))?;
    }
    match made {
        Ok(_) if session.json => Ok(0),
        Ok(template) => view::line(template.name()).map(|()| 0),
        Err(BuildError::Failed(failed)) => {
            if !session.json {
                look::tail(&failed);
            }
            Err(Failure::Build(failed.into()))
        }
        Err(BuildError::Cancelled(id)) if watched == Watched::Cancelled => {
            view::note(format_args!("the build {id} was cancelled"));
            Ok(INTERRUPTED)
        }
        Err(error) => Err(error.into()),
    }
}

/// How following a build went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watched {
    /// It has ended.
    Ended,
    /// It has ended after the user wanted it to.
    Cancelled,
    /// The user has had enough, and it goes on.
    Left,
}

/// Follows a build to its end, or until the user has had enough.
async fn watch(build: &Build, mut screen: Screen) -> Result<Watched, Failure> {
    let mut events = std::pin::pin!(build.follow(LogCursor::default()));
    // One listener for all of it: a signal that comes while an event is shown waits there.
    let mut interrupts =
        signal(SignalKind::interrupt()).map_err(Failure::local("listening for Ctrl-C"))?;
    let mut watched = Watched::Ended;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            _ = interrupts.recv() => {
                if watched == Watched::Cancelled {
                    return Ok(Watched::Left);
                }
                watched = Watched::Cancelled;
                screen.note("cancelling the build; Ctrl-C again leaves it to the platform");
                match build.cancel().await {
                    // It has ended meanwhile, and the log will say how.
                    Ok(_) | Err(Error::BuildEnded { .. }) => continue,
                    Err(error) => return Err(error.into()),
                }
            }
        };
        match event {
            None => return Ok(watched),
            Some(event) => {
                let event = event?;
                screen.show(&event)?;
                if matches!(event, BuildEvent::Ended(_)) {
                    return Ok(watched);
                }
            }
        }
    }
}

/// What is asked for.
fn described(session: &Session, args: NewBuild) -> Result<BuildTemplate<'_>, Failure> {
    let unreadable = |error: RecipeError| Failure::Recipe(Box::new(error));
    let mut asked = session
        .client
        .build_template(args.name.unwrap_or_default())
        .no_cache(args.no_cache);
    let copies = if args.steps.is_empty() {
        let text = recipe_text(args.file, args.context.as_deref())?;
        let read = Recipe::parse_text(&text).map_err(unreadable)?;
        asked = asked.recipe_text(text);
        copies(&read.recipe)
    } else {
        let recipe = Recipe::parse_list(&args.steps).map_err(unreadable)?;
        let copies = copies(&recipe);
        asked = asked.parsed_recipe(recipe);
        copies
    };
    asked = match args.context {
        Some(path) if path.is_dir() => asked.context_dir(path),
        Some(path) => asked.context_tar(path),
        None if copies => {
            return Err(Failure::Own(
                "the recipe has a COPY: say what it copies from with --context".to_owned(),
            ));
        }
        None => asked,
    };
    if let Some(cmd) = args.healthcheck {
        let mut check = Healthcheck::new(cmd);
        let given = [
            (&mut check.interval_sec, args.health_interval),
            (&mut check.timeout_sec, args.health_timeout),
            (&mut check.start_period_sec, args.health_start_period),
        ];
        for (seconds, time) in given {
            *seconds = time.map_or(*seconds, whole_seconds);
        }
        check.retries = args.health_retries.unwrap_or(check.retries);
        asked = asked.healthcheck(check);
    }
    if let Some(base) = args.base {
        asked = asked.base_template(base);
    }
    if let Some(count) = args.vcpus {
        asked = asked.vcpus(count);
    }
    if let Some(mb) = args.memory_mb {
        asked = asked.memory_mb(mb);
    }
    if let Some(mb) = args.disk_size_mb {
        asked = asked.disk_size_mb(mb);
    }
    if let Some(key) = args.idempotency_key {
        asked = asked.idempotency_key(key);
    }
    Ok(asked)
}

/// A fraction is rounded up: no time is shorter than was asked for.
fn whole_seconds(time: Duration) -> u32 {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

fn copies(recipe: &Recipe) -> bool {
    let mut steps = recipe.steps.iter();
    steps.any(|step| step.instruction() == "COPY")
}

/// The recipe's file, or the one that is there.
fn recipe_text(file: Option<PathBuf>, context: Option<&Path>) -> Result<String, Failure> {
    let path = match file {
        Some(path) if path == Path::new("-") => {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            read.map_err(Failure::local("can't read the recipe from stdin"))?;
            return Ok(text);
        }
        Some(path) => path,
        None => {
            let there = context.map(|folder| folder.join(RECIPE_FILE));
            there.filter(|path| path.is_file()).ok_or_else(|| {
                Failure::Own(
                    "there is no recipe: name its file with -f, or give its steps with --step"
                        .to_owned(),
                )
            })?
        }
    };
    let what = format!("can't read the recipe from {}", path.display());
    std::fs::read_to_string(path).map_err(Failure::local(what))
}
