use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{
    id::{HostId, OperationId, PLATFORM_TEAM_ID},
    operation::Operation,
    size::MachineSize,
};

mod check;
mod heard;
mod table;

const GRACE: Duration = Duration::from_secs(60);

fn at(second: i64) -> Timestamp {
    Timestamp::from_timestamp(1_700_000_000 + second, 0).unwrap()
}

fn host(number: u128) -> HostId {
    HostId::from_uuid(Uuid::from_u128(number))
}

fn sandbox(number: u128) -> SandboxId {
    SandboxId::from_uuid(Uuid::from_u128(number))
}

/// Now is 100; leases run out at 100 or 101.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Nothing,
    Live(OperationKind),
    Lapsed(OperationKind),
}

const DOINGS: [Doing; 11] = [
    Doing::Nothing,
    Doing::Live(OperationKind::Create),
    Doing::Lapsed(OperationKind::Create),
    Doing::Live(OperationKind::Destroy),
    Doing::Lapsed(OperationKind::Destroy),
    Doing::Live(OperationKind::Pause),
    Doing::Lapsed(OperationKind::Pause),
    Doing::Live(OperationKind::Resume),
    Doing::Lapsed(OperationKind::Resume),
    Doing::Live(OperationKind::Snapshot),
    Doing::Lapsed(OperationKind::Snapshot),
];

fn record(number: u128, state: SandboxState, doing: Doing, expires: Option<i64>) -> SandboxRecord {
    let operation = |kind, lease| Operation {
        id: OperationId::from_uuid(Uuid::from_u128(7)),
        kind,
        started_at: at(0),
        lease_until: at(lease),
    };
    SandboxRecord {
        id: sandbox(number),
        team_id: PLATFORM_TEAM_ID,
        state,
        reason: String::new(),
        operation: match doing {
            Doing::Nothing => None,
            Doing::Live(kind) => Some(operation(kind, 101)),
            Doing::Lapsed(kind) => Some(operation(kind, 100)),
        },
        version: 41,
        generation: 2,
        template: "minimal".parse().unwrap(),
        template_id: crate::template::MINIMAL_TEMPLATE_ID,
        size: MachineSize::default(),
        timeout_sec: None,
        on_timeout: OnTimeout::Destroy,
        metadata: BTreeMap::new(),
        env: BTreeMap::new(),
        host_id: Some(host(1)),
        idempotency_key: None,
        build_id: None,
        created_at: at(0),
        started_at: None,
        expires_at: expires.map(at),
        updated_at: at(0),
    }
}

fn machine(number: u128, generation: u64, state: HostSandboxState) -> HostSandbox {
    HostSandbox {
        id: sandbox(number),
        generation,
        state,
        at_work: false,
    }
}

fn at_work(state: HostSandboxState) -> HostSandbox {
    HostSandbox {
        at_work: true,
        ..machine(1, 2, state)
    }
}

