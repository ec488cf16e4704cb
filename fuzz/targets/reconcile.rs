//! R34: whatever records, templates and report come together, there is a plan, it breaks no rule of
//! all plans, and what it writes down once is not written down again by the next.

#![no_main]

use std::{collections::BTreeMap, time::Duration};

use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};
use sandbox_core::{
    audit::Actor,
    build::{BuildRecord, BuildStatus, LayerKey, Recipe},
    clock::Timestamp,
    error::Error,
    host::{HostImage, HostReport, HostSandbox, HostSandboxState},
    id::{AuditId, BuildId, HostId, OperationId, PLATFORM_TEAM_ID, SandboxId, TemplateId},
    lifecycle::{Change, Stamp, Transition, transition},
    operation::{Operation, OperationKind},
    reconcile::{
        About, Action, Heard, HostView, Records, check, note_unknown, note_unknown_images, plan,
    },
    sandbox::{OnTimeout, SandboxRecord, SandboxState},
    size::MachineSize,
    template::{TemplateKind, TemplateRecord, TemplateState},
};
use uuid::Uuid;

const NOW: i64 = 1000;

#[derive(Debug, Arbitrary)]
struct World {
    sandboxes: Vec<Sandbox>,
    templates: Vec<Template>,
    machines: Vec<Machine>,
    images: Vec<(u8, bool)>,
    builds: Vec<Build>,
    heard: Word,
    grace_sec: u8,
    unknown_for_sec: u8,
}

#[derive(Debug, Arbitrary)]
enum Word {
    Report,
    Stale,
    Silent,
}

#[derive(Debug, Arbitrary)]
struct Sandbox {
    state: u8,
    operation: Option<Doing>,
    version: u32,
    generation: u8,
    template: u8,
    pauses: bool,
    expires: Option<i16>,
    elsewhere: bool,
    build: Option<u8>,
}

#[derive(Debug, Arbitrary)]
struct Build {
    running: bool,
    lease: Option<i16>,
    attempt: u8,
    sandbox: Option<u8>,
}

#[derive(Debug, Arbitrary)]
struct Doing {
    kind: u8,
    id: u8,
    lease: i16,
}

#[derive(Debug, Arbitrary)]
struct Template {
    state: u8,
    operation: Option<Doing>,
    version: u32,
    origin: Option<u8>,
    elsewhere: bool,
    layer: bool,
}

#[derive(Debug, Arbitrary)]
struct Machine {
    number: u8,
    generation: u8,
    state: u8,
}

fn uuid(number: u8) -> Uuid {
    Uuid::from_u128(u128::from(number))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_timestamp(second, 0).expect("seconds that the calendar has")
}

fn host(elsewhere: bool) -> HostId {
    HostId::from_uuid(uuid(1 + u8::from(elsewhere)))
}

fn pick<T: Copy>(all: &[T], number: u8) -> T {
    all[usize::from(number) % all.len()]
}

fn operation(doing: &Doing, kinds: &[OperationKind]) -> Operation {
    Operation {
        id: OperationId::from_uuid(uuid(doing.id)),
        kind: pick(kinds, doing.kind),
        started_at: at(0),
        lease_until: at(NOW + i64::from(doing.lease)),
    }
}

