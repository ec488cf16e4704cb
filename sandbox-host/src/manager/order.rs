//! What all orders for a machine that is there have in common.

use std::{io, sync::Arc};

use sandbox_core::{
    host::{HostError, HostOrder},
    id::SandboxId,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Inner, create::stopping, table::Begun};
use crate::{
    inventory::{Manifest, Origin, Use},
    space,
};

impl Inner {
    /// Takes the order. [`end_order`](Self::end_order) must follow.
    pub(super) fn begin_order(&self, order: &HostOrder) -> Result<Begun, HostError> {
        self.table.begin(order, self.stopping.child_token())
    }

    pub(super) fn end_order(self: &Arc<Self>, id: SandboxId) {
        let Some(machine) = self.table.finish(id) else {
            return;
        };
        // Its end may have been noticed while the order kept it from being news.
        if let Some(ended) = machine.ended() {
            let inner = Arc::clone(self);
            self.tasks
                .spawn(async move { inner.machine_ended(&machine, ended).await });
        }
    }

    /// Records how a machine stands from now on. After an error it stands as before, on disk too.
    pub(super) async fn record_standing(
        self: &Arc<Self>,
        machine: Uuid,
        origin: &Origin,
        order: &HostOrder,
        use_: Use,
    ) -> Result<(), HostError> {
        let manifest = Manifest {
            origin: origin.clone(),
            order: order.order,
            use_,
        };
        let error = match self.write_manifest(machine, manifest.clone()).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // It may have been put into its place before that failed.
        let inner = Arc::clone(self);
        let on_disk = tokio::task::spawn_blocking(move || inner.inventory.read(machine)).await;
        if on_disk.is_ok_and(|on_disk| on_disk.as_ref() == Some(&manifest)) {
            tracing::warn!(%machine, %error, "a machine's manifest may not outlast a power cut");
            return Ok(());
        }
        Err(self.step("writing the inventory")(error))
    }

    /// The error of a step on this host's disk.
    pub(super) fn step(&self, step: &'static str) -> impl Fn(io::Error) -> HostError + use<> {
        let root = self.inventory.root().to_path_buf();
        move |error| space::or_internal(&root, step, &error)
    }

    /// The error of work that may have been called off.
    pub(super) fn or_called_off(&self, cancel: &CancellationToken, error: HostError) -> HostError {
        if self.stopping.is_cancelled() {
            stopping()
        } else if cancel.is_cancelled() {
            HostError::WrongState {
                state: "destroyed".to_owned(),
                reason: "it was destroyed meanwhile".to_owned(),
            }
        } else {
            error
        }
    }

    /// Whether a machine is to be left as it stands, since a destroy waits for it.
    pub(super) fn is_being_destroyed(&self, cancel: &CancellationToken) -> bool {
        cancel.is_cancelled() && !self.stopping.is_cancelled()
    }
}
