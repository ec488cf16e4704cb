//! What earlier builds left behind that this one can start from.

use crate::{
    build::{BuildRecord, ContentDigest, LayerKey, Step, context::Context, recipe},
    engine::{Inner, errors},
    error::Error,
    lifecycle::touch_layer,
    sandbox::PageRequest,
    template::{TemplateFilter, TemplateKind, TemplatePageRequest, TemplateRecord, TemplateState},
};

/// What a recipe's steps are made of, each with the key of its result.
pub(super) struct Chain {
    /// For each step of the recipe but `START`.
    pub(super) keys: Vec<LayerKey>,
}

/// What a build starts from.
pub(super) struct Found {
    /// The result of the recipe's first `done` steps.
    pub(super) template: TemplateRecord,
    pub(super) done: usize,
}

impl Chain {
    /// The keys of a build's steps.
    ///
    /// # Errors
    /// What its `COPY` names and its context does not have, with the step's place, from 0.
    pub(super) fn of(
        record: &BuildRecord,
        context: Option<&Context>,
    ) -> Result<Self, (usize, String)> {
        let steps = &record.recipe.steps;
        let mut copies: Vec<ContentDigest> = Vec::new();
        for (place, step) in steps.iter().enumerate() {
            if let Step::Copy { sources, .. } = step {
                let context = context.ok_or_else(|| (place, "there is no context".to_owned()))?;
                let digest = context.digest(sources);
                copies.push(digest.map_err(|problem| (place, problem.to_string()))?);
            }
        }
        let keys = recipe::layers(record.base_id, record.size, steps, &copies);
        let keys = keys.map_err(|problem| (problem.step - 1, problem.to_string()))?;
        Ok(Self { keys })
    }

    /// The key of all that the recipe does to the disk; absent where that is nothing.
    pub(super) fn last(&self, record: &BuildRecord) -> Option<LayerKey> {
        let last = record.recipe.steps.iter().rposition(leaves_a_layer)?;
        self.keys.get(last).copied()
    }
}

/// Whether a step's result is worth keeping.
pub(super) fn leaves_a_layer(step: &Step) -> bool {
    step.changes_disk()
}

/// Whether a step comes behind all that change the disk.
pub(super) fn is_last_layer(steps: &[Step], place: usize) -> bool {
    steps.iter().rposition(leaves_a_layer) == Some(place)
}

impl Inner {
    /// The result of as many of a build's first steps as there is one of.
    pub(super) async fn find_layer(
        &self,
        record: &BuildRecord,
        chain: &Chain,
    ) -> Result<Option<Found>, Error> {
        if record.no_cache {
            return Ok(None);
        }
        let steps = record.recipe.steps.iter().zip(&chain.keys).enumerate();
        let kept: Vec<(usize, LayerKey)> = steps
            .filter(|(_, (step, _))| leaves_a_layer(step))
            .map(|(place, (_, key))| (place, *key))
            .collect();
        for (place, key) in kept.into_iter().rev() {
            if let Some(template) = self.layer(record, key).await? {
                return Ok(Some(Found {
                    template,
                    done: place + 1,
                }));
            }
        }
        Ok(None)
    }

    async fn layer(
        &self,
        record: &BuildRecord,
        key: LayerKey,
    ) -> Result<Option<TemplateRecord>, Error> {
        let filter = TemplateFilter {
            kind: Some(TemplateKind::Image),
            layer: Some(key),
            all_states: true,
            ..TemplateFilter::default()
        };
        let page = TemplatePageRequest {
            after: None,
            limit: PageRequest::LIMIT_MAX,
        };
        let found = self.store.list_templates(&filter, page).await;
        let found = found.map_err(errors::from_store)?.items;
        let usable = found.into_iter().filter(|template| {
            matches!(template.state, TemplateState::Layer | TemplateState::Ready)
        });
        // One that has the name already needs no other.
        Ok(usable.max_by_key(|template| {
            let named = template.state == TemplateState::Ready && template.name == record.name;
            (named, template.state == TemplateState::Layer, template.id)
        }))
    }

    /// Notes that a layer is used, so that it is kept for longer. That it is not noted costs nothing
    /// but a step done again some day.
    pub(super) async fn touch(&self, template: &TemplateRecord) {
        if template.state != TemplateState::Layer {
            return;
        }
        let write = touch_layer(template, self.now());
        if let Err(error) = self.store.write_template(write).await {
            tracing::debug!(template = %template.id, %error, "use of a layer not noted");
        }
    }
}
