//! The background work: round after round, read the store, read the host, plan, repair.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::sync::Mutex;

use crate::{
    authorize::{self, Resource},
    caller::Caller,
    clock::Timestamp,
    engine::{
        Engine, Inner, later, rights,
        survey::{Survey, Word},
    },
    error::Error,
    id::{OperationId, SandboxId, TemplateId},
    planted::{Bug, planted},
    reconcile::{Action, Breach, HostView, Preview, Records, Silence, check, plan},
};

/// The pause after a round that failed.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// The pause before what was due already is looked at again.
const OVERDUE_PAUSE: Duration = Duration::from_millis(250);

/// What rounds remember of one another. Holding it is the right to make a round.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    pub(super) memory: Mutex<Memory>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    pub(super) unknown_since: BTreeMap<SandboxId, Timestamp>,
    pub(super) unknown_images_since: BTreeMap<TemplateId, Timestamp>,
    swept_at: Option<Timestamp>,
    /// When this engine last told the others that it hears the host.
    pub(super) noted_at: Option<Timestamp>,
    pub(super) silence: Option<Silence>,
    /// Operations that an earlier engine left, whatever their leases say.
    pub(super) disowned: BTreeSet<OperationId>,
}

/// What a round found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Round {
    /// The host's sequence in the report.
    pub(super) sequence: u64,
    /// Repairs that were begun.
    pub(super) actions: usize,
    /// When there is something to do even if nothing happens.
    next_due: Option<Timestamp>,
}

impl Engine {
    /// What a round would do now; see [`Api`](crate::api::Api::reconciler_plan).
    pub(super) async fn reconciler_plan(&self, caller: &Caller) -> Result<Preview, Error> {
        rights::on_platform(caller, authorize::Action::Use, Resource::AllTeams)?;
        let inner = &self.inner;
        let mut memory = inner.rounds.memory.lock().await.clone();
        let survey = inner.survey(&mut memory, false).await?;
        let (actions, breaches) = inner.plan(&survey, &memory);
        Ok(Preview::new(
            inner.host_id,
            survey.now,
            survey.word.heard(),
            (survey.records.len(), survey.templates.len()),
            &actions,
            &breaches,
        ))
    }
}

impl Inner {
    /// Settles what an earlier engine left behind.
    pub(super) async fn recover(self: &Arc<Self>) -> Result<(), Error> {
        self.round(self.config.sole_owner).await.map(drop)
    }

    /// Rounds until the engine stops.
    pub(super) async fn background(self: &Arc<Self>) {
        while !self.stopping() {
            let pause = match self.round(false).await {
                Ok(round) => self.wait_for_work(round).await,
                Err(error) => {
                    tracing::warn!(%error, "reconciling failed; trying again");
                    FAILURE_PAUSE
                }
            };
            tokio::select! {
                biased;
                () = self.stopped() => {}
                () = self.clock.sleep(pause) => {}
            }
        }
    }

    /// Returns when there may be something to do, with the pause before looking.
    async fn wait_for_work(&self, round: Round) -> Duration {
        let now = self.now();
        let wait = round
            .next_due
            .map_or(self.config.round_max, |due| {
                due.signed_duration_since(now).to_std().unwrap_or_default()
            })
            .min(self.config.round_max)
            .max(self.config.round_min);
        let patience = match planted(Bug::NoPolling) {
            true => Duration::MAX / 4,
            false => wait,
        };
        tokio::select! {
            biased;
            changed = self.host.changed(round.sequence, patience) => {
                if let Err(error) = changed {
                    tracing::warn!(%error, "the host does not tell its changes");
                    return FAILURE_PAUSE;
                }
            }
            // A host that waits longer than it was asked to delays no deadline.
            () = self.clock.sleep(wait), if !planted(Bug::NoPolling) => return Duration::ZERO,
            () = self.nudge.notified() => {}
            () = self.stopped() => return Duration::ZERO,
        }
        self.config.round_min
    }

