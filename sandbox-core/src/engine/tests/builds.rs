//! Template builds on a simulated host, in paused time.

use bytes::Bytes;

use super::*;
use crate::{
    api::BuildsApi,
    build::{
        BuildDetails, BuildFilter, BuildPageRequest, BuildRecord, BuildStatus, Healthcheck,
        LogCursor, LogStream, Recipe, SubmitBuild,
    },
    host::HostImage,
    id::{BuildId, PLATFORM_TEAM_ID, TeamId},
    sim::{Call, When},
    template::{TemplateKind, TemplateRecord, TemplateState},
};

fn recipe(lines: &[&str]) -> SubmitBuild {
    SubmitBuild {
        name: "app".to_owned(),
        base_template: None,
        recipe: Recipe::parse_list(lines).unwrap(),
        context: None,
        healthcheck: None,
        vcpus: None,
        memory_mb: None,
        disk_size_mb: None,
        no_cache: false,
        team_id: None,
        idempotency_key: None,
    }
}

impl World {
    async fn build(&self, request: SubmitBuild) -> BuildDetails {
        let id = self.api().submit_build(request).await.unwrap().id;
        self.ended(id).await
    }

    async fn ended(&self, id: BuildId) -> BuildDetails {
        self.within(SECOND * 7200, "the build has ended", |world| {
            world.stored_build(id).status.ended()
        })
        .await;
        self.api().build(id).await.unwrap()
    }

    fn stored_build(&self, id: BuildId) -> BuildRecord {
        let builds = self.store.all_builds();
        builds.into_iter().find(|build| build.id == id).unwrap()
    }

    async fn running(&self, id: BuildId, step: u32) {
        self.within(SECOND * 60, "the build is at this step", |world| {
            let build = world.stored_build(id);
            build.status == BuildStatus::Running && build.current_step >= step
        })
        .await;
    }

    fn template_of(&self, name: &str) -> Option<TemplateRecord> {
        let mut all = self.store.all_templates().into_iter();
        all.find(|template| {
            template.name.as_str() == name && template.state == TemplateState::Ready
        })
    }

    /// No sandbox, no machine; images and templates agree.
    async fn assert_builds_left_nothing(&self) {
        self.within(SECOND * 120, "the build's sandbox is gone", |world| {
            world.store.all_sandboxes().is_empty() && world.host.machines().is_empty()
        })
        .await;
        self.assert_nothing_left();
        let images: Vec<HostImage> = self.host.images();
        for template in self.store.all_templates() {
            assert_ne!(template.state, TemplateState::Making, "{template:?}");
            let held = images.iter().any(|image| image.id == template.id);
            assert!(held || template.host_id.is_none(), "{template:?}");
        }
    }
}

fn printed(details: &BuildDetails, step: u32) -> (String, String) {
    let log = details
        .steps
        .iter()
        .find(|log| log.step.step == step)
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&log.stdout), text(&log.stderr))
}

fn cached(details: &BuildDetails) -> Vec<bool> {
    details.steps.iter().map(|log| log.step.cached).collect()
}

