mod suspended;

use std::fmt::Write as _;

use chrono::TimeDelta;
use uuid::Uuid;

use super::*;
use crate::{
    audit::Actor,
    clock::Timestamp,
    error::Error,
    host::HostImage,
    id::{AuditId, HostId, OperationId, PLATFORM_TEAM_ID, SandboxId, TemplateId},
    name::TemplateName,
    operation::{Operation, OperationKind, OperationStatus},
    sandbox::{OnTimeout, SandboxRecord, SandboxState},
    size::MachineSize,
    store::{SandboxWrite, TemplateChange},
    template::{TemplateKind, TemplateRecord, TemplateState},
};

const OPERATIONS: [Option<OperationKind>; 7] = [
    None,
    Some(OperationKind::Create),
    Some(OperationKind::Destroy),
    Some(OperationKind::Pause),
    Some(OperationKind::Resume),
    Some(OperationKind::Snapshot),
    Some(OperationKind::Import),
];

fn every_case() -> impl Iterator<Item = (SandboxState, Option<OperationKind>, Event)> {
    SandboxState::ALL.into_iter().flat_map(|state| {
        OPERATIONS.into_iter().flat_map(move |operation| {
            Event::ALL
                .into_iter()
                .map(move |event| (state, operation, event))
        })
    })
}

#[test]
fn r7_the_transition_table_is_this() {
    let mut table = String::new();
    for event in Event::ALL {
        writeln!(table, "{event:?}").unwrap();
        for state in SandboxState::ALL {
            for operation in OPERATIONS {
                let operation_name = operation.map_or("-", OperationKind::as_str);
                writeln!(
                    table,
                    "  {:8} {operation_name:8} {}",
                    state.as_str(),
                    rule(state, operation, event)
                )
                .unwrap();
            }
        }
    }
    insta::assert_snapshot!("transition_table", table);
}

#[test]
fn r9_destroying_is_denied_nowhere() {
    for state in SandboxState::ALL {
        for operation in OPERATIONS {
            let expected = match operation {
                Some(OperationKind::Destroy) => Rule::Already("it is being destroyed"),
                _ => Rule::Become(state, Then::Begin(OperationKind::Destroy)),
            };
            assert_eq!(rule(state, operation, Event::BeginDestroy), expected);
        }
        let finished = rule(state, Some(OperationKind::Destroy), Event::DestroySucceeded);
        assert_eq!(finished, Rule::Remove);
    }
}

#[test]
fn r7_an_operation_in_flight_shields_the_record_from_reports_and_uses() {
    for (state, operation, event) in every_case() {
        let from_outside = matches!(
            event,
            Event::MachineEnded
                | Event::MachineFound
                | Event::PausedFound
                | Event::HostSilent
                | Event::Use
                | Event::BeginSnapshot
        );
        if from_outside && operation.is_some() {
            let rule = rule(state, operation, event);
            assert!(matches!(rule, Rule::Deny(_)), "{state:?} {event:?}: {rule}");
        }
    }
}

#[test]
fn trap_2_nothing_leads_back_to_pending_and_only_a_running_machine_to_running() {
    for (state, operation, event) in every_case() {
        if let Rule::Become(next, _) = rule(state, operation, event) {
            assert!(next == state || next != SandboxState::Pending);
            if next == SandboxState::Running && state != next {
                assert!(matches!(
                    event,
                    Event::CreateSucceeded | Event::MachineFound | Event::EndedRunning
                ));
            }
        }
    }
}