fn views() -> [(&'static str, Option<HostSandbox>); 9] {
    let ended = HostSandboxState::Stopped {
        reason: "the guest powered off".to_owned(),
    };
    [
        ("absent", None),
        ("creating", Some(machine(1, 2, HostSandboxState::Creating))),
        ("running", Some(machine(1, 2, HostSandboxState::Running))),
        ("paused", Some(machine(1, 2, HostSandboxState::Paused))),
        ("running…", Some(at_work(HostSandboxState::Running))),
        ("paused…", Some(at_work(HostSandboxState::Paused))),
        ("ended", Some(machine(1, 2, ended))),
        ("older", Some(machine(1, 1, HostSandboxState::Running))),
        ("newer", Some(machine(1, 3, HostSandboxState::Running))),
    ]
}

fn report(sandboxes: Vec<HostSandbox>) -> HostReport {
    HostReport {
        host_id: host(1),
        epoch: 1,
        sequence: 1,
        sandboxes,
        images: Vec::new(),
    }
}

/// The plan at 100, which breaks no rule.
fn planned(records: &[SandboxRecord], machines: Vec<HostSandbox>) -> Vec<Action> {
    planned_on(records, Heard::Report(&report(machines)))
}

fn planned_on(records: &[SandboxRecord], heard: Heard<'_>) -> Vec<Action> {
    let unknown = match heard {
        Heard::Report(report) => note_unknown(&BTreeMap::new(), records, report, at(100)),
        Heard::Stale | Heard::Silent { .. } => BTreeMap::new(),
    };
    let view = HostView {
        host_id: host(1),
        heard,
        unknown_since: &unknown,
        unknown_images_since: &BTreeMap::new(),
        unknown_grace: GRACE,
        layer_retention: Duration::from_secs(7 * 24 * 3600),
    };
    let actions = plan(
        Records {
            sandboxes: records,
            ..Records::default()
        },
        &view,
        at(100),
    );
    if records.iter().all(may_be) {
        let breaches = check(
            Records {
                sandboxes: records,
                ..Records::default()
            },
            &view,
            at(100),
            &actions,
        );
        assert_eq!(breaches, vec![], "{actions:?}");
    }
    actions
}

/// Only a pending record is ever being created, and nothing is ever imported.
fn may_be(record: &SandboxRecord) -> bool {
    let created = record
        .operation
        .as_ref()
        .is_some_and(|operation| operation.kind == OperationKind::Create);
    !created || record.state == SandboxState::Pending
}

#[test]
fn trap_1_a_machine_that_starts_between_the_two_reads_is_left_alone() {
    let record = record(
        1,
        SandboxState::Pending,
        Doing::Live(OperationKind::Create),
        None,
    );
    for (_, machine) in views() {
        let actions = planned(std::slice::from_ref(&record), machine.into_iter().collect());
        assert_eq!(actions, vec![]);
    }
}

#[test]
fn r13_a_sandbox_that_is_out_of_the_live_map_during_its_operation_is_left_alone() {
    for kind in [
        OperationKind::Pause,
        OperationKind::Resume,
        OperationKind::Snapshot,
    ] {
        let record = record(1, SandboxState::Paused, Doing::Live(kind), Some(1));
        for (_, machine) in views() {
            let actions = planned(std::slice::from_ref(&record), machine.into_iter().collect());
            assert_eq!(actions, vec![]);
        }
    }
}

#[test]
fn trap_3_a_pause_whose_owner_died_ends_as_its_machine_stands() {
    let record = record(
        1,
        SandboxState::Paused,
        Doing::Lapsed(OperationKind::Pause),
        None,
    );
    for (state, standing) in [
        (HostSandboxState::Running, Standing::Running),
        (HostSandboxState::Paused, Standing::Paused),
    ] {
        let actions = planned(std::slice::from_ref(&record), vec![machine(1, 2, state)]);
        let expected = Action::SettleOperation {
            id: record.id,
            version: record.version,
            standing,
        };
        assert_eq!(actions, vec![expected]);
    }
}

#[test]
fn trap_3_nothing_is_concluded_from_what_a_host_shows_while_it_is_at_work() {
    let kinds = [
        OperationKind::Pause,
        OperationKind::Resume,
        OperationKind::Snapshot,
    ];
    let lapsed = kinds.map(|kind| (SandboxState::Paused, Doing::Lapsed(kind)));
    let idle = [
        (SandboxState::Running, Doing::Nothing),
        (SandboxState::Paused, Doing::Nothing),
        (SandboxState::Stopped, Doing::Nothing),
        (SandboxState::Missing, Doing::Nothing),
    ];
    for (state, doing) in lapsed.into_iter().chain(idle) {
        let record = record(1, state, doing, None);
        for shown in [HostSandboxState::Running, HostSandboxState::Paused] {
            let report = report(vec![at_work(shown.clone())]);
            assert_eq!(standing(&record, &report), None);
            let actions = planned(std::slice::from_ref(&record), report.sandboxes);
            assert_eq!(actions, vec![], "{state:?}, {doing:?}, shown {shown:?}");
        }
    }
    // What ends the machine waits for nobody.
    let doomed = record(
        1,
        SandboxState::Paused,
        Doing::Lapsed(OperationKind::Destroy),
        None,
    );
    let actions = planned(&[doomed], vec![at_work(HostSandboxState::Paused)]);
    assert!(matches!(actions[..], [Action::RedoDestroy { .. }]));
}

#[test]
fn trap_5_what_a_host_paused_by_itself_is_paused_whatever_the_record_said() {
    for state in [
        SandboxState::Running,
        SandboxState::Stopped,
        SandboxState::Missing,
    ] {
        for expires in [None, Some(1)] {
            let record = record(1, state, Doing::Nothing, expires);
            let paused = machine(1, 2, HostSandboxState::Paused);
            let actions = planned(std::slice::from_ref(&record), vec![paused]);
            let (id, version) = (record.id, record.version);
            assert_eq!(actions, vec![Action::MarkPaused { id, version }]);
        }
    }
}

#[test]
fn trap_11_an_unknown_machine_is_destroyed_after_its_grace_and_not_before() {
    let lost = report(vec![machine(5, 3, HostSandboxState::Running)]);
    let mut unknown = BTreeMap::new();
    for (now, expected) in [(0, 0), (30, 0), (59, 0), (60, 1), (61, 1)] {
        unknown = note_unknown(&unknown, &[], &lost, at(now));
        let view = HostView {
            host_id: lost.host_id,
            heard: Heard::Report(&lost),
            unknown_since: &unknown,
            unknown_images_since: &BTreeMap::new(),
            unknown_grace: GRACE,
            layer_retention: Duration::from_secs(7 * 24 * 3600),
        };
        let actions = plan(Records::default(), &view, at(now));
        assert_eq!(actions.len(), expected, "at {now}");
        if let Some(action) = actions.first() {
            let expected = Action::DestroyUnknown {
                id: sandbox(5),
                generation: 3,
            };
            assert_eq!(*action, expected);
        }
    }
    let known = [record(5, SandboxState::Running, Doing::Nothing, None)];
    unknown = note_unknown(&unknown, &known, &lost, at(62));
    assert!(unknown.is_empty(), "a known machine has no past");
    unknown = note_unknown(&unknown, &[], &lost, at(63));
    assert_eq!(unknown.get(&sandbox(5)), Some(&at(63)));
}

#[test]
fn a_clock_that_goes_backwards_destroys_nothing_unknown() {
    let report = report(vec![machine(5, 3, HostSandboxState::Running)]);
    let view = HostView {
        host_id: report.host_id,
        heard: Heard::Report(&report),
        unknown_since: &[(sandbox(5), at(100))].into(),
        unknown_images_since: &BTreeMap::new(),
        unknown_grace: GRACE,
        layer_retention: Duration::from_secs(7 * 24 * 3600),
    };
    assert_eq!(plan(Records::default(), &view, at(10)), vec![]);
}

#[test]
fn records_on_another_host_are_left_alone() {
    let mut elsewhere = record(1, SandboxState::Running, Doing::Nothing, Some(1));
    elsewhere.host_id = Some(host(2));
    assert_eq!(planned(&[elsewhere], vec![]), vec![]);
}

fn any_state() -> impl Strategy<Value = SandboxState> {
    prop::sample::select(SandboxState::ALL.to_vec())
}

fn any_machine() -> impl Strategy<Value = HostSandbox> {
    let state = prop_oneof![
        Just(HostSandboxState::Creating),
        Just(HostSandboxState::Running),
        Just(HostSandboxState::Paused),
        Just(HostSandboxState::Stopped {
            reason: "it ended".to_owned()
        }),
    ];
    (0..6u128, 0..5u64, state, any::<bool>()).prop_map(|(number, generation, state, at_work)| {
        HostSandbox {
            at_work,
            ..machine(number, generation, state)
        }
    })
}

proptest! {
    #[test]
    fn r34_plans_are_total_single_and_leave_live_leases_alone(
        records in prop::collection::vec(
            (any_state(), prop::sample::select(DOINGS.to_vec()), prop::option::of(0..200i64)),
            0..6,
        ),
        machines in prop::collection::vec(any_machine(), 0..8),
    ) {
        let records: Vec<SandboxRecord> = (0..)
            .zip(records)
            .map(|(number, (state, doing, expires))| record(number, state, doing, expires))
            .collect();
        let actions = planned(&records, machines);
        let mut ids: Vec<About> = actions.iter().map(Action::about).collect();
        ids.dedup();
        prop_assert_eq!(ids.len(), actions.len());
        for action in &actions {
            let record = records
                .iter()
                .find(|record| About::Sandbox(record.id) == action.about());
            prop_assert_eq!(record.map(|record| record.version), action.version());
            let live = record
                .and_then(|record| record.operation.as_ref())
                .is_some_and(|operation| operation.lease_until > at(100));
            prop_assert!(!live);
        }
    }
}
