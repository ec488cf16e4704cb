//! Finding, deleting and importing templates.

use std::{
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
};

use sandbox_core::{
    id::{OperationId, TemplateId},
    template::{
        ImportSource, ImportTemplate, TemplateKind, TemplatePage, TemplatePageRequest, TemplateUse,
    },
};

use crate::{Client, Result, Template};

/// The templates that a client can see: its team's and the platform's.
#[derive(Debug, Clone, Copy)]
pub struct Templates<'c> {
    client: &'c Client,
}

impl<'c> Templates<'c> {
    pub(crate) const fn new(client: &'c Client) -> Self {
        Self { client }
    }

    /// A template by its name or written ID. Of one name, the platform's comes before the caller's
    /// own.
    ///
    /// # Errors
    /// [`Error::TemplateNotFound`](crate::Error::TemplateNotFound), also for another team's.
    pub async fn get(&self, name: impl AsRef<str>) -> Result<Template> {
        let api = Arc::clone(&self.client.api);
        let record = api.template(name.as_ref()).await?;
        Ok(Template::new(api, record))
    }

    /// A page of them; with a kind, only those.
    ///
    /// ```no_run
    /// # async fn example(client: sandbox_sdk::Client) -> Result<(), sandbox_sdk::Error> {
    /// use sandbox_sdk::TemplatePageRequest;
    ///
    /// let mut page = TemplatePageRequest::default();
    /// loop {
    ///     let part = client.templates().list(None, page).await?;
    ///     for template in part.items {
    ///         println!("{}: {} bytes", template.name, template.size_bytes());
    ///     }
    ///     page.after = part.next;
    ///     if page.after.is_none() {
    ///         break;
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn list(
        &self,
        kind: Option<TemplateKind>,
        page: TemplatePageRequest,
    ) -> Result<TemplatePage> {
        self.client.api.templates(kind, page).await
    }

    /// A page of all teams' templates with who lies on them, for administrators. Its second part is
    /// what to ask for next.
    ///
    /// # Errors
    /// [`Error::Forbidden`](crate::Error::Forbidden) for anyone else.
    pub async fn all(
        &self,
        kind: Option<TemplateKind>,
        page: TemplatePageRequest,
    ) -> Result<(Vec<TemplateUse>, Option<TemplateId>)> {
        self.client.api.all_templates(kind, page).await
    }

    /// Deletes a template by its name or written ID; see [`Template::delete`].
    ///
    /// # Errors
    /// As for [`Template::delete`].
    pub async fn delete(&self, name: impl AsRef<str>) -> Result<()> {
        self.client.api.delete_template(name.as_ref()).await
    }

    /// Begins to describe a template made from elsewhere, for administrators: paths are the host's.
    /// Awaiting it makes the template.
    ///
    /// ```no_run
    /// # async fn example(client: sandbox_sdk::Client) -> Result<(), sandbox_sdk::Error> {
    /// use sandbox_sdk::ImportSource;
    ///
    /// let source = ImportSource::OciRegistry {
    ///     reference: "docker.io/library/alpine:3.20".to_owned(),
    ///     insecure: false,
    /// };
    /// client.templates().import("alpine", source).memory_mb(256).await?;
    /// let sandbox = client.create().template("alpine").await?;
    /// # Ok(()) }
    /// ```
    #[must_use = "nothing happens until it is awaited"]
    pub fn import(&self, name: impl Into<String>, source: ImportSource) -> Import<'c> {
        Import {
            client: self.client,
            request: ImportTemplate {
                name: name.into(),
                source,
                vcpus: None,
                memory_mb: None,
                disk_size_mb: None,
            },
        }
    }
}

/// A template to be made from elsewhere. Await it.
#[derive(Debug, Clone)]
#[must_use = "nothing happens until it is awaited"]
pub struct Import<'c> {
    client: &'c Client,
    request: ImportTemplate,
}

impl<'c> Import<'c> {
    /// Virtual CPUs of a sandbox that asks for none; 1 by default.
    pub fn vcpus(mut self, count: u32) -> Self {
        self.request.vcpus = Some(count);
        self
    }

    /// Memory of a sandbox that asks for none, in MiB; 512 by default.
    pub fn memory_mb(mut self, mb: u32) -> Self {
        self.request.memory_mb = Some(mb);
        self
    }

    /// Disk of a sandbox that asks for none, in MiB; 5120, or what the content needs, by default.
    pub fn disk_size_mb(mut self, mb: u32) -> Self {
        self.request.disk_size_mb = Some(mb);
        self
    }

    /// Begins it and gives the operation, under whose ID [`Client::operation`] has the outcome.
    ///
    /// # Errors
    /// As for waiting for it, as far as they show at the start.
    pub async fn begin(self) -> Result<OperationId> {
        self.client.api.begin_import(self.request).await
    }
}

impl<'c> IntoFuture for Import<'c> {
    type Output = Result<Template>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'c>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let api = Arc::clone(&self.client.api);
            let record = api.import_template(self.request).await?;
            Ok(Template::new(api, record))
        })
    }
}
