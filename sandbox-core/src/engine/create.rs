//! Creating a sandbox.
//!
//! ```text
//!  template ──► size
//!    │
//!    ▼
//!  insert (pending, +create) ──► host.create ──► running
//!        │ key taken                 │ error
//!        ▼                           ▼
//!  join what the key made      host.destroy ──ok──► record removed, operation failed
//!                                    └──error──► state error; the reconciler cleans up
//! ```

use std::{sync::Arc, time::Duration};

use tokio::sync::oneshot;
use tracing::Instrument;

use crate::{
    api::Begun,
    caller::Caller,
    engine::{
        Engine, Inner, errors,
        flights::{Flight, Outcome, Pilot},
        lease::{Lease, Unfinished},
        observe::operation_span,
        validate,
    },
    error::Error,
    host::{HostCreate, HostError},
    id::{OperationId, SandboxId, TeamId, TemplateId},
    lifecycle::{Change, NewSandbox, birth},
    name::{DEFAULT_TEMPLATE, TemplateName},
    operation::{OperationKind, OperationStatus},
    sandbox::{CreateSandbox, SandboxRecord, SandboxState},
    size::MachineSize,
    store::StoreError,
    template::{MINIMAL_TEMPLATE_ID, TemplateKind},
};

/// How often the store is asked about an operation of another engine.
const POLL: Duration = Duration::from_millis(200);
/// Insertions that may meet a key whose sandbox is gone a moment later.
const INSERT_ATTEMPTS: u32 = 3;

/// A create that has begun, or was found under its key.
struct Start {
    record: SandboxRecord,
    then: Then,
}

enum Then {
    Done,
    Wait(OperationId, Flight),
    Poll(OperationId),
}

impl Engine {
    /// Makes a sandbox and returns once it runs; see [`Api::create`](crate::api::Api::create).
    pub(super) async fn create(
        &self,
        caller: &Caller,
        request: CreateSandbox,
    ) -> Result<SandboxRecord, Error> {
        let start = self.start_create(caller, request).await?;
        match start.then {
            Then::Done => Ok(start.record),
            Then::Wait(_, flight) => flight.wait().await,
            Then::Poll(operation) => self.inner.poll_create(start.record.id, operation).await,
        }
    }

    /// Like [`create`](Self::create), without waiting.
    pub(super) async fn begin_create(
        &self,
        caller: &Caller,
        request: CreateSandbox,
    ) -> Result<Begun, Error> {
        let start = self.start_create(caller, request).await?;
        Ok(Begun {
            record: start.record,
            operation: match start.then {
                Then::Done => None,
                Then::Wait(operation, _) | Then::Poll(operation) => Some(operation),
            },
        })
    }

    async fn start_create(&self, caller: &Caller, request: CreateSandbox) -> Result<Start, Error> {
        let new = self.inner.new_sandbox(caller, request).await?;
        let (sender, receiver) = oneshot::channel();
        let inner = Arc::clone(&self.inner);
        let caller = caller.clone();
        self.inner.tasks.spawn(async move {
            inner.run_create(new, None, caller, sender).await;
        })?;
        receiver.await.unwrap_or_else(|_| {
            Err(Error::Unavailable(
                "the platform is shutting down".to_owned(),
            ))
        })
    }
}

impl Inner {
    /// Makes the sandbox of a template build, of this ID, and returns once it runs.
    pub(super) async fn create_for_build(
        self: &Arc<Self>,
        new: NewSandbox,
        id: SandboxId,
        team_id: TeamId,
        caller: Caller,
    ) -> Result<SandboxRecord, Error> {
        let (sender, receiver) = oneshot::channel();
        let inner = Arc::clone(self);
        let caller = Caller { team_id, ..caller };
        self.tasks.spawn(async move {
            inner.run_create(new, Some(id), caller, sender).await;
        })?;
        let start = receiver.await.unwrap_or_else(|_| {
            Err(Error::Unavailable(
                "the platform is shutting down".to_owned(),
            ))
        })?;
        match start.then {
            Then::Wait(_, flight) => flight.wait().await,
            Then::Done | Then::Poll(_) => Err(id_taken()),
        }
    }
}

