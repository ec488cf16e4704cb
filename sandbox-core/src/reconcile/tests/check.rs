//! The checker finds what is planted: one that finds nothing proves nothing.

use super::*;

fn rules(
    records: &[SandboxRecord],
    machines: Vec<HostSandbox>,
    actions: &[Action],
) -> Vec<Invariant> {
    let report = report(machines);
    rules_on(records, Heard::Report(&report), actions)
}

fn rules_on(records: &[SandboxRecord], heard: Heard<'_>, actions: &[Action]) -> Vec<Invariant> {
    let view = HostView {
        host_id: host(1),
        heard,
        unknown_since: &[(sandbox(9), at(100))].into(),
        unknown_images_since: &BTreeMap::new(),
        unknown_grace: GRACE,
        layer_retention: Duration::from_secs(7 * 24 * 3600),
    };
    let breaches = check(
        Records {
            sandboxes: records,
            ..Records::default()
        },
        &view,
        at(100),
        actions,
    );
    breaches
        .into_iter()
        .map(|breach| breach.invariant)
        .collect()
}

fn running(doing: Doing) -> SandboxRecord {
    record(1, SandboxState::Running, doing, None)
}

#[test]
fn two_actions_on_one_sandbox_are_found() {
    let id = sandbox(1);
    let expire = Action::Expire { id, version: 41 };
    let found = rules(
        &[running(Doing::Nothing)],
        vec![],
        &[expire.clone(), expire],
    );
    assert_eq!(found, [Invariant::Single]);
}

#[test]
fn an_action_on_another_version_or_on_no_record_is_found() {
    let expire = |id, version| Action::Expire { id, version };
    let records = [running(Doing::Nothing)];
    let actions = [expire(sandbox(1), 40), expire(sandbox(2), 41)];
    assert_eq!(
        rules(&records, vec![], &actions),
        [Invariant::Version, Invariant::Version]
    );
}

#[test]
fn the_end_of_what_is_paused_is_found() {
    let id = sandbox(1);
    let paused = || vec![machine(1, 2, HostSandboxState::Paused)];
    for action in [
        Action::Expire { id, version: 41 },
        Action::CleanUp {
            id,
            version: 41,
            generation: 2,
        },
        Action::MarkStopped {
            id,
            version: 41,
            reason: String::new(),
        },
    ] {
        let found = rules(&[running(Doing::Nothing)], paused(), &[action]);
        assert_eq!(found, [Invariant::Paused]);
    }
    // What someone wants destroyed is another matter.
    let ordered = running(Doing::Lapsed(OperationKind::Destroy));
    let redo = Action::RedoDestroy { id, version: 41 };
    assert_eq!(rules(&[ordered], paused(), &[redo]), []);
}

#[test]
fn work_on_a_record_that_has_an_owner_is_found() {
    let id = sandbox(1);
    let redo = Action::RedoDestroy { id, version: 41 };
    let owned = running(Doing::Live(OperationKind::Destroy));
    assert_eq!(rules(&[owned], vec![], &[redo]), [Invariant::Lease]);
}

#[test]
fn the_end_of_an_unknown_machine_before_its_grace_is_found() {
    let destroy = Action::DestroyUnknown {
        id: sandbox(9),
        generation: 1,
    };
    assert_eq!(rules(&[], vec![], &[destroy]), [Invariant::Grace]);
}

#[test]
fn what_the_transition_table_denies_is_found() {
    let id = sandbox(1);
    let mark = Action::MarkRunning { id, version: 41 };
    let found = rules(&[running(Doing::Nothing)], vec![], &[mark]);
    assert_eq!(found, [Invariant::Table]);
}

#[test]
fn what_a_host_has_not_said_is_found() {
    let id = sandbox(1);
    let stopped = Action::MarkStopped {
        id,
        version: 41,
        reason: String::new(),
    };
    let missing = Action::MarkMissing {
        id,
        version: 41,
        reason: String::new(),
    };
    let records = [running(Doing::Nothing)];
    let silent = Heard::Silent { since: at(0) };
    let found = rules_on(&records, silent, std::slice::from_ref(&stopped));
    assert_eq!(found, [Invariant::Heard]);
    assert_eq!(
        rules_on(&records, Heard::Stale, &[stopped]),
        [Invariant::Heard]
    );
    assert_eq!(rules(&records, vec![], &[missing]), [Invariant::Heard]);
}

#[test]
fn what_a_host_shows_in_the_middle_of_its_work_is_found() {
    let id = sandbox(1);
    let lapsed = |kind| record(1, SandboxState::Paused, Doing::Lapsed(kind), None);
    let end = Action::SettleOperation {
        id,
        version: 41,
        standing: Standing::Paused,
    };
    let records = [lapsed(OperationKind::Snapshot)];
    let shown = vec![at_work(HostSandboxState::Paused)];
    let found = rules(&records, shown, std::slice::from_ref(&end));
    assert_eq!(found, [Invariant::Heard]);
    let at_rest = vec![machine(1, 2, HostSandboxState::Paused)];
    assert_eq!(rules(&records, at_rest, &[end]), []);
    let mark = Action::MarkPaused { id, version: 41 };
    let shown = vec![at_work(HostSandboxState::Paused)];
    assert_eq!(
        rules(&[running(Doing::Nothing)], shown, &[mark]),
        [Invariant::Heard]
    );
}
