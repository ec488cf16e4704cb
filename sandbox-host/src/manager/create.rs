//! Making a sandbox's machine: a waiting clone where there is one, a new clone otherwise, and then
//! an identity of its own before anything runs in it.

use std::sync::Arc;

use sandbox_core::{
    guest::CallError,
    host::{HostCreate, HostError},
    id::{SandboxId, TemplateId},
    size::MachineSize,
};
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::{Inner, capacity, joined};
use crate::{
    identity,
    image::MemoryImage,
    inventory::{Manifest, Use},
    link::protocol::Identity,
    machine::Machine,
    pool::Kind,
    space,
};

impl Inner {
    pub(super) async fn create(self: Arc<Self>, order: HostCreate) -> Result<(), HostError> {
        capacity::check(order.size)?;
        let lock = self.table.order_lock(order.id);
        let _one_at_a_time = lock.lock().await;
        if !self.table.admit(order.id, order.generation)? {
            return Ok(());
        }
        self.clear_older(order.id).await?;
        let kind = Kind {
            image: order.image,
            size: order.size,
        };
        while let Some(machine) = self.pool.take(&kind) {
            let cancel =
                self.table
                    .insert_creating(order.id, order.generation, machine.id, order.image);
            let made = tokio::select! {
                biased;
                () = cancel.cancelled() => Err(destroyed_meanwhile(&order)),
                made = self.become_sandbox(&machine, &order) => made.map_err(boot_error),
            };
            match made {
                Ok(()) => return self.finish_create(&machine, &order, kind),
                Err(error) => {
                    self.abandon(order.id, machine.id).await;
                    if cancel.is_cancelled() {
                        return Err(error);
                    }
                    tracing::warn!(machine = %machine.id, %error, "a waiting clone was of no use");
                }
            }
        }
        let machine_id = Uuid::now_v7();
        let cancel =
            self.table
                .insert_creating(order.id, order.generation, machine_id, order.image);
        let made = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(destroyed_meanwhile(&order)),
            made = self.new_sandbox(machine_id, &order) => made,
        };
        match made {
            Ok(machine) => self.finish_create(&machine, &order, kind),
            Err(error) => {
                self.abandon(order.id, machine_id).await;
                Err(error)
            }
        }
    }

    /// Boots the template if it was never used at this size, and fills the pool with it.
    pub(super) async fn prepare(
        self: Arc<Self>,
        image: TemplateId,
        size: MachineSize,
    ) -> Result<(), HostError> {
        capacity::check(size)?;
        let memory = self.image(image, size).await?;
        if !memory.origin().is_snapshot() {
            self.refill(&Kind { image, size }).await;
        }
        Ok(())
    }

    fn finish_create(
        self: &Arc<Self>,
        machine: &Arc<Machine>,
        order: &HostCreate,
        kind: Kind,
    ) -> Result<(), HostError> {
        self.table
            .insert_running(order.id, order.generation, 0, Arc::clone(machine), None);
        // Its end may have been noticed a moment before it was known as this sandbox.
        if let Some(ended) = machine.ended() {
            let inner = Arc::clone(self);
            let machine = Arc::clone(machine);
            tokio::spawn(async move { inner.machine_ended(&machine, ended).await });
        }
        // A clone of a snapshot that waited would have processes of the user's, which must not run
        // before they have an identity.
        if !machine.origin.is_snapshot() {
            let inner = Arc::clone(self);
            self.tasks.spawn(async move { inner.refill(&kind).await });
        }
        Ok(())
    }

    async fn new_sandbox(
        self: &Arc<Self>,
        machine_id: Uuid,
        order: &HostCreate,
    ) -> Result<Arc<Machine>, HostError> {
        let image = self.image(order.image, order.size).await?;
        let (sandbox, generation) = (order.id, order.generation);
        let machine = self
            .new_machine(
                machine_id,
                &image,
                Use::Creating {
                    sandbox,
                    generation,
                },
            )
            .await?;
        self.identify(&machine, order).await.map_err(boot_error)?;
        self.record_running(&machine, order)
            .await
            .map_err(boot_error)?;
        Ok(machine)
    }

    /// The memory image, made on a task of its own: others may wait for it too.
    pub(super) async fn image(
        self: &Arc<Self>,
        image: TemplateId,
        size: MachineSize,
    ) -> Result<MemoryImage, HostError> {
        let inner = Arc::clone(self);
        joined(self.tasks.spawn(async move {
            tokio::select! {
                made = inner.images.ensure(&inner.boot, image, size) => made,
                () = inner.stopping.cancelled() => Err(stopping()),
            }
        }))
        .await
    }

    /// A new clone with its folder and manifest. What is left of a failed one is the caller's to
    /// remove, by its ID.
    pub(super) async fn new_machine(
        self: &Arc<Self>,
        id: Uuid,
        image: &MemoryImage,
        use_: Use,
    ) -> Result<Arc<Machine>, HostError> {
        let root = self.inventory.root();
        space::require(root, space::SPARE_MB)?;
        let manifest = Manifest {
            origin: image.origin(),
            order: 0,
            use_,
        };
        let inner = Arc::clone(self);
        let folder = spawn_blocking(move || inner.inventory.create(id, &manifest))
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            .map_err(|error| space::or_internal(root, "making a machine's folder", &error))?;
        let machine = Arc::new(Machine::restore(&self.boot, image, id, folder).await?);
        self.watch(&machine);
        Ok(machine)
    }

    /// Turns a waiting clone into the sandbox. The inventory says so before the guest knows.
    async fn become_sandbox(
        self: &Arc<Self>,
        machine: &Machine,
        order: &HostCreate,
    ) -> Result<(), ClaimError> {
        let use_ = Use::Creating {
            sandbox: order.id,
            generation: order.generation,
        };
        self.record(machine, use_).await?;
        self.identify(machine, order).await?;
        self.record_running(machine, order).await
    }

    async fn identify(&self, machine: &Machine, order: &HostCreate) -> Result<(), ClaimError> {
        // The sandbox's own go before the image's.
        let mut env = self.image_env(order.image).map_err(ClaimError::Record)?;
        env.extend(order.env.clone());
        let identity = Identity {
            hostname: hostname(order.id),
            machine_id: *order.id.uuid().as_bytes(),
            env,
            ..identity::placeholder().map_err(ClaimError::Record)?
        };
        Ok(machine.guest.identify(identity).await?)
    }

    async fn record_running(
        self: &Arc<Self>,
        machine: &Machine,
        order: &HostCreate,
    ) -> Result<(), ClaimError> {
        let use_ = Use::Running {
            sandbox: order.id,
            generation: order.generation,
        };
        self.record(machine, use_).await
    }

    async fn record(self: &Arc<Self>, machine: &Machine, use_: Use) -> Result<(), ClaimError> {
        let manifest = Manifest {
            origin: machine.origin.clone(),
            order: 0,
            use_,
        };
        self.write_manifest(machine.id, manifest)
            .await
            .map_err(ClaimError::Record)
    }
}

/// Why a machine did not become a sandbox.
#[derive(Debug, thiserror::Error)]
enum ClaimError {
    #[error("writing the inventory: {0}")]
    Record(std::io::Error),
    #[error("giving it an identity: {0}")]
    Guest(#[from] CallError),
}

fn boot_error(error: ClaimError) -> HostError {
    match error {
        ClaimError::Record(error) => HostError::Internal(format!("writing the inventory: {error}")),
        ClaimError::Guest(error) => HostError::Boot(format!("giving it an identity: {error}")),
    }
}

pub(super) fn stopping() -> HostError {
    HostError::Unavailable("the host is stopping".to_owned())
}

fn destroyed_meanwhile(order: &HostCreate) -> HostError {
    HostError::Boot(format!(
        "{} was destroyed while it was being made",
        order.id
    ))
}

/// The last group of the ID: short enough for a prompt, and different in every sandbox.
fn hostname(id: SandboxId) -> String {
    let uuid = id.uuid().hyphenated().to_string();
    format!("sb-{}", uuid.rsplit('-').next().unwrap_or(&uuid))
}