/// What a sandbox starts from.
struct Base {
    id: TemplateId,
    name: TemplateName,
    kind: TemplateKind,
    size: MachineSize,
}

impl Base {
    /// What every host makes by itself. It is the platform's and never changes, so that nobody needs
    /// to look it up.
    fn minimal() -> Self {
        Self {
            id: MINIMAL_TEMPLATE_ID,
            name: TemplateName::default(),
            kind: TemplateKind::Image,
            size: MachineSize::default(),
        }
    }
}

impl Inner {
    /// Checks a request and fills in what its template decides.
    async fn new_sandbox(
        &self,
        caller: &Caller,
        request: CreateSandbox,
    ) -> Result<NewSandbox, Error> {
        validate::create(&request)?;
        let base = self.base(caller, &request).await?;
        Ok(NewSandbox {
            template: base.name,
            template_id: base.id,
            size: validate::size_from(base.kind, base.size, &request)?,
            timeout_sec: request.timeout_sec,
            on_timeout: request.on_timeout.unwrap_or_default(),
            metadata: request.metadata,
            env: request.env,
            idempotency_key: request.idempotency_key,
            build_id: None,
        })
    }

    async fn base(&self, caller: &Caller, request: &CreateSandbox) -> Result<Base, Error> {
        let text = request.template.as_deref().unwrap_or(DEFAULT_TEMPLATE);
        if text == DEFAULT_TEMPLATE {
            return Ok(Base::minimal());
        }
        match self.find_template(caller, "template", text).await {
            Ok(template) => Ok(Base {
                id: template.id,
                name: template.name,
                kind: template.kind,
                size: template.size,
            }),
            Err(missing @ Error::TemplateNotFound(_)) => {
                let made = self.made_from(caller, request, text).await?;
                made.ok_or(missing)
            }
            Err(error) => Err(error),
        }
    }

    /// What the sandbox of this request's key was started from: a retry finds its sandbox also where
    /// the template is gone since.
    async fn made_from(
        &self,
        caller: &Caller,
        request: &CreateSandbox,
        text: &str,
    ) -> Result<Option<Base>, Error> {
        let Some(key) = &request.idempotency_key else {
            return Ok(None);
        };
        let found = self
            .store
            .sandbox_by_idempotency_key(caller.team_id, key)
            .await
            .map_err(errors::from_store)?;
        let same = |record: &SandboxRecord| {
            record.template.as_str() == text || record.template_id.to_string() == text
        };
        Ok(found.filter(same).map(|record| Base {
            id: record.template_id,
            name: record.template,
            kind: TemplateKind::Image,
            size: record.size,
        }))
    }
}

impl Inner {
    /// The whole create, on a task of its own.
    async fn run_create(
        &self,
        new: NewSandbox,
        id: Option<SandboxId>,
        caller: Caller,
        started: oneshot::Sender<Result<Start, Error>>,
    ) {
        let (record, pilot, flight) = match self.insert(new, id, &caller).await {
            Ok(Inserted::New(record, pilot, flight)) => (record, pilot, flight),
            Ok(Inserted::Found(start)) => {
                let _ = started.send(Ok(start));
                return;
            }
            Err(error) => {
                let _ = started.send(Err(error));
                return;
            }
        };
        let operation_id = pilot.id();
        let span = operation_span(&record);
        let lease = Lease::new(self, caller.actor, operation_id, record.clone());
        // The caller may have gone away. The sandbox is made all the same.
        let _ = started.send(Ok(Start {
            record,
            then: Then::Wait(operation_id, flight),
        }));
        let outcome = self.drive_create(lease, &pilot).instrument(span).await;
        pilot.land(outcome);
    }

