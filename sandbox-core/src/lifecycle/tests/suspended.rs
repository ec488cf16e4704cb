//! Pause, resume and snapshot.

use super::*;

fn running(timeout_sec: Option<u64>) -> SandboxRecord {
    written(&born(timeout_sec).record, &Change::CreateSucceeded, 0).record
}

#[test]
fn r13_a_pause_resume_or_snapshot_marks_the_record_paused_with_its_operation() {
    let paused = written(
        &running(None),
        &Change::PausedFound { reason: "x".into() },
        1,
    )
    .record;
    for (record, event, kind) in [
        (running(None), Event::BeginPause, OperationKind::Pause),
        (paused.clone(), Event::BeginResume, OperationKind::Resume),
        (running(None), Event::BeginSnapshot, OperationKind::Snapshot),
        (paused, Event::BeginSnapshot, OperationKind::Snapshot),
    ] {
        let write = written(&record, &change_for(event), 2);
        assert_eq!(write.record.state, SandboxState::Paused);
        let operation = write.record.operation.unwrap();
        assert_eq!((operation.id, operation.kind), (operation_id(4), kind));
        assert_eq!(write.operations[0].status, OperationStatus::Running);
        let (made, told) = (write.template, write.operations[0].template_id);
        assert_eq!(made.is_some(), event == Event::BeginSnapshot);
        assert_eq!(told.is_some(), event == Event::BeginSnapshot);
    }
}

#[test]
fn r18_an_images_sandboxes_get_the_disk_that_its_origin_had_or_what_the_content_needs() {
    let write = written(&running(None), &change_for(Event::BeginSnapshot), 5);
    let Some(TemplateChange::Insert(mut making)) = write.template.map(|write| write.change) else {
        panic!("no template begins");
    };
    making.kind = TemplateKind::Image;
    let own_mb = making.size.disk_size_mb;
    for (needed_mb, default_mb) in [(64, own_mb), (own_mb, own_mb), (own_mb + 8, own_mb + 8)] {
        let image = HostImage {
            id: making.id,
            kind: TemplateKind::Image,
            size: MachineSize {
                disk_size_mb: needed_mb,
                ..making.size
            },
            disk_bytes: 7,
            memory_bytes: 0,
            users: 0,
            deleting: false,
        };
        let TemplateChange::Update(made) = publish_template(&making, &image, stamp(8)).change
        else {
            panic!("it is not updated");
        };
        assert_eq!(made.size.disk_size_mb, default_mb);
        assert_eq!(made.size_bytes(), 7);
    }
}

#[test]
fn a_snapshots_template_begins_and_ends_in_the_sandboxs_own_writes() {
    let write = written(&running(None), &change_for(Event::BeginSnapshot), 5);
    let Some(TemplateChange::Insert(making)) = write.template.map(|write| write.change) else {
        panic!("no template begins");
    };
    assert_eq!((making.state, making.version), (TemplateState::Making, 1));
    assert_eq!((making.created_at, making.updated_at), (at(5), at(5)));
    assert_eq!(making.operation, write.record.operation);

    let image = HostImage {
        id: making.id,
        kind: TemplateKind::Snapshot,
        size: MachineSize::default(),
        disk_bytes: 7,
        memory_bytes: 9,
        users: 0,
        deleting: false,
    };
    let published = publish_template(&making, &image, stamp(8));
    let given_up = give_up_template(&making, &Error::Host("no".to_owned()), stamp(8));
    let hidden = abandon_template(&making, &Error::Host("no".to_owned()), stamp(8));
    let status = |failed: bool| match failed {
        true => OperationStatus::Failed {
            error: Error::Host("no".to_owned()),
        },
        false => OperationStatus::Succeeded,
    };
    for (template, failed) in [(published, false), (given_up, true), (hidden, true)] {
        // One that is abandoned later has had its end, with whatever ended the sandbox's operation.
        let own = template.operation.as_ref();
        assert!(own.is_none_or(|own| own.status == status(failed)));
        let change = Change::Ended {
            standing: Standing::Paused,
            status: status(failed),
            template: Some(Box::new(template.clone())),
        };
        let write = written(&write.record, &change, 8);
        let ended = &write.operations[0];
        assert_eq!(
            (ended.id, ended.template_id),
            (operation_id(4), Some(making.id))
        );
        assert_eq!(ended.status, status(failed));
        let written = write.template.unwrap();
        assert_eq!(written.operation, None, "the sandbox's write has it");
        assert_eq!(written.change, template.change);
        if let TemplateChange::Update(next) = &written.change {
            assert_eq!((next.version, &next.operation), (2, &None));
            let bytes = if failed { 0 } else { 16 };
            assert_eq!(next.size_bytes(), bytes);
            let state = if failed {
                TemplateState::Deleting
            } else {
                TemplateState::Ready
            };
            assert_eq!(next.state, state);
        }
    }
}