/// Only what the transition table lets come about: a create goes with a pending record.
fn sandbox(number: u8, sandbox: &Sandbox) -> SandboxRecord {
    use OperationKind::{Create, Destroy, Pause, Resume, Snapshot};
    let operation = sandbox
        .operation
        .as_ref()
        .map(|doing| operation(doing, &[Create, Destroy, Pause, Resume, Snapshot]));
    let created = operation.as_ref().is_some_and(|one| one.kind == Create);
    SandboxRecord {
        id: SandboxId::from_uuid(uuid(number)),
        team_id: PLATFORM_TEAM_ID,
        state: match created {
            true => SandboxState::Pending,
            false => pick(&SandboxState::ALL, sandbox.state),
        },
        reason: String::new(),
        operation,
        version: u64::from(sandbox.version),
        generation: u64::from(sandbox.generation),
        template: "minimal".parse().expect("a name"),
        template_id: TemplateId::from_uuid(uuid(sandbox.template)),
        size: MachineSize::default(),
        timeout_sec: sandbox.expires.map(|_| 60),
        on_timeout: match sandbox.pauses {
            true => OnTimeout::Pause,
            false => OnTimeout::Destroy,
        },
        metadata: BTreeMap::new(),
        env: BTreeMap::new(),
        host_id: Some(host(sandbox.elsewhere)),
        idempotency_key: None,
        build_id: sandbox.build.map(|build| BuildId::from_uuid(uuid(build))),
        created_at: at(0),
        started_at: None,
        expires_at: sandbox.expires.map(|second| at(NOW + i64::from(second))),
        updated_at: at(0),
    }
}

/// Likewise: only what is being made has an operation.
fn template(number: u8, template: &Template) -> TemplateRecord {
    let kinds = [OperationKind::Snapshot, OperationKind::Import];
    let state = pick(&TemplateState::ALL, template.state);
    TemplateRecord {
        id: TemplateId::from_uuid(uuid(number)),
        team_id: PLATFORM_TEAM_ID,
        name: "made".parse().expect("a name"),
        kind: TemplateKind::Image,
        state,
        operation: template
            .operation
            .as_ref()
            .filter(|_| state == TemplateState::Making)
            .map(|doing| operation(doing, &kinds)),
        version: u64::from(template.version),
        size: MachineSize::default(),
        disk_bytes: 0,
        memory_bytes: 0,
        origin: template
            .origin
            .map(|origin| SandboxId::from_uuid(uuid(origin))),
        host_id: Some(host(template.elsewhere)),
        layer: template.layer.then(|| LayerKey::from([7; 32])),
        created_at: at(0),
        updated_at: at(0),
    }
}

/// One that has not ended.
fn build(number: u8, build: &Build) -> BuildRecord {
    BuildRecord {
        id: BuildId::from_uuid(uuid(number)),
        team_id: PLATFORM_TEAM_ID,
        name: "made".parse().expect("a name"),
        base_template: "minimal".parse().expect("a name"),
        base_id: TemplateId::from_uuid(uuid(0)),
        recipe: Recipe::parse_list(&["true"]).expect("a recipe"),
        context: None,
        healthcheck: None,
        size: MachineSize::default(),
        no_cache: false,
        status: match build.running {
            true => BuildStatus::Running,
            false => BuildStatus::Pending,
        },
        current_step: 0,
        total_steps: 3,
        attempt: u32::from(build.attempt),
        handed_back: 0,
        lease_until: build.lease.map(|second| at(NOW + i64::from(second))),
        sandbox_id: build
            .sandbox
            .map(|number| SandboxId::from_uuid(uuid(number))),
        template_id: None,
        failure: None,
        actor: Actor::system("fuzz"),
        idempotency_key: None,
        version: 1,
        created_at: at(0),
        started_at: None,
        finished_at: None,
        updated_at: at(0),
    }
}

fn report(world: &World) -> HostReport {
    let machines: BTreeMap<u8, &Machine> =
        world.machines.iter().map(|one| (one.number, one)).collect();
    let images: BTreeMap<u8, bool> = world.images.iter().copied().collect();
    HostReport {
        host_id: host(false),
        epoch: 1,
        sequence: 1,
        sandboxes: machines
            .into_values()
            .map(|machine| HostSandbox {
                id: SandboxId::from_uuid(uuid(machine.number)),
                generation: u64::from(machine.generation),
                state: match machine.state % 4 {
                    0 => HostSandboxState::Creating,
                    1 => HostSandboxState::Running,
                    2 => HostSandboxState::Paused,
                    _ => HostSandboxState::Stopped {
                        reason: "it ended".to_owned(),
                    },
                },
                at_work: machine.state & 0x10 != 0,
            })
            .collect(),
        images: images
            .into_iter()
            .map(|(number, deleting)| HostImage {
                id: TemplateId::from_uuid(uuid(number)),
                kind: TemplateKind::Image,
                size: MachineSize::default(),
                disk_bytes: 0,
                memory_bytes: 0,
                users: 0,
                deleting,
            })
            .collect(),
    }
}

