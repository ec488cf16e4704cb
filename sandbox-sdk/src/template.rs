//! Templates that are there, and making one of a sandbox.

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
};

use sandbox_core::{
    api::Api,
    id::{OperationId, TemplateId},
    template::{SnapshotRequest, TemplateKind, TemplateRecord},
};

use crate::{Result, Sandbox};

/// A template that sandboxes start from. What is published never changes, so that this stays true
/// until it is deleted. Clones are handles on the same one; dropping them ends nothing.
#[derive(Clone)]
pub struct Template {
    api: Arc<dyn Api>,
    record: TemplateRecord,
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Template").field(&self.record).finish()
    }
}

impl Template {
    pub(crate) fn new(api: Arc<dyn Api>, record: TemplateRecord) -> Self {
        Self { api, record }
    }

    /// Its ID. It names this template and no other, whoever asks.
    #[must_use]
    pub const fn id(&self) -> TemplateId {
        self.record.id
    }

    /// Its name, unique within its team.
    #[must_use]
    pub fn name(&self) -> &str {
        self.record.name.as_str()
    }

    /// Whether it holds a disk alone, or the memory that goes with it too.
    #[must_use]
    pub const fn kind(&self) -> TemplateKind {
        self.record.kind
    }

    /// All that is known of it.
    #[must_use]
    pub const fn info(&self) -> &TemplateRecord {
        &self.record
    }

    /// Deletes it: it is hidden at once, and its files go with the last sandbox that lies on them.
    ///
    /// # Errors
    /// [`Error::Forbidden`](crate::Error::Forbidden) for the platform's where the caller is no
    /// administrator, [`Error::TemplateNotFound`](crate::Error::TemplateNotFound) where it is gone.
    pub async fn delete(&self) -> Result<()> {
        self.api.delete_template(&self.id().to_string()).await
    }
}

/// As [`Create::template`](crate::Create::template) takes it: by its ID.
impl From<&Template> for String {
    fn from(template: &Template) -> Self {
        template.id().to_string()
    }
}

/// As [`Create::template`](crate::Create::template) takes it: by its ID.
impl From<Template> for String {
    fn from(template: Template) -> Self {
        Self::from(&template)
    }
}

/// A template to be made of a sandbox. Await it.
#[derive(Debug, Clone)]
#[must_use = "nothing happens until it is awaited"]
pub struct Snapshot {
    sandbox: Sandbox,
    request: SnapshotRequest,
}

impl Snapshot {
    pub(crate) fn new(sandbox: Sandbox, name: Option<String>) -> Self {
        let request = SnapshotRequest {
            sandbox_id: sandbox.id(),
            name,
            resume: false,
            kind: TemplateKind::Snapshot,
        };
        Self { sandbox, request }
    }

    /// Whether a sandbox that ran runs on afterwards. It is paused otherwise.
    pub fn resume(mut self, resume: bool) -> Self {
        self.request.resume = resume;
        self
    }

    /// The disk alone: what is made of it boots, at any size that the content fits.
    pub fn image_only(mut self) -> Self {
        self.request.kind = TemplateKind::Image;
        self
    }

    /// Begins it and gives the operation, under whose ID
    /// [`Client::operation`](crate::Client::operation) has the outcome.
    ///
    /// # Errors
    /// As for waiting for it, as far as they show at the start.
    pub async fn begin(self) -> Result<OperationId> {
        self.sandbox.api.begin_snapshot(self.request).await
    }
}

impl IntoFuture for Snapshot {
    type Output = Result<Template>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let api = Arc::clone(&self.sandbox.api);
            let record = api.snapshot(self.request).await?;
            Ok(Template::new(api, record))
        })
    }
}
