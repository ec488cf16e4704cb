use std::time::Duration;

use super::*;
use crate::host::{HostSeen, ReportNumber};

const PATIENCE: Duration = Duration::from_secs(30);

fn numbered(epoch: u64, sequence: u64) -> HostReport {
    HostReport {
        epoch,
        sequence,
        ..report(Vec::new())
    }
}

fn noted(second: i64) -> HostSeen {
    HostSeen {
        host_id: host(1),
        report: ReportNumber::default(),
        seen_at: at(second),
    }
}

#[test]
fn r35_a_report_that_was_overtaken_is_left_aside() {
    let newest = Some(numbered(2, 5).number());
    for (epoch, sequence, fresh) in [
        (2, 5, true),
        (2, 6, true),
        (3, 0, true),
        (2, 4, false),
        (1, 9, false),
    ] {
        let report = numbered(epoch, sequence);
        let heard = Heard::of(&report, newest);
        assert_eq!(
            matches!(heard, Heard::Report(_)),
            fresh,
            "{epoch} {sequence}"
        );
        assert!(matches!(Heard::of(&report, None), Heard::Report(_)));
    }
    let running = record(1, SandboxState::Running, Doing::Nothing, Some(1));
    assert_eq!(planned_on(&[running], Heard::Stale), vec![]);
}

#[test]
fn r37_a_host_is_silent_when_nobody_has_heard_it_for_as_long_as_is_to_be_waited() {
    let first = Silence::goes_on(None, Some(noted(0)), at(10));
    assert!(first.heard(at(39), PATIENCE).is_none());
    let still = Silence::goes_on(Some(first), Some(noted(0)), at(39));
    let silent = still.heard(at(40), PATIENCE);
    assert!(matches!(silent, Some(Heard::Silent { since }) if since == at(0)));
}

#[test]
fn r37_a_host_that_another_hears_is_not_silent_whatever_the_clocks_say() {
    // The other's clock is far behind, and goes on.
    let mut silence = Silence::goes_on(None, Some(noted(-500)), at(10));
    for step in 1..20 {
        let now = at(10 + 10 * step);
        silence = Silence::goes_on(Some(silence), Some(noted(-500 + step)), now);
        assert!(silence.heard(now, PATIENCE).is_none(), "at {now}");
    }
    let now = at(10 + 10 * 19 + 30);
    silence = Silence::goes_on(Some(silence), Some(noted(-500 + 19)), now);
    assert!(silence.heard(now, PATIENCE).is_some());
}

#[test]
fn r37_a_silence_is_measured_from_its_beginning_where_nobody_ever_heard_the_host() {
    let silence = Silence::goes_on(None, None, at(10));
    let silent = silence.heard(at(40), PATIENCE);
    assert!(matches!(silent, Some(Heard::Silent { since }) if since == at(10)));
}

#[test]
fn r37_a_silent_host_ends_no_lifetime_and_destroys_nothing() {
    for state in SandboxState::ALL {
        let records = [record(1, state, Doing::Nothing, Some(1))];
        for action in planned_on(&records, Heard::Silent { since: at(0) }) {
            assert!(matches!(action, Action::MarkMissing { .. }), "{action}");
        }
    }
}
