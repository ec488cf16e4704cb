//! Templates: found by name or ID, listed, deleted.
//!
//! ```text
//!  name ──► the platform's of this name, else the caller's own ─┐
//!  tpl-… ──► that one, if the caller may see it ────────────────┴─► ready, or not found
//!
//!  delete:  find ──► authorize ──► hide (its name is free) ──► no sandbox on it ──► host: freed ──► forget
//!                                                                     │ some            │ in use, failed
//!                                                                     └────────┬────────┘
//!                                                                      the reconciler's
//! ```
//!
//! A name never leads to another's template: a text that reads as an ID is only ever an ID, and no
//! template may be named so. Where a team has a template of a name that the platform took later, the
//! name is the platform's and the team's own goes by its ID.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::oneshot;

use crate::{
    audit::Actor,
    authorize::{Action, Denied, Resource, authorize},
    caller::Caller,
    engine::{
        Engine, Inner, errors, rights,
        snapshot::NewSnapshot,
        validate::{self, Named},
    },
    error::Error,
    host::{HostError, HostReport, ImageDeletion},
    id::{PLATFORM_TEAM_ID, SandboxId, TeamId, TemplateId},
    lifecycle::{forget_template, hide_template, measure_template, minimal_template},
    name::TemplateName,
    planted::{Bug, planted},
    sandbox::{PageRequest, SandboxFilter},
    store::{StoreError, TemplateChange},
    template::{
        MINIMAL_TEMPLATE_ID, SnapshotRequest, TemplateFilter, TemplateKind, TemplatePage,
        TemplatePageRequest, TemplateRecord, TemplateState, TemplateUse,
    },
};

/// Rounds of reading and deciding anew when others write the record at the same time.
const WRITE_ATTEMPTS: u32 = 6;
/// The most users of a template that are told.
const USERS_MAX: u32 = 100;

impl Engine {
    /// A page of the templates that a caller can see; see [`Api`](crate::api::Api::templates).
    pub(super) async fn templates(
        &self,
        caller: &Caller,
        kind: Option<TemplateKind>,
        page: TemplatePageRequest,
    ) -> Result<TemplatePage, Error> {
        validate::limit(page.limit)?;
        let filter = TemplateFilter {
            kind,
            teams: Some(teams_seen(caller)),
            ..TemplateFilter::default()
        };
        let listed = self.inner.store.list_templates(&filter, page).await;
        listed.map_err(errors::from_store)
    }

    /// All teams' templates and who lies on them; see [`Api`](crate::api::Api::all_templates).
    pub(super) async fn all_templates(
        &self,
        caller: &Caller,
        kind: Option<TemplateKind>,
        page: TemplatePageRequest,
    ) -> Result<(Vec<TemplateUse>, Option<TemplateId>), Error> {
        rights::on_platform(caller, Action::Use, Resource::AllTeams)?;
        validate::limit(page.limit)?;
        let filter = TemplateFilter {
            kind,
            ..TemplateFilter::default()
        };
        let listed = self.inner.store.list_templates(&filter, page).await;
        let page = listed.map_err(errors::from_store)?;
        let mut items = Vec::with_capacity(page.items.len());
        for template in page.items {
            let in_use_by = self.inner.users_of(template.id, USERS_MAX).await?;
            items.push(TemplateUse {
                template,
                in_use_by,
            });
        }
        Ok((items, page.next))
    }

    /// Hides a template at once and frees its files when nobody lies on them; see
    /// [`Api`](crate::api::Api::delete_template).
    pub(super) async fn delete_template(&self, caller: &Caller, text: &str) -> Result<(), Error> {
        let record = self.inner.find_template(caller, "name", text).await?;
        on_template(caller, Action::Change, &record, text)?;
        if record.id == MINIMAL_TEMPLATE_ID {
            return Err(Error::Forbidden(format!(
                "`{}` can't be deleted: every host makes it by itself, and sandboxes \
                 whose request names no template start from it",
                record.name
            )));
        }
        let (sender, receiver) = oneshot::channel();
        let inner = Arc::clone(&self.inner);
        let actor = caller.actor.clone();
        self.inner.tasks.spawn(async move {
            // The caller may have gone away. The template goes all the same.
            let _ = sender.send(inner.run_delete(record, actor).await);
        })?;
        receiver.await.unwrap_or_else(|_| {
            Err(Error::Unavailable(
                "the platform is shutting down".to_owned(),
            ))
        })
    }
}

/// The teams whose templates a caller finds by name and in lists.
fn teams_seen(caller: &Caller) -> Vec<TeamId> {
    BTreeSet::from([PLATFORM_TEAM_ID, caller.team_id])
        .into_iter()
        .collect()
}