    /// One round. With `disown`, operations that are not at work here count as abandoned from now on.
    pub(super) async fn round(self: &Arc<Self>, disown: bool) -> Result<Round, Error> {
        let mut memory = self.rounds.memory.lock().await;
        let survey = self.survey(&mut memory, disown).await?;
        if let Word::Report(report) = &survey.word
            && let Err(error) = self.measure_minimal(&survey.templates, report).await
        {
            tracing::warn!(%error, "the size of `minimal` not noted");
        }
        let (actions, breaches) = self.plan(&survey, &memory);
        for (number, action) in actions.iter().enumerate() {
            let about = action.about();
            if let Some(breach) = breaches.iter().find(|breach| breach.action == number) {
                tracing::error!(%about, %action, %breach, "not done: a rule of all plans is broken");
                continue;
            }
            tracing::info!(%about, %action, "reconciling");
            if let Err(error) = self.repair(action, survey.planned(about)).await {
                tracing::warn!(%about, %action, %error, "not repaired yet");
            }
        }
        self.sweep(&mut memory.swept_at, survey.now).await;
        Ok(Round {
            sequence: match &survey.word {
                Word::Report(report) => report.sequence,
                Word::Stale | Word::Silent { .. } => 0,
            },
            actions: actions.len(),
            next_due: self.next_due(&survey, &memory),
        })
    }

    /// What a round would do now, and what of that breaks a rule.
    pub(super) fn plan(&self, survey: &Survey, memory: &Memory) -> (Vec<Action>, Vec<Breach>) {
        let view = HostView {
            host_id: self.host_id,
            heard: survey.word.heard(),
            unknown_since: &memory.unknown_since,
            unknown_images_since: &memory.unknown_images_since,
            unknown_grace: match planted(Bug::OrphanWithoutGrace) {
                true => Duration::ZERO,
                false => self.config.unknown_grace,
            },
            layer_retention: self.config.layer_retention,
        };
        let records = Records {
            sandboxes: &survey.records,
            templates: &survey.templates,
            builds: &survey.builds,
        };
        let actions = plan(records, &view, survey.now);
        let breaches = check(records, &view, survey.now, &actions);
        (actions, breaches)
    }

    fn next_due(&self, survey: &Survey, memory: &Memory) -> Option<Timestamp> {
        let due = survey
            .records
            .iter()
            .filter(|record| !survey.waits_for_host(record));
        let of_records = due.filter_map(|record| {
            record
                .operation
                .as_ref()
                .map(|operation| operation.lease_until)
                .or(record.expires_at)
        });
        // A template that is made of a sandbox is due with that sandbox's operation.
        let of_templates = survey
            .templates
            .iter()
            .filter(|record| record.origin.is_none())
            .filter_map(|record| record.operation.as_ref())
            .map(|operation| operation.lease_until);
        let machines = memory.unknown_since.values();
        let of_unknown = machines
            .chain(memory.unknown_images_since.values())
            .map(|since| later(*since, self.config.unknown_grace));
        let of_builds = survey.builds.iter().filter_map(|build| build.lease_until);
        let dues = of_records
            .chain(of_templates)
            .chain(of_unknown)
            .chain(of_builds);
        // What is due already has been seen to, as far as it can be for now.
        dues.map(|due| due.max(later(survey.now, OVERDUE_PAUSE)))
            .min()
    }

    /// Forgets operations that ended long ago, now and then.
    async fn sweep(&self, swept_at: &mut Option<Timestamp>, now: Timestamp) {
        let every = self.config.operation_retention / 24;
        if swept_at.is_some_and(|at| now < later(at, every)) {
            return;
        }
        let Ok(retention) = chrono::TimeDelta::from_std(self.config.operation_retention) else {
            return;
        };
        let Some(before) = now.checked_sub_signed(retention) else {
            return;
        };
        *swept_at = Some(now);
        self.sweep_builds(now).await;
        if let Err(error) = self.store.remove_operations_finished_before(before).await {
            tracing::warn!(%error, "old operations not removed");
        }
    }
}
