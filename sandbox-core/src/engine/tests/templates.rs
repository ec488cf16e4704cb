//! Templates: who sees which, who lies on which, and what starts from them.

use std::collections::BTreeSet;

use super::{
    rights::{ALPHA, BETA, snapshot_of},
    *,
};
use crate::{
    id::{PLATFORM_TEAM_ID, TeamId, TemplateId},
    name::TemplateName,
    size::MachineSize,
    store::{Store, TemplateChange, TemplateWrite},
    template::{
        ImportSource, ImportTemplate, MINIMAL_TEMPLATE_ID, TemplateKind, TemplatePageRequest,
        TemplateRecord, TemplateState,
    },
};

const ALL: TemplatePageRequest = TemplatePageRequest {
    after: None,
    limit: 100,
};

pub(super) fn importing(name: &str) -> ImportTemplate {
    ImportTemplate {
        name: name.to_owned(),
        source: ImportSource::Directory {
            path: "/srv/root".to_owned(),
        },
        vcpus: None,
        memory_mb: None,
        disk_size_mb: None,
    }
}

fn parsed(name: &str) -> TemplateName {
    name.parse().unwrap()
}

impl World {
    /// Puts a template's record into the store, without files on the host.
    pub(super) async fn put(
        &self,
        team_id: TeamId,
        name: &str,
        kind: TemplateKind,
        state: TemplateState,
    ) -> TemplateRecord {
        let now = self.clock.now();
        let record = TemplateRecord {
            id: TemplateId::from_uuid(self.clock.new_uuid()),
            team_id,
            name: parsed(name),
            kind,
            state,
            operation: None,
            version: 1,
            size: MachineSize {
                vcpus: 2,
                memory_mb: 256,
                disk_size_mb: 1024,
            },
            disk_bytes: 1,
            memory_bytes: 0,
            origin: None,
            layer: None,
            host_id: None,
            created_at: now,
            updated_at: now,
        };
        let write = TemplateWrite {
            change: TemplateChange::Insert(record.clone()),
            operation: None,
            audit: None,
        };
        self.store.write_template(write).await.unwrap();
        record
    }

    /// A template of the platform's, with its files.
    pub(super) async fn platforms(&self, name: &str) -> TemplateRecord {
        self.api().import_template(importing(name)).await.unwrap()
    }

    /// A snapshot of a new sandbox of whoever asks.
    pub(super) async fn snapshot_by(&self, api: &EngineApi, name: &str) -> TemplateRecord {
        let id = api.create(CreateSandbox::default()).await.unwrap().id;
        let made = api.snapshot(snapshot_of(id, Some(name))).await.unwrap();
        api.destroy(id).await.unwrap();
        made
    }

    pub(super) fn everything(
        &self,
    ) -> (
        Vec<SandboxRecord>,
        Vec<TemplateRecord>,
        Vec<OperationRecord>,
    ) {
        (
            self.store.all_sandboxes(),
            self.store.all_templates(),
            self.store.all_operations(),
        )
    }
}

pub(super) fn from(template: &str) -> CreateSandbox {
    CreateSandbox {
        template: Some(template.to_owned()),
        ..CreateSandbox::default()
    }
}

async fn names(api: &EngineApi, kind: Option<TemplateKind>) -> BTreeSet<String> {
    let page = api.templates(kind, ALL).await.unwrap();
    let names = page.items.iter().map(|it| it.id.to_string());
    names.collect()
}

