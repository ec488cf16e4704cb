//! From a healthy sandbox to a template that everyone who may sees.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    build::{BuildRecord, BuildStep, LayerKey},
    engine::{
        Inner,
        builds::{
            command::builder,
            hold::{Broken, Hold},
        },
        errors,
        snapshot::NewSnapshot,
    },
    error::Error,
    id::{SandboxId, TemplateId},
    lifecycle::{Stamp, build::succeed, hide_template, name_layer, touch_layer},
    sandbox::PageRequest,
    store::TemplateWrite,
    template::{TemplateFilter, TemplateKind, TemplatePageRequest, TemplateRecord, TemplateState},
};

/// Rounds of reading and deciding anew when others write the templates at the same time.
const PUBLISH_ATTEMPTS: u32 = 5;

impl Inner {
    /// Makes a layer of a build's sandbox.
    pub(super) async fn make_layer(
        self: &Arc<Self>,
        record: &BuildRecord,
        sandbox: SandboxId,
        kind: TemplateKind,
        key: LayerKey,
        env: BTreeMap<String, String>,
        resume: bool,
    ) -> Result<TemplateRecord, Error> {
        let template_id = TemplateId::from_uuid(self.clock.new_uuid());
        let name = layer_name(template_id);
        let new = NewSnapshot {
            sandbox_id: sandbox,
            template_id,
            team_id: record.team_id,
            name: name
                .parse()
                .map_err(|problem| Error::Internal(format!("the name `{name}`: {problem}")))?,
            kind,
            resume,
            layer: Some(key),
            env,
        };
        self.snapshot(new, &builder().actor).await
    }
}

/// What a layer is called. Nobody sees it; it is a name that nothing else has.
fn layer_name(id: TemplateId) -> String {
    format!("layer-{}", id.uuid().simple())
}

impl Hold {
    /// Ends the build with its template, in one write: the template gets its name, and the one that had
    /// it before is hidden.
    pub(super) async fn publish(
        &mut self,
        made: &TemplateRecord,
        step: BuildStep,
    ) -> Result<TemplateId, Broken> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let inner = Arc::clone(&self.inner);
            let made = inner.template_record(made.id).await?;
            let former = inner.holder_of(&self.record).await?;
            let writes = |record: &BuildRecord, stamp: &Stamp| {
                naming(record, &made, former.as_ref(), stamp, &inner)
            };
            if let Err(reason) = writes(&self.record, &inner.stamp(&self.actor)) {
                return Err(Error::Unavailable(reason).into());
            }
            let written = self
                .write(|record, stamp| {
                    let templates = writes(record, &stamp).unwrap_or_default();
                    succeed(record, made.id, vec![step.clone()], templates, stamp)
                })
                .await;
            match written {
                Ok(()) => {
                    // What had the name goes when nobody lies on it any more.
                    inner.nudge.notify_one();
                    return Ok(made.id);
                }
                Err(Broken::Failed(error)) if attempt < PUBLISH_ATTEMPTS => {
                    tracing::debug!(%error, "not published yet");
                    inner.clock.sleep(inner.config.backoff).await;
                }
                Err(broken) => return Err(broken),
            }
        }
    }
}

/// The writes that give a layer its name: pure but for the IDs of the audit log.
fn naming(
    record: &BuildRecord,
    made: &TemplateRecord,
    former: Option<&TemplateRecord>,
    stamp: &Stamp,
    inner: &Inner,
) -> Result<Vec<TemplateWrite>, String> {
    let stamped = || Stamp {
        ..inner.stamp(&stamp.actor)
    };
    let mut writes = Vec::new();
    if let Some(former) = former.filter(|former| former.id != made.id) {
        let hiding = hide_template(former, stamped());
        let hiding =
            hiding.map_err(|reason| format!("the template `{}`: {reason}", record.name))?;
        writes.extend(hiding);
    }
    let there = made.state == TemplateState::Ready
        && made.name == record.name
        && made.team_id == record.team_id;
    match made.state {
        // Written all the same, so that it is still there when the build succeeds.
        _ if there => writes.push(touch_layer(made, stamp.at)),
        TemplateState::Layer => writes.push(name_layer(
            made,
            &record.name,
            record.team_id,
            record.size,
            stamped(),
        )),
        state => {
            return Err(format!("what the build made is {} by now", state.as_str()));
        }
    }
    Ok(writes)
}

impl Inner {
    async fn template_record(&self, id: TemplateId) -> Result<TemplateRecord, Error> {
        let found = self.store.template(id).await.map_err(errors::from_store)?;
        found.ok_or_else(|| Error::Unavailable("what the build made is gone".to_owned()))
    }

    /// The template that has a build's name now.
    async fn holder_of(&self, record: &BuildRecord) -> Result<Option<TemplateRecord>, Error> {
        let filter = TemplateFilter {
            name: Some(record.name.clone()),
            teams: Some(vec![record.team_id]),
            all_states: true,
            ..TemplateFilter::default()
        };
        let mut page = TemplatePageRequest {
            after: None,
            limit: PageRequest::LIMIT_MAX,
        };
        loop {
            let part = self.store.list_templates(&filter, page).await;
            let part = part.map_err(errors::from_store)?;
            let mut items = part.items.into_iter();
            let holds = |template: &TemplateRecord| template.state != TemplateState::Deleting;
            if let Some(holder) = items.find(holds) {
                return Ok(Some(holder));
            }
            page.after = part.next;
            if page.after.is_none() {
                return Ok(None);
            }
        }
    }
}