    async fn insert(
        &self,
        new: NewSandbox,
        id: Option<SandboxId>,
        caller: &Caller,
    ) -> Result<Inserted, Error> {
        for _ in 0..INSERT_ATTEMPTS {
            let id = id.unwrap_or_else(|| SandboxId::from_uuid(self.clock.new_uuid()));
            let operation_id = OperationId::from_uuid(self.clock.new_uuid());
            let write = birth(
                new.clone(),
                id,
                caller.team_id,
                self.host_id,
                operation_id,
                self.lease_end(),
                self.stamp(&caller.actor),
            );
            let record = write.record.clone();
            let (pilot, flight) = self.flights.begin(operation_id).ok_or_else(id_taken)?;
            match self.store.insert_sandbox(write).await {
                Ok(()) => return Ok(Inserted::New(record, pilot, flight)),
                Err(StoreError::Duplicate) => {
                    if let Some(start) = self.find_by_key(&new, caller.team_id).await? {
                        return Ok(Inserted::Found(start));
                    }
                }
                // The reply may have been lost with the record written: then go on.
                Err(error) => match self.store.sandbox(id).await {
                    Ok(Some(stored)) if stored == record => {
                        return Ok(Inserted::New(record, pilot, flight));
                    }
                    _ => return Err(errors::from_store(error)),
                },
            }
        }
        Err(Error::Unavailable(
            "the sandbox of this idempotency key comes and goes; try again".to_owned(),
        ))
    }

    /// The sandbox that an earlier request with this key made, if it is still there.
    async fn find_by_key(&self, new: &NewSandbox, team_id: TeamId) -> Result<Option<Start>, Error> {
        let Some(key) = &new.idempotency_key else {
            return Err(id_taken());
        };
        let found = self
            .store
            .sandbox_by_idempotency_key(team_id, key)
            .await
            .map_err(errors::from_store)?;
        let Some(record) = found else {
            return Ok(None);
        };
        if !new.made(&record) {
            return Err(Error::IdempotencyMismatch);
        }
        let refused = |reason: &str| {
            Err(Error::InvalidState {
                id: record.id,
                state: record.state,
                reason: reason.to_owned(),
            })
        };
        let then = match &record.operation {
            Some(operation) if operation.kind == OperationKind::Destroy => {
                return refused("the sandbox of this idempotency key is being destroyed");
            }
            Some(operation) => match self.flights.get(operation.id) {
                Some(flight) => Then::Wait(operation.id, flight),
                None => Then::Poll(operation.id),
            },
            None if record.state == SandboxState::Error => return refused(&record.reason),
            None => Then::Done,
        };
        Ok(Some(Start { record, then }))
    }

    async fn drive_create(&self, mut lease: Lease<'_>, pilot: &Pilot) -> Outcome {
        let order = HostCreate {
            id: lease.record.id,
            generation: lease.record.generation,
            template: lease.record.template.clone(),
            image: lease.record.template_id,
            size: lease.record.size,
            env: lease.record.env.clone(),
        };
        let (id, generation) = (order.id, order.generation);
        match lease.keep(self.order_create(order, pilot)).await {
            Ok(()) => match lease.finish(Change::CreateSucceeded).await {
                Ok(record) => Ok(record),
                // Whether it was written is not known, so that the machine may be anyone's by now. Where
                // it was not, the reconciler finds it running when the lease has run out.
                Err(Unfinished::Store(error)) => Err(error),
                Err(unfinished) => {
                    // Whoever cut it short cleans up too; this is for a machine that came late.
                    self.order_destroy(id, generation).await.ok();
                    Err(unfinished.into_error(id))
                }
            },
            Err(error) => self.fail_create(lease, errors::from_host(error)).await,
        }
    }