/// What an action writes, where that is all it does.
fn change(action: &Action) -> Option<Change> {
    let reason = || "as planned".to_owned();
    Some(match action {
        Action::MarkStopped { .. } => Change::MachineEnded { reason: reason() },
        Action::MarkRunning { .. } => Change::MachineFound { reason: reason() },
        Action::MarkPaused { .. } => Change::PausedFound { reason: reason() },
        Action::MarkMissing { .. } => Change::HostSilent { reason: reason() },
        Action::CompleteCreate { .. } => Change::CreateSucceeded,
        Action::SettleOperation { standing, .. } => Change::Ended {
            standing: standing.clone(),
            status: standing.status_of(OperationKind::Pause, Error::Unavailable(reason())),
            template: None,
        },
        _ => return None,
    })
}

fuzz_target!(|world: World| {
    let mut records: Vec<SandboxRecord> = (0..64)
        .zip(&world.sandboxes)
        .map(|(number, one)| sandbox(number, one))
        .collect();
    let templates: Vec<TemplateRecord> = (0..64)
        .zip(&world.templates)
        .map(|(number, one)| template(number, one))
        .collect();
    let builds: Vec<BuildRecord> = (0..64)
        .zip(&world.builds)
        .map(|(number, one)| build(number, one))
        .collect();
    let report = report(&world);
    let first_seen = at(NOW - i64::from(world.unknown_for_sec));
    let unknown = note_unknown(&BTreeMap::new(), &records, &report, first_seen);
    let images = note_unknown_images(&BTreeMap::new(), &templates, &report.images, first_seen);
    let view = HostView {
        host_id: report.host_id,
        heard: match world.heard {
            Word::Report => Heard::Report(&report),
            Word::Stale => Heard::Stale,
            Word::Silent => Heard::Silent { since: at(0) },
        },
        unknown_since: &unknown,
        unknown_images_since: &images,
        unknown_grace: Duration::from_secs(u64::from(world.grace_sec)),
        layer_retention: Duration::from_secs(7 * 24 * 3600),
    };
    let known = Records {
        sandboxes: &records,
        templates: &templates,
        builds: &builds,
    };
    let actions = plan(known, &view, at(NOW));
    let breaches = check(known, &view, at(NOW), &actions);
    assert!(breaches.is_empty(), "{breaches:?} in {actions:?}");

    let mut written = Vec::new();
    for action in &actions {
        let Some(change) = change(action) else {
            continue;
        };
        let record = records
            .iter_mut()
            .find(|record| About::Sandbox(record.id) == action.about())
            .expect("the record that it was planned on");
        let stamp = Stamp {
            actor: Actor::system("reconciler"),
            at: at(NOW),
            audit_id: AuditId::from_uuid(uuid(0)),
        };
        match transition(record, &change, stamp) {
            Ok(Transition::Write(write)) => *record = write.record,
            other => panic!("{action} can't be written: {other:?}"),
        }
        written.push(record.id);
    }
    // A deadline that has passed may strike once the record is true; nothing is marked twice.
    let known = Records {
        sandboxes: &records,
        templates: &templates,
        builds: &builds,
    };
    for action in plan(known, &view, at(NOW)) {
        let again = written
            .iter()
            .any(|id| About::Sandbox(*id) == action.about());
        assert!(!again || change(&action).is_none(), "{action} comes again");
    }
});