pub(super) fn forbidden<T: fmt::Debug>(answer: &Result<T, Error>) {
    assert!(matches!(answer, Err(Error::Forbidden(_))), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn r23_get_list_and_list_by_kind_agree_on_who_sees_which() {
    let world = World::still().await;
    let mut all = vec![world.store.all_templates()[0].clone()];
    for (team, whose) in [
        (PLATFORM_TEAM_ID, "platform"),
        (ALPHA, "alpha"),
        (BETA, "beta"),
    ] {
        for kind in TemplateKind::ALL {
            for state in TemplateState::ALL {
                let name = format!("{whose}-{}-{}", kind.as_str(), state.as_str());
                all.push(world.put(team, &name, kind, state).await);
            }
        }
    }
    for (api, own) in [
        (world.alpha(), ALPHA),
        (world.beta(), BETA),
        (world.api(), PLATFORM_TEAM_ID),
    ] {
        let mut expected = all.clone();
        expected.retain(|record| {
            record.state == TemplateState::Ready
                && [own, PLATFORM_TEAM_ID].contains(&record.team_id)
        });
        let ids = |records: &[TemplateRecord]| -> BTreeSet<String> {
            records.iter().map(|record| record.id.to_string()).collect()
        };
        assert_eq!(names(&api, None).await, ids(&expected));
        for kind in TemplateKind::ALL {
            let mut of_kind = expected.clone();
            of_kind.retain(|record| record.kind == kind);
            assert_eq!(names(&api, Some(kind)).await, ids(&of_kind), "{kind:?}");
        }
        for record in &all {
            let by_name = api.template(record.name.as_str()).await;
            let by_id = api.template(&record.id.to_string()).await;
            if expected.contains(record) {
                assert_eq!(by_name.as_ref(), Ok(record));
                assert_eq!(by_id.as_ref(), Ok(record));
                continue;
            }
            let name = record.name.to_string();
            assert_eq!(by_name, Err(Error::TemplateNotFound(name)));
            // By its ID an administrator reaches any team's, which only the list of all teams shows.
            let reached = api.caller().admin && record.state == TemplateState::Ready;
            let id = record.id.to_string();
            let hidden = Err(Error::TemplateNotFound(id));
            assert_eq!(by_id, if reached { Ok(record.clone()) } else { hidden });
        }
    }
}

#[tokio::test(start_paused = true)]
async fn r23_lists_come_in_pages_and_bounds() {
    let world = World::still().await;
    for name in ["a", "b", "c"] {
        world
            .put(ALPHA, name, TemplateKind::Image, TemplateState::Ready)
            .await;
    }
    let alpha = world.alpha();
    let mut seen = Vec::new();
    let mut page = TemplatePageRequest {
        after: None,
        limit: 2,
    };
    loop {
        let part = alpha.templates(None, page).await.unwrap();
        assert!(part.items.len() <= 2);
        seen.extend(part.items.iter().map(|it| it.name.to_string()));
        page.after = part.next;
        if page.after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["minimal", "a", "b", "c"]);
    for limit in [0, 1001, u32::MAX] {
        let page = TemplatePageRequest { after: None, limit };
        for error in [
            alpha.templates(None, page).await.unwrap_err(),
            world.api().all_templates(None, page).await.unwrap_err(),
        ] {
            assert!(error.to_string().starts_with("`limit`"), "{error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn r42_what_can_name_no_template_is_refused_by_field() {
    let world = World::still().await;
    let api = world.api();
    let before = world.everything();
    for bad in ["", "A", "a/b", "../etc", "a\0", &"x".repeat(64)] {
        for error in [
            api.template(bad).await.unwrap_err(),
            api.delete_template(bad).await.unwrap_err(),
            api.import_template(importing(bad)).await.unwrap_err(),
        ] {
            let named = matches!(&error, Error::InvalidRequest(text) if text.starts_with("`name`"));
            assert!(named, "{bad:?}: {error:?}");
        }
        let error = api.create(from(bad)).await.unwrap_err();
        assert!(error.to_string().starts_with("`template`"), "{error}");
    }
    assert_eq!(world.everything(), before);
}

#[tokio::test(start_paused = true)]
async fn r23_a_name_is_taken_within_a_team_and_what_has_it_stays_as_it_is() {
    let world = World::still().await;
    let (alpha, beta) = (world.alpha(), world.beta());
    let first = world.snapshot_by(&alpha, "warm").await;
    let id = alpha.create(CreateSandbox::default()).await.unwrap().id;
    let again = alpha.snapshot(snapshot_of(id, Some("warm"))).await;
    assert_eq!(again, Err(Error::TemplateExists("warm".to_owned())));
    assert_eq!(world.state(id), Some(SandboxState::Running));
    assert_eq!(alpha.template("warm").await.unwrap(), first);
    // Trap 30: another team's of the same name is another template, with files of its own.
    let other = world.snapshot_by(&beta, "warm").await;
    assert_ne!(other.id, first.id);
    assert_eq!(alpha.template("warm").await.unwrap(), first);
    assert_eq!(beta.template("warm").await.unwrap(), other);
}

#[tokio::test(start_paused = true)]
async fn trap_30_nobody_boots_another_teams_template() {
    let world = World::still().await;
    let (alpha, beta) = (world.alpha(), world.beta());
    let own = world.snapshot_by(&alpha, "secret").await;
    let before = (world.everything(), world.host.machines());
    for text in ["secret", &own.id.to_string()] {
        let missing = Error::TemplateNotFound(text.to_owned());
        assert_eq!(beta.create(from(text)).await, Err(missing.clone()));
        assert_eq!(beta.template(text).await, Err(missing.clone()));
        assert_eq!(beta.delete_template(text).await, Err(missing));
    }
    assert_eq!((world.everything(), world.host.machines()), before);
    alpha.create(from("secret")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn r23_a_snapshot_belongs_to_its_sandboxs_team_whoever_asks_for_it() {
    let world = World::still().await;
    let alpha = world.alpha();
    let id = alpha.create(CreateSandbox::default()).await.unwrap().id;
    let made = world
        .api()
        .snapshot(snapshot_of(id, Some("kept")))
        .await
        .unwrap();
    assert_eq!(made.team_id, ALPHA);
    assert_eq!(alpha.template("kept").await.unwrap(), made);
    assert!(world.beta().template(&made.id.to_string()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn r14_a_snapshot_without_a_name_gets_one_from_its_id() {
    let world = World::still().await;
    let alpha = world.alpha();
    let id = alpha.create(CreateSandbox::default()).await.unwrap().id;
    let made = alpha.snapshot(snapshot_of(id, None)).await.unwrap();
    let last = made.id.to_string();
    let last = last.rsplit('-').next().unwrap();
    assert_eq!(made.name.as_str(), format!("snap-{last}"));
    assert_eq!(alpha.template(made.name.as_str()).await.unwrap(), made);
}

#[tokio::test(start_paused = true)]
async fn r25_an_administrator_sees_all_teams_templates_and_who_lies_on_them() {
    let world = World::still().await;
    let (alpha, beta) = (world.alpha(), world.beta());
    let of_alpha = world.snapshot_by(&alpha, "warm").await;
    let of_beta = world.snapshot_by(&beta, "warm").await;
    let user = alpha.create(from("warm")).await.unwrap().id;
    let (items, next) = world.api().all_templates(None, ALL).await.unwrap();
    assert_eq!(next, None);
    let told: Vec<_> = items
        .iter()
        .map(|it| (it.template.id, it.in_use_by.clone()))
        .collect();
    assert_eq!(
        told,
        [
            (MINIMAL_TEMPLATE_ID, vec![]),
            (of_alpha.id, vec![user]),
            (of_beta.id, vec![])
        ]
    );
    let (images, _) = world
        .api()
        .all_templates(Some(TemplateKind::Image), ALL)
        .await
        .unwrap();
    assert_eq!(images.len(), 1);
    let one = TemplatePageRequest { limit: 1, ..ALL };
    let (items, next) = world.api().all_templates(None, one).await.unwrap();
    assert_eq!((items.len(), next), (1, Some(MINIMAL_TEMPLATE_ID)));
    for api in [&alpha, &beta] {
        forbidden(&api.all_templates(None, ALL).await);
    }
}

#[tokio::test(start_paused = true)]
async fn r26_a_template_in_use_is_hidden_at_once_and_freed_with_its_last_user() {
    let world = World::new().await;
    let alpha = world.alpha();
    let made = world.snapshot_by(&alpha, "warm").await;
    let user = alpha.create(from("warm")).await.unwrap().id;
    alpha.delete_template("warm").await.unwrap();
    for text in ["warm", &made.id.to_string()] {
        let missing = Err(Error::TemplateNotFound(text.to_owned()));
        assert_eq!(alpha.template(text).await, missing);
        assert!(alpha.create(from(text)).await.is_err());
    }
    assert!(!names(&alpha, None).await.contains(&made.id.to_string()));
    world.sleep(SECOND * 120).await;
    assert!(world.host.images().iter().any(|image| image.id == made.id));
    alpha
        .exec(user, crate::process::ProcessSpec::shell("true"))
        .await
        .unwrap();
    alpha.destroy(user).await.unwrap();
    world
        .within(SECOND * 60, "its files and its record are gone", |world| {
            !world.host.images().iter().any(|image| image.id == made.id)
                && world
                    .store
                    .all_templates()
                    .iter()
                    .all(|it| it.id != made.id)
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn r26_a_deleted_templates_name_is_free_at_once() {
    let world = World::new().await;
    let alpha = world.alpha();
    let first = world.snapshot_by(&alpha, "warm").await;
    let user = alpha.create(from("warm")).await.unwrap().id;
    alpha.delete_template("warm").await.unwrap();
    let second = world.snapshot_by(&alpha, "warm").await;
    assert_ne!(second.id, first.id);
    assert_eq!(alpha.template("warm").await.unwrap(), second);
    alpha.delete_template("warm").await.unwrap();
    let none = alpha.template("warm").await;
    assert_eq!(none, Err(Error::TemplateNotFound("warm".to_owned())));
    let images = world.host.images();
    assert!(
        images.iter().any(|image| image.id == first.id),
        "it is in use"
    );
    assert!(
        images.iter().all(|image| image.id != second.id),
        "nobody was on it"
    );
    assert_eq!(world.state(user), Some(SandboxState::Running));
}

#[tokio::test(start_paused = true)]
async fn r26_deleting_survives_its_caller_lost_replies_and_a_host_that_is_away() {
    let world = World::new().await;
    let alpha = world.alpha();
    for trouble in ["lost write", "lost reply", "host", "caller"] {
        let made = world.snapshot_by(&alpha, "warm").await;
        match trouble {
            "lost write" => world.store.fail_next_write(),
            "lost reply" => world.store.lose_next_reply(),
            "host" => world.host.fail_always(
                crate::sim::Call::DeleteImage,
                crate::sim::When::Before,
                unavailable(),
            ),
            _ => world.store.slow_down(SECOND),
        }
        if trouble == "caller" {
            abandon(SECOND * 3 / 2, alpha.delete_template("warm")).await;
            world.store.heal();
        } else {
            alpha.delete_template("warm").await.unwrap();
        }
        let hidden = |world: &World| {
            let all = world.store.all_templates();
            !all.iter()
                .any(|it| it.id == made.id && it.state == TemplateState::Ready)
        };
        world.within(SECOND * 10, trouble, hidden).await;
        world.host.heal();
        world
            .within(SECOND * 120, trouble, |world| {
                world
                    .store
                    .all_templates()
                    .iter()
                    .all(|it| it.id != made.id)
                    && world.host.images().iter().all(|image| image.id != made.id)
            })
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn r18_an_images_size_is_a_default_and_a_snapshots_is_a_fact() {
    let world = World::still().await;
    let alpha = world.alpha();
    let mut request = importing("tools");
    (request.vcpus, request.memory_mb, request.disk_size_mb) = (Some(3), Some(1024), Some(2048));
    world.api().import_template(request).await.unwrap();
    let record = alpha.create(from("tools")).await.unwrap();
    let size = |vcpus, memory_mb, disk_size_mb| MachineSize {
        vcpus,
        memory_mb,
        disk_size_mb,
    };
    assert_eq!(record.size, size(3, 1024, 2048));
    let mut asked = from("tools");
    (asked.vcpus, asked.disk_size_mb) = (Some(1), Some(4096));
    let record = alpha.create(asked).await.unwrap();
    assert_eq!(record.size, size(1, 1024, 4096));

    alpha
        .snapshot(snapshot_of(record.id, Some("warm")))
        .await
        .unwrap();
    let warm = alpha.create(from("warm")).await.unwrap();
    assert_eq!(warm.size, size(1, 1024, 4096));
    let mut same = from("warm");
    (same.vcpus, same.memory_mb, same.disk_size_mb) = (Some(1), Some(1024), Some(4096));
    assert_eq!(alpha.create(same).await.unwrap().size, warm.size);
    let before = world.everything();
    for (vcpus, memory_mb, disk_size_mb, field) in [
        (Some(2), None, None, "`vcpus`"),
        (None, Some(512), None, "`memory_mb`"),
        (None, None, Some(8192), "`disk_size_mb`"),
    ] {
        let mut other = from("warm");
        (other.vcpus, other.memory_mb, other.disk_size_mb) = (vcpus, memory_mb, disk_size_mb);
        let refused = alpha.create(other).await.unwrap_err();
        assert!(matches!(refused, Error::InvalidRequest(_)), "{refused:?}");
        assert!(refused.to_string().starts_with(field), "{refused}");
    }
    assert_eq!(world.everything(), before);
}

#[tokio::test(start_paused = true)]
async fn a_template_deleted_before_its_order_arrives_is_a_clear_error_and_leaves_nothing() {
    let world = World::new().await;
    let alpha = world.alpha();
    let made = world.snapshot_by(&alpha, "warm").await;
    world
        .host
        .delay_delivery(crate::sim::Call::Create, SECOND * 2);
    let lose = async {
        world.sleep(SECOND).await;
        world.host.delete_snapshot(made.id).await.unwrap();
    };
    let (failed, ()) = tokio::join!(alpha.create(from("warm")), lose);
    let missing = matches!(&failed, Err(Error::TemplateNotFound(_)));
    assert!(missing, "{failed:?}");
    world.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn r26_a_sandbox_that_is_being_made_keeps_its_template() {
    let world = World::new().await;
    let alpha = world.alpha();
    world.snapshot_by(&alpha, "warm").await;
    world
        .host
        .delay_delivery(crate::sim::Call::Create, SECOND * 2);
    let delete = async {
        world.sleep(SECOND).await;
        alpha.delete_template("warm").await.unwrap();
    };
    let (made, ()) = tokio::join!(alpha.create(from("warm")), delete);
    assert_eq!(made.unwrap().state, SandboxState::Running);
}

#[tokio::test(start_paused = true)]
async fn r10_a_retry_finds_its_sandbox_also_where_the_template_is_gone() {
    let world = World::new().await;
    let alpha = world.alpha();
    let warm = world.snapshot_by(&alpha, "warm").await;
    for text in ["warm", &warm.id.to_string()] {
        let request = CreateSandbox {
            idempotency_key: Some(format!("key of {text}")),
            ..from(text)
        };
        let made = alpha.create(request.clone()).await.unwrap();
        assert_eq!(alpha.create(request).await.unwrap(), made);
    }
    alpha.delete_template("warm").await.unwrap();
    for text in ["warm", &warm.id.to_string()] {
        let request = CreateSandbox {
            idempotency_key: Some(format!("key of {text}")),
            ..from(text)
        };
        let found = alpha.create(request.clone()).await.unwrap();
        assert_eq!(found.template_id, warm.id);
        let beta = world.beta().create(request).await;
        assert_eq!(beta, Err(Error::TemplateNotFound(text.to_owned())));
    }
    let other = CreateSandbox {
        idempotency_key: Some("key of warm".to_owned()),
        ..from("gone")
    };
    let missing = alpha.create(other).await;
    assert_eq!(missing, Err(Error::TemplateNotFound("gone".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn minimal_is_recorded_once_by_any_number_of_control_planes() {
    let world = World::new().await;
    let first = world.store.all_templates();
    assert_eq!(first.len(), 1);
    let minimal = &first[0];
    assert_eq!(
        (minimal.id, minimal.team_id),
        (MINIMAL_TEMPLATE_ID, PLATFORM_TEAM_ID)
    );
    assert_eq!(
        (minimal.kind, minimal.size),
        (TemplateKind::Image, MachineSize::default())
    );
    let _another = world.another(world.config).await;
    assert_eq!(world.store.all_templates().len(), 1);
    let record = world
        .alpha()
        .create(CreateSandbox::default())
        .await
        .unwrap();
    assert_eq!(
        (record.template_id, record.size),
        (minimal.id, minimal.size)
    );
}

#[tokio::test(start_paused = true)]
async fn r19_minimals_physical_size_is_its_hosts_word() {
    let world = World::new().await;
    let report = world.host.list_sandboxes().await.unwrap();
    let image = report
        .images
        .into_iter()
        .find(|it| it.id == MINIMAL_TEMPLATE_ID)
        .unwrap();
    assert!(image.disk_bytes > 0);
    world
        .within(SECOND * 60, "it is noted", |world| {
            world.store.all_templates()[0].disk_bytes == image.disk_bytes
        })
        .await;
    let version = world.store.all_templates()[0].version;
    world.sleep(SECOND * 300).await;
    assert_eq!(
        world.store.all_templates()[0].version,
        version,
        "noted once"
    );
}
