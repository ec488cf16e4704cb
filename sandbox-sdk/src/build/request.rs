//! Describing a build.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use sandbox_core::{
    build::{BuildEvent, Healthcheck, Recipe, Step, SubmitBuild},
    error::Error,
    id::TeamId,
};

use super::{context::ContextSource, error::BuildError, handle::Build};
use crate::{Client, Result, Template};

/// A template to be made by a recipe: [`submit`](Self::submit) or [`run`](Self::run) it.
#[derive(Debug, Clone)]
#[must_use = "nothing happens until it is submitted"]
pub struct BuildTemplate<'c> {
    client: &'c Client,
    name: String,
    recipe: Given,
    base_template: Option<String>,
    healthcheck: Option<Healthcheck>,
    context: Option<ContextSource>,
    request: Sizes,
}

/// A recipe, as it was given.
#[derive(Debug, Clone)]
enum Given {
    List(Vec<String>),
    Text(String),
    Read(Recipe),
}

#[derive(Debug, Clone, Default)]
struct Sizes {
    vcpus: Option<u32>,
    memory_mb: Option<u32>,
    disk_size_mb: Option<u32>,
    no_cache: bool,
    team_id: Option<TeamId>,
    idempotency_key: Option<String>,
}

impl<'c> BuildTemplate<'c> {
    pub(super) fn new(client: &'c Client, name: String) -> Self {
        Self {
            client,
            name,
            recipe: Given::List(Vec::new()),
            base_template: None,
            healthcheck: None,
            context: None,
            request: Sizes::default(),
        }
    }

    /// What to start from, by name or written ID; else what the recipe's `FROM` says, else `minimal`.
    pub fn base_template(mut self, name: impl Into<String>) -> Self {
        self.base_template = Some(name.into());
        self
    }

    /// The recipe as a list: each entry is a shell command, or begins with `RUN`, `ENV`, `WORKDIR`,
    /// `USER`, `COPY` or `START` in capitals. See [`sandbox_core::build::recipe`] for what each takes.
    pub fn recipe<S: Into<String>>(mut self, entries: impl IntoIterator<Item = S>) -> Self {
        self.recipe = Given::List(entries.into_iter().map(Into::into).collect());
        self
    }

    /// One more entry of a recipe that is a list.
    pub fn step(mut self, entry: impl Into<String>) -> Self {
        match &mut self.recipe {
            Given::List(entries) => entries.push(entry.into()),
            other => *other = Given::List(vec![entry.into()]),
        }
        self
    }

    /// The recipe as a text, such as the content of a Dockerfile.
    pub fn recipe_text(mut self, text: impl Into<String>) -> Self {
        self.recipe = Given::Text(text.into());
        self
    }

    /// A recipe that was read already.
    pub fn parsed_recipe(mut self, recipe: Recipe) -> Self {
        self.recipe = Given::Read(recipe);
        self
    }

    /// When the result counts as healthy: a shell line, or a [`Healthcheck`]. With one, the template
    /// is a snapshot with memory, which goes on where the build was; without, it is a disk that boots.
    pub fn healthcheck(mut self, check: impl Into<Healthcheck>) -> Self {
        self.healthcheck = Some(check.into());
        self
    }

    /// Files for `COPY`: a tar archive, plain or compressed with gzip, of at most
    /// [`CONTEXT_MAX_BYTES`](crate::CONTEXT_MAX_BYTES).
    pub fn context(mut self, archive: impl Into<Bytes>) -> Self {
        self.context = Some(ContextSource::Archive(archive.into()));
        self
    }

    /// Files for `COPY`: the tar archive at this path.
    pub fn context_tar(mut self, path: impl Into<PathBuf>) -> Self {
        self.context = Some(ContextSource::Tar(path.into()));
        self
    }

    /// Files for `COPY`: all in this folder but what its `.dockerignore` leaves out.
    #[cfg(feature = "build-context")]
    pub fn context_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.context = Some(ContextSource::Folder(folder.into()));
        self
    }

    /// Files for `COPY`: what was uploaded before, by the name that it got.
    pub fn uploaded_context(mut self, name: impl Into<String>) -> Self {
        self.context = Some(ContextSource::Uploaded(name.into()));
        self
    }

    /// Virtual CPUs, of the build and of what starts from the template; the base's by default.
    pub fn vcpus(mut self, count: u32) -> Self {
        self.request.vcpus = Some(count);
        self
    }

    /// Memory in MiB, likewise.
    pub fn memory_mb(mut self, mb: u32) -> Self {
        self.request.memory_mb = Some(mb);
        self
    }

    /// Disk in MiB, likewise.
    pub fn disk_size_mb(mut self, mb: u32) -> Self {
        self.request.disk_size_mb = Some(mb);
        self
    }

    /// Runs every step although its result may be there already.
    pub fn no_cache(mut self, no_cache: bool) -> Self {
        self.request.no_cache = no_cache;
        self
    }

    /// The team that will own the template; the platform by default.
    pub fn team(mut self, team: TeamId) -> Self {
        self.request.team_id = Some(team);
        self
    }

    /// Makes retries safe: however often a request with this key is sent, there is one build.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.request.idempotency_key = Some(key.into());
        self
    }

    /// Uploads the context, where the recipe copies from it, and asks for the build. It is queued when
    /// this returns, and goes on when the caller goes away.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] with line and column where the recipe can't be read, or naming what
    /// else makes no sense; [`Error::TemplateNotFound`] for the base; [`Error::Forbidden`] for anyone
    /// but an administrator.
    pub async fn submit(self) -> Result<Build> {
        let bad =
            |error: &dyn std::fmt::Display| Error::InvalidRequest(format!("the recipe: {error}"));
        let (mut base, mut check) = (None, None);
        let recipe = match self.recipe {
            Given::List(entries) => Recipe::parse_list(&entries).map_err(|error| bad(&error))?,
            Given::Text(text) => {
                let read = Recipe::parse_text(&text).map_err(|error| bad(&error))?;
                base = read.base.map(|name| name.to_string());
                check = read.healthcheck.map(Healthcheck::from);
                read.recipe
            }
            Given::Read(recipe) => recipe,
        };
        let api = Arc::clone(&self.client.api);
        let copies = |step: &Step| matches!(step, Step::Copy { .. });
        let context = match self.context {
            Some(context) if recipe.steps.iter().any(copies) => {
                Some(context.uploaded(&*api).await?)
            }
            _ => None,
        };
        let record = api
            .submit_build(SubmitBuild {
                name: self.name,
                base_template: self.base_template.or(base),
                recipe,
                context,
                healthcheck: self.healthcheck.or(check),
                vcpus: self.request.vcpus,
                memory_mb: self.request.memory_mb,
                disk_size_mb: self.request.disk_size_mb,
                no_cache: self.request.no_cache,
                team_id: self.request.team_id,
                idempotency_key: self.request.idempotency_key,
            })
            .await?;
        Ok(Build::new(api, record.id))
    }

    /// Submits it, hands each event to `told`, and gives the template that it has made.
    ///
    /// # Errors
    /// As for [`submit`](Self::submit) and [`Build::wait`].
    pub async fn run(self, told: impl FnMut(BuildEvent)) -> Result<Template, BuildError> {
        self.submit().await?.told(told).await
    }
}