fn on_template(
    caller: &Caller,
    action: Action,
    record: &TemplateRecord,
    text: &str,
) -> Result<(), Error> {
    let resource = Resource::Template(record.team_id);
    authorize(caller, action, resource).map_err(|denied| match denied {
        Denied::NotFound => Error::TemplateNotFound(text.to_owned()),
        Denied::Forbidden(reason) => {
            Error::Forbidden(format!("the template `{}`: {reason}", record.name))
        }
    })
}

/// The name of a snapshot that was given none: the last group of its ID, which is random.
fn generated(id: TemplateId) -> String {
    let id = id.uuid().simple().to_string();
    format!("snap-{}", id.get(20..).unwrap_or(&id))
}

impl Inner {
    /// The template that a text names for a caller; `field` is what the text is called on the wire.
    pub(super) async fn find_template(
        &self,
        caller: &Caller,
        field: &str,
        text: &str,
    ) -> Result<TemplateRecord, Error> {
        let found = match validate::named(field, text)? {
            Named::Id(id) => self.store.template(id).await.map_err(errors::from_store)?,
            Named::Name(name) => self.named(caller, name).await?,
        };
        let record = found
            .filter(|record| record.state == TemplateState::Ready)
            .ok_or_else(|| Error::TemplateNotFound(text.to_owned()))?;
        on_template(caller, Action::Use, &record, text)?;
        Ok(record)
    }

    async fn named(
        &self,
        caller: &Caller,
        name: TemplateName,
    ) -> Result<Option<TemplateRecord>, Error> {
        let teams = teams_seen(caller);
        // A team has at most one that is ready.
        let page = TemplatePageRequest {
            after: None,
            limit: u32::try_from(teams.len()).unwrap_or(u32::MAX),
        };
        let filter = TemplateFilter {
            name: Some(name),
            teams: Some(teams),
            ..TemplateFilter::default()
        };
        let found = self.store.list_templates(&filter, page).await;
        let found = found.map_err(errors::from_store)?.items;
        // False sorts first: the platform's.
        Ok(found
            .into_iter()
            .min_by_key(|record| record.team_id != PLATFORM_TEAM_ID))
    }

    /// Checks a request for a template of a sandbox. It belongs to the sandbox's team, also where an
    /// administrator asks: what is in it is theirs, and the platform's templates are for everyone.
    pub(super) async fn new_snapshot(
        &self,
        caller: &Caller,
        request: SnapshotRequest,
    ) -> Result<NewSnapshot, Error> {
        let template_id = TemplateId::from_uuid(self.clock.new_uuid());
        let name = match &request.name {
            Some(name) => validate::new_name(name)?,
            None => validate::new_name(&generated(template_id))?,
        };
        let sandbox_id = request.sandbox_id;
        let sandbox = self.record_for(caller, Action::Change, sandbox_id).await?;
        self.may_name(caller, sandbox.team_id, &name).await?;
        Ok(NewSnapshot {
            sandbox_id,
            template_id,
            team_id: sandbox.team_id,
            name,
            kind: request.kind,
            resume: request.resume,
            layer: None,
        })
    }

    /// Whether a caller may make a template of this name in a team, whatever it is made of.
    pub(super) async fn may_name(
        &self,
        caller: &Caller,
        team_id: TeamId,
        name: &TemplateName,
    ) -> Result<(), Error> {
        let resource = Resource::TemplateName {
            team_id,
            platform_has_it: self.platform_has(name).await?,
        };
        authorize(caller, Action::Create, resource).map_err(|denied| match denied {
            Denied::Forbidden(reason) => {
                Error::Forbidden(format!("the template `{name}`: {reason}"))
            }
            Denied::NotFound => Error::TemplateNotFound(name.to_string()),
        })
    }

    /// Whether the platform has a template of this name, or makes one.
    async fn platform_has(&self, name: &TemplateName) -> Result<bool, Error> {
        let filter = TemplateFilter {
            name: Some(name.clone()),
            teams: Some(vec![PLATFORM_TEAM_ID]),
            all_states: true,
            ..TemplateFilter::default()
        };
        let found = self.templates_by(&filter).await?;
        Ok(found
            .iter()
            .any(|record| record.state != TemplateState::Deleting))
    }

    /// Sandboxes that were started from a template and are there.
    async fn users_of(&self, id: TemplateId, limit: u32) -> Result<Vec<SandboxId>, Error> {
        let filter = SandboxFilter {
            template_id: Some(id),
            of_builds: true,
            ..SandboxFilter::default()
        };
        let page = PageRequest { after: None, limit };
        let users = self.store.list_sandboxes(&filter, page).await;
        let users = users.map_err(errors::from_store)?.items;
        Ok(users.into_iter().map(|sandbox| sandbox.id).collect())
    }

    async fn run_delete(&self, record: TemplateRecord, actor: Actor) -> Result<(), Error> {
        let Some(hidden) = self.hide(record, &actor).await? else {
            return Ok(());
        };
        // Hidden is what was asked for. What is left to do is done here or by the reconciler.
        if let Err(error) = self.free_hidden(&hidden, &actor).await {
            tracing::warn!(template = %hidden.id, %error, "files not freed yet");
            self.nudge.notify_one();
        }
        Ok(())
    }

