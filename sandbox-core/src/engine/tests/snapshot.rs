//! Templates made of sandboxes.

use super::*;
use crate::{
    audit::AuditEntry,
    file::{FileData, WriteSpec},
    host::HostSandboxState,
    operation::OperationKind,
    process::ProcessSpec,
    sim::{Call, When},
    store::Store,
    template::{MINIMAL_TEMPLATE_ID, SnapshotRequest, TemplateKind, TemplateRecord, TemplateState},
};

pub(super) fn request(
    id: SandboxId,
    name: &str,
    kind: TemplateKind,
    resume: bool,
) -> SnapshotRequest {
    SnapshotRequest {
        sandbox_id: id,
        name: Some(name.to_owned()),
        resume,
        kind,
    }
}

impl World {
    pub(super) async fn snapshot(
        &self,
        id: SandboxId,
        name: &str,
        kind: TemplateKind,
        resume: bool,
    ) -> Result<TemplateRecord, Error> {
        self.api().snapshot(request(id, name, kind, resume)).await
    }

    /// All templates but `minimal`.
    pub(super) fn templates(&self) -> Vec<TemplateRecord> {
        let mut templates = self.store.all_templates();
        templates.retain(|template| template.id != MINIMAL_TEMPLATE_ID);
        templates
    }

    pub(super) async fn audit(&self, id: SandboxId) -> Vec<AuditEntry> {
        self.store.audit_of(&id.to_string(), 100).await.unwrap()
    }

    /// No template and no image but `minimal`.
    pub(super) fn assert_no_template_left(&self, context: &str) {
        assert_eq!(self.templates(), vec![], "{context}");
        assert_eq!(self.host.images(), vec![], "{context}");
    }

    fn assert_made(&self, template: &TemplateRecord) {
        assert_eq!(template.state, TemplateState::Ready);
        assert_eq!(template.operation, None);
        assert_eq!(self.templates(), vec![template.clone()]);
        let image = &self.host.images()[0];
        assert_eq!((image.id, image.kind), (template.id, template.kind));
        assert_eq!(template.size_bytes(), image.disk_bytes + image.memory_bytes);
    }
}

const BOTH: [bool; 2] = [false, true];

