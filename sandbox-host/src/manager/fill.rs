//! Filling the pool, off the path of any create.

use std::sync::Arc;

use sandbox_core::host::HostError;
use uuid::Uuid;

use super::Inner;
use crate::{inventory::Use, machine::Machine, pool::Kind};

impl Inner {
    /// Brings the pool to its size with clones of this kind. Failures are logged: creates then make
    /// their own clones, and tell what is wrong.
    pub(super) async fn refill(self: &Arc<Self>, kind: &Kind) {
        if self.pool_size == 0 {
            return;
        }
        for other in self.pool.keep(kind) {
            self.discard(&other).await;
        }
        if !self.pool.begin_filling(self.pool_size) {
            return;
        }
        while let Some(kind) = self.pool.next_wanted(self.pool_size) {
            match self.waiting_clone(&kind).await {
                Ok(machine) => {
                    if let Err(unwanted) = self.pool.add(&kind, machine) {
                        self.discard(&unwanted).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the pool can't be filled");
                    self.pool.give_up_filling();
                    return;
                }
            }
        }
    }

    async fn waiting_clone(self: &Arc<Self>, kind: &Kind) -> Result<Arc<Machine>, HostError> {
        let image = self.image(kind.image, kind.size).await?;
        let id = Uuid::now_v7();
        let made = async {
            let machine = self.new_machine(id, &image, Use::Waiting).await?;
            machine.warm_up().await?;
            Ok(machine)
        };
        match made.await {
            Ok(machine) => Ok(machine),
            Err(error) => {
                if let Err(left) = self.clear_machine(id).await {
                    tracing::error!(machine = %id, error = %left, "a failed clone left something");
                }
                Err(error)
            }
        }
    }
}
