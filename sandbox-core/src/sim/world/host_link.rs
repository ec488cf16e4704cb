//! The host as an engine of a simulated world reaches it, and the clock of that engine.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use chrono::TimeDelta;
use futures::future::{BoxFuture, FutureExt};
use uuid::Uuid;

use super::{
    World,
    network::Line,
    steps::{self, Step},
};
use crate::{
    clock::{Clock, Timestamp},
    guest::Guest,
    host::{
        Host, HostCreate, HostError, HostImage, HostImport, HostInfo, HostOrder, HostReport,
        HostSnapshot, ImageDeletion,
    },
    id::{SandboxId, TemplateId},
    sim::{SimClock, SimHost},
    template::TemplateKind,
};

pub(super) struct HostLink(pub(super) Line);

fn lost(why: &str) -> HostError {
    HostError::Unavailable(why.to_owned())
}

impl HostLink {
    fn host(&self) -> SimHost {
        self.0.world.host.clone()
    }

    /// `room` says that it needs some on the host's disk.
    async fn order<T: Send + 'static>(
        &self,
        step: Step,
        whom: u128,
        room: bool,
        order: impl Fn(Arc<World>) -> BoxFuture<'static, Result<T, HostError>> + Send + Sync + 'static,
    ) -> Result<T, HostError> {
        let world = Arc::clone(&self.0.world);
        let act = move || {
            let done = order(Arc::clone(&world));
            let world = Arc::clone(&world);
            async move {
                match room && world.host_is_full() {
                    true => Err(HostError::DiskFull {
                        place: "/".to_owned(),
                        free_mb: 0,
                        needed_mb: 1,
                    }),
                    false => done.await,
                }
            }
            .boxed()
        };
        self.0.order(step, whom, act, lost).await
    }

    async fn image(&self, order: HostSnapshot, kind: TemplateKind) -> Result<HostImage, HostError> {
        let whom = order.order.id.uuid().as_u128();
        self.order(steps::order_image(kind), whom, true, move |world| {
            let order = order.clone();
            async move {
                let given = order.clone();
                let made = match kind {
                    TemplateKind::Snapshot => world.host.create_snapshot(given).await,
                    TemplateKind::Image => world.host.flatten_rootfs(given).await,
                }?;
                world.image_told(&order);
                Ok(made)
            }
            .boxed()
        })
        .await
    }
}

#[async_trait]
impl Host for HostLink {
    async fn hello(&self) -> Result<HostInfo, HostError> {
        let host = self.host();
        self.0
            .ask(async move { host.hello().await }.boxed(), lost)
            .await
    }

    async fn create_sandbox(&self, order: HostCreate) -> Result<(), HostError> {
        let whom = order.id.uuid().as_u128();
        self.order(steps::ORDER_CREATE, whom, true, move |world| {
            let order = order.clone();
            async move {
                let id = order.id;
                world.host.create_sandbox(order).await?;
                world.running_told(id);
                Ok(())
            }
            .boxed()
        })
        .await
    }

    async fn destroy_sandbox(&self, id: SandboxId, generation: u64) -> Result<(), HostError> {
        let step = steps::order_destroy(self.0.world.recorded(id).as_ref());
        self.order(step, id.uuid().as_u128(), false, move |world| {
            async move { world.host.destroy_sandbox(id, generation).await }.boxed()
        })
        .await
    }

    async fn pause_sandbox(&self, order: HostOrder) -> Result<(), HostError> {
        let whom = order.id.uuid().as_u128();
        self.order(steps::ORDER_PAUSE, whom, true, move |world| {
            async move { world.host.pause_sandbox(order).await }.boxed()
        })
        .await
    }

    async fn resume_sandbox(&self, order: HostOrder) -> Result<(), HostError> {
        let whom = order.id.uuid().as_u128();
        self.order(steps::ORDER_RESUME, whom, false, move |world| {
            async move {
                world.host.resume_sandbox(order).await?;
                world.running_told(order.id);
                Ok(())
            }
            .boxed()
        })
        .await
    }

    async fn create_snapshot(&self, order: HostSnapshot) -> Result<HostImage, HostError> {
        self.image(order, TemplateKind::Snapshot).await
    }

    async fn flatten_rootfs(&self, order: HostSnapshot) -> Result<HostImage, HostError> {
        self.image(order, TemplateKind::Image).await
    }

    async fn import_image(&self, order: HostImport) -> Result<HostImage, HostError> {
        let whom = order.image.uuid().as_u128();
        self.order(steps::ORDER_IMPORT, whom, true, move |world| {
            let order = order.clone();
            async move { world.host.import_image(order).await }.boxed()
        })
        .await
    }

    async fn delete_snapshot(&self, image: TemplateId) -> Result<ImageDeletion, HostError> {
        let whom = image.uuid().as_u128();
        self.order(steps::ORDER_DELETE_IMAGE, whom, false, move |world| {
            async move {
                let done = world.host.delete_snapshot(image).await?;
                world.image_went(image);
                Ok(done)
            }
            .boxed()
        })
        .await
    }

    async fn list_sandboxes(&self) -> Result<HostReport, HostError> {
        let world = Arc::clone(&self.0.world);
        let act = async move {
            let report = world.host.list_sandboxes().await?;
            world.reported(&report);
            Ok(report)
        };
        let report = self.0.ask(act.boxed(), lost).await?;
        let late = match self.0.world.has_stale_reports() && self.0.world.chance(1000) {
            true => self.0.life.overtaken(),
            false => None,
        };
        Ok(match late {
            Some(late) => {
                self.0
                    .world
                    .note("an old report", u128::from(late.sequence), String::new);
                late
            }
            None => {
                self.0.life.reported(report.clone());
                report
            }
        })
    }

    async fn changed(&self, seen: u64, wait: Duration) -> Result<u64, HostError> {
        let host = self.host();
        let act = async move { host.changed(seen, wait).await };
        self.0.ask(act.boxed(), lost).await
    }

    fn guest(&self, id: SandboxId) -> Arc<dyn Guest> {
        self.0.world.host.guest(id)
    }
}

/// An engine's clock: it may be ahead of the others', and jump forwards.
pub(super) struct PlaneClock {
    pub(super) base: Arc<SimClock>,
    pub(super) ahead_ms: Arc<AtomicI64>,
}

#[async_trait]
impl Clock for PlaneClock {
    fn now(&self) -> Timestamp {
        let ahead = TimeDelta::milliseconds(self.ahead_ms.load(Ordering::Relaxed));
        self.base
            .now()
            .checked_add_signed(ahead)
            .unwrap_or(Timestamp::MAX_UTC)
    }

    async fn sleep(&self, duration: Duration) {
        self.base.sleep(duration).await;
    }

    fn new_uuid(&self) -> Uuid {
        self.base.new_uuid()
    }
}
