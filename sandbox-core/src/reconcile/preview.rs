//! A plan as administrators see it: what the reconciler would do now, and why none of it is wrong.

use serde::{Deserialize, Serialize};

use super::{Action, Breach, Heard};
use crate::{clock::Timestamp, host::ReportNumber, id::HostId};

/// What the reconciler would do now. Nothing is done by asking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// The host that was asked.
    pub host_id: HostId,
    /// When.
    pub planned_at: Timestamp,
    /// The number of the report that was planned on; absent where there was none, or an old one.
    pub report: Option<ReportNumber>,
    /// Since when the host has been silent; absent unless it has been for too long.
    pub silent_since: Option<Timestamp>,
    /// Sandboxes that were looked at.
    pub sandboxes: u64,
    /// Templates that were looked at.
    pub templates: u64,
    /// How many actions the plan has.
    pub actions_total: u64,
    /// The first [`ACTIONS_MAX`](Self::ACTIONS_MAX) of them, and before all others those that break a
    /// rule.
    pub actions: Vec<PlannedAction>,
}

/// One action of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedAction {
    /// The ID of what it is about.
    pub about: String,
    /// What would be done, for people.
    pub does: String,
    /// The rules that it breaks, for people: none, or the planner has a fault. What breaks one is
    /// not done.
    pub breaks: Vec<String>,
}

impl Preview {
    /// The most actions that are told.
    pub const ACTIONS_MAX: usize = 500;

    /// A plan as it is shown.
    pub(crate) fn new(
        host_id: HostId,
        planned_at: Timestamp,
        heard: Heard<'_>,
        looked_at: (usize, usize),
        actions: &[Action],
        breaches: &[Breach],
    ) -> Self {
        let broken = |number: usize| {
            let of = breaches
                .iter()
                .filter(move |breach| breach.action == number);
            of.map(ToString::to_string).collect()
        };
        let mut told: Vec<PlannedAction> = actions
            .iter()
            .enumerate()
            .map(|(number, action)| PlannedAction {
                about: action.about().to_string(),
                does: action.to_string(),
                breaks: broken(number),
            })
            .collect();
        told.sort_by_key(|action| action.breaks.is_empty());
        told.truncate(Self::ACTIONS_MAX);
        Self {
            host_id,
            planned_at,
            report: match heard {
                Heard::Report(report) => Some(report.number()),
                Heard::Stale | Heard::Silent { .. } => None,
            },
            silent_since: match heard {
                Heard::Silent { since } => Some(since),
                Heard::Report(_) | Heard::Stale => None,
            },
            sandboxes: looked_at.0 as u64,
            templates: looked_at.1 as u64,
            actions_total: actions.len() as u64,
            actions: told,
        }
    }
}
