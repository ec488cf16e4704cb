//! Who may do what, through every call that a client has.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::{
    file::{WriteHandle, WriteSpec},
    id::{PLATFORM_TEAM_ID, TeamId},
    process::{OutputRequest, ProcessSpec, PtySize},
    sim::{Call, When},
    store::Store,
    template::{SnapshotRequest, TemplateKind},
};

pub(super) const ALPHA: TeamId = TeamId::from_uuid(uuid::Uuid::from_u128(0xa));
pub(super) const BETA: TeamId = TeamId::from_uuid(uuid::Uuid::from_u128(0xb));

pub(super) fn actor(id: &str) -> Actor {
    Actor {
        id: id.to_owned(),
        ..Actor::app()
    }
}

impl World {
    pub(super) fn alpha(&self) -> EngineApi {
        self.api_of(Caller::team(actor("alpha's key"), ALPHA))
    }

    pub(super) fn beta(&self) -> EngineApi {
        self.api_of(Caller::team(actor("beta's key"), BETA))
    }
}

pub(super) fn snapshot_of(sandbox_id: SandboxId, name: Option<&str>) -> SnapshotRequest {
    SnapshotRequest {
        sandbox_id,
        name: name.map(str::to_owned),
        resume: false,
        kind: TemplateKind::Snapshot,
    }
}

/// Every call that names a sandbox, by its name, with the error that it gave.
async fn refusals(api: &dyn Api, id: SandboxId) -> Vec<(&'static str, Error)> {
    let spec = || ProcessSpec::shell("echo hi");
    let output = OutputRequest {
        offset: 0,
        max_bytes: 100,
        wait_ms: 0,
    };
    let write = WriteSpec {
        path: "/f".to_owned(),
        mode: Some(0o644),
        create_parents: false,
    };
    let handle = WriteHandle(1);
    let data = Bytes::from_static(b"x");
    let size = PtySize { rows: 1, cols: 1 };
    macro_rules! refused {
        ($($name:ident($($arg:expr),*);)*) => {
            vec![$((
                stringify!($name),
                api.$name($($arg),*).await.expect_err(stringify!($name)),
            )),*]
        };
    }
    refused! {
        get(id);
        destroy(id);
        ping(id);
        pause(id);
        resume(id);
        snapshot(snapshot_of(id, None));
        begin_snapshot(snapshot_of(id, Some("mine")));
        exec(id, spec());
        start_process(id, spec(), Duration::ZERO);
        read_output(id, 1, output);
        detach_output(id, 1);
        write_stdin(id, 1, data.clone(), true);
        signal(id, 1, 9, false);
        resize_pty(id, 1, size);
        processes(id);
        stat(id, "/");
        list_dir(id, "/", None, 10);
        read_file(id, "/f", 0, 10);
        open_write(id, write.clone());
        write_chunk(id, handle, 0, data.clone());
        commit_write(id, handle, 0);
        abort_write(id, handle);
        make_dir(id, "/d", 0o755, false);
        rename(id, "/a", "/b");
        remove(id, "/f", true);
    }
}

