//! Asking for a build.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::{
    authorize::{Action, Resource},
    build::{
        BuildRecord, BuildStatus, CONTEXT_MAX_BYTES, ContentDigest, SubmitBuild, context::Context,
    },
    caller::Caller,
    engine::{Engine, Inner, builds::program::program, errors, rights, validate},
    error::Error,
    id::{BuildId, PLATFORM_TEAM_ID},
    lifecycle::build::submit,
    name::DEFAULT_TEMPLATE,
    store::StoreError,
    template::{MINIMAL_TEMPLATE_ID, TemplateKind},
};

impl Engine {
    /// Asks for a build; see [`BuildsApi`](crate::api::BuildsApi::submit_build).
    pub(super) async fn submit_build(
        &self,
        caller: &Caller,
        request: SubmitBuild,
    ) -> Result<BuildRecord, Error> {
        rights::on_platform(caller, Action::Create, Resource::AllTeams)?;
        let inner = Arc::clone(&self.inner);
        let record = inner.new_build(caller, request).await?;
        let record = inner.insert_build(record).await?;
        // Wakes a worker. Where it does not, one looks by itself after a while; nobody waits for that.
        let id = record.id;
        let announced = self.inner.tasks.spawn(async move {
            if let Err(error) = inner.queue.announce(id).await {
                tracing::warn!(build = %id, %error, "no worker woken; one looks by itself");
            }
        });
        if let Err(error) = announced {
            tracing::debug!(build = %id, %error, "not announced; the platform is shutting down");
        }
        Ok(record)
    }

    /// Keeps a context; see [`BuildsApi`](crate::api::BuildsApi::upload_context).
    pub(super) async fn upload_context(
        &self,
        caller: &Caller,
        data: Bytes,
    ) -> Result<String, Error> {
        rights::on_platform(caller, Action::Create, Resource::AllTeams)?;
        if data.len() > CONTEXT_MAX_BYTES {
            return Err(Error::InvalidRequest(format!(
                "the context is {} bytes long; at most {CONTEXT_MAX_BYTES} are allowed",
                data.len()
            )));
        }
        Context::read(data.clone())
            .map_err(|problem| Error::InvalidRequest(format!("the context: {problem}")))?;
        let hash: [u8; 32] = Sha256::digest(&data).into();
        let name = ContentDigest::from(hash).to_string();
        let inner = &self.inner;
        let kept = inner.store.put_context(&name, data, inner.now()).await;
        kept.map_err(errors::from_store)?;
        Ok(name)
    }
}

impl Inner {
    /// Checks a request and fills in what its base decides.
    async fn new_build(&self, caller: &Caller, request: SubmitBuild) -> Result<BuildRecord, Error> {
        let name = validate::new_name(&request.name)?;
        if name.as_str() == DEFAULT_TEMPLATE {
            return Err(Error::Forbidden(format!(
                "`name`: `{DEFAULT_TEMPLATE}` is made by every host and can't be replaced"
            )));
        }
        validate::recipe(&request.recipe)?;
        if let Some(check) = &request.healthcheck {
            validate::healthcheck(check)?;
        }
        if let Some(key) = &request.idempotency_key {
            validate::idempotency_key(key)?;
        }
        let base = request.base_template.as_deref().unwrap_or(DEFAULT_TEMPLATE);
        let (base_id, base_template, base_size, kind) = match base {
            DEFAULT_TEMPLATE => (
                MINIMAL_TEMPLATE_ID,
                DEFAULT_TEMPLATE.parse().map_err(|problem| {
                    Error::Internal(format!("the name `{DEFAULT_TEMPLATE}`: {problem}"))
                })?,
                crate::size::MachineSize::default(),
                TemplateKind::Image,
            ),
            text => {
                let base = self.find_template(caller, "base_template", text).await?;
                (base.id, base.name, base.size, base.kind)
            }
        };
        let size = validate::size_on(
            kind,
            base_size,
            request.vcpus,
            request.memory_mb,
            request.disk_size_mb,
        )?;
        self.check_context(&request).await?;
        let now = self.now();
        let mut record = BuildRecord {
            id: BuildId::from_uuid(self.clock.new_uuid()),
            team_id: request.team_id.unwrap_or(PLATFORM_TEAM_ID),
            name,
            base_template,
            base_id,
            recipe: request.recipe,
            context: request.context,
            healthcheck: request.healthcheck,
            size,
            no_cache: request.no_cache,
            status: BuildStatus::Pending,
            current_step: 0,
            total_steps: 0,
            attempt: 0,
            handed_back: 0,
            lease_until: Some(self.waits_until()),
            sandbox_id: None,
            template_id: None,
            failure: None,
            actor: caller.actor.clone(),
            idempotency_key: request.idempotency_key,
            version: 1,
            created_at: now,
            started_at: None,
            finished_at: None,
            updated_at: now,
        };
        record.total_steps = u32::try_from(program(&record).len()).unwrap_or(u32::MAX);
        Ok(record)
    }

    async fn check_context(&self, request: &SubmitBuild) -> Result<(), Error> {
        let bad = |problem: String| Err(Error::InvalidRequest(format!("`context`: {problem}")));
        let Some(name) = &request.context else {
            let mut steps = request.recipe.steps.iter();
            let copies = steps.any(|step| matches!(step, crate::build::Step::Copy { .. }));
            return match copies {
                true => {
                    bad("the recipe has a COPY; upload what it copies, and name it here".to_owned())
                }
                false => Ok(()),
            };
        };
        if name.parse::<ContentDigest>().is_err() {
            return bad(format!("`{name}` is not the name of an upload"));
        }
        match self.store.has_context(name).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                bad("there is no such upload; it may have been removed, upload it again".to_owned())
            }
            Err(error) => Err(errors::from_store(error)),
        }
    }

    async fn insert_build(&self, record: BuildRecord) -> Result<BuildRecord, Error> {
        let stamp = self.stamp(&record.actor);
        match self.store.insert_build(submit(record.clone(), stamp)).await {
            Ok(()) => Ok(record),
            // A lost reply, or a statement that was repeated: then it is written.
            Err(error) => match (self.store.build(record.id).await, error) {
                (Ok(Some(found)), _) => Ok(found),
                (Ok(None), StoreError::Duplicate) => self.build_of_key(&record).await,
                // Whether the duplicate is this very build is not known.
                (Err(unread), StoreError::Duplicate) => Err(errors::from_store(unread)),
                (_, error) => Err(errors::from_store(error)),
            },
        }
    }

    /// The build that has the key of this one.
    async fn build_of_key(&self, record: &BuildRecord) -> Result<BuildRecord, Error> {
        let key = record.idempotency_key.as_deref().unwrap_or_default();
        let found = self
            .store
            .build_by_idempotency_key(record.team_id, key)
            .await;
        match found.map_err(errors::from_store)? {
            Some(found) if same_request(&found, record) => Ok(found),
            Some(_) => Err(Error::IdempotencyMismatch),
            None => Err(Error::Internal("a new ID was taken already".to_owned())),
        }
    }
}

fn same_request(found: &BuildRecord, asked: &BuildRecord) -> bool {
    found.name == asked.name
        && found.base_template == asked.base_template
        && found.recipe == asked.recipe
        && found.context == asked.context
        && found.healthcheck == asked.healthcheck
        && found.size == asked.size
        && found.no_cache == asked.no_cache
}
