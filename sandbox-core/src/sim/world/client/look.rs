//! Requests that only look.

use std::collections::BTreeSet;

use super::{Answer, Client};
use crate::{
    api::Api,
    error::Error,
    id::{OperationId, SandboxId},
    operation::{OperationKind, OperationStatus},
    sandbox::{PageRequest, SandboxFilter},
};

impl Client {
    pub(super) async fn get(&self) {
        let Some(id) = self.some_sandbox() else {
            return;
        };
        let least = self.version(id);
        let answer = self.ask(|api| async move { api.get(id).await }).await;
        let Answer::Told(told) = answer else {
            return;
        };
        self.say("get", id.uuid().as_u128(), || format!("{id}: {told:?}"));
        match told {
            Ok(record) => self.world.told(&record, least),
            Err(Error::SandboxNotFound(_)) => {
                if self.world.book(|book| book.must_exist(id)) {
                    self.world
                        .violated(|| format!("{id} was not found, and nobody destroyed it"));
                }
            }
            Err(_) => {}
        }
    }

    pub(super) async fn list(&self) {
        let (sure, gone): (BTreeSet<SandboxId>, BTreeSet<SandboxId>) = self.world.book(|book| {
            let own = book
                .sandboxes
                .iter()
                .filter(|(_, known)| self.caller.admin || known.team == self.caller.team_id);
            let (gone, there): (Vec<_>, Vec<_>) = own.partition(|(_, known)| known.gone);
            let sure = there.iter().filter(|(_, known)| !known.mortal);
            (
                sure.map(|(id, _)| **id).collect(),
                gone.iter().map(|(id, _)| **id).collect(),
            )
        });
        let mut found = BTreeSet::new();
        let mut page = PageRequest {
            after: None,
            limit: 3,
        };
        loop {
            let answer = self
                .ask(|api| async move { api.list(SandboxFilter::default(), page).await })
                .await;
            let Answer::Told(Ok(part)) = answer else {
                return;
            };
            for record in part.items {
                if !self.caller.admin && record.team_id != self.caller.team_id {
                    self.world
                        .violated(|| format!("{} was listed to another team", record.id));
                }
                if self.world.lock().truth.builds.has_had(record.id) {
                    self.world
                        .violated(|| format!("{} is of a build, and was listed", record.id));
                }
                found.insert(record.id);
            }
            page.after = part.next;
            if page.after.is_none() {
                break;
            }
        }
        self.say("list", found.len() as u128, || {
            format!("{} found", found.len())
        });
        for id in sure.difference(&found) {
            if self.world.book(|book| book.must_exist(*id)) {
                self.world
                    .violated(|| format!("{id} is in no list, and nobody destroyed it"));
            }
        }
        for id in gone.intersection(&found) {
            self.world
                .violated(|| format!("{id} was destroyed, and is in a list"));
        }
    }

    /// Asks for what is another team's.
    pub(super) async fn foreign(&self) {
        if self.caller.admin {
            return;
        }
        let id = {
            let inner = &mut *self.world.lock();
            let known = inner.book.sandboxes.iter();
            let others: Vec<SandboxId> = known
                .filter(|(_, known)| known.team != self.caller.team_id)
                .map(|(id, _)| *id)
                .collect();
            inner.rng.pick(&others)
        };
        let Some(id) = id else {
            return;
        };
        let answer = self.ask(|api| async move { api.destroy(id).await }).await;
        if matches!(answer, Answer::Told(Ok(()))) {
            self.world
                .violated(|| format!("{id} was destroyed by another team"));
        }
    }

    /// Asks what became of an operation.
    pub(super) async fn look_up(&self) {
        let id = {
            let inner = &mut *self.world.lock();
            let begun = inner.book.operations.iter();
            let own: Vec<OperationId> = begun
                .filter(|(_, begun)| self.caller.admin || begun.team == self.caller.team_id)
                .map(|(id, _)| *id)
                .collect();
            inner.rng.pick(&own)
        };
        let Some(id) = id else {
            return;
        };
        let before = self
            .world
            .book(|book| book.operations.get(&id)?.ended.clone());
        let answer = self.ask(|api| async move { api.operation(id).await }).await;
        let Answer::Told(Ok(operation)) = answer else {
            return;
        };
        self.say("operation", id.uuid().as_u128(), || {
            format!("{operation:?}")
        });
        self.world
            .told_status(id, operation.kind, &operation.status, before);
        if operation.status != OperationStatus::Succeeded {
            return;
        }
        match (operation.kind, operation.sandbox_id) {
            (OperationKind::Create, Some(sandbox)) => {
                if let Some(record) = self.world.recorded(sandbox) {
                    self.world.told_made(&record);
                }
            }
            (OperationKind::Snapshot | OperationKind::Import, _) => {
                let made = operation.template_id;
                let was = made.is_some_and(|id| self.world.lock().truth.published.contains(&id));
                if !was {
                    self.world
                        .violated(|| format!("{id} succeeded, and {made:?} was never ready"));
                }
            }
            _ => {}
        }
    }
}