#[test]
fn every_event_is_legal_somewhere_and_every_reason_is_for_people() {
    for event in Event::ALL {
        let legal = every_case().any(|(state, operation, other)| {
            other == event
                && matches!(
                    rule(state, operation, event),
                    Rule::Become(..) | Rule::Remove
                )
        });
        assert!(legal, "{event:?}");
    }
    for (state, operation, event) in every_case() {
        if let Rule::Deny(why) | Rule::Already(why) = rule(state, operation, event) {
            assert!(why.len() > 5 && !why.ends_with('.'), "{why:?}");
        }
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_timestamp(1_700_000_000 + second, 0).unwrap()
}

fn stamp(second: i64) -> Stamp {
    Stamp {
        actor: Actor::app(),
        at: at(second),
        audit_id: AuditId::from_uuid(Uuid::from_u128(9)),
    }
}

fn operation_id(number: u128) -> OperationId {
    OperationId::from_uuid(Uuid::from_u128(number))
}

fn born(timeout_sec: Option<u64>) -> SandboxWrite {
    let new = NewSandbox {
        template: TemplateName::default(),
        template_id: crate::template::MINIMAL_TEMPLATE_ID,
        size: MachineSize::default(),
        timeout_sec,
        on_timeout: OnTimeout::Destroy,
        metadata: [("a".to_owned(), "b".to_owned())].into(),
        env: [("C".to_owned(), "d".to_owned())].into(),
        idempotency_key: Some("key".to_owned()),
        build_id: None,
    };
    birth(
        new,
        SandboxId::from_uuid(Uuid::from_u128(1)),
        PLATFORM_TEAM_ID,
        HostId::from_uuid(Uuid::from_u128(2)),
        operation_id(3),
        at(30),
        stamp(0),
    )
}

/// A template that is to be made of the sandbox that is born.
fn unmade() -> TemplateRecord {
    let new = NewTemplate {
        id: TemplateId::from_uuid(Uuid::from_u128(6)),
        team_id: PLATFORM_TEAM_ID,
        name: "made".parse().unwrap(),
        kind: TemplateKind::Snapshot,
        size: MachineSize::default(),
        origin: Some(SandboxId::from_uuid(Uuid::from_u128(1))),
        layer: None,
        host_id: HostId::from_uuid(Uuid::from_u128(2)),
    };
    let operation = Operation {
        id: operation_id(4),
        kind: OperationKind::Snapshot,
        started_at: at(0),
        lease_until: at(0),
    };
    template_birth(new, operation, at(0))
}

fn ended(standing: Standing, error: Option<Error>) -> Change {
    Change::Ended {
        standing,
        status: error.map_or(OperationStatus::Succeeded, |error| {
            OperationStatus::Failed { error }
        }),
        template: None,
    }
}

/// A change that has the data of an event.
fn change_for(event: Event) -> Change {
    let reason = "because".to_owned();
    let error = Error::Host("no".to_owned());
    match event {
        Event::CreateSucceeded => Change::CreateSucceeded,
        Event::CreateFailed => Change::CreateFailed {
            error,
            cleanup: "nor that".to_owned(),
        },
        Event::CreateUndone => Change::CreateUndone { error },
        Event::BeginDestroy => Change::BeginDestroy {
            operation_id: operation_id(4),
            lease_until: at(60),
            reason,
        },
        Event::BeginPause => Change::BeginPause {
            operation_id: operation_id(4),
            lease_until: at(60),
            reason,
        },
        Event::BeginResume => Change::BeginResume {
            operation_id: operation_id(4),
            lease_until: at(60),
        },
        Event::BeginSnapshot => Change::BeginSnapshot {
            operation_id: operation_id(4),
            lease_until: at(60),
            template: Box::new(unmade()),
        },
        Event::EndedRunning => ended(Standing::Running, Some(error)),
        Event::EndedPaused => ended(Standing::Paused, None),
        Event::EndedStopped => ended(Standing::Stopped { reason }, Some(error)),
        Event::EndedMissing => ended(Standing::Unknown { reason }, Some(error)),
        Event::PausedFound => Change::PausedFound { reason },
        Event::DestroySucceeded => Change::DestroySucceeded,
        Event::MachineEnded => Change::MachineEnded { reason },
        Event::MachineFound => Change::MachineFound { reason },
        Event::HostSilent => Change::HostSilent { reason },
        Event::ExtendLease => Change::ExtendLease {
            lease_until: at(90),
            generation_min: 0,
        },
        Event::Use => Change::Use,
    }
}

fn written(record: &SandboxRecord, change: &Change, second: i64) -> SandboxWrite {
    match transition(record, change, stamp(second)).unwrap() {
        Transition::Write(write) => *write,
        other => panic!("{other:?}"),
    }
}

#[test]
fn r7_transition_does_what_the_table_says_in_every_case() {
    for (state, kind, event) in every_case() {
        let mut record = born(None).record;
        record.state = state;
        record.version = 41;
        record.operation = kind.map(|kind| Operation {
            id: operation_id(3),
            kind,
            started_at: at(0),
            lease_until: at(30),
        });
        let change = change_for(event);
        assert_eq!(change.event(), event);
        let got = transition(&record, &change, stamp(5));
        match (rule(state, kind, event), got) {
            (Rule::Deny(reason), Err(denied)) => {
                assert_eq!((denied.reason, denied.state), (reason, state));
            }
            (Rule::Already(reason), Ok(Transition::Already(got))) => assert_eq!(got, reason),
            (Rule::Remove, Ok(Transition::Remove(removal))) => {
                let Removal { operation, audit } = *removal;
                let operation = operation.unwrap();
                assert_eq!(operation.id, operation_id(3));
                assert_eq!(operation.finished_at, Some(at(5)));
                assert_ne!(operation.status, OperationStatus::Running);
                assert_eq!(audit.outcome, "removed");
            }
            (Rule::Become(next, then), Ok(Transition::Write(write))) => {
                assert_eq!(write.record.state, next);
                assert_eq!(write.record.version, 42);
                assert_eq!(write.record.updated_at, at(5));
                let audited = !matches!(event, Event::ExtendLease | Event::Use);
                assert_eq!(write.audit.is_some(), audited);
                if let Some(audit) = &write.audit {
                    assert_eq!(audit.resource, record.id.to_string());
                    assert_eq!(audit.reason, write.record.reason);
                }
                match then {
                    Then::Keep => {
                        assert_eq!(write.record.operation.is_some(), record.operation.is_some());
                        assert!(write.operations.is_empty());
                    }
                    Then::End => {
                        assert_eq!(write.record.operation, None);
                        assert_eq!(write.operations[0].finished_at, Some(at(5)));
                    }
                    Then::Begin(kind) => {
                        assert_eq!(write.record.operation.unwrap().kind, kind);
                        let begun = write.operations.last().unwrap();
                        assert_eq!(begun.status, OperationStatus::Running);
                    }
                }
            }
            (rule, got) => panic!("{state:?} {kind:?} {event:?}: {rule} but {got:?}"),
        }
    }
}

#[test]
fn a_sandbox_is_born_pending_with_its_create_in_flight() {
    let write = born(Some(60));
    assert_eq!(write.record.state, SandboxState::Pending);
    assert_eq!((write.record.version, write.record.generation), (1, 1));
    assert_eq!(write.record.expires_at, None);
    let operation = write.record.operation.unwrap();
    assert_eq!(operation.kind, OperationKind::Create);
    assert_eq!(write.operations[0].id, operation.id);
    assert_eq!(write.audit.unwrap().outcome, "pending");
}

#[test]
fn r8_the_deadline_begins_when_the_machine_runs_and_moves_with_use() {
    let running = written(&born(Some(60)).record, &Change::CreateSucceeded, 10).record;
    assert_eq!(running.started_at, Some(at(10)));
    assert_eq!(running.expires_at, Some(at(70)));
    let used = written(&running, &Change::Use, 50).record;
    assert_eq!(used.expires_at, Some(at(110)));
    assert_eq!(used.reason, running.reason);
}

#[test]
fn r8_a_use_at_the_deadline_is_too_late() {
    let running = written(&born(Some(60)).record, &Change::CreateSucceeded, 10).record;
    let denied = transition(&running, &Change::Use, stamp(70)).unwrap_err();
    assert_eq!(denied.reason, "its lifetime has ended");
    assert!(transition(&running, &Change::Use, stamp(69)).is_ok());
}

#[test]
fn r8_a_lifetime_beyond_the_calendar_is_no_bound() {
    for timeout_sec in [u64::MAX, u64::MAX / 1000, 10_u64.pow(13)] {
        let record = born(Some(timeout_sec)).record;
        let running = written(&record, &Change::CreateSucceeded, 10).record;
        assert_eq!(running.expires_at, None);
    }
}

#[test]
fn destroying_during_create_cuts_the_create_short_and_raises_the_generation() {
    let record = born(None).record;
    let write = written(&record, &change_for(Event::BeginDestroy), 5);
    assert_eq!(write.record.generation, 2);
    assert_eq!(write.operations.len(), 2);
    assert_eq!(write.operations[0].kind, OperationKind::Create);
    assert!(matches!(
        write.operations[0].status,
        OperationStatus::Failed {
            error: Error::InvalidState { .. }
        }
    ));
    assert_eq!(write.operations[1].id, operation_id(4));
    assert_eq!(write.audit.unwrap().outcome, "destroying");
}

#[test]
fn a_lease_moves_without_a_word_in_the_audit_log_and_can_raise_the_generation() {
    let record = born(None).record;
    let lease_until = at(0) + TimeDelta::seconds(77);
    let change = Change::ExtendLease {
        lease_until,
        generation_min: 9,
    };
    let write = written(&record, &change, 5);
    assert_eq!(write.record.operation.unwrap().lease_until, lease_until);
    assert_eq!(write.record.generation, 9);
    assert_eq!(write.record.reason, record.reason);
    assert_eq!(write.audit, None);
}

#[test]
fn r10_a_request_like_the_first_is_told_from_another() {
    let record = born(Some(60)).record;
    let new = NewSandbox {
        template: record.template.clone(),
        template_id: record.template_id,
        size: record.size,
        timeout_sec: record.timeout_sec,
        on_timeout: record.on_timeout,
        metadata: record.metadata.clone(),
        env: record.env.clone(),
        idempotency_key: None,
        build_id: None,
    };
    assert!(new.made(&record));
    let mut others = vec![new; 6];
    others[0].template = "other".parse().unwrap();
    others[1].size.vcpus += 1;
    others[2].timeout_sec = None;
    others[3].metadata.clear();
    others[4].env.insert("X".to_owned(), String::new());
    others[5].on_timeout = OnTimeout::Pause;
    assert!(others.iter().all(|other| !other.made(&record)));
}
