use std::collections::BTreeMap;

use super::{templates::importing, *};
use crate::{
    api::Api,
    operation::OperationKind,
    sim::{Call, When},
    store::Store,
};

#[tokio::test(start_paused = true)]
async fn r4_a_created_sandbox_runs_and_is_found() {
    let world = World::new().await;
    let api = world.api();
    let other = api.import_template(importing("other")).await.unwrap();
    let mut request = lasting(60);
    request.template = Some("other".to_owned());
    request.vcpus = Some(2);
    request.metadata = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    request.env = BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]);
    let record = api.create(request).await.unwrap();
    assert_eq!(record.state, SandboxState::Running);
    assert_eq!(record.operation, None);
    assert_eq!(record.template.as_str(), "other");
    assert_eq!(record.template_id, other.id);
    assert_eq!((record.size.vcpus, record.size.disk_size_mb), (2, 5120));
    assert!(record.host_id.is_some() && record.started_at.is_some());
    let lifetime = record.expires_at.unwrap() - record.started_at.unwrap();
    assert_eq!(lifetime.num_seconds(), 60);
    assert_eq!(api.get(record.id).await.unwrap(), record);
    let page = api
        .list(SandboxFilter::default(), PageRequest::default())
        .await
        .unwrap();
    assert_eq!(page.items, vec![record.clone()]);
    let machines = world.host.machines();
    assert_eq!((machines[0].id, machines[0].generation), (record.id, 1));
}

#[tokio::test(start_paused = true)]
async fn creating_takes_two_transactions_of_the_store() {
    let world = World::still().await;
    let before = world.store.transactions();
    world.create().await.unwrap();
    assert_eq!(world.store.transactions() - before, 2);
}