#[tokio::test(start_paused = true)]
async fn r29_r30_a_build_without_healthcheck_makes_an_image() {
    let world = World::new().await;
    let details = world
        .build(recipe(&["echo one", "ENV A=b", "echo $A; echo two >&2"]))
        .await;
    let record = &details.record;
    assert_eq!(record.status, BuildStatus::Success, "{details:#?}");
    assert_eq!((record.current_step, record.total_steps), (5, 5));
    assert_eq!(printed(&details, 2).0, "one\n");
    assert_eq!(printed(&details, 4), ("b\n".to_owned(), "two\n".to_owned()));
    let phases: Vec<&str> = details
        .steps
        .iter()
        .map(|log| log.step.phase.as_str())
        .collect();
    assert_eq!(phases, ["pre", "recipe", "recipe", "recipe", "post"]);
    assert!(details.steps.iter().all(|log| log.step.ok == Some(true)));
    let template = world.template_of("app").unwrap();
    assert_eq!(Some(template.id), record.template_id);
    assert_eq!(template.kind, TemplateKind::Image);
    assert_eq!(template.team_id, PLATFORM_TEAM_ID);
    assert!(template.size_bytes() > 0);
    world.assert_builds_left_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn r30_a_healthy_build_is_saved_with_its_memory_and_its_process() {
    let world = World::new().await;
    let mut request = recipe(&["echo one", "START sleep 100000"]);
    request.healthcheck = Some(Healthcheck::new("true"));
    let details = world.build(request).await;
    assert_eq!(details.record.status, BuildStatus::Success, "{details:#?}");
    let template = world.template_of("app").unwrap();
    assert_eq!(template.kind, TemplateKind::Snapshot);
    let request = CreateSandbox {
        template: Some("app".to_owned()),
        ..CreateSandbox::default()
    };
    let id = world.create_with(request).await.unwrap().id;
    let processes = world.api().processes(id).await.unwrap();
    assert!(
        processes
            .iter()
            .any(|process| process.command.contains("sleep") && process.exit.is_none()),
        "{processes:?}"
    );
    world.destroy(id).await.unwrap();
    world.assert_builds_left_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn r30_what_never_gets_healthy_becomes_no_template() {
    let world = World::new().await;
    let mut request = recipe(&["START sleep 100000"]);
    let mut check = Healthcheck::new("echo not yet >&2; exit 3");
    check.retries = 2;
    request.healthcheck = Some(check);
    let details = world.build(request).await;
    let failure = details.record.failure.clone().unwrap();
    assert_eq!(details.record.status, BuildStatus::Failed);
    assert!(
        failure.message.contains("not healthy after 3 checks"),
        "{failure:?}"
    );
    assert!(failure.message.contains("not yet"), "{failure:?}");
    assert_eq!(world.template_of("app"), None);
    world.assert_builds_left_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn r29_a_failing_step_ends_the_build_and_is_not_tried_again() {
    let world = World::new().await;
    let details = world
        .build(recipe(&[
            "echo fine",
            "echo no such thing >&2; exit 7",
            "echo never",
        ]))
        .await;
    let record = &details.record;
    assert_eq!((record.status, record.attempt), (BuildStatus::Failed, 1));
    let failure = record.failure.clone().unwrap();
    assert_eq!(failure.step, Some(3));
    assert!(failure.message.contains("exit code 7"), "{failure:?}");
    assert!(failure.message.contains("no such thing"), "{failure:?}");
    let last = &details.steps.last().unwrap().step;
    assert_eq!(
        (last.step, last.ok, last.exit_code),
        (3, Some(false), Some(7))
    );
    assert_eq!(world.template_of("app"), None);
    world.assert_builds_left_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn r29_a_log_whose_last_piece_could_not_be_written_at_once_is_whole() {
    let world = World::new().await;
    let request = recipe(&["sleep 3; echo the last words; exit 7"]);
    let id = world.api().submit_build(request).await.unwrap().id;
    world.running(id, 2).await;
    world.sleep(SECOND * 2).await;
    world.store.fail_next_write();
    let details = world.ended(id).await;
    assert_eq!(details.record.status, BuildStatus::Failed, "{details:#?}");
    assert_eq!(printed(&details, 2).0, "the last words\n");
    world.assert_builds_left_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn r33_a_failure_names_no_sandbox() {
    let world = World::new().await;
    let request = recipe(&["sleep 1000"]);
    let id = world.api().submit_build(request).await.unwrap().id;
    for attempt in 1..=2 {
        world
            .within(SECOND * 300, "its machine runs", |world| {
                let build = world.stored_build(id);
                build.attempt == attempt && build.current_step == 2
            })
            .await;
        world.sleep(SECOND).await;
        let sandbox = world.stored_build(id).sandbox_id.unwrap();
        world.host.end_machine(sandbox, "it ended");
    }
    let details = world.ended(id).await;
    assert_eq!(details.record.status, BuildStatus::Failed, "{details:#?}");
    let failure = details.record.failure.unwrap();
    assert!(!failure.message.contains("sb-"), "{failure:?}");
    world.assert_builds_left_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_step_has_its_own_time_limit() {
    let world = World::new().await;
    let details = world.build(recipe(&["RUN --timeout=2 sleep 50"])).await;
    let failure = details.record.failure.unwrap();
    assert!(
        failure.message.contains("longer than it may"),
        "{failure:?}"
    );
    world.assert_builds_left_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_build_takes_no_longer_than_it_may() {
    let config = EngineConfig {
        build_timeout: SECOND * 30,
        ..EngineConfig::default()
    };
    let world = World::with(config).await;
    let details = world.build(recipe(&["sleep 100000"])).await;
    assert_eq!(details.record.status, BuildStatus::Failed);
    let failure = details.record.failure.unwrap();
    assert!(failure.message.contains("longer than 30 s"), "{failure:?}");
    world.assert_builds_left_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn r29_a_step_that_prints_without_end_is_bounded_with_a_note() {
    let world = World::new().await;
    let details = world.build(recipe(&["spew 100000000; echo the end"])).await;
    assert_eq!(
        details.record.status,
        BuildStatus::Success,
        "{:#?}",
        details.record
    );
    let step = &details.steps[1];
    assert!(step.stdout.len() < 1_000_000, "{}", step.stdout.len());
    assert!(step.stdout.ends_with(b"the end\n"));
    let stderr = String::from_utf8(step.stderr.clone()).unwrap();
    assert!(
        stderr.contains("bytes of output are left out here"),
        "{stderr}"
    );
    let kept = step.stdout.len() as u64;
    assert_eq!(kept + step.step.dropped_bytes, 100_000_008);
}

#[tokio::test(start_paused = true)]
async fn r20_building_under_an_existing_name_makes_a_new_version() {
    let world = World::new().await;
    world.build(recipe(&["echo one"])).await;
    let first = world.template_of("app").unwrap();
    let request = || CreateSandbox {
        template: Some("app".to_owned()),
        ..CreateSandbox::default()
    };
    let id = world.create_with(request()).await.unwrap().id;
    world.build(recipe(&["echo two"])).await;
    let second = world.template_of("app").unwrap();
    assert_ne!(first.id, second.id);
    // The sandbox on the old one goes on, and so do that one's files.
    let spec = crate::process::ProcessSpec::shell("echo on");
    let output = world.api().exec(id, spec).await;
    assert_eq!(output.unwrap().stdout, Bytes::from_static(b"on\n"));
    assert!(world.host.images().iter().any(|image| image.id == first.id));
    world.destroy(id).await.unwrap();
    world
        .within(SECOND * 60, "the old version's files are gone", |world| {
            !world.host.images().iter().any(|image| image.id == first.id)
        })
        .await;
    assert_eq!(
        world.create_with(request()).await.unwrap().template_id,
        second.id
    );
}

#[tokio::test(start_paused = true)]
async fn steps_whose_results_are_there_are_not_run_again() {
    let world = World::new().await;
    let first = world.build(recipe(&["echo one", "echo two"])).await;
    assert_eq!(cached(&first), [false, false, false, false]);
    // The same under another name: nothing is run, the disk is saved anew.
    let mut request = recipe(&["echo one", "echo two"]);
    request.name = "other".to_owned();
    let other = world.build(request).await;
    assert_eq!(other.record.status, BuildStatus::Success, "{other:#?}");
    assert_eq!(cached(&other), [false, true, true, false]);
    // One that goes on from there.
    let third = world.build(recipe(&["echo one", "echo three"])).await;
    assert_eq!(cached(&third), [false, true, false, false]);
    // The same under the same name: nothing at all is done.
    let before = world.template_of("app").unwrap();
    let again = world.build(recipe(&["echo one", "echo three"])).await;
    assert_eq!(cached(&again), [true, true, true, true]);
    assert_eq!(again.record.template_id, third.record.template_id);
    // It was written, or it could have been deleted while the build became a success.
    let published = world.template_of("app").unwrap();
    assert!(published.version > before.version, "{published:?}");
    let mut request = recipe(&["echo one", "echo three"]);
    request.no_cache = true;
    let anew = world.build(request).await;
    assert_eq!(cached(&anew), [false, false, false, false]);
    assert_ne!(anew.record.template_id, third.record.template_id);
    world.assert_builds_left_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn layers_that_no_build_uses_go() {
    let world = World::new().await;
    world.build(recipe(&["echo one", "echo two"])).await;
    let layers = |world: &World| {
        let all = world.store.all_templates();
        all.iter()
            .filter(|template| template.state == TemplateState::Layer)
            .count()
    };
    assert_eq!(layers(&world), 1);
    world.sleep(SECOND * 8 * 24 * 3600).await;
    world
        .within(SECOND * 120, "the layer is gone", |world| {
            layers(world) == 0
        })
        .await;
    assert!(world.template_of("app").is_some());
    world.assert_builds_left_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn r31_cancelling_ends_a_build_that_waits_and_one_that_runs() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        let mut request = recipe(&["sleep 1000"]);
        request.name = name.to_owned();
        ids.push(world.api().submit_build(request).await.unwrap().id);
    }
    world.running(ids[0], 2).await;
    world.running(ids[1], 2).await;
    assert_eq!(world.stored_build(ids[2]).status, BuildStatus::Pending);
    for id in ids.iter().rev() {
        let cancelled = world.api().cancel_build(*id).await.unwrap();
        assert_eq!(cancelled.status, BuildStatus::Cancelled);
        world.api().cancel_build(*id).await.unwrap();
    }
    world.assert_builds_left_nothing().await;
    let done = world.build(recipe(&["echo one"])).await;
    let refused = world.api().cancel_build(done.record.id).await;
    assert!(
        matches!(refused, Err(Error::BuildEnded { .. })),
        "{refused:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn r28_builds_begin_in_the_order_in_which_they_were_asked_for() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for number in 0..10 {
        let mut request = recipe(&["sleep 5"]);
        request.name = format!("app{number}");
        ids.push(world.api().submit_build(request).await.unwrap().id);
    }
    for id in &ids {
        assert_eq!(world.ended(*id).await.record.status, BuildStatus::Success);
    }
    let mut started: Vec<_> = ids
        .iter()
        .map(|id| (world.stored_build(*id).started_at.unwrap(), *id))
        .collect();
    started.sort();
    let order: Vec<BuildId> = started.into_iter().map(|(_, id)| id).collect();
    assert_eq!(order, ids);
    world.assert_builds_left_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn trap_14_a_build_whose_worker_died_is_begun_again_once_and_then_fails() {
    let mut world = World::new().await;
    let id = world
        .api()
        .submit_build(recipe(&["sleep 50"]))
        .await
        .unwrap()
        .id;
    world.running(id, 2).await;
    world.crash().await;
    world
        .within(SECOND * 90, "the second attempt", |world| {
            let build = world.stored_build(id);
            build.attempt == 2 && build.status == BuildStatus::Running && build.current_step == 2
        })
        .await;
    world.crash().await;
    let details = world.ended(id).await;
    assert_eq!(details.record.status, BuildStatus::Failed);
    assert!(
        details
            .record
            .failure
            .unwrap()
            .message
            .contains("stopped while"),
        "{id}"
    );
    world.assert_builds_left_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn r31_a_stopping_engine_hands_its_builds_back_and_the_next_one_builds_them() {
    let mut world = World::new().await;
    let id = world
        .api()
        .submit_build(recipe(&["sleep 50"]))
        .await
        .unwrap()
        .id;
    for _ in 0..3 {
        world.running(id, 2).await;
        assert!(world.engine.shutdown().await);
        let build = world.stored_build(id);
        assert_eq!(
            (build.status, build.sandbox_id),
            (BuildStatus::Pending, None)
        );
        assert_eq!(
            world.host.machines(),
            vec![],
            "its sandbox went with the shutdown"
        );
        world.engine = world.another(world.config).await;
    }
    assert_eq!(world.ended(id).await.record.status, BuildStatus::Success);
    world.assert_builds_left_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn r31_a_failing_host_costs_a_build_one_attempt() {
    let world = World::new().await;
    for _ in 0..3 {
        world.host.fail(Call::Create, When::Before, unavailable());
    }
    let details = world.build(recipe(&["echo one"])).await;
    assert_eq!(details.record.status, BuildStatus::Success, "{details:#?}");
    assert_eq!(details.record.attempt, 2);
    world.host.fail_always(
        Call::Create,
        When::Before,
        HostError::Boot("/secret/path".to_owned()),
    );
    let details = world.build(recipe(&["echo two"])).await;
    assert_eq!(
        (details.record.status, details.record.attempt),
        (BuildStatus::Failed, 2)
    );
    let failure = details.record.failure.unwrap();
    assert!(!failure.message.contains("secret"), "{failure:?}");
    assert!(failure.error_id.is_some(), "{failure:?}");
    world.assert_builds_left_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn trap_15_what_can_not_be_saved_is_no_success() {
    let world = World::new().await;
    world.build(recipe(&["echo one"])).await;
    let before = world.template_of("app").unwrap();
    world.host.fail_always(
        Call::Snapshot,
        When::Before,
        HostError::Boot("no".to_owned()),
    );
    let details = world.build(recipe(&["echo two"])).await;
    assert_eq!(details.record.status, BuildStatus::Failed, "{details:#?}");
    assert_eq!(world.template_of("app"), Some(before));
    world.host.heal();
    world.assert_builds_left_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn trap_13_a_builds_sandbox_is_in_the_store_and_in_nobodys_list() {
    let world = World::new().await;
    let id = world
        .api()
        .submit_build(recipe(&["sleep 50"]))
        .await
        .unwrap()
        .id;
    world.running(id, 2).await;
    let stored = world.store.all_sandboxes();
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].build_id, Some(id));
    let listed = world
        .api()
        .list(SandboxFilter::default(), PageRequest::default())
        .await
        .unwrap();
    assert_eq!(listed.items, vec![]);
    assert_eq!(world.ended(id).await.record.status, BuildStatus::Success);
}

#[tokio::test(start_paused = true)]
async fn r32_a_log_is_followed_to_its_end_from_any_place() {
    let world = World::new().await;
    let id = world
        .api()
        .submit_build(recipe(&["echo one; sleep 3; echo two", "echo three"]))
        .await
        .unwrap()
        .id;
    let mut text = String::new();
    let mut cursors = vec![LogCursor::default()];
    loop {
        let after = *cursors.last().unwrap();
        let part = world.api().build_log(id, after, SECOND * 5).await.unwrap();
        for entry in &part.entries {
            assert_eq!(entry.stream, LogStream::Stdout);
            text.push_str(std::str::from_utf8(&entry.data).unwrap());
            cursors.push(entry.cursor);
        }
        if part.ended {
            break;
        }
    }
    assert_eq!(text, "one\ntwo\nthree\n");
    let rest = world.api().build_log(id, cursors[1], SECOND).await.unwrap();
    assert_eq!(rest.entries.len(), cursors.len() - 2);
}

#[tokio::test(start_paused = true)]
async fn r28_builds_are_an_administrators() {
    let world = World::new().await;
    let team = TeamId::from_uuid(uuid::Uuid::from_u128(7));
    let api = world.api_of(Caller::team(Actor::api_key("k"), team));
    let refused = api.submit_build(recipe(&["echo one"])).await;
    assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
    let refused = api
        .builds(BuildFilter::default(), BuildPageRequest::default())
        .await;
    assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
    let id = world
        .api()
        .submit_build(recipe(&["echo one"]))
        .await
        .unwrap()
        .id;
    for refused in [
        api.build(id).await.map(drop),
        api.cancel_build(id).await.map(drop),
        api.build_log(id, LogCursor::default(), SECOND)
            .await
            .map(drop),
        api.upload_context(Bytes::new()).await.map(drop),
    ] {
        assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
    }
    assert_eq!(world.ended(id).await.record.status, BuildStatus::Success);
}

#[tokio::test(start_paused = true)]
async fn r42_requests_that_make_no_sense_change_nothing() {
    let world = World::new().await;
    let bad = |change: fn(&mut SubmitBuild)| {
        let mut request = recipe(&["echo one"]);
        change(&mut request);
        request
    };
    for request in [
        bad(|request| request.name = "Not A Name".to_owned()),
        bad(|request| request.recipe.steps.clear()),
        bad(|request| request.base_template = Some("nothing".to_owned())),
        bad(|request| request.memory_mb = Some(1)),
        bad(|request| request.healthcheck = Some(Healthcheck::new(" "))),
        bad(|request| request.context = Some("nothing".to_owned())),
        bad(|request| request.recipe = Recipe::parse_list(&["COPY a /b"]).unwrap()),
        bad(|request| request.name = "minimal".to_owned()),
        bad(|request| {
            request.recipe.steps = vec![crate::build::Step::Run {
                command: "echo \0".to_owned(),
                timeout_sec: None,
            }];
        }),
    ] {
        let refused = world.api().submit_build(request).await;
        assert!(
            matches!(
                refused,
                Err(Error::InvalidRequest(_) | Error::TemplateNotFound(_) | Error::Forbidden(_))
            ),
            "{refused:?}"
        );
    }
    assert_eq!(world.store.all_builds(), vec![]);
}

#[tokio::test(start_paused = true)]
async fn r10_one_key_is_one_build() {
    let world = World::new().await;
    let keyed = || {
        let mut request = recipe(&["echo one"]);
        request.idempotency_key = Some("k".to_owned());
        request
    };
    world.store.lose_next_reply();
    let first = world.api().submit_build(keyed()).await.unwrap();
    let second = world.api().submit_build(keyed()).await.unwrap();
    assert_eq!(first.id, second.id);
    let mut other = keyed();
    other.name = "other".to_owned();
    let refused = world.api().submit_build(other).await;
    assert_eq!(refused, Err(Error::IdempotencyMismatch));
    world.ended(first.id).await;
}

#[tokio::test(start_paused = true)]
async fn r10_a_build_whose_insertion_was_repeated_is_there() {
    let world = World::new().await;
    world
        .store
        .answer_next_write(crate::store::StoreError::Duplicate);
    let submitted = world.api().submit_build(recipe(&["echo one"])).await;
    let id = submitted.unwrap().id;
    assert_eq!(world.ended(id).await.record.status, BuildStatus::Success);
    assert_eq!(world.store.all_builds().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_was_repeated_is_a_claim() {
    let world = World::still().await;
    let id = world
        .api()
        .submit_build(recipe(&["echo one"]))
        .await
        .unwrap()
        .id;
    world
        .store
        .answer_next_write(crate::store::StoreError::Conflict);
    let record = world.stored_build(id);
    let claimed = world.engine.inner.claim_build(record).await.unwrap();
    assert!(claimed.is_some(), "{:?}", world.stored_build(id));
}

#[tokio::test(start_paused = true)]
async fn a_build_that_nobody_begins_fails_in_the_end() {
    let config = EngineConfig {
        build_workers: 0,
        ..EngineConfig::default()
    };
    let world = World::with(config).await;
    let id = world
        .api()
        .submit_build(recipe(&["echo one"]))
        .await
        .unwrap()
        .id;
    world.sleep(config.build_queue_timeout + SECOND * 60).await;
    let details = world.ended(id).await;
    assert_eq!(details.record.status, BuildStatus::Failed);
    let failure = details.record.failure.unwrap();
    assert!(failure.message.contains("no worker"), "{failure:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_recipe_sets_is_in_the_environment_of_the_templates_sandboxes() {
    let world = World::new().await;
    world
        .build(recipe(&["ENV A=one B=two", "echo layer", "ENV B=three"]))
        .await;
    let request = CreateSandbox {
        template: Some("app".to_owned()),
        ..CreateSandbox::default()
    };
    let id = world.create_with(request).await.unwrap().id;
    let spec = crate::process::ProcessSpec::shell("echo $A $B");
    let output = world.api().exec(id, spec).await.unwrap();
    assert_eq!(output.stdout, Bytes::from_static(b"one three\n"));
    // The same but for what comes last: another template, whose steps were all done already.
    let mut other = recipe(&["ENV A=one B=two", "echo layer", "ENV B=four"]);
    other.name = "other".to_owned();
    let details = world.build(other).await;
    assert_eq!(cached(&details), [false, true, true, false, false]);
    world.destroy(id).await.unwrap();
}
