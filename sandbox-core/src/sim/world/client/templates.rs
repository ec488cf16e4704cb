//! Requests about templates.

use super::{Answer, Client, certain};
use crate::{
    api::Api,
    error::Error,
    id::{SandboxId, TemplateId},
    sim::world::book::Look,
    template::{
        ImportSource, ImportTemplate, SnapshotRequest, TemplateKind, TemplatePageRequest,
        TemplateRecord, TemplateState,
    },
};

impl Client {
    /// Templates that clients were told of and nobody wanted to be gone.
    pub(super) fn own_templates(&self) -> Vec<TemplateId> {
        self.world.book(|book| {
            let known = book.templates.keys();
            known
                .filter(|id| !book.unwanted.contains(id))
                .copied()
                .collect()
        })
    }

    fn new_snapshot(&self, sandbox_id: SandboxId) -> SnapshotRequest {
        let rng = &mut self.world.lock().rng;
        let name = rng.chance(7000).then(|| format!("made-{}", rng.below(4)));
        SnapshotRequest {
            sandbox_id,
            name,
            resume: rng.coin(),
            kind: match rng.coin() {
                true => TemplateKind::Snapshot,
                false => TemplateKind::Image,
            },
        }
    }

    fn looks(&self, id: SandboxId) -> Option<(Look, Look)> {
        self.world.book(|book| {
            let known = book.sandboxes.get(&id)?;
            Some((known.file.look(), known.memory.look()))
        })
    }

    pub(super) async fn snapshot(&self) {
        let Some(id) = self.some_sandbox() else {
            return;
        };
        let request = self.new_snapshot(id);
        let looks = self.looks(id);
        let turn = self.world.book(|book| book.begin_turn(id));
        let answer = self
            .ask(|api| async move { api.snapshot(request).await })
            .await;
        let sure = match &answer {
            Answer::Told(Ok(_)) => true,
            Answer::Told(Err(error)) => certain(error),
            Answer::Silence => false,
        };
        self.world.book(|book| book.end_turn(id, turn, sure));
        let Answer::Told(told) = answer else {
            return;
        };
        self.say("snapshot", id.uuid().as_u128(), || {
            format!("{id}: {told:?}")
        });
        if let Ok(template) = told {
            self.world.told_template(&template, looks.as_ref());
            self.check_made(&template);
        }
    }

    pub(super) async fn begin_snapshot(&self) {
        let Some(id) = self.some_sandbox() else {
            return;
        };
        let request = self.new_snapshot(id);
        // How long it takes nobody knows here.
        self.world.book(|book| {
            let turn = book.begin_turn(id);
            book.end_turn(id, turn, false);
        });
        let answer = self
            .ask(|api| async move { api.begin_snapshot(request).await })
            .await;
        if let Answer::Told(Ok(operation)) = answer {
            let team = self
                .world
                .book(|book| book.sandboxes.get(&id).map(|known| known.team));
            self.begun(operation, team.unwrap_or(self.caller.team_id));
        }
    }

    pub(super) async fn import(&self) {
        let request = {
            let rng = &mut self.world.lock().rng;
            let path = match rng.chance(2000) {
                true => "/srv/missing",
                false => "/srv/files",
            };
            ImportTemplate {
                name: format!("imported-{}", rng.below(3)),
                source: ImportSource::Directory {
                    path: path.to_owned(),
                },
                vcpus: None,
                memory_mb: None,
                disk_size_mb: None,
            }
        };
        let wait = self.world.chance(5000);
        if !wait {
            let answer = self
                .ask(|api| async move { api.begin_import(request).await })
                .await;
            if let Answer::Told(Ok(operation)) = answer {
                self.begun(operation, self.caller.team_id);
            }
            return;
        }
        let answer = self
            .ask(|api| async move { api.import_template(request).await })
            .await;
        let Answer::Told(told) = answer else {
            return;
        };
        self.say("import", 0, || format!("{told:?}"));
        match told {
            Ok(_) if !self.caller.admin => {
                self.world
                    .violated(|| "a team has imported files of the host".to_owned());
            }
            Ok(template) => {
                self.world.told_template(&template, None);
                self.check_made(&template);
            }
            Err(_) => {}
        }
    }

    /// A template that was told to be made is there, unless someone wanted it to be gone.
    fn check_made(&self, template: &TemplateRecord) {
        let id = template.id;
        let (unwanted, stored) = {
            let inner = self.world.lock();
            let unwanted = inner.book.unwanted.contains(&id);
            (unwanted, inner.truth.templates.get(&id).cloned())
        };
        if unwanted {
            return;
        }
        if stored.is_none_or(|stored| stored.state != TemplateState::Ready) {
            self.world
                .violated(|| format!("{id} was told made, and is not ready"));
        }
        if !self.world.host.images().iter().any(|image| image.id == id) {
            self.world
                .violated(|| format!("{id} was told made, and its host has no image of it"));
        }
    }

    pub(super) async fn delete_template(&self) {
        let named: Vec<TemplateId> = self.world.lock().truth.templates.keys().copied().collect();
        let Some(id) = self.world.lock().rng.pick(&named) else {
            return;
        };
        // Whether or not this client may.
        self.world.book(|book| book.unwanted.insert(id));
        let text = id.to_string();
        let answer = self
            .ask(|api| async move { api.delete_template(&text).await })
            .await;
        let Answer::Told(told) = answer else {
            return;
        };
        self.say("delete template", id.uuid().as_u128(), || {
            format!("{id}: {told:?}")
        });
        if told.is_ok() {
            let stored = self.world.lock().truth.templates.get(&id).cloned();
            if stored.is_some_and(|stored| stored.state != TemplateState::Deleting) {
                self.world
                    .violated(|| format!("{id} was told deleted, and is there"));
            }
        }
    }

    pub(super) async fn list_templates(&self) {
        if self.caller.admin {
            let answer = self
                .ask(|api| async move {
                    api.all_templates(None, TemplatePageRequest::default())
                        .await
                })
                .await;
            if let Answer::Told(Ok((items, _))) = answer {
                self.say("all templates", items.len() as u128, String::new);
            }
            return;
        }
        let page = TemplatePageRequest::default();
        let answer = self
            .ask(|api| async move { api.templates(None, page).await })
            .await;
        let Answer::Told(Ok(page)) = answer else {
            return;
        };
        self.say("templates", page.items.len() as u128, String::new);
        for template in &page.items {
            let whose = template.team_id;
            if whose != self.caller.team_id && whose != crate::id::PLATFORM_TEAM_ID {
                self.world
                    .violated(|| format!("{} was shown to another team", template.id));
            }
        }
        let id = page.items.first().map(|template| template.id.to_string());
        if let Some(text) = id {
            let answer = self
                .ask(|api| async move { api.template(&text).await })
                .await;
            if let Answer::Told(Err(error)) = answer {
                self.say("template", 0, || error.to_string());
                debug_assert!(!matches!(error, Error::Forbidden(_)));
            }
        }
    }
}
