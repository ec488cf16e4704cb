//! What becomes of pauses, resumes and snapshots when the platform dies in them, or the reconciler
//! looks in the middle.

use super::*;
use crate::{
    host::HostSandboxState,
    operation::OperationKind,
    sim::{Call, When, Window},
    template::TemplateKind,
};

const SHARED: EngineConfig = EngineConfig {
    sole_owner: false,
    ..EngineConfig::DEFAULT
};

#[tokio::test(start_paused = true)]
async fn r13_the_reconciler_leaves_a_sandbox_alone_in_the_middle_of_the_flatten_window() {
    for kind in TemplateKind::ALL {
        for window in [Window::Absent, Window::Paused] {
            for resume in [true, false] {
                let world = World::new().await;
                let id = world.create().await.unwrap().id;
                world.host.show_at_work(window);
                world.host.delay(Call::Snapshot, SECOND * 100);
                let look = async {
                    for _ in 0..9 {
                        world.sleep(SECOND * 10).await;
                        // The host has it out of its live map: by this report it does not run.
                        assert_ne!(world.machine(id), Some(HostSandboxState::Running));
                        let before = world.audit(id).await;
                        let round = world.engine.inner.round(false).await.unwrap();
                        assert_eq!(round.actions, 0, "{window:?}");
                        let record = world.stored(id).unwrap();
                        assert_eq!(world.audit(id).await, before);
                        assert_eq!(record.state, SandboxState::Paused);
                        assert_eq!(record.operation.unwrap().kind, OperationKind::Snapshot);
                    }
                };
                let (made, ()) = tokio::join!(world.snapshot(id, "made", kind, resume), look);
                made.unwrap();
                world.assert_true(id, "afterwards");
                let expected = match resume {
                    true => SandboxState::Running,
                    false => SandboxState::Paused,
                };
                assert_eq!(world.state(id), Some(expected));
                for entry in world.audit(id).await {
                    assert_ne!(entry.outcome, "stopped", "{entry:?}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn r13_nor_does_the_reconciler_of_another_engine_touch_it() {
    let world = World::with(SHARED).await;
    let other = world.another(SHARED).await;
    let id = world.create().await.unwrap().id;
    world.host.show_at_work(Window::Absent);
    world.host.delay(Call::Snapshot, SECOND * 100);
    let look = async {
        for _ in 0..90 {
            world.sleep(SECOND).await;
            other.inner.round(false).await.unwrap();
            assert_eq!(world.state(id), Some(SandboxState::Paused));
        }
    };
    let made = world.snapshot(id, "made", TemplateKind::Image, true);
    let (made, ()) = tokio::join!(made, look);
    made.unwrap();
    assert_eq!(world.state(id), Some(SandboxState::Running));
}

/// What can be begun with a running sandbox, or with a paused one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Pause,
    Resume,
    Snapshot { resume: bool, kind: TemplateKind },
}

const DOINGS: [Doing; 5] = [
    Doing::Pause,
    Doing::Resume,
    Doing::Snapshot {
        resume: false,
        kind: TemplateKind::Snapshot,
    },
    Doing::Snapshot {
        resume: true,
        kind: TemplateKind::Snapshot,
    },
    Doing::Snapshot {
        resume: true,
        kind: TemplateKind::Image,
    },
];

async fn done(world: &World, id: SandboxId, doing: Doing) -> Result<(), Error> {
    match doing {
        Doing::Pause => world.pause(id).await.map(drop),
        Doing::Resume => world.resume(id).await.map(drop),
        Doing::Snapshot { resume, kind } => {
            world.snapshot(id, "made", kind, resume).await.map(drop)
        }
    }
}

impl World {
    async fn prepared(&self, doing: Doing) -> SandboxId {
        let id = self.create().await.unwrap().id;
        if doing == Doing::Resume {
            self.pause(id).await.unwrap();
        }
        for call in [Call::Pause, Call::Resume, Call::Snapshot] {
            self.host.delay(call, Duration::from_millis(10));
        }
        id
    }

    /// What holds once a crash in the middle of this has been settled.
    async fn assert_settled_after(&self, id: SandboxId, doing: Doing, context: &str) {
        self.assert_true(id, context);
        assert_ne!(self.state(id), Some(SandboxState::Stopped), "{context}");
        let outcomes = self.store.all_operations();
        let outcome = &outcomes.last().unwrap();
        let made =
            outcome.kind == OperationKind::Snapshot && outcome.status == OperationStatus::Succeeded;
        if made {
            let templates = self.templates();
            assert_eq!(templates.len(), 1, "{context}");
            assert_eq!(self.host.images()[0].id, templates[0].id, "{context}");
            self.api().delete_template("made").await.unwrap();
        }
        self.assert_no_template_left(context);
        // It is usable, and so is the name.
        self.resume(id).await.unwrap();
        done(
            self,
            id,
            if doing == Doing::Resume {
                Doing::Pause
            } else {
                doing
            },
        )
        .await
        .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn trap_3_a_crash_of_the_platform_at_every_moment_is_settled_by_what_the_host_shows() {
    for doing in DOINGS {
        for host_dies in [false, true] {
            for moment_ms in 0..14 {
                let mut world = World::new().await;
                let id = world.prepared(doing).await;
                let moment = Duration::from_millis(moment_ms);
                let _ = tokio::time::timeout(moment, done(&world, id, doing)).await;
                world.engine.crash();
                if host_dies {
                    world.host.restart();
                }
                world.engine = world.another(world.config).await;
                world.host.heal();
                world.sleep(SECOND * 2).await;
                let context = format!("{doing:?}, host dies {host_dies}, {moment_ms} ms");
                world.assert_settled_after(id, doing, &context).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn among_several_engines_a_dead_ones_operation_is_settled_when_its_lease_is_over() {
    for doing in DOINGS {
        let world = World::with(SHARED).await;
        let mut other = World {
            clock: world.clock.clone(),
            store: world.store.clone(),
            host: world.host.clone(),
            engine: world.another(SHARED).await,
            config: SHARED,
        };
        let id = world.prepared(doing).await;
        let moment = Duration::from_millis(5);
        abandon(moment, done(&world, id, doing)).await;
        world.engine.crash();
        world.host.restart();
        let operation = world.stored(id).unwrap().operation.unwrap();
        while world.clock.now() < operation.lease_until {
            let record = world.stored(id).unwrap();
            assert_eq!(record.operation.as_ref(), Some(&operation), "{doing:?}");
            assert_eq!(record.state, SandboxState::Paused, "{doing:?}");
            world.sleep(Duration::from_millis(500)).await;
        }
        world.sleep(SECOND * 2).await;
        other.config = SHARED;
        other
            .assert_settled_after(id, doing, &format!("{doing:?}"))
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn trap_5_what_a_host_pauses_by_itself_is_kept_and_can_be_resumed() {
    let world = World::new().await;
    let id = world.create_with(lasting(60)).await.unwrap().id;
    // Nobody hears of it for longer than the sandbox was to live.
    world
        .host
        .fail_always(Call::List, When::Before, unavailable());
    world.host.pause_machine(id);
    world.sleep(SECOND * 100).await;
    world.host.heal();
    world
        .within(SECOND * 5, "it is paused", |world| {
            world.state(id) == Some(SandboxState::Paused)
        })
        .await;
    world.sleep(SECOND * 1000).await;
    assert_eq!(world.resume(id).await.unwrap().state, SandboxState::Running);
    assert_eq!(world.machine(id), Some(HostSandboxState::Running));
}

#[tokio::test(start_paused = true)]
async fn trap_5_a_paused_sandbox_survives_restarts_of_everything() {
    let mut world = World::new().await;
    let id = world.create().await.unwrap().id;
    let paused = world.pause(id).await.unwrap();
    for _ in 0..3 {
        world.crash().await;
        world.sleep(SECOND * 100).await;
        assert_eq!(world.stored(id), Some(paused.clone()));
    }
    world.resume(id).await.unwrap();
    world.assert_true(id, "resumed");
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_runs_though_its_record_says_paused_runs() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    world.pause(id).await.unwrap();
    let generation = world.stored(id).unwrap().generation;
    world.host.put_machine(id, generation);
    world
        .within(SECOND, "it runs", |world| {
            world.state(id) == Some(SandboxState::Running)
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_was_paused_and_is_lost_is_called_stopped_with_the_reason() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    world.pause(id).await.unwrap();
    world.host.lose_machine(id);
    world
        .within(SECOND, "it is stopped", |world| {
            world.state(id) == Some(SandboxState::Stopped)
        })
        .await;
    assert_eq!(
        world.stored(id).unwrap().reason,
        "its host no longer holds its machine"
    );
    world.destroy(id).await.unwrap();
    world.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn r35_an_image_that_no_template_names_is_deleted_after_its_grace() {
    let world = World::new().await;
    world
        .host
        .put_image(crate::id::TemplateId::from_uuid(uuid::Uuid::from_u128(77)));
    world.sleep(SECOND * 59).await;
    assert_eq!(world.host.images().len(), 1);
    world
        .within(SECOND * 3, "it is deleted", |world| {
            world.host.images().is_empty()
        })
        .await;
}
