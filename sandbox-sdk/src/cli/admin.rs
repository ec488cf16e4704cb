//! What administrators look at.

use sandbox_core::reconcile::Preview;
use serde_json::json;

use super::{failure::Failure, session::Session, view};

/// What the reconciler would do now. Fails where a rule is broken, which is a fault of the planner.
pub(super) async fn plan(session: &Session) -> Result<(), Failure> {
    let plan = session.client.api.reconciler_plan().await?;
    if session.json {
        view::json(&json!(plan))?;
    } else {
        for line in lines(&plan) {
            view::line(line)?;
        }
    }
    let broken = plan.actions.iter().filter(|one| !one.breaks.is_empty());
    match broken.count() {
        0 => Ok(()),
        count => Err(Failure::Own(format!(
            "{count} of these actions break a rule of all plans and are not done; please report this"
        ))),
    }
}

fn lines(plan: &Preview) -> Vec<String> {
    let host = plan.host_id;
    let word = match (plan.report, plan.silent_since) {
        (Some(number), _) => format!("report {}.{}", number.epoch, number.sequence),
        (None, Some(since)) => format!("silent since {}", since.format("%Y-%m-%d %H:%M:%S UTC")),
        (None, None) => "an old report, left aside".to_owned(),
    };
    let mut lines = vec![format!(
        "{host}: {word}; {} sandboxes and {} templates looked at",
        plan.sandboxes, plan.templates
    )];
    for action in &plan.actions {
        lines.push(format!("{}  {}", action.about, action.does));
        lines.extend(
            action
                .breaks
                .iter()
                .map(|why| format!("  BREAKS A RULE: {why}")),
        );
    }
    let untold = plan.actions_total.saturating_sub(plan.actions.len() as u64);
    match (plan.actions_total, untold) {
        (0, _) => lines.push("nothing to do".to_owned()),
        (_, 0) => {}
        (_, untold) => lines.push(format!("and {untold} more")),
    }
    lines
}

#[cfg(test)]
mod tests {
    use sandbox_core::{
        clock::Timestamp,
        host::ReportNumber,
        id::HostId,
        reconcile::{PlannedAction, Preview},
    };
    use uuid::Uuid;

    #[test]
    fn a_plan_is_told_with_what_breaks_a_rule_and_what_is_left_out() {
        let action = |breaks: &[&str]| PlannedAction {
            about: "sb-1".to_owned(),
            does: "expire".to_owned(),
            breaks: breaks.iter().map(ToString::to_string).collect(),
        };
        let mut plan = Preview {
            host_id: HostId::from_uuid(Uuid::nil()),
            planned_at: Timestamp::UNIX_EPOCH,
            report: Some(ReportNumber {
                epoch: 3,
                sequence: 9,
            }),
            silent_since: None,
            sandboxes: 2,
            templates: 1,
            actions_total: 3,
            actions: vec![action(&["it is paused"]), action(&[])],
        };
        let told = super::lines(&plan).join("\n");
        for part in ["report 3.9", "BREAKS A RULE: it is paused", "and 1 more"] {
            assert!(told.contains(part), "{told}");
        }
        plan.actions.clear();
        plan.actions_total = 0;
        plan.report = None;
        plan.silent_since = Some(Timestamp::UNIX_EPOCH);
        let told = super::lines(&plan).join("\n");
        assert!(told.contains("silent since 1970-01-01"), "{told}");
        assert!(told.ends_with("nothing to do"), "{told}");
    }
}
