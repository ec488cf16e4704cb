//! The way in.

use std::{fmt, sync::Arc};

use sandbox_core::{
    api::Api,
    id::{OperationId, SandboxId},
    operation::OperationRecord,
    sandbox::{CreateSandbox, Page, PageRequest, SandboxFilter, SandboxRecord},
};

use crate::{Create, Result, Sandbox, Templates};

/// A connection to the platform. Clones share it; it may be used from many tasks at once.
#[derive(Clone)]
pub struct Client {
    pub(crate) api: Arc<dyn Api>,
    #[cfg(feature = "embedded")]
    pub(crate) embedded: Option<Arc<crate::embedded::Embedded>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// A client of any implementation of the platform's interface, such as a simulated one.
    #[must_use]
    pub fn from_api(api: Arc<dyn Api>) -> Self {
        Self {
            api,
            #[cfg(feature = "embedded")]
            embedded: None,
        }
    }

    /// Begins to describe a new sandbox; awaiting it makes the sandbox.
    ///
    /// ```no_run
    /// # async fn example(client: sandbox_sdk::Client) -> Result<(), sandbox_sdk::Error> {
    /// let small = client.create().await?;
    /// let large = client.create().memory_mb(2048).vcpus(2).env("MODE", "test").await?;
    /// # Ok(()) }
    /// ```
    #[must_use = "nothing happens until it is awaited"]
    pub fn create(&self) -> Create<'_> {
        Create::new(self, CreateSandbox::default())
    }

    /// A handle on a sandbox that is there.
    ///
    /// # Errors
    /// [`Error::SandboxNotFound`](crate::Error::SandboxNotFound).
    pub async fn get(&self, id: SandboxId) -> Result<Sandbox> {
        let record = self.api.get(id).await?;
        Ok(Sandbox::new(Arc::clone(&self.api), record.id))
    }

    /// A page of sandboxes, the oldest first.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn list(
        &self,
        filter: SandboxFilter,
        page: PageRequest,
    ) -> Result<Page<SandboxRecord>> {
        self.api.list(filter, page).await
    }

    /// What sandboxes start from.
    #[must_use]
    pub const fn templates(&self) -> Templates<'_> {
        Templates::new(self)
    }

    /// An operation and its outcome, also when whoever began it has gone.
    ///
    /// # Errors
    /// When there is none of this ID, or its outcome was forgotten after some days.
    pub async fn operation(&self, id: OperationId) -> Result<OperationRecord> {
        self.api.operation(id).await
    }
}