#[tokio::test(start_paused = true)]
async fn r14_a_snapshot_leaves_its_sandbox_paused_or_running_as_asked() {
    for kind in TemplateKind::ALL {
        for ran in BOTH {
            for resume in BOTH {
                let world = World::new().await;
                let id = world.create().await.unwrap().id;
                if !ran {
                    world.pause(id).await.unwrap();
                }
                let made = world.snapshot(id, "made", kind, resume).await.unwrap();
                world.assert_made(&made);
                assert_eq!((made.kind, made.origin), (kind, Some(id)));
                assert_eq!(made.memory_bytes > 0, kind == TemplateKind::Snapshot);
                world.assert_true(id, "made");
                // One that was paused stays so.
                let expected = if ran && resume {
                    SandboxState::Running
                } else {
                    SandboxState::Paused
                };
                assert_eq!(world.state(id), Some(expected));
                world.resume(id).await.unwrap();
                world.assert_true(id, "resumed");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_clone_of_a_snapshot_starts_warm_and_one_of_an_image_has_its_files() {
    for kind in TemplateKind::ALL {
        let world = World::new().await;
        let origin = world.create().await.unwrap();
        let api = world.api();
        let spec = WriteSpec {
            path: "/root/note".to_owned(),
            mode: None,
            create_parents: true,
        };
        let handle = api.open_write(origin.id, spec).await.unwrap();
        let data = bytes::Bytes::from_static(b"hello");
        api.write_chunk(origin.id, handle, 0, data).await.unwrap();
        api.commit_write(origin.id, handle, 5).await.unwrap();
        let server = ProcessSpec::shell("sleep 100000");
        api.start_process(origin.id, server, Duration::ZERO)
            .await
            .unwrap();
        let made = world
            .snapshot(origin.id, "made", kind, false)
            .await
            .unwrap();
        let clone = CreateSandbox {
            template: Some("made".to_owned()),
            ..CreateSandbox::default()
        };
        let clone = world.create_with(clone).await.unwrap();
        assert_eq!(clone.template_id, made.id);
        let read = api.read_file(clone.id, "/root/note", 0, 100).await.unwrap();
        let hello = FileData::Bytes(bytes::Bytes::from_static(b"hello"));
        assert_eq!(read.data, hello);
        let processes = api.processes(clone.id).await.unwrap().len();
        assert_eq!(
            processes == 1,
            kind == TemplateKind::Snapshot,
            "{processes}"
        );
        // Apart from its origin from then on.
        api.remove(clone.id, "/root/note", false).await.unwrap();
        world.resume(origin.id).await.unwrap();
        api.stat(origin.id, "/root/note").await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_taken_costs_nothing() {
    let world = World::new().await;
    let first = world.create().await.unwrap();
    let second = world.create().await.unwrap();
    world.host.delay(Call::Snapshot, SECOND * 5);
    let taken = async {
        world.sleep(SECOND).await;
        // While it is being made, too.
        let kind = TemplateKind::Snapshot;
        let refused = world.snapshot(second.id, "made", kind, false).await;
        assert_eq!(refused, Err(Error::TemplateExists("made".to_owned())));
        assert_eq!(world.stored(second.id), Some(second.clone()));
    };
    let made = world.snapshot(first.id, "made", TemplateKind::Image, true);
    let (made, ()) = tokio::join!(made, taken);
    world.assert_made(&made.unwrap());
    let refused = world
        .snapshot(second.id, "made", TemplateKind::Image, false)
        .await;
    assert_eq!(refused, Err(Error::TemplateExists("made".to_owned())));
    assert_eq!(world.stored(second.id), Some(second));
    assert_eq!(world.host.count(Call::Snapshot), 1);
}

#[tokio::test(start_paused = true)]
async fn two_snapshots_of_one_sandbox_are_not_made_at_once() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    world.host.delay(Call::Snapshot, SECOND);
    let kind = TemplateKind::Snapshot;
    let (first, second) = tokio::join!(
        world.snapshot(id, "one", kind, true),
        world.snapshot(id, "two", kind, true)
    );
    first.unwrap();
    match second {
        Err(Error::InvalidState { reason, .. }) => assert!(reason.contains("template"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.templates().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn trap_4_a_snapshot_that_fails_leaves_nothing_but_the_truth() {
    for kind in TemplateKind::ALL {
        for ran in BOTH {
            for when in [When::Before, When::During, When::After] {
                for error in [unavailable(), HostError::Internal("odd".to_owned())] {
                    for always in BOTH {
                        let world = World::new().await;
                        let id = world.create().await.unwrap().id;
                        if !ran {
                            world.pause(id).await.unwrap();
                        }
                        let context = format!("{kind:?} {ran} {when:?} {error} {always}");
                        if always {
                            world.host.fail_always(Call::Snapshot, when, error.clone());
                        } else {
                            world.host.fail(Call::Snapshot, when, error.clone());
                        }
                        let result = world.snapshot(id, "made", kind, true).await;
                        world.host.heal();
                        world.assert_true(id, &context);
                        let outcome = world.store.all_operations().pop().unwrap();
                        if error == unavailable() && !always {
                            let made = result.unwrap();
                            world.assert_made(&made);
                            let stands = world.state(id).unwrap();
                            assert_eq!(stands == SandboxState::Running, ran, "{context}");
                            assert_eq!(outcome.template_id, Some(made.id));
                            continue;
                        }
                        let error = result.unwrap_err();
                        assert_eq!(outcome.status, OperationStatus::Failed { error });
                        assert!(outcome.template_id.is_some(), "{context}");
                        world.assert_no_template_left(&context);
                        world.snapshot(id, "made", kind, true).await.unwrap();
                    }
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn trap_4_a_machine_that_dies_in_its_snapshot_is_stopped() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    world.host.delay(Call::Snapshot, SECOND * 2);
    let death = async {
        world.sleep(SECOND).await;
        world.host.end_machine(id, "the guest panicked");
    };
    let made = world.snapshot(id, "made", TemplateKind::Snapshot, true);
    let (result, ()) = tokio::join!(made, death);
    assert!(
        matches!(
            result,
            Err(Error::InvalidState {
                state: SandboxState::Stopped,
                ..
            })
        ),
        "{result:?}"
    );
    world.assert_true(id, "afterwards");
    world.assert_no_template_left("afterwards");
}

/// Writes that fail from the middle of the host's work on.
async fn with_failing_writes(
    world: &World,
    id: SandboxId,
    writes: u32,
    lost: bool,
) -> Result<TemplateRecord, Error> {
    world.host.delay(Call::Snapshot, Duration::from_millis(10));
    let fault = async {
        world.sleep(Duration::from_millis(5)).await;
        for _ in 0..writes {
            if lost {
                world.store.lose_next_reply();
            } else {
                world.store.fail_next_write();
            }
        }
    };
    let made = world.snapshot(id, "made", TemplateKind::Snapshot, true);
    tokio::join!(made, fault).0
}

#[tokio::test(start_paused = true)]
async fn trap_15_a_template_is_published_with_its_operations_success_or_not_at_all() {
    for lost in BOTH {
        for writes in [1, 3, 6, 7, 11, 40] {
            let world = World::new().await;
            let id = world.create().await.unwrap().id;
            let context = format!("lost {lost}, {writes} writes");
            let result = with_failing_writes(&world, id, writes, lost).await;
            if let Ok(made) = &result {
                assert!(lost || writes < 6, "{context}");
                world.store.heal();
                world.assert_made(made);
                world.assert_true(id, &context);
                continue;
            }
            // In the end nothing of it is left, and the operation says so.
            world.store.heal();
            world.sleep(SECOND * 40).await;
            world.assert_true(id, &context);
            world.assert_no_template_left(&context);
            let outcome = world.store.all_operations().pop().unwrap();
            assert_eq!(outcome.kind, OperationKind::Snapshot);
            assert!(
                matches!(outcome.status, OperationStatus::Failed { .. }),
                "{context}"
            );
            world
                .snapshot(id, "made", TemplateKind::Snapshot, true)
                .await
                .unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_at_the_mark_of_a_snapshot_only_delays_it() {
    for lost in BOTH {
        let world = World::still().await;
        let id = world.create().await.unwrap().id;
        if lost {
            world.store.lose_next_reply();
        } else {
            world.store.fail_next_write();
        }
        let made = world
            .snapshot(id, "made", TemplateKind::Snapshot, true)
            .await
            .unwrap();
        world.assert_made(&made);
        assert_eq!(world.host.count(Call::Snapshot), 1);
        world.assert_true(id, "made");
    }
}

#[tokio::test(start_paused = true)]
async fn files_that_the_host_does_not_free_at_once_are_freed_later() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    // It makes the image and does not say so, and then does not delete it either.
    world
        .host
        .fail_always(Call::Snapshot, When::After, unavailable());
    world
        .host
        .fail_always(Call::DeleteImage, When::Before, unavailable());
    let failed = world
        .snapshot(id, "made", TemplateKind::Snapshot, true)
        .await;
    assert!(matches!(failed, Err(Error::Unavailable(_))), "{failed:?}");
    assert_eq!(world.host.images().len(), 1);
    assert_eq!(world.templates()[0].state, TemplateState::Deleting);
    world.assert_true(id, "failed");
    world.host.heal();
    // The name is free all the while.
    world
        .snapshot(id, "made", TemplateKind::Snapshot, true)
        .await
        .unwrap();
    world
        .within(SECOND * 40, "the files are freed", |world| {
            world.host.images().len() == 1 && world.templates().len() == 1
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn destroying_at_every_moment_of_a_snapshot_leaves_nothing_half_made() {
    for kind in TemplateKind::ALL {
        for moment_ms in 0..30 {
            let world = World::new().await;
            let id = world.create().await.unwrap().id;
            world.host.delay(Call::Snapshot, Duration::from_millis(20));
            world.host.delay(Call::Destroy, Duration::from_millis(3));
            let destroy = async {
                world.sleep(Duration::from_millis(moment_ms)).await;
                world.destroy(id).await
            };
            let made = world.snapshot(id, "made", kind, true);
            let (made, destroyed) = tokio::join!(made, destroy);
            assert_eq!(destroyed, Ok(()));
            world.sleep(SECOND * 2).await;
            world.assert_nothing_left();
            let context = format!("{kind:?} {moment_ms} ms");
            if let Ok(made) = made {
                assert!(moment_ms >= 20, "{context}");
                world.assert_made(&made);
                world.api().delete_template("made").await.unwrap();
            }
            world.assert_no_template_left(&context);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_destroy_does_not_wait_for_a_snapshot_that_hangs() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    world.host.delay(Call::Snapshot, SECOND * 1000);
    let made = world.snapshot(id, "made", TemplateKind::Image, true);
    abandon(SECOND, made).await;
    let before = world.clock.now();
    world.destroy(id).await.unwrap();
    assert!((world.clock.now() - before).num_seconds() <= 10);
    world.sleep(SECOND * 2000).await;
    world.assert_nothing_left();
    world.assert_no_template_left("at last");
}

#[tokio::test(start_paused = true)]
async fn r15_a_snapshot_goes_on_when_its_caller_has_gone() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    world.host.delay(Call::Snapshot, SECOND * 300);
    let made = world.snapshot(id, "made", TemplateKind::Image, true);
    abandon(SECOND, made).await;
    let operation = world.stored(id).unwrap().operation.unwrap();
    world.sleep(SECOND * 301).await;
    let outcome = world.api().operation(operation.id).await.unwrap();
    assert_eq!(outcome.status, OperationStatus::Succeeded);
    let made = world.api().template("made").await.unwrap();
    assert_eq!(outcome.template_id, Some(made.id));
    world.assert_made(&made);
    assert_eq!(world.machine(id), Some(HostSandboxState::Running));
}

#[tokio::test(start_paused = true)]
async fn r15_a_snapshot_that_is_not_waited_for_is_followed_by_its_operation() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    world.host.delay(Call::Snapshot, SECOND * 3);
    let asked = request(id, "made", TemplateKind::Snapshot, false);
    let operation = world.api().begin_snapshot(asked).await.unwrap();
    let running = world.api().operation(operation).await.unwrap();
    assert_eq!(running.status, OperationStatus::Running);
    assert_eq!(running.sandbox_id, Some(id));
    assert!(running.template_id.is_some());
    let unseen = world.api().template("made").await;
    assert_eq!(unseen, Err(Error::TemplateNotFound("made".to_owned())));
    world.sleep(SECOND * 4).await;
    let done = world.api().operation(operation).await.unwrap();
    assert_eq!(done.status, OperationStatus::Succeeded);
    world.assert_made(&world.api().template("made").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn r40_a_snapshot_is_in_the_audit_log_of_both() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    let made = world
        .snapshot(id, "made", TemplateKind::Snapshot, true)
        .await
        .unwrap();
    let told = |entries: Vec<AuditEntry>| -> Vec<String> {
        entries
            .iter()
            .map(|entry| format!("{} {}", entry.action, entry.outcome))
            .collect()
    };
    assert_eq!(
        told(world.audit(id).await).split_off(2),
        ["sandbox.snapshot snapshotting", "sandbox.snapshot running"]
    );
    let entries = world.store.audit_of(&made.id.to_string(), 10).await;
    assert_eq!(told(entries.unwrap()), ["template.create ready"]);
}
