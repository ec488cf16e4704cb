//! Pausing: a machine's memory and devices go to files in its folder, and its process ends.
//!
//! ```text
//! running ─► guest at rest ─► stopped ─► saved ─► manifest: paused ─► process ended
//!    ▲            │              │         │
//!    └────────────┴── any error ─┴─────────┘
//! ```
//!
//! The manifest decides: a host that dies before it is written finds a running machine and has it go
//! on; one that dies behind it finds a paused one and ends what is left of its process, which did not
//! run since it was saved.

use std::sync::Arc;

use sandbox_core::host::{HostError, HostOrder};

use super::{
    Inner,
    table::{Begun, Paused, Present},
};
use crate::{
    emulator::Emulator,
    fault,
    inventory::Use,
    machine::{Guest, Machine, Rest, SaveFor, Saved},
    space,
};

impl Inner {
    pub(super) async fn pause(self: Arc<Self>, order: HostOrder) -> Result<(), HostError> {
        let lock = self.table.order_lock(order.id);
        let _one_at_a_time = lock.lock().await;
        let begun = self.begin_order(&order)?;
        let paused = match &begun.present {
            Present::Running(machine) => self
                .pause_machine(&order, &begun, machine, false, Guest::MayHang)
                .await
                .map(drop),
            Present::Paused(_) => Ok(()),
            Present::Neither(error) => Err(error.clone()),
        };
        self.end_order(order.id);
        paused
    }

    /// Pauses a running machine. After an error it runs on, unless it is being destroyed.
    pub(super) async fn pause_machine(
        self: &Arc<Self>,
        order: &HostOrder,
        begun: &Begun,
        machine: &Arc<Machine>,
        trim: bool,
        guest: Guest,
    ) -> Result<Paused, HostError> {
        space::require(self.inventory.root(), space::SPARE_MB)?;
        let rest = tokio::select! {
            rest = machine.rest(trim, guest) => rest?,
            () = begun.cancel.cancelled() => {
                return Err(self.give_up_rest(begun, machine).await);
            }
        };
        let paused = match self.save_and_record(order, begun, machine, &rest).await {
            Ok(paused) => paused,
            Err(error) => {
                self.undo_rest(begun, machine, rest).await;
                return Err(self.or_called_off(&begun.cancel, error));
            }
        };
        self.table.set_paused(order.id, paused.clone());
        if let Err(error) = machine.end_saved().await {
            // The next resume or destroy, or the next start of the host, sees to it.
            tracing::error!(machine = %machine.id, %error, "a paused machine left something");
        }
        drop(rest);
        fault::passed("process ended");
        Ok(paused)
    }

    async fn save_and_record(
        self: &Arc<Self>,
        order: &HostOrder,
        begun: &Begun,
        machine: &Arc<Machine>,
        rest: &Rest,
    ) -> Result<Paused, HostError> {
        let emulator = Emulator::of_machine(&self.boot, machine.qemu_version().await?);
        machine.save(SaveFor::Pause, begun.cancel.clone()).await?;
        let saved = Saved::in_folder(&self.inventory.folder(machine.id));
        saved.keep().map_err(self.step("keeping what was saved"))?;
        fault::point("saved").map_err(self.step("keeping what was saved"))?;
        if begun.cancel.is_cancelled() {
            return Err(HostError::Internal("it was called off".to_owned()));
        }
        let paused = Paused {
            origin: machine.origin.clone(),
            quiesced: rest.quiesced,
            emulator,
        };
        let use_ = Use::Paused {
            sandbox: order.id,
            generation: order.generation,
            quiesced: paused.quiesced,
            emulator: paused.emulator.clone(),
        };
        self.record_standing(machine.id, &machine.origin, order, use_)
            .await?;
        fault::passed(fault::PAUSED);
        Ok(paused)
    }

    /// Ends a rest that came to nothing. What was saved goes before the machine runs.
    pub(super) async fn undo_rest(&self, begun: &Begun, machine: &Arc<Machine>, rest: Rest) {
        if self.is_being_destroyed(&begun.cancel) {
            return;
        }
        let saved = Saved::in_folder(&self.inventory.folder(machine.id));
        if let Err(error) = saved.remove() {
            tracing::error!(machine = %machine.id, %error, "a failed pause left something");
        }
        machine.go_on_or_log(Some(rest)).await;
    }

    /// A machine was on its way to rest when the order was called off.
    pub(super) async fn give_up_rest(&self, begun: &Begun, machine: &Arc<Machine>) -> HostError {
        if !self.is_being_destroyed(&begun.cancel) {
            machine.go_on_or_log(None).await;
        }
        let error = HostError::Internal("it was called off".to_owned());
        self.or_called_off(&begun.cancel, error)
    }
}
