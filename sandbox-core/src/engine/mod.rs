//! The engine: everything that the platform does, against a store, a host and a clock.
//!
//! ```text
//!  Api call ──► validate, authorize ──► task of its own ──► lifecycle ──► Store (compare-and-set)
//!                                            │  ▲ lease kept
//!                                            ▼  │
//!                                          Host order ──────────────────► machine
//!  guest call ──► admit (rights, state, deadline) ──► Guest
//!
//!  background:  wait(host change | deadline | timer) ──► store ──► report ──► reconcile::plan
//!                                                                   └─► act by compare-and-set
//! ```
//!
//! Creating and destroying are durable operations. Each runs on a task of its own under a lease
//! that it renews; whoever asked waits on a shared outcome and may go away. When the engine itself
//! goes away the lease runs out, and the next engine settles what is left.
//!
//! Clients come in by [`Engine::api`], which knows who asks; every rule about that is in
//! [`authorize`](crate::authorize).
//!
//! *Never here:* a state written other than through [`lifecycle`](crate::lifecycle), a decision
//! about what disagrees with a host (that is [`reconcile`](crate::reconcile)), or a spawned task
//! outside the file `spawn`.

mod admissions;
mod admit;
mod api;
mod background;
mod builds;
mod config;
mod create;
mod destroy;
mod errors;
mod exec;
mod flights;
mod import;
mod lease;
mod observe;
mod premark;
mod repair;
mod rights;
mod snapshot;
mod spawn;
mod survey;
mod suspend;
mod templates;
#[cfg(test)]
mod tests;
mod validate;

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::{Notify, watch};

use crate::{
    audit::Actor,
    caller::Caller,
    clock::{Clock, Timestamp},
    engine::{
        admissions::Admissions, background::Rounds, builds::Builds, flights::Flights,
        observe::Observer, repair::Cleaning, spawn::Tasks,
    },
    error::Error,
    host::{Host, ReportNumber},
    id::{AuditId, HostId, SandboxId},
    lifecycle::Stamp,
    queue::Queue,
    sandbox::SandboxRecord,
    store::Store,
};

pub use api::EngineApi;
pub use config::EngineConfig;
pub use observe::EndedOperation;

/// What an engine is assembled from.
#[derive(Clone)]
pub struct Parts {
    /// Where records are kept.
    pub store: Arc<dyn Store>,
    /// What owns the machines.
    pub host: Arc<dyn Host>,
    /// What wakes the workers of template builds.
    pub queue: Arc<dyn Queue>,
    /// Time and new identifiers.
    pub clock: Arc<dyn Clock>,
}

/// The services of the platform. Clones are one engine; the background work ends with the last.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
    _stop: Arc<StopOnDrop>,
}

struct Inner {
    store: Arc<dyn Store>,
    host: Arc<dyn Host>,
    queue: Arc<dyn Queue>,
    clock: Arc<dyn Clock>,
    config: EngineConfig,
    host_id: HostId,
    tasks: Tasks,
    flights: Flights,
    admissions: Admissions,
    cleaning: Cleaning,
    builds: Builds,
    rounds: Rounds,
    observer: Observer,
    /// The number of the newest report of the host that was heard.
    newest_report: Mutex<Option<ReportNumber>>,
    /// Ends the background loop's wait early.
    nudge: Notify,
    stop: watch::Sender<bool>,
}

struct StopOnDrop(watch::Sender<bool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

impl Engine {
    /// Assembles an engine, settles what an earlier one left behind, and begins the background
    /// work. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the host or the store can't be asked.
    pub async fn start(parts: Parts, config: EngineConfig) -> Result<Self, Error> {
        let engine = Self::assemble(parts, config).await?;
        engine.inner.ensure_minimal().await?;
        engine.inner.recover().await?;
        engine.inner.start_builders()?;
        let inner = Arc::clone(&engine.inner);
        engine
            .inner
            .tasks
            .spawn(async move { inner.background().await })?;
        Ok(engine)
    }

    async fn assemble(parts: Parts, config: EngineConfig) -> Result<Self, Error> {
        let hello = parts.host.hello().await.map_err(errors::from_host)?;
        let (stop, _) = watch::channel(false);
        let inner = Arc::new(Inner {
            store: parts.store,
            host: parts.host,
            queue: parts.queue,
            clock: parts.clock,
            config,
            host_id: hello.host_id,
            tasks: Tasks::default(),
            flights: Flights::default(),
            admissions: Admissions::default(),
            cleaning: Cleaning::default(),
            builds: Builds::default(),
            rounds: Rounds::default(),
            observer: Observer::default(),
            newest_report: Mutex::default(),
            nudge: Notify::new(),
            stop: stop.clone(),
        });
        Ok(Self {
            inner,
            _stop: Arc::new(StopOnDrop(stop)),
        })
    }

    /// The engine as one client sees it: the way in for whatever a client can ask for, and the place
    /// where it is asked whether that client may.
    #[must_use]
    pub fn api(&self, caller: Caller) -> EngineApi {
        EngineApi::new(self.clone(), caller)
    }

    /// Ends the background work, refuses new work, and waits for operations in flight, at most for
    /// the configured time. Sandboxes go on running. Returns whether all operations ended; those
    /// that did not are settled by the next engine.
    pub async fn shutdown(&self) -> bool {
        let inner = &self.inner;
        inner.stop.send_replace(true);
        // Builds are handed back, and their sandboxes begin to go, while there can be new tasks.
        tokio::select! {
            biased;
            () = inner.builders_gone() => {}
            () = inner.clock.sleep(inner.config.shutdown_timeout / 2) => {}
        }
        inner.tasks.close();
        tokio::select! {
            biased;
            () = inner.tasks.idle() => true,
            () = inner.clock.sleep(inner.config.shutdown_timeout) => {
                inner.tasks.abort();
                false
            }
        }
    }

    /// Ends everything at once and in the middle, as the death of the process would.
    #[cfg(any(feature = "sim", test))]
    pub fn crash(&self) {
        self.inner.stop.send_replace(true);
        self.inner.tasks.close();
        self.inner.tasks.abort();
    }
}

impl Inner {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn stamp(&self, actor: &Actor) -> Stamp {
        Stamp {
            actor: actor.clone(),
            at: self.now(),
            audit_id: AuditId::from_uuid(self.clock.new_uuid()),
        }
    }

    fn lease_end(&self) -> Timestamp {
        later(self.now(), self.config.lease)
    }

    async fn record(&self, id: SandboxId) -> Result<SandboxRecord, Error> {
        self.store
            .sandbox(id)
            .await
            .map_err(errors::from_store)?
            .ok_or(Error::SandboxNotFound(id))
    }

    fn stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Returns when the engine is told to stop.
    async fn stopped(&self) {
        let mut stop = self.stop.subscribe();
        // The sender lives in `self`: this ends only with the value.
        let _ = stop.wait_for(|stop| *stop).await;
    }
}

/// A moment after another; the end of the calendar where there is none.
fn later(at: Timestamp, by: Duration) -> Timestamp {
    chrono::TimeDelta::from_std(by)
        .ok()
        .and_then(|by| at.checked_add_signed(by))
        .unwrap_or(Timestamp::MAX_UTC)
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("host_id", &self.inner.host_id)
            .finish_non_exhaustive()
    }
}
