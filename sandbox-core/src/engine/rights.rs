//! The rights of whoever asks: what `authorize` says, of what the store has.
//!
//! A sandbox that is gone has no team any more, but its operations are kept, and so that a client
//! can come back for an outcome, whoever has acted on it still finds them: the audit log knows who
//! that was.

use crate::{
    audit::ActorKind,
    authorize::{Action, Denied, Resource, authorize},
    caller::Caller,
    engine::{Inner, errors},
    error::Error,
    id::{OperationId, SandboxId, TeamId},
    operation::OperationRecord,
    sandbox::{SandboxFilter, SandboxRecord},
};

/// Entries of the audit log that are looked through, the oldest first. The first is the creation.
const ENTRIES_MAX: u32 = 100;

/// Whether a caller may do something with a team's sandbox.
pub(super) fn on_sandbox(
    caller: &Caller,
    action: Action,
    id: SandboxId,
    team_id: TeamId,
) -> Result<(), Error> {
    authorize(caller, action, Resource::Sandbox(team_id)).map_err(|denied| match denied {
        Denied::NotFound => Error::SandboxNotFound(id),
        Denied::Forbidden(reason) => Error::Forbidden(format!("{id}: {reason}")),
    })
}

/// Whether a caller may do something that is nobody's own.
pub(super) fn on_platform(
    caller: &Caller,
    action: Action,
    resource: Resource,
) -> Result<(), Error> {
    authorize(caller, action, resource).map_err(|denied| match denied {
        Denied::Forbidden(reason) => Error::Forbidden(reason.to_owned()),
        Denied::NotFound => Error::Forbidden("this is not yours to do".to_owned()),
    })
}

/// The filter that a caller's list goes by: its own team's sandboxes, whatever it asked for.
pub(super) fn visible(caller: &Caller, mut filter: SandboxFilter) -> SandboxFilter {
    if sees_all(caller) {
        return filter;
    }
    filter.team_id = Some(caller.team_id);
    filter
}

fn sees_all(caller: &Caller) -> bool {
    authorize(caller, Action::Use, Resource::AllTeams).is_ok()
}

impl Inner {
    /// One sandbox, if the caller may do this with it.
    pub(super) async fn record_for(
        &self,
        caller: &Caller,
        action: Action,
        id: SandboxId,
    ) -> Result<SandboxRecord, Error> {
        let record = self.record(id).await?;
        on_sandbox(caller, action, id, record.team_id)?;
        Ok(record)
    }

    /// Whether a caller may destroy a sandbox, or learn that it is destroyed already.
    pub(super) async fn may_destroy(&self, caller: &Caller, id: SandboxId) -> Result<(), Error> {
        match self.store.sandbox(id).await.map_err(errors::from_store)? {
            Some(record) => on_sandbox(caller, Action::Change, id, record.team_id),
            None if sees_all(caller) || self.has_acted_on(caller, &id.to_string()).await? => Ok(()),
            None => Err(Error::SandboxNotFound(id)),
        }
    }

    /// One operation, if the caller may know of it.
    pub(super) async fn operation_for(
        &self,
        caller: &Caller,
        id: OperationId,
    ) -> Result<OperationRecord, Error> {
        let found = self.store.operation(id).await;
        let found = found.map_err(errors::from_store)?;
        let operation = found.ok_or(Error::OperationNotFound(id))?;
        if sees_all(caller) {
            return Ok(operation);
        }
        let may = match self.team_of(&operation).await? {
            Some(team_id) => authorize(caller, Action::Use, Resource::Operation(team_id)).is_ok(),
            None => self.has_acted_on_what(caller, &operation).await?,
        };
        if may {
            Ok(operation)
        } else {
            Err(Error::OperationNotFound(id))
        }
    }

    /// The team of what an operation works on, while that is there.
    async fn team_of(&self, operation: &OperationRecord) -> Result<Option<TeamId>, Error> {
        if let Some(id) = operation.sandbox_id {
            let sandbox = self.store.sandbox(id).await.map_err(errors::from_store)?;
            if let Some(sandbox) = sandbox {
                return Ok(Some(sandbox.team_id));
            }
        }
        let Some(id) = operation.template_id else {
            return Ok(None);
        };
        let template = self.store.template(id).await.map_err(errors::from_store)?;
        Ok(template.map(|template| template.team_id))
    }

    async fn has_acted_on_what(
        &self,
        caller: &Caller,
        operation: &OperationRecord,
    ) -> Result<bool, Error> {
        let sandbox = operation.sandbox_id.map(|id| id.to_string());
        let template = operation.template_id.map(|id| id.to_string());
        for resource in [sandbox, template].into_iter().flatten() {
            if self.has_acted_on(caller, &resource).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn has_acted_on(&self, caller: &Caller, resource: &str) -> Result<bool, Error> {
        let entries = self.store.audit_of(resource, ENTRIES_MAX).await;
        let mut actors = entries
            .map_err(errors::from_store)?
            .into_iter()
            .map(|entry| entry.actor);
        Ok(actors.any(|actor| actor.kind != ActorKind::System && actor == caller.actor))
    }
}
