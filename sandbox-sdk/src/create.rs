//! Describing a new sandbox.

use std::{
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use sandbox_core::sandbox::{CreateSandbox, OnTimeout};

use crate::{Client, Result, Sandbox};

/// A sandbox to be made. Await it.
#[derive(Debug, Clone)]
#[must_use = "nothing happens until it is awaited"]
pub struct Create<'c> {
    client: &'c Client,
    request: CreateSandbox,
}

impl<'c> Create<'c> {
    pub(crate) fn new(client: &'c Client, request: CreateSandbox) -> Self {
        Self { client, request }
    }

    /// The template to start from, by name, written ID or handle; `minimal` by default. What starts
    /// from a snapshot goes on in its memory, at exactly its size.
    pub fn template(mut self, name: impl Into<String>) -> Self {
        self.request.template = Some(name.into());
        self
    }

    /// Virtual CPUs; 1 by default.
    pub fn vcpus(mut self, count: u32) -> Self {
        self.request.vcpus = Some(count);
        self
    }

    /// Memory in MiB; 512 by default.
    pub fn memory_mb(mut self, mb: u32) -> Self {
        self.request.memory_mb = Some(mb);
        self
    }

    /// Disk in MiB; 5120 by default. The host spends only what the sandbox writes.
    pub fn disk_size_mb(mut self, mb: u32) -> Self {
        self.request.disk_size_mb = Some(mb);
        self
    }

    /// Destroys the sandbox, or [pauses](Self::on_timeout) it, once it was not used for this long, in whole seconds; never by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        // A fraction is rounded up: a timeout is never shorter than was asked for.
        let seconds = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0);
        self.request.timeout_sec = Some(seconds);
        self
    }

    /// What becomes of the sandbox at the end of its [`timeout`](Self::timeout); it is destroyed by
    /// default.
    pub fn on_timeout(mut self, then: OnTimeout) -> Self {
        self.request.on_timeout = Some(then);
        self
    }

    /// A label, to find the sandbox by.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.metadata.insert(key.into(), value.into());
        self
    }

    /// An environment variable of every process in the sandbox.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.env.insert(name.into(), value.into());
        self
    }

    /// Makes retries safe: however often a request with this key is sent, there is one sandbox.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.request.idempotency_key = Some(key.into());
        self
    }
}

impl<'c> IntoFuture for Create<'c> {
    type Output = Result<Sandbox>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'c>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let api = Arc::clone(&self.client.api);
            let record = api.create(self.request).await?;
            Ok(Sandbox::new(api, record.id))
        })
    }
}