#[test]
fn r8_time_counts_while_it_runs_and_begins_anew_with_a_resume() {
    let record = running(Some(60));
    assert_eq!(record.expires_at, Some(at(60)));
    let pausing = written(&record, &change_for(Event::BeginPause), 10).record;
    let paused = written(&pausing, &ended(Standing::Paused, None), 20).record;
    assert_eq!(paused.expires_at, None);
    let resuming = written(&paused, &change_for(Event::BeginResume), 1000).record;
    assert_eq!(resuming.expires_at, None);
    let resumed = written(&resuming, &ended(Standing::Running, None), 1010).record;
    assert_eq!(resumed.expires_at, Some(at(1070)));
    assert_eq!(resumed.started_at, record.started_at);
    // Found paused, or running after all.
    let found = written(&record, &change_for(Event::PausedFound), 10).record;
    assert_eq!(found.expires_at, None);
    let runs = written(&found, &change_for(Event::MachineFound), 100).record;
    assert_eq!(runs.expires_at, Some(at(160)));
}

#[test]
fn r8_a_sandbox_is_not_saved_from_its_deadline_by_a_pause_or_snapshot_that_comes_too_late() {
    let record = running(Some(60));
    for event in [Event::BeginPause, Event::BeginSnapshot] {
        assert!(transition(&record, &change_for(event), stamp(59)).is_ok());
        let denied = transition(&record, &change_for(event), stamp(60)).unwrap_err();
        assert_eq!(denied.reason, "its lifetime has ended");
    }
}

#[test]
fn r8_a_pause_can_come_at_the_end_of_a_lifetime_that_is_to_end_so() {
    let mut record = running(Some(60));
    record.on_timeout = OnTimeout::Pause;
    let pausing = written(&record, &change_for(Event::BeginPause), 60).record;
    let paused = written(&pausing, &ended(Standing::Paused, None), 61).record;
    assert_eq!(
        (paused.state, paused.expires_at),
        (SandboxState::Paused, None)
    );
    for event in [Event::Use, Event::BeginSnapshot] {
        let denied = transition(&record, &change_for(event), stamp(60)).unwrap_err();
        assert_eq!(denied.reason, "its lifetime has ended");
    }
    // One that ends by itself is kept too.
    let stopped = written(&record, &change_for(Event::MachineEnded), 10).record;
    assert_eq!(stopped.expires_at, None);
    record.on_timeout = OnTimeout::Destroy;
    let stopped = written(&record, &change_for(Event::MachineEnded), 10).record;
    assert_eq!(stopped.expires_at, Some(at(60)));
}

#[test]
fn r37_a_lifetime_begins_anew_when_its_host_is_heard_again() {
    let missing = written(&running(Some(60)), &change_for(Event::HostSilent), 10).record;
    assert_eq!(missing.state, SandboxState::Missing);
    let found = written(&missing, &change_for(Event::MachineFound), 500).record;
    assert_eq!(found.state, SandboxState::Running);
    assert_eq!(found.expires_at, Some(at(560)));
}

#[test]
fn trap_4_an_operation_has_succeeded_only_where_its_machine_stands_as_it_was_to() {
    let error = || Error::Host("no".to_owned());
    for kind in OperationKind::ALL {
        for standing in [
            Standing::Running,
            Standing::Paused,
            Standing::Stopped {
                reason: "it ended".to_owned(),
            },
        ] {
            let succeeded = matches!(
                (kind, &standing),
                (OperationKind::Pause, Standing::Paused)
                    | (OperationKind::Resume, Standing::Running)
            );
            let status = standing.status_of(kind, error());
            assert_eq!(
                status == OperationStatus::Succeeded,
                succeeded,
                "{kind:?} {standing:?}"
            );
        }
    }
}

#[test]
fn destroying_cuts_a_pause_resume_or_snapshot_short() {
    let paused = written(&running(None), &change_for(Event::PausedFound), 1).record;
    for event in [Event::BeginResume, Event::BeginSnapshot] {
        let at_work = written(&paused, &change_for(event), 2).record;
        let destroy = Change::BeginDestroy {
            operation_id: operation_id(5),
            lease_until: at(60),
            reason: "because".to_owned(),
        };
        let write = written(&at_work, &destroy, 5);
        assert_eq!(write.record.generation, at_work.generation + 1);
        let ids: Vec<_> = write
            .operations
            .iter()
            .map(|operation| operation.id)
            .collect();
        assert_eq!(ids, [operation_id(4), operation_id(5)]);
        assert!(matches!(
            write.operations[0].status,
            OperationStatus::Failed { .. }
        ));
    }
}
