use std::{collections::BTreeMap, time::Duration};

use uuid::Uuid;

use super::*;
use crate::{
    host::{HostImage, HostReport},
    id::{HostId, OperationId, PLATFORM_TEAM_ID, SandboxId},
    operation::{Operation, OperationKind},
    reconcile::Heard,
    sandbox::{OnTimeout, SandboxState},
    size::MachineSize,
    template::TemplateKind,
};

const GRACE: Duration = Duration::from_secs(60);

fn at(second: i64) -> Timestamp {
    Timestamp::from_timestamp(1_700_000_000 + second, 0).unwrap()
}

fn template_id(number: u128) -> TemplateId {
    TemplateId::from_uuid(Uuid::from_u128(number))
}

fn operation(number: u128, kind: OperationKind, lease: i64) -> Operation {
    Operation {
        id: OperationId::from_uuid(Uuid::from_u128(number)),
        kind,
        started_at: at(0),
        lease_until: at(lease),
    }
}

fn sandbox(template: u128, operation: Option<Operation>) -> SandboxRecord {
    SandboxRecord {
        id: SandboxId::from_uuid(Uuid::from_u128(50)),
        team_id: PLATFORM_TEAM_ID,
        state: SandboxState::Paused,
        reason: String::new(),
        operation,
        version: 3,
        generation: 1,
        template: "made".parse().unwrap(),
        template_id: template_id(template),
        size: MachineSize::default(),
        timeout_sec: None,
        on_timeout: OnTimeout::Destroy,
        metadata: BTreeMap::new(),
        env: BTreeMap::new(),
        host_id: Some(HostId::from_uuid(Uuid::from_u128(1))),
        idempotency_key: None,
        build_id: None,
        created_at: at(0),
        started_at: None,
        expires_at: None,
        updated_at: at(0),
    }
}

fn template(
    state: TemplateState,
    origin: Option<u128>,
    operation: Option<Operation>,
) -> TemplateRecord {
    TemplateRecord {
        id: template_id(7),
        team_id: PLATFORM_TEAM_ID,
        name: "made".parse().unwrap(),
        kind: TemplateKind::Snapshot,
        state,
        operation,
        version: 41,
        size: MachineSize::default(),
        disk_bytes: 0,
        memory_bytes: 0,
        origin: origin.map(|number| SandboxId::from_uuid(Uuid::from_u128(number))),
        layer: None,
        host_id: Some(HostId::from_uuid(Uuid::from_u128(1))),
        created_at: at(0),
        updated_at: at(0),
    }
}

fn image(number: u128, deleting: bool) -> HostImage {
    HostImage {
        id: template_id(number),
        kind: TemplateKind::Snapshot,
        size: MachineSize::default(),
        disk_bytes: 1,
        memory_bytes: 1,
        users: 0,
        deleting,
    }
}

fn planned(
    sandboxes: &[SandboxRecord],
    templates: &[TemplateRecord],
    images: Vec<HostImage>,
    since: &BTreeMap<TemplateId, Timestamp>,
    now: Timestamp,
) -> Vec<Action> {
    let report = HostReport {
        host_id: HostId::from_uuid(Uuid::from_u128(1)),
        epoch: 1,
        sequence: 1,
        sandboxes: Vec::new(),
        images,
    };
    let view = HostView {
        host_id: report.host_id,
        heard: Heard::Report(&report),
        unknown_since: &BTreeMap::new(),
        unknown_images_since: since,
        unknown_grace: GRACE,
        layer_retention: Duration::from_secs(7 * 24 * 3600),
    };
    plan(sandboxes, templates, &report, &view, now)
}

#[test]
fn r34_every_template_has_this_outcome() {
    use TemplateState::{Deleting, Making, Ready};
    let import = |lease| Some(operation(8, OperationKind::Import, lease));
    let of_sandbox = || Some(operation(8, OperationKind::Snapshot, 0));
    let making_it = |lease| sandbox(1, Some(operation(8, OperationKind::Snapshot, lease)));
    let at_something_else = || sandbox(1, Some(operation(9, OperationKind::Snapshot, 101)));
    let give_up = Some("give up the template");
    let free = Some("free the template");
    let user = || vec![sandbox(7, None)];
    let cases = [
        ("imported", Making, None, import(101), vec![], None),
        (
            "its importer died",
            Making,
            None,
            import(100),
            vec![],
            give_up,
        ),
        ("nobody ever made it", Making, None, None, vec![], give_up),
        (
            "made",
            Making,
            Some(50),
            of_sandbox(),
            vec![making_it(101)],
            None,
        ),
        // The sandbox's operation is settled first.
        (
            "its maker died",
            Making,
            Some(50),
            of_sandbox(),
            vec![making_it(100)],
            None,
        ),
        (
            "its operation ended",
            Making,
            Some(50),
            of_sandbox(),
            vec![sandbox(1, None)],
            give_up,
        ),
        (
            "another began",
            Making,
            Some(50),
            of_sandbox(),
            vec![at_something_else()],
            give_up,
        ),
        (
            "its sandbox is gone",
            Making,
            Some(50),
            of_sandbox(),
            vec![],
            give_up,
        ),
        ("ready", Ready, None, None, vec![], None),
        ("in use", Ready, None, None, user(), None),
        ("hidden, in use", Deleting, None, None, user(), None),
        (
            "hidden",
            Deleting,
            Some(50),
            None,
            vec![sandbox(1, None)],
            free,
        ),
    ];
    for (name, state, origin, operation, sandboxes, expected) in cases {
        let record = template(state, origin, operation);
        // Whatever its host has of it.
        for images in [vec![], vec![image(7, false)], vec![image(7, true)]] {
            let since = BTreeMap::from([(template_id(7), at(0))]);
            let records = [record.clone()];
            let actions = planned(&sandboxes, &records, images, &since, at(100));
            let told: Vec<String> = actions.iter().map(ToString::to_string).collect();
            assert_eq!(told, Vec::from_iter(expected), "{name}");
            for action in &actions {
                assert_eq!(action.version(), Some(41));
            }
        }
    }
}

#[test]
fn templates_on_another_host_are_left_alone() {
    for state in TemplateState::ALL {
        let mut elsewhere = template(state, None, None);
        elsewhere.host_id = Some(HostId::from_uuid(Uuid::from_u128(2)));
        let actions = planned(&[], &[elsewhere], vec![], &BTreeMap::new(), at(100));
        assert_eq!(actions, vec![]);
    }
}

#[test]
fn r35_an_image_that_no_template_names_is_deleted_after_its_grace_and_not_before() {
    let images = vec![image(1, false), image(5, false), image(6, true)];
    let mut unknown = BTreeMap::new();
    for (now, expected) in [(0, false), (59, false), (60, true), (61, true)] {
        unknown = note_unknown_images(&unknown, &[], &images, at(now));
        let actions = planned(&[], &[], images.clone(), &unknown, at(now));
        let delete = Action::DeleteUnknownImage {
            image: template_id(5),
        };
        // Not `minimal`, which a host makes by itself, nor what goes already.
        let expected = Vec::from_iter(expected.then_some(delete));
        assert_eq!(actions, expected, "at {now}");
    }
    let mut known = template(TemplateState::Ready, None, None);
    known.id = template_id(5);
    unknown = note_unknown_images(&unknown, &[known], &images, at(62));
    assert_eq!(unknown.get(&template_id(5)), None, "known, it has no past");
    unknown = note_unknown_images(&unknown, &[], &images, at(63));
    assert_eq!(unknown.get(&template_id(5)), Some(&at(63)));
}
