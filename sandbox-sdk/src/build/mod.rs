//! Template builds: asking for them, following them, and what comes of them.

mod context;
mod error;
mod handle;
#[cfg(feature = "build-context")]
mod ignore;
#[cfg(feature = "build-context")]
mod pack;
mod request;

use std::sync::Arc;

use sandbox_core::{
    build::{BuildFilter, BuildPage, BuildPageRequest},
    id::BuildId,
};

pub use error::{BuildError, FailedBuild, FailedStep};
pub use handle::Build;
pub use request::BuildTemplate;

use crate::{Client, Result};

impl Client {
    /// Begins to describe a template that a recipe makes, for administrators. Building under a name
    /// that is there makes a new version: sandboxes of the old one go on.
    ///
    /// ```no_run
    /// # async fn example(client: sandbox_sdk::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use sandbox_sdk::BuildEvent;
    ///
    /// let template = client
    ///     .build_template("web")
    ///     .base_template("python")
    ///     .recipe([
    ///         "python3 -m venv /srv/venv",
    ///         "WORKDIR /srv",
    ///         "echo hello > index.html",
    ///         "START python3 -m http.server 8000",
    ///     ])
    ///     .healthcheck("wget -qO- http://127.0.0.1:8000/")
    ///     .run(|event| match event {
    ///         BuildEvent::StepStarted(step) => println!("{}: {}", step.step, step.cmd),
    ///         BuildEvent::Output(entry) => print!("{}", String::from_utf8_lossy(&entry.data)),
    ///         _ => {}
    ///     })
    ///     .await?;
    /// // The server runs already in what starts from it.
    /// let sandbox = client.create().template(&template).await?;
    /// # Ok(()) }
    /// ```
    #[must_use = "nothing happens until it is submitted"]
    pub fn build_template(&self, name: impl Into<String>) -> BuildTemplate<'_> {
        BuildTemplate::new(self, name.into())
    }

    /// A handle on a build that is there, for administrators.
    ///
    /// # Errors
    /// [`Error::BuildNotFound`](crate::Error::BuildNotFound), and
    /// [`Error::Forbidden`](crate::Error::Forbidden) for anyone else.
    pub async fn build(&self, id: BuildId) -> Result<Build> {
        let api = Arc::clone(&self.api);
        api.build(id).await?;
        Ok(Build::new(api, id))
    }

    /// A page of builds without their logs, for administrators.
    ///
    /// # Errors
    /// [`Error::Forbidden`](crate::Error::Forbidden) for anyone else.
    pub async fn builds(&self, filter: BuildFilter, page: BuildPageRequest) -> Result<BuildPage> {
        self.api.builds(filter, page).await
    }
}