    /// Hides a template. `None` where it is gone already.
    async fn hide(
        &self,
        mut record: TemplateRecord,
        actor: &Actor,
    ) -> Result<Option<TemplateRecord>, Error> {
        let mut pause = self.config.backoff;
        let mut last = None;
        for _ in 0..WRITE_ATTEMPTS {
            let write = match hide_template(&record, self.stamp(actor)) {
                Ok(Some(write)) => write,
                Ok(None) => return Ok(Some(record)),
                Err(reason) => {
                    let name = record.name;
                    return Err(Error::Unavailable(format!(
                        "the template `{name}`: {reason}"
                    )));
                }
            };
            let next = match &write.change {
                TemplateChange::Update(next) => next.clone(),
                TemplateChange::Insert(_) | TemplateChange::Remove(..) => record.clone(),
            };
            match self.store.write_template(write).await {
                Ok(()) => return Ok(Some(next)),
                Err(StoreError::Conflict) => {}
                // The reply may have been lost with the write done; the next round shows it.
                Err(error) => {
                    last = Some(errors::from_store(error));
                    self.clock.sleep(pause).await;
                    pause *= 2;
                }
            }
            match self.store.template(record.id).await {
                Ok(Some(current)) => record = current,
                Ok(None) => return Ok(None),
                Err(error) => last = Some(errors::from_store(error)),
            }
        }
        Err(last.unwrap_or_else(|| {
            Error::Unavailable(format!(
                "the template `{}` is being changed by another request; try again",
                record.name
            ))
        }))
    }

    /// Frees the files of a hidden template that no sandbox lies on, and forgets it.
    pub(super) async fn free_hidden(
        &self,
        hidden: &TemplateRecord,
        actor: &Actor,
    ) -> Result<(), Error> {
        // A sandbox that is recorded and not yet made is known here and not yet on the host.
        let used = !self.users_of(hidden.id, 1).await?.is_empty();
        if used && !planted(Bug::FreedInUse) {
            return Ok(());
        }
        match self.order_delete_image(hidden.id).await {
            Ok(ImageDeletion::InUse) => Ok(()),
            Ok(ImageDeletion::Freed) => {
                let forgotten = forget_template(hidden, self.stamp(actor));
                match self.store.write_template(forgotten).await {
                    Ok(()) | Err(StoreError::Conflict) => Ok(()),
                    Err(error) => Err(errors::from_store(error)),
                }
            }
            Err(error) => Err(errors::from_host(error)),
        }
    }

    /// Orders an image's end until it is done, or was repeated often enough.
    pub(super) async fn order_delete_image(
        &self,
        image: TemplateId,
    ) -> Result<ImageDeletion, HostError> {
        let mut pause = self.config.backoff;
        let mut attempt = 1;
        loop {
            let done = tokio::select! {
                biased;
                done = self.host.delete_snapshot(image) => done,
                () = self.clock.sleep(self.config.destroy_timeout) => {
                    let bound = self.config.destroy_timeout.as_secs();
                    Err(HostError::Unavailable(format!("it gave no answer within {bound} s")))
                }
            };
            match done {
                Ok(done) => return Ok(done),
                Err(error) if attempt >= self.config.order_attempts => return Err(error),
                Err(error) => {
                    tracing::warn!(template = %image, %error, "image not deleted; trying again");
                }
            }
            attempt += 1;
            self.clock.sleep(pause).await;
            pause *= 2;
        }
    }

    /// Records the template that every host makes by itself, unless that is done.
    pub(super) async fn ensure_minimal(&self) -> Result<(), Error> {
        let found = self.store.template(MINIMAL_TEMPLATE_ID).await;
        if found.map_err(errors::from_store)?.is_some() {
            return Ok(());
        }
        let write = minimal_template(self.stamp(&Actor::system("engine")));
        match self.store.write_template(write).await {
            // Another control plane was faster.
            Ok(()) | Err(StoreError::Duplicate) => Ok(()),
            Err(error) => Err(errors::from_store(error)),
        }
    }

    /// Notes the physical size of `minimal`, which a host knows once it has made it.
    pub(super) async fn measure_minimal(
        &self,
        templates: &[TemplateRecord],
        report: &HostReport,
    ) -> Result<(), Error> {
        let record = templates.iter().find(|it| it.id == MINIMAL_TEMPLATE_ID);
        let image = report.images.iter().find(|it| it.id == MINIMAL_TEMPLATE_ID);
        let (Some(record), Some(image)) = (record, image) else {
            return Ok(());
        };
        let Some(write) = measure_template(record, image, self.now()) else {
            return Ok(());
        };
        match self.store.write_template(write).await {
            // Another control plane was faster.
            Ok(()) | Err(StoreError::Conflict) => Ok(()),
            Err(error) => Err(errors::from_store(error)),
        }
    }
}