#[tokio::test(start_paused = true)]
async fn r40_creating_and_destroying_is_in_the_audit_log() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    world.destroy(id).await.unwrap();
    let entries = world.store.audit_of(&id.to_string(), 10).await.unwrap();
    let told: Vec<String> = entries
        .iter()
        .map(|entry| format!("{} {} {}", entry.actor, entry.action, entry.outcome))
        .collect();
    assert_eq!(
        told,
        [
            "app:embedded sandbox.create pending",
            "app:embedded sandbox.create running",
            "app:embedded sandbox.destroy destroying",
            "app:embedded sandbox.destroy removed",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn r15_a_create_goes_on_when_its_caller_has_gone() {
    let world = World::new().await;
    world.host.delay(Call::Create, SECOND * 5);
    abandon(SECOND, world.create()).await;
    let record = world.store.all_sandboxes().remove(0);
    assert_eq!(record.state, SandboxState::Pending);
    let operation = record.operation.unwrap();
    world
        .within(SECOND * 5, "it runs", |world| {
            world.state(record.id) == Some(SandboxState::Running)
        })
        .await;
    let outcome = world.api().operation(operation.id).await.unwrap();
    assert_eq!(outcome.status, OperationStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn r15_a_caller_that_goes_at_once_leaves_nothing_half_done() {
    // Dropped at its first await, wherever that is.
    let world = World::new().await;
    let mut create = Box::pin(world.create());
    let polled = futures::poll!(&mut create);
    assert!(polled.is_pending());
    drop(create);
    world.sleep(SECOND).await;
    for record in world.store.all_sandboxes() {
        assert_eq!(record.state, SandboxState::Running);
    }
    assert_eq!(
        world.store.all_sandboxes().len(),
        world.host.machines().len()
    );
}

#[tokio::test(start_paused = true)]
async fn r15_an_operation_is_followed_by_its_id() {
    let world = World::new().await;
    world.host.delay(Call::Create, SECOND);
    let api = world.api();
    let begun = api.begin_create(CreateSandbox::default()).await.unwrap();
    let id = begun.operation.unwrap();
    assert_eq!(begun.record.state, SandboxState::Pending);
    let operation = api.operation(id).await.unwrap();
    assert_eq!(operation.status, OperationStatus::Running);
    assert_eq!(operation.sandbox_id, Some(begun.record.id));
    world.sleep(SECOND * 2).await;
    let operation = api.operation(id).await.unwrap();
    assert_eq!(operation.status, OperationStatus::Succeeded);
    let unknown = OperationId::from_uuid(uuid::Uuid::nil());
    let missing = api.operation(unknown).await;
    assert_eq!(missing, Err(Error::OperationNotFound(unknown)));
}

#[tokio::test(start_paused = true)]
async fn r10_one_key_makes_one_sandbox_also_at_the_same_time() {
    let world = World::new().await;
    world.host.delay(Call::Create, SECOND);
    let (first, second) =
        tokio::join!(world.create_with(keyed("k")), world.create_with(keyed("k")));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first, second);
    assert_eq!(world.host.count(Call::Create), 1);
    let third = world.create_with(keyed("k")).await.unwrap();
    assert_eq!(third.id, first.id);
    assert_eq!(world.host.machines().len(), 1);
    let other = world.create_with(keyed("other")).await.unwrap();
    assert_ne!(other.id, first.id);
}

#[tokio::test(start_paused = true)]
async fn trap_38_a_retry_after_a_lost_reply_makes_no_second_sandbox() {
    let world = World::new().await;
    world.host.delay(Call::Create, SECOND * 5);
    abandon(SECOND, world.create_with(keyed("k"))).await;
    let record = world.create_with(keyed("k")).await.unwrap();
    assert_eq!(record.state, SandboxState::Running);
    assert_eq!(world.store.all_sandboxes().len(), 1);
    assert_eq!(world.host.count(Call::Create), 1);
}

#[tokio::test(start_paused = true)]
async fn r10_a_retry_finds_a_create_of_another_engine() {
    let world = World::new().await;
    world.host.delay(Call::Create, SECOND * 5);
    abandon(SECOND, world.create_with(keyed("k"))).await;
    let shared = EngineConfig {
        sole_owner: false,
        ..EngineConfig::default()
    };
    let other = world.another(shared).await;
    let record = other
        .api(Caller::admin(Actor::app()))
        .create(keyed("k"))
        .await
        .unwrap();
    assert_eq!(record.state, SandboxState::Running);
    assert_eq!(world.host.count(Call::Create), 1);
    assert_eq!(world.store.all_sandboxes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn r10_a_key_is_not_good_for_another_request() {
    let world = World::new().await;
    let first = world.create_with(keyed("k")).await.unwrap();
    let mut other = keyed("k");
    other.memory_mb = Some(1024);
    let refused = world.create_with(other).await;
    assert_eq!(refused, Err(Error::IdempotencyMismatch));
    assert_eq!(world.store.all_sandboxes(), vec![first]);
}

#[tokio::test(start_paused = true)]
async fn r10_the_key_of_a_create_that_failed_can_be_used_again() {
    let world = World::new().await;
    let boot = HostError::Boot("kernel panic".to_owned());
    world.host.fail(Call::Create, When::Before, boot);
    let failed = world.create_with(keyed("k")).await;
    assert!(matches!(failed, Err(Error::Host(_))), "{failed:?}");
    let record = world.create_with(keyed("k")).await.unwrap();
    assert_eq!(record.state, SandboxState::Running);
}

type IsRight = fn(&Error) -> bool;

fn host_errors() -> Vec<(HostError, IsRight)> {
    vec![
        (
            HostError::UnknownTemplate {
                name: "nix".to_owned(),
            },
            |error| *error == Error::TemplateNotFound("nix".to_owned()),
        ),
        (
            HostError::Capacity("no room".to_owned()),
            |error| matches!(error, Error::Capacity(text) if text.contains("no room")),
        ),
        (
            HostError::DiskTooSmall {
                asked_mb: 64,
                needed_mb: 200,
            },
            |error| matches!(error, Error::InvalidRequest(text) if text.contains("`disk_size_mb`")),
        ),
        (
            HostError::DiskFull {
                place: "/data".to_owned(),
                free_mb: 1,
                needed_mb: 9,
            },
            |error| matches!(error, Error::Capacity(text) if text.contains("/data")),
        ),
        (
            HostError::NotSetUp {
                missing: "no QEMU".to_owned(),
                mend: "apt-get install".to_owned(),
            },
            |error| matches!(error, Error::NotSetUp(text) if text.contains("apt-get")),
        ),
        (
            HostError::Boot("kernel panic".to_owned()),
            |error| matches!(error, Error::Host(text) if text.contains("kernel panic")),
        ),
        (
            HostError::Internal("odd".to_owned()),
            |error| matches!(error, Error::Host(text) if text.contains("odd")),
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_create_that_fails_on_the_host_leaves_nothing_behind() {
    for when in [When::Before, When::After] {
        for (error, is_right) in host_errors() {
            let world = World::new().await;
            world.host.fail(Call::Create, when, error.clone());
            let got = world.create().await.unwrap_err();
            assert!(is_right(&got), "{error:?} became {got:?}");
            world.assert_nothing_left();
            let operation = world.store.all_operations().remove(0);
            assert_eq!(operation.status, OperationStatus::Failed { error: got });
            let gone = world.api().get(operation.sandbox_id.unwrap()).await;
            assert_eq!(
                gone,
                Err(Error::SandboxNotFound(operation.sandbox_id.unwrap()))
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_to_create_is_given_again_when_its_reply_is_lost() {
    for when in [When::Before, When::After] {
        let world = World::new().await;
        world.host.fail(Call::Create, when, unavailable());
        world.host.fail(Call::Create, when, unavailable());
        let record = world.create().await.unwrap();
        assert_eq!(record.state, SandboxState::Running);
        assert_eq!(world.host.count(Call::Create), 3);
        assert_eq!(world.host.machines().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_stays_away_fails_the_create_and_leaves_nothing() {
    for when in [When::Before, When::After] {
        let world = World::new().await;
        world.host.fail_always(Call::Create, when, unavailable());
        let failed = world.create().await;
        assert!(matches!(failed, Err(Error::Unavailable(_))), "{failed:?}");
        world.assert_nothing_left();
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_create_that_cannot_be_cleaned_up_shows_as_error_until_it_can() {
    let world = World::new().await;
    let boot = HostError::Boot("kernel panic".to_owned());
    world.host.fail(Call::Create, When::After, boot);
    world
        .host
        .fail_always(Call::Destroy, When::Before, unavailable());
    let failed = world.create().await;
    assert!(matches!(failed, Err(Error::Host(_))), "{failed:?}");
    let record = world.store.all_sandboxes().remove(0);
    assert_eq!(record.state, SandboxState::Error);
    assert_eq!(record.operation, None);
    assert!(record.reason.contains("kernel panic"), "{}", record.reason);
    let refused = world.api().ping(record.id).await;
    assert!(
        matches!(refused, Err(Error::InvalidState { .. })),
        "{refused:?}"
    );
    world.host.heal();
    world
        .within(SECOND * 60, "the reconciler cleans up", |world| {
            world.host.machines().is_empty()
        })
        .await;
    assert_eq!(world.state(record.id), Some(SandboxState::Error));
    world.destroy(record.id).await.unwrap();
    world.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn trap_8_a_create_has_a_deadline() {
    let world = World::new().await;
    world.host.delay(Call::Create, SECOND * 100_000);
    let before = world.clock.now();
    let failed = world.create().await;
    assert!(matches!(failed, Err(Error::Host(_))), "{failed:?}");
    assert_eq!((world.clock.now() - before).num_seconds(), 180);
    world.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn a_slow_create_keeps_its_lease_and_is_left_alone_by_every_reconciler() {
    let world = World::new().await;
    let shared = EngineConfig {
        sole_owner: false,
        ..EngineConfig::default()
    };
    let _other = world.another(shared).await;
    world.host.delay(Call::Create, SECOND * 150);
    let watch = async {
        for _ in 0..140 {
            world.sleep(SECOND).await;
            let record = world.store.all_sandboxes().remove(0);
            let operation = record.operation.unwrap();
            assert_eq!(operation.kind, OperationKind::Create);
            assert!(operation.lease_until > world.clock.now());
        }
    };
    let (record, ()) = tokio::join!(world.create(), watch);
    assert_eq!(record.unwrap().state, SandboxState::Running);
    assert_eq!(world.host.count(Call::Destroy), 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_the_first_write_lets_nothing_begin() {
    let world = World::new().await;
    world.store.fail_next_write();
    let failed = world.create().await;
    assert!(matches!(failed, Err(Error::Unavailable(_))), "{failed:?}");
    assert_eq!(world.host.count(Call::Create), 0);
    world.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_of_the_store_costs_nothing_at_either_write() {
    for delay in [Duration::ZERO, SECOND] {
        let world = World::new().await;
        world.host.delay(Call::Create, delay);
        let lose = async {
            // At once it strikes the insertion, later the write of `running`.
            world.sleep(delay / 2).await;
            world.store.lose_next_reply();
        };
        let (create, ()) = tokio::join!(
            async {
                tokio::task::yield_now().await;
                world.create().await
            },
            lose
        );
        assert_eq!(create.unwrap().state, SandboxState::Running);
        assert_eq!(world.store.all_sandboxes().len(), 1);
        let operation = world.store.all_operations().remove(0);
        assert_eq!(operation.status, OperationStatus::Succeeded);
    }
}

#[tokio::test(start_paused = true)]
async fn r42_bad_input_names_its_field_and_touches_nothing() {
    let world = World::still().await;
    let before = world.store.transactions();
    let pairs = |count: usize| {
        (0..count)
            .map(|number| (format!("k{number}"), String::new()))
            .collect::<BTreeMap<_, _>>()
    };
    let pair = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let base = CreateSandbox::default;
    let template = |name: &str| CreateSandbox {
        template: Some(name.to_owned()),
        ..base()
    };
    let env = |env| CreateSandbox { env, ..base() };
    let metadata = |metadata| CreateSandbox { metadata, ..base() };
    let long = "x".repeat(100_000);
    let mut sizes = [base(), base(), base()];
    sizes[0].vcpus = Some(0);
    sizes[1].memory_mb = Some(1);
    sizes[2].disk_size_mb = Some(u32::MAX);
    let [vcpus, memory, disk] = sizes;
    let cases = vec![
        (template(""), "template"),
        (template("../etc"), "template"),
        (vcpus, "vcpus"),
        (memory, "memory_mb"),
        (disk, "disk_size_mb"),
        (lasting(0), "timeout_sec"),
        (lasting(u64::MAX), "timeout_sec"),
        (metadata(pairs(65)), "metadata"),
        (metadata(pair("", "x")), "metadata"),
        (metadata(pair(&"k".repeat(129), "x")), "metadata"),
        (metadata(pair("k", &long)), "metadata"),
        (metadata(pair("k", "a\0b")), "metadata"),
        (env(pairs(257)), "env"),
        (env(pair("", "x")), "env"),
        (env(pair("A=B", "x")), "env"),
        (env(pair("A\0", "x")), "env"),
        (env(pair("A", "a\0b")), "env"),
        (env(pair("A", &long)), "env"),
        (keyed(""), "idempotency_key"),
        (keyed(&"k".repeat(256)), "idempotency_key"),
        (keyed("a\0b"), "idempotency_key"),
    ];
    for (request, field) in cases {
        match world.create_with(request).await {
            Err(Error::InvalidRequest(text)) => {
                assert!(text.contains(&format!("`{field}`")), "{field}: {text}");
                assert!(text.len() < 400, "{text}");
            }
            other => panic!("{field}: {other:?}"),
        }
    }
    let page = |limit| PageRequest { after: None, limit };
    for limit in [0, 1001, u32::MAX] {
        match world
            .api()
            .list(SandboxFilter::default(), page(limit))
            .await
        {
            Err(Error::InvalidRequest(text)) => assert!(text.contains("`limit`"), "{text}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(world.store.transactions(), before);
    assert_eq!(world.host.count(Call::Create), 0);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_template_is_told_and_leaves_nothing() {
    let world = World::new().await;
    let request = CreateSandbox {
        template: Some("nix".to_owned()),
        ..CreateSandbox::default()
    };
    let failed = world.create_with(request).await;
    assert_eq!(failed, Err(Error::TemplateNotFound("nix".to_owned())));
    world.assert_nothing_left();
}