#[tokio::test(start_paused = true)]
async fn r39_another_teams_sandbox_is_not_there_whatever_is_asked_of_it() {
    let world = World::still().await;
    let (alpha, beta) = (world.alpha(), world.beta());
    let record = alpha.create(lasting(60)).await.unwrap();
    let unknown = SandboxId::from_uuid(uuid::Uuid::from_u128(99));
    world.sleep(SECOND * 30).await;
    let before = (world.store.all_sandboxes(), world.store.all_operations());
    let calls = world.host.count(Call::Guest);
    for (call, error) in refusals(&beta, record.id).await {
        assert_eq!(error, Error::SandboxNotFound(record.id), "{call}");
    }
    // It is the very answer that there is for what never was.
    for (call, error) in refusals(&beta, unknown).await {
        assert_eq!(error, Error::SandboxNotFound(unknown), "{call}");
    }
    let after = (world.store.all_sandboxes(), world.store.all_operations());
    assert_eq!(after, before, "its deadline was not pushed either");
    assert_eq!(world.host.count(Call::Guest), calls);

    // The same while the store's word that it runs is trusted.
    alpha
        .exec(record.id, ProcessSpec::shell("true"))
        .await
        .unwrap();
    for (call, error) in refusals(&beta, record.id).await {
        assert_eq!(error, Error::SandboxNotFound(record.id), "{call}");
    }
    alpha.ping(record.id).await.unwrap();
    world.api().ping(record.id).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn r39_rights_cost_a_guest_call_no_read_of_the_store() {
    let world = World::still().await;
    let alpha = world.alpha();
    let id = alpha.create(CreateSandbox::default()).await.unwrap().id;
    alpha.exec(id, ProcessSpec::shell("true")).await.unwrap();
    let before = world.store.transactions();
    alpha.exec(id, ProcessSpec::shell("true")).await.unwrap();
    let refused = world.beta().exec(id, ProcessSpec::shell("true")).await;
    assert_eq!(refused.unwrap_err(), Error::SandboxNotFound(id));
    assert_eq!(world.store.transactions(), before);
}

#[tokio::test(start_paused = true)]
async fn r39_a_list_has_what_its_reader_may_see() {
    let world = World::still().await;
    let (alpha, beta) = (world.alpha(), world.beta());
    let of_alpha = alpha.create(CreateSandbox::default()).await.unwrap();
    let of_beta = beta.create(CreateSandbox::default()).await.unwrap();
    let of_admin = world.create().await.unwrap();
    assert_eq!(
        [&of_alpha, &of_beta, &of_admin].map(|record| record.team_id),
        [ALPHA, BETA, PLATFORM_TEAM_ID]
    );
    let page = PageRequest::default();
    for asked in [None, Some(ALPHA), Some(BETA), Some(PLATFORM_TEAM_ID)] {
        let filter = SandboxFilter {
            team_id: asked,
            ..SandboxFilter::default()
        };
        let of_team = |record: &SandboxRecord| asked.is_none_or(|team| team == record.team_id);
        let seen = alpha.list(filter.clone(), page).await.unwrap().items;
        assert_eq!(seen, std::slice::from_ref(&of_alpha), "{asked:?}");
        let seen = beta.list(filter.clone(), page).await.unwrap().items;
        assert_eq!(seen, std::slice::from_ref(&of_beta), "{asked:?}");
        let seen = world.api().list(filter, page).await.unwrap().items;
        let mut expected = vec![of_alpha.clone(), of_beta.clone(), of_admin.clone()];
        expected.retain(of_team);
        assert_eq!(seen, expected, "{asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn r39_an_admin_may_do_all_with_all_teams_sandboxes() {
    let world = World::new().await;
    let id = world
        .alpha()
        .create(CreateSandbox::default())
        .await
        .unwrap()
        .id;
    let admin = world.api();
    assert_eq!(admin.get(id).await.unwrap().team_id, ALPHA);
    admin.exec(id, ProcessSpec::shell("true")).await.unwrap();
    admin.destroy(id).await.unwrap();
    admin.destroy(id).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn r10_two_teams_keys_are_two_keys() {
    let world = World::still().await;
    let (alpha, beta) = (world.alpha(), world.beta());
    let first = alpha.create(keyed("k")).await.unwrap();
    let second = beta.create(keyed("k")).await.unwrap();
    assert_ne!(first.id, second.id);
    assert_eq!(alpha.create(keyed("k")).await.unwrap(), first);
    assert_eq!(beta.create(keyed("k")).await.unwrap(), second);
}

#[tokio::test(start_paused = true)]
async fn r15_an_operation_is_seen_by_its_team_and_its_administrator_alone() {
    let world = World::still().await;
    let (alpha, beta) = (world.alpha(), world.beta());
    let mate = world.api_of(Caller::team(actor("alpha's other key"), ALPHA));
    world.host.delay(Call::Create, SECOND);
    let begun = alpha.begin_create(CreateSandbox::default()).await.unwrap();
    let id = begun.operation.unwrap();
    let running = alpha.operation(id).await.unwrap();
    assert_eq!(running.status, OperationStatus::Running);
    assert_eq!(mate.operation(id).await.unwrap(), running);
    assert_eq!(world.api().operation(id).await.unwrap(), running);
    assert_eq!(beta.operation(id).await, Err(Error::OperationNotFound(id)));
}

#[tokio::test(start_paused = true)]
async fn r15_of_what_is_gone_whoever_acted_on_it_finds_the_outcome_and_no_other_team() {
    let world = World::still().await;
    let (alpha, beta) = (world.alpha(), world.beta());
    let mate = world.api_of(Caller::team(actor("alpha's other key"), ALPHA));
    let boot = HostError::Boot("no kernel".to_owned());
    world.host.fail(Call::Create, When::Before, boot);
    let begun = alpha.begin_create(CreateSandbox::default()).await.unwrap();
    let id = begun.operation.unwrap();
    world
        .within(SECOND * 5, "it failed", |world| {
            world.store.all_sandboxes().is_empty()
        })
        .await;
    let failed = alpha.operation(id).await.unwrap();
    assert!(matches!(failed.status, OperationStatus::Failed { .. }));
    assert_eq!(world.api().operation(id).await.unwrap(), failed);
    for other in [&beta, &mate] {
        assert_eq!(other.operation(id).await, Err(Error::OperationNotFound(id)));
    }
    // The engine's own part in it opens no door.
    let system = world.api_of(Caller::team(Actor::system("engine"), BETA));
    assert!(system.operation(id).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn r9_destroying_again_is_done_for_whoever_did_it_and_unknown_to_other_teams() {
    let world = World::new().await;
    let (alpha, beta) = (world.alpha(), world.beta());
    let id = alpha.create(CreateSandbox::default()).await.unwrap().id;
    let gone = Err(Error::SandboxNotFound(id));
    assert_eq!(beta.destroy(id).await, gone);
    assert_eq!(world.state(id), Some(SandboxState::Running));
    alpha.destroy(id).await.unwrap();
    alpha.destroy(id).await.unwrap();
    world.api().destroy(id).await.unwrap();
    assert_eq!(beta.destroy(id).await, gone);
    world.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn r40_the_audit_log_names_the_caller() {
    let world = World::new().await;
    let id = world
        .alpha()
        .create(CreateSandbox::default())
        .await
        .unwrap()
        .id;
    world.api().destroy(id).await.unwrap();
    let entries = world.store.audit_of(&id.to_string(), 10).await.unwrap();
    let actors: Vec<String> = entries.iter().map(|it| it.actor.to_string()).collect();
    assert_eq!(actors[0], "app:alpha's key");
    assert_eq!(actors.last().unwrap(), "app:embedded");
}