    /// Ends a create whose order failed. Whether the machine is there all the same is not known, and
    /// another engine that saw it run may have called the create done: so its owner makes sure that
    /// nobody can any more before it ends the machine.
    async fn fail_create(&self, mut lease: Lease<'_>, error: Error) -> Outcome {
        let above = lease.record.generation.saturating_add(1);
        match lease.extend_by(self.config.lease, above).await {
            Ok(()) => self.undo_create(lease, error).await,
            Err(Unfinished::EndedElsewhere(OperationStatus::Succeeded)) => Ok(lease.record),
            // Whoever ended it ends the machine, too.
            Err(Unfinished::EndedElsewhere(OperationStatus::Failed { error })) => Err(error),
            // Another engine undoes it, or the reconciler does when the lease runs out.
            Err(unfinished) => {
                tracing::warn!(sandbox = %lease.record.id, ?unfinished, "left to the reconciler");
                Err(error)
            }
        }
    }

    /// Frees what the host has of a create that nobody can complete any more, and ends it.
    pub(super) async fn undo_create(&self, mut lease: Lease<'_>, error: Error) -> Outcome {
        let (id, generation) = (lease.record.id, lease.record.generation);
        let change = match lease.keep(self.order_destroy(id, generation)).await {
            Ok(()) => Change::CreateUndone {
                error: error.clone(),
            },
            Err(cleanup) => Change::CreateFailed {
                error: error.clone(),
                cleanup: cleanup.to_string(),
            },
        };
        match lease.finish(change).await {
            Ok(_) => Err(error),
            // A destroy was faster, and says so.
            Err(Unfinished::EndedElsewhere(OperationStatus::Failed { error })) => Err(error),
            Err(unfinished) => {
                tracing::warn!(sandbox = %id, ?unfinished, "failed create not recorded");
                Err(error)
            }
        }
    }

    /// Gives the order until it is done, is refused, or was repeated often enough.
    async fn order_create(&self, order: HostCreate, pilot: &Pilot) -> Result<(), HostError> {
        let attempts = async {
            let mut pause = self.config.backoff;
            let mut attempt = 1;
            loop {
                let error = match self.host.create_sandbox(order.clone()).await {
                    Err(error)
                        if errors::worth_repeating(&error)
                            && attempt < self.config.order_attempts =>
                    {
                        error
                    }
                    other => return other,
                };
                tracing::warn!(sandbox = %order.id, %error, "create not done; trying again");
                self.clock.sleep(pause).await;
                if pilot.is_cut() {
                    return Err(error);
                }
                attempt += 1;
                pause *= 2;
            }
        };
        tokio::select! {
            biased;
            done = attempts => done,
            () = self.clock.sleep(self.config.create_timeout) => Err(HostError::Boot(format!(
                "it was not running after {} s",
                self.config.create_timeout.as_secs()
            ))),
        }
    }

    /// Waits for a create that another engine has at work.
    async fn poll_create(&self, id: SandboxId, operation: OperationId) -> Outcome {
        let mut left = self.config.create_timeout + self.config.lease;
        loop {
            let found = self.store.operation(operation).await;
            match found.map_err(errors::from_store)?.map(|found| found.status) {
                Some(OperationStatus::Running) => {}
                Some(OperationStatus::Succeeded) => return self.record(id).await,
                Some(OperationStatus::Failed { error }) => return Err(error),
                None => return Err(Error::OperationNotFound(operation)),
            }
            if left.is_zero() || self.stopping() {
                return Err(Error::Unavailable(
                    "the sandbox is still being made".to_owned(),
                ));
            }
            self.clock.sleep(POLL).await;
            left = left.saturating_sub(POLL);
        }
    }
}

fn id_taken() -> Error {
    Error::Internal("a new ID was taken already".to_owned())
}

enum Inserted {
    New(SandboxRecord, Pilot, Flight),
    Found(Start),
}

impl Unfinished {
    pub(super) fn into_error(self, id: SandboxId) -> Error {
        match self {
            Self::EndedElsewhere(OperationStatus::Failed { error }) | Self::Store(error) => error,
            Self::EndedElsewhere(_) => Error::Conflict(id),
        }
    }
}
