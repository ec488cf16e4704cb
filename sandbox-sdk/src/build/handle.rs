//! A build that was asked for.

use std::{fmt, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream};
use sandbox_core::{
    api::Api,
    build::{BuildDetails, BuildEvent, BuildRecord, BuildStatus, Follower, LogCursor},
    error::Error,
    id::BuildId,
};

use super::error::BuildError;
use crate::{Result, Template};

/// How long one question for what follows waits: how late a step without output may be told of.
const FOLLOW_WAIT: Duration = Duration::from_secs(1);
/// How long one question for the end waits.
const END_WAIT: Duration = Duration::from_secs(30);
/// Behind every piece of a log.
const BEHIND_ALL: LogCursor = LogCursor((1 << 53) - 1);

/// A handle on a build. Dropping it ends nothing: the build goes on with the platform.
#[derive(Clone)]
pub struct Build {
    api: Arc<dyn Api>,
    id: BuildId,
}

impl fmt::Debug for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Build").field(&self.id).finish()
    }
}

impl Build {
    pub(crate) fn new(api: Arc<dyn Api>, id: BuildId) -> Self {
        Self { api, id }
    }

    /// Its ID.
    #[must_use]
    pub const fn id(&self) -> BuildId {
        self.id
    }

    /// How it stands, with the steps of its last attempt and what they printed.
    ///
    /// # Errors
    /// [`Error::BuildNotFound`] once it was forgotten, some weeks after its end.
    pub async fn get(&self) -> Result<BuildDetails> {
        self.api.build(self.id).await
    }

    /// Ends it, whether it waits or runs. Done twice it succeeds twice.
    ///
    /// # Errors
    /// [`Error::BuildEnded`] where it has succeeded or failed already.
    pub async fn cancel(&self) -> Result<BuildRecord> {
        self.api.cancel_build(self.id).await
    }

    /// What happens in it, from the beginning with `LogCursor::default()`, or from behind the output
    /// that was seen last. It ends behind [`BuildEvent::Ended`], or with the first error; whoever
    /// comes back with the last [`cursor`](sandbox_core::build::LogEntry::cursor) loses and doubles no
    /// output.
    pub fn follow(&self, from: LogCursor) -> impl Stream<Item = Result<BuildEvent>> + Send + use<> {
        self.read(from, FOLLOW_WAIT, false)
    }

    /// Like [`follow`](Self::follow), to the end of what there is now.
    pub fn log(&self, from: LogCursor) -> impl Stream<Item = Result<BuildEvent>> + Send + use<> {
        self.read(from, Duration::ZERO, true)
    }

    fn read(
        &self,
        from: LogCursor,
        wait: Duration,
        once: bool,
    ) -> impl Stream<Item = Result<BuildEvent>> + Send + use<> {
        let start = (Arc::clone(&self.api), Some(Follower::new(from)));
        let id = self.id;
        let parts = stream::unfold(start, move |(api, follower)| async move {
            let mut follower = follower?;
            let (events, done) = match api.build_log(id, follower.after(), wait).await {
                Ok(log) => {
                    let at_end = log.entries.is_empty();
                    let events = follower.take(log).into_iter().map(Ok).collect();
                    (events, follower.ended() || (once && at_end))
                }
                Err(error) => (vec![Err(error)], true),
            };
            let next = (!done).then_some(follower);
            Some((stream::iter(events), (api, next)))
        });
        parts.flatten()
    }

    /// Waits for its end and gives the template that it has made.
    ///
    /// # Errors
    /// [`BuildError::Failed`] with the step and the end of what it printed.
    pub async fn wait(&self) -> Result<Template, BuildError> {
        loop {
            let log = self.api.build_log(self.id, BEHIND_ALL, END_WAIT).await?;
            if log.record.status.ended() {
                return self.outcome(&log.record).await;
            }
        }
    }

    /// Hands each event to `told` and gives what has come of the build.
    pub(super) async fn told(
        &self,
        mut told: impl FnMut(BuildEvent),
    ) -> Result<Template, BuildError> {
        let mut events = std::pin::pin!(self.follow(LogCursor::default()));
        let mut ended = None;
        while let Some(event) = events.next().await {
            let event = event?;
            if let BuildEvent::Ended(record) = &event {
                ended = Some(record.clone());
            }
            told(event);
        }
        match ended {
            Some(record) => self.outcome(&record).await,
            None => self.wait().await,
        }
    }

    /// What has come of it.
    async fn outcome(&self, record: &BuildRecord) -> Result<Template, BuildError> {
        if record.status != BuildStatus::Success {
            return Err(BuildError::of(self.get().await?));
        }
        let Some(made) = record.template_id else {
            let words = format!(
                "the build {} has made something that is no template",
                self.id
            );
            return Err(Error::Internal(words).into());
        };
        let record = self.api.template(&made.to_string()).await?;
        Ok(Template::new(Arc::clone(&self.api), record))
    }
}
