//! The reconciler's plan on the wire.

use chrono::{DateTime, Utc};
use sandbox_core::reconcile::{PlannedAction, Preview};
use serde::Serialize;
use utoipa::ToSchema;

/// What the reconciler would do now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Plan {
    /// The host that was asked.
    host_id: String,
    /// When.
    planned_at: DateTime<Utc>,
    /// The report that was planned on; null where there was none, or an old one.
    #[schema(required = true)]
    report: Option<Report>,
    /// Since when the host has been silent; null unless it has been for too long.
    #[schema(required = true)]
    silent_since: Option<DateTime<Utc>>,
    /// Sandboxes that were looked at.
    sandboxes: u64,
    /// Templates that were looked at.
    templates: u64,
    /// How many actions the plan has.
    actions_total: u64,
    /// At most 500 of them; before all others those that break a rule.
    actions: Vec<PlanAction>,
}

/// The number of a host's report.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Report {
    /// Greater with every start of the host's process.
    epoch: u64,
    /// Counts the changes since then.
    sequence: u64,
}

/// One action of a plan.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlanAction {
    /// The ID of what it is about.
    about: String,
    /// What would be done, for people.
    does: String,
    /// The rules that it breaks, for people; what breaks one is not done.
    breaks: Vec<String>,
}

impl From<Preview> for Plan {
    fn from(plan: Preview) -> Self {
        Self {
            host_id: plan.host_id.to_string(),
            planned_at: plan.planned_at,
            report: plan.report.map(|number| Report {
                epoch: number.epoch,
                sequence: number.sequence,
            }),
            silent_since: plan.silent_since,
            sandboxes: plan.sandboxes,
            templates: plan.templates,
            actions_total: plan.actions_total,
            actions: plan.actions.into_iter().map(PlanAction::from).collect(),
        }
    }
}

impl From<PlannedAction> for PlanAction {
    fn from(action: PlannedAction) -> Self {
        Self {
            about: action.about,
            does: action.does,
            breaks: action.breaks,
        }
    }
}
