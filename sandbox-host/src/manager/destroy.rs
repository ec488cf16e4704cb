//! Ending a sandbox's machine, from every state, with all it holds.

use std::{io, sync::Arc};

use sandbox_core::{host::HostError, id::SandboxId};
use uuid::Uuid;

use super::{Inner, table::Found};
use crate::{
    machine::{process_name, remove_machine_folder},
    qemu::find_in_folder,
};

impl Inner {
    pub(super) async fn destroy(
        self: Arc<Self>,
        id: SandboxId,
        generation: u64,
    ) -> Result<(), HostError> {
        // Before the lock, so that a create under way gives up.
        self.table.bury(id, generation)?;
        let lock = self.table.order_lock(id);
        let _one_at_a_time = lock.lock().await;
        self.clear_older(id).await
    }

    /// Removes whatever the host has of a sandbox.
    pub(super) async fn clear_older(&self, id: SandboxId) -> Result<(), HostError> {
        let removed = match self.table.retire(id) {
            Found::Nothing => return Ok(()),
            Found::Machine(machine) => machine.destroy().await,
            Found::Folder(machine) => self.clear_machine(machine).await,
        };
        removed.map_err(|error| HostError::Internal(format!("removing {id}: {error}")))?;
        self.forget(id).await;
        Ok(())
    }

    /// After a failed create: removes the machine and forgets the sandbox.
    pub(super) async fn abandon(&self, id: SandboxId, machine: Uuid) {
        match self.clear_machine(machine).await {
            Ok(()) => self.forget(id).await,
            // It stays in the report, so that it is destroyed again later.
            Err(error) => tracing::error!(%id, %machine, %error, "a failed create left something"),
        }
    }

    /// A sandbox is gone, and with it perhaps the last that lay on an image that is to go.
    async fn forget(&self, id: SandboxId) {
        if let Some(image) = self.table.remove(id) {
            self.collect_image(image).await;
        }
    }

    /// Ends the process that runs in a machine's folder, if any, and removes the folder.
    pub(super) async fn clear_machine(&self, machine: Uuid) -> io::Result<()> {
        let folder = self.inventory.folder(machine);
        if let Some(process) = find_in_folder(&folder, &process_name(machine))? {
            process.kill().await?;
        }
        remove_machine_folder(&folder)
    }
}
