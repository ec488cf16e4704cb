//! Resuming: a paused machine's memory and devices go into a new process, and it goes on.
//!
//! ```text
//! paused ─► process, memory, devices: all there, standing still ─► manifest: running ─► goes on
//!    ▲                         │
//!    └──────── any error ──────┘
//! ```
//!
//! The manifest is written before the machine goes on: one that ran must never be found under a
//! manifest that says paused, since its disk would be newer than its saved memory.

use std::sync::Arc;

use sandbox_core::host::{HostError, HostOrder};

use super::{
    Inner, capacity,
    table::{Begun, Paused, Present},
};
use crate::{
    emulator::{Emulator, SavedAs},
    fault,
    inventory::Use,
    machine::{Machine, Saved, process_name},
    qemu::find_in_folder,
    space,
};

impl Inner {
    pub(super) async fn resume(self: Arc<Self>, order: HostOrder) -> Result<(), HostError> {
        let lock = self.table.order_lock(order.id);
        let _one_at_a_time = lock.lock().await;
        let begun = self.begin_order(&order)?;
        let resumed = match &begun.present {
            Present::Running(_) => Ok(()),
            Present::Paused(paused) => self.resume_machine(&order, &begun, paused).await,
            Present::Neither(error) => Err(error.clone()),
        };
        self.end_order(order.id);
        resumed
    }

    pub(super) async fn resume_machine(
        self: &Arc<Self>,
        order: &HostOrder,
        begun: &Begun,
        paused: &Paused,
    ) -> Result<(), HostError> {
        capacity::check(paused.origin.size)?;
        Emulator::of(&self.boot).check(&paused.emulator, SavedAs::Sandbox)?;
        space::require(self.inventory.root(), space::SPARE_MB)?;
        let machine = match self.revive(begun, paused).await {
            Ok(machine) => Arc::new(machine),
            Err(error) => return Err(self.or_called_off(&begun.cancel, error)),
        };
        let use_ = Use::Running {
            sandbox: order.id,
            generation: order.generation,
        };
        let recorded = self
            .record_standing(machine.id, &paused.origin, order, use_)
            .await;
        if let Err(error) = recorded {
            // It has not run, and is not watched.
            if let Err(error) = machine.end_saved().await {
                tracing::error!(machine = %machine.id, %error, "a failed resume left something");
            }
            return Err(error);
        }
        self.watch(&machine);
        self.table.set_running(order.id, Arc::clone(&machine));
        fault::passed(fault::RUNNING);
        let went_on = let_go_on(&machine).await;
        // From here on it is older than the disk.
        let saved = Saved::in_folder(&self.inventory.folder(machine.id));
        if let Err(error) = saved.remove() {
            tracing::error!(machine = %machine.id, %error, "a resumed machine left something");
        }
        went_on
    }

    async fn revive(&self, begun: &Begun, paused: &Paused) -> Result<Machine, HostError> {
        let folder = self.inventory.folder(begun.machine_id);
        let left = find_in_folder(&folder, &process_name(begun.machine_id))
            .map_err(self.step("looking for its last process"))?;
        if let Some(process) = left {
            process
                .kill()
                .await
                .map_err(self.step("ending its last process"))?;
        }
        let ram_file = self.images.ram_file(&paused.origin);
        Machine::revive(
            &self.boot,
            begun.machine_id,
            paused.origin.clone(),
            folder,
            ram_file,
            begun.cancel.clone(),
        )
        .await
    }
}

async fn let_go_on(machine: &Machine) -> Result<(), HostError> {
    machine.cont().await?;
    fault::passed("continued");
    // Side by side: what it does not answer is explained by what it says of itself.
    let (agent, woken) = tokio::join!(machine.check_agent(), machine.wake());
    agent?;
    woken?;
    fault::passed("woken");
    Ok(())
}
